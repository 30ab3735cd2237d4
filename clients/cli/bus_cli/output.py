"""What every command shares: which bus, and how things are printed."""

from __future__ import annotations

import functools
import io
import os
import select
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, BinaryIO, NoReturn, TextIO

import click

from bus.api import Bus
from bus.errors import CATALOG, BusError, Invalid, error
from bus_cli.text import ascii_json, safe

DRAWN = 1000  # rows for a terminal; rich takes half a millisecond for each, and more than these nobody looks at there


class Output:
    """Where the bus is and how to print; one for each run."""

    def __init__(self, url: str | None = None, as_json: bool = False) -> None:
        self.url = url
        self.as_json = as_json

    def open(self, create: bool = False, read_only: bool = False) -> Bus:
        """The bus that is meant."""
        return Bus.open(self.url, create=create, read_only=read_only)

    def show(self, value: object, words: str | None = None) -> None:
        """Print a value as JSON, or in words for people (none: nothing)."""
        if self.as_json:
            self.line(ascii_json(value))
        elif words is not None:
            self.line(words)

    def table(
        self, values: Sequence[object], columns: Sequence[str], rows: Iterable[Sequence[object]], limit: int = 0
    ) -> None:
        """Print values as JSON, or rows for people; that there is none, or as many as a limit, is said on stderr."""
        if self.as_json:
            self.line(ascii_json(values))
        elif values and self.terminal() and len(values) <= DRAWN:
            from bus_cli import tables

            self.write(tables.table(columns, rows))
        elif values:
            from bus_cli.columns import lines

            self.write(lines(columns, rows))
        else:
            note("none")
        if values and len(values) == limit:
            note(f"{limit}, and there may be more; see --limit")

    @staticmethod
    def speak_utf8() -> None:
        """Print in UTF-8 whatever the locale, also what click and rich print by themselves."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")

    @staticmethod
    def terminal() -> bool:
        """Whether people read it as it is printed."""
        return sys.stdout is not None and sys.stdout.isatty()

    @staticmethod
    def line(text: str) -> None:
        """Print a line to stdout, in UTF-8 whatever the locale."""
        Output.write(text.encode("utf-8", "surrogateescape") + b"\n")

    @staticmethod
    def write(data: bytes) -> None:
        """Write bytes to stdout, all of them. Raises `fault` when nobody can take them."""
        stream, left = Output.stdout().buffer, memoryview(data)
        try:
            while left:
                left = left[_taken(stream, left) :]
        except OSError as problem:
            raise unwritable(problem) from problem

    @staticmethod
    def stdout() -> TextIO:
        """Stdout. Raises `fault` when it is closed: for what must not be done when nobody can be told of it."""
        if sys.stdout is None:
            raise error("fault", "standard output is closed", "leave it open, or send it to a file")
        return sys.stdout

    @staticmethod
    def flush() -> None:
        """Bring what was printed to its reader."""
        while sys.stdout is not None:
            try:
                sys.stdout.flush()
                break
            except BlockingIOError:
                _wait_for_room(sys.stdout)
            except OSError as problem:
                raise unwritable(problem) from problem

    @staticmethod
    def leave(status: int) -> NoReturn:
        """End the process. What could not be written is dropped, so that nothing complains on the way out."""
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.flush()
        os._exit(status)


def _taken(stream: BinaryIO, data: memoryview) -> int:
    """How many of these bytes a stream took: with PYTHONUNBUFFERED, or where another made the pipe so that it does not
    block, it may be some of them."""
    try:
        count = stream.write(data)
    except BlockingIOError as problem:
        count = problem.characters_written
    if not count:
        _wait_for_room(stream)
    return count or 0


def _wait_for_room(stream: BinaryIO | TextIO) -> None:
    select.select([], [stream], [])


def unwritable(problem: OSError) -> BusError:
    """The error for what the operating system refused of standard output."""
    return error("fault", f"standard output can't be written: {problem.strerror}", "give it a reader")


def note(text: str) -> None:
    """Print a line to stderr, if anybody can take it."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)


def fail(problem: BusError, as_json: bool, status: int | None = None) -> int:
    """Print an error as one line on stderr; its exit status. BUS_ERRORS=text keeps it in words beside --json."""
    if as_json and os.environ.get("BUS_ERRORS") != "text":
        text = ascii_json({"error": {"code": problem.code, "message": problem.message, "hint": problem.hint}})
    else:
        text = f"bus: {safe(problem)}"
    note(text)
    return problem.exit_status if status is None else status


def command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """What commands and groups share, so that it may stand anywhere: --bus and --json. They are passed the `Output`."""

    @click.option("--bus", "url_", metavar="URL", help="The bus.")
    @click.option("--json", "as_json_", is_flag=True, help="Print JSON.")
    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, url_: str | None, as_json_: bool, **arguments: Any) -> int | None:
        before: Output = ctx.obj or Output()
        ctx.obj = Output(before.url if url_ is None else url_, as_json_ or before.as_json)
        try:
            return function(ctx.obj, **arguments)
        except Invalid as problem:
            if problem.hint == CATALOG["usage"].hint:  # the help of this command says more
                problem.hint = f"see `{ctx.command_path} --help`"
            raise

    return run
