"""The blocking store: a connection for each thread, made when the thread first asks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from bus.operation import Operation, Pause, Routine
from bus.store.doorbell import Waiting, lasting
from bus.store.facts import Fact
from bus.store.nap import Nap
from bus.store.opening import Connection, connection
from bus.store.url import MEMORY, Place

T = TypeVar("T")


class Store:
    """A bus that is used by blocking calls, from any thread. After a fork the child gets connections of its own."""

    def __init__(self, url: Place, create: bool = False, read_only: bool = False) -> None:
        self.url = url
        self._read_only = read_only
        self._process = os.getpid()
        self._inherited: list[threading.local] = []
        self._local = threading.local()
        self.asleep = False  # whether a call sleeps: then an exception out of a signal handler leaves nothing behind
        self.before_sleep: Callable[[], None] | None = None
        self._turn = threading.RLock()  # in memory there is one connection, and threads take turns
        first = connection(url, create, read_only)
        self._only = first if url.path == MEMORY else None
        if not self._only:
            self._local.connection = first

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction."""
        if self._only:
            with self._turn:
                return self._only.run(operation)
        if self._process == os.getpid() and (found := getattr(self._local, "connection", None)):
            result: T = found.run(operation)
            return result
        return self.connection().run(operation)

    def carry_out(self, routine: Routine[T]) -> T:
        """Carry out a routine: run its operations, sleep through its pauses. The first pause at some bells only starts
        to listen, so that the routine looks once more before it sleeps. What it does last before a pause is its look:
        while that tells the same it sleeps on, whatever others write."""
        listener: Waiting | None = None
        heard: Sequence[str] = ()
        look: Operation[Any] | None = None
        seen: object = None
        reply: object = None
        try:
            while True:
                request = routine.send(reply)
                if isinstance(request, Operation):
                    look, reply = request, self.run(request)
                    seen = reply
                elif listener is None or request.bells != heard:
                    if listener:
                        listener.close()
                        listener = None
                    heard = request.bells
                    listener, reply = self.connection().listen(heard), None
                else:
                    reply = self._sleep(listener, request, look, seen)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            routine.close()
            if listener:
                listener.close()

    def connection(self) -> Connection:
        """This thread's connection."""
        if self._only:
            return self._only
        if self._process != os.getpid():
            self._inherited.append(self._local)  # kept: psycopg warns of one that is dropped, though it is the parent's
            self._local, self._process = threading.local(), os.getpid()
        found: Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = connection(self.url, read_only=self._read_only)
        return found

    def _sleep(self, listener: Waiting, pause: Pause, look: Operation[Any] | None, seen: object) -> bool:
        with Nap(listener.fileno()) as nap:
            for seconds in lasting(pause.seconds):
                if not self._doze(nap, listener.rounds(seconds, pause.pids)):
                    return False
                if look is None or look.writes or self.run(look) != seen:
                    return True
        return False

    def _doze(self, nap: Nap, rounds: Generator[float | None, bool, bool]) -> bool:
        self.asleep = True
        try:
            if self.before_sleep:
                self.before_sleep()
            seconds = next(rounds)
            while True:
                seconds = rounds.send(nap.sleep(seconds))
        except StopIteration as stop:
            return bool(stop.value)
        finally:
            self.asleep = False

    def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""
        return self.connection().facts()

    def close(self) -> None:
        """Close this thread's connection, in memory everybody's; those of other threads end with their threads."""
        if self._process != os.getpid():
            return
        if self._only:
            with self._turn:
                self._only.close()
        elif found := getattr(self._local, "connection", None):
            found.close()
            del self._local.connection
