"""Sleeping until a descriptor is readable, so that no signal is slept through."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
from types import TracebackType
from typing import Self

from bus.store.doorbell import lasting

BLIND = 1000  # milliseconds for which a signal may be slept through, where there is no pipe
LONGEST = 2**31 - 1  # milliseconds that poll takes, 24.8 days: who wakes then looks, and sleeps again


class Nap:
    """Sleeps in a `with` block until a descriptor is readable.

    Python runs the handler of a signal between two of its own steps. One that comes after the last of these and before
    the system call would be heard only when something else wakes it; so the signal itself makes a pipe readable that is
    waited for, too (`signal.set_wakeup_fd`). That is for the thread that runs the handlers, where nobody else does it.
    """

    def __init__(self, descriptor: int) -> None:
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        self._ends: tuple[int, ...] = ()
        self._longest = LONGEST

    def __enter__(self) -> Self:
        try:
            former = signal.set_wakeup_fd(-1)
        except ValueError:  # another thread
            return self
        if former < 0:
            try:
                self._ends = os.pipe()
            except OSError:  # no descriptor is left: then it wakes now and then
                self._longest = BLIND
                return self
            for end in self._ends:
                os.set_blocking(end, False)
            self._poll.register(self._ends[0], select.POLLIN)
            signal.set_wakeup_fd(self._ends[1], warn_on_full_buffer=False)
        else:
            signal.set_wakeup_fd(former)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ends:
            signal.set_wakeup_fd(-1)
            for end in self._ends:
                os.close(end)

    def sleep(self, seconds: float | None) -> bool:
        """Sleep until the descriptor is readable, or for so many seconds (None: for ever); whether it is readable."""
        for left in lasting(seconds):
            milliseconds = None if left is None else min(math.ceil(max(left, 0) * 1000), self._longest)
            ready = [descriptor for descriptor, _ in self._poll.poll(milliseconds)]
            if not self._ends or self._ends[0] not in ready:
                return bool(ready)
            with contextlib.suppress(BlockingIOError):
                os.read(self._ends[0], 4096)
        return False
