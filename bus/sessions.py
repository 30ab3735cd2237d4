"""Sessions: a piece of coordinated work on a milestone. They begin when their first agent registers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bus import inputs, salvage
from bus.errors import about, error
from bus.models import Session
from bus.operation import Operation, Query, Steps, looking, writing

STATUSES = ("active", "paused", "completed", "failed", "abandoned")


@looking
def list_(*, status: str | None = None) -> Steps[list[Session]]:
    """The sessions, the last active first; of one status, when given."""
    if status is not None and status not in STATUSES:
        raise error("invalid_status", f"no session has the status {str(status)[:40]!r}", ", ".join(STATUSES))
    return salvage.records((yield Query("sessions/list", {"status": status})), Session)


@looking
def show(session: str) -> Steps[Session]:
    """One session. Raises `unknown_session`."""
    found = salvage.records((yield Query("sessions/show", {"session": inputs.name(session)})), Session)
    if not found:
        raise about(error("unknown_session"), {"session": session})
    return found[0]


def progress(session: str, progress: float, *, phase: str | None = None) -> Operation[Session]:
    """Say how far a session is, 0 to 100, and its phase. Raises `unknown_session`, `invalid_progress`."""
    if not inputs.is_number(progress) or not 0 <= progress <= 100:
        raise error("invalid_progress")
    parameters = {"session": inputs.name(session), "progress": float(progress), "phase": inputs.words(phase)}
    return Operation(partial(_progress, parameters), writes=True)


def _progress(parameters: Mapping[str, object]) -> Steps[Session]:
    return salvage.records((yield Query("sessions/progress", parameters)), Session)[0]


@writing
def complete(session: str) -> Steps[Session]:
    """A session is done. Raises `unknown_session`, and `already_ended` when it was abandoned."""
    return salvage.records((yield Query("sessions/complete", {"session": inputs.name(session)})), Session)[0]


@writing
def abandon(session: str) -> Steps[Session]:
    """A session is given up; nothing is deleted. Raises `unknown_session`, or `already_ended` if completed."""
    return salvage.records((yield Query("sessions/abandon", {"session": inputs.name(session)})), Session)[0]
