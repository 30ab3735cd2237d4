"""`bus demo` on a small folder, as a real process, and the counts that judge it."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from bus_cli import demonstration
from bus_cli.demonstration import plan
from bus_cli.demonstration.coordinator import unsettled
from bus_cli.demonstration.plan import MOST, Plan, measure, recount
from bus_cli.demonstration.team import Team
from bus_cli.output import Output

from bus import Bus

NAMES = [
    b"plain", b"with space", b"quote's", b'double "quote"', b"back\\slash \\x41", b"dollar $(x) `y`", b"-dash", b"*",
    b"percent %41 %s", b"two\nlines", b"ends in a line end\n", b" lead", b"\xc3\xa9\xf0\x9f\x98\x80", b'","uri":"file:',
    b"not utf-8 \xff",
]  # fmt: skip
COMMAND = [sys.executable, "-m", "bus_cli", "demo"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty files with odd names, and something that is no file."""
    made = tmp_path / "files"
    (made / "a b").mkdir(parents=True)
    os.mkfifo(made / "pipe")
    names = [*(b"file%d" % number for number in range(10)), *NAMES, *(b"a b/" + name for name in NAMES)]
    for number, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(made) + b"/" + name)).write_text("line\n" * number * 7 + "no end", "utf-8")
    return made


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The demo's folder comes below this test's own."""
    return {**os.environ, "TMPDIR": str(tmp_path)}


def demo(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)


def processes(bus: str | Path) -> list[int]:
    """The processes that work on this bus: it stands in their environment. A zombie has none."""
    found = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"BUS_URL={bus}".encode() in place.read_bytes():
                found.append(int(place.parent.name))
    return found


def ends(pid: int) -> int | None:
    """What becomes readable when that process ends."""
    with suppress(ProcessLookupError):
        return os.pidfd_open(pid)
    return None


def test_every_file_is_done_once_and_the_killed_executors_message_by_another(
    folder: Path, environment: dict[str, str]
) -> None:
    done = demo(environment, str(folder), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    plan = Plan.of(str(folder))
    assert (found["files"], found["found"], found["verified"], found["wrong"]) == (40, 40, True, [])
    assert found["lines"] == sum(measure(task.path).lines for task in plan.tasks)
    assert found["bytes"] == sum(task.path.stat().st_size for task in plan.tasks)
    assert sum(found["by_agent"].values()) == 40
    assert found["messages"] == 40 + 40 + 3  # tasks, reports, and what the coordinator and the killed one say besides
    assert found["killed"] == "executor-3"
    assert found["finished_by"] in ("executor-1", "executor-2")
    with Bus.open(found["bus"]) as bus:
        twice = bus.message(found["redelivered"])
        assert (twice.status, twice.receipt) == ("acknowledged", f"{twice.id}.2")
        assert twice.leased_by != "executor-3"
        others = [message for message in bus.messages(limit=1000) if message.id != twice.id]
        assert {(message.status, message.retry_count) for message in others} == {("acknowledged", 0)}
    assert not processes(found["bus"])


def test_the_commands_it_tells_to_try_next_work_as_they_are_printed(folder: Path, environment: dict[str, str]) -> None:
    done = demo(environment, str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert "killed (SIGKILL) in the middle of message 5" in done.stdout
    assert "recounted 40 files" in done.stdout
    assert "every file exactly once" in done.stdout
    tries = done.stdout.partition("Try next ")[2].splitlines()[1:]
    assert len(tries) == 3
    for line in tries:
        tried = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
        assert (tried.returncode, tried.stderr) == (0, ""), line
        assert tried.stdout


def test_a_single_file_is_enough_and_so_is_a_path_without_sqlite3(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_bytes(b"1\n2\n3")
    found = json.loads(demo({**environment, "BUS_SHELL_VIA": "bus"}, str(tmp_path / "files"), "--json").stdout)
    assert (found["files"], found["lines"], found["bytes"], found["verified"]) == (1, 2, 5, True)
    assert (found["deliveries"], found["by_agent"]["executor-3"]) == (2, 0)


def test_modules_in_the_folder_where_it_is_started_are_not_taken_for_its_own(
    folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    (tmp_path / "bus.py").write_text("raise SystemExit('not this one')")
    command = [sys.executable, "-P", *COMMAND[1:], str(folder), "--json"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, check=False, timeout=90)
    assert done.returncode == 0, done


def test_a_result_that_was_tampered_with_is_exit_1_and_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = Team.ended

    def tamper(team: Team, agent: str, within: float) -> bool:
        with Bus.open(team._environment["BUS_URL"]) as bus:
            bus.state_save("executor-3", "file/1", "1 2 beef")
        return ended(team, agent, within)

    monkeypatch.setattr(Team, "ended", tamper)
    assert demonstration.run(Output(as_json=True), str(folder)) == 1
    Output.flush()
    found = json.loads(capfd.readouterr().out)
    assert not found["verified"]
    assert len(found["wrong"]) == 1
    assert found["wrong"][0].endswith("but executor-3 saved 1 2 beef")


def test_the_recount_finds_what_is_missing_double_wrong_unknown_or_gone(folder: Path) -> None:
    plan = Plan.of(str(folder))
    right = {task.id: str(measure(task.path)) for task in plan.tasks}
    first = plan.tasks[0].id

    def wrong(results: dict[str, dict[str, str]]) -> list[str]:
        return recount(plan, results).wrong

    assert wrong({"x": right, "y": {}}) == []
    assert wrong({"x": {id: value for id, value in right.items() if id != first}}) == [
        f"{plan.tasks[0].path} was done by nobody"
    ]
    assert wrong({"x": right, "y": {first: right[first]}}) == [f"{plan.tasks[0].path} was done by x and y"]
    assert "but x saved 0 0 abc" in wrong({"x": {**right, first: "0 0 abc"}})[0]
    assert wrong({"x": {**right, "999": "0 0 abc"}}) == ["x did 999, which is no task"]
    plan.tasks[0].path.unlink()
    assert wrong({"x": right}) == [f"{plan.tasks[0].path} can't be read any more"]


def test_a_task_that_was_not_acknowledged_or_was_reported_twice_is_found(tmp_path: Path) -> None:
    with Bus.open(str(tmp_path / "bus.db"), create=True) as bus:
        bus.register("a", type="milestone-executor", session="s")
        for id in "12":
            bus.send("a", "a", "task_assignment", {"task_id": id})
        bus.receive("a", ack=True)
        tasks = bus.messages()
        assert unsettled(tasks, {"1": 1, "2": 1}) == ["message 2 is ready, and was reported 1 times"]
        bus.receive("a", ack=True)
        assert unsettled(bus.messages(), {"1": 1, "2": 1}) == []
        assert unsettled(bus.messages(), {"1": 2, "2": 1}) == ["message 1 is acknowledged, and was reported 2 times"]
        assert unsettled(bus.messages(), {"2": 1}) == ["message 1 is acknowledged, and was reported 0 times"]


def test_of_too_many_files_big_and_small_ones_are_taken_and_the_big_ones_first(tmp_path: Path) -> None:
    for number in range(MOST + 100):
        (tmp_path / str(number)).write_bytes(b"x" * number)
    plan = Plan.of(str(tmp_path))
    sizes = [task.path.stat().st_size for task in plan.tasks]
    priorities = [task.priority for task in plan.tasks]
    assert (len(plan.tasks), plan.found) == (MOST, MOST + 100)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == MOST + 99
    assert sizes[-1] < 10
    assert priorities == sorted(priorities, reverse=True)
    assert set(priorities) == set(range(1, 10))


@pytest.mark.parametrize(("enough", "names"), [(2, ["a.py", "b.py"]), (3, ["a.py", "b.py", "c.txt"])])
def test_of_a_library_the_modules_are_taken_where_there_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: int, names: list[str]
) -> None:
    for name in ("a.py", "b.py", "c.txt", "site-packages/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(plan, "ENOUGH", enough)
    monkeypatch.setattr(plan.sysconfig, "get_path", lambda name: str(tmp_path))
    assert sorted(task.path.name for task in Plan.of(None).tasks) == names


def test_pythons_own_library_has_enough_files() -> None:
    assert len(Plan.of(None).tasks) >= 1000


@pytest.fixture
def begun(environment: dict[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    """A demo of Python's own library that has said that all are at work."""
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        while b"executor-2 (bash): working" not in process.stdout.readline():
            assert process.poll() is None
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind_when_the_demo_is_stopped(
    begun: "subprocess.Popen[bytes]", tmp_path: Path, number: signal.Signals
) -> None:
    (bus,) = tmp_path.glob("bus-demo-*/coordination.db")
    executors = [end for pid in processes(bus) if (end := ends(pid)) is not None]
    assert len(executors) >= 3
    begun.send_signal(number)
    _, told = begun.communicate(timeout=30)
    if number == signal.SIGINT:
        assert begun.returncode == 130
        assert len(told.splitlines()) == 1
    for executor in executors:
        assert select.select([executor], [], [], 30 if number == signal.SIGKILL else 0)[0]
        os.close(executor)
    assert not processes(bus)


def test_a_folder_without_files_is_said_plainly(tmp_path: Path, environment: dict[str, str]) -> None:
    done = demo(environment, str(tmp_path))
    assert done.returncode == 64
    assert done.stderr.startswith("bus: there are no files")
