"""What callers give: durations, JSON, receipts, priorities. Read strictly; the database checks what it can again."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, TypeGuard

import msgspec

from bus import clock
from bus.errors import error

DEPTH = 64
LARGEST = 1 << 20  # bytes of JSON that is kept beside messages and checkpoints
MOST_DAYS = 100 * 366
LONGEST = MOST_DAYS * clock.DAY  # seconds
_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": clock.DAY}
_DURATION = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ms|s|m|h|d|)"
_RECEIPT = re.compile(r"[0-9]{1,18}\.[0-9]{1,18}")
STRING = r'"(?:[^"\\]|\\(?s:.))*+(?:"|\\?\Z)'  # of JSON; one without an end takes the rest: it is read once

Json = Mapping[str, Any] | msgspec.Struct | str | bytes
Duration = str | float | timedelta  # as `duration` reads it: `5m`, or seconds


def duration(given: Duration | None) -> float | None:
    """Seconds of `30s`, `5m`, `2h`, `7d`, `500ms`, plain seconds or a timedelta. Raises `usage` below 0 and over 100
    years."""
    if given is None:
        return None
    if isinstance(given, timedelta):
        given = given.total_seconds()
    if isinstance(given, str):
        match = re.fullmatch(_DURATION, given.strip())
        if not match:
            raise error("usage", f"not a duration: {given[:40]!r}", "write 30s, 5m, 2h, 7d or plain seconds")
        given = float(match[1]) * _UNITS[match[2]]
    if not is_number(given):
        raise error("usage", f"not a duration: {str(given)[:40]!r}", "give 30s, 5m, 2h, 7d, seconds or a timedelta")
    if not 0 <= given <= LONGEST:
        raise error("usage", f"not a duration: {given}", "give 0 to 100 years")
    return float(given)


def days(given: float | None) -> float | None:
    """A number of days, more than 0 and at most 100 years, or None. Raises `usage`."""
    if given is not None and (not is_number(given) or not 0 < given <= MOST_DAYS):
        raise error("usage", f"not a number of days: {str(given)[:40]}", f"give more than 0, at most {MOST_DAYS}")
    return given


def is_number(given: object) -> TypeGuard[float]:
    """Whether it is a number; True and False are none."""
    return isinstance(given, int | float) and not isinstance(given, bool)


def moment(given: str | datetime | None) -> str | None:
    """A moment as the database writes it: RFC 3339, the database's own text, or a datetime; what names no zone is UTC.
    Raises `invalid_moment`."""
    if given is None:
        return None
    try:
        found = datetime.fromisoformat(given.strip()) if isinstance(given, str) else given
        zoned = found if found.tzinfo else found.replace(tzinfo=timezone.utc)
        return clock.stamp(zoned.timestamp())
    except (ValueError, OverflowError, OSError, AttributeError) as problem:
        raise error(
            "invalid_moment", f"not a moment: {str(given)[:40]!r}", "write 2030-12-31T23:59:59Z, or UTC without T and Z"
        ) from problem


def priority_text(given: str | float | None) -> str | None:
    """A priority that stays as it was written, such as 7, 1.5, 042 or a word. Raises `invalid_value`."""
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float | str) or not _plain(given).strip():
        raise error(
            "invalid_value", f"not a priority: {str(given)[:40]!r}", "give a number such as 7, 1.5 or 042, or a word"
        )
    return text(_plain(given).strip())


def lease(given: Duration | None) -> float | None:
    """As `duration`, but at least a millisecond, as the setting lease_seconds."""
    seconds = duration(given)
    if seconds is not None and seconds < 0.001:
        raise error("usage", "a lease of no time is no lease", "give at least 0.001 seconds")
    return seconds


def whole(name: str, given: int, least: int = 1, most: int = 2**62) -> int:
    """A whole number within bounds. Raises `usage`."""
    if isinstance(given, bool) or not isinstance(given, int) or not least <= given <= most:
        raise error("usage", f"{name} is a whole number from {least} to {most}")
    return given


def priority(given: int) -> int:
    """1 to 10. Raises `invalid_priority`."""
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= 10:
        raise error("invalid_priority")
    return given


def receipts(given: str | Iterable[str]) -> str:
    """The JSON array of receipts that the SQL takes. Raises as `receipt_list`."""
    return '["' + '","'.join(receipt_list(given)) + '"]'


def receipt_list(given: str | Iterable[str]) -> list[str]:
    """One or several receipts. Raises `usage` for anything else, and for none at all."""
    several = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    if not several:
        raise error("usage", "no receipt", "give at least one, such as 42.3")
    for receipt in several:
        if not isinstance(receipt, str) or not _RECEIPT.fullmatch(receipt):
            raise error("usage", f"not a receipt: {str(receipt)[:40]!r}", "a receipt looks like 42.3")
    return several


def message_id(given: int | str) -> int:
    """The id of a message. Raises `usage`."""
    return number_of("message", given)


def message_ids(given: int | str | Iterable[int | str]) -> list[int]:
    """One id or several. Raises `usage`."""
    several: Iterable[Any] = [given] if isinstance(given, str | bytes) or not isinstance(given, Iterable) else given
    return [message_id(id) for id in several]


def number_of(what: str, given: int | str) -> int:
    """The id of what has a number for one. Raises `usage`."""
    text = _plain(given)
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise error("usage", f"not a {what} id: {text[:40]!r}", "an id is a whole number")
    return int(text)


def name(given: str) -> str:
    """The id of an agent, a session or the like; the database judges its form. Raises `invalid_id` for anything but
    text (a number would be taken for its digits, and None for an id that is not given), for a lone surrogate, and for a
    NUL, which no file is named after."""
    if not isinstance(given, str):
        raise error("invalid_id", f"an id is text, not {str(given)[:40]}")
    return _writable(given, "invalid_id", "an id")


def address(given: str) -> str:
    """Where a message goes; the database judges its form. Raises `invalid_address` for what no database can hold."""
    if not isinstance(given, str):
        raise error("invalid_address", f"an address is text, not {str(given)[:40]}")
    return _writable(given, "invalid_address", "an address")


def chosen(given: str | None) -> str | None:
    """As `name`, for an id that only those are asked for that have it; None stays: all are."""
    return None if given is None else name(given)


def page(limit: int, **ids: str | None) -> dict[str, object]:
    """The parameters of a list of at most so many, of those that have some ids. Raises `usage`, and as `chosen`."""
    return {**{key: chosen(given) for key, given in ids.items()}, "limit": whole("limit", limit)}


def key(given: str) -> str:
    """The key of a state; the database judges its form. Raises `invalid_key` for anything but text without NUL."""
    if not isinstance(given, str):
        raise error("invalid_key", f"a state key is text, not {str(given)[:40]}")
    return _writable(given, "invalid_key", "a state key")


def text(given: str) -> str:
    """Text that the database can hold: UTF-8 without NUL. Raises `invalid_value`."""
    if not isinstance(given, str):
        raise error("invalid_value", "not text", "encode it first, as JSON for instance")
    return _writable(given, "invalid_value", "text")


def _writable(given: str, code: str, what: str) -> str:
    """Text that the database can hold: UTF-8 without NUL. Raises `code` for `what`."""
    if "\0" in given:
        raise error(code, f"{what} with a NUL")
    if not given.isascii():
        try:
            given.encode()
        except UnicodeEncodeError as problem:
            raise error(code, f"{what} with a lone surrogate") from problem
    return _plain(given)


def _plain(given: object) -> str:
    """What is given, as text that is nothing more: a member of `class Name(str, Enum)` is text, too, and one of
    `class Level(int, Enum)` a number, but `str` and f-strings make `Name.MEMBER` of them."""
    if isinstance(given, str):
        return given if type(given) is str else str.__str__(given)
    for kind in (bool, int, float):
        if isinstance(given, kind):
            return kind.__repr__(given)
    return str(given)


def short(name: str, given: str, most: int) -> str:
    """As `text`, of 1 to `most` characters. Raises `invalid_value`."""
    found = text(given)
    if not 1 <= len(found) <= most:
        raise error("invalid_value", f"the {name} has {len(found)} characters", f"give 1 to {most}")
    return found


def words(given: str | None) -> str | None:
    """As `text`; None stays."""
    return None if given is None else text(given)


def notes(given: object) -> str:
    """As `document`, for what stands beside payloads: also what the database would refuse of it, so that an import can
    name the entry, and more than a MiB (`payload_too_large`). Raises as `legal`."""
    written = document(given)
    if len(written.encode()) > LARGEST:
        raise error("payload_too_large", "the JSON is too large", "keep it in a file, and give its path")
    return legal(written)


def legal(written: str) -> str:
    """JSON as it is. Raises `invalid_json` for what only the database would refuse of a `document`: numbers beyond 64
    bits, keys that stand twice and NULs."""
    import json  # not by every command: it is the slowest to load of what this file needs

    try:
        json.loads(written, parse_int=_whole, parse_float=_finite, parse_constant=_finite, object_pairs_hook=distinct)
    except ValueError as problem:
        raise error("invalid_json", f"not legal JSON: {str(problem)[:100]}") from problem
    if "\\u0000" in written.replace("\\\\", ""):
        raise error("invalid_json", "JSON with a NUL")
    return written


def _whole(digits: str) -> None:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError("a number beyond 64 bits")


def _finite(digits: str) -> None:
    if not float("-inf") < float(digits) < float("inf"):
        raise ValueError("a number beyond 64 bits")


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs, for `json.loads`. Raises `ValueError` for a key that stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def document(given: object) -> str:
    """JSON text of a mapping, a list or a Struct, or of what is JSON text already, which stays as it is.

    Raises `invalid_json` for NaN and infinity, lone surrogates, a depth over 64 and what is not JSON at all.
    """
    written = _decoded(given) if isinstance(given, str | bytes) else _encoded(given)
    if len(written) > DEPTH * 2 and (_has_many(written, "[") or _has_many(written, "{")) and _depth(written) > DEPTH:
        raise error("invalid_json", f"the JSON is nested deeper than {DEPTH}")
    return written


def _decoded(given: str | bytes) -> str:
    try:
        written = given.decode() if isinstance(given, bytes) else _plain(given)
        written.encode()
        if "\\" in written and ("\\ud" in written or "\\uD" in written):
            msgspec.json.decode(written)
    except (UnicodeError, msgspec.DecodeError, RecursionError) as problem:
        raise error("invalid_json") from problem
    if "\0" in written:
        raise error("invalid_json", "JSON with a NUL")
    return written


def _encoded(given: object) -> str:
    try:
        encoded = msgspec.json.encode(given)
        if b"null" in encoded:  # it writes NaN so
            import json

            json.dumps(msgspec.to_builtins(given), allow_nan=False)
        return encoded.decode()
    except (ValueError, TypeError, RecursionError, OverflowError) as problem:
        raise error("invalid_json", f"the value can't be written as JSON: {problem}") from problem


def _has_many(written: str, sign: str) -> bool:
    """Whether a sign stands often enough to make JSON too deep, half of it (to find is quicker than to count)."""
    place = -1
    for _ in range(DEPTH // 2):
        place = written.find(sign, place + 1)
        if place < 0:
            return False
    return True


def _depth(written: str) -> int:
    deepest = depth = 0
    for sign in re.findall(r"[\[\]{}]", re.sub(STRING, "", written)):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest
