"""The commands of milestones."""

from __future__ import annotations

import click

from bus import milestones
from bus_cli.output import Output, command
from bus_cli.text import safe


@click.group()
@command
def milestone(out: Output) -> None:
    """Milestones that were made of the plans of recovered sessions."""


@milestone.command("list")
@click.option("--status", help="Of this status.")
@command
def list_(out: Output, status: str | None) -> None:
    """The milestones, newest first."""
    with out.open() as bus:
        found = bus.milestone_list(status=status)
    rows = [(m.id, m.title, m.status, m.priority, m.updated_at) for m in found]
    out.table(found, ("milestone", "title", "status", "priority", "changed"), rows)


@milestone.command()
@click.argument("id")
@command
def show(out: Output, id: str) -> None:
    """One milestone."""
    with out.open() as bus:
        found = bus.milestone_show(id)
    out.show(found, safe(f"{found.id}: {found.title or '(no title)'}, {found.status}, priority {found.priority}"))


@milestone.command()
@click.argument("id")
@command
def export(out: Output, id: str) -> None:
    """Print a milestone as YAML."""
    with out.open() as bus:
        found = bus.milestone_show(id)
    out.show(milestones.document(found), milestones.to_yaml(found).rstrip("\n"))
