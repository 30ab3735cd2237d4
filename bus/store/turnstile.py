"""Writers queue on a lock of a side file before they ask SQLite for the write lock.

SQLite's own busy handler sleeps and tries again, unfairly: with eight processes single waits pass 100 ms. The kernel
wakes the waiters of a `flock` in order. The side file is never removed, and never the database itself: closing a
descriptor on that would drop SQLite's locks.
"""

from __future__ import annotations

import fcntl
import os
import time

from bus.errors import error

LOOKS = 100


class Turnstile:
    """The queue before the write lock of one bus; one descriptor, for one thread."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def enter(self, timeout: float) -> None:
        """Take the turn. Raises `busy` when nobody else moves for `timeout` seconds (a stopped process holds it)."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._queue(time.monotonic() + timeout)

    def _queue(self, deadline: float) -> None:
        pause = 0.00005
        while True:
            time.sleep(pause)
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as taken:
                if time.monotonic() > deadline:
                    raise error("busy") from taken
                pause = min(pause * 1.5, 0.001)

    def busy(self) -> float:
        """In what share of a hundred looks, a quarter of a millisecond apart, somebody has the turn."""
        taken = 0
        for _ in range(LOOKS):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            except BlockingIOError:
                taken += 1
            time.sleep(0.00025)
        return taken / LOOKS

    def leave(self) -> None:
        """Let the next one through."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)
