"""The executors of the demo: one Python process and two bash scripts, each in a process group of its own."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from bus_cli.interpreter import PYTHON

SESSION = "demo"
COORDINATOR = "coordinator"
TYPE = "milestone-executor"
KINDS = {"executor-1": "python", "executor-2": "bash", "executor-3": "bash"}
VICTIM = "executor-3"


class Team:
    """Starts the executors and sees that none is left behind; they end by themselves when this process is gone."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        bus = folder / "bus"
        bus.write_text(f'#!/bin/sh\nexec {shlex.join(PYTHON)} -m bus_cli "$@"\n')
        bus.chmod(0o700)
        path = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._environment = {**os.environ, "PATH": path, "BUS_URL": url, "BUS_COMMAND": str(bus)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in list(self._processes):
            self.kill(agent)

    def start(self, agent: str, pause: int = 0) -> None:
        """Start an executor; what it says goes into a log. A bash one stops in the middle of its `pause`th task."""
        script = str(Path(__file__).parent / "executor.sh")
        me = str(os.getpid())
        command = {
            "python": [*PYTHON, "-m", "bus_cli.demonstration.executor", agent, me],
            "bash": ["bash", script, agent, me, SESSION, COORDINATOR, str(pause)],
        }[KINDS[agent]]
        with open(self._folder / f"{agent}.log", "wb") as log:
            self._processes[agent] = subprocess.Popen(
                command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    def kill(self, agent: str) -> None:
        """SIGKILL an executor and what it started."""
        process = self._processes[agent]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        del self._processes[agent]

    def failures(self) -> list[str]:
        """The executors that ended badly, each with the last line it said."""
        ended = {agent: process.poll() for agent, process in self._processes.items()}
        return [f"{agent} ended: {self._last_words(agent) or status}" for agent, status in ended.items() if status]

    def _last_words(self, agent: str) -> str:
        lines = (self._folder / f"{agent}.log").read_text("utf-8", "replace").splitlines()
        return lines[-1] if lines else ""

    def ended(self, agent: str, within: float) -> bool:
        """Let an executor end by itself, for so many seconds; whether it did."""
        with suppress(subprocess.TimeoutExpired):
            return self._processes[agent].wait(within) == 0
        return False
