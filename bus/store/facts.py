"""What can be told of a bus from outside: its files, its library, and who writes."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from glob import glob

from bus.errors import NotFound
from bus.store import files
from bus.store.turnstile import Turnstile
from bus.store.url import MEMORY, Place, Server, Url

WAL_LARGE = 16 << 20  # four times what starts a checkpoint: some reader holds it up
WRITE_LOCK = "120"  # the byte of the -shm file that SQLite locks for writing
WHOLE = "0"  # where a lock of a whole file begins
# How often the list of locks is read before it counts that a lock is not in it: the kernel tells the list a page at a
# time, and it changes in between.
LOOKS = 5

Fact = tuple[str, str, str]  # what was looked at; ok, warning or fault; what was seen


def facts(url: Url) -> list[Fact]:
    """Path, size and durability; the library; the WAL; the processes that hold the write lock and the turn, if any."""
    wal = _size(f"{url.path}-wal")
    return [
        ("bus", "ok", f"{url.path}, {_size(url.path)} bytes, synchronous={url.synchronous}"),
        _library(),
        _room(url),
        ("wal", "warning" if wal > WAL_LARGE else "ok", f"{wal} bytes"),
        _held("writer", "the write lock", _holder(f"{url.path}-shm", WRITE_LOCK)),
        _held("turn", "the turn to write", _holder(f"{url.path}.turn", WHOLE)),
    ]


def sizes(url: Url) -> dict[str, int]:
    """Of what takes room on the disk, in bytes."""
    return {"file": _size(url.path), "wal": _size(f"{url.path}-wal")}


def busy(url: Place) -> float | None:
    """The share of a short time in which somebody had the turn to write; None where the bus is no file. Shells take it
    only when others are at work. 0 where there is no turnstile, or none that we may look at: who looks makes none."""
    if isinstance(url, Server) or url.path == MEMORY:
        return None
    try:
        with closing(Turnstile(f"{url.path}.turn", os.O_RDONLY)) as turnstile:
            return turnstile.busy()
    except NotFound:
        return 0.0


def _room(url: Url) -> Fact:
    if url.path == MEMORY or files.has_room(url.path):
        return ("room", "ok", "the disk has room")
    return ("room", "fault", "the disk is full: make room")


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


def _held(subject: str, what: str, pid: int | None) -> Fact:
    """Who has it. A process that is stopped keeps all others from writing until it goes on or ends."""
    if pid is None:
        return (subject, "ok", f"nobody holds {what}")
    if not _stopped(pid):
        return (subject, "ok", f"process {pid} holds {what}")
    return (subject, "fault", f"process {pid} holds {what} and is stopped; let it go on (kill -CONT {pid}) or kill it")


def _stopped(pid: int) -> bool:
    """Whether a process does nothing until it is told to go on; see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def _holder(path: str, begin: str) -> int | None:
    """The process that holds the lock that begins at a byte of a file."""
    try:
        inode = str(os.stat(path).st_ino)
        for _ in range(LOOKS):
            with open("/proc/locks", encoding="ascii") as locks:
                for fields in map(str.split, locks):
                    mine = fields[1] != "->" and fields[-3].endswith(f":{inode}")
                    if mine and "WRITE" in fields and fields[-2] == begin:
                        return _heir(int(fields[-4]), inode)
    except (OSError, ValueError, IndexError):
        pass
    return None


def _heir(pid: int, inode: str) -> int:
    """Who has a lock that a process took. In bus.sh flock(1) takes it and ends; who shares its descriptor has it then,
    sqlite3 and what that has started. Of several, one that is stopped."""
    if _holds(pid, inode):
        return pid
    others = map(int, filter(str.isdigit, os.listdir("/proc")))
    return max((other for other in others if _holds(other, inode)), key=_stopped, default=pid)


def _holds(pid: int, inode: str) -> bool:
    for path in glob(f"/proc/{pid}/fdinfo/*"):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as info:
            if any(line.startswith("lock:") and f":{inode} " in line for line in info):
                return True
    return False
