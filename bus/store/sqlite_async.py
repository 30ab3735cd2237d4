"""The async store: whole operations, one after the other, on the thread of an aiosqlite connection."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Generic, TypeVar

import aiosqlite

from bus.errors import BusError
from bus.operation import Operation, Routine, Steps
from bus.store import coroutines
from bus.store.doorbell import Waiting
from bus.store.sqlite import Connection
from bus.store.url import Url

T = TypeVar("T")

TOGETHER = 100  # operations that share a commit at most


class Database(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole operation as one call on its thread."""

    def __init__(self, url: Url, create: bool) -> None:
        self._url = url
        self._create = create
        self.refused: BaseException | None = None
        super().__init__(self._open, 64)
        self._thread.daemon = True  # a bus that nobody closed must not keep its process: see `end`

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
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.call_soon(lambda: self.answer([(future, _outcome(function))]))
        return await future

    def call_soon(self, function: Callable[[], Any]) -> None:
        """Call a function on the database's thread, without waiting for it; `close` waits."""
        self._tx.put_nowait((None, function))

    def answer(self, outcomes: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
        """Tell those who wait what came of it, from the database's thread."""
        for loop, its in groupby(outcomes, _loop):
            with contextlib.suppress(RuntimeError):  # it has ended, and they with it
                loop.call_soon_threadsafe(_answer, list(its))

    async def close(self) -> None:
        """Close the bus, after all that was begun, and end the thread."""
        try:
            if self._running:
                await self.call(self._close_bus)
        finally:
            self.call_soon(self.stop)  # from there it tells no event loop, which may have ended meanwhile

    def stop(self) -> asyncio.Future[Any] | None:
        """End the thread. It may have opened a bus that nobody waits for any more."""
        self.call_soon(self._close_bus)
        return super().stop()

    def end(self) -> None:
        """Close the bus after all that was begun, when the process ends and nobody has closed it."""
        closed = threading.Event()
        self.call_soon(self._close_bus)
        self.call_soon(closed.set)
        if self._thread.is_alive():  # not in a child
            closed.wait()

    def _close_bus(self) -> None:
        if not self.refused:
            self.bus.close()
        _open.discard(self)


_open: set[Database] = set()  # one function for all: each that `atexit` is told of leaves a trace for ever


@atexit.register
def _end_all() -> None:
    for database in list(_open):
        database.end()


class Store:
    """A bus that is used by coroutines of one event loop. Make it with `await Store.open(url)`."""

    def __init__(self, database: Database) -> None:
        self.url = database.bus.url
        self._database = database
        self._bus = database.bus
        self._calls = coroutines.Calls()
        self._end: asyncio.Future[None] | None = None
        self._waiting: deque[_Job[Any]] = deque()
        self._called = False

    @classmethod
    async def open(cls, url: Url, create: bool = False) -> Store:
        database = Database(url, create)
        await database
        if database.refused:
            await database.close()
            raise database.refused
        _open.add(database)
        return cls(database)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction; those that wait together to change the bus share one, each as if it ran
        by itself. Cancelled when it has begun, it still ends; its result is taken back where it can be."""
        with self._calls:
            if not operation.writes:
                return await self._database.call(lambda: self._bus.run(operation))
            job = _Job(operation)
            self._waiting.append(job)
            if not self._called:
                self._called = True
                self._database.call_soon(self._work)
            try:
                return await job.future
            except asyncio.CancelledError:
                if job.abandon():
                    self._database.call_soon(partial(self._take_back, job))
                raise

    def _work(self) -> None:
        """Run what waits, on the database's thread."""
        self._called = False  # who comes from now on calls again
        jobs: list[_Job[Any]] = []
        with contextlib.suppress(IndexError):
            while len(jobs) < TOGETHER:
                jobs.append(self._waiting.popleft())
        if self._waiting:
            self._database.call_soon(self._work)
        if jobs := [job for job in jobs if not job.abandoned]:
            outcomes = _run_together(self._bus, [job.operation for job in jobs])
            unwanted = [job for job, outcome in zip(jobs, outcomes, strict=True) if job.end(outcome)]
            self._database.answer([(job.future, job.outcome) for job in jobs])
            for job in unwanted:
                self._take_back(job)

    def _take_back(self, job: _Job[Any]) -> None:
        with contextlib.suppress(BusError):  # else it stays: a lease, until it runs out
            if job.operation.undo and (undo := job.operation.undo(job.outcome)):
                self._bus.run(undo)

    async def carry_out(self, routine: Routine[T]) -> T:
        """Carry out a routine: run its operations, sleep through its pauses."""
        with self._calls:
            return await coroutines.carry_out(routine, self._calls, self.run, self._listen)

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with the connection, on its thread."""
        with self._calls:
            return await self._database.call(lambda: function(self._bus))

    async def _listen(self, bells: Sequence[str]) -> Waiting:
        return self._bus.listen(bells)

    async def close(self) -> None:
        """Close it, after what was begun has ended. Idempotent. Cancelled, it is closed all the same."""
        if self._calls.inherited():
            return
        if self._end is None:
            self._end = asyncio.ensure_future(self._close())
        await asyncio.shield(self._end)

    async def _close(self) -> None:
        try:
            await self._calls.close()
        finally:  # also when the event loop ends, and everybody with it
            await self._database.close()


def _run_together(bus: Connection, operations: Sequence[Operation[Any]]) -> list[Any | BaseException]:
    """Run operations that change the bus in one transaction, sharing its commit; what each returns or raises.

    When one of them is refused, none has run, and each runs by itself. An outcome that is unknown is so for all, and
    when the bus was busy for as long as one waits, it was so for all.
    """
    if len(operations) == 1:
        return [_outcome(partial(bus.run, operations[0]))]
    try:
        return bus.run(Operation(partial(_one_after_the_other, operations), writes=True))
    except Exception as problem:  # whatever it is, the others must not be told it as theirs
        if isinstance(problem, BusError) and problem.code in ("outcome_unknown", "busy"):
            return [problem] * len(operations)
        return [_outcome(partial(bus.run, operation)) for operation in operations]


def _one_after_the_other(operations: Sequence[Operation[Any]]) -> Steps[list[Any]]:
    results = []
    for operation in operations:
        results.append((yield from operation.steps()))
    return results


def _outcome(function: Callable[[], Any]) -> Any | BaseException:
    try:
        return function()
    except BaseException as problem:  # it is raised where somebody waits for it
        return problem


class _Job(Generic[T]):
    """One operation on the database's thread, whose caller may go away."""

    def __init__(self, operation: Operation[T]) -> None:
        self.operation = operation
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.abandoned = False
        self.outcome: Any = None
        self._lock = threading.Lock()
        self._succeeded = False

    def end(self, outcome: Any) -> bool:
        """It has ended so; true when nobody waits any more and it is to be taken back."""
        with self._lock:
            self.outcome = outcome
            self._succeeded = not isinstance(outcome, BaseException)
            return self._succeeded and self.abandoned

    def abandon(self) -> bool:
        """Nobody waits any more; true when it has ended and is still to be taken back."""
        with self._lock:
            self.abandoned = True
            return self._succeeded


def _loop(outcome: tuple[asyncio.Future[Any], Any]) -> asyncio.AbstractEventLoop:
    return outcome[0].get_loop()


def _answer(outcomes: Sequence[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, outcome in outcomes:
        if future.done():
            continue
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
