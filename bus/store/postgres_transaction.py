"""How PostgreSQL's store takes an operation through a transaction.

Texts go in pipelines: a round trip for each query, `begin` with the first, `commit` with the last; a query alone needs
neither, since a pipeline is a transaction by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import psycopg

from bus import clock
from bus.errors import BusError, about, error
from bus.operation import Change, Leap, Load, Operation, Query, Request, Row, Statement, Steps, Tell
from bus.store import postgres_rendering as rendering
from bus.store.postgres_errors import LOST, OUTDATED, Lost, translate
from bus.store.postgres_wire import Ask, Wire
from bus.store.seldom import Key, Lately
from bus.store.url import Server

T = TypeVar("T")

WRITE, READ = "begin isolation level read committed", "begin isolation level repeatable read read only"
BEATEN = "beaten"  # marks, in a text, a heartbeat


class Session:
    """A connection as transactions see it: the driver's, its wire, what each transaction sets (behind a pooler), and
    what was run lately that is run seldom."""

    def __init__(self, url: Server, driver: psycopg.Connection[Row], settings: Sequence[Ask], lately: Lately) -> None:
        self.url = url
        self.driver = driver
        self.wire = Wire(driver.pgconn, prepare=not settings)
        driver.add_notice_handler(self.wire.noticed)
        self.settings = settings
        self.lately = lately

    def close(self) -> None:
        """Close it. Idempotent."""
        with suppress(psycopg.Error):
            self.driver.close()


class Transaction:
    """One attempt at one operation. A session that broke is closed."""

    def __init__(self, session: Session, operation: Operation[T]) -> None:
        self._session = session
        self._wire = session.wire
        self._kind = WRITE if operation.writes else READ
        # What the next pipeline begins with, if the pipeline is not the transaction.
        self._begin: str | None = None if operation.single and not session.settings else self._kind
        self._closing = operation.closing
        self._brief = operation.brief
        self._seldom: dict[Key, float] = {}
        self._told: list[Ask] = []  # what goes with the next query
        self._failed = self._blemished = self._committing = False

    def write(self, steps: Steps[T]) -> T:
        """Carry out and commit. Raises `Lost` when nothing can have been committed, `outcome_unknown` else."""
        result = self._through(steps)
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
            self._session.lately.note(self._seldom)
        return result

    def read(self, steps: Steps[T]) -> T:
        """Carry out, and leave nothing behind."""
        result = self._through(steps)
        self._roll_back()
        return result

    def _through(self, steps: Steps[T]) -> T:
        try:
            return self._drive(steps)
        except BaseException:
            self._roll_back()
            raise
        finally:
            steps.close()

    def _drive(self, steps: Steps[T]) -> T:
        try:
            request = next(steps)
            while True:
                try:
                    reply = self._answer(request)
                except (psycopg.Error, UnicodeEncodeError) as problem:
                    translated = about(self._translated(problem), getattr(request, "parameters", {}))
                    # The transaction is over; what the operation still asks, to explain it, is asked in another one.
                    self._roll_back()
                    self._begin, self._failed, self._closing, self._committing = self._kind, True, None, False
                    request = steps.throw(translated)
                else:
                    request = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _answer(self, request: Request) -> list[Row]:
        if type(request) is Query or type(request) is Leap:
            return self._query(request.name, [request.parameters], request.name == self._closing)
        if type(request) is Change:
            return self._change(request)
        if type(request) is Tell:
            self._told += self._statements(request.name, request.parameters)
        if type(request) is Load:
            self._query(request.name, request.rows, False)
        if type(request) is Statement and (text := request.texts.get("postgres")):
            self._wire.ask([*self._start(), ("select 1", ())])
            self._session.driver.execute(text)
        # Doorbells are rung by the database itself, heartbeats travel with the texts, and a shortcut would be one more
        # round trip.
        return []

    def _start(self) -> list[Ask]:
        begin, self._begin = self._begin, None
        return [(begin, ()), *self._session.settings] if begin else []

    def _change(self, change: Change) -> list[Row]:
        """What may be the whole transaction; where it can't be, the long way is a single call, too."""
        if not self._brief:
            return []
        rows = self._query(change.name, [change.parameters], True)
        if not rows:
            self._begin, self._committing = self._kind, False
        return rows

    def _query(self, name: str, rows: Sequence[Mapping[str, object]], closes: bool) -> list[Row]:
        self._brief = False
        if self._committing:  # the operation goes on all the same, in another transaction
            self._begin, self._closing, closes = WRITE, None, False
        asks = [*self._told, *(ask for parameters in rows for ask in self._statements(name, parameters))]
        self._told = []
        self._committing = closes and not self._blemished
        if self._committing and self._begin and not self._session.settings:
            self._begin = None
        elif self._begin or self._committing:
            asks = [*self._start(), *asks, *([("commit", ())] if self._committing else [])]
        return self._wire.ask(asks) or []

    def _statements(self, name: str, parameters: Mapping[str, object]) -> list[Ask]:
        moment = clock.given()
        given = self._storable(parameters if moment is None else {**parameters, "now": f"{moment}Z"})
        found: list[Ask] = []
        for sql, names, unless in rendering.operation(name, moment is not None):
            if unless and unless != BEATEN and unless in parameters:
                continue
            values = [given[name] for name in names]
            if unless != BEATEN or not self._is_lately((sql, *map(str, values))):
                found.append((sql, values))
        return found

    def _storable(self, parameters: Mapping[str, object]) -> Mapping[str, object]:
        """Parameters without NULs, which PostgreSQL can't take: the sign in their place is illegal in every id, so that
        an id is refused as what it is."""
        if "\0" not in "".join([value for value in parameters.values() if isinstance(value, str)]):
            return parameters
        self._blemished = True
        return {
            name: value.replace("\0", "\ufffd") if isinstance(value, str) else value
            for name, value in parameters.items()
        }

    def _is_lately(self, key: Key) -> bool:
        """Whether a statement that is run seldom was run less than a second ago; else it is noted with the commit."""
        seconds = clock.seconds()
        if self._session.lately.has(key, seconds):
            return True
        self._seldom[key] = seconds
        return False

    def _translated(self, problem: psycopg.Error | UnicodeEncodeError) -> BusError:
        if self._wire.closed() or getattr(problem, "sqlstate", None) in LOST:
            self._session.close()
            if self._committing:
                raise error("outcome_unknown") from problem
            raise Lost from problem
        if getattr(problem, "sqlstate", None) == OUTDATED:
            self._session.close()
            raise Lost from problem
        return translate(problem, self._session.url)

    def _roll_back(self) -> None:
        try:
            self._end("rollback")
        except psycopg.Error:
            self._session.close()

    def _end(self, how: str) -> None:
        if not self._wire.closed() and not self._wire.idle():
            self._wire.ask([(how, ())])
