"""How SQLite's stores take an operation through a transaction."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, TypeVar

from bus import clock
from bus.errors import BusError, about, error
from bus.operation import Change, Load, Query, Request, Ring, Row, Seldom, Shortcut, Statement, Steps, Tell
from bus.store import sqlite_statements
from bus.store.seldom import Key

if TYPE_CHECKING:
    from bus.store.sqlite import Connection

T = TypeVar("T")


class Transaction:
    """One attempt at one operation, with what is to be done after it: bells to ring, and what was run that is run
    seldom. A `brief` one takes no turn, and begins no transaction, before it is asked for more than a look."""

    __slots__ = ("_connection", "_execute", "_glanced", "_now", "_outdated", "_seconds", "begun", "bells", "seldom")

    def __init__(self, connection: Connection, brief: bool = False) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._tell_time()
        self.begun = not brief
        self._glanced = False  # whether it looked at something before it had its turn
        self._outdated = False  # and then had to wait for it
        self.bells: list[str] = []
        self.seldom: dict[Key, float] = {}

    def begin(self) -> None:
        """Take the turn, and the lock for writing."""
        self._take_turn()
        self._execute("begin immediate")
        self.begun = True

    def carry_out(self, steps: Steps[T]) -> T:
        """Do what the steps ask for, up to their end; what they return."""
        try:
            request = next(steps)
            while True:
                try:
                    # The usual ones here: a function call less for each.
                    if type(request) is Query or type(request) is Shortcut:
                        reply = self.query(request)
                    elif type(request) is Change:
                        reply = self.change(request)
                    else:
                        reply = self._answer(request)
                except sqlite3.Error as problem:
                    request = steps.throw(self._failed(request, problem))
                else:
                    request = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def query(self, query: Query | Shortcut | Seldom | Tell) -> list[Row]:
        """Run the statements of an operation's file; their rows."""
        if not self.begun:
            if type(query) is Shortcut:
                self._glanced = self._connection.has_no_turn()
            else:
                self.begin()
        rows: list[Row] = []
        parameters = {**query.parameters, "now": self._now}
        for sql, values, unless in sqlite_statements.operation(query.name):
            if unless not in parameters:
                rows += self._execute(sql, values(parameters))
        return rows

    def change(self, change: Change) -> list[Row]:
        """Run the one statement of an operation's file that is not left out. Nothing is done when the operation had to
        wait for its turn, and looked at something before: it may have changed."""
        if not self.begun:
            self._take_turn()
        if self._outdated:
            self._outdated = False
            return [(None, 0)]
        parameters = {**change.parameters, "now": self._now}
        for sql, values, unless in sqlite_statements.operation(change.name):
            if unless not in parameters:
                cursor = self._execute(sql, values(parameters))
        if not self.begun and cursor.rowcount:
            self._connection.leave()  # it is over, whatever Python does before it says so
        return [(cursor.lastrowid, cursor.rowcount)]

    def _failed(self, request: Request, problem: sqlite3.Error) -> BusError:
        failed = self._connection.fail(problem)
        alone = type(request) is Change and not self.begun  # then it was perhaps the commit that failed
        if alone and failed.code == "io_error":
            return error("outcome_unknown")
        return about(failed, getattr(request, "parameters", {}))

    def _take_turn(self) -> None:
        if self._connection.enter():  # it took a while
            self._tell_time()
            self._outdated = self._glanced

    def _tell_time(self) -> None:
        """It is now, for all that it does."""
        self._seconds = clock.seconds()
        self._now = clock.stamp(self._seconds)

    def _answer(self, request: Request) -> list[Row]:
        if type(request) is Seldom:
            self._seldom(request)
        elif type(request) is Ring:
            self.bells += request.bells
        elif type(request) is Tell:
            self.query(request)
        elif type(request) is Statement and (text := request.texts.get("sqlite")):
            self._execute(text).fetchall()
        elif type(request) is Load:
            for row in request.rows:
                self.query(Query(request.name, row))
        return []

    def _seldom(self, request: Seldom) -> None:
        key = (request.name, *request.parameters.values())
        if not self._connection.lately.has(key, self._seconds):
            self.query(request)
            self.seldom[key] = self._seconds
