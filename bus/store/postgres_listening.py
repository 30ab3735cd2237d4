"""Waiting on PostgreSQL: the schema notifies whoever says that they listen; see `bell_ring` in schemas/postgres."""

from __future__ import annotations

import json
import select
from collections.abc import Generator, Sequence, Set
from contextlib import suppress
from typing import TYPE_CHECKING

import psycopg

from bus.errors import BusError
from bus.operation import Row
from bus.store.doorbell import Endings
from bus.store.postgres_errors import Lost

if TYPE_CHECKING:
    from bus.store.postgres import Connection

# Bells for which commits on their way are waited for: nobody who waits on the same connection is told meanwhile.
FEW = 2
LOOK = 0.5  # seconds between two looks where no notification gets through
_BELLS = "json_array_elements_text($1::json) bell"
_LISTEN, _LEAVE = f"select bell_listen(bell) from {_BELLS}", f"select bell_leave(bell) from {_BELLS}"
_PASS = f"select bell, bell_channel(bell) from {_BELLS} where bell_pass(bell, $2::boolean)"


class Line:
    """What a connection hears: the bells at which it listens, but for those that commits may still ring which began
    before that. `number` is another one for each time that it connected; `socket` is readable when there is something
    to hear, or the connection is lost, and -1 when there is none."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.number = 0
        self.socket = -1
        self._listens: Set[str] = frozenset()
        self._channels: dict[str, str] = {}

    @property
    def heard(self) -> Set[str]:
        return self._channels.keys()

    def listen(self, bells: Set[str]) -> None:
        """Listen at these bells and no others; connect anew where the connection was lost. Raises `Lost`, and errors
        of the bus. What it can't listen at it does not hear."""
        try:
            self.socket = self.connection.driver().fileno()
        except (psycopg.Error, Lost, BusError) as problem:
            self.socket, self._channels = -1, {}
            if isinstance(problem, psycopg.Error):  # it was lost in that very moment
                raise Lost from problem
            raise
        if self.number != self.connection.generation:
            self.number = self.connection.generation
            self._forget()
        if not self.connection.url.listen:
            return
        held = bells | self._listens
        try:
            self._change(bells)
        except (psycopg.Error, Lost, BusError):
            self._forget()
            with suppress(psycopg.Error, Lost, BusError):
                self.connection.ask([(_LEAVE, [_listed(held)])])
        if self.connection.generation != self.number or not self.connection.sound():
            self._forget()  # lost on the way; another one may have been told the rest
            self.connection.close()
            self.socket = -1

    def _change(self, bells: Set[str]) -> None:
        gone, new, unheard = self._listens - bells, bells - self._listens, bells & self._listens - self.heard
        passed: list[Row] = []
        if gone:
            self.connection.ask([(_LEAVE, [_listed(gone)])])
        if new:
            patiently = len(new) <= FEW
            passed += self.connection.ask([(_LISTEN, [_listed(new)]), (_PASS, [_listed(new), patiently])]) or []
        if unheard:
            passed += self.connection.ask([(_PASS, [_listed(unheard), False])]) or []
        self._listens = bells
        self._channels = {bell: channel for bell, channel in (*self._channels.items(), *passed) if bell in bells}

    def _forget(self) -> None:
        self._listens, self._channels = frozenset(), {}

    def rung(self) -> Set[str]:
        """The bells that were rung since this was last asked."""
        try:
            channels = self.connection.rung()
        except psycopg.Error:  # the connection was lost: `listen` replaces it
            return frozenset()
        return {bell for bell, channel in self._channels.items() if channel in channels}


def _listed(bells: Set[str]) -> str:
    return json.dumps(sorted(bells))


class Listening:
    """Someone who waits at some bells, and for some processes to end. `fileno()` is readable when there is news."""

    def __init__(self, connection: Connection, bells: Sequence[str]) -> None:
        self._line = Line(connection)
        self._bells = frozenset(bells)
        self._socket = -1
        self._poll = select.epoll() if hasattr(select, "epoll") else None
        self._endings = Endings(self._poll) if self._poll else None
        self._heard_on = self._listen()

    def fileno(self) -> int:
        return self._poll.fileno() if self._poll else self._socket

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `doorbell.Listener.rounds`."""
        before = self._heard_on
        try:
            self._heard_on = self._listen()
        except Lost:
            self._reach(-1)
            yield shortened(seconds)
            return False
        if self._heard_on != before:
            return False  # to look before it sleeps
        if self._endings:
            seconds = self._endings.watch(pids, seconds)
        if not self._line.rung() and (yield seconds if self._heard_on else shortened(seconds)):
            self._line.rung()
        return False

    def close(self) -> None:
        if self._endings:
            self._endings.close()
        if self._poll:
            self._poll.close()
        if self._line.number == self._line.connection.generation and self._line.connection.sound():
            with suppress(Lost, BusError):
                self._line.listen(frozenset())

    def _listen(self) -> int:
        """The number of the connection that hears all bells, 0 when none does."""
        before = self._line.number, self._line.socket
        self._line.listen(self._bells)
        if (self._line.number, self._line.socket) != before:
            self._reach(self._line.socket)
        return self._line.number if self._bells <= self._line.heard else 0

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
