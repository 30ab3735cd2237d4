"""`bus trace import`: what an agent_state.json knows."""

from __future__ import annotations

import click

from bus.errors import error
from bus_cli.arguments import given
from bus_cli.output import Output, command
from bus_cli.text import safe


@click.command("import")
@click.argument("file", type=click.Path())
@click.option(
    "--timezone", metavar="NAME", help="Of times that name none, such as Europe/Berlin (else this machine's)."
)
@click.option("--skip-invalid", is_flag=True, help="Leave entries that can't be right, instead of refusing the file.")
@command
def import_(out: Output, file: str, timezone: str | None, skip_invalid: bool) -> None:
    """Put the agents of an agent_state.json on record. FILE may be `-`, for stdin; the same again adds nothing.

    Entries whose process is gone are not active. An entry that has ended since it was imported is updated.
    """
    text = _read(file)
    with out.open() as bus:
        found = bus.trace_import(text, zone=timezone, skip_invalid=skip_invalid)
    lines = [f"{found.added} added ({found.gone} of them gone unseen), {found.updated} updated, {found.left} left"]
    lines += [f"{number:>8}  {safe(reason)}" for reason, number in found.reasons.items()]
    out.show(found, "\n".join(lines))


def _read(file: str) -> str:
    if file == "-":
        return given(None)
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except UnicodeDecodeError as problem:
        raise error("invalid_json", f"{file} is not UTF-8 text", "name an agent_state.json") from problem
    except OSError as problem:
        raise error("usage", f"{file} can't be read: {problem.strerror}", "name an agent_state.json") from problem
