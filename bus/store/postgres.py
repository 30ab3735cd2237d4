"""The bus on PostgreSQL: a connection that runs operations, each in one transaction.

The time is the server's. Texts go in pipelines: a round trip for each query, `begin` with the first, `commit` with the
last; one query alone needs neither, since a pipeline is a transaction by itself. Writes are READ COMMITTED: they lock
the rows they judge before they look (`/*postgres … for update */` in the texts), so that what they looked at holds
until the commit; serialization failures and deadlocks are repeated whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader

from bus import clock
from bus.errors import BusError, TryAgain, error
from bus.operation import Load, Operation, Query, Request, Row, Statement, Steps
from bus.store import postgres_schema, rendering
from bus.store.drive import Key, Lately
from bus.store.listening import Listening
from bus.store.place import Fact
from bus.store.refusals import LOST, Lost, translate
from bus.store.url import Server
from bus.store.wire import Ask, Wire

T = TypeVar("T")

TIMEOUT = 5.0  # seconds to wait for others, or for the server to come back
SETTINGS = {
    # A bus has few tables and knows its indexes: plans are made once, and never by what the statistics of a queue,
    # which is empty one moment and full the next, happened to say.
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "5s",
    # An agent that is stopped in the middle must not hang the others.
    "idle_in_transaction_session_timeout": "10s",
    "client_min_messages": "warning",
    "timezone": "UTC",
}
BEATEN = "beaten"  # marks, in a text, a heartbeat
WRITE, READ = "begin isolation level read committed", "begin isolation level repeatable read read only"


class Connection:
    """One connection to one bus, for one thread at a time. `create` makes the bus, or brings it to this version."""

    def __init__(self, url: Server, create: bool = False, read_only: bool = False) -> None:
        self.url = url
        self._read_only = read_only
        self.generation = 0  # grows when the connection is replaced
        self._local: list[Ask] = []  # what each transaction sets, behind a pooler
        self._lately = Lately()
        self._seldom: dict[Key, float] = {}
        self._process = os.getpid()
        self._psycopg: psycopg.Connection[Row] | None = None
        self._begin: str | None = None
        self._failed = self._blemished = self._committing = False
        self._closing: str | None = None
        self._open(create)

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction; repeat it whole while others are in the way, or after the connection
        was lost, while time is left."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return self._write(operation) if operation.writes else self._read(operation)
            except Lost as lost:
                self._drop()
                if time.monotonic() > deadline:
                    raise error("unreachable", f"{self.url.path} can't be reached") from lost
                time.sleep(0.05)
            except TryAgain as busy:
                if busy.code != "busy" or time.monotonic() > deadline:
                    raise

    def ask(self, asks: Sequence[Ask]) -> None:
        """Run statements in one transaction, one round trip. Raises `Lost`, and the driver's errors."""
        self.driver()
        self._wire.ask(asks)

    def listen(self, bells: Sequence[str]) -> Listening:
        """Hear these doorbells from now on; where notifications don't get through, look twice a second."""
        try:
            return Listening(self, bells)
        except Lost as lost:
            raise error("unreachable", f"{self.url.path} can't be reached") from lost

    def sound(self) -> bool:
        """Whether there is a connection that has not broken."""
        return self._psycopg is not None and not self._psycopg.closed

    def rung(self) -> bool:
        """Whether a notification has come in since this was last asked."""
        heard = False
        while self._psycopg and self._psycopg.pgconn.notifies():
            heard = True
        return heard

    def driver(self) -> psycopg.Connection[Row]:
        """The driver's connection, made anew when it was lost. Raises `Lost`."""
        if self._psycopg is None or self._psycopg.closed or self._hung_up():
            try:
                self._open(False)
            except TryAgain as problem:
                raise Lost from problem
        assert self._psycopg
        return self._psycopg

    def _hung_up(self) -> bool:
        found = self._psycopg
        return bool(found and found.info.transaction_status == TransactionStatus.IDLE and self._wire.broken())

    def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""
        version = self.driver().info.parameter_status("server_version") or ""
        return [
            ("bus", "ok", f"{self.url.path}, {self.sizes()['database']} bytes in its database"),
            ("library", "ok", f"PostgreSQL {version.partition(' ')[0]}, psycopg {psycopg.__version__}"),
        ]

    def sizes(self) -> dict[str, int]:
        """Of what takes room on the disk, in bytes."""
        ((size,),) = self.driver().execute("select pg_database_size(current_database())").fetchall()
        return {"database": size}

    def backup(self, path: str) -> None:
        """Not here: a copy into a file is `bus copy`."""
        raise error("usage", "a bus on PostgreSQL is not one file", f"use pg_dump, or `bus copy URL {path}`")

    def tidy(self) -> None:
        """Nothing to do: PostgreSQL vacuums by itself."""

    def close(self) -> None:
        """Close it; a second time is done."""
        if self._process == os.getpid():
            self._drop()

    def __del__(self) -> None:
        if hasattr(self, "_psycopg"):
            self.close()

    def _open(self, create: bool) -> None:
        self._drop()
        found = _connect(self.url)
        try:
            postgres_schema.prepare(found, self.url, create, self._read_only)
            self._configure(found)
        except psycopg.Error as problem:
            gone = found.closed or problem.sqlstate in LOST
            found.close()
            if gone:
                raise error("unreachable", f"{self.url.path} hung up") from problem
            raise translate(problem, self.url) from problem
        except BaseException:
            found.close()
            raise
        self._psycopg, self.generation = found, self.generation + 1
        self._wire = Wire(found.pgconn, prepare=self.url.listen)

    def _configure(self, found: psycopg.Connection[Row]) -> None:
        """What holds for the connection; behind a pooler, which gives each transaction another one, for each."""
        if self.url.listen:
            read_only = {"default_transaction_read_only": "on" if self._read_only else "off"}
            found.execute(_setting({**SETTINGS, **read_only}, "false"))
        else:
            begun = {"transaction_read_only": "on"} if self._read_only else {}
            path = {"search_path": postgres_schema.path(self.url)}
            self._local = [(_setting({**SETTINGS, **path, **begun}, "true"), ())]

    def _drop(self) -> None:
        if self._psycopg is not None:
            with suppress(psycopg.Error):
                self._psycopg.close()
            self._psycopg = None

    def _write(self, operation: Operation[T]) -> T:
        result = self._transact(operation, WRITE)
        if self._failed or self._blemished:
            self._roll_back()
            if self._blemished:
                raise error("invalid_value", "text with a NUL", "a value is any UTF-8 text without NUL")
            raise error("fault", "an operation went on after it was refused", "report it")
        if not self._committing:
            self._committing = True
            try:
                self._end("commit")
            except psycopg.Error as problem:
                raise self._translated(problem) from problem
        if self._seldom:
            self._lately.note(self._seldom)
        return result

    def _read(self, operation: Operation[T]) -> T:
        result = self._transact(operation, READ)
        self._roll_back()
        return result

    def _transact(self, operation: Operation[T], begin: str) -> T:
        self.driver()
        self._begin, self._seldom = begin, {}
        self._closing, self._committing = operation.closing, False
        self._failed = self._blemished = False
        steps = operation.steps()
        try:
            return self._drive(steps, begin)
        except BaseException:
            self._roll_back()
            raise
        finally:
            steps.close()

    def _drive(self, steps: Steps[T], begin: str) -> T:
        try:
            request = next(steps)
            while True:
                try:
                    reply = self._answer(request)
                except (psycopg.Error, UnicodeEncodeError) as problem:
                    translated = self._translated(problem)
                    # The transaction is over; what the operation still asks, to explain it, is asked in another one.
                    self._roll_back()
                    self._begin, self._failed, self._closing, self._committing = begin, True, None, False
                    request = steps.throw(translated)
                else:
                    request = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _answer(self, request: Request) -> list[Row]:
        if isinstance(request, Query):
            return self._query(request.name, [request.parameters])
        if isinstance(request, Load):
            self._query(request.name, request.rows)
        if isinstance(request, Statement) and (text := request.texts.get("postgres")):
            self._wire.ask([*self._start(), ("select 1", ())])
            self.driver().execute(text)
        # Doorbells are rung by the database itself, heartbeats travel with the texts, and a shortcut would be one more
        # round trip.
        return []

    def _start(self) -> list[Ask]:
        begin, self._begin = self._begin, None
        return [(begin, ()), *self._local] if begin else []

    def _query(self, name: str, rows: Sequence[Mapping[str, object]]) -> list[Row]:
        if self._committing:  # the operation goes on all the same, in another transaction
            self._begin, self._closing, self._committing = WRITE, None, False
        asks = [ask for parameters in rows for ask in self._statements(name, parameters)]
        self._committing = name == self._closing and not self._blemished
        if self._committing and self._begin and not self._local:
            self._begin = None
        else:
            asks = [*self._start(), *asks, *([("commit", ())] if self._committing else [])]
        return self._wire.ask(asks) or []

    def _statements(self, name: str, parameters: Mapping[str, object]) -> Iterator[Ask]:
        moment = clock.given()
        given, blemished = _storable({**parameters, "now": moment and f"{moment}Z"})
        self._blemished |= blemished
        for sql, names, unless in rendering.operation(name, moment is not None):
            values = [given[name] for name in names]
            if not (self._is_lately((sql, *values)) if unless == BEATEN else unless in parameters):
                yield sql, values

    def _is_lately(self, key: Key) -> bool:
        """Whether a statement that is run seldom was run less than a second ago; else it is noted with the commit."""
        seconds = clock.seconds()
        if self._lately.has(key, seconds):
            return True
        self._seldom[key] = seconds
        return False

    def _translated(self, problem: Exception) -> BusError:
        if self._psycopg is None or self._psycopg.closed or getattr(problem, "sqlstate", None) in LOST:
            self._drop()
            if self._committing:
                raise error("outcome_unknown") from problem
            raise Lost from problem
        return translate(problem, self.url)

    def _roll_back(self) -> None:
        try:
            self._end("rollback")
        except psycopg.Error:
            self._drop()

    def _end(self, how: str) -> None:
        found = self._psycopg
        if found and found.info.transaction_status != TransactionStatus.IDLE:
            self._wire.ask([(how, ())])


