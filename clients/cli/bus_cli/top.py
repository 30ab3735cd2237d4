"""`bus top`: what happens on the bus, on a screen that follows it.

It reads the bus once a second at most, and only when somebody has written; what grows older meanwhile, and whether the
agents' processes live, is worked out here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import click
from rich import box
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bus import Bus, agents, clock
from bus.errors import TryAgain
from bus.liveness import Life
from bus.overview import NEWEST, Overview
from bus_cli.numbers import Number
from bus_cli.output import Output, command
from bus_cli.tables import picture
from bus_cli.text import counted, milliseconds, safe

COLOURS = {Life.ALIVE: "green", Life.DEAD: "red", Life.UNKNOWN: "yellow"}


@click.command()
@click.option(
    "--interval", type=Number(0.2, 3600), metavar="SECONDS", default=1.0, show_default=True, help="Between two looks."
)
@click.option("--once", is_flag=True, help="Show it once, as it does where the output is no terminal.")
@command
def top(out: Output, interval: float, once: bool) -> None:
    """Watch the bus. Sessions, agents, queues, messages in flight, rates, bottlenecks; Ctrl-C ends it."""
    with out.open() as bus:
        if out.as_json:
            out.show(_look(bus))
        elif once or not out.terminal():
            out.write(picture(screen(_look(bus)), None if out.terminal() else 120))
        else:
            _follow(bus, interval)


def _follow(bus: Bus, interval: float) -> None:
    seen = bus.data_version()
    found, read = _look(bus), clock.monotonic()
    with Live(screen(found), screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval)
            with suppress(TryAgain):
                version = bus.data_version()
                if version != seen:
                    found, read = _look(bus), clock.monotonic()
                    seen = version
            live.update(screen(found, clock.monotonic() - read), refresh=True)


def _look(bus: Bus) -> Overview:
    bus.trace_close_the_dead(optional=True)
    return bus.overview()


def screen(found: Overview, since: float = 0.0) -> RenderableType:
    """The whole screen, so many seconds since it was read."""
    now = clock.parse(found.now) + since
    least = "≥ " if found.sent >= NEWEST else ""
    head = Text(
        f"{counted(len(found.sessions), 'session')}   {counted(len(found.agents), 'agent')}   "
        f"{found.running} on record as running   "
        f"{counted(found.in_flight, 'message')} in flight   {found.dead} dead   "
        f"{least}{found.sent / 60:.1f} sent/s   {least}{found.acknowledged / 60:.1f} acknowledged/s",
        style="bold",
    )
    queues = ((queue.mailbox, queue.ready, _age(queue.oldest, now)) for queue in found.queues)
    return Group(
        head,
        _table(
            "sessions", ("session", "operation", "phase", "status", "%", "agents", "quiet for"), _sessions(found, now)
        ),
        _table("agents", ("agent", "type", "session", "status", "life", "task", "quiet for"), _agents(found, now)),
        _table("queues", ("mailbox", "ready", "oldest"), queues),
        _table("in flight", ("message", "type", "held by", "for", "lease left"), _leased(found, now)),
        _table("slowest", ("id", "type", "task", "took", "why"), _slowest(found)),
    )


def _sessions(found: Overview, now: float) -> Iterable[Sequence[object]]:
    for s in found.sessions:
        quiet = milliseconds(max(now - s.last_activity.timestamp(), 0) * 1000)
        yield s.session_id, s.operation_type, s.phase, s.status, s.progress, s.agent_count, quiet


def _agents(found: Overview, now: float) -> Iterable[Sequence[object]]:
    for agent in found.agents:
        heard = agent.last_heartbeat.timestamp()
        life = agents.life_of(agent.status, agents.process(agent), heard, now - found.stale_after)
        quiet = milliseconds(max(now - heard, 0) * 1000)
        shown = Text(life, style=COLOURS[life])
        yield agent.agent_id, agent.agent_type, agent.session_id, agent.status, shown, agent.current_task, quiet


def _leased(found: Overview, now: float) -> Iterable[Sequence[object]]:
    for m in found.leased:
        left = clock.parse(m.due_at) - now
        lasts = milliseconds(left * 1000) if left > 0 else "over"
        yield m.id, m.message_type, m.leased_by, _age(m.delivered_at, now), lasts


def _slowest(found: Overview) -> Iterable[Sequence[object]]:
    for life in found.slowest:
        yield life.agent_id, life.agent_type, life.task_id, milliseconds(life.duration_ms), life.bottleneck_type


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    table = Table(*columns, title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_shown(cell)) for cell in row))
    return table


def _shown(cell: Any) -> str:
    return "-" if cell is None else f"{cell:g}" if isinstance(cell, float) else safe(cell)


def _age(moment: str | None, now: float) -> str:
    return "-" if moment is None else milliseconds(max(now - clock.parse(moment), 0) * 1000)
