"""The executors of the demo: one Python process and two bash scripts, each in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

from bus_cli.shell import functions

SESSION = "demo"
COORDINATOR = "coordinator"
TYPE = "milestone-executor"
KINDS = {"executor-1": "python", "executor-2": "bash", "executor-3": "bash"}
VICTIM = "executor-3"
PAUSES_AT = 3  # the task in whose middle the victim stops, to be killed there
HOLDING = "holding"  # the state key under which it says so


class Team:
    """Starts the executors and sees that none is left behind."""

    def __init__(self, folder: Path, command: Path) -> None:
        self._folder = folder
        self._environment = {**os.environ, "BUS_URL": str(folder / "coordination.db"), "BUS_COMMAND": str(command)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for agent in self._processes:
            self.kill(agent)

    def start(self, agent: str, pause: int = 0) -> None:
        """Start an executor, which stops in the middle of its `pause`th task; what it says goes into a log."""
        script = Path(__file__).parent / "executor.sh"
        command = {
            "python": [sys.executable, "-m", "bus_cli.demonstration.executor", agent],
            "bash": ["bash", str(script), str(functions()), agent, SESSION, COORDINATOR, str(pause)],
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

    def failed(self) -> str | None:
        """An executor that ended by itself, with the last line it said."""
        for agent, process in self._processes.items():
            if process.poll() not in (None, 0, -signal.SIGKILL):
                lines = (self._folder / f"{agent}.log").read_text("utf-8", "replace").splitlines()
                return f"{agent} ended: {lines[-1] if lines else process.returncode}"
        return None

    def wait(self, seconds: float) -> None:
        """Let the executors end by themselves."""
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
