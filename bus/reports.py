"""What the records of agents' lives answer: who runs, how fast, what is slow, when, how much, who waits on whom.

Each report first finds out who died unseen (`lifecycle.close_the_dead`), so that none takes the dead for running; who
may only read the bus is told what is on record. Durations are in milliseconds. Percentile p of n sorted values is the
one at floor(n * p / 100), counted from 0, or the last; they are of all ended agents whose duration is known.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from bus import agents, clock, config, inputs, lifecycle, salvage
from bus.errors import error
from bus.liveness import Identity, Life
from bus.models import Lifecycle
from bus.operation import Operation, Query, Routine, Row, Steps, reading

T = TypeVar("T")

PERIODS = {"hour": 13, "day": 10}  # characters of a moment that tell it


class Active(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that is spawned or running."""

    agent_id: int
    pid: int
    agent_type: str
    task_id: str
    priority_number: str | None
    status: str
    spawned_at: str
    elapsed_ms: int
    life: Life
    registry_id: str | None
    session_id: str | None
    worktree_path: str | None
    last_seen_at: str | None


class Velocity(msgspec.Struct, frozen=True):
    """How fast the agents of a type are; `success_rate` is the completed among the ended, 0 to 1; `completed_per_hour`
    is over the time from their first spawn to their last end."""

    agent_type: str
    total_agents: int
    completed: int
    failed: int
    killed: int
    active: int
    completed_per_hour: float | None
    success_rate: float | None
    avg_duration_ms: float | None
    p50_duration_ms: int | None
    p95_duration_ms: int | None
    p99_duration_ms: int | None
    avg_idle_ms: float | None


class Bottleneck(msgspec.Struct, frozen=True):
    """A slow agent; `over_p95`: it took longer than the 95th percentile of its type."""

    agent_id: int
    agent_type: str
    task_id: str
    priority_number: str | None
    duration_ms: int
    idle_time_ms: int | None
    spawned_at: str
    completed_at: str
    bottleneck_type: str
    over_p95: bool


class Priority(msgspec.Struct, frozen=True):
    """What a priority took, of one type of agent."""

    priority_number: str | None
    agent_type: str
    first_spawn: str
    last_completion: str | None
    agent_count: int
    total_time_ms: int | None
    avg_time_ms: float | None


class Bar(msgspec.Struct, frozen=True):
    """An agent on a timeline: seconds since 1970; None for what has not come or is not known."""

    agent_id: int
    agent_type: str
    task_id: str
    priority_number: str | None
    status: str
    spawned: float
    started: float | None
    ended: float | None


class Timeline(msgspec.Struct, frozen=True):
    """The priorities, and their agents in the order they were spawned; `now` is when it was asked, since 1970."""

    now: float
    priorities: list[Priority]
    agents: list[Bar]


class Period(msgspec.Struct, frozen=True):
    """What got through in an hour, told by the moment it begins, or on a day, told by its date; in UTC."""

    period: str
    spawned: int
    completed: int
    failed: int
    killed: int


class Waiting(msgspec.Struct, frozen=True):
    """Somebody who waits: on an `agent`, a `person`, a `full queue`, a `dead owner`; for `seconds` now. `number` is how
    many messages wait there; `subject` is the oldest of them, or what the waiter is about."""

    waiter: str
    on: str
    owner: str | None
    subject: str
    number: int
    since: str
    seconds: float
    why: str


def _truthful(report: Operation[T]) -> Routine[T]:
    """A report, after the records of those that died unseen were closed, if they may be."""
    yield from lifecycle.close_the_dead(optional=True)
    found: T = yield report
    return found


def active() -> Routine[list[Active]]:
    """Who is spawned or running, the longest first."""
    return _truthful(_active())


@reading
def _active() -> Steps[list[Active]]:
    rows = yield Query("lifecycle/active", {})
    lives = {seen.id: seen.life for seen in (yield from lifecycle.open_lives().steps())}
    records = salvage.records(rows, Lifecycle)
    return [
        _shown(life, row[1], lives.get(life.agent_id, Life.UNKNOWN)) for life, row in zip(records, rows, strict=True)
    ]


def _shown(found: Lifecycle, elapsed: int, life: Life) -> Active:
    given = {name: getattr(found, name) for name in Active.__struct_fields__ if hasattr(found, name)}
    moments = {name: given[name] and clock.rfc3339(given[name].timestamp()) for name in ("spawned_at", "last_seen_at")}
    return Active(**{**given, **moments}, elapsed_ms=elapsed, life=life)


def velocity(*, type: str | None = None, days: float | None = None) -> Routine[list[Velocity]]:
    """How fast the agents are, by type; of one type, or of those spawned in the last `days`, when given."""
    return _truthful(by_type(type, inputs.days(days)))


