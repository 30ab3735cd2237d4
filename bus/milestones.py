"""Milestones: what sessions work on."""

from __future__ import annotations

from typing import Any

import msgspec

from bus.errors import error
from bus.models import Milestone
from bus.operation import Query, Row, Steps, reading


def decode(rows: list[Row]) -> list[Milestone]:
    """The milestones of rows whose first column is a record."""
    return [msgspec.json.decode(row[0], type=Milestone) for row in rows]


@reading
def list_(*, status: str | None = None) -> Steps[list[Milestone]]:
    """The milestones, newest first; of one status, when given."""
    return decode((yield Query("milestones/list", {"status": status})))


@reading
def show(id: str) -> Steps[Milestone]:
    """One milestone. Raises `unknown_milestone`."""
    found = decode((yield Query("milestones/show", {"milestone": id})))
    if not found:
        raise error("unknown_milestone")
    return found[0]


def document(milestone: Milestone) -> dict[str, Any]:
    """What is exported of a milestone: its columns, and whatever its data holds beside them."""
    columns = {"id": milestone.id, "title": milestone.title, "status": milestone.status, "priority": milestone.priority}
    times = {"created_at": milestone.created_at, "updated_at": milestone.updated_at}
    return {**columns, **{key: value for key, value in milestone.data.items() if key not in columns}, **times}
