"""Records as the database tells them. A row that somebody planted past the clients must not hide the others: what can't
be read of it is left out, or shown as U+FFFD."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from bus.inputs import DEPTH, STRING
from bus.operation import Row

T = TypeVar("T")

_TOKENS = STRING + r'|[\[\]{}]|[^"\[\]{}]+'
_NOTHING: tuple[object, ...] = (None, "", 0, [], {}, "0001-01-01T00:00:00Z")


def record(text: str, kind: type[T]) -> T:
    """The record of a row; what no client would have written is left out."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (UnicodeError, msgspec.DecodeError, RecursionError):
        return _fitted(document(text), kind)


def records(rows: list[Row], kind: type[T]) -> list[T]:
    """The records of rows whose first column is one."""
    return [record(row[0], kind) for row in rows]


def text(found: str) -> str:
    """Text of a column; what is no UTF-8 is U+FFFD."""
    return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def document(text: str) -> Any:
    """The value of JSON, also where it is nested too deep (null from there on) or has lone surrogates (U+FFFD)."""
    import json  # seldom needed

    legible = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    try:
        return readable(json.loads(_shallow(legible)))
    except ValueError:
        return None


def _shallow(text: str) -> str:
    """JSON in which what lies too deep is null."""
    parts: list[str] = []
    depth = 0
    for token in re.findall(_TOKENS, text):
        depth += token in ("[", "{")
        if depth <= DEPTH:
            parts.append(token)
        elif depth == DEPTH + 1 and token in ("[", "{"):
            parts.append("null")
        depth -= token in ("]", "}")
    return "".join(parts)


def readable(value: Any) -> Any:
    """A value of JSON that can be written: text as `text` tells it, null for numbers that JSON does not have."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, list):
        return [readable(part) for part in value]
    if isinstance(value, dict):
        return {readable(key): readable(part) for key, part in value.items()}
    return None if isinstance(value, float) and value - value != 0 else value  # infinite, or no number


def _fitted(found: Any, kind: type[T]) -> T:
    """A struct of those fields that fit, and of nothing where one does not."""
    fields: Any = msgspec.structs.fields(kind)  # type: ignore[arg-type]
    given = found if isinstance(found, dict) else {}
    return kind(**{field.name: _fit(given.get(field.encode_name), field.type) for field in fields})


def _fit(value: Any, kind: Any) -> Any:
    for candidate in (value, *_NOTHING):
        try:
            return msgspec.convert(candidate, kind)
        except msgspec.ValidationError:
            continue
    return None
