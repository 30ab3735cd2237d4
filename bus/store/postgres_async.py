"""The async store of PostgreSQL: whole operations on a few threads, each with a connection from a pool.

What runs is the blocking logic to the letter, so that there is one body of it. Waiting coroutines hold no thread, and
share one connection on which they listen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from bus.errors import TryAgain, of_system
from bus.operation import Operation, Routine
from bus.store import coroutines
from bus.store.doorbell import Waiting
from bus.store.postgres import TIMEOUT, Connection
from bus.store.postgres_ear import Ear
from bus.store.postgres_listening import LOOK
from bus.store.routines import Sleep
from bus.store.url import Server

T = TypeVar("T")

WORKERS = 4  # operations that run at the same time
PAUSE = 0.1  # seconds between two tries to get a connection


class Pool:
    """Connections that are free; one more is made when there is none."""

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
        self._ear: Ear | None = None
        self._calls = coroutines.Calls()
        self._end: asyncio.Future[None] | None = None

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
        """Run an operation in one transaction. Cancelled when it has begun, it still ends; its result is taken back
        where it can be."""

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
            self._ear = self._ear or Ear(self.url)
            guest = self._ear.listen(bells)
        except OSError as problem:
            raise of_system(problem, self.url.path) from problem
        try:
            if self.url.listen:  # until it hears; it is no harm if that takes longer
                await self._calls.sleep(Sleep(guest, LOOK, ()))
        except BaseException:
            guest.close()
            raise
        return guest

    async def call(self, function: Callable[[Connection], T]) -> T:
        """Call a function with a connection, on a thread."""
        with self._calls:
            return await asyncio.get_running_loop().run_in_executor(self._workers, self._pool.call, function)

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
            await asyncio.get_running_loop().run_in_executor(None, self._workers.shutdown)
            if self._ear:
                await asyncio.get_running_loop().run_in_executor(None, self._ear.close)
        finally:  # also when the event loop ends, and everybody with it
            self._workers.shutdown(wait=False)
            if self._ear:
                self._ear.close()
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
