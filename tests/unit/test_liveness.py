"""Whether a process runs: by threads at once, and after it ended."""

import contextlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bus import liveness
from bus.liveness import Life
from tests.descriptors import descriptors
from tests.namespaces import unshared


def test_threads_may_ask_after_the_same_process_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold one lease between them, say, and each asks whether its holder lives."""
    monkeypatch.setattr(liveness, "_watched", {})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        here = liveness.identity(process.pid)
        assert liveness.glance(here) is Life.ALIVE
        assert here in liveness._watched

        def ask(_: int) -> set[Life]:
            return {liveness.glance(here) for _ in range(10_000)}

        with ThreadPoolExecutor(4) as pool:
            assert set().union(*pool.map(ask, range(4))) == {Life.ALIVE}
    assert liveness.glance(here) is Life.DEAD
    assert here not in liveness._watched


def test_of_many_processes_a_few_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "_watched", {})
    monkeypatch.setattr(liveness, "WATCHED", 2)
    before = descriptors()
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            process = stack.enter_context(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
            assert liveness.glance(liveness.identity(process.pid)) is Life.ALIVE
        assert len(liveness._watched) == 2
        liveness._watched.clear()
    assert descriptors() == before


@pytest.mark.parametrize("name", ["work", "a b", "a) Z (b", ")"])
def test_the_name_of_a_process_says_nothing_of_its_life(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    fields = ["S", *map(str, range(4, 22)), "4711", *map(str, range(23, 53))]
    monkeypatch.setattr(liveness, "read", lambda path: f"12 ({name}) {' '.join(fields)}\n".encode())
    assert liveness.started_at(12) == 4711


# --- where nothing can be told of it


def test_where_no_boot_is_told_nobody_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no /proc (in a chroot), or one without /proc/sys (ProcSubset=pid of systemd)."""
    here = liveness.identity(os.getpid())
    monkeypatch.setattr(liveness, "boot_id", lambda: None)
    assert liveness.life(here) is Life.UNKNOWN


def test_a_process_that_is_hidden_is_not_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """/proc may be mounted with hidepid: it shows nothing of others' processes, nor of ours with another group."""
    here = liveness.identity(os.getpid())
    monkeypatch.setattr(liveness, "PROC", str(tmp_path))
    assert liveness.life(here) is Life.UNKNOWN
    assert [liveness.life(here._replace(pid=pid)) for pid in (-1, 0, 2**22 + 1, 2**40)] == [Life.DEAD] * 4


@pytest.mark.parametrize("how", [["-p"], ["-T", "--boottime", "1000"]])
def test_a_process_is_not_judged_by_what_another_namespace_tells(how: list[str]) -> None:
    """`unshare -p` alone leaves the /proc of the processes outside; start times are moved by a time namespace."""
    script = """import sys
from bus.liveness import Identity, identity, life
print(life(Identity(*eval(sys.argv[1]))), life(identity(1)) if "-p" in sys.argv else "unknown")"""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        given = repr(tuple(liveness.identity(process.pid)))
        command = [*unshared("-f", *how), sys.executable, "-c", script, given, *how]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "unknown unknown\n"
