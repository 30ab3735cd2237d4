"""What an agent_state.json knows of agents' lives, put on record.

Such a file is `{"active_agents": {"<pid>": {…}}, "completed_agents": [{…}]}`. An agent is told by its pid and start:
the same file twice adds nothing, and a later one that says how an agent ended updates its record. The spawn and the
exit code are not known; durations come from the times that are there.
"""

from __future__ import annotations

import json
import re
import shlex
import zoneinfo
from collections.abc import Iterator, Mapping
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, NamedTuple

import msgspec

from bus import clock, inputs, lifecycle, liveness
from bus.errors import BusError, error
from bus.liveness import Identity, Life
from bus.operation import Operation, Query, Steps

ACTIVE, ENDED = "active_agents", "completed_agents"
STATUSES = ("spawned", "running", "completed", "failed", "killed")
KNOWN = {"pid", "agent_type", "task_id", "task_type", "priority_number", "command", "started_at", "status"} | {
    "completed_at",
    "worktree_path",
}
GONE = "its process was gone when it was imported"


class Imported(msgspec.Struct):
    """What became of a file's entries: how many were added (`gone`: of those, whose process was not there any more),
    updated and left, and the reasons for which they were left."""

    added: int = 0
    gone: int = 0
    updated: int = 0
    left: int = 0
    reasons: dict[str, int] = msgspec.field(default_factory=dict)

    def leave(self, reason: str) -> None:
        """An entry is left as it is, and why."""
        self.left += 1
        self.reasons[reason] = self.reasons.get(reason, 0) + 1


class Entry(NamedTuple):
    """An agent of the file, as the record will have it."""

    parameters: dict[str, object]
    ended: bool
    gone: bool


def import_(text: str, *, zone: str | None = None, skip_invalid: bool = False) -> Operation[Imported]:
    """Put the agents of an agent_state.json on record, all in one transaction.

    `zone` is of times that name none (default: this machine's). An entry that can't be right (no start, a time in the
    future, an end before the start) refuses the whole file, or is left when `skip_invalid`. Raises `invalid_json`,
    `invalid_value`, `invalid_moment`, `invalid_status`, `future_time`, `invalid_duration`, and `usage` for an unknown
    time zone.
    """
    found = Imported()
    reader = Reader(_zone(zone))
    entries = list(_read(text, reader, found, skip_invalid))
    return Operation(partial(_import, entries, found), writes=True)


def _import(entries: list[Entry], before: Imported) -> Steps[Imported]:
    found = msgspec.structs.replace(before, reasons=dict(before.reasons))  # the whole may be run again after "busy"
    for entry in entries:
        rows = yield Query("lifecycle/imported", entry.parameters)
        if not rows:
            yield Query("lifecycle/import", entry.parameters)
            found.added += 1
            found.gone += entry.gone
        elif rows[0][0] and entry.ended:
            yield Query("lifecycle/import_end", entry.parameters)
            found.updated += 1
        else:
            found.leave("already on record")
    return found


def _zone(name: str | None) -> tzinfo | None:
    try:
        return zoneinfo.ZoneInfo(name) if name else None
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as problem:
        raise error("usage", f"there is no time zone {name!r}", "name one such as Europe/Berlin or UTC") from problem


def _read(text: str, reader: Reader, found: Imported, skip_invalid: bool) -> Iterator[Entry]:
    for place, given, active in _entries(text):
        try:
            yield reader.entry(given, active)
        except BusError as problem:
            if not skip_invalid:
                raise error(problem.code, f"{place}: {problem.message}", problem.hint) from problem
            found.leave(problem.message)


def _entries(text: str) -> Iterator[tuple[str, Any, bool]]:
    """Each entry with its place in the file, and whether it stands among the active."""
    try:
        document = json.loads(text)
    except (ValueError, TypeError, RecursionError) as problem:
        raise error("invalid_json", f"the file is not JSON: {problem}", "name an agent_state.json") from problem
    active = document.get(ACTIVE, {}) if isinstance(document, dict) else None
    ended = document.get(ENDED, []) if isinstance(document, dict) else None
    if not isinstance(active, dict) or not isinstance(ended, list) or not {ACTIVE, ENDED} & set(document):
        raise error("invalid_value", f"the file has no {ACTIVE} and {ENDED}", "name an agent_state.json")
    for pid, given in active.items():
        yield f"{ACTIVE}.{pid[:20]}", {"pid": pid, **given} if isinstance(given, dict) else given, True
    for place, given in enumerate(ended):
        yield f"{ENDED}[{place}]", given, False


