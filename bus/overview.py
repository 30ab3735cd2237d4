"""What happens on the bus now, for whoever watches it."""

from __future__ import annotations

from typing import Any

import msgspec

from bus import salvage
from bus.models import Agent
from bus.operation import Query, Steps, reading

NEWEST = 20_000  # messages; of more in a minute the rates are told too low


class Overview(msgspec.Struct, frozen=True):
    """What `bus top` shows. Rows are as schemas/operations/bus/overview.sql makes them, `now` is when they were read by
    the clock of the bus; `sent` and `acknowledged` are of the last minute, among the `NEWEST` messages,
    `stale_after` is the setting."""

    now: str
    sessions: list[list[Any]]
    agents: list[Agent]
    queues: list[tuple[str, int, str]]
    leased: list[list[Any]]
    in_flight: int
    sent: int
    acknowledged: int
    dead: int
    running: int
    stale_after: float
    slowest: list[list[Any]]


@reading
def overview() -> Steps[Overview]:
    """What happens on the bus now: sessions, agents, queues, messages in flight, rates, the slowest agents."""
    ((found,),) = yield Query("bus/overview", {})
    return salvage.record(found, Overview)


@reading
def data_version() -> Steps[int]:
    """A number that changes when another connection has written: whether looking again is worth it."""
    ((version,),) = yield Query("bus/data_version", {})
    return int(version)
