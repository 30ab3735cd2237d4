"""Starting dead agents again by the commands they registered, detached from whoever does it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import msgspec

from bus import folders
from bus.api import Bus
from bus.models import TERMINAL, Respawn
from bus.store.url import folder

SETTLING = 1.0  # seconds after which a command that still runs counts as started


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that was started again: its process, the file with its output, and what became of it within a second:
    running, ended (it did its work and said so) or failed, with its exit status."""

    agent_id: str
    command: str
    pid: int
    output: str
    fate: str
    exit_status: int | None


def respawn(bus: Bus, session: str, *, settling: float = SETTLING) -> list[Started]:
    """Start the failed agents of a session that have a command, each once; what became of them in `settling` seconds.

    A command runs in a shell, in a process group of its own, in the working directory, with BUS_URL, BUS_AGENT,
    BUS_AGENT_TYPE, BUS_SESSION and BUS_MILESTONE in its environment; it prints into `.milestones/logs/AGENT.log`. One
    that does not stay up is marked failed again, and not retried.
    """
    logs = folder(bus.url) / "logs"
    folders.make(logs)
    running = [(agent, _start(bus, agent, logs)) for agent in bus.recovery_respawn(session)]
    return [_settled(bus, agent, process, logs, settling) for agent, process in running]


def _start(bus: Bus, agent: Respawn, logs: Path) -> subprocess.Popen[bytes]:
    identity = {
        "BUS_URL": bus.url.address(),
        "BUS_AGENT": agent.agent_id,
        "BUS_AGENT_TYPE": agent.agent_type,
        "BUS_SESSION": agent.session_id,
        "BUS_MILESTONE": agent.milestone_id,
    }
    with folders.log(_output(logs, agent)) as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", agent.command],
            env={**os.environ, **identity},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    bus.recovery_spawned(agent.agent_id, pid=process.pid)
    return process


def _output(logs: Path, agent: Respawn) -> Path:
    return logs / f"{agent.agent_id}.log"


def _settled(bus: Bus, agent: Respawn, process: subprocess.Popen[bytes], logs: Path, settling: float) -> Started:
    try:
        status: int | None = process.wait(settling)
    except subprocess.TimeoutExpired:
        status = None
        process.returncode = 0  # it goes on without us: nobody waits for it here
    fate = "running" if status is None else _ended(bus, agent, status)
    return Started(
        agent_id=agent.agent_id,
        command=agent.command,
        pid=process.pid,
        output=str(_output(logs, agent)),
        fate=fate,
        exit_status=status,
    )


def _ended(bus: Bus, agent: Respawn, status: int) -> str:
    now = next(found for found in bus.agents(session=agent.session_id) if found.agent_id == agent.agent_id)
    if now.status not in TERMINAL:
        bus.update(agent.agent_id, error_info={"respawn": f"its command ended at once with status {status}"})
        bus.retire(agent.agent_id, status="failed")
        return "failed"
    return "ended" if now.status == "completed" else "failed"
