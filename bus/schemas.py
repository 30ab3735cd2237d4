"""Where the files of schemas/ are: beside the sources in a checkout, inside the package in a wheel."""

from __future__ import annotations

import functools
import os
import re
from typing import NamedTuple

from bus.errors import of_system


def root() -> str:
    """The folder `schemas`; in a checkout (or an editable install) the one of the tree, never a copy."""
    here = os.path.dirname(os.path.abspath(__file__))
    inside = os.path.join(here, "schemas")
    return inside if os.path.isdir(inside) else os.path.join(os.path.dirname(here), "schemas")


def read(path: str) -> str:
    """A file of the folder `schemas`. Raises `no_descriptors`."""
    try:
        with open(os.path.join(root(), path), encoding="utf-8") as file:
            return file.read()
    except OSError as problem:
        raise of_system(problem, path) from problem


class Part(NamedTuple):
    """A statement of an operation. A line `-- unless :name` before it says that it does nothing for a caller who gives
    that parameter, and need not be run."""

    statement: str
    unless: str = ""


@functools.cache
def parts(name: str) -> tuple[Part, ...]:
    """The statements of schemas/operations/`name`.sql, without comments, and when they can be left out."""
    return tuple(marked(read(f"operations/{name}.sql")))


def marked(text: str) -> list[Part]:
    """The statements of a text, without comments, and when they can be left out."""
    before, *marks = _UNLESS.split(text)
    found = [Part(statement) for statement in split(before)]
    for unless, behind in zip(marks[::2], marks[1::2], strict=True):
        found += [Part(statement, "" if place else unless) for place, statement in enumerate(split(behind))]
    return found


def migrations(dialect: str) -> list[tuple[int, str]]:
    """Number and text of each migration, in order."""
    return [(int(name[:4]), read(f"{dialect}/{name}")) for name in _numbered(dialect)]


def newest(dialect: str) -> int:
    """The number of the last migration."""
    return int(_numbered(dialect)[-1][:4])


def _numbered(dialect: str) -> list[str]:
    return sorted(name for name in os.listdir(os.path.join(root(), dialect)) if name[:1].isdigit())


_UNLESS = re.compile(r"^-- unless :(\w+)\n", re.M)
_TOKENS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|\w+|;|[^\w'\"/;-]+|.", re.S)


def split(text: str) -> list[str]:
    """The statements of a text, without comments; `begin … end` of a trigger stays whole."""
    statements, current, depth = [], "", 0
    for token in _TOKENS.findall(text):
        if token.startswith(("--", "/*")):
            continue
        word = token.lower()
        depth += (word in ("begin", "case")) - (word == "end")
        if token == ";" and depth == 0:
            statements.append(current.strip())
            current = ""
        else:
            current += token
    return [statement for statement in [*statements, current.strip()] if statement]
