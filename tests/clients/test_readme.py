"""README's tours, as they are typed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bus import Bus

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def block(section: str, language: str, number: int = 0) -> str:
    """A block of code of a section of README."""
    found = re.findall(
        rf"```{language}\n(.*?)```", README.partition(f"\n## {section}\n")[2].partition("\n## ")[0], re.S
    )
    return str(found[number])


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `bus` is on the path, as after `pip install`."""
    command = tmp_path / "bin" / "bus"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bus_cli "$@"\n')
    command.chmod(0o700)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("BUS_COMMAND", str(command))
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def bash(script: str) -> str:
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_the_tour_for_shell_agents(typed: Path) -> None:
    told = bash(block("A tour for shell agents", "bash")).splitlines()
    assert told[0].endswith("/.milestones/coordination.db")
    assert told[1:4] == ["1", "2", "Sketch it"]
    assert told[-3:-1] == ["spec", "done"]
    step = block("A tour for shell agents", "bash", 1)
    bash("bus send executor-1 task_assignment '{}' --from coordinator-1; bus receive executor-1")
    assert bash(step.replace("42.1", "3.1")).count("\n") == 3
    with Bus.open() as bus:
        assert [bus.message(id).status for id in (1, 2, 3, 4)] == ["acknowledged"] * 3 + ["ready"]


def test_the_tour_for_python_agents(typed: Path) -> None:
    with Bus.open(create=True) as bus:
        bus.register("boss", type="milestone-coordinator", session="session-1")
        id = bus.send("boss", "executor-2", "task_assignment", {"n": 2})
        names: dict[str, Any] = {"work": lambda payload: str(payload["n"] * 21)}
        exec(block("A tour for Python agents", "python").replace('wait="10m"', "wait=0"), names)
        assert (bus.message(id).status, bus.state_load("executor-2", "result")) == ("acknowledged", "42")
        assert [message.payload for message in bus.pending("boss")] == [{"progress": 100}]
        (checkpoint,) = bus.checkpoint_list("executor-2")
        assert checkpoint.state_snapshot == {"at": id}


def test_each_command_that_is_named_is_one() -> None:
    from bus_cli.main import COMMANDS

    named = set(re.findall(r"^\$ bus ([a-z]+)", README, re.M)) | set(re.findall(r"`bus ([a-z]+)[ `]", README))
    assert named <= set(COMMANDS)


def test_a_client_needs_the_files_of_schemas_alone(typed: Path) -> None:
    with Bus.open(create=True) as bus:
        for agent in ("ann", "bob"):
            bus.register(agent, type="validation", session="s")
        (script,) = re.findall(r"```bash\n(.*?)```", (ROOT / "schemas/README.md").read_text("utf-8"), re.S)
        place = typed / ".milestones/coordination.db"
        sent, taken, acknowledged = bash(f"export BUS_URL={place}; cd {ROOT}/schemas; {script}").splitlines()
        assert (sent, acknowledged) == ("1|bob", "1")
        assert json.loads(taken.split("|", 2)[2])["receipt"] == "1.1"
        assert bus.message(1).status == "acknowledged"
