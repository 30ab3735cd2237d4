"""The async store of PostgreSQL: whole operations on a few threads, each with a connection from a pool.

What runs is the blocking logic to the letter, so that there is one body of it. A waiting coroutine holds a connection,
but no thread.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from bus.errors import TryAgain
from bus.operation import Operation, Routine
from bus.store import coroutines
from bus.store.doorbell import Glance, Waiting
from bus.store.facts import Fact
from bus.store.postgres import TIMEOUT, Connection
from bus.store.postgres_listening import LOOK
from bus.store.url import Server

T = TypeVar("T")

WORKERS = 4  # operations that run at the same time
PAUSE = 0.1  # seconds between two tries to get a connection


class Pool:
    """Connections that are free; one more is made when there is none. Those who wait hold one each, and a server has
    only so many: no more are kept than are used at the same time."""

    def __init__(self, first: Connection, url: Server) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._free = [first]
        self._closed = False

    def take(self) -> Connection:
        """A connection of one's own, until it is given back. Where the server has none to give, or is not there for a
        moment, it waits for one: raises `unreachable` after some seconds."""
        deadline = time.monotonic() + TIMEOUT
        while True:
            with self._lock:
                if self._free:
                    return self._free.pop()
            try:
                return Connection(self._url)
            except TryAgain:
                if time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE)  # on a thread of the store: nobody else waits for it

    def spare(self) -> Connection:
        """A connection to be kept for a while: a free one, unless it is the last, which operations need; else a new
        one. Raises `unreachable` at once."""
        with self._lock:
            if len(self._free) > 1:
                return self._free.pop()
        return Connection(self._url)

    def give(self, taken: Connection) -> None:
        """Give a connection back."""
        with self._lock:
            if not self._closed and len(self._free) < WORKERS:
                self._free.append(taken)
                return
        taken.close()

    def run(self, operation: Operation[T]) -> T:
        """Run an operation on a free connection."""
        return self.call(lambda taken: taken.run(operation))

    def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with a free connection."""
        taken = self.take()
        try:
            return function(taken)
        finally:
            self.give(taken)

    def close(self) -> None:
        """Close what is free, and later what is given back."""
        with self._lock:
            self._closed, free, self._free = True, self._free, []
        for each in free:
            each.close()


class Store:
    """A bus on a server, used by coroutines of one event loop. Make it with `await Store.open(url)`."""

    def __init__(self, url: Server, pool: Pool, workers: ThreadPoolExecutor) -> None:
        self.url = url
        self._pool = pool
        self._workers = workers
        self._calls = coroutines.Calls()

    @classmethod
    async def open(cls, url: Server, create: bool = False) -> Store:
        workers = ThreadPoolExecutor(WORKERS, "bus")
        try:
            first = await _done(workers, lambda: Connection(url, create), lambda first: first.close())
        except BaseException:
            workers.shutdown(wait=False)
            raise
        return cls(url, Pool(first, url), workers)

    async def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction. Cancelled, it still ends; its result is taken back where it can be."""

        def take_back(result: T) -> None:
            if operation.undo and (undo := operation.undo(result)):
                self._pool.run(undo)

        with self._calls:
            return await _done(self._workers, lambda: self._pool.run(operation), take_back)

    async def carry_out(self, routine: Routine[T]) -> T:
        """Carry out a routine: run its operations, sleep through its pauses."""
        with self._calls:
            return await coroutines.carry_out(routine, self._calls, self.run, self._listen)

    async def _listen(self, bells: Sequence[str]) -> Waiting:
        try:
            return await _done(self._workers, lambda: self._borrow(bells), lambda borrowed: borrowed.end())
        except TryAgain:  # the server has no more connections: then it looks now and then
            return Glance(LOOK)

    def _borrow(self, bells: Sequence[str]) -> _Borrowed:
        taken = self._pool.spare()
        try:
            return _Borrowed(taken.listen(bells, self._workers.submit), taken, self._pool, self._workers)
        except BaseException:
            self._pool.give(taken)
            raise

    async def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""
        return await self.call(lambda taken: taken.facts())

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with a connection, on a thread."""
        with self._calls:
            return await asyncio.get_running_loop().run_in_executor(self._workers, self._pool.call, function)

    async def close(self) -> None:
        """Close it, after what was begun has ended. Idempotent."""
        await self._calls.close()
        await asyncio.get_running_loop().run_in_executor(None, self._workers.shutdown)
        self._pool.close()


async def _done(workers: ThreadPoolExecutor, do: Callable[[], T], take_back: Callable[[T], object]) -> T:
    """Do something on a thread. When the caller is cancelled meanwhile, that thread takes back what it came to: nobody
    else knows of it, and nobody else may touch it before it is done."""
    job = _Job(do, take_back)
    try:
        return await asyncio.get_running_loop().run_in_executor(workers, job)
    except asyncio.CancelledError:
        if job.abandon():
            workers.submit(job.take_back)
        raise


class _Job(Generic[T]):
    """Something to do on a thread, whose caller may go away: then what it came to is to be taken back."""

    def __init__(self, do: Callable[[], T], take_back: Callable[[T], object]) -> None:
        self._do = do
        self._take_back = take_back
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._abandoned = False

    def __call__(self) -> T:
        if self._abandoned:
            raise asyncio.CancelledError
        result = self._do()
        with self._lock:
            self._results.append(result)
            abandoned = self._abandoned
        if abandoned:
            self.take_back()
        return result

    def abandon(self) -> bool:
        """Nobody waits any more; true when it has been done and is still to be taken back."""
        with self._lock:
            self._abandoned = True
            return bool(self._results)

    def take_back(self) -> None:
        self._take_back(self._results[0])


class _Borrowed:
    """Listening on a connection of the pool, which is given back afterwards."""

    def __init__(self, heard: Waiting, taken: Connection, pool: Pool, workers: ThreadPoolExecutor) -> None:
        self._heard = heard
        self._taken = taken
        self._pool = pool
        self._workers = workers

    def fileno(self) -> int:
        return self._heard.fileno()

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `doorbell.Listener.rounds`."""
        return self._heard.rounds(seconds, pids)

    def close(self) -> None:
        self._workers.submit(self.end)

    def end(self) -> None:
        """Stop listening and give the connection back, on a thread."""
        try:
            self._heard.close()
        finally:
            self._pool.give(self._taken)
