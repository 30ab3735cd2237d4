"""What can be told of a bus from outside: its files, its library, and who holds the write lock."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

from bus.store.turnstile import Turnstile
from bus.store.url import MEMORY, Place, Server, Url

WAL_LARGE = 16 << 20  # four times what starts a checkpoint: some reader holds it up
WRITE_LOCK = "120"  # the byte of the -shm file that SQLite locks for writing


Fact = tuple[str, str, str]  # what was looked at; ok, warning or fault; what was seen


def facts(url: Url) -> list[Fact]:
    """Path, size and durability; the library; the WAL; the process that holds the write lock, if any."""
    wal, holder = _size(f"{url.path}-wal"), _holder(f"{url.path}-shm")
    return [
        ("bus", "ok", f"{url.path}, {_size(url.path)} bytes, synchronous={url.synchronous}"),
        _library(),
        ("wal", "warning" if wal > WAL_LARGE else "ok", f"{wal} bytes"),
        ("writer", "ok", f"process {holder} holds the write lock" if holder else "nobody holds the write lock"),
    ]


def sizes(url: Url) -> dict[str, int]:
    """Of what takes room on the disk, in bytes."""
    return {"file": _size(url.path), "wal": _size(f"{url.path}-wal")}


def busy(url: Place) -> float | None:
    """The share of a short time in which somebody wrote to the file; None where the bus is no file."""
    if isinstance(url, Server) or url.path == MEMORY:
        return None
    with closing(Turnstile(f"{url.path}.turn")) as turnstile:
        return turnstile.busy()


def _library() -> Fact:
    version = sqlite3.sqlite_version_info
    if (version >= (3, 51, 3) and version != (3, 52, 0)) or version in ((3, 44, 6), (3, 50, 7)):
        return ("library", "ok", f"SQLite {sqlite3.sqlite_version}")
    words = "has the WAL-reset bug; checkpoints of the bus are guarded against it, those of other programs are not"
    return ("library", "warning", f"SQLite {sqlite3.sqlite_version} {words}")


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
