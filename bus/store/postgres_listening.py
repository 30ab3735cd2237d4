"""Waiting on PostgreSQL: the schema notifies whoever says that they listen; see `bell_ring` in schemas/postgres."""

from __future__ import annotations

import select
import sys
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from bus.store.doorbell import Endings
from bus.store.postgres_errors import Lost

if TYPE_CHECKING:
    from bus.store.postgres import Connection

LOOK = 0.5  # seconds between two looks where no notification gets through


class Listening:
    """Someone who waits at some bells, and for some processes to end. `fileno()` is readable when there is news."""

    def __init__(self, connection: Connection, bells: Sequence[str]) -> None:
        self._connection = connection
        self._bells = list(bells)
        self._generation = 0
        self._socket = -1
        self._poll = select.epoll() if sys.platform == "linux" else None
        self._endings = Endings(self._poll) if self._poll else None
        self._begin()

    def fileno(self) -> int:
        return self._poll.fileno() if self._poll else self._socket

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `doorbell.Listener.rounds`."""
        if self._is_lost():
            self._reach(-1)
            with suppress(Lost):
                self._begin()
            if self._is_lost():
                yield shortened(seconds)
            return False  # to look before it sleeps
        if self._endings:
            self._endings.watch(pids)
        if not self._connection.rung() and (yield seconds if self._hears else shortened(seconds)):
            with suppress(psycopg.Error):  # a lost connection is replaced by who waits next
                self._connection.take_in()
        return False

    def close(self) -> None:
        if self._endings:
            self._endings.close()
        if self._poll:
            self._poll.close()
        if self._generation == self._connection.generation and self._hears:
            with suppress(psycopg.Error, Lost):
                self._each("bell_leave")

    def _is_lost(self) -> bool:
        return self._generation != self._connection.generation or not self._connection.sound()

    def _begin(self) -> None:
        connection = self._connection.driver()
        self._generation = self._connection.generation
        self._hears = self._connection.url.listen
        try:
            if self._hears:
                self._each("bell_listen", "bell_pass")
        except psycopg.Error:
            self._hears = False
        if connection.closed:
            raise Lost
        self._reach(connection.fileno())

    def _each(self, *functions: str) -> None:
        self._connection.ask([(f"select {name}($1::text)", [bell]) for name in functions for bell in self._bells])

    def _reach(self, descriptor: int) -> None:
        if self._poll and self._socket >= 0:
            with suppress(OSError):  # closed with its connection
                self._poll.unregister(self._socket)
        self._socket = descriptor
        if self._poll and descriptor >= 0:
            self._poll.register(descriptor, select.EPOLLIN)


def shortened(seconds: float | None) -> float:
    """How long to wait where no notification gets through."""
    return LOOK if seconds is None else min(seconds, LOOK)
