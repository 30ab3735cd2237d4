"""What must not be open where a process forks.

SQLite remembers which locks its process has. A child inherits that memory, but not the locks: once its parent had
ended, others would take away the WAL that the child writes to, and what it wrote would be lost. And where another
thread was at work just then, its transaction would never end in the child.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol


class Open(Protocol):
    """Something that is open, and held by who is at work with it."""

    in_use: threading.RLock

    def rest(self) -> None:
        """Close: nobody is at work, unless a signal handler forks in the middle of it."""


turn = threading.RLock()  # of who opens, who closes, and who forks
PATIENCE = 0.05  # seconds: who is at work may have to close something first
_open_ones: weakref.WeakValueDictionary[int, Open] = weakref.WeakValueDictionary()
_resting: list[Open] = []


def opened(one: Open) -> None:
    """From now on it is closed before each fork."""
    _open_ones[id(one)] = one


def closed(one: Open) -> None:
    """It is closed for good."""
    _open_ones.pop(id(one), None)


def _rest() -> None:
    while not _have_all():
        _go_on()
    for each in _resting:
        each.rest()


def _have_all() -> bool:
    turn.acquire()
    for reference in _open_ones.valuerefs():
        if found := reference():
            if not found.in_use.acquire(timeout=PATIENCE):
                return False
            _resting.append(found)
    return True


def _go_on() -> None:
    while _resting:
        _resting.pop().in_use.release()
    turn.release()


os.register_at_fork(before=_rest, after_in_parent=_go_on, after_in_child=_go_on)
