"""The border where SQLite's errors become the bus's."""

from __future__ import annotations

import errno
import os
from typing import Any

import msgspec

from bus.errors import BusError, error, of_system

_BY_RESULT = {
    5: "busy",
    6: "busy",
    10: "io_error",
    11: "damaged",
    13: "disk_full",
    18: "payload_too_large",
    26: "not_a_bus",
}
_CONSTRAINT, _READ_ONLY, _CANT_OPEN = 19, 8, 14


def translate(problem: Exception, path: str) -> BusError:
    """The bus's error for a driver's."""
    if isinstance(problem, OSError):
        return of_system(problem, path)
    if isinstance(problem, UnicodeEncodeError | OverflowError):
        return error("invalid_value", "the value can't be stored: it has a lone surrogate or a number beyond 64 bits")
    if isinstance(problem, ValueError | msgspec.MsgspecError):  # arguments were read before: it is a row
        return error("damaged", f"{path} holds what no bus has written: {problem}")
    result: Any = getattr(problem, "sqlite_errorcode", None)
    primary = result & 0xFF if isinstance(result, int) else None
    text = str(problem)
    if "on a closed " in text:  # cursor or database
        return error("closed")
    if "binding parameter" in text:
        return error("invalid_value", "a value is of a kind that can't be stored here", "give text or numbers")
    if primary == _CONSTRAINT:
        return _refusal(text)
    if primary in _BY_RESULT:
        return error(_BY_RESULT[primary], f"{path} is not a bus" if primary == 26 else "")
    if primary in (_READ_ONLY, _CANT_OPEN):
        if primary == _CANT_OPEN and not _can_open():
            return error("no_descriptors")
        return error("unsafe_file", f"{path} can't be opened for writing", "check the permissions of file and folder")
    return error("fault", f"SQLite failed on {path}: {text}")


def _can_open() -> bool:
    """Whether this process can open files at all; SQLite does not say why it can't."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as problem:
        return problem.errno not in (errno.EMFILE, errno.ENFILE)
    return True


def _refusal(text: str) -> BusError:
    """The code that a trigger raised or a constraint is named after, with the words behind it."""
    code, _, detail = text.removeprefix("CHECK constraint failed: ").partition(": ")
    if code.isidentifier() and code.islower():
        return error(code, detail)
    return error("invalid_value", text)
