"""How SQLite's stores take the steps of an operation through a transaction."""

from __future__ import annotations

from typing import Protocol, TypeVar

from bus.errors import BusError
from bus.operation import Change, Load, Query, Request, Ring, Row, Seldom, Shortcut, Statement, Steps
from bus.store.seldom import Key, Lately

T = TypeVar("T")


class Transaction(Protocol):
    """What runs queries in a transaction that is open."""

    @property
    def errors(self) -> type[Exception]: ...
    @property
    def lately(self) -> Lately: ...

    seconds: float  # since 1970, for the whole transaction

    def query(self, query: Query | Shortcut | Seldom) -> list[Row]: ...
    def change(self, change: Change) -> list[Row]: ...
    def statement(self, statement: Statement) -> None: ...
    def fail(self, problem: Exception) -> BusError: ...


class Drive:
    """One generator of steps on its way through a transaction, with what is to be done after the commit: bells to ring,
    and what was run that is run seldom."""

    __slots__ = ("_transaction", "bells", "seldom")

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self.bells: list[str] = []
        self.seldom: dict[Key, float] = {}

    def through(self, steps: Steps[T]) -> T:
        """Do what the steps ask for, up to their end; what they return."""
        transaction = self._transaction
        try:
            request = next(steps)
            while True:
                try:
                    # The usual ones here: a function call less for each.
                    if type(request) is Query or type(request) is Shortcut:
                        reply = transaction.query(request)
                    elif type(request) is Change:
                        reply = transaction.change(request)
                    else:
                        reply = self._answer(request)
                except transaction.errors as problem:
                    request = steps.throw(transaction.fail(problem))
                else:
                    request = steps.send(reply)
        except StopIteration as stop:
            result: T = stop.value
            return result

    def _answer(self, request: Request) -> list[Row]:
        if type(request) is Seldom:
            self._seldom(request)
        elif type(request) is Ring:
            self.bells += request.bells
        elif type(request) is Statement:
            self._transaction.statement(request)
        elif type(request) is Load:
            for row in request.rows:
                self._transaction.query(Query(request.name, row))
        return []

    def _seldom(self, request: Seldom) -> None:
        key = (request.name, *request.parameters.values())
        transaction = self._transaction
        if not transaction.lately.has(key, transaction.seconds):
            transaction.query(request)
            self.seldom[key] = transaction.seconds
