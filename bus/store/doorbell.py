"""Doorbells: how a writer wakes those who wait, without a daemon and without polling.

A bell is an empty file in a folder beside the database, named after an address. Who waits makes its bells and watches
them with inotify; who has committed something for an address touches its bell, if there is one. Commits of other
programs show on the `-wal` file, within 250 ms. While others write all the time, waiters do not listen to its events,
but look four times a second at when it was last written to, so that a hundred idle ones cost little. Such a write
precedes the commit; looking that much later is late enough. A lost ring costs a waiter at most these 250 ms.

The bell of a message is taken down by who leaves it: else there would be a file for each message that was ever waited
for. Who waits there still hears that, hangs it up again, and looks before it sleeps: so it sees what was rung for
meanwhile. What killed waiters leave `sweep` takes down.

Linux only, also in memory; elsewhere, and under gevent, which takes epoll away, a `Glance` stands in, which ends every
50 ms, so that the waiter looks by itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import stat
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from bus import clock
from bus.bells import PASSING

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE, IN_IGNORED = 0x2, 0x4, 0x8, 0x8000
RESTING = 8  # listeners that a connection keeps at most
FOREIGN = 0.25  # seconds between two looks at what other programs committed
GLANCE = 0.05  # seconds between two looks where nothing can wake who waits
BLIND = 1.0  # second between two looks at processes that can't be watched
SETTLED = 0.3  # seconds after its last write in which a commit may not have ended yet


def _left(end: float) -> float:
    """The seconds to a moment, 0 when it is over."""
    return max(end - time.monotonic(), 0)


def lasting(seconds: float | None) -> Iterator[float | None]:
    """How long is left of so many seconds (None: for ever), each time it is asked; at least once."""
    end = None if seconds is None else time.monotonic() + seconds
    yield seconds
    while end is None or time.monotonic() < end:
        yield None if end is None else _left(end)


def sweep(folder: str) -> None:
    """Take down the bells at which nobody rang for a day: who waits there still hangs them up again."""
    with contextlib.suppress(OSError), _opened(folder) as descriptor, os.scandir(descriptor) as bells:
        for bell in bells:
            found = bell.stat(follow_symlinks=False)
            if stat.S_ISREG(found.st_mode) and not found.st_size and found.st_mtime < time.time() - clock.DAY:
                os.unlink(bell.name, dir_fd=descriptor)


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    """The folder of the bells. Raises OSError for what is no folder of ours, a link for instance."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "the folder of the bells belongs to somebody else")
        yield descriptor
    finally:
        os.close(descriptor)


