"""The bus file on its disk: who may open what, and what happens when the disk is in the way."""

import asyncio
import gc
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bus_client import Agent, AsyncAgent

from bus import AsyncBus, Bus, BusError, clock, messages, schemas
from bus.errors import error
from bus.store import facts, sqlite_schema
from bus.store import sqlite as store
from bus.store.url import parse
from tests.conformance.refusal import refused
from tests.conftest import listening
from tests.descriptors import descriptors
from tests.namespaces import after


def python(code: str, *arguments: object, before: Sequence[str] = (), **options: object) -> "subprocess.Popen[str]":
    """A real process that runs some code, with `url` as its first argument; `before` is a command that starts it."""
    command = [*before, sys.executable, "-c", f"import sys; from bus import Bus, BusError; url = sys.argv[1]\n{code}"]
    return subprocess.Popen([*command, *map(str, arguments)], text=True, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload, no-any-return]


def output(process: "subprocess.Popen[str]") -> str:
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    return text.strip()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with Bus.open(str(tmp_path / "above" / "new" / "coordination.db"), create=True) as bus:
            bus.register("a", type="validation", session="s")
            for folder in (tmp_path / "above", tmp_path / "above" / "new"):
                assert folder.stat().st_mode & 0o777 == 0o700
            assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    finally:
        os.umask(before)


def test_a_path_is_an_address_whatever_is_in_it(tmp_path: Path) -> None:
    odd = tmp_path / "postgresql:" / "a?b=c.db"
    with Bus.open(odd, create=True) as bus:
        bus.backup(tmp_path / "copy")
        with Agent("a", type="validation", session="s", bus=odd):
            assert [agent.agent_id for agent in bus.agents()] == ["a"]
    assert odd.exists()
    Bus.restore(tmp_path / "copy", odd)

    async def main() -> None:
        async with AsyncAgent("b", type="validation", session="s", bus=odd) as agent:
            assert [agent.agent_id for agent in await agent.bus.agents()] == ["b"]

    asyncio.run(main())


@pytest.mark.parametrize("wrong", [5, b"x.db", ["x.db"], object()])
def test_what_is_neither_text_nor_a_path_is_no_address(wrong: Any) -> None:
    with refused("usage", 64):
        Bus.open(wrong)
    with refused("usage", 64):
        Agent("a", type="validation", session="s", bus=wrong)


def test_a_bus_of_the_other_colour_is_no_address(url: str) -> None:
    async def main() -> None:
        with Bus.open(url) as bus, refused("usage", 64):
            async with AsyncAgent("a", type="validation", session="s", bus=bus):  # type: ignore[arg-type]
                pytest.fail("the agent began")
        async with await AsyncBus.open(url) as other:
            with refused("usage", 64):
                Agent("a", type="validation", session="s", bus=other)  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize("length", [248, 255, 256])
def test_a_name_that_is_too_long_for_the_files_beside_it_makes_none(tmp_path: Path, length: int) -> None:
    with refused("no_bus", 66):
        Bus.open(str(tmp_path / ("x" * length)), create=True)
    assert list(tmp_path.iterdir()) == []
    Bus.open(str(tmp_path / ("x" * 247)), create=True).close()


def test_many_processes_may_make_the_same_bus(tmp_path: Path) -> None:
    code = "bus = Bus.open(url, create=True); bus.register(sys.argv[2], type='validation', session='s')"
    processes = [python(code, tmp_path / "x" / "coordination.db", f"agent-{n}") for n in range(6)]
    for process in processes:
        output(process)
    with Bus.open(str(tmp_path / "x" / "coordination.db")) as bus:
        assert bus.session_show("s").agent_count == 6


def test_a_creation_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    (tmp_path / "coordination.db").touch(0o600)
    with Bus.open(str(tmp_path / "coordination.db")) as bus:
        assert bus.agents() == []


def test_where_there_is_no_bus_there_is_none(tmp_path: Path) -> None:
    with refused("no_bus", 66):
        Bus.open(str(tmp_path / "missing.db"))
    with refused("no_bus", 66):
        Bus.open()
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_bus_above_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bus.open(create=True).close()
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with Bus.open() as bus:
        assert bus.url.path == str(tmp_path / ".milestones" / "coordination.db")


