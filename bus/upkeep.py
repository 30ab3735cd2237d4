"""The bus as a whole: its numbers, and the removal of what is old."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bus.operation import Query, Statement, Steps, reading, writing

PAGES = 4000  # freed at a time


@reading
def status() -> Steps[Mapping[str, Any]]:
    """How many sessions, agents and messages there are in each status, and since when the oldest ready one waits."""
    found: dict[str, Any] = json.loads((yield Query("bus/status", {}))[0][0])
    return found


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
