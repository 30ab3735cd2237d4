"""The commands of sessions."""

from __future__ import annotations

import click

from bus.models import Session
from bus_cli.numbers import NUMBER, NUMBER_OF_DAYS, NumberLast
from bus_cli.output import Output, command
from bus_cli.text import counted, moment, safe


@click.group()
@command
def session(out: Output) -> None:
    """Pieces of coordinated work. A session begins when its first agent registers."""


@session.command("list")
@click.option("--status", help="active, paused, completed, failed or abandoned.")
@command
def list_(out: Output, status: str | None) -> None:
    """The sessions, the last active first."""
    with out.open() as bus:
        found = bus.session_list(status=status)
    columns = ("session", "milestone", "operation", "phase", "status", "progress", "agents", "last active")
    rows = [
        (s.session_id, s.milestone_id, s.operation_type, s.phase, s.status, s.progress, s.agent_count, s.last_activity)
        for s in found
    ]
    out.table(found, columns, rows)


def _show(out: Output, found: Session) -> None:
    words = [found.operation_type, found.status, f"{found.progress:g} %"]
    told = {"phase": found.phase, "milestone": found.milestone_id, "coordinator": found.coordinator_id}
    words += [f"{name} {value}" for name, value in told.items() if value]
    words += [counted(found.agent_count, "agent"), f"last active {moment(found.last_activity)}"]
    out.show(found, safe(f"{found.session_id}: {', '.join(words)}"))


@session.command()
@click.argument("session")
@command
def show(out: Output, session: str) -> None:
    """One session."""
    with out.open() as bus:
        _show(out, bus.session_show(session))


@session.command(cls=NumberLast)
@click.argument("session")
@click.argument("progress", type=NUMBER)
@click.option("--phase", help="The phase it is in.")
@command
def progress(out: Output, session: str, progress: float, phase: str | None) -> None:
    """Say how far a session is, 0 to 100."""
    with out.open() as bus:
        _show(out, bus.session_progress(session, progress, phase=phase))


@session.command()
@click.argument("session")
@command
def complete(out: Output, session: str) -> None:
    """Mark a session completed."""
    with out.open() as bus:
        _show(out, bus.session_complete(session))


@session.command()
@click.argument("session")
@command
def abandon(out: Output, session: str) -> None:
    """Give a session up. Nothing is deleted."""
    with out.open() as bus:
        _show(out, bus.session_abandon(session))


@session.command()
@click.option(
    "--days", type=NUMBER_OF_DAYS, metavar="N", default=7, show_default=True, help="Those active in the last N days."
)
@command
def counts(out: Output, days: float) -> None:
    """Count the sessions. In all, in each status, and how many of the active are stale."""
    with out.open() as bus:
        found = bus.session_counts(days=days)
    names = ("total", "active", "paused", "completed", "failed", "abandoned", "stale")
    out.show(found, "\n".join(f"{name:<10} {getattr(found, name)}" for name in names))
