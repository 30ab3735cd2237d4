"""The texts of schemas/operations as PostgreSQL takes them.

They run there nearly as they stand, since the schema has SQLite's functions. What is left is rendered here: `:name`
becomes a numbered parameter with its type, `:now` the moment of the transaction (or the one a test says), `json_object`
and `json_array` the functions that PostgreSQL has for them, `json(x)` just `x`, integers and reals those of 64 bits,
and `strftime` in the format of moments `moment_at`. What PostgreSQL needs besides is written in the text as
`/*postgres … */`, a comment for SQLite; what is for SQLite alone between `/*sqlite*/` and `/*end*/`, and `indexed by`.
Where a text must really differ, schemas/postgres/operations has one of the same name, whose first line says
why.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from bus import schemas

_NAMES = {
    "bigint": "after delivery exit_code id if_version keep last life_id limit message_id pid priority"
    " process_started_at reply_to sent traced unseen",
    "integer": "length",
    "double precision": "age delay expires lease progress retention silence ttl",
    "json": "artifacts capabilities configuration data details error_info file_references files holder metadata payload"
    " resource_usage schema snapshot state_snapshot",
    "timestamptz": "at completed_at now since started_at",
}
TYPES = {name: kind for kind, names in _NAMES.items() for name in names.split()}  # of parameters; the others are text
# Where a noun means something else by a name.
OF_NOUN = {"lifecycle": {"priority": "text"}, "copying": {"id": "text"}}
NOW = "now()::timestamptz(3)"

_MARKS = re.compile(r"/\*sqlite\*/.*?/\*end\*/|/\*postgres\b(.*?)\*/| indexed by \w+", re.S)
# Rows are found by ids that stand in a document; as a join, a plan made while there were few rows would read them all.
_AMONG = re.compile(r"\bin \(\s*(select cast\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)\s+from json_each\(:\w+\))\)")
_WORDS = re.compile(
    r"'(?:[^']|'')*'|::|:([a-z_]+)|\b(json_object|json_array|json)\s*(?=\()|\b(is(?: not)?)\s+(?=:)"
    r"|\b(as integer|as real)\b|\b(strftime\('%Y-%m-%d %H:%M:%f', )"
)
_OTHERS = {
    "json_object": "json_build_object",
    "json_array": "json_build_array",
    "json": "",
    "is": "is not distinct from ",
    "is not": "is distinct from ",
    "as integer": "as bigint",
    "as real": "as double precision",
    "strftime('%Y-%m-%d %H:%M:%f', ": "moment_at(",
}


class Rendered(NamedTuple):
    """A statement with `$1`, `$2`, …, the names of what goes there, and when it is left out (`schemas.Part`)."""

    sql: str
    names: tuple[str, ...]
    unless: str = ""


@functools.cache
def operation(name: str, moved: bool) -> tuple[Rendered, ...]:
    """The statements of an operation; `moved`: the moment is given, as the parameter `now`."""
    own = f"postgres/operations/{name}.sql"
    path = own if os.path.exists(os.path.join(schemas.root(), own)) else f"operations/{name}.sql"
    text = _AMONG.sub(r"= any(array(\1))", _MARKS.sub(lambda mark: mark[1] or "", schemas.read(path)))
    types = {**TYPES, **OF_NOUN.get(name.partition("/")[0], {})}
    return tuple(_rendered(part, moved, types) for part in schemas.marked(text))


def _rendered(part: schemas.Part, moved: bool, types: Mapping[str, str]) -> Rendered:
    names: list[str] = []

    def word(found: re.Match[str]) -> str:
        if other := found[2] or found[3] or found[4] or found[5]:
            return _OTHERS[other]
        if not found[1]:
            return found[0]
        if found[1] == "now" and not moved:
            return NOW
        if found[1] not in names:
            names.append(found[1])
        return f"${names.index(found[1]) + 1}::{types.get(found[1], 'text')}"

    return Rendered(_WORDS.sub(word, part.statement), tuple(names), part.unless)
