"""Starting dead agents again by the commands they registered, detached from whoever does it."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from bus import clock, folders
from bus.api import Bus
from bus.errors import BusError
from bus.models import TERMINAL, Respawn
from bus.store.url import logs

SETTLING = 1.0  # seconds after which a command that still runs counts as started


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that was started again: its process, the file with its output, and what became of it within a second:
    running, ended (it did its work and said so) or failed, with its exit status. `error` is why the system did not
    start it (then it has no process), or what the bus could not note of it."""

    agent_id: str
    command: str
    pid: int | None
    output: str
    fate: str
    exit_status: int | None = None
    error: str | None = None


class Begun(NamedTuple):
    """The process of an agent, if there is one, and what went wrong."""

    process: subprocess.Popen[bytes] | None
    error: str | None


def respawn(bus: Bus, session: str, *, settling: float = SETTLING) -> list[Started]:
    """Start the failed agents of a session that have a command, each once; what became of them in `settling` seconds.

    A command runs in a shell, in a process group of its own, in the working directory, with BUS_URL, BUS_AGENT,
    BUS_AGENT_TYPE, BUS_SESSION and BUS_MILESTONE in its environment; it prints into `.milestones/logs/AGENT.log`. One
    that can't be started, or does not stay up, is marked failed again, and not retried; the others are started.
    """
    place = logs(bus.url)
    folders.make(place)
    agents = bus.recovery_respawn(session)
    begun: list[Begun] = []
    try:
        for agent in agents:
            begun.append(_begin(bus, agent, place))
    finally:
        for agent in agents[len(begun) :]:  # somebody broke it off: nobody stays who seems to be starting
            with suppress(BusError):
                _mark_failed(bus, agent, "nobody started it")
    end = clock.monotonic() + settling
    return [_told(bus, agent, found, _output(place, agent), end) for agent, found in zip(agents, begun, strict=True)]


def _begin(bus: Bus, agent: Respawn, place: Path) -> Begun:
    """Start an agent that was taken to be started."""
    process = None
    try:
        process = _process(bus, agent, place)
        bus.recovery_spawned(agent.agent_id, pid=process.pid)
    except (OSError, BusError) as problem:
        return Begun(process, str(problem))
    return Begun(process, None)


def _process(bus: Bus, agent: Respawn, place: Path) -> subprocess.Popen[bytes]:
    identity = {
        "BUS_URL": bus.url.address(),
        "BUS_AGENT": agent.agent_id,
        "BUS_AGENT_TYPE": agent.agent_type,
        "BUS_SESSION": agent.session_id,
        "BUS_MILESTONE": agent.milestone_id,
    }
    with folders.log(_output(place, agent)) as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", agent.command],
            env={**os.environ, **identity},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _output(place: Path, agent: Respawn) -> Path:
    return place / f"{agent.agent_id}.log"


def _told(bus: Bus, agent: Respawn, begun: Begun, output: Path, end: float) -> Started:
    process, error = begun
    status = _settled(process, end) if process else None
    fate = "running" if process and status is None else "failed"
    if fate == "failed":
        why = f"its command ended at once with status {status}" if process else f"it was not started: {error}"
        try:
            fate = _ended(bus, agent, why)
        except BusError as problem:
            error = f"{error}; {problem}" if error else str(problem)
    return Started(
        agent_id=agent.agent_id,
        command=agent.command,
        pid=process.pid if process else None,
        output=str(output),
        fate=fate,
        exit_status=status,
        error=error,
    )


def _settled(process: subprocess.Popen[bytes], end: float) -> int | None:
    """The exit status of a process that ends by then."""
    try:
        return process.wait(max(end - clock.monotonic(), 0))
    except subprocess.TimeoutExpired:
        process.returncode = 0  # it goes on without us: nobody waits for it here
        return None


def _ended(bus: Bus, agent: Respawn, why: str) -> str:
    """What became of an agent that does not run: as it said itself, else it is marked failed."""
    now = {found.agent_id: found.status for found in bus.agents()}.get(agent.agent_id)  # in whatever session by now
    if now and now not in TERMINAL:
        _mark_failed(bus, agent, why)
    return "ended" if now == "completed" else "failed"


def _mark_failed(bus: Bus, agent: Respawn, why: str) -> None:
    bus.update(agent.agent_id, error_info={"respawn": why})
    bus.retire(agent.agent_id, status="failed")
