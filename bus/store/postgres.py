"""The bus on PostgreSQL: a connection that runs operations, each in one transaction.

The time is the server's. Writes are READ COMMITTED: they lock the rows they judge before they look
(`/*postgres … for update */` in the texts), so that what they looked at holds until the commit; serialization failures
and deadlocks are repeated whole.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.types.string import TextLoader

from bus.errors import BusError, TryAgain, error, of_system
from bus.operation import Operation, Row
from bus.store import postgres_facts, postgres_schema
from bus.store.facts import Fact
from bus.store.postgres_errors import LOST, Lost, translate
from bus.store.postgres_listening import Listening
from bus.store.postgres_transaction import Session, Transaction
from bus.store.postgres_wire import Ask
from bus.store.seldom import Lately
from bus.store.url import Server

T = TypeVar("T")

TIMEOUT = 5.0  # seconds to wait for others, or for the server to come back
SETTINGS = {
    # A bus has few tables and knows its indexes: plans are made once, and never by what the statistics of a queue,
    # which is empty one moment and full the next, happened to say.
    "default_transaction_isolation": "read committed",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_material": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "lock_timeout": "5s",
    # An agent that is stopped in the middle must not hang the others.
    "idle_in_transaction_session_timeout": "10s",
    "client_min_messages": "warning",
    # Moments and numbers are told as text.
    "timezone": "UTC",
    "datestyle": "ISO, YMD",
    "extra_float_digits": "1",
}
# A pooler that hands connections around would give each transaction what others have set: another bus's path, say.
POOLED = "add ?listen=no to the address, or, when a connection is one's own to its end (session mode), ?listen=yes"
# How long to wait for a network that does not answer, in the units of libpq.
LIMITS: dict[str, Any] = {
    "connect_timeout": int(TIMEOUT),
    "tcp_user_timeout": 20_000,
    "keepalives_idle": 30,
    "keepalives_interval": 5,
}
# glibc gives memory back to the system as soon as 128 kB are free, and every statement here needs more: it would be
# fetched anew each time, page by page. Having freed one large piece, the server's process keeps twice as much.
ROOM = "length(repeat(' ', 1000000))"


class Connection:
    """One connection to one bus, for one thread at a time. `create` makes the bus, or brings it to this version."""

    def __init__(self, url: Server, create: bool = False, read_only: bool = False) -> None:
        self.url = url
        self._read_only = read_only
        self.generation = 0  # grows when the connection is replaced
        self._process = os.getpid()
        self._lately = Lately()
        self._session: Session | None = None
        self._at_work = False
        self._open(create)

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction; repeat it whole while others are in the way, or after the connection
        was lost, while time is left. Raises `reentrant` as on SQLite."""
        if self._at_work:
            raise error("reentrant")
        try:
            self._at_work = True
            return self._run(operation)
        finally:
            self._at_work = False

    def _run(self, operation: Operation[T]) -> T:
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                transaction = Transaction(self._live(), operation)
                return transaction.write(operation.steps()) if operation.writes else transaction.read(operation.steps())
            except Lost as lost:
                self._drop()
                if time.monotonic() > deadline:
                    raise self._unreachable(lost) from lost
                time.sleep(0.05)
            except TryAgain as busy:
                if busy.code != "busy" or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # most have waited on the server; one that has no memory left says so at once

    def ask(self, asks: Sequence[Ask]) -> list[Row] | None:
        """Run statements in one transaction, one round trip; see `Wire.ask`. Raises `Lost`, and the driver's errors."""
        return self._live().wire.ask(asks)

    def listen(self, bells: Sequence[str]) -> Listening:
        """Hear these doorbells from now on; where notifications don't get through, look twice a second."""
        try:
            return Listening(self, bells)
        except Lost as lost:
            raise self._unreachable(lost) from lost
        except OSError as problem:
            raise of_system(problem, self.url.path) from problem

    def _unreachable(self, lost: Lost) -> BusError:
        """What the server, or the network, said last, if anything."""
        why = lost.__cause__
        return why if isinstance(why, TryAgain) else error("unreachable", f"{self.url.path} can't be reached")

    def sound(self) -> bool:
        """Whether there is a connection that has not broken, as far as is known."""
        return self._session is not None and not self._session.wire.gone()

    def rung(self) -> set[str]:
        """The channels of which notifications have come in since this was last asked. Raises the driver's errors."""
        channels = set()
        if self._session:
            pgconn = self._session.driver.pgconn
            pgconn.consume_input()
            while notification := pgconn.notifies():
                channels.add(notification.relname.decode())
        return channels

    def driver(self) -> psycopg.Connection[Row]:
        """The driver's connection, made anew when it was lost. Raises `Lost`."""
        return self._live().driver

    def _live(self) -> Session:
        found = self._session
        if found is None or found.wire.gone():
            try:
                return self._open(False)
            except TryAgain as problem:
                raise Lost from problem
        return found

    def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""
        return postgres_facts.facts(self.driver(), self.url)

    def sizes(self) -> dict[str, int]:
        """Of what takes room on the disk, in bytes."""
        return postgres_facts.sizes(self.driver())

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Not here: a copy into a file is `bus copy`."""
        raise error("usage", "a bus on PostgreSQL is not one file", f"use pg_dump, or `bus copy URL {path}`")

    def tidy(self) -> None:
        """Nothing to do: PostgreSQL vacuums by itself."""

    def close(self) -> None:
        """Close it. Idempotent."""
        if self._process == os.getpid():
            self._drop()

    def __del__(self) -> None:
        if hasattr(self, "_session"):
            self.close()

    def _open(self, create: bool) -> Session:
        self._drop()
        found = _connect(self.url)
        try:
            postgres_schema.prepare(found, self.url, create, self._read_only)
            settings = self._configure(found)
        except psycopg.Error as problem:
            gone = found.closed or problem.sqlstate in LOST
            found.close()
            if gone:
                raise error("unreachable", f"{self.url.path} hung up") from problem
            raise translate(problem, self.url) from problem
        except BaseException:
            found.close()
            raise
        self._session, self.generation = Session(self.url, found, settings, self._lately), self.generation + 1
        return self._session

    def _configure(self, found: psycopg.Connection[Row]) -> list[Ask]:
        """Set what holds for the connection. A pooler gives each transaction another one: then, what each must set."""
        if not self.url.listen:
            begun = {"transaction_read_only": "on"} if self._read_only else {}
            path = {"search_path": postgres_schema.path(self.url)}
            return [(_setting({**SETTINGS, **path, **begun}, "true"), ())]
        read_only = {"default_transaction_read_only": "on"} if self._read_only else {}
        (*_, process) = found.execute(
            f"{_setting({**SETTINGS, **read_only}, 'false')}, {ROOM}, pg_backend_pid()"
        ).fetchall()[0]
        if self.url.direct and process != found.info.backend_pid:
            raise error("usage", "a pooler stands before the server", POOLED)
        return []

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None


def _setting(settings: Mapping[str, str], local: str) -> str:
    return "select " + ", ".join(f"set_config('{name}', '{value}', {local})" for name, value in settings.items())


def _connect(url: Server) -> psycopg.Connection[Row]:
    try:
        found = psycopg.Connection.connect(
            url.conninfo,
            autocommit=True,
            prepare_threshold=None,  # what is prepared is the wire's
            cursor_factory=psycopg.RawCursor,
            client_encoding="utf8",  # the wire's, whatever the role or PGCLIENTENCODING say
            fallback_application_name="agent-bus",
            **{key: value for key, value in LIMITS.items() if key not in url.conninfo},
        )
    except psycopg.OperationalError as problem:
        words = " ".join(str(problem).split())[:300]
        raise error("unreachable", f"{url.path} can't be reached: {words}") from None
    except psycopg.Error:
        raise error("usage", "the bus address can't be read", "write postgresql://user@host:port/database") from None
    # Who makes the bus waits for others who do, and looks again: at what there is then, not at the beginning.
    found.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    for kind in ("json", "timestamptz"):
        found.adapters.register_loader(kind, TextLoader)
    return found
