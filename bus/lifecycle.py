"""Agents' lives on record: spawned, started, ended; and those that died unseen, found out when somebody asks.

A record belongs to a process. `spawn`, `start` and `finish` are for whoever starts processes; a registered agent uses
`enter` and `leave`, which enter and retire it in the registry in the same transaction. Durations are the database's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from msgspec.structs import replace

from bus import agents, clock, config, inputs, liveness, salvage, trace_context
from bus.errors import about, error
from bus.liveness import Identity, Life
from bus.models import Agent, Lifecycle
from bus.operation import Operation, Query, Routine, Row, Steps, looking, reading, writing

TRACED = "BUS_TRACE"  # the environment variable by which `bus run` tells a process its record
KILLED = 128  # a shell's exit status of a process that a signal ended is this and the signal's number
LONGEST_TYPE = 128  # characters
LONGEST_TASK = 1024
ROOM = 108  # characters of a type in an agent's id, which has 128: behind it a hyphen and a number of 64 bits

Moment = str | datetime


def spawn(
    type: str,
    task: str,
    *,
    pid: int,
    command: str | None = None,
    task_type: str | None = None,
    priority: str | float | None = None,
    session: str | None = None,
    agent: str | None = None,
    worktree: str | None = None,
    metadata: object = None,
    traceparent: str | None = None,
    at: Moment | None = None,
) -> Operation[int]:
    """Put process `pid` on record as an agent that was spawned, `at` some time (default: now); the record's id.

    `command` is how it was started (default: as the system knows it), `priority` is kept as it is written, such as 7 or
    1.5 or a word, `agent` is its id in the registry. Raises `invalid_value`, `invalid_json`, `future_time`,
    `invalid_traceparent`, and `usage` for a pid below 1.
    """
    process = liveness.identity(inputs.whole("pid", pid))
    parameters = {
        "type": inputs.short("type", type, LONGEST_TYPE),
        "task": inputs.short("task", task, LONGEST_TASK),
        "task_type": inputs.words(task_type),
        "priority": inputs.priority_text(priority),
        "command": inputs.text(command_of(pid) if command is None else command),
        "worktree": inputs.words(worktree),
        "metadata": None if metadata is None else inputs.notes(metadata),
        "agent": inputs.words(agent),
        "session": inputs.words(session),
        "traceparent": inputs.words(traceparent),
        "at": inputs.moment(at),
        **process._asdict(),
    }
    return Operation(partial(_spawn, parameters), writes=True)


def _spawn(parameters: Mapping[str, object]) -> Steps[int]:
    ((id,),) = yield Query("lifecycle/spawn", parameters)
    return int(id)


def launch(
    type: str,
    task: str,
    *,
    pid: int,
    session: str,
    command: str,
    again: str | None = None,
    agent: str | None = None,
    **more: Any,
) -> Operation[tuple[int, str]]:
    """Put a process on record, as `spawn`, and register it in a session, as `agents.register`, both or neither; the
    record's id, and the agent's (default: its type, as far as there is room for it, and the record's id). `again` is
    the command that starts it again (default: the one that started it)."""
    spawned = spawn(type, task, pid=pid, session=session, command=command, agent=agent, **more)
    registered = partial(agents.register, type=type, session=session, pid=pid, command=again or command)
    return Operation(partial(_launch, spawned, registered, agent, inputs.text(type)), writes=True)


def _launch(
    spawned: Operation[int], register: Callable[[str], Operation[Agent]], agent: str | None, type: str
) -> Steps[tuple[int, str]]:
    id = yield from spawned.steps()
    name = agent or f"{type[:ROOM]}-{id}"
    yield from register(name).steps()
    return id, name


def start(
    id: int, *, pid: int | None = None, agent: str | None = None, at: Moment | None = None
) -> Operation[Lifecycle]:
    """A spawned agent begins to work, `at` some time (default: now), as process `pid` if that is not the one it was
    spawned as. Raises `unknown_trace`, `already_started`, `already_ended`, `future_time`, `invalid_duration`."""
    process = Identity() if pid is None else liveness.identity(inputs.whole("pid", pid))
    parameters = {"id": record_id(id), "agent": inputs.words(agent), "at": inputs.moment(at), **process._asdict()}
    return Operation(partial(_changed, "lifecycle/start", parameters), writes=True)


def finish(
    id: int,
    *,
    exit_code: int | None = None,
    status: str | None = None,
    error: str | None = None,
    output: str | None = None,
    at: Moment | None = None,
) -> Operation[Lifecycle]:
    """An agent ended, `at` some time (default: now): completed, failed or killed.

    The status follows from the exit code when it is not given: 0 completed, 129 to 192 or below 0 killed (a signal, as
    shells or Python tell it), else failed. `output` is the end of what it printed. Raises `unknown_trace`,
    `not_started`, `already_ended`, `invalid_status`, `future_time`, `invalid_duration`.
    """
    code = _exit_code(exit_code)
    parameters = {
        "id": record_id(id),
        "exit_code": code,
        "status": outcome(code or 0) if status is None else status,
        "error": inputs.words(error),
        "output": inputs.words(output),
        "at": inputs.moment(at),
    }
    return Operation(partial(_changed, "lifecycle/finish", parameters), writes=True)


def abort(id: int, *, error: str, exit_code: int | None = None) -> Operation[Lifecycle]:
    """A spawned agent could not be started: failed. Raises `unknown_trace`, `already_started`, `already_ended`."""
    parameters = {"id": record_id(id), "error": inputs.text(error), "exit_code": _exit_code(exit_code)}
    return Operation(partial(_changed, "lifecycle/abort", parameters), writes=True)


def _exit_code(given: int | None) -> int | None:
    return None if given is None else inputs.whole("the exit code", given, -(2**31), 2**32)


def _changed(name: str, parameters: Mapping[str, object]) -> Steps[Lifecycle]:
    return salvage.records((yield Query(name, parameters)), Lifecycle)[0]


@looking
def show(id: int) -> Steps[Lifecycle]:
    """One record. Raises `unknown_trace`."""
    found = salvage.records((yield Query("lifecycle/show", {"id": record_id(id)})), Lifecycle)
    if not found:
        raise about(error("unknown_trace"), {"id": id})
    return found[0]


def enter(
    agent: str,
    *,
    type: str,
    session: str,
    milestone: str | None = None,
    capabilities: Sequence[str] | None = None,
    operation: str | None = None,
    command: str | None = None,
    task: str | None = None,
    priority: str | float | None = None,
) -> Operation[int]:
    """Register an agent with this process, as `agents.register`, and put it on record as running; the record's id.

    `task` is what it works on (default: its session). What `bus run` has on record already is its record. Raises as
    `agents.register` does.
    """
    registered = agents.register(
        agent,
        type=type,
        session=session,
        milestone=milestone,
        capabilities=capabilities,
        operation=operation,
        pid=os.getpid(),
        command=command,
    )
    parameters = {
        "agent": agent,
        "type": type,
        "session": session,
        "task": inputs.short("task", task or session, LONGEST_TASK),
        "priority": inputs.priority_text(priority),
        "command": command or shown(sys.orig_argv),
        "traced": traced(),
        "traceparent": trace_context.surrounding(),
        **liveness.identity(os.getpid())._asdict(),
    }
    undo = partial(leave, agent, status="failed", error="nobody was left to hear that it had begun")
    return Operation(partial(_enter, registered, parameters), writes=True, undo=undo)


def _enter(registered: Operation[Agent], parameters: Mapping[str, object]) -> Steps[int]:
    yield from registered.steps()
    ((id,),) = yield Query("lifecycle/enter", parameters)
    return int(id)


def leave(agent: str, id: int, *, status: str = "completed", error: str | None = None) -> Operation[None]:
    """Retire a registered agent, completed or failed, as `agents.retire`, and end its record. An agent that was started
    again as another process meanwhile is that process's, unless it died: only the record ends."""
    parameters = {"id": record_id(id), "status": status, "error": inputs.words(error), "traced": traced()}
    return Operation(partial(_leave, agent, agents.retire(agent, status=status), parameters), writes=True)


def _leave(agent: str, retired: Operation[Agent], parameters: Mapping[str, object]) -> Steps[None]:
    if not (yield from agents.replaced(agent, liveness.identity(os.getpid()))):
        yield from retired.steps()
    yield Query("lifecycle/leave", parameters)


class Seen(NamedTuple):
    """An open record: its process, and whether that lives."""

    id: int
    pid: int
    life: Life


@reading
def open_lives() -> Steps[list[Seen]]:
    """Who is on record as spawned or running, and whether their processes live: told by the process where it can be
    looked at from here, elsewhere by when it was last seen."""
    now = yield from config.now()
    return [_seen(row, now) for row in (yield Query("lifecycle/open", {}))]


def _seen(row: Row, now: float) -> Seen:
    id, *identity, last_seen, patience = row
    told = liveness.life(Identity(*identity))
    if told is Life.UNKNOWN and now - clock.parse(last_seen) > patience:
        told = Life.DEAD
    return Seen(id, identity[1], told)


@writing
def close(dead: Sequence[Seen], alive: Sequence[Seen] = ()) -> Steps[list[Lifecycle]]:
    """Close the records of the dead: killed, ended when last seen; and note that the others were seen now."""
    lists = {"dead": json.dumps([seen[:2] for seen in dead]), "alive": json.dumps([seen.id for seen in alive])}
    return salvage.records((yield Query("lifecycle/close", lists)), Lifecycle)


def close_the_dead(*, optional: bool = False) -> Routine[list[Lifecycle]]:
    """Find out who died unseen, and close their records; those. Nothing is written when nobody did. Where the bus may
    only be read, `optional` leaves the records as they are."""
    seen: list[Seen] = yield open_lives()
    dead = [one for one in seen if one.life is Life.DEAD]
    found: list[Lifecycle] | None = (yield replace(close(dead), optional=optional)) if dead else []
    return found or []


def survey() -> Routine[list[Lifecycle]]:
    """As `close_the_dead`, and note when the living were seen: what a monitor does at each of its rounds."""
    seen: list[Seen] = yield open_lives()
    dead = [one for one in seen if one.life is Life.DEAD]
    alive = [one for one in seen if one.life is Life.ALIVE]
    found: list[Lifecycle] = (yield close(dead, alive)) if seen else []
    return found


def record_id(given: int | str) -> int:
    """The id of a record. Raises `usage`."""
    return inputs.number_of("record", given)


def outcome(exit_code: int) -> str:
    """The status that an exit code tells: 0 completed; 128 and a signal's number, or below 0, killed; else failed."""
    if exit_code == 0:
        return "completed"
    return "killed" if exit_code < 0 or KILLED < exit_code <= KILLED + signal.NSIG - 1 else "failed"


def traced() -> int | None:
    """The record that `bus run` keeps of this process or of one it descends from."""
    given = os.environ.get(TRACED, "")
    return int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else None


def command_of(pid: int) -> str:
    """The command line of a process, as the system knows it; empty when it can't be told.

    A process that begins has none for about 0.1 ms; it is asked again, for 20 ms at most.
    """
    given = b""
    with contextlib.suppress(OSError):
        for _ in range(20):
            given = liveness.read(f"{pid}/cmdline").rstrip(b"\0")
            if given or liveness.started_at(pid) is None:
                break
            time.sleep(0.001)
    return shown([os.fsdecode(part) for part in given.split(b"\0")]) if given else ""


def shown(words: Sequence[str]) -> str:
    """A command line as a shell takes it."""
    return readable(shlex.join(words))


def readable(name: str) -> str:
    """What the system gave as bytes, as text that can be kept: \\xe9 for what is not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
