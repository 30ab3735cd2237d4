"""What commands are given: values, also by stdin, and who gives them, also by $BUS_AGENT."""

from __future__ import annotations

import os
import select
import sys
from typing import BinaryIO

from bus.errors import error


def given(value: str | None) -> str:
    """A value of the command line; `-` or nothing reads it from stdin. Raises `invalid_value` for what is not UTF-8."""
    if value is not None and value != "-":
        return _utf8(os.fsencode(value))
    if sys.stdin is None:
        raise error("usage", "standard input is closed", "give the value as an argument")
    return _utf8(_all_of(sys.stdin.buffer))


def _all_of(stream: BinaryIO) -> bytes:
    """What it holds, to its end, also where another has made it so that a read does not wait."""
    parts = [stream.read()]
    while parts[-1] != b"" and not stream.isatty():  # of a terminal one is asked for its end once only
        if parts[-1] is None:  # there is nothing yet
            select.select([stream], [], [])
        parts.append(stream.read())
    return b"".join(part for part in parts if part)


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        where = f"line {line} of the value" if b"\n" in data else "the value"
        raise error("invalid_value", f"{where} is not UTF-8 text") from problem


def who(agent: str | None, name: str | None = None) -> tuple[str, str]:
    """The agent and the key behind it, of a command that may leave out the agent when $BUS_AGENT tells it."""
    if name is None:
        agent, name = os.environ.get("BUS_AGENT") or None, agent
    if agent is None or name is None:
        raise error("usage", "an argument is missing", "name the agent and the key; BUS_AGENT may name the agent")
    return agent, name


def me(agent: str | None) -> str:
    """The agent of a command, else $BUS_AGENT."""
    agent = os.environ.get("BUS_AGENT") if agent is None else agent
    if not agent:
        raise error("usage", "no agent is named", "name it, or set BUS_AGENT")
    return agent


def on_whose_word() -> str:
    """Who runs this command: $BUS_AGENT, else the user; by number where that has no name, as in many containers."""
    import getpass

    if named := os.environ.get("BUS_AGENT"):
        return named
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{os.uname().nodename}"
