"""Checkpoints: a snapshot of an agent's work, with references to the files it rests on."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from functools import partial
from io import BufferedReader
from typing import Any

import msgspec

from bus import agents, databases, inputs, salvage
from bus.errors import about, error
from bus.inputs import Duration
from bus.models import Checkpoint, FileCheck, FileReference, Restored
from bus.operation import Operation, Query, Steps, looking, writing

TYPES = ("manual", "automatic", "phase_completion", "error_recovery")


def create(
    agent: str,
    snapshot: object = None,
    *,
    type: str = "manual",
    files: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] = (),
    retention: Duration | None = None,
) -> Operation[Checkpoint]:
    """Keep a snapshot (anything that is JSON, or JSON text); files, one or several, are hashed now and verified at
    `restore`.

    `type` is automatic, manual, phase_completion or error_recovery; after `retention` `prune` may remove it. Raises
    `unknown_agent`, `unknown_type`, `invalid_json`, `payload_too_large`, and `usage` for a file that can't be read.
    """
    if type not in TYPES:  # the database says the same, but not which there are
        raise error("unknown_type", f"no checkpoint has the type {str(type)[:40]!r}", f"name one of {', '.join(TYPES)}")
    parameters = {
        "agent": inputs.name(agent),
        "type": type,
        "snapshot": inputs.document({} if snapshot is None else snapshot),
        "files": msgspec.json.encode([_reference(path) for path in _paths(files)]).decode(),
        "retention": inputs.duration(retention),
        "beaten": True,
    }
    return Operation(partial(_create, parameters), writes=True)


def _create(parameters: Mapping[str, object]) -> Steps[Checkpoint]:
    (made,) = salvage.records((yield Query("checkpoints/create", parameters)), Checkpoint)
    yield agents.at_work(str(parameters["agent"]))
    return msgspec.structs.replace(made, state_snapshot=msgspec.json.decode(str(parameters["snapshot"])))


@looking
def list_(agent: str, *, limit: int = 100) -> Steps[list[Checkpoint]]:
    """The checkpoints of an agent, newest first."""
    return salvage.records((yield Query("checkpoints/list", inputs.page(limit, agent=inputs.name(agent)))), Checkpoint)


@looking
def show(checkpoint: str) -> Steps[Checkpoint]:
    """One checkpoint. Raises `unknown_checkpoint`."""
    found = salvage.records((yield Query("checkpoints/show", {"checkpoint": inputs.name(checkpoint)})), Checkpoint)
    if not found:
        raise about(error("unknown_checkpoint"), {"checkpoint": checkpoint})
    return found[0]


@looking
def latest(agent: str, *, checkpoint: str | None = None) -> Steps[Checkpoint | None]:
    """The checkpoint an agent goes on from: its latest, or the one named; None when it has none.

    Raises `unknown_checkpoint` for a name that is none of this agent's.
    """
    parameters = {"agent": inputs.name(agent), "checkpoint": inputs.chosen(checkpoint)}
    found = salvage.records((yield Query("checkpoints/restore", parameters)), Checkpoint)
    if not found and checkpoint is not None:
        raise about(error("unknown_checkpoint"), {"checkpoint": checkpoint})
    return found[0] if found else None


def verify(checkpoint: Checkpoint | None) -> Restored | None:
    """The checkpoint with each file's fate: ok, changed or missing. Reads the files, outside of any transaction."""
    if checkpoint is None:
        return None
    return Restored(checkpoint, [FileCheck(file.path, _fate(file)) for file in checkpoint.file_references])


@writing
def prune(agent: str | None = None, *, keep: int | None = None) -> Steps[list[str]]:
    """Forget checkpoints past their retention, and (with `keep`) all but the newest so many of each agent; their ids.

    The newest of an agent always stays.
    """
    number = None if keep is None else inputs.whole("keep", keep)
    return [id for (id,) in (yield Query("checkpoints/prune", {"agent": inputs.chosen(agent), "keep": number}))]


def _paths(given: object) -> list[str]:
    several: list[Any] = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else [given]
    if not all(isinstance(path, str | os.PathLike) for path in several):
        raise error("usage", "a file is named by its path", "give one path, or a list of them")
    return [os.path.abspath(path) for path in several]


def _reference(path: str) -> FileReference:
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise error("usage", f"{path} is not a file", "name a readable file")
        if databases.has(found):
            raise error("usage", f"{path} is a file of the bus itself", "name a copy made by `bus backup`")
        with open(path, "rb") as file:
            return FileReference(inputs.text(path), _digest(file), file.tell())
    except OSError as problem:
        raise error(
            "usage", f"the file {path} can't be read: {problem.strerror}", "name files that are there"
        ) from problem
    except ValueError as problem:  # a NUL
        raise error("usage", "that is no path of a file", "name files that are there") from problem


def _fate(file: FileReference) -> str:
    try:
        found = os.stat(file.path)
        if not stat.S_ISREG(found.st_mode) or found.st_size != file.size or databases.has(found):
            return "changed"
        with open(file.path, "rb") as opened:
            return "ok" if _digest(opened) == file.sha256 else "changed"
    except OSError:
        return "missing"


def _digest(file: BufferedReader) -> str:
    import hashlib  # a library that most callers never load

    return hashlib.file_digest(file, "sha256").hexdigest()
