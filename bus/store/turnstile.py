"""Writers queue on a lock of a side file before they ask SQLite for the write lock.

SQLite's own busy handler sleeps and tries again, unfairly: with eight processes single waits pass 100 ms. Here a writer
tries again soon, and who had no luck for some milliseconds joins the kernel's own queue for the `flock`, which wakes
its waiters in order. The side file is never removed, and never the database itself: closing a descriptor on that would
drop SQLite's locks.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time

from bus.errors import error, of_system

NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
LOOKS = 100
PAUSE = 0.001  # seconds between two tries; the more often, the more they take from who has the turn
PATIENCE = 0.01  # seconds of trying before the kernel's queue


class Turnstile:
    """The queue before the write lock of one bus; one descriptor, for one thread."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = _open(path)
        self._place: _Place | None = None  # given up, and perhaps still in the queue
        self.inside = False  # whether it is our turn

    def enter(self, timeout: float) -> bool:
        """Take the turn, unless we have it; whether it was somebody else's before. Raises `busy` when nobody else moves
        for `timeout` seconds (a stopped process holds it)."""
        if self.inside:
            return False
        try:
            fcntl.flock(self._descriptor, NOW)
            waited = False
        except BlockingIOError:
            self._queue(time.monotonic() + timeout)
            waited = True
        self.inside = True
        return waited

    def _queue(self, deadline: float) -> None:
        patient = min(time.monotonic() + PATIENCE, deadline)
        while time.monotonic() < patient:
            time.sleep(PAUSE)
            try:
                return fcntl.flock(self._descriptor, NOW)
            except BlockingIOError:
                pass
        if not (self._place and self._place.taken_again()):
            self._place = _Place(self._path)
        if not self._place.reached(deadline - time.monotonic()):
            raise error("busy")
        os.close(self._descriptor)
        self._descriptor = self._place.descriptor
        self._place = None
        return None

    def busy(self) -> float:
        """In what share of a hundred looks, a quarter of a millisecond apart, somebody has the turn."""
        taken = 0
        for _ in range(LOOKS):
            try:
                fcntl.flock(self._descriptor, NOW)
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            except BlockingIOError:
                taken += 1
            time.sleep(0.00025)
        return taken / LOOKS

    def leave(self) -> None:
        """Let the next one through, if we are inside."""
        if self.inside:
            self.inside = False
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


class _Place:
    """A place in the kernel's queue. A blocking `flock` has no timeout, so that a thread waits in it; given up, it lets
    the turn pass when it comes, unless it is taken again before."""

    def __init__(self, path: str) -> None:
        self.descriptor = _open(path)
        self._settled = threading.Lock()
        self._abandoned = False
        self._passed = False
        self._turn = threading.Event()
        threading.Thread(target=self._wait, daemon=True).start()

    def taken_again(self) -> bool:
        """Go on waiting at the place that was given up; false when its turn has passed."""
        with self._settled:
            self._abandoned = False
            return not self._passed

    def reached(self, seconds: float) -> bool:
        """Wait for the turn, at most so long; false when it was given up."""
        self._turn.wait(max(seconds, 0))
        with self._settled:
            self._abandoned = not self._turn.is_set()
            return not self._abandoned

    def _wait(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)
        with self._settled:
            self._passed = self._abandoned
            if self._passed:
                os.close(self.descriptor)
            else:
                self._turn.set()


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as problem:
        raise of_system(problem, path) from problem
