"""The blocking store: a connection for each thread, made when the thread first asks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TypeVar

from bus.errors import Refused
from bus.operation import Operation, Routine
from bus.store.nap import Nap
from bus.store.opening import Connection, connection
from bus.store.routines import Listen, Sleep, can_do_without, carried_out
from bus.store.url import MEMORY, Place, Server

T = TypeVar("T")


class Store:
    """A bus that is used by blocking calls, from any thread. After a fork the child gets connections of its own, in
    memory a copy of it all."""

    def __init__(self, url: Place, create: bool = False, read_only: bool = False) -> None:
        self.url = url
        self._read_only = read_only
        self._process = os.getpid()
        self._inherited: list[threading.local] = []
        self._local = threading.local()
        self.asleep = False  # whether a call sleeps: then an exception out of a signal handler leaves nothing behind
        self.before_sleep: Callable[[], None] | None = None
        first = connection(url, create, read_only)
        self._only = first if url.path == MEMORY else None  # in memory there is one, and threads take turns at it
        if not self._only:
            self._local.connection = first

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction."""
        if self._only:
            return self._only.run(operation)
        if self._process == os.getpid() and (found := getattr(self._local, "connection", None)):
            result: T = found.run(operation)
            return result
        return self.connection().run(operation)

    def carry_out(self, routine: Routine[T]) -> T:
        """Carry out a routine: run its operations, sleep through its pauses; see `routines.carried_out`."""
        needs = carried_out(routine)
        reply: object = None
        try:
            while True:
                need = needs.send(reply)
                if isinstance(need, Operation):
                    try:
                        reply = self.run(need)
                    except Refused as problem:
                        if not can_do_without(need, problem):
                            raise
                        reply = None
                elif isinstance(need, Listen):
                    reply = self.connection().listen(need.bells)
                else:
                    reply = self._sleep(need)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            needs.close()

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

    def _sleep(self, need: Sleep) -> bool:
        rounds = need.listener.rounds(need.seconds, need.pids)
        with Nap(need.listener.fileno()) as nap:
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

    def rest(self) -> None:
        """This thread asks for nothing for a while: on a server, which has only so many, its connection goes back."""
        if isinstance(self.url, Server):
            self.close()

    def close(self) -> None:
        """Close this thread's connection, in memory everybody's; those of other threads end with their threads."""
        if self._process != os.getpid():
            return
        if self._only:
            self._only.close()
        elif found := getattr(self._local, "connection", None):
            found.close()
            del self._local.connection
