"""Digests of payloads: what is handed out is what was sent, or it is buried as damaged.

A digest is the first 16 hexadecimal digits of the SHA3-256 of the payload without the white space between its tokens
(which is how the database tells payloads). It guards against damage, not against forgery: whoever writes the payload
can write the digest. Rows put in by hand have none. SHA3 is what the `sqlite3` shell knows, too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import msgspec

_TOKENS = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\n\r]+', re.S)
LENGTH = 16


def compact(payload: str) -> str:
    """JSON text without the white space between its tokens. (What is not JSON counts, too: a damaged row has it.)"""
    try:
        return msgspec.json.format(payload, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return _TOKENS.sub(r"\1", payload)


def of(payload: str) -> str:
    """The digest of a payload."""
    digest: str = _sha3()(compact(payload).encode()).hexdigest()
    return digest[:LENGTH]


@functools.cache
def _sha3() -> Callable[[bytes], Any]:
    import hashlib  # loading OpenSSL takes as long as a command, and most commands need no digest

    return hashlib.sha3_256
