"""Many processes at once on one bus: forked, in their roles until a moment, and what went wrong in any of them."""

from __future__ import annotations

import ctypes
import os
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.faults.invariants import Breach

_libc = ctypes.CDLL(None)


class Crew:
    """Processes that this one forked. They end with it, and what one of them raises is a breach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.alive: dict[int, str] = {}

    def begin(self, name: str, role: Callable[[], None]) -> int:
        """Fork a process for a role; its pid. This process must not have a bus open."""
        pid = os.fork()
        if not pid:
            _live(self.folder / f"{name}.failure", role)
        self.alive[pid] = name
        return pid

    def finish(self, seconds: float) -> None:
        """Wait until all have ended by themselves; raises `Breach` when one failed, or did not end in so many."""
        end = time.monotonic() + seconds
        try:
            while self.alive and time.monotonic() < end:
                for pid in [pid for pid in self.alive if os.waitpid(pid, os.WNOHANG)[0]]:
                    del self.alive[pid]
                time.sleep(0.002)
            late = list(self.alive.values())
        finally:
            self._end()
        failures = [path.read_text("utf-8") for path in sorted(self.folder.glob("*.failure"))]
        if late or failures:
            raise Breach([*failures, *(f"{name} did not end" for name in late)])

    def _end(self) -> None:
        for pid in self.alive:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.alive.clear()


def _live(failure: Path, role: Callable[[], None]) -> None:
    """A process's life, in the child. Never returns."""
    status = 1
    try:
        _libc.prctl(1, signal.SIGKILL)  # it ends with its parent
        role()
        status = 0
    except BaseException as problem:
        failure.write_text(f"{failure.stem} failed: {problem!r}\n{traceback.format_exc()}", "utf-8")
    finally:
        os._exit(status)
