"""What the tests of bus.sh share: both of its ways, in real shells."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bus import Bus

FUNCTIONS = Path(__file__).resolve().parents[2] / "clients" / "shell" / "bus.sh"
Shell = Callable[..., str]


@pytest.fixture(params=["sqlite3", "bus"])
def shell(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs a script in which the functions are there and the bus has agents boss, one and two; what it prints.

    Its exit status must be `status`; above 1 there must be one line of error, else none.
    """
    command = tmp_path / "bus-command"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bus_cli "$@"\n')
    command.chmod(0o700)
    monkeypatch.setenv("BUS_COMMAND", str(command))
    monkeypatch.setenv("BUS_SHELL_VIA", request.param)
    assert request.param == "bus" or shutil.which("sqlite3"), "without sqlite3 both ways would be one"
    with Bus.open(create=True) as bus:
        bus.register("boss", type="milestone-coordinator", session="s", milestone="m")
        bus.register("one", type="milestone-executor", session="s")
        bus.register("two", type="milestone-executor", session="s")

    def run(script: str, *arguments: str, status: int = 0) -> str:
        whole = f'set -euo pipefail\nsource "{FUNCTIONS}"\n{script}'
        done = subprocess.run(["bash", "-c", whole, "test", *arguments], capture_output=True, check=False)
        out, errors = done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode()
        assert done.returncode == status, (out[:500], errors)
        assert bool(errors) == (status > 1), errors
        if status > 1:
            assert errors.startswith("bus: "), errors
            assert errors.count("\n") == 1, errors
        return out

    return run


@pytest.fixture
def bus(shell: Shell) -> Iterator[Bus]:
    """The bus of the scripts, from Python."""
    with Bus.open() as opened:
        yield opened
