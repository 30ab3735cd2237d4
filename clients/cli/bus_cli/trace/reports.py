"""The reports of `bus trace`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from bus import clock
from bus.errors import error
from bus.reports import Bottleneck, Period, Timeline, Velocity, Waiting
from bus_cli.numbers import NUMBER_OF_DAYS, WHOLE
from bus_cli.output import Output, command
from bus_cli.text import milliseconds

DAYS = click.option("--days", type=NUMBER_OF_DAYS, metavar="N", help="Of the last N days.")
TYPE = click.option("--type", help="Only agents of this type.")
LIMIT = click.option("--limit", type=WHOLE, default=20, show_default=True, help="How many at most.")


@click.command()
@command
def active(out: Output) -> None:
    """Who is spawned or running, the longest first."""
    with out.open() as bus:
        found = bus.trace_active()
    columns = ("id", "pid", "type", "task", "priority", "status", "life", "for", "agent", "session")
    shown = ["agent_id", "pid", "agent_type", "task_id", "priority_number", "status", "life", "elapsed_ms"]
    shown += ["registry_id", "session_id"]
    out.table(found, columns, _rows(found, shown))


@click.command()
@TYPE
@DAYS
@command
def velocity(out: Output, **options: Any) -> None:
    """How fast the agents of each type are."""
    with out.open() as bus:
        found = bus.trace_velocity(**options)
    columns = ["type", "agents", "completed", "failed", "killed", "active", "per hour", "success"]
    columns += ["mean", "p50", "p95", "p99", "idle"]
    out.table(found, columns, _rows(found, Velocity.__struct_fields__))


@click.command()
@LIMIT
@TYPE
@command
def bottlenecks(out: Output, **options: Any) -> None:
    """The slowest completed agents, and what makes them so."""
    with out.open() as bus:
        found = bus.trace_bottlenecks(**options)
    columns = ("id", "type", "task", "priority", "took", "idle", "spawned", "ended", "why", "over p95")
    out.table(found, columns, _rows(found, Bottleneck.__struct_fields__))


@click.command()
@click.option("--priority", help="Only of this priority number, as it was written.")
@click.option("--limit", type=WHOLE, default=100, show_default=True, help="The last spawned, so many at most.")
@click.option("--svg", type=click.Path(), metavar="FILE", help="Draw it into FILE (- is stdout).")
@command
def timeline(out: Output, priority: str | None, limit: int, svg: str | None) -> None:
    """When the agents of each priority ran. ░ idle, █ at work, > still running, ? nobody knows how long."""
    from bus_cli.trace import gantt

    with out.open() as bus:
        found = bus.trace_timeline(priority=priority, limit=limit)
    if svg == "-":
        out.write(gantt.svg(found).encode())
        return
    if svg:
        try:
            Path(svg).write_text(gantt.svg(found), "utf-8")
        except OSError as problem:
            raise error("usage", f"{svg} can't be written: {problem.strerror}", "name a file") from problem
    if out.as_json:
        out.show(_dated(found))
    elif not svg:
        for line in gantt.lines(found):
            out.line(line)


def _dated(found: Timeline) -> dict[str, Any]:
    """A timeline with its moments in RFC 3339."""
    bars = [
        {
            key: clock.rfc3339(value) if isinstance(value, float) else value
            for key, value in msgspec.to_builtins(bar).items()
        }
        for bar in found.agents
    ]
    return {"now": clock.rfc3339(found.now), "priorities": found.priorities, "agents": bars}


@click.command()
@click.option("--by", type=click.Choice(["hour", "day"]), default="hour", show_default=True, help="Count by this.")
@click.option("--days", type=NUMBER_OF_DAYS, metavar="N", help="Of the last N days (else 1 by hour, 30 by day).")
@command
def throughput(out: Output, **options: Any) -> None:
    """How much work got through, by the hour or the day (UTC)."""
    with out.open() as bus:
        found = bus.trace_throughput(**options)
    out.table(found, Period.__struct_fields__, _rows(found, Period.__struct_fields__))


@click.command()
@LIMIT
@command
def waiting(out: Output, limit: int) -> None:
    """Who waits on whom, the longest first. On an agent, a person, a full queue, a dead owner."""
    with out.open() as bus:
        found = bus.trace_waiting(limit=limit)
    columns = ("waits", "on", "who", "about", "messages", "since", "for", "why")
    out.table(found, columns, _rows(found, Waiting.__struct_fields__))


def _rows(found: Sequence[object], shown: Sequence[str]) -> list[list[object]]:
    return [[_cell(name, getattr(one, name)) for name in shown] for one in found]


def _cell(name: str, value: Any) -> object:
    if name.endswith("_ms"):
        return milliseconds(value)
    if name == "seconds":
        return milliseconds(max(value, 0) * 1000)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name == "success_rate" and value is not None:
        return f"{value * 100:.1f} %"
    return value
