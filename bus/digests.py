"""Digests of payloads: what is handed out is what was sent, or it is buried as damaged.

A digest is the first 16 hexadecimal digits of the SHA3-256 of the payload without the white space between its tokens
(which is how the database tells payloads). It guards against damage, not against forgery: whoever writes the payload
can write the digest. Rows put in by hand have none. SHA3 is what the `sqlite3` shell knows, too.
"""

from __future__ import annotations

import functools
import re
from contextlib import suppress
from typing import Any

import msgspec

from bus.inputs import STRING

_TOKENS = rf"({STRING})|[ \t\n\r]+"
LENGTH = 16
LONG = 1 << 16  # bytes, from which OpenSSL is worth its loading


def compact(payload: str) -> str:
    """JSON text without the white space between its tokens. (What is not JSON counts, too: a damaged row has it.)"""
    try:
        return msgspec.json.format(payload, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return re.sub(_TOKENS, r"\1", payload)


def of(payload: str) -> str:
    """The digest of a payload."""
    data = compact(payload).encode()
    digest: str = _sha3(len(data) >= LONG)(data).hexdigest()
    return digest[:LENGTH]


@functools.cache
def _sha3(long: bool) -> Any:
    """Of the module behind hashlib where that has one: to load OpenSSL is a twentieth of a command's time."""
    if not long:
        with suppress(ImportError):
            from _sha3 import sha3_256  # type: ignore[import-not-found]  # it has no stubs

            return sha3_256
    import hashlib

    return hashlib.sha3_256
