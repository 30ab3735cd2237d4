"""Folders and logs beside a bus: their owner's alone, whatever more the umask allows."""

from __future__ import annotations

import os
from io import BufferedWriter


def make(path: str | os.PathLike[str]) -> None:
    """Make a folder (0700), and those above it, where there is none; os.makedirs alone gives the mode to the last one
    only. Raises what the system says."""
    path = os.path.abspath(path)
    if not os.path.isdir(path):
        make(os.path.dirname(path))
        os.makedirs(path, 0o700, exist_ok=True)


def log(path: str | os.PathLike[str]) -> BufferedWriter:
    """A file that is written at its end; made (0600), with its folder, where there is none."""
    make(os.path.dirname(path))
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
