"""The command of steps."""

from __future__ import annotations

import json
import os

import click
import msgspec

from bus import inputs, step
from bus.errors import BusError, error
from bus_cli.arguments import given
from bus_cli.output import Output, command
from bus_cli.text import ascii_json

DOCUMENTS = ("payload", "snapshot")


@click.command()
@click.argument("lines", required=False, metavar="[-]")
@command
def apply(out: Output, lines: str | None) -> None:
    """Run operations from stdin in one transaction: all or none.

    A JSON object a line: {"op": "messages.ack", "receipt": "42.3"}. The keys are the long options and arguments of the
    command (not --wait-ack); $BUS_AGENT stands in for "from" and "agent". Prints a line of JSON for each. An error
    names its line.

    \b
    op is one of
      messages.send, broadcast, ack, release, extend, reject, cancel, redrive
      state.save, delete
      checkpoints.create
      agents.register, heartbeat, retire
      sessions.progress, complete, abandon
    """
    if lines not in (None, "-"):
        raise error("usage", "a step is read from stdin", "bus apply <FILE")
    numbered = [(number, text) for number, text in enumerate(given(lines).split("\n"), 1) if text.strip()]
    operations = []
    for number, text in numbered:
        try:
            operations.append(step.named(_parsed(text), agent=os.environ.get("BUS_AGENT")))
        except BusError as problem:
            raise _at(number, problem) from problem
    out.stdout()  # else nobody could be told what was done
    with out.open() as bus:
        try:
            results = bus.apply(operations)
        except BusError as problem:
            raise (_at(numbered[problem.index][0], problem) if problem.index is not None else problem) from problem
    for result in results:
        out.line(ascii_json({"result": result}))


def _parsed(text: str) -> dict[str, object]:
    """The keys of a line; its documents stay the text they are, so that they are stored as they were given."""
    try:
        json.loads(text, object_pairs_hook=inputs.distinct)
        found = msgspec.json.decode(text.encode(), type=dict[str, msgspec.Raw])
        return {key: bytes(raw) if _is_document(key, raw) else msgspec.json.decode(raw) for key, raw in found.items()}
    except (ValueError, RecursionError) as problem:
        raise error("invalid_json", f"not a JSON object: {problem}") from problem


def _is_document(key: str, raw: msgspec.Raw) -> bool:
    return key in DOCUMENTS and not bytes(raw).startswith(b'"')


def _at(number: int, problem: BusError) -> BusError:
    return error(problem.code, f"line {number}: {problem.message}", problem.hint)
