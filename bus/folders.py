"""Folders and logs beside a bus: their owner's alone, whatever more the umask allows."""

from __future__ import annotations

import os
from io import BufferedWriter
from pathlib import Path


def make(path: Path) -> None:
    """Make a folder (0700), and those above it, where there is none. Raises what the system says."""
    try:
        path.mkdir(0o700, exist_ok=True)
    except FileNotFoundError:
        make(path.parent)
        path.mkdir(0o700, exist_ok=True)


def log(path: Path) -> BufferedWriter:
    """A file that is written at its end; made (0600), with its folder, where there is none."""
    make(path.parent)
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600))
