"""The async store: whole operations, one after the other, on the thread of an aiosqlite connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import aiosqlite

from bus.operation import Operation, Routine
from bus.store import driving
from bus.store.doorbell import Waiting
from bus.store.place import Fact
from bus.store.sqlite import Connection
from bus.store.url import Url

T = TypeVar("T")


class Database(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole operation as one call on its thread."""

    def __init__(self, url: Url, create: bool) -> None:
        self._url = url
        self._create = create
        self.refused: BaseException | None = None
        super().__init__(self._open, 64)

    def _open(self) -> sqlite3.Connection:
        # A connector that raises would leave aiosqlite's thread behind; so what is raised is kept for `Store.open`.
        try:
            self.bus = Connection(self._url, self._create)
            return self.bus.sqlite
        except BaseException as problem:
            self.refused = problem
            return sqlite3.connect(":memory:", check_same_thread=False)

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function on the database's thread."""
        result: T = await self._execute(function)  # type: ignore[no-untyped-call]
        return result

    def call_later(self, function: Callable[[], Any]) -> None:
        """Call a function on the database's thread, without waiting for it; `close` waits."""
        self._tx.put_nowait((None, function))


class Store:
    """A bus that is used by coroutines of one event loop. Make it with `await Store.open(url)`."""

    def __init__(self, database: Database) -> None:
        self.url = database.bus.url
        self._database = database

    @classmethod
    async def open(cls, url: Url, create: bool = False) -> Store:
        database = Database(url, create)
        await database
        if database.refused:
            await database.close()
            raise database.refused
        return cls(database)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction. Cancelled, it still ends; its result is taken back where it can be."""
        job = driving.Job(self._database.bus, operation)
        try:
            return await self._database.call(job)
        except asyncio.CancelledError:
            if job.abandon():
                self._database.call_later(job.take_back)
            raise

    async def carry_out(self, routine: Routine[T]) -> T:
        """Carry out a routine: run its operations, sleep through its pauses."""
        return await driving.carry_out(routine, self.run, self._listen)

    async def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""
        return self._database.bus.facts()

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with the connection, on its thread."""
        return await self._database.call(lambda: function(self._database.bus))

    async def _listen(self, bells: Sequence[str]) -> Waiting:
        return self._database.bus.listen(bells)

    async def close(self) -> None:
        with contextlib.suppress(ValueError):  # closed already
            await self._database.call(self._database.bus.close)
        await self._database.close()
