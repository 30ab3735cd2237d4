"""What happens on the bus now, for whoever watches it."""

from __future__ import annotations

import msgspec

from bus import salvage
from bus.models import Agent, Session
from bus.operation import Query, Steps, reading

NEWEST = 20_000  # messages; of more in a minute the rates are told too low


class Queue(msgspec.Struct, frozen=True):
    """A mailbox with ready messages: how many, and when the oldest was sent."""

    mailbox: str
    ready: int
    oldest: str


class Leased(msgspec.Struct, frozen=True):
    """A message that somebody holds, since when and until when."""

    id: int
    message_type: str
    leased_by: str | None
    delivered_at: str | None
    due_at: str


class Slow(msgspec.Struct, frozen=True):
    """An agent on record that took long, in milliseconds, and why it is told."""

    agent_id: int
    agent_type: str
    task_id: str
    duration_ms: float | None
    bottleneck_type: str | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What `bus top` shows. `now` is when it was read, by the clock of the bus. `sessions` are the latest 8 that are
    active or paused, `agents` the 200 last heard of that have not ended, and `…_count` how many there are; `sent` and
    `acknowledged` are of the last minute, among the `NEWEST` messages, `stale_after` is the setting."""

    now: str
    sessions: list[Session]
    session_count: int
    agents: list[Agent]
    agent_count: int
    queues: list[Queue] = []
    leased: list[Leased]
    in_flight: int
    sent: int
    acknowledged: int
    dead: int
    running: int
    stale_after: float
    slowest: list[Slow]


@reading
def overview() -> Steps[Overview]:
    """What happens on the bus now: sessions, agents, queues, messages in flight, rates, the slowest agents."""
    ((found,),) = yield Query("bus/overview", {})
    seen = salvage.record(found, Overview)
    return msgspec.structs.replace(seen, queues=(yield from queues(limit=10)))


def queues(*, limit: int) -> Steps[list[Queue]]:
    """The mailboxes in which something is ready, the fullest first."""
    return [Queue(*row) for row in (yield Query("bus/queues", {"limit": limit}))]


@reading
def data_version() -> Steps[int]:
    """A number that changes when another connection has written: whether looking again is worth it."""
    ((version,),) = yield Query("bus/data_version", {})
    return int(version)