class Endings:
    """Makes an epoll readable when one of some processes ends."""

    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self._descriptors: dict[int, int] = {}

    def watch(self, pids: Sequence[int], seconds: float | None = None) -> float | None:
        """Watch these processes, and no others; one that is gone can't be watched. How long to wait, of so many seconds
        (None: for ever): not long where the system lets us watch no more."""
        if not pids and not self._descriptors:
            return seconds
        for pid in set(pids) - set(self._descriptors):
            try:
                self._begin(pid)
            except ProcessLookupError:
                continue
            except OSError:
                seconds = BLIND if seconds is None else min(seconds, BLIND)
                break
        for pid in set(self._descriptors) - set(pids):
            self._poll.unregister(self._descriptors[pid])
            os.close(self._descriptors.pop(pid))
        return seconds

    def _begin(self, pid: int) -> None:
        descriptor = os.pidfd_open(pid)
        try:
            self._poll.register(descriptor, select.EPOLLIN)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptors[pid] = descriptor

    def close(self) -> None:
        """Give the descriptors back; the epoll is to be closed with them."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)


class Listener:
    """Someone who waits at some bells, and for some processes to end. `fileno()` is readable when there is news.

    The kernel takes 10–20 ms to close an inotify descriptor, so that one is kept from one wait to the next: it rests.
    """

    def __init__(self, folder: str, wal: str, bells: Sequence[str], dismiss: Callable[[Listener], None]) -> None:
        self.bells = tuple(bells)
        self._folder = folder
        self._dismiss = dismiss
        self._wal = wal
        self._wal_watch = -1
        self._noted: tuple[int, int] | None = None  # size and time of the WAL, when they were last looked at
        import ctypes  # who never waits does without

        self._libc, self._errno = ctypes.CDLL(None, use_errno=True), ctypes.get_errno
        self._inotify = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(self._errno(), "there are no more inotify instances")
        try:
            self._poll = select.epoll()
            self._endings = Endings(self._poll)
            self._poll.register(self._inotify, select.EPOLLIN)
            self._hang_up()
        except BaseException:
            os.close(self._inotify)
            raise
        self._listen_to_wal()

    def rest(self) -> None:
        """Watch no process and no WAL until `resume`."""
        self._endings.watch(())
        self._turn_away()

    def resume(self) -> None:
        """Listen again from now on."""
        self._rung()
        if not self._sound:
            self._hang_up_again()
        self._listen_to_wal()

    def fileno(self) -> int:
        return self._poll.fileno()

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """Wait: yields how long to wait for `fileno()` (None: for ever), is told whether it was readable, returns when
        there is something to look at or the time is over: true when all that is known is that another program wrote."""
        seconds = self._endings.watch(pids, seconds)
        if not self._sound:
            self._hang_up_again()
            return False  # to look before it sleeps
        end = None if seconds is None else time.monotonic() + seconds
        while True:
            if self._listens:
                if not (yield None if end is None else _left(end)) or self._rung():
                    return False
                self._turn_away()
            look = time.monotonic() + FOREIGN
            while left := _left(look if end is None else min(look, end)):
                if (yield left) and self._rung():
                    return False
            if end is not None and end <= look:
                return False
            if self._written():
                return True
            self._listen_to_wal()
            if self._written():  # since it was looked at, and before it was listened to
                self._turn_away()
                return True

    def close(self) -> None:
        """Wait no more; it may be used again."""
        self._dismiss(self)

    def end(self) -> None:
        """Give back what it has of the system."""
        self._endings.close()
        self._poll.close()
        os.close(self._inotify)

    def _watch(self, path: str, mask: int) -> int:
        return int(self._libc.inotify_add_watch(self._inotify, os.fsencode(path), mask))

    def _hang_up(self) -> None:
        self._at_bells: set[int] = set()
        if self.bells:
            os.makedirs(self._folder, 0o700, exist_ok=True)
            with _opened(self._folder) as folder:
                self._at_bells = {self._watch_bell(bell, folder) for bell in self.bells}
        self._sound = -1 not in self._at_bells  # whether all bells hang there, for all that is known

    def _hang_up_again(self) -> None:
        self._sound = True
        with contextlib.suppress(OSError):  # then there is still the WAL
            self._hang_up()

    def _watch_bell(self, bell: str, folder: int) -> int:
        os.close(os.open(bell, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=folder))
        path = f"{self._folder}/{bell}"
        # Not when it is opened or written to: sqlite3 has the turn until it ends.
        watch = self._watch(path, IN_ATTRIB | IN_CLOSE_WRITE)
        if watch < 0 and os.path.lexists(path):  # else another waiter has just taken it down
            raise OSError(self._errno(), "there are no more inotify watches")
        return watch

    def _listen_to_wal(self) -> None:
        self._wal_watch = self._watch(self._wal, IN_MODIFY)
        self._listens = self._wal_watch >= 0  # else there are no more watches, and its time is looked at

    def _turn_away(self) -> None:
        self._libc.inotify_rm_watch(self._inotify, self._wal_watch)
        self._listens = False

    def _written(self) -> bool:
        """Whether the WAL was written to since this was last asked; so, too, if that is so short a while ago that the
        commit may not have ended."""
        before = self._noted
        try:
            found = os.stat(self._wal)
            self._noted = found.st_size, found.st_mtime_ns
            fresh = time.time() - found.st_mtime < SETTLED
        except OSError:
            self._noted, fresh = None, True  # nobody has the bus open, after a fork not even who waits: a look opens it
        return fresh or self._noted != before

    def _rung(self) -> bool:
        """Read all events; whether any is more than a write to the WAL, or a bell does not hang there any more."""
        if any(descriptor != self._inotify for descriptor, _ in self._poll.poll(0)):
            return True
        rung = False
        with contextlib.suppress(BlockingIOError):
            while events := os.read(self._inotify, 65536):
                at = 0
                while at < len(events):
                    watch, mask, _, length = struct.unpack_from("iIII", events, at)
                    at += 16 + length
                    rung |= watch != self._wal_watch and not mask & IN_IGNORED
                    self._sound &= not (mask & IN_IGNORED and watch in self._at_bells)
        return rung or not self._sound


class Glance:
    """Stands in for a `Listener` where there is no inotify, or none left: looks every 50 ms."""

    def __init__(self) -> None:
        self._ends = os.pipe()

    def fileno(self) -> int:
        return self._ends[0]

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `Listener.rounds`."""
        yield GLANCE if seconds is None else min(seconds, GLANCE)
        return False

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


