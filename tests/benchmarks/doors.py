"""W6: whole processes: the shell functions and the command, against the least that could do it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.benchmarks import ours
from tests.benchmarks.contestant import body
from tests.benchmarks.figures import Figure, Run, percentile

TREE = Path(__file__).resolve().parents[2]


def processes(run: Run) -> list[Figure]:
    """Each as a process of its own, one after the other in every round; ratios to `sqlite3 FILE "select 1"`, among the
    shell's, and to Python with the libraries that the command needs, among the command's. (A command that is the last
    to close the bus takes the WAL away; who opens it next would pay for another.)"""
    folder = run.place("doors")
    with ours.open_bus(folder, "full") as bus:
        bus.register("sender", type=ours.TYPE, session=ours.SESSION)
    commands = _commands(folder / "bus.db")
    environment = _environment(folder)
    times: dict[str, list[float]] = {name: [] for name in commands}
    for group in ([name for name in commands if not _is_python(name)], list(filter(_is_python, commands))):
        for name in group:
            _seconds(commands[name], environment)  # once to warm up
        for _ in range(min(max(run.scale.count // 20, 3), 40)):
            for name in group:
                times[name].append(_seconds(commands[name], environment))
    return [_figure(name, times) for name in commands]


def _environment(folder: Path) -> dict[str, str]:
    """As where the bus is installed: compiled files are kept (here: in a folder of their own)."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "BUS_URL": str(folder / "bus.db"), "PATH": path, "PYTHONPYCACHEPREFIX": str(folder / "compiled")}


def _commands(file: Path) -> dict[str, list[str]]:
    source = f"source '{TREE}/clients/shell/bus.sh'; "
    message = f"sender sender task_assignment '{body(0)}'"
    return {
        "sqlite3 FILE 'select 1'": ["sqlite3", str(file), "select 1"],
        "bash -c 'sqlite3 …'": ["bash", "-c", f"sqlite3 '{file}' 'select 1'; :"],
        "send_agent_message": ["bash", "-c", f"{source}send_agent_message {message}"],
        "save_agent_state": ["bash", "-c", f"{source}save_agent_state sender key value"],
        "load_agent_state": ["bash", "-c", f"{source}load_agent_state sender key"],
        "get_agent_messages": ["bash", "-c", f"{source}get_agent_messages sender true"],
        "python -c 'import …'": [sys.executable, "-c", "import sqlite3, msgspec, click"],
        "bus send": ["bus", "send", "sender", "task_assignment", body(0), "--from", "sender"],
        "bus receive": ["bus", "receive", "sender", "--limit", "100", "--ack"],
        "bus state load": ["bus", "state", "load", "sender", "key"],
    }


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


def _is_python(name: str) -> bool:
    return name.startswith(("bus ", "python"))


def _figure(name: str, times: dict[str, list[float]]) -> Figure:
    python = _is_python(name)
    reference = "python -c 'import …'" if python else "sqlite3 FILE 'select 1'"
    measured = name != reference and not name.startswith("bash -c 's")
    value, base = statistics.median(times[name]), statistics.median(times[reference])
    target = (1.3 if python else 4.0) if measured else None
    return Figure(
        "W6", name, "full", percentile(times[name], 0.5) * 1000, "ms", reference, value / base, target, False,
        samples=times[name],
    )  # fmt: skip
