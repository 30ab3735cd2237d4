"""The texts of schemas/operations as Python's sqlite3 takes them quickest: with numbered parameters.

A parameter by name costs the module 1,600 instructions, one by its number a third of that. Python 3.12.0 to 3.12.3 take
`?1` for a name, and warn of each (https://github.com/python/cpython/issues/117995): they get `?`, with a value for each
place, which is more to bind.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, NamedTuple

from bus import schemas

_WARNED_OF = (3, 12) <= sys.version_info < (3, 12, 4)  # where numbers are
_WORDS = re.compile(r"'(?:[^']|'')*'|:([a-z_]+)")


class Prepared(NamedTuple):
    """A statement with `?1`, `?2`, … or `?`, what picks the values of these, when it is left out (`schemas.Part`)."""

    sql: str
    values: Callable[[Mapping[str, object]], tuple[Any, ...]]
    unless: str


@functools.cache
def operation(name: str) -> tuple[Prepared, ...]:
    """The statements of an operation."""
    return tuple(_prepared(part) for part in schemas.parts(name))


def _prepared(part: schemas.Part) -> Prepared:
    names: list[str] = []

    def word(found: re.Match[str]) -> str:
        if not found[1]:
            return found[0]
        if _WARNED_OF or found[1] not in names:
            names.append(found[1])
        return "?" if _WARNED_OF else f"?{names.index(found[1]) + 1}"

    sql = _WORDS.sub(word, part.statement)
    return Prepared(sql, _picking(names), part.unless)


def _picking(names: list[str]) -> Callable[[Mapping[str, object]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda given: tuple(given[name] for name in names)
