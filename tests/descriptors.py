"""How many descriptors are open."""

import ctypes
import os


def descriptors() -> int:
    """How many descriptors this process has open, that of libffi included, which may keep a file open once ctypes was
    used."""
    ctypes.CDLL(None)
    return len(os.listdir("/proc/self/fd"))
