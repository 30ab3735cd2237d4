"""A bus file that can't be used, a disk that is full, an output that is closed: the same answer at every door."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from bus import Bus
from tests.clients.conftest import FUNCTIONS
from tests.store.test_files import broken, read_only

Door = Callable[[Path], "subprocess.CompletedProcess[str]"]
LIBRARY = """
import sys
from bus import Bus, BusError
try:
    with Bus.open(sys.argv[1]) as bus:
        bus.state_save("a", "k", "x" * 400_000)
except BusError as problem:
    print(f"bus: {problem}", file=sys.stderr)
    sys.exit(problem.exit_status)
"""
DOCTOR = [sys.executable, "-m", "bus_cli", "doctor", "--bus"]
DOORS = ["library", "command line", "shell by sqlite3", "shell by bus"]


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Door:
    """Saves a large value into a bus, through one of the doors."""
    command = tmp_path / "bus-command"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bus_cli "$@"\n')
    command.chmod(0o700)
    monkeypatch.setenv("BUS_COMMAND", str(command))
    monkeypatch.setenv("BUS_SHELL_VIA", request.param.rpartition(" ")[2])
    piece = "$(printf 'x%.0s' {1..30000})"
    shell = f'source "{FUNCTIONS}"; for n in {{1..14}}; do save_agent_state a k$n "{piece}" || exit; done'
    commands = {
        "library": [sys.executable, "-c", LIBRARY],
        "command line": [sys.executable, "-m", "bus_cli", "state", "save", "a", "k", "-", "--bus"],
    }

    def save(path: Path) -> "subprocess.CompletedProcess[str]":
        arguments = [*commands[request.param], str(path)] if request.param in commands else ["bash", "-c", shell]
        environment = {**os.environ, "BUS_URL": str(path)}
        return subprocess.run(
            arguments, input="x" * 400_000, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return save


def refused(done: "subprocess.CompletedProcess[str]", status: int) -> None:
    assert done.returncode == status, done
    assert done.stderr.startswith("bus: "), done
    assert done.stderr.count("\n") == 1, done
    assert done.stdout == "", done


def test_a_missing_file(door: Door, tmp_path: Path) -> None:
    refused(door(tmp_path / "missing.db"), 66)
    assert not (tmp_path / "missing.db").exists()


SCENES = {
    "text": 66,
    "folder": 66,
    "fifo": 66,
    "newer": 66,
    "foreign": 66,
    "symbolic link": 66,
    "hard link": 66,
    "damaged": 70,
}
if not os.geteuid():
    SCENES["other owner"] = 66  # only root can give a file away


@pytest.mark.parametrize("scene", SCENES)
def test_what_is_no_sound_bus(door: Door, tmp_path: Path, scene: str) -> None:
    broken(tmp_path / "coordination.db", scene)
    refused(door(tmp_path / "coordination.db"), SCENES[scene])


def test_a_read_only_folder(door: Door, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    Bus.open(str(folder / "coordination.db"), create=True).close()
    with read_only(folder):
        refused(door(folder / "coordination.db"), 66)
    assert door(folder / "coordination.db").returncode == 0


def fill(disk: Path) -> None:
    """Leave no room on a disk."""
    with suppress(OSError), (disk / "fill").open("ab", 0) as file:
        while file.write(b"x" * 1024):
            pass


def test_a_full_disk(door: Door, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        return  # only root can mount a small disk
    try:
        Bus.open(str(small / "coordination.db"), create=True).close()
        fill(small)
        refused(door(small / "coordination.db"), 75)  # there is no room to open it
        (small / "fill").unlink()
        refused(door(small / "coordination.db"), 75)
        with Bus.open(str(small / "coordination.db")) as bus:
            assert all(len(value.state_value) == 30000 for value in bus.state_list("a"))
        fill(small)
        refused(door(small / "coordination.db"), 75)
        told = subprocess.run([*DOCTOR, small / "coordination.db"], capture_output=True, text=True, check=False)
        assert told.returncode == (75 if told.stderr else 70)  # a WAL that is there already it opens
        assert "the disk is full" in told.stdout + told.stderr
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        assert door(small / "coordination.db").returncode == 0
        with Bus.open(str(small / "coordination.db")) as bus:
            room = {finding.verdict for finding in bus.doctor() if finding.subject == "room"}
            assert room == {"ok"}
            fill(small)
            assert {finding.verdict for finding in bus.doctor() if finding.subject == "room"} == {"fault"}
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize("via", ["sqlite3", "bus"])
def test_a_shell_whose_wait_is_interrupted_says_so_in_one_line(url: str, tmp_path: Path, via: str) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
    script = f'source "{FUNCTIONS}"; receive_agent_message a 1m 60'
    command = tmp_path / "bus-command"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bus_cli "$@"\n')
    command.chmod(0o700)
    environment = {**os.environ, "BUS_URL": url, "BUS_COMMAND": str(command), "BUS_SHELL_VIA": via}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        ["bash", "-c", script], env=environment, stdout=pipe, stderr=pipe, process_group=0
    ) as process:
        while not os.path.exists(f"{url}.bells/a"):
            os.sched_yield()
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert process.returncode in (130, -signal.SIGINT)
    assert out == b""
    assert errors.count(b"\n") == 1
    assert errors.startswith(b"bus: interrupted")
