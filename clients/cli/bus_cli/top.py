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
from bus.models import Agent
from bus.overview import NEWEST, Overview
from bus_cli.numbers import Number
from bus_cli.output import Output, command
from bus_cli.tables import picture
from bus_cli.text import counted, milliseconds, safe

SHOWN = 20  # agents: the dead first, half of them where there are as many others
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
    lives = _lives(found, now)
    dead = sum(life is Life.DEAD for _, life in lives)
    least = "≥ " if found.sent >= NEWEST else ""
    head = Text(
        f"{counted(found.session_count, 'session')}   "
        f"{counted(found.agent_count, 'agent')}, {'≥ ' * (found.agent_count > len(lives))}{dead} dead   "
        f"{found.running} on record as running   "
        f"{counted(found.in_flight, 'message')} in flight   {counted(found.dead, 'dead letter')}   "
        f"{least}{found.sent / 60:.1f} sent/s   {least}{found.acknowledged / 60:.1f} acknowledged/s",
        style="bold",
    )
    queues = ((queue.mailbox, queue.ready, _age(queue.oldest, now)) for queue in found.queues)
    return Group(
        head,
        _table(
            _title("sessions", len(found.sessions), found.session_count),
            ("session", "operation", "phase", "status", "%", "agents", "quiet for"),
            _sessions(found, now),
        ),
        _table(
            _title("agents", min(len(lives), SHOWN), found.agent_count),
            ("agent", "type", "session", "status", "life", "task", "quiet for"),
            _agents(lives, now),
        ),
        _table("queues", ("mailbox", "ready", "oldest"), queues),
        _table("in flight", ("message", "type", "held by", "for", "lease left"), _leased(found, now)),
        _table("slowest", ("id", "type", "task", "took", "why"), _slowest(found)),
    )


def _title(noun: str, shown: int, there: int) -> str:
    return noun if shown == there else f"{noun}, {shown} of {there}"


def _sessions(found: Overview, now: float) -> Iterable[Sequence[object]]:
    for s in found.sessions:
        quiet = milliseconds(max(now - s.last_activity.timestamp(), 0) * 1000)
        yield s.session_id, s.operation_type, s.phase, s.status, s.progress, s.agent_count, quiet


def _lives(found: Overview, now: float) -> list[tuple[Agent, Life]]:
    since = now - found.stale_after
    return [(a, agents.life_of(a.status, agents.process(a), a.last_heartbeat.timestamp(), since)) for a in found.agents]


def _agents(lives: Sequence[tuple[Agent, Life]], now: float) -> Iterable[Sequence[object]]:
    dead = [one for one in lives if one[1] is Life.DEAD]
    others = [one for one in lives if one[1] is not Life.DEAD]
    for agent, life in [*dead[: max(SHOWN // 2, SHOWN - len(others))], *others][:SHOWN]:
        quiet = milliseconds(max(now - agent.last_heartbeat.timestamp(), 0) * 1000)
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
