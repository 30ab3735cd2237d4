"""One connection through which all coroutines of a store hear: a server has only so many of them.

A thread has it, and brings what is listened to in line with who waits, again and again; so one who comes, one who goes
and a connection that was lost are the same to it. Who does not hear yet, or not any more, looks now and then.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
from collections.abc import Callable, Generator, Sequence, Set
from contextlib import suppress

import psycopg

from bus.errors import BusError
from bus.operation import Row
from bus.store.doorbell import Endings
from bus.store.postgres import Connection
from bus.store.postgres_errors import Lost
from bus.store.postgres_listening import LOOK, shortened
from bus.store.url import Server

LINGER = 10.0  # seconds for which the connection is kept when nobody waits
_BELLS = "json_array_elements_text($1::json) bell"
# Not to wait, as `bell_pass` does: all others would hear nothing meanwhile.
_PASSED = f"""
    select bell, bell_channel(bell) from {_BELLS}
    where case when pg_try_advisory_lock(bell_written(bell)) then pg_advisory_unlock(bell_written(bell)) else false end
"""


class Ear:
    """Listens for all who wait."""

    def __init__(self, url: Server) -> None:
        self._url = url
        self._turn = threading.Lock()
        self._guests: set[Guest] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._nudge = _Bell()

    def listen(self, bells: Sequence[str]) -> Guest:
        """Wait at these bells from now on; there is news as soon as it hears. Raises OSError."""
        guest = Guest(bells, self._dismiss)
        if self._url.listen:
            with self._turn:
                if self._thread is None:
                    thread = threading.Thread(target=self._work, name="bus listens", daemon=True)
                    thread.start()
                    self._thread = thread
                self._guests.add(guest)
            self._nudge.ring()
        return guest

    def close(self) -> None:
        """Close the connection, when nobody waits any more. Idempotent."""
        with self._turn:
            self._closed, thread = True, self._thread
        self._nudge.ring()
        if thread:
            thread.join()
        self._nudge.close()

    def _dismiss(self, guest: Guest) -> None:
        with self._turn:  # who rings must not write to what is another's file by then
            self._guests.discard(guest)
            guest.end()
        self._nudge.ring()

    def _work(self) -> None:
        line = _Line(self._url)
        woken = True
        try:
            while self._goes_on(woken):
                woken = self._round(line)
        finally:
            line.drop()

    def _goes_on(self, woken: bool) -> bool:
        with self._turn:
            if self._closed or not (woken or self._guests):
                self._thread = None
                return False
        return True

    def _round(self, line: _Line) -> bool:
        """Listen at what is waited for, tell those who are rung for, and sleep; whether something woke it."""
        with self._turn:
            bells = {bell for guest in self._guests for bell in guest.bells}
        try:
            line.listen(bells)
            rung = line.rung()
        except (psycopg.Error, OSError, Lost, BusError):  # who looks is told of it
            line.drop()
            rung = set()
        with self._turn:
            for guest in self._guests:
                heard_on = line.number if guest.bells <= line.heard else 0
                if guest.heard_on != heard_on or not guest.bells.isdisjoint(rung):
                    guest.heard_on = heard_on
                    guest.bell.ring()
            deaf = any(not guest.heard_on for guest in self._guests)
            limit = LOOK if deaf else None if self._guests else LINGER
        return self._nudge.sleep(line.sockets(), limit)


class _Line:
    """The connection, and what it hears: where it listens, and no commit that began before that can ring any more.
    `number` is another one for each connection."""

    def __init__(self, url: Server) -> None:
        self._url = url
        self._connection: Connection | None = None
        self._listens: Set[str] = frozenset()
        self._channels: dict[str, str] = {}
        self.number = 0

    @property
    def heard(self) -> Set[str]:
        return self._channels.keys()

    def listen(self, bells: Set[str]) -> None:
        """Listen at these bells and no others. Raises `Lost`, and errors of the bus and of the driver."""
        if self._connection is None:
            self._connection = Connection(self._url)
        self._connection.driver()
        if self.number != self._connection.generation:
            self.number, self._listens = self._connection.generation, frozenset()
            self._channels.clear()
        self._ask(f"select bell_leave(bell) from {_BELLS}", self._listens - bells)
        self._ask(f"select bell_listen(bell) from {_BELLS}", bells - self._listens)
        self._listens = bells
        self._channels = {bell: channel for bell, channel in self._channels.items() if bell in bells}
        self._channels |= self._ask(_PASSED, bells - self.heard)

    def rung(self) -> set[str]:
        """The bells that were rung since this was last asked. Raises the driver's errors."""
        channels = self._connection.take_in() if self._connection else set()
        return {bell for bell, channel in self._channels.items() if channel in channels}

    def sockets(self) -> list[int]:
        """What is readable when there is something to hear, or the connection was lost."""
        return [self._connection.driver().fileno()] if self._connection and self._connection.sound() else []

    def drop(self) -> None:
        """Hear nothing; `listen` connects anew."""
        if self._connection:
            self._connection.close()
        self._channels.clear()

    def _ask(self, text: str, bells: Set[str]) -> list[Row]:
        if not (bells and self._connection):
            return []
        return self._connection.ask([(text, [json.dumps(sorted(bells))])]) or []


class Guest:
    """One who waits at some bells, and for some processes to end. `fileno()` is readable when there is news."""

    def __init__(self, bells: Sequence[str], dismiss: Callable[[Guest], None]) -> None:
        self.bells = frozenset(bells)
        self.heard_on = 0  # the number of the connection that hears all its bells; else it looks now and then
        self.bell = _Bell()
        self._dismiss = dismiss
        self._poll = select.epoll() if sys.platform == "linux" else None
        self._endings = Endings(self._poll) if self._poll else None
        if self._poll:
            self._poll.register(self.bell, select.EPOLLIN)

    def fileno(self) -> int:
        return self._poll.fileno() if self._poll else self.bell.fileno()

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `doorbell.Listener.rounds`."""
        if self._endings:
            self._endings.watch(pids)
        yield seconds if self.heard_on else shortened(seconds)
        self.bell.quiet()
        return False

    def close(self) -> None:
        self._dismiss(self)

    def end(self) -> None:
        """Give back what it has of the system."""
        if self._endings:
            self._endings.close()
        if self._poll:
            self._poll.close()
        self.bell.close()


class _Bell:
    """What one thread rings, and another sleeps by."""

    def __init__(self) -> None:
        self._inside, self._outside = socket.socketpair()
        self._inside.setblocking(False)
        self._outside.setblocking(False)

    def fileno(self) -> int:
        return self._inside.fileno()

    def ring(self) -> None:
        """Wake who sleeps; once is enough, and nobody there is no error."""
        with suppress(OSError):
            self._outside.send(b"!")

    def quiet(self) -> None:
        """It was heard."""
        with suppress(BlockingIOError):
            while self._inside.recv(4096):
                pass

    def sleep(self, sockets: Sequence[int], seconds: float | None) -> bool:
        """Sleep until it is rung, or one of these is readable, or the time is over; false then."""
        poll = select.poll()
        for descriptor in (self._inside.fileno(), *sockets):
            poll.register(descriptor, select.POLLIN)
        woken = bool(poll.poll(None if seconds is None else seconds * 1000))
        self.quiet()
        return woken

    def close(self) -> None:
        """Give back what it has of the system."""
        self._inside.close()
        self._outside.close()

    def __del__(self) -> None:
        if hasattr(self, "_outside"):
            self.close()  # of a bus that nobody closed