class Reader:
    """Reads entries, at one moment, with the times of one zone."""

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._now = clock.now()

    def entry(self, given: Any, active: bool) -> Entry:
        """An entry of the file as the record will have it."""
        if not isinstance(given, dict):
            raise error("invalid_value", "an agent is an object", "see the file")
        pid = _pid(given.get("pid"))
        started = self._moment(given, "started_at")
        if started is None:
            raise error("invalid_value", "it has no started_at", "tell when it started")
        completed = self._moment(given, "completed_at")
        if completed is not None and completed < started:
            completed = self._moment(given, "completed_at", again=True)
        if completed is not None and completed < started:
            raise error("invalid_duration")
        status = _status(given, active, completed is not None)
        ended = status not in ("spawned", "running")
        process = Identity() if ended else _process(pid, clock.parse(started))
        gone = process is None
        parameters = {
            "pid": pid,
            "started_at": started,
            "completed_at": completed,
            "status": "killed" if gone else status,
            "unseen": int(gone),
            "error": GONE if gone else None,
            **_described(given),
            **(process or Identity())._replace(pid=pid)._asdict(),
        }
        return Entry(parameters, ended, gone)

    def _moment(self, given: Mapping[str, Any], name: str, *, again: bool = False) -> str | None:
        """A time of an entry; `again`: the second of that name, where a clock was set back."""
        told = given.get(name)
        if told is None:
            return None
        try:
            moment = datetime.fromisoformat(told).replace(fold=again)
            moment = moment.replace(tzinfo=self._zone) if moment.tzinfo is None and self._zone else moment
            found = clock.stamp(moment.timestamp())
            if found < "0001":
                raise ValueError(found)
        except (TypeError, ValueError, OverflowError, OSError) as problem:
            raise error(
                "invalid_moment", f"{name} is not a time: {str(told)[:40]!r}", "write it in ISO 8601"
            ) from problem
        if found > self._now:
            raise error("future_time", f"{name} is in the future: {str(told)[:40]!r}")
        return found


def _pid(given: object) -> int:
    text = str(given)[:41]
    if isinstance(given, bool) or len(text) > 40 or not re.fullmatch(r"0*[1-9][0-9]{0,8}", text, re.ASCII):
        raise error("invalid_value", f"not a pid: {text[:40]!r}", "a pid is a whole number")
    return int(text)


def _status(given: Mapping[str, Any], active: bool, has_end: bool) -> str:
    """What the file says of an agent: an end, or standing among the completed, is stronger than the word `running`."""
    status = given.get("status", "running" if active else "completed")
    if status not in STATUSES:
        raise error("invalid_status", f"not a status of an agent: {str(status)[:40]!r}", ", ".join(STATUSES))
    if status in ("spawned", "running"):
        return "completed" if has_end or not active else "running"
    return str(status)


def _process(pid: int, started: float) -> Identity | None:
    """What tells the process that was running at its start; None when it is gone, its pid perhaps another's now."""
    found = liveness.identity(pid)
    if liveness.life(found) is Life.UNKNOWN:
        return Identity()
    began = liveness.wall_clock_start(pid)
    return found if began is not None and began <= started + liveness.JITTER else None


def _described(given: Mapping[str, Any]) -> dict[str, object]:
    command = given.get("command") or ""
    metadata = {key: value for key, value in given.items() if key not in KNOWN}
    return {
        "type": inputs.short("agent_type", _word(given, "agent_type"), lifecycle.LONGEST_TYPE),
        "task": inputs.short("task_id", _word(given, "task_id"), lifecycle.LONGEST_TASK),
        "task_type": _word_if_any(given, "task_type"),
        "priority": inputs.priority_text(_word_if_any(given, "priority_number")),
        "command": inputs.text(shlex.join(map(str, command)) if isinstance(command, list) else str(command)),
        "worktree": _word_if_any(given, "worktree_path"),
        "metadata": inputs.notes(metadata) if metadata else None,
    }


def _word_if_any(given: Mapping[str, Any], name: str) -> str | None:
    return None if given.get(name) in (None, "") else _word(given, name)


def _word(given: Mapping[str, Any], name: str) -> str:
    found = given.get(name)
    if isinstance(found, bool) or not isinstance(found, str | int | float) or str(found) == "":
        raise error("invalid_value", f"it has no {name}, or one that is no word", "give text or a number")
    return inputs.text(str(found))
