"""The database files that SQLite has had open in this process: nobody else here may open them, even to read. Whoever
closes a descriptor on one drops all the locks that SQLite has on it (https://sqlite.org/howtocorrupt.html, 2.2), and
the next process that closes the bus removes the WAL under this one."""

from __future__ import annotations

import os
from contextlib import suppress

_paths: set[str] = set()


def opened(path: str) -> None:
    """SQLite has this one open from now on."""
    _paths.add(path)


def has(file: os.stat_result) -> bool:
    """Whether a file is one of theirs, whatever its name."""
    for path in list(_paths):
        for name in (path, f"{path}-wal", f"{path}-shm"):
            with suppress(OSError):
                if os.path.samestat(os.stat(name), file):
                    return True
    return False