@reading
def by_type(type: str | None = None, days: float | None = None) -> Steps[list[Velocity]]:
    """As `velocity`, of what is on record as it stands."""
    since = yield from _days_ago(days)
    rows = yield Query("lifecycle/velocity", {"type": inputs.words(type), "since": since})
    return [Velocity(*(*row[:6], _rounded(row[6], 3), _rounded(row[7], 4), *row[8:])) for row in rows]


def bottlenecks(*, limit: int = 20, type: str | None = None) -> Routine[list[Bottleneck]]:
    """The slowest completed agents, the slowest first, and what makes them so: `High Idle Time` when more than half of
    the time was idle, `Long Duration` over 30 minutes, else `Normal`."""
    return _truthful(_bottlenecks(inputs.whole("limit", limit, most=100_000), type))


@reading
def _bottlenecks(limit: int, type: str | None) -> Steps[list[Bottleneck]]:
    rows = yield Query("lifecycle/bottlenecks", {"limit": limit, "type": inputs.words(type)})
    return [Bottleneck(*(*measured, bool(over))) for *measured, over in rows]


def timeline(*, priority: str | float | None = None, limit: int = 100) -> Routine[Timeline]:
    """When the agents of each priority ran: the `limit` last spawned, and the sums of all."""
    return _truthful(_timeline(inputs.priority_text(priority), inputs.whole("limit", limit, most=100_000)))


@reading
def _timeline(priority: str | None, limit: int) -> Steps[Timeline]:
    sums = yield Query("lifecycle/priorities", {"priority": priority})
    bars = yield Query("lifecycle/timeline", {"priority": priority, "limit": limit})
    now = yield from config.now()
    shown = [Bar(*(*row[:5], *(_rounded(moment, 3) for moment in row[5:]))) for row in bars]
    return Timeline(now, [Priority(*row) for row in sums], shown)


def throughput(*, by: str = "hour", days: float | None = None) -> Routine[list[Period]]:
    """How much got through in each hour or day (UTC) of the last `days` (default: one for hours, 30 for days), the last
    first; periods without any are left out."""
    if by not in tuple(PERIODS):
        raise error("usage", f"throughput is by hour or by day, not {str(by)[:20]!r}")
    return _truthful(_throughput(by, inputs.days({"hour": 1, "day": 30}[by] if days is None else days)))


@reading
def _throughput(by: str, days: float | None) -> Steps[list[Period]]:
    since = yield from _days_ago(days)
    rows = yield Query("lifecycle/throughput", {"length": PERIODS[by], "since": since})
    return [Period(row[0] + (":00:00Z" if by == "hour" else ""), *row[1:]) for row in rows]


def waiting(*, limit: int = 100) -> Routine[list[Waiting]]:
    """Who waits on whom, the longest first."""
    return _truthful(_waiting(inputs.whole("limit", limit, most=100_000)))


@reading
def _waiting(limit: int) -> Steps[list[Waiting]]:
    now = yield from config.now()
    stale = yield from config.number("stale_after")
    return [_waits(row, now, now - stale) for row in (yield Query("lifecycle/waiting", {"limit": limit}))]


def _waits(row: Row, now: float, oldest: float) -> Waiting:
    kind, waiter, owner, number, subject, since, registered, status, heartbeat, *identity, free = row
    known, dead = registered is not None, False
    if known:
        dead = agents.life_of(status, Identity(*identity), clock.parse(heartbeat), oldest) is Life.DEAD
    on, why = _reason(kind, owner, known, dead, free)
    return Waiting(waiter, on, owner, subject, number, since, round(now - clock.parse(since), 3), why)


def _reason(kind: str, owner: str, registered: bool, dead: bool, free: int | None) -> tuple[str, str]:
    if kind == "paused":
        return "person", "it is paused until somebody lets it go on"
    if kind == "spawned":
        return "agent", "it was spawned and has not started"
    if dead:
        return "dead owner", f"{owner} has ended" if kind == "ready" else f"{owner} died with it"
    if kind == "lapsed":
        return "agent", f"the lease of {owner} ran out, and nobody else has taken it"
    if kind == "leased":
        return "agent", f"{owner} works on it"
    if owner.startswith("@"):
        return "full queue", f"{free or 'nobody'} of that type {'are' if free and free > 1 else 'is'} free"
    if not registered:
        return "person", f"nobody is registered as {owner}"
    return "agent", f"{owner} has not taken it"


def _days_ago(days: float | None) -> Steps[str | None]:
    return None if days is None else clock.stamp((yield from config.now()) - days * clock.DAY)


def _rounded(number: float | None, places: int) -> float | None:
    return None if number is None else round(number, places)
