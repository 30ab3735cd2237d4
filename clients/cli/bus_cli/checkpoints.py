"""The commands of checkpoints."""

from __future__ import annotations

import os
from contextlib import suppress

import click
import msgspec

from bus.checkpoints import TYPES
from bus.errors import NotFound, error
from bus_cli.arguments import given, me
from bus_cli.numbers import WHOLE
from bus_cli.output import Output, command, note
from bus_cli.text import counted, safe


@click.group()
@command
def checkpoint(out: Output) -> None:
    """Snapshots of an agent's work, with the files it rests on."""


@checkpoint.command()
@click.argument("agent", required=False)
@click.option("--type", default="manual", show_default=True, help=f"{', '.join(TYPES)}.")
@click.option("--snapshot", default="{}", metavar="JSON|-", help="What to remember; `-` reads it from stdin.")
@click.option(
    "--file", "files", multiple=True, type=click.Path(), metavar="PATH", help="A file it rests on; may be repeated."
)
@click.option("--retention", metavar="DURATION", help="`prune` may remove it after this time.")
@command
def create(
    out: Output, agent: str | None, type: str, snapshot: str, files: tuple[str, ...], retention: str | None
) -> None:
    """Keep a checkpoint; prints its id."""
    text = given(snapshot)
    out.stdout()  # else nobody could be told its id
    with out.open() as bus:
        made = bus.checkpoint_create(me(agent), text, type=type, files=files, retention=retention)
    out.show(made, made.checkpoint_id)


@checkpoint.command("list")
@click.argument("agent", required=False)
@click.option("--limit", type=WHOLE, default=100, show_default=True, help="How many at most.")
@command
def list_(out: Output, agent: str | None, limit: int) -> None:
    """The checkpoints of AGENT, newest first."""
    with out.open() as bus:
        found = bus.checkpoint_list(me(agent), limit=limit)
    rows = [(c.checkpoint_id, c.checkpoint_type, c.created_at, len(c.file_references), c.parent_id) for c in found]
    out.table(found, ("checkpoint", "type", "made", "files", "after"), rows, limit)


@checkpoint.command()
@click.argument("id")
@command
def show(out: Output, id: str) -> None:
    """One checkpoint, as JSON."""
    with out.open() as bus:
        Output(None, True).show(bus.checkpoint_show(id))


@checkpoint.command()
@click.argument("agent", required=False)
@click.option("--checkpoint", "id", metavar="ID", help="This one (else the latest).")
@command
def restore(out: Output, agent: str | None, id: str | None) -> int:
    """The checkpoint to go on from, and the fate of its files. Exit status 1 when there is none.

    In place of AGENT the id of a checkpoint may stand, too.
    """
    with out.open() as bus:
        found = bus.checkpoint_restore(me(agent), checkpoint=id)
        if agent and not found:
            with suppress(NotFound):
                found = bus.checkpoint_restore(bus.checkpoint_show(agent).agent_id, checkpoint=agent)
    if not found:
        return 1
    if out.as_json:
        out.show(found)
        return 0
    out.line(safe(msgspec.json.encode(found.checkpoint.state_snapshot).decode()))
    for file in found.files:
        note(f"{file.status:<8} {safe(file.path)}")
    return 0


@checkpoint.command()
@click.argument("agent", required=False)
@click.option("--all", "everybody", is_flag=True, help="Of all agents. So it is, too, without AGENT and $BUS_AGENT.")
@click.option("--keep", type=WHOLE, metavar="N", help="Also forget all but the newest N of each agent.")
@command
def prune(out: Output, agent: str | None, everybody: bool, keep: int | None) -> int:
    """Forget checkpoints past their retention, of AGENT or of all. The newest of an agent always stays."""
    if agent is not None and everybody:
        raise error("usage", "--all is for all agents, and one is named", "name one, or say --all")
    who = (os.environ.get("BUS_AGENT") or None) if agent is None else agent
    with out.open() as bus:
        gone = bus.checkpoint_prune(None if everybody else who, keep=keep)
    out.show({"pruned": gone}, f"{counted(len(gone), 'checkpoint')} forgotten")
    return 0
