"""The bus file on its disk: made for its owner alone, and refused where SQLite would lose data on it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat

from bus import folders
from bus.errors import error, of_system

NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs", "fuse.glusterfs", "lustre"}

LEAST = 64 << 10  # bytes: the -shm file grows by half of that


def make(path: str) -> None:
    """Make an empty file (0600) and its folders (0700) where there is none."""
    try:
        folders.make(os.path.dirname(path))
        with contextlib.suppress(FileNotFoundError):
            os.lstat(f"{path}-journal")  # the longest of the names beside it must find room, too
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY, 0o600))
    except FileExistsError:
        pass
    except OSError as problem:
        if (told := of_system(problem, path)).code != "unsafe_file":
            raise told from problem
        raise error("no_bus", f"the bus {path} can't be made: {problem.strerror}", "choose another place") from problem


def has_room(path: str) -> bool:
    """Whether the disk has room for what SQLite makes beside the file when it opens it."""
    try:
        found = os.statvfs(os.path.dirname(path))
    except OSError:
        return True
    return found.f_bavail * found.f_frsize >= LEAST


def check(path: str, read_only: bool = False) -> None:
    """Refuse a file that is missing, not ours alone, under two names, mounted without its folder, or on a network."""
    try:
        found = os.lstat(path)
    except FileNotFoundError as problem:
        raise error("no_bus", f"there is no bus at {path}") from problem
    except OSError as problem:
        raise error("no_bus", f"the bus {path} can't be reached: {problem.strerror}", "check the path") from problem
    if stat.S_ISLNK(found.st_mode):
        raise error("unsafe_file", f"{path} is a symbolic link", "name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise error("not_a_bus", f"{path} is not a file")
    if found.st_nlink != 1:
        raise error(
            "unsafe_file", f"{path} has {found.st_nlink} names (hard links)", "a bus has one: SQLite would lose data"
        )
    if found.st_uid != os.geteuid():
        raise error("unsafe_file", f"{path} belongs to another user", "each user has a bus of their own")
    needed = (os.R_OK, os.X_OK) if read_only else (os.R_OK | os.W_OK, os.W_OK | os.X_OK)
    if not os.access(path, needed[0]) or not os.access(os.path.dirname(path), needed[1]):
        raise error("unsafe_file", f"{path} can't be read and written here", "check the permissions of file and folder")
    if _is_mounted_alone(path):
        raise error(
            "unsafe_file", f"{path} is mounted without its folder", "mount the folder: the -wal file belongs to the bus"
        )
    if os.major(found.st_dev) == 0 and (kind := _file_system(found.st_dev)) in NETWORK:
        raise error("unsafe_file", f"{path} is on a network file system ({kind})", "put the bus on a local disk")


def is_still(path: str, before: os.stat_result) -> None:
    """Refuse a file that was removed or replaced since: what is written to the old one is lost."""
    try:
        if os.path.samestat(os.stat(path), before):
            return
    except OSError as problem:
        if problem.errno != errno.ENOENT:  # then nobody can tell
            return
    raise error("no_bus", f"{path} was removed or replaced meanwhile", "start again on what is there")


def exchange(path: str, fresh: str) -> str | None:
    """Put a fresh file in the place of another; where that is now, with its WAL, or None if there was none.

    Whoever comes meanwhile finds no file, and never the fresh one with the WAL of the other.
    """
    aside = next(name for number in itertools.count(1) if not os.path.lexists(name := f"{path}.aside-{number}"))
    found = False
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
            found |= not suffix
    os.rename(fresh, path)
    return aside if found else None


def _is_mounted_alone(path: str) -> bool:
    """Whether the file is a mount of its own, as of `docker run -v FILE:FILE`. By its other name it has another WAL,
    and what is written through one of the two is lost."""
    try:
        return _mount(path) != _mount(os.path.dirname(path))
    except (OSError, AttributeError, StopIteration):  # nobody can tell
        return False


def _mount(path: str) -> str:
    """The mount through which a path leads. A descriptor that is only a path takes no locks along when it is closed."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as info:
            return next(line for line in info if line.startswith("mnt_id:"))
    finally:
        os.close(descriptor)


def _file_system(device: int) -> str:
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields = line.split()
                if fields[2] == wanted:
                    return fields[fields.index("-") + 1]
    except OSError:
        pass
    return ""
