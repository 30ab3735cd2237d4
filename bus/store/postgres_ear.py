"""One connection through which all coroutines of a store hear: a server has only so many of them.

A thread has it, and brings what is listened to in line with who waits, again and again; so one who comes, one who goes
and a connection that was lost are the same to it. Who does not hear yet, or not any more, looks now and then.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Generator, Sequence, Set
from contextlib import suppress

from bus.errors import BusError
from bus.store.doorbell import Endings
from bus.store.postgres import Connection
from bus.store.postgres_errors import Lost
from bus.store.postgres_listening import LOOK, Line, shortened
from bus.store.url import Server

RUNG = (1).to_bytes(8, sys.byteorder)  # as an eventfd takes it
LINGER = 10.0  # seconds for which the connection is kept when nobody waits


class Ear:
    """Listens for all who wait."""

    def __init__(self, url: Server) -> None:
        self._url = url
        self._turn = threading.Lock()
        self._guests: set[Guest] = set()
        self._thread: threading.Thread | None = None
        self._line: Line | None = None  # the thread's
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
        woken = True
        while self._goes_on(woken):
            woken = self._round()

    def _goes_on(self, woken: bool) -> bool:
        with self._turn:
            if self._closed or not (woken or self._guests):
                if self._line:
                    self._line.connection.close()
                self._line = self._thread = None
                return False
        return True

    def _round(self) -> bool:
        """Listen at what is waited for, tell those who are rung for, and sleep; whether something woke it."""
        with self._turn:
            bells = {bell for guest in self._guests for bell in guest.bells}
        rung = self._heard(bells)
        with self._turn:
            for guest in self._guests:
                heard_on = self._line.number if self._line and guest.bells <= self._line.heard else 0
                if guest.heard_on != heard_on or not guest.bells.isdisjoint(rung):
                    guest.heard_on = heard_on
                    guest.bell.ring()
            deaf = any(not guest.heard_on for guest in self._guests)
            limit = LOOK if deaf else None if self._guests else LINGER
        return self._nudge.sleep(self._line.socket if self._line else -1, limit)

    def _heard(self, bells: Set[str]) -> Set[str]:
        try:
            self._line = self._line or Line(Connection(self._url))
            self._line.listen(bells)
            return self._line.rung()
        except (OSError, Lost, BusError):  # who looks is told of it
            return frozenset()


class Guest:
    """One who waits at some bells, and for some processes to end. `fileno()` is readable when there is news."""

    def __init__(self, bells: Sequence[str], dismiss: Callable[[Guest], None]) -> None:
        self.bells = frozenset(bells)
        self.heard_on = 0  # the number of the connection that hears all its bells; else it looks now and then
        self.bell = _Bell()
        self._dismiss = dismiss
        self._poll: select.epoll | None = None  # where there are processes to watch
        self._endings: Endings | None = None

    def fileno(self) -> int:
        return self._poll.fileno() if self._poll else self.bell.fileno()

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `doorbell.Listener.rounds`."""
        if pids and not self._poll and hasattr(select, "epoll"):
            self._poll = select.epoll()
            self._poll.register(self.bell, select.EPOLLIN)
            self._endings = Endings(self._poll)
        if self._endings:
            seconds = self._endings.watch(pids, seconds)
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
        if hasattr(os, "eventfd"):  # one descriptor instead of two
            self._inside = self._outside = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._inside, self._outside = os.pipe()
            for descriptor in (self._inside, self._outside):
                os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        return self._inside

    def ring(self) -> None:
        """Wake who sleeps; once is enough, and nobody there is no error."""
        with suppress(OSError):
            os.write(self._outside, RUNG)

    def quiet(self) -> None:
        """It was heard."""
        with suppress(BlockingIOError):
            while os.read(self._inside, 4096):
                pass

    def sleep(self, other: int, seconds: float | None) -> bool:
        """Sleep until it is rung, or the other descriptor (-1: none) is readable, or the time is over; false then."""
        poll = select.poll()
        for descriptor in {self._inside, other} - {-1}:
            poll.register(descriptor, select.POLLIN)
        woken = bool(poll.poll(None if seconds is None else seconds * 1000))
        self.quiet()
        return woken

    def close(self) -> None:
        """Give back what it has of the system."""
        for descriptor in {self._inside, self._outside} - {-1}:
            os.close(descriptor)
        self._inside = self._outside = -1

    def __del__(self) -> None:
        if hasattr(self, "_outside"):
            self.close()  # of a bus that nobody closed