class Porch:
    """The doorbells of a bus in a file, as one connection knows them."""

    def __init__(self, folder: str, wal: str) -> None:
        self._folder = folder
        self._wal = wal
        self._resting: list[Listener] = []
        self._closed = False

    def ring(self, bells: Sequence[str]) -> None:
        """Wake whoever waits at these bells. Nobody there is no error."""
        for bell in bells:
            path = f"{self._folder}/{bell}"
            if os.access(path, os.F_OK):  # mostly there is none, and an exception would cost more
                with contextlib.suppress(OSError):
                    os.utime(path, follow_symlinks=False)

    def listen(self, bells: Sequence[str]) -> Listener | Glance:
        """Wait at these bells, and for writes to the WAL, from now on."""
        for place, listener in enumerate(self._resting):
            if listener.bells == tuple(bells):
                del self._resting[place]
                listener.resume()
                return listener
        try:
            return Listener(self._folder, self._wal, bells, self._dismiss) if hasattr(select, "epoll") else Glance()
        except OSError:
            return Glance()  # no more instances or watches for this user: see /proc/sys/fs/inotify

    def _dismiss(self, listener: Listener) -> None:
        listener.rest()
        self._resting.append(listener)
        while len(self._resting) > (0 if self._closed else RESTING):
            self._resting.pop(0).end()  # the one that was not needed for the longest time
        for bell in listener.bells:
            if bell.startswith(PASSING):
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._folder}/{bell}")

    def close(self) -> None:
        self._closed = True
        while self._resting:
            self._resting.pop().end()


class Room:
    """The doorbells of a bus in memory, whose waiters are all in this process."""

    def __init__(self, lock: threading.RLock) -> None:
        self._waiting: list[Guest] = []
        # Who rings must not write to what a waiter closes meanwhile: the number may be another file's by then. It is
        # reentrant because a signal's handler may ring, and the connection's, which no other thread has at a fork.
        self._lock = lock

    def listen(self, bells: Sequence[str]) -> Guest | Glance:
        """Wait at these bells from now on."""
        if not hasattr(os, "eventfd"):
            return Glance()
        guest = Guest(frozenset(bells), self._dismiss)
        with self._lock:
            self._waiting.append(guest)
        return guest

    def ring(self, bells: Sequence[str]) -> None:
        """Wake whoever waits at these bells."""
        with self._lock:
            for guest in self._waiting:
                if not guest.bells.isdisjoint(bells):
                    guest.wake()

    def _dismiss(self, guest: Guest) -> None:
        with self._lock:
            self._waiting.remove(guest)
            guest.end()

    def close(self) -> None:
        """Wake all: they find it closed, and end by themselves."""
        with self._lock:
            for guest in self._waiting:
                guest.wake()


class Guest:
    """Someone who waits in a `Room`."""

    def __init__(self, bells: frozenset[str], dismiss: Callable[[Guest], None]) -> None:
        self.bells = bells
        self._dismiss = dismiss
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._event

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """See `Listener.rounds`. A claim that buries a message rings nobody: that is found as late as in a file."""
        if any(bell.startswith(PASSING) for bell in self.bells):
            seconds = FOREIGN if seconds is None else min(seconds, FOREIGN)
        if (yield seconds):
            with contextlib.suppress(BlockingIOError):
                os.read(self._event, 8)
        return False

    def wake(self) -> None:
        """Let it look."""
        os.eventfd_write(self._event, 1)

    def close(self) -> None:
        """Wait no more."""
        self._dismiss(self)

    def end(self) -> None:
        """Give back what it has of the system."""
        os.close(self._event)


class Waiting(Protocol):
    """Someone who waits: `fileno()` is readable when there may be news."""

    def fileno(self) -> int: ...

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        """Wait: see `Listener.rounds`."""
        ...

    def close(self) -> None: ...
