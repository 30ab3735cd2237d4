"""Each fault programme at quick size, and each defect that it must find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.programmes import NAMES, programme

TREE = Path(__file__).resolve().parents[2]


def faults(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `bin/faults` in a process of its own, which holds no bus and no thread of the tests."""
    command = [sys.executable, "-m", "tests.faults", *arguments]
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost(name: str) -> None:
    done = faults(name, "quick")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--seed" in done.stdout
    assert "held" in done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_planted_defects_are_found(name: str) -> None:
    done = faults(name, "--controls")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("found:") == len(programme(name).CONTROLS) > 0


def test_the_programmes_are_listed() -> None:
    done = faults()
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in NAMES)


def test_a_seed_replays_a_run() -> None:
    assert "bin/faults kill 5 --seed 7" in faults("kill", "5", "--seed", "7").stdout
