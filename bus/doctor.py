"""Is the bus well? Findings about the file, the library, the WAL and the leases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from bus.operation import Query, Steps, reading

WAL_LARGE = 16 << 20  # four times what starts a checkpoint: some reader holds it up


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: ok, warning or fault, and what was seen."""

    subject: str
    verdict: str
    details: str


@reading
def inside() -> Steps[Mapping[str, Any]]:
    """What the database tells of itself."""
    found: Mapping[str, Any] = json.loads((yield Query("bus/doctor", {}))[0][0])
    return found


def report(place: Mapping[str, Any], found: Mapping[str, Any]) -> list[Finding]:
    """The findings, from what the store knows of its place and what the database tells of itself."""
    wal, holder = place["wal_bytes"], place["holder"]
    return [
        Finding("bus", "ok", f"{place['path']}, {place['bytes']} bytes, synchronous={place['synchronous']}"),
        _library(place["library"], place["guarded"]),
        Finding("file", "ok" if found["check"] == "ok" else "fault", f"quick_check says {found['check']}"),
        Finding("schema", "warning" if found["foreign"] else "ok", f"not ours: {found['foreign'] or 'nothing'}"),
        Finding("wal", "warning" if wal > WAL_LARGE else "ok", f"{wal} bytes"),
        Finding("writer", "ok", f"process {holder} holds the write lock" if holder else "nobody holds the write lock"),
        Finding(
            "leases",
            "warning" if found["overdue"] else "ok",
            f"{found['leased']} leased, {found['overdue']} of them overdue until their next receiver comes",
        ),
        Finding("dead letters", "warning" if found["dead"] else "ok", f"{found['dead']}; see `bus dead`"),
    ]


def _library(version: str, sound: bool) -> Finding:
    if sound:
        return Finding("library", "ok", f"SQLite {version}")
    words = "has the WAL-reset bug; checkpoints of the bus are guarded against it, those of other programs are not"
    return Finding("library", "warning", f"SQLite {version} {words}")
