"""now(): the only source of moments. (How long to wait is counted by `time.monotonic()`, which nobody can set.)

Time in the database is UTC text, `YYYY-MM-DD HH:MM:SS.SSS`: it sorts, and SQLite's date functions read it. Tests move
it with `moved()`, or, in other processes, with `BUS_NOW` (the same text, or seconds to add such as `+90` or `-3600`).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bus.errors import error

DAY = 86400.0  # seconds
_given = os.environ.get("BUS_NOW", "")  # read once: it is for whole processes, and a look costs a microsecond
_shift = 0.0
_frozen: float | None = None


def stamp(seconds: float) -> str:
    """Seconds since 1970 as the database writes them."""
    whole, millis = divmod(round(seconds * 1000), 1000)
    return _written(whole) + _MILLIS[millis]


_MILLIS = [f".{millis:03d}" for millis in range(1000)]


@functools.lru_cache(maxsize=4)
def _written(seconds: int) -> str:
    day = time.gmtime(seconds)
    return f"{day.tm_year:04d}-{day.tm_mon:02d}-{day.tm_mday:02d} {day.tm_hour:02d}:{day.tm_min:02d}:{day.tm_sec:02d}"


def rfc3339(seconds: float) -> str:
    """Seconds since 1970 as the doors print them."""
    return stamp(seconds).replace(" ", "T") + "Z"


def later(moment: str, seconds: float) -> str:
    """The moment so many seconds after another; both as the database writes them."""
    whole = int(seconds)
    if whole == seconds and len(moment) == 23:
        return _second_later(moment[:19], whole) + moment[19:]
    return stamp(parse(moment) + seconds)


@functools.lru_cache(maxsize=16)
def _second_later(moment: str, seconds: int) -> str:
    return _written(round(parse(moment)) + seconds)


def parse(text: str) -> float:
    """The seconds since 1970 of a moment in the database's text or in RFC 3339 with `Z`."""
    from datetime import datetime, timezone

    return datetime.fromisoformat(text.rstrip("Z").replace("T", " ")).replace(tzinfo=timezone.utc).timestamp()


def seconds() -> float:
    """Seconds since 1970, as moved by a test."""
    if _given:
        return _seconds_given()
    return (time.time() if _frozen is None else _frozen) + _shift


def _seconds_given() -> float:
    try:
        return time.time() + float(_given) if _given[0] in "+-" else parse(_given)
    except ValueError as problem:
        hint = "write UTC as YYYY-MM-DD HH:MM:SS, or seconds to add, such as +90"
        raise error("usage", f"BUS_NOW is no moment: {_given[:40]!r}", hint) from problem


def given() -> str | None:
    """This moment as the database writes it, when a test moved it; None when the database's own clock is to be read."""
    return now() if _shift or _frozen is not None or _given else None


def now() -> str:
    """This moment as the database writes it."""
    return stamp(seconds())


@contextmanager
def moved(by: float = 0.0, *, to: float | None = None) -> Iterator[None]:
    """Move the clock by some seconds, or hold it still at a moment, for the length of a `with` block."""
    global _shift, _frozen
    before = _shift, _frozen
    _shift += by
    _frozen = _frozen if to is None else to
    try:
        yield
    finally:
        _shift, _frozen = before


def monotonic() -> float:
    """Seconds that only grow, for limits on waiting."""
    return time.monotonic()
