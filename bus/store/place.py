"""What can be told of a bus from outside: its files, its library, and who holds the write lock."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from bus.store.url import Url

WRITE_LOCK = "120"  # the byte of the -shm file that SQLite locks for writing


def facts(url: Url) -> dict[str, Any]:
    """Path, sizes in bytes, library, durability, and the pid that holds the write lock, if any."""
    version = sqlite3.sqlite_version_info
    return {
        "path": url.path,
        "bytes": _size(url.path),
        "wal_bytes": _size(f"{url.path}-wal"),
        "synchronous": url.synchronous,
        "library": sqlite3.sqlite_version,
        "guarded": (version >= (3, 51, 3) and version != (3, 52, 0)) or version in ((3, 44, 6), (3, 50, 7)),
        "holder": _holder(f"{url.path}-shm"),
    }


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _holder(shm: str) -> int | None:
    try:
        inode = str(os.stat(shm).st_ino)
        with open("/proc/locks", encoding="ascii") as locks:
            for line in locks:
                fields = line.split()
                if "WRITE" in fields and fields[-3].endswith(f":{inode}") and fields[-2] == WRITE_LOCK:
                    return int(fields[-4])
    except (OSError, ValueError, IndexError):
        pass
    return None