def test_a_link_to_nowhere_is_no_reason_to_look_further_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Bus.open(create=True).close()
    (tmp_path / "below" / ".milestones").mkdir(parents=True)
    (tmp_path / "below" / ".milestones" / "coordination.db").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "below")
    with refused("unsafe_file", 66):
        Bus.open()


@pytest.mark.parametrize(
    ("text", "path"),
    [("x.db", "x.db"), ("sqlite:///x.db", "x.db"), ("sqlite:////tmp/x%20y.db", "/tmp/x y.db"), ("/a?b.db", "")],
)
def test_addresses(text: str, path: str, tmp_path: Path) -> None:
    if not path:
        with refused("usage", 64):
            parse(text)
    else:
        assert parse(text).path == (path if path.startswith("/") else str(tmp_path / path))


@pytest.mark.parametrize(
    "text", ["mysql://x", "sqlite://x", "sqlite:x", "x.db?mode=rw", "x.db?synchronous=off", "?a=b"]
)
def test_what_is_no_address_is_usage(text: str) -> None:
    with refused("usage", 64):
        parse(text)


def broken(path: Path, kind: str) -> str:
    """Make something at `path` that is no bus to be used; the code that says so."""
    if kind == "text":
        path.write_text("not a database, but long enough to be read as the head of one " * 20)
        return "not_a_bus"
    if kind == "folder":
        path.mkdir()
        return "not_a_bus"
    if kind == "fifo":
        os.mkfifo(path)
        return "not_a_bus"
    Bus.open(str(path), create=True).close()
    with sqlite3.connect(path) as connection:
        if kind == "newer":
            connection.execute("pragma user_version = 999")
        elif kind == "foreign":
            connection.execute("pragma application_id = 1")
    connection.close()
    if kind == "hard link":
        os.link(path, path.with_suffix(".other"))
    elif kind == "symbolic link":
        path.rename(path.with_suffix(".real"))
        path.symlink_to(path.with_suffix(".real"))
    elif kind == "other owner":
        os.chown(path, 12345, 12345)
    elif kind == "damaged":
        data = bytearray(path.read_bytes())
        data[4096:] = b"\x55" * (len(data) - 4096)
        path.write_bytes(data)
    return {"newer": "newer_bus", "foreign": "not_a_bus", "damaged": "damaged"}.get(kind, "unsafe_file")


