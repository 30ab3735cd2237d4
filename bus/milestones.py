"""Milestones: what sessions work on."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import msgspec

from bus import clock, folders, inputs, salvage
from bus.errors import BusError, about, error
from bus.models import Milestone, Session
from bus.operation import Query, Steps, reading

_ID = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:@-]{0,127}", re.ASCII)


@reading
def list_(*, status: str | None = None) -> Steps[list[Milestone]]:
    """The milestones, newest first; of one status, when given."""
    return salvage.records((yield Query("milestones/list", {"status": inputs.words(status)})), Milestone)


@reading
def show(id: str) -> Steps[Milestone]:
    """One milestone. Raises `unknown_milestone`."""
    found = salvage.records((yield Query("milestones/show", {"milestone": id})), Milestone)
    if not found:
        raise about(error("unknown_milestone"), {"milestone": id})
    return found[0]


def from_plan(session: Session, plan: str, phases: str, id: str | None, at: str) -> dict[str, object]:
    """The parameters of milestones/create.sql, from the milestone plan of a planning session: JSON with title, tasks,
    timeline, dependencies and whatever else, or any text. `phases` are the artifacts of executing it, as JSON; `at` is
    the moment of its recovery, in RFC 3339.

    Without an `id` the plan's own is taken, else the session's milestone, else one that names the session. What a plan
    says of the milestone's columns that can't be, or is not for a plan to say, is kept as `planned_priority` and such.
    """
    known = _known(plan)
    weights = {phase["key"].removesuffix("-phase-results"): phase["weight"] for phase in json.loads(phases)}
    after = (f"milestone-{session.session_id}", session.session_id)  # the first may be too long for an id
    wanted = (known.get("id"), known.get("milestone_id"), session.milestone_id, *after)
    title, priority = known.get("title") or known.get("name"), known.get("priority")
    columns = {
        "id": id or next(name for name in wanted if isinstance(name, str) and _ID.fullmatch(name)),
        "title": title if isinstance(title, str) else f"Milestone of session {session.session_id}",
        "priority": priority if type(priority) is int and 1 <= priority <= 10 else 5,
    }
    ours = {"planning_session": session.session_id, "recovered": True, "recovered_at": at}
    settled = {**dict.fromkeys(Milestone.__struct_fields__), **columns, **ours, "status": "planned"}
    del settled["data"]
    other = {f"planned_{key}": known[key] for key in settled if known.get(key) not in (None, settled[key])}
    data = {
        "phase_weights": weights,
        **{key: known.get(key, empty) for key, empty in (("tasks", []), ("timeline", {}), ("dependencies", []))},
        **other,
        **{key: value for key, value in known.items() if key not in settled},
        **ours,
    }
    return {"milestone": columns.pop("id"), **columns, "data": inputs.document(data)}


def _known(plan: str) -> dict[str, Any]:
    """What a plan says; one that is no JSON, or none that a bus takes, is text."""
    try:
        given = msgspec.json.decode(plan)
        known = given if isinstance(given, dict) else {"plan": given}
        inputs.legal(inputs.document(known))
    except (msgspec.DecodeError, RecursionError, BusError):
        return {"plan": plan}
    return known


def document(milestone: Milestone) -> dict[str, Any]:
    """What is exported of a milestone: its columns, and whatever its data holds beside them."""
    columns = {"id": milestone.id, "title": milestone.title, "status": milestone.status, "priority": milestone.priority}
    times = {name: clock.rfc3339(getattr(milestone, name).timestamp()) for name in ("created_at", "updated_at")}
    return {**columns, **{key: value for key, value in milestone.data.items() if key not in columns}, **times}


def to_yaml(milestone: Milestone) -> str:
    """A milestone as YAML, in ASCII."""
    import yaml

    return str(yaml.dump(document(milestone), Dumper=_dumper(), sort_keys=False, allow_unicode=False))


@cache
def _dumper() -> type[Any]:
    """PyYAML's, which also quotes the text that readers other than PyYAML would take for something else: YAML 1.2 has
    numbers such as 7e10 and 0o17, YAML 1.1 truth such as y."""
    import yaml

    class Dumper(yaml.SafeDumper):
        pass

    for tag, pattern, first in (
        ("float", r"[-+]?(\.[0-9_]+|[0-9_]+(\.[0-9_]*)?)([eE][-+]?[0-9]+)?$", "-+._0123456789"),
        ("int", r"[-+]?0[box][0-9a-fA-F_]+$", "-+0"),
        ("bool", r"[yYnN]$", "yYnN"),
    ):
        Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern, re.ASCII), list(first))
    return Dumper


def export(milestone: Milestone, folder: Path) -> tuple[Path, bool]:
    """Write a milestone to `folder`/active/<id>.yaml, whole or not at all; the path, and whether it is there: another
    file is left as it is. Raises `fault`."""
    path = folder / "active" / f"{milestone.id}.yaml"
    try:
        if path.is_file():
            return path, path.read_bytes() == to_yaml(milestone).encode()
        folders.make(path.parent)
        with NamedTemporaryFile("w", encoding="ascii", dir=path.parent, prefix=".", delete=False) as file:
            try:
                file.write(to_yaml(milestone))
                file.flush()
                os.replace(file.name, path)
            except BaseException:  # a signal, too, leaves no file behind
                with suppress(FileNotFoundError):  # it has its name already
                    os.unlink(file.name)
                raise
    except OSError as problem:
        raise error(
            "fault", f"{path} can't be written: {problem.strerror}", "make room and export it again"
        ) from problem
    return path, True
