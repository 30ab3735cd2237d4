"""Going back to a copy of a bus: whatever was there before, none of it is left in the way, and none of it is lost."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from bus import Bus
from bus.store import sqlite as store
from tests.conformance.refusal import refused
from tests.conftest import listening
from tests.store.test_files import broken

KILLED = """
import os, signal, sys
from bus import Bus
bus = Bus.open(sys.argv[1])
for number in range(300):
    bus.send("a", "a", "task_assignment", {"title": str(number)})
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def copy(url: str, tmp_path: Path) -> str:
    """A copy of a bus with an agent and a value, at the time when that was all."""
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        bus.state_save("a", "k", "then")
        bus.backup(path := str(tmp_path / "copy.db"))
    return path


def test_what_a_killed_writer_left_in_the_wal_does_not_come_back(url: str, copy: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, url], check=False)
    assert os.path.getsize(f"{url}-wal")
    aside = Bus.restore(copy, url)
    with Bus.open(url) as bus:
        assert (bus.status()["messages"], bus.state_load("a", "k")) == ({}, "then")
        assert "fault" not in {finding.verdict for finding in bus.doctor()}
        assert bus.send("a", "a", "task_assignment", {}) == 1
    with Bus.open(aside) as before:
        assert before.status()["messages"] == {"ready": 300}


@pytest.mark.parametrize("scene", ["damaged", "text", "foreign"])
def test_what_is_there_need_not_be_sound(url: str, copy: str, scene: str) -> None:
    Path(url).unlink()
    broken(Path(url), scene)
    before = Path(url).read_bytes()
    aside = Bus.restore(copy, url)
    assert aside
    assert Path(aside).read_bytes() == before
    with Bus.open(url) as bus:
        assert bus.state_load("a", "k") == "then"


def test_where_nothing_is_the_copy_goes_too(url: str, copy: str, tmp_path: Path) -> None:
    assert Bus.restore(copy, str(tmp_path / "new" / "x.db")) is None
    with Bus.open(str(tmp_path / "new" / "x.db")) as bus:
        assert bus.state_load("a", "k") == "then"


def test_who_has_the_bus_open_is_told(url: str, copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOOK", 0.0)
    with Bus.open(url) as bus, ThreadPoolExecutor(1) as thread:
        with listening() as listens:
            waiting = thread.submit(bus.receive, "a", wait=60)
            assert listens.wait(20)
        Bus.restore(copy, url)
        with Bus.open(url) as other:
            other.send("a", "a", "task_assignment", {})
        with refused("no_bus", 66):
            waiting.result(30)
        with refused("no_bus", 66):
            bus.state_save("a", "k", "lost")
    with Bus.open(url) as bus:
        assert bus.state_load("a", "k") == "then"


@pytest.mark.parametrize(
    ("scene", "code", "status"),
    [("missing", "no_bus", 66), ("text", "not_a_bus", 66), ("foreign", "not_a_bus", 66), ("damaged", "damaged", 70)],
)
def test_what_is_no_sound_copy_changes_nothing(url: str, tmp_path: Path, scene: str, code: str, status: int) -> None:
    with Bus.open(url) as bus:
        bus.state_save("a", "k", "now")
    wrong = tmp_path / "wrong.db"
    if scene != "missing":
        broken(wrong, scene)
    with refused(code, status):
        Bus.restore(str(wrong), url)
    with Bus.open(url) as bus:
        assert bus.state_load("a", "k") == "now"


def test_nothing_is_left_of_it_and_each_former_one_is_kept(url: str, copy: str, tmp_path: Path) -> None:
    Path(f"{url}.restored").write_text("of one that was killed")
    for number in (1, 2):
        assert Bus.restore(copy, url) == f"{url}.aside-{number}"
    with Bus.open(url) as bus:
        assert bus.state_load("a", "k") == "then"
    assert {path.name for path in tmp_path.iterdir()} == {
        "copy.db", "coordination.db", "coordination.db.turn", "coordination.db.aside-1", "coordination.db.aside-2",
    }  # fmt: skip


def test_what_is_no_file_is_not_moved_aside(copy: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(copy)
    for name, code in (("folder", "not_a_bus"), ("link", "unsafe_file")):
        with refused(code, 66):
            Bus.restore(copy, str(tmp_path / name))
    assert (tmp_path / "folder").is_dir()
    assert (tmp_path / "link").is_symlink()


def test_a_copy_with_a_wal_is_read_with_it(url: str, copy: str) -> None:
    subprocess.run([sys.executable, "-c", KILLED, copy], check=False)
    Bus.restore(copy, url)
    with Bus.open(url) as bus:
        assert bus.status()["messages"] == {"ready": 300}


def test_a_copy_whose_pages_are_damaged_changes_nothing(url: str, copy: str) -> None:
    with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as hand:
        (root,) = hand.execute("select rootpage from sqlite_schema where name = 'agent_checkpoints'").fetchone()
    with open(copy, "r+b") as pages:  # the schema is sound
        pages.seek((root - 1) * 1024)
        pages.write(b"\xff" * 1024)
    with refused("damaged", 70):
        Bus.restore(copy, url)
    with Bus.open(url) as bus:
        assert bus.state_load("a", "k") == "then"


@pytest.mark.parametrize("place", [":memory:", "postgresql://localhost/nowhere"])
def test_only_a_file_is_restored(copy: str, place: str) -> None:
    with refused("usage", 64):
        Bus.restore(copy, place)


def test_the_command_says_where_what_was_there_is_now(url: str, copy: str) -> None:
    command = [sys.executable, "-m", "bus_cli", "restore", copy, "--bus", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"restored from {copy}; what was there is {url}.")
    assert os.path.exists(done.stdout.rpartition(" ")[2].strip())
