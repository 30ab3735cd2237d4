"""What the demo does: a task for each file, and the count that judges the executors."""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

MOST = 1200  # files: over a thousand, and well under half a minute on a slow machine
ENOUGH = 1000
_NOT_THE_LIBRARY = {"site-packages", "dist-packages"}


class Task(NamedTuple):
    """A file to count and hash; bigger ones are more urgent."""

    id: str
    path: Path
    priority: int

    @property
    def assignment(self) -> dict[str, object]:
        """The payload. The path travels as a URI: any name is plain ASCII in it, and bash decodes it with printf."""
        title = os.fsencode(self.path.name).decode("utf-8", "replace")
        return {"task_id": self.id, "title": title, "context": {"uri": self.path.as_uri()}}


def path_of(uri: str) -> Path:
    """The path that a URI names, whatever bytes are in it."""
    return Path(os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))))


class Plan(NamedTuple):
    """The tasks, the folder they are in, how many files were found there and how many of them can't be read."""

    folder: Path
    tasks: list[Task]
    found: int
    unreadable: int

    @classmethod
    def of(cls, folder: str | None) -> Plan:
        """The files below a folder, else Python's own library; the biggest first."""
        root = Path(folder or sysconfig.get_path("stdlib")).absolute()
        paths = list(_files(root)) if folder else _library(root)
        sized = sorted(((path.stat().st_size, path) for path in paths if os.access(path, os.R_OK)), reverse=True)
        chosen = _chosen([path for _, path in sized])
        tasks = [Task(str(n), path, _priority(n, len(chosen))) for n, path in enumerate(chosen, 1)]
        return cls(root, tasks, len(paths), len(paths) - len(sized))


def _files(root: Path, without: Collection[str] = ()) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in without]
        yield from (path for name in names if (path := Path(folder, name)).is_file())


def _library(root: Path) -> list[Path]:
    """The modules; all files where too few of them were installed, as without the library's own tests."""
    files = list(_files(root, _NOT_THE_LIBRARY))
    modules = [path for path in files if path.suffix == ".py"]
    return modules if len(modules) >= ENOUGH else files


def _chosen(paths: list[Path]) -> list[Path]:
    """All, or MOST of them at even distances, so that big and small ones are among them."""
    number = min(MOST, len(paths))
    return [paths[place * len(paths) // number] for place in range(number)]


def _priority(place: int, number: int) -> int:
    """9 for the biggest ninth … 1 for the smallest."""
    return 9 - (place - 1) * 9 // number


class Measure(NamedTuple):
    """A file's lines, as `wc -l` counts them, its bytes, and its SHA-256."""

    lines: int
    bytes: int
    sha256: str

    def __str__(self) -> str:
        """What an executor saves of a file."""
        return f"{self.lines} {self.bytes} {self.sha256}"


def measure(path: Path) -> Measure:
    """Count and hash a file."""
    lines = size = 0
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            lines += block.count(b"\n")
            size += len(block)
            digest.update(block)
    return Measure(lines, size, digest.hexdigest())


class Recount(NamedTuple):
    """The coordinator's own count, and what is wrong with the executors' (nothing, when it is empty)."""

    lines: int
    bytes: int
    wrong: list[str]


def recount(plan: Plan, results: Mapping[str, Mapping[str, str]]) -> Recount:
    """Count every file again, and compare with what the executors saved (agent → task id → measure)."""
    right = {task.id: _measured(task.path) for task in plan.tasks}
    wrong = [problem for task in plan.tasks if (problem := _compared(task, right[task.id], results))]
    wrong += [f"{agent} did {id}, which is no task" for agent, did in results.items() for id in did if id not in right]
    counted = [each for each in right.values() if each]
    return Recount(sum(each.lines for each in counted), sum(each.bytes for each in counted), wrong)


def _measured(path: Path) -> Measure | None:
    try:
        return measure(path)
    except OSError:
        return None


def _compared(task: Task, right: Measure | None, results: Mapping[str, Mapping[str, str]]) -> str | None:
    saved = {agent: did[task.id] for agent, did in results.items() if task.id in did}
    if right is None:
        return f"{task.path} can't be read any more"
    if len(saved) != 1:
        return f"{task.path} was done by {' and '.join(saved) or 'nobody'}"
    ((agent, value),) = saved.items()
    return None if value == str(right) else f"{task.path} is {right}, but {agent} saved {value}"
