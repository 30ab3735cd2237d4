"""Folders and files beside a bus: their owner's alone, whatever the umask allows, and no links."""

from __future__ import annotations

import os
import stat
from io import FileIO

from bus.errors import error, of_system


def make(path: str | os.PathLike[str]) -> None:
    """Make a folder (0700), and those above it, where there is none; os.makedirs alone gives the mode to the last one
    only. Raises what the system says."""
    path = os.path.abspath(path)
    if not os.path.isdir(path):
        make(os.path.dirname(path))
        os.makedirs(path, 0o700, exist_ok=True)


def log(path: str | os.PathLike[str]) -> FileIO:
    """A file that is written at its end, unbuffered; made (0600), with its folder, where there is none. Raises as
    `own`."""
    make(os.path.dirname(path))
    return open(path, "ab", buffering=0, opener=own)


def own(path: str, flags: int) -> int:
    """Open a file beside a bus; its descriptor. Raises `unsafe_file` for what is no file of ours: a link that somebody
    put there, in a folder that was unpacked say, could lead anywhere."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as problem:
        raise of_system(problem, path) from problem
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
        return descriptor
    os.close(descriptor)
    raise error("unsafe_file", f"{path} is no file of yours", "see who put it there, and remove it")
