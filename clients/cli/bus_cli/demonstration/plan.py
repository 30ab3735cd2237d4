"""What the demo does: a task for each file, and the count that judges the executors."""

from __future__ import annotations

import hashlib
import os
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

MOST = 1200  # files: over a thousand, and well under half a minute
_ODD = re.compile(r'[\x00-\x1f\x7f"\\\ud800-\udfff]')  # the shell executors read JSON too simply for these
_SKIPPED = {"__pycache__", "site-packages", "dist-packages"}


class Task(NamedTuple):
    """A file to count and hash; bigger ones are more urgent."""

    id: str
    path: Path
    priority: int


class Plan(NamedTuple):
    """The tasks, the folder they are in, and how many files were found there."""

    folder: Path
    tasks: list[Task]
    found: int

    @classmethod
    def of(cls, folder: str | None) -> Plan:
        """The files below a folder, else Python's own library; the biggest ones first."""
        root = Path(folder or sysconfig.get_path("stdlib")).absolute()
        sized = sorted(((path.stat().st_size, path) for path in _files(root, "" if folder else ".py")), reverse=True)
        chosen = sized[:: max(1, len(sized) // MOST)][:MOST]
        tasks = [Task(str(n), path, _priority(n, len(chosen))) for n, (_, path) in enumerate(chosen, 1)]
        return cls(root, tasks, len(sized))


def _files(root: Path, ending: str) -> list[Path]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED]
        paths = (Path(folder, name) for name in names if name.endswith(ending))
        found += [path for path in paths if path.is_file() and os.access(path, os.R_OK) and not _ODD.search(str(path))]
    return found


def _priority(place: int, number: int) -> int:
    """9 for the biggest ninth … 1 for the smallest."""
    return 9 - (place - 1) * 9 // number


def measure(path: Path) -> str:
    """What an executor saves of a file: its lines, as `wc -l` counts, and its SHA-256."""
    data = path.read_bytes()
    return f"{data.count(10)} {hashlib.sha256(data).hexdigest()}"


def recount(plan: Plan, results: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What is wrong with the executors' results (agent → task id → what it saved): nothing, when it is empty."""
    wrong = []
    for task in plan.tasks:
        saved = {agent: of_agent[task.id] for agent, of_agent in results.items() if task.id in of_agent}
        if len(saved) != 1:
            wrong.append(f"{task.path} was done by {', '.join(saved) or 'nobody'}")
        elif (right := measure(task.path)) not in saved.values():
            wrong.append(f"{task.path} is {right}, not {next(iter(saved.values()))}")
    known = {task.id for task in plan.tasks}
    done = [(agent, id) for agent, of_agent in results.items() for id in of_agent]
    return wrong + [f"{agent} did {id}, which is no task" for agent, id in done if id not in known]
