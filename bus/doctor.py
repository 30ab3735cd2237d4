"""Is the bus well? Findings about the file, the library, the WAL and the leases."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bus import clock, digests
from bus.errors import TryAgain
from bus.operation import Query, Steps, reading

BATCH = 500  # payloads that are in memory at once


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: ok, warning or fault, and what was seen."""

    subject: str
    verdict: str
    details: str


@reading
def inside() -> Steps[Mapping[str, Any]]:
    """What the database tells of itself, or why it can't be asked."""
    try:
        found: Mapping[str, Any] = json.loads((yield Query("bus/doctor", {}))[0][0])
    except TryAgain as busy:
        return {"busy": busy.message}
    return found


@reading
def deep() -> Steps[Finding]:
    """Whether each payload is the one that was sent; reads them all."""
    count, last = 0, 0
    damaged: list[str] = []
    try:
        while rows := (yield Query("messages/digests", {"after": last, "limit": BATCH})):
            damaged += [str(id) for id, payload, digest in rows if digests.of(payload) != digest]
            count, last = count + len(rows), rows[-1][0]
    except TryAgain as busy:
        return Finding("payloads", "fault", f"they can't be read: {busy.message}")
    if not damaged:
        return Finding("payloads", "ok", f"{count} are what was sent")
    return Finding("payloads", "fault", f"{len(damaged)} of {count} are not what was sent: {', '.join(damaged[:20])}")


def report(facts: Iterable[tuple[str, str, str]], found: Mapping[str, Any]) -> list[Finding]:
    """The findings, from what the store knows of its place and what the database tells of itself."""
    moved = os.environ.get("BUS_NOW")
    return [
        *(Finding(*fact) for fact in facts),
        *([Finding("clock", "warning", f"BUS_NOW moves it: here it is {clock.now()}")] if moved else []),
        *([Finding("tables", "fault", f"they can't be read: {found['busy']}")] if "busy" in found else _told(found)),
    ]


def _told(found: Mapping[str, Any]) -> list[Finding]:
    check = found.get("check")
    return [
        *([Finding("file", "ok" if check == "ok" else "fault", f"quick_check says {check}")] if check else []),
        Finding(
            "schema",
            "warning" if found["foreign"] else "ok",
            f"triggers and views that are not the bus's: {found['foreign'] or 'none'}",
        ),
        Finding(
            "leases",
            "warning" if found["overdue"] else "ok",
            f"{found['leased']} leased, {found['overdue']} of them overdue until their next receiver comes",
        ),
        Finding(
            "dead letters",
            "warning" if found["dead"] else "ok",
            f"{found['dead']}, beside those that were cancelled or expired; see `bus dead`",
        ),
    ]
