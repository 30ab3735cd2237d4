"""Which bus: `--bus`, else `BUS_URL`, else the nearest `.milestones/coordination.db` walking up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from bus.errors import error

DEFAULT = Path(".milestones") / "coordination.db"
MEMORY = ":memory:"


class Url(NamedTuple):
    """A bus's place: an absolute path (or `:memory:`), and how durable a commit is (`full` or `normal`)."""

    path: str
    synchronous: str = "full"


def parse(text: str) -> Url:
    """A plain path, `sqlite:///relative`, `sqlite:////absolute`; options after `?`. Raises `usage` for others."""
    if not text.startswith("sqlite:"):
        if "://" in text:
            raise error("usage", f"this bus can't open {urlsplit(text).scheme}:// addresses", "give the path of a file")
        path, _, query = text.partition("?")
        return _options(path, query)
    parts = urlsplit(text)
    if parts.netloc or not parts.path.startswith("/"):
        raise error("usage", "not a bus address", "write sqlite:///relative or sqlite:////absolute")
    return _options(unquote(parts.path[1:]), parts.query)


def _options(path: str, query: str) -> Url:
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full")
    if options or synchronous not in ("full", "normal"):
        raise error(
            "usage", f"unknown option in the bus address: {query}", "the only one is synchronous=normal or full"
        )
    if not path or "\0" in path:
        raise error("usage", "the bus address names no file")
    return Url(path if path == MEMORY else os.path.abspath(os.path.expanduser(path)), synchronous)


def folder(url: Url) -> Path:
    """The folder `.milestones` for what is written beside a bus: the one it is in, else the working directory's."""
    beside = Path(url.path).parent
    return beside if beside.name == DEFAULT.parent.name else Path.cwd() / DEFAULT.parent


def locate(given: str | None = None) -> Url:
    """The bus that is meant from here. Raises `no_bus` when nothing names one."""
    named = given or os.environ.get("BUS_URL")
    if named:
        return parse(named)
    try:
        here = Path.cwd()
    except OSError as problem:
        raise error("no_bus", "the working directory is gone") from problem
    for folder in (here, *here.parents):
        if os.path.lexists(folder / DEFAULT):
            return Url(str(folder / DEFAULT))
    raise error("no_bus")


def locate_new(given: str | None = None) -> Url:
    """As `locate`, for making a bus: in `.milestones` of the working directory when nothing names one."""
    named = given or os.environ.get("BUS_URL")
    return parse(named) if named else Url(str(Path.cwd() / DEFAULT))