KINDS = ["text", "folder", "fifo", "newer", "foreign", "hard link", "symbolic link", "other owner", "damaged"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_bus_is_refused_with_a_reason(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "coordination.db"
    if kind == "other owner" and os.geteuid():
        kind = "hard link"  # only root can give a file away
    code = broken(path, kind)
    with refused(code), Bus.open(str(path)) as bus:
        bus.agents()


def test_another_applications_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table theirs (x)")
    connection.close()
    before = path.read_bytes()
    with refused("not_a_bus", 66):
        Bus.open(str(path), create=True)
    assert path.read_bytes() == before


def test_a_write_that_fails_at_the_commit_is_of_unknown_outcome_and_the_next_one_works(url: str) -> None:
    code = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
bus = Bus.open(url)
bus.register("a", type="validation", session="s")
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
sent = 0
try:
    while sent < 1000:
        bus.send("a", "a", "task_assignment", {"title": "x" * 5000})
        sent += 1
except BusError as problem:
    print(problem.code, end=" ")
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert sum(bus.status()["messages"].values()) == sent
bus.send("a", "a", "task_assignment", {})
print(bus.status()["messages"]["ready"] == sent + 1)
"""
    assert output(python(code, url)) == "outcome_unknown True"


def test_a_disk_that_fails_before_the_commit_has_stored_nothing_and_says_so(url: str) -> None:
    with Bus.open(url) as bus:
        connection = bus.store.connection()
        assert isinstance(connection, store.Connection)
        execute = connection.execute

        def failing(sql: str, *values: Any) -> sqlite3.Cursor:
            if "agent_state" in sql:
                problem = sqlite3.OperationalError("disk I/O error")
                problem.sqlite_errorcode = sqlite3.SQLITE_IOERR
                raise problem
            return execute(sql, *values)

        connection.execute = failing
        with refused("io_error", 70):
            bus.state_save("a", "k", "v")
        assert bus.state_load("a", "k") is None
        assert bus.state_save("a", "k", "v") == 1


def test_a_full_file_system_is_said_plainly(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", small], check=False, capture_output=True
    )
    if mounted.returncode:  # not root: only the file size limit above can be tested
        return
    try:
        with Bus.open(str(small / "coordination.db"), create=True) as bus:
            bus.register("a", type="validation", session="s")
            sent = 0
            with refused("disk_full", 75):
                for _ in range(1000):
                    bus.send("a", "a", "task_assignment", {"title": "x" * 5000})
                    sent += 1
            assert bus.status()["messages"] == {"ready": sent}
            subprocess.run(["mount", "-o", "remount,size=4m", small], check=True)
            bus.send("a", "a", "task_assignment", {})
            assert bus.status()["messages"] == {"ready": sent + 1}
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_path_may_begin_with_two_slashes(tmp_path: Path) -> None:
    Bus.open(f"/{tmp_path}/new/x.db", create=True).close()
    with Bus.open(f"/{tmp_path}/new/x.db") as bus:
        bus.state_save("a", "k", "v")
        bus.backup(f"/{tmp_path}/copy.db")
    with Bus.open(str(tmp_path / "copy.db")) as copy:
        assert copy.state_load("a", "k") == "v"


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_nobody_goes_on_in_a_file_that_others_no_longer_find(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(store, "LOOK", 0.0)
    with Bus.open(url) as bus, ThreadPoolExecutor(1) as thread:
        bus.register("a", type="validation", session="s")
        with listening() as listens:
            waiting = thread.submit(bus.receive, "a", wait=60)
            assert listens.wait(20)
            for name in ("coordination.db", "coordination.db-wal", "coordination.db-shm"):
                os.rename(tmp_path / name, tmp_path / f"{name}.old")
            if how == "replaced":
                Bus.open(url, create=True).close()
            os.utime(f"{url}.bells/a")
            with refused("no_bus", 66):
                waiting.result(30)
        with refused("no_bus", 66):
            bus.send("a", "a", "task_assignment", {})
        for name in ("coordination.db", "coordination.db-wal", "coordination.db-shm"):
            os.replace(tmp_path / f"{name}.old", tmp_path / name)
        assert bus.send("a", "a", "task_assignment", {}) == 1


def test_a_child_has_connections_of_its_own(url: str) -> None:
    code = """
import os
bus = Bus.open(url)
bus.register("a", type="validation", session="s")
child = os.fork()
for n in range(20):
    bus.send("a", "a", "task_assignment", {})
if not child:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(bus.status()["messages"]["ready"])
"""
    assert output(python(code, url)) == "40"


def test_a_copy_is_made_while_the_bus_is_used(url: str, tmp_path: Path) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        bus.backup(str(tmp_path / "copy.db"))
        with refused("usage", 64):
            bus.backup(str(tmp_path / "copy.db"))
    with Bus.open(str(tmp_path / "copy.db")) as copy:
        assert [agent.agent_id for agent in copy.agents()] == ["a"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["copy.db", "below/further/copy.db"])
def test_a_copy_may_be_named_as_seen_from_here(url: str, path: str, tmp_path: Path) -> None:
    with Bus.open(url) as bus:
        bus.state_save("a", "k", "v")
        bus.backup(path)
    assert {folder.stat().st_mode & 0o777 for folder in (tmp_path / path).parents[: path.count("/")]} <= {0o700}
    with Bus.open(str(tmp_path / path)) as copy:
        assert copy.state_load("a", "k") == "v"


def test_a_copy_is_made_where_connections_are_traced(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry's instrumentation of sqlite3 does it."""

    class Proxy:
        def __init__(self, *given: Any, **named: Any) -> None:
            self.__dict__["traced"] = sqlite3.Connection(*given, **named)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.traced, name)

        def __setattr__(self, name: str, value: object) -> None:
            setattr(self.traced, name, value)

    monkeypatch.setattr(sqlite3, "connect", Proxy)
    with Bus.open(url) as bus:
        bus.backup(str(tmp_path / "copy.db"))
        assert Bus.restore(str(tmp_path / "copy.db"), str(tmp_path / "restored.db")) is None


def test_a_copy_that_fails_leaves_no_file(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str) -> sqlite3.Connection:
        raise sqlite3.OperationalError("the disk has gone")

    with Bus.open(url) as bus:
        with monkeypatch.context() as patch:
            patch.setattr(store, "_target", fails)
            with refused("fault", 70):
                bus.backup(str(tmp_path / "copy.db"))
        assert not (tmp_path / "copy.db").exists()
        bus.backup(str(tmp_path / "copy.db"))


@pytest.mark.parametrize(
    ("version", "verdict"),
    [
        *(((3, *rest), "ok") for rest in ((51, 3), (51, 4), (53, 0), (44, 6), (50, 7))),
        *(((3, *rest), "warning") for rest in ((38, 0), (44, 5), (44, 7), (50, 8), (51, 2), (52, 0))),
    ],
)
def test_the_doctor_knows_which_libraries_have_the_wal_reset_bug(
    version: tuple[int, int, int], verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", version)
    assert facts._library()[:2] == ("library", verdict)


def test_the_wal_stays_small(url: str) -> None:
    with Bus.open(f"{url}?synchronous=normal") as bus:
        bus.register("a", type="validation", session="s")
        largest = 0
        for _ in range(2500):
            bus.send("a", "a", "task_assignment", {"title": "x" * 2000})
            largest = max(largest, os.stat(f"{url}-wal").st_size)
    assert store.WAL_LIMIT < largest < 2 * store.WAL_LIMIT


@pytest.mark.parametrize("problem", [error("busy"), OSError(5, "Input/output error")])
def test_a_checkpoint_that_has_to_wait_too_long_or_fails_fails_nothing(
    url: str, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is sent; the next commits try again."""
    tried = []

    def busy(connection: store.Connection) -> None:
        tried.append(connection)
        raise problem

    monkeypatch.setattr(store, "WAL_LIMIT", 1)
    monkeypatch.setattr(store.Connection, "checkpoint", busy)
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        sent = [bus.send("a", "a", "task_assignment", {}) for _ in range(20)]
        assert len(tried) > 1
        assert not {connection for connection in tried if not connection.has_no_turn()}
        assert [message.id for message in bus.pending("a")] == sent
        before = len(tried)
        assert bus.monitor_check().failed == []
        assert len(tried) > before


@pytest.mark.parametrize("where", ["inside a transaction", "at the turnstile"])
def test_a_stopped_writer_makes_others_busy_and_no_more(url: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hold = {
        "inside a transaction": "bus.store.connection().sqlite.execute('begin immediate')",
        "at the turnstile": "bus.store.connection()._turnstile.enter(1)",
    }[where]
    process = python(f"bus = Bus.open(url); {hold}; print('held', flush=True); input()", url, stdin=subprocess.PIPE)
    with process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(store, "TIMEOUT", 0.2)
        with Bus.open(url) as bus:
            with refused("busy", 75):
                bus.register("a", type="validation", session="s")
            assert bus.agents() == []
            subject = {"inside a transaction": "writer", "at the turnstile": "turn"}[where]
            found = {finding.subject: finding for finding in bus.doctor()}
            assert found[subject].verdict == "fault"
            assert f"process {process.pid} holds" in found[subject].details
            assert f"kill -CONT {process.pid}" in found[subject].details
            process.kill()
            process.wait()
            bus.register("a", type="validation", session="s")


# --- waking up

WAIT = "print('waiting', flush=True); print(Bus.open(url).receive('b', wait=20)[0].payload['phase'])"


@pytest.fixture
def waiting(url: str) -> "subprocess.Popen[str]":
    """A process that waits for a message to agent b."""
    with Bus.open(url) as bus:
        bus.register("a", type="milestone-executor", session="s")
        bus.register("b", type="milestone-executor", session="s")
    process = python(WAIT, url)
    assert process.stdout
    assert process.stdout.readline() == "waiting\n"
    return process


def listens(url: str, bell: str = "b") -> None:
    """Wait until somebody listens at a bell."""
    while not os.path.exists(f"{url}.bells/{bell}"):
        os.sched_yield()


def test_a_waiting_receiver_is_woken_by_a_send(url: str, waiting: "subprocess.Popen[str]") -> None:
    listens(url)
    with Bus.open(url) as bus:
        bus.send("a", "@milestone-executor", "task_assignment", {"phase": "rung"})
    assert output(waiting) == "rung"


def test_a_waiting_receiver_is_woken_by_another_program(url: str, waiting: "subprocess.Popen[str]") -> None:
    listens(url)
    with sqlite3.connect(url) as hand:
        hand.execute(
            "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload) "
            """values ('s', 'me', 'b', 'task_assignment', '{"phase": "by hand"}')"""
        )
    hand.close()
    assert output(waiting) == "by hand"


def test_a_waiting_receiver_is_woken_by_the_death_of_a_holder(url: str) -> None:
    with Bus.open(url) as bus, subprocess.Popen(["sleep", "600"]) as holder:
        bus.register("a", type="milestone-executor", session="s", pid=holder.pid)
        bus.register("b", type="milestone-executor", session="s")
        bus.send("a", "@milestone-executor", "task_assignment", {"phase": "inherited"})
        assert bus.receive("a", lease="1h")
        process = python(WAIT, url)
        listens(url)
        holder.kill()
        assert output(process) == "waiting\ninherited"


def test_a_waiting_receiver_wakes_when_a_message_becomes_due(url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("b", type="milestone-executor", session="s")
        begun = clock.monotonic()
        bus.send("b", "b", "task_assignment", {"phase": "later"}, delay=0.2)
        assert bus.receive("b", wait=20)[0].payload == {"phase": "later"}
        assert clock.monotonic() - begun < 10


# --- many at once

SENDER = """
bus = Bus.open(url)
for n in range(250):
    bus.send(sys.argv[2], "@milestone-executor", "task_assignment", {"task_id": f"{sys.argv[2]}/{n}"})
"""
RECEIVER = """
bus = Bus.open(url)
while found := bus.receive(sys.argv[2], wait=3):
    bus.ack(found[0].receipt)
    print(found[0].payload["task_id"])
"""


def test_sixteen_processes_lose_nothing_and_do_nothing_twice(url: str) -> None:
    with Bus.open(url) as bus:
        for n in range(8):
            bus.register(f"sender-{n}", type="milestone-coordinator", session="s")
            bus.register(f"receiver-{n}", type="milestone-executor", session="s")
    senders = [python(SENDER, url, f"sender-{n}", stderr=subprocess.STDOUT) for n in range(8)]
    receivers = [python(RECEIVER, url, f"receiver-{n}", stderr=subprocess.STDOUT) for n in range(8)]
    assert [output(process) for process in senders] == [""] * 8
    done = [line for process in receivers for line in output(process).split()]
    assert sorted(done) == sorted(f"sender-{n}/{m}" for n in range(8) for m in range(250))
    with Bus.open(url) as bus:
        assert bus.status()["messages"] == {"acknowledged": 2000}


# --- what a connection is


def pragma(url: str, name: str) -> object:
    connection = sqlite3.connect(url)
    (found,) = connection.execute(f"pragma {name}").fetchone()
    connection.close()
    return found


KEPT = {
    "wal_autocheckpoint": 0,
    "mmap_size": 0,
    "temp_store": 2,
    "journal_mode": "wal",
    "auto_vacuum": 2,
    "journal_size_limit": 4 << 20,
    "page_size": 1024,
}


def test_a_bus_is_kept_as_the_design_says(url: str) -> None:
    for address, synchronous in ((url, 2), (f"{url}?synchronous=normal", 1)):
        with Bus.open(address) as bus:
            mine = bus.store.connection().sqlite
            found = {
                name: mine.execute(f"pragma {name}").fetchone()[0] for name in ("synchronous", "trusted_schema", *KEPT)
            }
            trusted = int(sqlite3.sqlite_version_info < (3, 41, 0))  # before, that forbids JSON functions in checks
            assert found == {**KEPT, "synchronous": synchronous, "trusted_schema": trusted}
    assert pragma(url, "application_id") == sqlite_schema.APPLICATION_ID
    assert pragma(url, "user_version") == schemas.migrations("sqlite")[-1][0]


@pytest.mark.parametrize("how", ["vacuum into", "journal_mode = delete"])
def test_a_bus_that_left_wal_mode_goes_back_to_it(url: str, tmp_path: Path, how: str) -> None:
    path = url
    hand = sqlite3.connect(url, isolation_level=None)
    if how == "vacuum into":
        path = str(tmp_path / "copy.db")
        hand.execute("vacuum into ?", [path])
        os.chmod(path, 0o600)
    else:
        hand.execute("pragma journal_mode = delete").fetchall()
    hand.close()
    with Bus.open(path) as bus:
        bus.register("a", type="validation", session="s")
        assert bus.store.connection().sqlite.execute("pragma journal_mode").fetchone() == ("wal",)


def test_pruning_gives_pages_back(url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        bus.apply([messages.send("a", "a", "task_assignment", {"title": "x" * 5000}) for _ in range(300)])
        while bus.receive("a", limit=100, ack=True):
            pass
        before = pragma(url, "page_count")
        with clock.moved(8 * 86400):
            assert bus.prune() == 299
        assert isinstance(before, int)
        assert before > 300
        assert pragma(url, "freelist_count") == 0
        assert int(str(pragma(url, "page_count"))) < before / 2


def test_a_bus_in_a_folder_with_an_odd_name(tmp_path: Path) -> None:
    for name in ("a b", "a%20b", "é\U0001f600", "a#b", "a'b\"c", "a;b&c=d", "-x", "~", "a\nb"):
        folder = tmp_path / name
        with Bus.open(str(folder / "coordination.db"), create=True) as bus:
            bus.register("a", type="validation", session="s")
            bus.receive("a", wait=0.01)
        assert (folder / "coordination.db").exists()


def test_a_name_that_is_not_utf8_is_used_or_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.db")
    try:
        Bus.open(path, create=True).close()
    except BusError:
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_only_be_read_is_said_plainly(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    Bus.open(str(folder / "coordination.db"), create=True).close()
    with read_only(folder):
        with refused("unsafe_file", 66):
            Bus.open(str(folder / "coordination.db"))
        with refused("no_bus", 66):
            Bus.open(str(folder / "other" / "new.db"), create=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder in which nothing can be written: by its mode, or, as root, by its mount."""
    if os.geteuid():
        folder.chmod(0o500)
        yield
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_checkpoint_of_what_is_no_file_is_refused_and_hangs_nobody(url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code = """
bus = Bus.open(url)
bus.register("a", type="validation", session="s")
for path in sys.argv[2:]:
    try:
        bus.checkpoint_create("a", {}, files=[path])
    except BusError as problem:
        print(problem.code)
"""
    process = python(code, url, tmp_path / "fifo", "/dev/zero", tmp_path)
    try:
        text, _ = process.communicate(timeout=5)
    finally:
        process.kill()
    assert text.split() == ["usage"] * 3


def test_a_checkpoint_does_not_read_the_files_of_the_bus_itself(url: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(url)
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        wal = os.stat(f"{url}-wal").st_ino
        names = [url, f"{url}-wal", f"{url}-shm", str(tmp_path / "link")]
        for name in names:
            with refused("usage", 64):
                bus.checkpoint_create("a", files=[name])
        files = [{"path": name, "sha256": "0" * 64, "size": os.stat(name).st_size} for name in names]
        hand = "import sqlite3, sys; hand = sqlite3.connect(sys.argv[1]); hand.execute(*sys.argv[2:3], sys.argv[3:])"
        text = "insert into agent_checkpoints (checkpoint_id, agent_id, session_id, file_references) "
        text += "values ('0', 'a', 's', ?)"
        subprocess.run([sys.executable, "-c", f"{hand}; hand.commit()", url, text, json.dumps(files)], check=True)
        assert {file.status for file in bus.checkpoint_restore("a").files} == {"changed"}  # type: ignore[union-attr]
        assert output(python("Bus.open(url).close()", url)) == ""
        assert os.stat(f"{url}-wal").st_ino == wal  # who closed its bus saw that this one is open


def test_a_file_that_became_a_fifo_is_changed_and_hangs_nobody(url: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        bus.checkpoint_create("a", {}, files=[tmp_path / "empty"])
    (tmp_path / "empty").unlink()
    os.mkfifo(tmp_path / "empty")
    process = python("print(Bus.open(url).checkpoint_restore('a').files[0].status)", url)
    try:
        text, _ = process.communicate(timeout=5)
    finally:
        process.kill()
    assert text.strip() in ("changed", "missing")


@pytest.mark.parametrize("what", ["instances", "watches"])
def test_waiting_works_where_inotify_has_no_more_to_give(url: str, what: str) -> None:
    code = """
import threading
import time
bus = Bus.open(url)
bus.register("a", type="validation", session="s")
assert bus.receive("a", wait=0.05) == []
bus.send("a", "a", "task_assignment", {}, delay=0.1)
print(len(bus.receive("a", wait=20)))
def send():
    while not bus.store.asleep:
        pass
    with Bus.open(url) as other:
        other.send("a", "a", "task_assignment", {})
threading.Thread(target=send).start()
print(len(bus.receive("a", wait=20)))
"""
    lower = after(f"echo 0 >/proc/sys/user/max_inotify_{what}")
    assert output(python(code, url, before=lower)).split() == ["1", "1"]


def test_a_child_that_ends_in_order_takes_nothing_from_its_parent(url: str) -> None:
    code = """
import os
bus = Bus.open(url)
bus.register("a", type="validation", session="s")
for n in range(5):
    bus.send("a", "a", "task_assignment", {})
    if not os.fork():
        with Bus.open(url) as mine:
            mine.send("a", "a", "task_assignment", {})
        bus.send("a", "a", "task_assignment", {})
        bus.close()
        sys.exit()
    bus.send("a", "a", "task_assignment", {})
for n in range(5):
    assert os.wait()[1] == 0
bus.send("a", "a", "task_assignment", {})
assert next(f.verdict for f in bus.doctor() if f.subject == "file") == "ok"
print(bus.status()["messages"]["ready"])
"""
    assert output(python(code, url)) == "21"


def test_threads_have_connections_of_their_own(url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")

        def work(n: int) -> None:
            for _ in range(10):
                bus.send("a", "a", "task_assignment", {"task_id": str(n)})

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))
        assert bus.status()["messages"] == {"ready": 80}


def test_a_reader_can_change_nothing_in_any_thread(url: str) -> None:
    with Bus.open(url, read_only=True) as bus, ThreadPoolExecutor(1) as thread:
        for call in (bus.state_save, partial(thread.submit, bus.state_save)):
            with refused("not_allowed", 65):
                done = call("a", "k", "v")
                done.result()
        assert bus.state_load("a", "k") is None


def test_who_only_reads_makes_nothing_to_tell_the_load(url: str) -> None:
    with Bus.open(url, read_only=True) as bus:
        Path(f"{url}.turn").unlink(missing_ok=True)
        assert bus.status()["load"]["busy_percent"] == 0
        assert not Path(f"{url}.turn").exists()


def test_who_only_reads_makes_nothing_to_watch_a_state(url: str) -> None:
    with Bus.open(url) as writer, Bus.open(url, read_only=True) as bus:
        before = set(Path(url).parent.iterdir())
        bus.store.before_sleep = lambda: None if bus.state_load("a", "k") else writer.state_save("a", "k", "v")
        assert bus.state_watch("a", "k", wait=60) == ("v", 1)
        assert set(Path(url).parent.iterdir()) - before <= {Path(f"{url}.turn")}


def test_who_has_waited_sleeps_no_more(url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        seen = []
        bus.store.before_sleep = lambda: seen.append(bus.store.asleep)
        assert bus.receive("a", wait=0.01) == []
        assert (seen[0], bus.store.asleep) == (True, False)


def test_threads_share_a_bus_in_memory() -> None:
    with Bus.open(":memory:", create=True) as bus:
        bus.register("a", type="validation", session="s")
        with ThreadPoolExecutor(8) as threads:
            waiting = [threads.submit(bus.receive, "a", wait=20, ack=True) for _ in range(4)]
            sending = [threads.submit(bus.send, "a", "a", "task_assignment", {}) for _ in range(4)]
            assert sorted(future.result() for future in sending) == [1, 2, 3, 4]
            assert sorted(future.result()[0].id for future in waiting) == [1, 2, 3, 4]


def test_an_open_that_fails_leaves_no_thread_and_no_descriptor(url: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database " * 500)

    async def failing() -> None:
        for _ in range(3):
            with refused("not_a_bus"):
                await AsyncBus.open(str(tmp_path / "text.db"))
            with refused("no_bus"):
                await AsyncBus.open(str(tmp_path / "missing.db"))

    asyncio.run(failing())
    gc.collect()
    before, threads = descriptors(), set(threading.enumerate())
    asyncio.run(failing())
    for _ in range(3):
        with refused("not_a_bus"):
            Bus.open(str(tmp_path / "text.db"))
    left = set(threading.enumerate()) - threads
    for thread in left:
        thread.join(10)
    gc.collect()
    assert descriptors() <= before
    assert not [thread for thread in left if thread.is_alive()]


def test_a_bus_can_be_closed_twice_and_leaves_no_descriptor(url: str) -> None:
    async def used() -> None:
        async with await AsyncBus.open(url) as bus:
            await bus.register("a", type="validation", session="s")
            assert await bus.receive("a", wait=0.01) == []
            await bus.close()

    asyncio.run(used())
    gc.collect()
    before = descriptors()
    asyncio.run(used())
    for _ in range(3):
        with Bus.open(url) as bus:
            assert bus.receive("a", wait=0.01) == []
            bus.close()
    assert descriptors() <= before


def test_the_wal_stays_small_beside_readers_who_overlap_all_the_time(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is never a moment without one: each begins before the one before it ends, while writers wait."""
    monkeypatch.setattr(store, "LARGE", 2 * store.WAL_LIMIT)
    readers: list[sqlite3.Connection] = []

    def takes_over(seconds: float = 0) -> None:
        readers.append(sqlite3.connect(url, isolation_level=None))
        readers[-1].execute("begin")
        readers[-1].execute("select count(*) from agent_registry").fetchall()
        if len(readers) > 1:
            readers.pop(0).close()

    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        monkeypatch.setattr(store, "time", SimpleNamespace(sleep=takes_over, monotonic=time.monotonic))
        largest = 0
        for n in range(2000):
            if n % 8 == 0:
                takes_over()
            bus.state_save("a", f"k{n}", "x" * 8000)
            largest = max(largest, Path(f"{url}-wal").stat().st_size)
        readers.pop().close()
    assert largest < 2 * store.LARGE


def test_a_reader_who_never_ends_is_waited_for_only_when_the_wal_has_doubled(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LARGE", store.WAL_LIMIT)
    slept: list[float] = []
    moments = itertools.count(0, store.READERS / 2)
    with Bus.open(url) as bus, closing(sqlite3.connect(url, isolation_level=None)) as reader:
        bus.register("a", type="validation", session="s")
        reader.execute("begin")
        reader.execute("select count(*) from agent_registry").fetchall()
        monkeypatch.setattr(store, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: next(moments)))
        for n in range(2400):
            bus.state_save("a", f"k{n}", "x" * 8000)
        assert Path(f"{url}-wal").stat().st_size > 4 * store.LARGE
    assert 3 <= len(slept) <= 9, "at 4, 8 and 16 MiB"


def test_the_wal_stays_small_through_many_small_commits(url: str) -> None:
    with Bus.open(f"{url}?synchronous=normal") as bus:
        bus.register("a", type="validation", session="s")
        largest = 0
        for n in range(20_000):
            bus.state_save("a", "k", str(n))
            if n % 50 == 0:
                largest = max(largest, os.stat(f"{url}-wal").st_size)
    assert largest < 8 << 20


def test_a_stopped_writer_that_goes_on_finds_all_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
bus = Bus.open(url)
connection = bus.store.connection()
connection._turnstile.enter(1)
connection.sqlite.execute("begin immediate")
print("held", flush=True)
input()
connection.sqlite.execute("commit")
connection._turnstile.leave()
bus.register("late", type="validation", session="s")
"""
    with python(code, url, stdin=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        with monkeypatch.context() as patch, Bus.open(url) as bus:
            patch.setattr(store, "TIMEOUT", 0.2)
            with refused("busy", 75):
                bus.register("a", type="validation", session="s")
        process.send_signal(signal.SIGCONT)
        process.communicate("\n", timeout=20)
        assert process.returncode == 0
    with Bus.open(url) as bus:
        bus.register("a", type="validation", session="s")
        assert sorted(agent.agent_id for agent in bus.agents()) == ["a", "late"]


def test_a_writer_that_dies_in_the_middle_leaves_nothing_and_holds_up_nobody(url: str) -> None:
    code = """
bus = Bus.open(url)
connection = bus.store.connection()
connection._turnstile.enter(1)
connection.sqlite.execute("begin immediate")
connection.sqlite.execute("insert into agent_state (agent_id, state_key, state_value) values ('a', 'k', 'half')")
print("held", flush=True)
input()
"""
    with python(code, url, stdin=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        process.kill()
    with Bus.open(url) as bus:
        assert bus.state_load("a", "k") is None
        assert bus.state_save("a", "k", "whole", if_version=0) == 1
