"""Which bus: `--bus`, else `BUS_URL`, else the nearest `.milestones/coordination.db` walking up."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from bus.errors import error

if TYPE_CHECKING:
    from pathlib import Path  # which takes long to load, and few commands ask for one

_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~/")
FOLDER = ".milestones"
DEFAULT = f"{FOLDER}/coordination.db"
MEMORY = ":memory:"
SCHEMA = "agent_bus"
SCHEMES = ("postgresql://", "postgres://")
HOW = "write postgresql://user@host:port/database?schema=name"
SECRET = {
    *("password", "sslpassword", "passfile", "sslkey"),
    *("oauth_client_secret", "scram_client_key", "scram_server_key"),
}
_HOST = r"(?:\[[^][@]*\]|[^][:@]*)(?::[0-9]*)?"
_HOSTS = rf"(?:[^@]*@)?{_HOST}(?:,{_HOST})*"


class Url(NamedTuple):
    """A bus's place: an absolute path (or `:memory:`), and how durable a commit is (`full` or `normal`)."""

    path: str
    synchronous: str = "full"

    def address(self) -> str:
        """What another process is given to open the same bus: the path as it is, where it can be read back so (the
        shell functions open no other address themselves)."""
        place = f"sqlite:///{_quoted(self.path)}" if "?" in self.path else self.path
        return place if self.synchronous == "full" else f"{place}?synchronous={self.synchronous}"


class Server:
    """A bus on PostgreSQL: what the driver is given (all of the address but our own options), the schema, and whether
    notifications get through to here (None: it does not say). `path` is the address for people: no password."""

    synchronous = "as the server is set"

    def __init__(self, conninfo: str, path: str, schema: str = SCHEMA, listen: bool | None = None) -> None:
        self.conninfo = conninfo
        self.path = path
        self.schema = schema
        self.listen = listen is not False
        self.direct = listen is None  # no pooler is between, as far as the address says

    def address(self) -> str:
        """What another process is given to open the same bus: the password, too."""
        listen = "" if self.direct else f"&listen={'yes' if self.listen else 'no'}"
        return f"{self.conninfo}{'&' if '?' in self.conninfo else '?'}schema={self.schema}{listen}"

    def __repr__(self) -> str:
        return f"Server({self.path!r})"


Place = Url | Server


def file(path: str, mode: str) -> str:
    """An absolute path as the URI that SQLite takes, whatever its name."""
    return f"file://{_quoted(path)}?mode={mode}"


def _quoted(path: str) -> str:
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"%{byte:02X}" for byte in os.fsencode(path))


def parse(given: str | os.PathLike[str]) -> Place:
    """A plain path, `sqlite:///relative`, `sqlite:////absolute`, `postgresql://…`; options after `?`; else `usage`. A
    `PathLike` is a path, whatever is in it."""
    if isinstance(given, os.PathLike):
        return _options(os.fsdecode(given), "")
    if not isinstance(given, str):
        raise error("usage", f"a bus address is text or a path, not a {type(given).__name__}", "give a file's path")
    return _read(given)


def _read(text: str) -> Place:
    if text.startswith(SCHEMES):
        return _server(text)
    if re.match(r"postgres(ql)?:|(?!/|sqlite:).*\bpassword\s*=", text, re.DOTALL):  # not to be told as a file's name
        raise error("usage", "the bus address can't be read", HOW)
    if not text.startswith("sqlite:"):
        if "://" in text:
            scheme = text.partition("://")[0]
            raise error("usage", f"this bus can't open {scheme[:40].lower()}:// addresses", "give the path of a file")
        path, _, query = text.partition("?")
        return _options(path, query)
    from urllib.parse import unquote, urlsplit  # a plain path needs none of it

    parts = urlsplit(text)
    if parts.netloc or not parts.path.startswith("/"):
        raise error("usage", "not a bus address", "write sqlite:///relative or sqlite:////absolute")
    return _options(unquote(parts.path[1:], errors="surrogateescape"), parts.query)


