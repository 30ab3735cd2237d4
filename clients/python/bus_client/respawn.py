"""Starting dead agents again by the commands they registered, detached from whoever does it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from bus import folders
from bus.api import Bus
from bus.errors import BusError
from bus.models import TERMINAL, Respawn
from bus.store.url import folder

SETTLING = 1.0  # seconds after which a command that still runs counts as started


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that was started again: its process, the file with its output, and what became of it within a second:
    running, ended (it did its work and said so) or failed, with its exit status; or with the `error` for which the
    system did not start it, and no process."""

    agent_id: str
    command: str
    pid: int | None
    output: str
    fate: str
    exit_status: int | None = None
    error: str | None = None


def respawn(bus: Bus, session: str, *, settling: float = SETTLING) -> list[Started]:
    """Start the failed agents of a session that have a command, each once; what became of them in `settling` seconds.

    A command runs in a shell, in a process group of its own, in the working directory, with BUS_URL, BUS_AGENT,
    BUS_AGENT_TYPE, BUS_SESSION and BUS_MILESTONE in its environment; it prints into `.milestones/logs/AGENT.log`. One
    that can't be started, or does not stay up, is marked failed again, and not retried; the others are started.
    """
    logs = folder(bus.url) / "logs"
    folders.make(logs)
    running = [(agent, _start(bus, agent, logs)) for agent in bus.recovery_respawn(session)]
    return [_told(bus, agent, process, str(_output(logs, agent)), settling) for agent, process in running]


def _start(bus: Bus, agent: Respawn, logs: Path) -> subprocess.Popen[bytes] | str:
    """The process of an agent that was taken to be started, or why the system does not start it."""
    try:
        process = _process(bus, agent, logs)
    except (OSError, BusError) as problem:
        return str(problem)
    bus.recovery_spawned(agent.agent_id, pid=process.pid)
    return process


def _process(bus: Bus, agent: Respawn, logs: Path) -> subprocess.Popen[bytes]:
    identity = {
        "BUS_URL": bus.url.address(),
        "BUS_AGENT": agent.agent_id,
        "BUS_AGENT_TYPE": agent.agent_type,
        "BUS_SESSION": agent.session_id,
        "BUS_MILESTONE": agent.milestone_id,
    }
    with folders.log(_output(logs, agent)) as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", agent.command],
            env={**os.environ, **identity},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _output(logs: Path, agent: Respawn) -> Path:
    return logs / f"{agent.agent_id}.log"


def _told(bus: Bus, agent: Respawn, started: subprocess.Popen[bytes] | str, output: str, settling: float) -> Started:
    told = Started(agent_id=agent.agent_id, command=agent.command, pid=None, output=output, fate="failed")
    if isinstance(started, str):
        _mark_failed(bus, agent, f"it was not started: {started}")
        return msgspec.structs.replace(told, error=started)
    status = _settled(started, settling)
    fate = "running" if status is None else _ended(bus, agent, status)
    return msgspec.structs.replace(told, pid=started.pid, fate=fate, exit_status=status)


def _settled(process: subprocess.Popen[bytes], settling: float) -> int | None:
    try:
        return process.wait(settling)
    except subprocess.TimeoutExpired:
        process.returncode = 0  # it goes on without us: nobody waits for it here
        return None


def _ended(bus: Bus, agent: Respawn, status: int) -> str:
    now = {found.agent_id: found.status for found in bus.agents()}.get(agent.agent_id)  # in whatever session by now
    if now and now not in TERMINAL:
        _mark_failed(bus, agent, f"its command ended at once with status {status}")
    return "ended" if now == "completed" else "failed"


def _mark_failed(bus: Bus, agent: Respawn, why: str) -> None:
    bus.update(agent.agent_id, error_info={"respawn": why})
    bus.retire(agent.agent_id, status="failed")
