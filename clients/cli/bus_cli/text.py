"""Text that is safe to print: JSON in ASCII, and words in which nothing can move the cursor."""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from bus import salvage

_WIDE = re.compile(r"[^\x20-\x7e]")
# Control characters, C1, bidi marks, zero-width characters, line separators, surrogates: they could forge what is seen.
# Tags are letters that nobody sees; U+FFFE and U+FFFF are no characters, and none of XML's.
_UNSAFE = (
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ufffe\uffff"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)


def ascii_json(value: object) -> str:
    """JSON in ASCII, on one line. Line ends and wide characters of raw payloads are escaped or become spaces; what is
    no UTF-8, in the name of a file for instance, is U+FFFD."""
    try:
        text = msgspec.json.encode(value)
    except UnicodeEncodeError:
        text = msgspec.json.encode(salvage.readable(msgspec.to_builtins(value)))
    return _WIDE.sub(_escaped, text.decode())


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x20:
        return " "  # white space between tokens: inside a string JSON has none of these
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def safe(text: object) -> str:
    """Text for people, in which nothing can move the cursor or turn the direction."""
    return re.sub(
        _UNSAFE,
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}",
        str(text),
    )


def counted(number: int, noun: str) -> str:
    """So many of something: 1 message, 2 messages."""
    return f"{number} {noun}{'s' * (number != 1)}"


def moment(given: datetime) -> str:
    """A moment for people: UTC, to the second."""
    return f"{given.replace(tzinfo=None).isoformat(timespec='seconds')}Z"


def milliseconds(given: float | None) -> str:
    """Milliseconds for people: 840 ms, 12.3 s, 5m 20s, 3h 4m; `-` for what is not known."""
    if given is None:
        return "-"
    if given < 1000:
        return f"{given:.0f} ms"
    if given < 60_000:
        return f"{given / 1000:.1f} s"
    minutes, seconds = divmod(round(given / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {seconds}s"