def _options(path: str, query: str) -> Url:
    options = _pairs(query) if query else {}
    synchronous = options.pop("synchronous", "full")
    if options or synchronous not in ("full", "normal"):
        raise error(
            "usage", f"unknown option in the bus address: {query}", "the only one is synchronous=normal or full"
        )
    if not path or "\0" in path:
        raise error("usage", "the bus address names no file")
    return Url(path if path == MEMORY else os.path.abspath(os.path.expanduser(path)), synchronous)


def _pairs(query: str) -> dict[str, str]:
    from urllib.parse import parse_qsl

    return dict(parse_qsl(query, keep_blank_values=True))


def _server(text: str) -> Server:
    from urllib.parse import unquote, urlsplit

    try:
        parts = urlsplit(text)
    except ValueError as problem:
        raise error("usage", "the bus address can't be read", HOW) from problem
    pairs = [pair for pair in parts.query.split("&") if pair]
    plain = re.fullmatch(_HOSTS, parts.netloc) and "@" not in parts.path and all("=" in pair for pair in pairs)
    if not plain or ("@" in parts.query and "@" not in parts.netloc) or parts.fragment or "\0" in text:
        # libpq would find the password elsewhere, and we could not tell which part is not to be shown.
        raise error("usage", "the bus address can't be read", f"{HOW}; write # / ? @ in a password as %23 %2F %3F %40")
    # Theirs go on as they stand: in libpq's addresses a space is %20, and + is a plus.
    options = [(unquote(pair.partition("=")[0]), pair) for pair in pairs]
    ours = {key: unquote(pair.partition("=")[2]) for key, pair in options if key in ("schema", "listen")}
    schema, listen = ours.get("schema", SCHEMA), ours.get("listen")
    if not re.fullmatch(r"(?!pg_)[A-Za-z_][A-Za-z0-9_]{0,62}", schema) or listen not in (None, "yes", "no"):
        raise error(
            "usage",
            "the bus address has a bad option",
            "schema is a plain name, not of the server's own (pg_), listen is yes or no",
        )
    theirs = "&".join(pair for key, pair in options if key not in ours)
    shown = "&".join(f"{key}=***" if key in SECRET else pair for key, pair in options)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    masked = f"{name}{colon and ':***'}{at}{host}"
    conninfo = _joined(parts.netloc, parts.path, theirs)
    return Server(conninfo, _joined(masked, parts.path, shown), schema, None if listen is None else listen == "yes")


def _joined(host: str, path: str, options: str) -> str:
    """An address; of one without a host, which libpq takes from its options, urlunsplit would leave out the `//`."""
    return f"postgresql://{host}{path}{options and '?'}{options}"


def folder(url: Place) -> Path:
    """The folder `.milestones` for what is written beside a bus: the one it is in, else the working directory's, or,
    where that can't be written to, the one beside it; for one on a server the nearest of ours, walking up."""
    from pathlib import Path

    beside = Path(url.path).parent
    if isinstance(url, Url) and beside.name == FOLDER:  # wherever one is, if anywhere
        return beside
    here = Path.cwd()
    if isinstance(url, Url):
        mine = here / FOLDER
        return mine if os.access(mine if mine.is_dir() else here, os.W_OK) else beside / FOLDER
    places = (place / FOLDER for place in (here, *here.parents))
    return next((place for place in places if place.is_dir() and place.stat().st_uid == os.geteuid()), here / FOLDER)


def logs(url: Place) -> Path:
    """The folder for logs, below `folder`."""
    return folder(url) / "logs"


def locate(given: str | os.PathLike[str] | None = None) -> Place:
    """The bus that is meant from here. Raises `no_bus` when nothing names one."""
    named = _named(given)
    if named is not None:
        return parse(named)
    try:
        here = os.getcwd()
    except OSError as problem:
        raise error("no_bus", "the working directory is gone") from problem
    while not os.path.lexists(found := os.path.join(here, DEFAULT)):
        here, below = os.path.dirname(here), here
        if here == below:
            raise error("no_bus")
    return Url(found)


def locate_new(given: str | os.PathLike[str] | None = None) -> Place:
    """As `locate`, for making a bus: in `.milestones` of the working directory when nothing names one."""
    named = _named(given)
    return Url(os.path.join(os.getcwd(), DEFAULT)) if named is None else parse(named)


def _named(given: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    return (os.environ.get("BUS_URL") or None) if given is None else given