def _setting(settings: Mapping[str, str], local: str) -> str:
    return "select " + ", ".join(f"set_config('{name}', '{value}', {local})" for name, value in settings.items())


def _storable(parameters: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Parameters without NULs, which PostgreSQL can't take, and whether there were any: the sign in their place is
    illegal in every id, so that an id is refused as what it is."""
    blemished = {name: value for name, value in parameters.items() if isinstance(value, str) and "\0" in value}
    cleaned = {name: value.replace("\0", "\ufffd") for name, value in blemished.items()}
    return {**parameters, **cleaned}, bool(blemished)


def _connect(url: Server) -> psycopg.Connection[Row]:
    try:
        found = psycopg.Connection.connect(
            url.conninfo,
            autocommit=True,
            prepare_threshold=None,  # what is prepared is the wire's
            cursor_factory=psycopg.RawCursor,
            connect_timeout=None if "connect_timeout" in url.conninfo else int(TIMEOUT),
            fallback_application_name="agent-bus",
        )
    except psycopg.OperationalError as problem:
        words = " ".join(str(problem).split())[:300]
        raise error("unreachable", f"{url.path} can't be reached: {words}") from None
    except psycopg.Error:
        raise error("usage", "the bus address can't be read", "write postgresql://user@host:port/database") from None
    for kind in ("json", "timestamptz"):
        found.adapters.register_loader(kind, TextLoader)
    return found
