"""The bus as a whole: its numbers, and the removal of what is old."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from bus.models import Agent
from bus.operation import Query, Statement, Steps, reading, writing

PAGES = 4000  # freed at a time


@reading
def status() -> Steps[Mapping[str, Any]]:
    """How many sessions, agents and messages there are in each status, and since when the oldest ready one waits."""
    found: dict[str, Any] = json.loads((yield Query("bus/status", {}))[0][0])
    return found


class Overview(msgspec.Struct, frozen=True):
    """What `bus top` shows. Rows are as schemas/operations/bus/overview.sql makes them, moments in the database's text;
    `sent` and `acknowledged` are of the last minute."""

    sessions: list[list[Any]]
    agents: list[Agent]
    queues: list[tuple[str, int, str]]
    leased: list[list[Any]]
    in_flight: int
    sent: int
    acknowledged: int
    dead: int
    running: int
    slowest: list[list[Any]]


@reading
def overview() -> Steps[Overview]:
    """What happens on the bus now: sessions, agents, queues, messages in flight, rates, the slowest agents."""
    ((found,),) = yield Query("bus/overview", {})
    return msgspec.json.decode(found.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), type=Overview)


@reading
def data_version() -> Steps[int]:
    """A number that changes when another connection has written: whether looking again is worth it."""
    ((version,),) = yield Query("bus/data_version", {})
    return int(version)


@writing
def prune() -> Steps[int]:
    """Remove acknowledged messages past cleanup_retention_days, health records past health_retention_days, records of
    ended agents past lifecycle_retention_days, and state whose time is over; how many messages went. Freed pages go
    back to the disk in small steps."""
    rows = yield Query("bus/prune", {})
    ((free,),) = yield Query("bus/free_pages", {})
    for _ in range(min(free, PAGES)):
        yield Statement(
            {"sqlite": "pragma incremental_vacuum(1)"}
        )  # a page a call: Python's sqlite3 takes one step of it only
    return len(rows)
