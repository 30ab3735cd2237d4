"""The bus as a whole: its numbers, and the removal of what is old."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bus import config
from bus.models import TERMINAL
from bus.operation import Query, Routine, Statement, Steps, reading, writing

BATCH = 2000  # rows removed, or messages looked at, in one transaction
PAGES = 4000  # freed at a time


@reading
def status(*, busy: float | None = None) -> Steps[Mapping[str, Any]]:
    """How many sessions, agents and messages there are in each status, since when the oldest ready one waits, and the
    load. `busy` is the share of the time in which somebody writes to the file (None: it is no file): then `advice` says
    whether the bus has outgrown it, and why."""
    found: dict[str, Any] = msgspec.json.decode((yield Query("bus/status", {}))[0][0])
    load = {
        "milestones": found.pop("milestones"),
        "agents": sum(number for status, number in found["agents"].items() if status not in TERMINAL),
        "writes_per_second": round(found.pop("written") / 60, 1),
    }
    if busy is None:
        return {**found, "load": load, "advice": []}
    load["busy_percent"] = round(busy * 100)
    settings = {setting.key: setting.value for setting in (yield from config.list_().steps())}
    return {**found, "load": load, "advice": _advice(load, settings)}


def _advice(load: Mapping[str, float], settings: Mapping[str, str]) -> list[str]:
    """Why PostgreSQL would be better for this load, the strongest reasons first."""
    strongly, mildly = [], []
    for what, number in load.items():
        mild, strong = settings.get(f"advise_{what}"), settings.get(f"advise_{what}_strongly")
        words = f"{number:g} {what.replace('_', ' ')}"
        if strong is None and mild is not None and number >= float(mild):
            strongly.append(f"move to PostgreSQL: {words}, from {mild} (advise_{what}); see `bus copy`")
        elif strong is not None and number >= float(strong):
            strongly.append(f"move to PostgreSQL: {words}, from {strong} (advise_{what}_strongly); see `bus copy`")
        elif mild is not None and number >= float(mild):
            mildly.append(f"PostgreSQL is worth a thought: {words}, from {mild} (advise_{what}); see `bus copy`")
    return strongly + mildly


def prune() -> Routine[int]:
    """Remove acknowledged messages past cleanup_retention_days, health records past health_retention_days, records of
    ended agents past lifecycle_retention_days, and state whose time was over a day ago; how many messages went. Freed
    pages go back to the disk in small steps. It is done in many transactions, so that nobody waits for long."""
    for name in ("bus/prune_state", "bus/prune_health", "bus/prune_lives"):
        while (yield _rows_removed(name)) == BATCH:
            pass
    removed, last = 0, 0
    while last is not None:
        gone, last = yield _messages_removed(last)
        removed += gone
    yield _free()
    return removed


@writing
def _rows_removed(name: str) -> Steps[int]:
    return len((yield Query(name, {"limit": BATCH})))


@writing
def _messages_removed(after: int) -> Steps[tuple[int, int | None]]:
    """Remove what is old of the next messages after one; how many, and after which one to go on (None: done)."""
    for last, young in (yield Query("bus/prune_window", {"after": after, "limit": BATCH})):
        gone = yield Query("bus/prune_messages", {"after": after, "last": last})
        return len(gone), None if young else last
    return 0, None


@writing
def _free() -> Steps[None]:
    ((free,),) = yield Query("bus/free_pages", {})
    for _ in range(min(free, PAGES)):
        # A page a call: Python's sqlite3 takes one step of it only.
        yield Statement({"sqlite": "pragma incremental_vacuum(1)"})
