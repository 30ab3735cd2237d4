"""Writers queue on a lock of a side file before they ask SQLite for the write lock.

SQLite's own busy handler sleeps and tries again, unfairly: with eight processes single waits pass 100 ms, and on a busy
machine seconds. Here a writer tries again after a millisecond, then waits twice as long each time. One that had no luck
for ten milliseconds takes the right of way, and writes into the side file how long it has it: until then nobody else
tries, and it tries more often.
The kernel's own queue for a `flock` would not do: it wakes who waits, and who is awake already has taken the turn again
by then. The side file is never removed, and never the database itself: closing a descriptor on that would drop SQLite's
locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time

from bus import folders
from bus.errors import error

NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
LOOKS = 100  # for `busy`
PAUSE = 0.001  # seconds before the second try; the more there are, the more they take from who has the turn
PATIENCE = 0.01  # seconds of that
HASTE = 0.0001  # seconds between two tries of one with the right of way
RIGHT_OF_WAY = 0.05  # seconds that it lasts, unless it is renewed; who has it may be killed


_open_ones: set[Turnstile] = set()


def _leave_it_to_the_parent() -> None:
    """A child has its parent's descriptors, and with them the turn: were the parent killed, it would never end."""
    for turnstile in list(_open_ones):
        turnstile.close()


os.register_at_fork(after_in_child=_leave_it_to_the_parent)


class Turnstile:
    """The queue before the write lock of one bus; one descriptor, for one thread."""

    def __init__(self, path: str, flags: int = os.O_RDWR | os.O_CREAT) -> None:
        self._descriptor = folders.own(path, flags)
        self.inside = False  # whether it is our turn
        _open_ones.add(self)

    def enter(self, timeout: float) -> bool:
        """Take the turn, unless we have it; whether it was somebody else's before. Raises `busy` when it does not come
        for `timeout` seconds (a stopped process holds it)."""
        if self.inside:
            return False
        try:
            waited = self._is_anothers() or not self._taken()
            if waited:
                self._wait(timeout)
            self.inside = True
        except BaseException:  # one out of a signal handler may come just after it was taken
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            raise
        return waited

    def _wait(self, timeout: float) -> None:
        now = begun = time.monotonic()
        while now < begun + timeout:
            hurried = now > begun + PATIENCE
            if hurried:
                self._say(now + RIGHT_OF_WAY)
            time.sleep(HASTE if hurried else max(PAUSE, now - begun))  # `flock` can't wait for a limited time
            if (hurried or not self._is_anothers()) and self._taken():
                if hurried:
                    self._say(0)
                return
            now = time.monotonic()
        raise error("busy")

    def _taken(self) -> bool:
        try:
            fcntl.flock(self._descriptor, NOW)
        except BlockingIOError:
            return False
        return True

    def _is_anothers(self) -> bool:
        """Whether somebody else has the right of way."""
        said = os.pread(self._descriptor, 8, 0)
        return bool(said) and 0 < int.from_bytes(said, "little") / 1e9 - time.monotonic() <= RIGHT_OF_WAY

    def _say(self, until: float) -> None:
        """That we have the right of way, until a moment of the clock that all processes share."""
        with contextlib.suppress(OSError):  # the disk is full: then it is luck
            os.pwrite(self._descriptor, int(until * 1e9).to_bytes(8, "little"), 0)

    def busy(self) -> float:
        """In what share of a hundred looks, a quarter of a millisecond apart, somebody has the turn."""
        taken = 0
        for _ in range(LOOKS):
            if self._taken():
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            else:
                taken += 1
            time.sleep(0.00025)
        return taken / LOOKS

    def leave(self) -> None:
        """Let the next one through, if we are inside."""
        if self.inside:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            self.inside = False

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            _open_ones.discard(self)
