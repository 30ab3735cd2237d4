"""The async store: whole operations, one after the other, on the thread of an aiosqlite connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import aiosqlite
import anyio

from bus.operation import Operation, Pause, Routine
from bus.store import place
from bus.store.doorbell import Waiting
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
        job = _Job(self._database.bus, operation)
        try:
            return await self._database.call(job)
        except asyncio.CancelledError:
            if job.abandon():
                self._database.call_later(job.take_back)
            raise

    async def carry_out(self, routine: Routine[T]) -> T:
        """Carry out a routine: run its operations, sleep through its pauses. The first pause only starts to listen, so
        that the routine looks once more before it sleeps."""
        listener: Waiting | None = None
        reply: object = None
        try:
            while True:
                request = routine.send(reply)
                reply = None
                if isinstance(request, Operation):
                    reply = await self.run(request)
                elif listener is None:
                    listener = self._database.bus.listen(request.bells)
                else:
                    await _sleep(listener, request)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            routine.close()
            if listener:
                listener.close()

    def facts(self) -> dict[str, Any]:
        """What can be told of the bus from outside."""
        return place.facts(self.url)

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with the connection, on its thread."""
        return await self._database.call(lambda: function(self._database.bus))

    async def close(self) -> None:
        with contextlib.suppress(ValueError):  # closed already
            await self._database.call(self._database.bus.close)
        await self._database.close()


class _Job(Generic[T]):
    """One operation on the database's thread, whose caller may go away."""

    def __init__(self, connection: Connection, operation: Operation[T]) -> None:
        self._connection = connection
        self._operation = operation
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._abandoned = False

    def __call__(self) -> T:
        if self._abandoned:
            raise asyncio.CancelledError
        result = self._connection.run(self._operation)
        with self._lock:
            self._results.append(result)
            abandoned = self._abandoned
        if abandoned:
            self.take_back()
        return result

    def abandon(self) -> bool:
        """Nobody waits any more; true when the operation has ended and is still to be taken back."""
        with self._lock:
            self._abandoned = True
            return bool(self._results)

    def take_back(self) -> None:
        if self._operation.undo and (undo := self._operation.undo(self._results[0])):
            self._connection.run(undo)


async def _sleep(listener: Waiting, pause: Pause) -> None:
    rounds = listener.rounds(pause.seconds, pause.pids)
    try:
        seconds = next(rounds)
        while True:
            readable = False
            with anyio.move_on_after(seconds):
                await anyio.wait_readable(listener)
                readable = True
            seconds = rounds.send(readable)
    except StopIteration:
        pass
