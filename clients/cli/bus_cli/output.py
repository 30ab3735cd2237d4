"""What every command shares: which bus, and how things are printed."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click
import msgspec

from bus.api import Bus
from bus.errors import BusError, error

_WIDE = re.compile(r"[^\x20-\x7e]")
# Control characters, C1, bidi marks, zero-width characters, line separators, surrogates: they could forge what is seen.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


def ascii_json(value: object) -> str:
    """JSON in ASCII, on one line. Line ends and wide characters of raw payloads are escaped or become spaces."""
    return _WIDE.sub(_escaped, msgspec.json.encode(value).decode())


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
    return _UNSAFE.sub(
        lambda match: f"\\x{ord(match[0]):02x}" if ord(match[0]) < 256 else f"\\u{ord(match[0]):04x}", str(text)
    )


class Output:
    """Where the bus is and how to print; one for each run."""

    def __init__(self, url: str | None = None, as_json: bool = False) -> None:
        self.url = url
        self.as_json = as_json

    def open(self, create: bool = False) -> Bus:
        """The bus that is meant."""
        return Bus.open(self.url, create=create)

    def show(self, value: object, words: str | None = None) -> None:
        """Print a value as JSON, or in words for people (none: nothing)."""
        if self.as_json:
            self.line(ascii_json(value))
        elif words is not None:
            self.line(words)

    def table(self, values: Sequence[object], columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print values as JSON, or rows for people; that there is none is said on stderr."""
        if self.as_json:
            self.line(ascii_json(values))
        elif values:
            from bus_cli import tables

            tables.show(columns, rows)
        elif sys.stderr is not None:
            print("none", file=sys.stderr)

    @staticmethod
    def line(text: str) -> None:
        """Print a line to stdout, in UTF-8 whatever the locale."""
        Output.write(text.encode("utf-8", "surrogateescape") + b"\n")

    @staticmethod
    def write(data: bytes) -> None:
        """Write bytes to stdout. Raises `fault` when nobody can take them."""
        if sys.stdout is None:
            raise error("fault", "standard output is closed", "leave it open, or send it to a file")
        try:
            sys.stdout.buffer.write(data)
        except OSError as problem:
            raise _unwritable(problem) from problem

    @staticmethod
    def flush() -> None:
        """Bring what was printed to its reader."""
        if sys.stdout is not None:
            try:
                sys.stdout.flush()
            except OSError as problem:
                raise _unwritable(problem) from problem

    @staticmethod
    def leave(status: int) -> NoReturn:
        """End the process. What could not be written is dropped, so that nothing complains on the way out."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        os._exit(status)


def _unwritable(problem: OSError) -> BusError:
    return error("fault", f"standard output can't be written: {problem.strerror}", "give it a reader")


def fail(problem: BusError, as_json: bool, status: int | None = None) -> int:
    """Print an error as one line on stderr; its exit status. BUS_ERRORS=text keeps it in words beside --json."""
    if as_json and os.environ.get("BUS_ERRORS") != "text":
        text = ascii_json({"error": {"code": problem.code, "message": problem.message, "hint": problem.hint}})
    else:
        text = f"bus: {safe(problem)}"
    with suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)
    return problem.exit_status if status is None else status


def command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """A command's shared options, after the command too: --bus and --json. It is passed the `Output`."""

    @click.option("--bus", "url_", metavar="URL", help="The bus.")
    @click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, url_: str | None, as_json_: bool, **arguments: Any) -> int | None:
        before: Output = ctx.obj or Output()
        return function(Output(url_ or before.url, as_json_ or before.as_json), **arguments)

    return run


def given(value: str | None) -> str:
    """A value of the command line; `-` or nothing reads it from stdin. Raises `invalid_value` for what is not UTF-8."""
    if value is not None and value != "-":
        return _utf8(os.fsencode(value))
    if sys.stdin is None:
        raise error("usage", "standard input is closed", "give the value as an argument")
    return _utf8(sys.stdin.buffer.read())


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        raise error("invalid_value", "the value is not UTF-8 text") from problem


def who(agent: str | None, name: str | None = None) -> tuple[str, str]:
    """The agent and the name behind it, of a command that may leave out the agent when $BUS_AGENT tells it."""
    if name is None:
        agent, name = os.environ.get("BUS_AGENT"), agent
    if agent is None or name is None:
        raise error("usage", "an argument is missing", "name the agent, or set BUS_AGENT")
    return agent, name


def me(agent: str | None) -> str:
    """The agent of a command, else $BUS_AGENT."""
    agent = agent or os.environ.get("BUS_AGENT")
    if not agent:
        raise error("usage", "no agent is named", "name it, or set BUS_AGENT")
    return agent
