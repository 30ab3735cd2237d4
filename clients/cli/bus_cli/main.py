"""The `bus` command: finds the command, runs it, turns whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from bus.errors import BusError, error
from bus_cli.output import Output, fail, note, unwritable

LONGEST = 300  # characters that are repeated of what can't be read


class Interrupted(BaseException):
    """Ctrl-C, or a polite SIGTERM; ends the command as the shell expects it, with 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        self.status = 128 + number


class Interruption:
    """What a command does when it gets a signal. Again within a second is the same request, as timeout(1) makes it
    twice; later it is impatience with a command that takes long to close."""

    asked: float | None = None

    def __call__(self, number: int, frame: object) -> None:
        if self.asked is None:
            self.asked = time.monotonic()
            raise Interrupted(number)
        if time.monotonic() > self.asked + 1:
            os._exit(128 + number)


def _of_system(problem: OSError) -> BusError:
    """The error for what the operating system refused, with the file's name."""
    if problem.filename is None and problem.errno == errno.ENOENT:  # only the working directory goes unnamed
        if problem.strerror != os.strerror(errno.ENOENT):  # but for the folders that `tempfile` has tried
            return error("fault", "there is no folder for temporary files", "name one with TMPDIR")
        return error("usage", "the working directory is gone", "go to one that is there")
    named = "a file or a stream" if problem.filename is None else os.fsdecode(problem.filename)
    words = f"{named} can't be read or written: {problem.strerror or problem}"
    return error("fault", words, "check the permissions of file and folder, and the room on the disk")


# Each command's module is imported when the command runs, so that none pays for the others.
COMMANDS = {
    "init": "place",
    "where": "place",
    "doctor": "place",
    "backup": "place",
    "restore": "place",
    "copy": "copying",
    "status": "place",
    "prune": "place",
    "shell": "shell",
    "demo": "place",
    "register": "agents",
    "heartbeat": "agents",
    "update": "agents",
    "retire": "agents",
    "agents": "agents",
    "send": "messages",
    "receive": "messages",
    "ack": "messages",
    "release": "messages",
    "extend": "messages",
    "reject": "messages",
    "message": "messages",
    "messages": "messages",
    "cancel": "messages",
    "dead": "messages",
    "redrive": "messages",
    "state": "state",
    "checkpoint": "checkpoints",
    "session": "sessions",
    "interrupted": "recovery",
    "recover": "recovery",
    "cleanup": "recovery",
    "monitor": "monitor",
    "milestone": "milestones",
    "types": "settings",
    "config": "settings",
    "apply": "step",
    "run": "run",
    "trace": "trace",
    "top": "top",
    "metrics": "metrics",
}


class Commands(click.Group):
    """The commands, each found in its module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"bus_cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            meant = difflib.get_close_matches(name, COMMANDS, 2)
            more = f" Did you mean {' or '.join(meant)}?" if meant else ""
            raise click.UsageError(f"No such command {name!r}.{more}", ctx)
        return super().resolve_command(ctx, args)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        with _told_of_readers():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _told_of_readers():
            return super().invoke(ctx)


@contextmanager
def _told_of_readers() -> Iterator[None]:
    """Click itself says nothing of a reader who left before the help was out, and ends the process."""
    try:
        yield
    except BrokenPipeError as problem:
        raise unwritable(problem) from problem


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="agent-bus", message="%(version)s")
@click.option(
    "--bus", "url", metavar="URL", help="The bus (else $BUS_URL, else the nearest .milestones/coordination.db)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def cli(ctx: click.Context, url: str | None, as_json: bool) -> None:
    """A coordination bus for independent agents: messages, state, checkpoints, on one SQLite file or on
    PostgreSQL.

    Exit status: 0 done, 1 nothing there, 64 usage, 65 refused by a rule, 66 no such thing, 70 a fault of the bus,
    75 busy, try again, 76 conflict, 130 and 143 after Ctrl-C and SIGTERM.
    """
    ctx.obj = Output(url, as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; never returns."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in (given[: given.index("--")] if "--" in given else given)
    interruption = Interruption()
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves them: they stay so
                signal.signal(number, interruption)
        Output.leave(_status(given, as_json))
    except Interrupted as asked:
        Output.leave(fail(error("interrupted"), as_json, asked.status))


def _status(given: list[str], as_json: bool) -> int:
    """Run a command, and say what went wrong; its exit status."""
    Output.speak_utf8()
    try:
        status = cli.main(given, prog_name="bus", standalone_mode=False)
        Output.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as helped:
        note(helped.format_message())
        return 64
    except click.ClickException as problem:
        context = getattr(problem, "ctx", None)
        words = " ".join(problem.format_message().split()).rstrip(".")
        words = words if len(words) <= LONGEST else f"{words[:LONGEST]}…"
        return fail(error("usage", words, f"see `{context.command_path if context else 'bus'} --help`"), as_json)
    except BusError as problem:
        return fail(problem, as_json)
    except OSError as problem:
        return fail(_of_system(problem), as_json)
    except Exception as problem:
        if os.environ.get("BUS_DEBUG"):
            raise
        words = f"{type(problem).__name__}: {problem}"
        return fail(error("fault", words, "set BUS_DEBUG=1 for the trace, and report it"), as_json)


if __name__ == "__main__":  # `python -m bus_cli.main`, which would else do nothing and say that all is well
    main()
