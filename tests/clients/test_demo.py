"""`bus demo` on a small folder, and the count that judges it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bus_cli.demonstration.plan import Plan, measure, recount

from bus import Bus

NAMES = ["plain", "with space", "quote's", "dollar $(x) `y`", "é\U0001f600", "-dash", "*", "percent %s"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    for number in range(24):
        name = NAMES[number] if number < len(NAMES) else f"file{number}"
        (made / name).write_text("line\n" * number * 7, "utf-8")
    return made


def demo(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "bus_cli.main", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def test_every_file_is_done_once_and_the_killed_executors_message_by_another(folder: Path) -> None:
    done = demo(str(folder), "--json")
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert (found["files"], found["verified"], found["killed"]) == (24, True, "executor-3")
    assert sum(found["by_agent"].values()) == 24
    assert found["finished_by"] in ("executor-1", "executor-2")


def test_the_commands_it_tells_to_try_next_work(folder: Path) -> None:
    done = demo(str(folder))
    assert done.returncode == 0, done
    assert "every file exactly once" in done.stdout
    tries = [line for line in done.stdout.splitlines() if " --bus " in line]
    assert len(tries) == 3
    for line in tries:
        arguments = line.partition(" --bus ")[2].partition("  #")[0].split()
        subprocess.run([sys.executable, "-m", "bus_cli.main", "--bus", *arguments], check=True, capture_output=True)
    with Bus.open(tries[0].partition(" --bus ")[2].split()[0]) as bus:
        (twice,) = [message for message in bus.messages(limit=1000) if message.retry_count]
        assert twice.status == "acknowledged"
        assert twice.receipt == f"{twice.id}.2"
        assert set(bus.status()["messages"]) == {"acknowledged"}


def test_the_count_finds_what_is_missing_double_wrong_or_unknown(folder: Path) -> None:
    plan = Plan.of(str(folder))
    right = {task.id: measure(task.path) for task in plan.tasks}
    first = plan.tasks[0].id
    assert recount(plan, {"x": right, "y": {}}) == []
    assert len(recount(plan, {"x": {k: v for k, v in right.items() if k != first}})) == 1
    assert len(recount(plan, {"x": right, "y": {first: right[first]}})) == 1
    assert len(recount(plan, {"x": {**right, first: "0 abc"}})) == 1
    assert len(recount(plan, {"x": {**right, "999": "0 abc"}})) == 1


def test_a_folder_without_files_is_said_plainly(tmp_path: Path) -> None:
    done = demo(str(tmp_path))
    assert done.returncode == 64
    assert done.stderr.startswith("bus: there are no files")
