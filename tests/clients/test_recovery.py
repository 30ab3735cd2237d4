"""`bus recover`, `bus monitor`, `bus cleanup` and the shell functions of recovery, with real processes."""

import contextlib
import fcntl
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from bus_cli import monitor
from bus_cli.output import Output
from bus_client.respawn import respawn

from bus import Bus, clock, folders, liveness
from bus.errors import error
from bus.store.url import parse
from tests.clients.conftest import Shell
from tests.conformance.refusal import refused
from tests.conftest import Process

TASK = "task_assignment"
BUS = [sys.executable, "-m", "bus_cli"]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(url: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the bus command; its exit status must be `status`."""
    monkeypatch.setenv("BUS_URL", url)

    def run(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*BUS, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == status, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture
def wreck(url: str, process: Process) -> str:
    """A bus with session s, in which an executor was killed with a message in hand."""
    with Bus.open(url) as bus:
        bus.register("boss", type="milestone-coordinator", session="s")
        bus.register("lost", type="milestone-executor", session="s", pid=process.pid, command="exec sleep 600")
        bus.send("boss", "lost", TASK, {})
        bus.receive("lost", lease=600)
    process.kill()
    process.wait()
    return url


def test_a_plan_in_words_tells_some_of_very_many_messages(command: Command, wreck: str) -> None:
    with Bus.open(wreck) as bus:
        for _ in range(30):
            bus.send("boss", "boss", TASK, {})
        bus.receive("boss", limit=30)
    words = command("recover", "s").stdout
    assert words.count("holds message") == 21
    assert "    and 10 messages more; see --json\n" in words


def test_recover_says_what_can_be_done_and_does_it(command: Command, wreck: str) -> None:
    assert "s        -          execution  0.0" in command("interrupted").stdout
    plan = json.loads(command("recover", "--json").stdout)
    assert [option["name"] for option in plan["options"]] == ["resume", "restart", "abandon"]
    words = command("recover").stdout
    assert "holds message 1 (task_assignment from boss, priority 5)" in words
    assert "design-phase-results (15): missing" in words
    assert "would resume: mark lost failed, give back 1 message," in command(
        "recover", "s", "--apply", "resume", "--dry-run"
    ).stdout  # fmt: skip
    assert command("recover", "s", "--apply", "resume").stdout.splitlines() == [
        "resume: session s is active", "marked lost failed", "gave back message 1",
    ]  # fmt: skip
    assert "nothing is left to do" in command("recover", "s", "--apply", "resume").stdout
    assert command("interrupted").stdout == "no interrupted sessions\n"
    assert command("interrupted", "--json").stdout == "[]\n"
    assert command("recover").stdout == "no interrupted sessions\n"


def test_progress_is_that_of_the_artifacts_where_some_are_promised(command: Command, wreck: str) -> None:
    with Bus.open(wreck) as bus:
        bus.state_save("boss", "design-phase-results", "x")
        bus.session_progress("s", 70)
        bus.register("v", type="validation", session="v", operation="validation")
        bus.session_progress("v", 70)
    said = "session s: execution, active, 15 % by its artifacts (70 % was told), last active "
    assert command("recover", "s").stdout.startswith(said)
    assert command("recover", "v").stdout.startswith("session v: validation, active, 70 %, last active ")


def test_what_recovery_did_is_in_the_health_log(command: Command, wreck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_AGENT", "supervisor")
    command("recover", "s", "--apply", "resume")
    connection = sqlite3.connect(wreck)
    rows = connection.execute("select agent_id, details from agent_health_log order by id").fetchall()
    connection.close()
    assert (rows[0][0], json.loads(rows[0][1])) == ("lost", {"recovery": "resume", "by": "supervisor", "was": "active"})
    done = json.loads(rows[1][1])["recovery"]
    assert (rows[1][0], done["option"], done["by"], done["given_back"]) == ("boss", "resume", "supervisor", [1])
    assert len(rows) == 2


def test_what_a_check_buried_is_in_the_health_log(wreck: str) -> None:
    with Bus.open(wreck) as bus:
        bus.config_set("message_retry_limit", "0")
        assert bus.monitor_check(by="me").buried == 1
    connection = sqlite3.connect(wreck)
    ((agent, details),) = connection.execute("select agent_id, details from agent_health_log").fetchall()
    connection.close()
    told = json.loads(details)
    assert (agent, told["given_back"], told["buried"], told["by"]) == ("lost", [], [1], "me")


def test_with_several_interrupted_sessions_recover_lists_them(command: Command, wreck: str) -> None:
    with Bus.open(wreck) as bus:
        bus.register("other", type="validation", session="t")
        bus.heartbeat("other", status="failed")
    assert len(command("recover").stdout.splitlines()) == 3
    assert "name one" in command("recover", "--apply", "resume", status=64).stderr
    command("recover", "s", "--respawn", status=64)
    command("recover", "s", "--apply", "complete", status=65)
    command("recover", "nowhere", status=66)


def test_two_who_recover_at_once_have_one_effect(command: Command, wreck: str) -> None:
    arguments = [*BUS, "recover", "s", "--apply", "resume", "--respawn", "--json"]
    both = [subprocess.Popen(arguments, stdout=subprocess.PIPE) for _ in range(2)]
    told = [json.loads(process.communicate()[0]) for process in both]
    assert sorted(one["recovered"]["changed"] for one in told) == [False, True]
    started = [start for one in told for start in one["started"]]
    assert [(start["agent_id"], start["fate"]) for start in started] == [("lost", "running")]
    with Bus.open(wreck) as bus:
        assert bus.message(1).retry_count == 1
    os.kill(started[0]["pid"], signal.SIGKILL)


def test_monitors_and_cleanups_at_once_have_one_effect(command: Command, wreck: str) -> None:
    at_once = [["monitor", "--once"], ["monitor", "--once"], ["cleanup", "--stale", "0"], ["cleanup", "--stale", "0"]]
    running = [subprocess.Popen([*BUS, *arguments, "--json"], stdout=subprocess.PIPE) for arguments in at_once]
    told = [json.loads(process.communicate()[0]) for process in running]
    assert sum(one["given_back"] for one in told) == 1
    assert sum(len(one.get("failed_sessions", [])) for one in told) == 1
    with Bus.open(wreck) as bus:
        assert (bus.message(1).status, bus.message(1).retry_count) == ("ready", 1)


def test_a_dry_run_opens_the_file_for_reading_only(command: Command, wreck: str) -> None:
    folder = Path(wreck).parent
    before = Path(wreck).read_bytes()
    with Bus.open(wreck, read_only=True) as bus, refused("not_allowed", 65):
        bus.recovery_apply("s", "resume", by="me")
    command("recover", "s", "--apply", "resume", "--dry-run")
    assert Path(wreck).read_bytes() == before
    assert not (folder / ".milestones").exists()


def test_a_dry_run_tells_which_commands_would_be_started(command: Command, wreck: str) -> None:
    with Bus.open(wreck) as bus:
        bus.register("old", type="validation", session="t", command="true")
        bus.heartbeat("old", status="failed")
        bus.session_abandon("t")
        with clock.moved(1):
            bus.register("new", type="validation", session="t")
    told = {
        session: command("recover", session, "--apply", "resume", "--respawn", "--dry-run").stdout.splitlines()[-1]
        for session in ("s", "t")
    }
    assert told == {
        "s": "would start lost again: exec sleep 600",
        "t": "nobody to start again: no failed agent of the session has a command",
    }
    command("recover", "s", "--apply", "resume")  # and later those that were marked
    assert command("recover", "s", "--apply", "resume", "--respawn", "--dry-run").stdout.endswith(told["s"] + "\n")


def test_a_damaged_file_is_said_to_be_and_left_alone(command: Command, wreck: str) -> None:
    with Bus.open(wreck) as bus:
        for number in range(200):
            bus.send("boss", "lost", TASK, {"n": number, "filler": "x" * 500})
    file = Path(wreck)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = b"\xa5" * (len(data) - len(data) // 2)
    file.write_bytes(data)
    for arguments in (["recover"], ["recover", "s"], ["recover", "s", "--apply", "resume"]):
        told = command(*arguments, status=70).stderr
        assert "damaged" in told
        assert "bus backup" in told
        assert ".recover" in told
        assert ".dump" in told
        assert len(told) < 400
    assert file.read_bytes() == bytes(data)


def test_an_older_bus_is_read_after_its_upgrade(command: Command, tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "old.db")
    connection.executescript("pragma application_id = 1098146163; pragma user_version = 1; create table t (x)")
    connection.close()
    (tmp_path / "old.db").chmod(0o600)
    assert "bus init" in command("--bus", str(tmp_path / "old.db"), "recover", status=66).stderr


# --- starting again


def test_an_agent_is_started_again_with_its_identity_and_checkpoint(url: str, tmp_path: Path) -> None:
    script = tmp_path / "agent.py"
    script.write_text(
        "import os\nfrom bus_client import Agent\n"
        "name, type, session = (os.environ[f'BUS_{key}'] for key in ('AGENT', 'AGENT_TYPE', 'SESSION'))\n"
        "with Agent(name, type=type, session=session) as me:\n"
        "    me.state.save('seen', str(me.restore().checkpoint.state_snapshot['at']))\n"
    )
    with Bus.open(url) as bus:
        bus.register("lost", type="validation", session="s", command=f"{sys.executable} {script}")
        bus.checkpoint_create("lost", {"at": 7})
        bus.retire("lost", status="failed")
        (started,) = respawn(bus, "s", settling=60)
        assert (started.fate, started.exit_status, bus.state_load("lost", "seen")) == ("ended", 0, "7")
        assert respawn(bus, "s") == []


def test_what_is_started_again_is_by_itself_and_adds_to_its_log(url: str) -> None:
    log = Path(".milestones") / "logs" / "lost.log"
    log.parent.mkdir(parents=True)
    log.write_text("before\n")
    with Bus.open(url) as bus:
        command = 'set -- $(cat /proc/$$/stat); echo "$$ $5 $6 $BUS_AGENT_TYPE $BUS_SESSION $BUS_MILESTONE $(cat)"'
        bus.register("lost", type="validation", session="s", milestone="m", command=command)
        bus.retire("lost", status="failed")
        (started,) = respawn(bus, "s", settling=60)
    assert log.read_text().split() == ["before", *[str(started.pid)] * 3, "validation", "s", "m"]


@pytest.mark.parametrize(("status", "fate"), [("completed", "ended"), ("failed", "failed"), ("terminated", "failed")])
def test_what_an_agent_said_of_its_end_is_its_fate(url: str, status: str, fate: str) -> None:
    command = f"{sys.executable} -m bus_cli"
    with Bus.open(url) as bus:
        again = f'{command} heartbeat "$BUS_AGENT" && {command} retire "$BUS_AGENT" --status {status}'
        bus.register("lost", type="validation", session="s", command=again)
        bus.retire("lost", status="failed")
        (started,) = respawn(bus, "s", settling=60)
        assert (started.fate, started.exit_status, bus.agents()[0].status) == (fate, 0, status)


def test_who_said_that_it_ended_is_not_called_dead(command: Command, url: str) -> None:
    with Bus.open(url) as bus:
        for name in ("one", "two"):
            bus.register(name, type="validation", session="s", pid=os.getpid())
        bus.retire("one")
    told = command("recover", "s").stdout
    assert "one (validation): completed, last heard" in told
    assert "two (validation): active, alive, last heard" in told


def test_a_command_that_does_not_stay_up_is_reported_and_not_retried(command: Command, url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("lost", type="validation", session="s", command="echo cannot; exit 3")
        bus.heartbeat("lost", status="failed")
    done = command("recover", "s", "--apply", "resume", "--respawn", status=70)
    assert "failed with status 3" in done.stdout
    assert done.stderr.startswith("bus: lost did not start again; ")
    assert (Path(".milestones") / "logs" / "lost.log").read_text() == "cannot\n"
    with Bus.open(url) as bus:
        (agent,) = bus.agents()
    assert (agent.status, agent.error_info["respawn"]) == ("failed", "its command ended at once with status 3")


def test_one_that_can_not_be_started_leaves_the_others_to_be(command: Command, url: str) -> None:
    Path(".milestones/logs/first.log").mkdir(parents=True)  # it can't be written
    with Bus.open(url) as bus:
        for name in ("first", "second"):
            again = f"{sys.executable} -m bus_cli retire {name}"
            bus.register(name, type="validation", session="s", command=again)
            bus.heartbeat(name, status="failed")
    with Bus.open(url) as bus:
        first, second = respawn(bus, "s", settling=60)
        agents = {agent.agent_id: agent for agent in bus.agents()}
    assert (first.pid, first.fate, second.fate, second.exit_status) == (None, "failed", "ended", 0)
    assert (agents["first"].status, agents["second"].status) == ("failed", "completed")
    assert agents["first"].error_info["respawn"].startswith("it was not started: ")
    told = command("recover", "s", "--apply", "resume", "--respawn", status=70).stdout
    assert "first.log can't be used: Is a directory" in told
    Path(".milestones/logs/first.log").rmdir()
    with Bus.open(url) as bus:
        (again,) = respawn(bus, "s", settling=60)
    assert (again.agent_id, again.fate, again.error) == ("first", "ended", None)


@pytest.fixture
def lost(url: str) -> Iterator[Bus]:
    """A bus with three failed agents that run for long when they are started again."""
    with Bus.open(url) as bus:
        for name in ("first", "second", "third"):
            bus.register(name, type="validation", session="s", command="exec sleep 1000")
            bus.heartbeat(name, status="failed")
        yield bus
        for agent in bus.agents():
            if agent.pid and agent.pid != os.getpid():
                os.kill(agent.pid, signal.SIGKILL)


def test_what_the_bus_can_not_note_leaves_the_others_to_be(lost: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    noted = lost.recovery_spawned

    def once_busy(agent: str, *, pid: int) -> None:
        noted(agent, pid=pid)
        if agent == "first":
            raise error("busy")

    monkeypatch.setattr(lost, "recovery_spawned", once_busy)
    first, *others = respawn(lost, "s", settling=0)
    assert first.pid
    assert str(first.error).startswith("the bus is busy")
    assert [(other.fate, other.error) for other in others] == [("running", None)] * 2


def test_all_that_are_started_again_have_the_same_second(lost: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 0.1, 1000, 1000])
    monkeypatch.setattr("bus_client.respawn.clock", SimpleNamespace(monotonic=moments.__next__))
    assert [started.fate for started in respawn(lost, "s", settling=0.2)] == ["running"] * 3


def test_who_is_stopped_while_it_starts_agents_leaves_none_that_seem_to_start(
    lost: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus_client.respawn.subprocess.Popen", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        respawn(lost, "s")
    assert [agent.status for agent in lost.agents()] == ["failed"] * 3


def test_an_agent_may_be_in_another_session_when_it_was_started_again(url: str) -> None:
    enter = f"{sys.executable} -m bus_cli register lost --type validation --session other"
    with Bus.open(url) as bus:
        bus.register("lost", type="validation", session="s", command=enter)
        bus.retire("lost", status="failed")
        (started,) = respawn(bus, "s", settling=60)
        (agent,) = bus.agents()
    assert (started.fate, started.exit_status) == ("failed", 0)
    assert (agent.session_id, agent.status) == ("other", "failed")


def test_a_cleanup_that_does_nothing_logs_nothing(url: str) -> None:
    with Bus.open(url) as bus, contextlib.closing(sqlite3.connect(url)) as hand:
        bus.register("boss", type="milestone-coordinator", session="s")
        for seconds, lines in ((0, 0), (100, 0), (4000, 2)):
            with clock.moved(seconds):
                bus.clean(stale="1h", failed="1h")
            assert hand.execute("select count(*) from agent_health_log").fetchall() == [(lines,)]


def test_failed_sessions_are_abandoned_after_the_setting_in_hours(
    command: Command, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus.open(url) as bus:
        bus.register("boss", type="milestone-coordinator", session="s")
        with clock.moved(10_000):
            assert bus.clean(stale="1h").failed_sessions == ["s"]
        bus.config_set("failed_session_hours", "5")
        for hours, found in ((4, "0 failed sessions"), (6, "1 failed session")):
            monkeypatch.setenv("BUS_NOW", f"+{10_000 + hours * 3600}")
            assert command("cleanup", "--failed").stdout == f"{found} abandoned\n"


# --- the monitor


def test_the_monitor_runs_once_a_bus_and_logs_its_checks(command: Command, wreck: str) -> None:
    assert "is running" in command("monitor", "--detach", "--interval", "600").stdout
    log = Path(".milestones") / "logs" / "session-monitor.log"
    assert "gave back 1," in log.read_text()
    assert "runs already" in command("monitor", status=76).stderr
    assert "runs already" in command("monitor", "--detach", status=76).stderr
    command("monitor", "--once")
    assert len(log.read_text().splitlines()) == 2
    command("monitor", "--stop")
    assert Path(f"{wreck}.monitor").read_text() == ""
    command("monitor", "--stop", status=1)
    command("monitor", "--stop", "--bus", "elsewhere.db", status=66)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bus.db.monitor", ["--interval", "1"]),
        ("bus.db.monitor", ["--stop"]),
        (".milestones/logs/session-monitor.log", ["--once"]),
        ("bus.db.turn", ["--once"]),
    ],
)
def test_what_stands_beside_a_bus_is_no_link(
    command: Command, url: str, tmp_path: Path, name: str, options: list[str]
) -> None:
    """Else whoever gives a folder away, or may write to it, could have any file of its user overwritten."""
    (tmp_path / "precious").write_text("precious")
    link = tmp_path / name.replace("bus.db", Path(url).name)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "precious")
    assert "unsafe_file" in command("monitor", *options, "--json", status=66).stderr
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_check_names_all_that_it_may_have_removed(
    command: Command, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus.open(url) as bus:
        bus.register("boss", type="milestone-coordinator", session="s")
        life = bus.trace_enter("one", type="validation", session="s")
        bus.trace_leave("one", life)
        for _ in range(2):
            bus.send("boss", "boss", TASK, {})
        bus.ack([message.receipt or "" for message in bus.receive("boss", limit=2)])
    monkeypatch.setenv("BUS_NOW", f"+{200 * 86400}")
    told = command("monitor", "--once").stdout
    command("trace", "show", str(life), status=66)
    assert "removed 1 message" in told
    assert command("prune").stdout == "removed 0 messages, and all records, health rows and state past their time\n"


def test_a_monitor_tells_its_own_number_whatever_stood_there(command: Command, url: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other.db")
    Bus.open(other, create=True).close()
    Path(f"{other}.monitor").write_text("9" * 30)
    pid = json.loads(command("--bus", other, "monitor", "--detach", "--json").stdout)["started"]
    assert f"as process {pid};" in command("--bus", other, "monitor", "--detach", status=76).stderr
    assert other not in Path(f"/proc/{pid}/cmdline").read_text(), "everybody can read it, and a password in it"
    command("monitor", "--stop", status=1)
    assert not Path(f"{url}.monitor").exists()
    assert json.loads(command("--bus", other, "monitor", "--stop", "--json").stdout) == {"stopped": pid}


def test_who_has_the_lock_for_a_moment_is_waited_for(
    url: str, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--stop` looks whether a monitor runs by taking its lock; and who begins has it before the file tells who."""
    path = Path(f"{url}.monitor")
    path.write_text(f"999999999 {liveness.pid_namespace()} 7")
    with path.open("r+") as asking:
        fcntl.flock(asking, fcntl.LOCK_EX)
        monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: asking.close()))
        with monitor._only(parse(url)):
            assert monitor._running(parse(url)) == os.getpid()
    with path.open("r+") as beginning:
        fcntl.flock(beginning, fcntl.LOCK_EX)
        path.write_text(f"{process.pid} {liveness.pid_namespace()} 7")  # of one that was killed long ago
        begun = f"{os.getpid()} {liveness.pid_namespace()} {liveness.started_at(os.getpid())}"
        monkeypatch.setattr(monitor.time, "sleep", lambda _: path.write_text(begun))
        assert monitor._running(parse(url)) == os.getpid()
        path.write_text("")
        monkeypatch.setattr(monitor, "time", SimpleNamespace(monotonic=iter((1, 3)).__next__))
        with refused("busy", 75):
            monitor._running(parse(url))


def test_no_process_is_taken_for_a_monitor_of_another_namespace(
    command: Command, url: str, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container has pids of its own: of the same number there is somebody else here."""
    monkeypatch.setattr(liveness, "pid_namespace", lambda: "pid:[1]")
    monkeypatch.setattr(os, "getpid", lambda: process.pid)
    with monitor._only(parse(url)):
        assert "of another pid namespace" in command("monitor", "--stop", status=65).stderr
        assert "of another pid namespace" in command("monitor", status=76).stderr
    assert process.poll() is None


def test_a_monitor_that_is_started_by_one_who_ignores_signals_can_be_stopped(command: Command) -> None:
    started = ["bash", "-c", """trap '' TERM; "$@" """, "x", *BUS, "monitor", "--detach"]
    assert b"is running" in subprocess.run(started, capture_output=True, check=True).stdout
    command("monitor", "--stop")


def test_a_killed_monitor_is_no_obstacle(command: Command, wreck: str) -> None:
    pid = json.loads(command("monitor", "--detach", "--json").stdout)["started"]
    process = os.pidfd_open(pid)
    signal.pidfd_send_signal(process, signal.SIGKILL)
    assert select.select([process], [], [], 20)[0]
    os.close(process)
    command("monitor", "--stop", status=1)
    again = json.loads(command("monitor", "--detach", "--json").stdout)["started"]
    assert again != pid
    command("monitor", "--stop")


def test_a_monitor_goes_on_when_the_bus_was_busy(
    wreck: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []
    fates = iter([error("busy"), None, error("busy"), KeyboardInterrupt()])
    with Bus.open(wreck) as bus:
        check, out = bus.monitor_check, Output(wreck)
        monkeypatch.setattr(bus, "monitor_check", lambda by: meets(next(fates)) or check(by=by))
        monkeypatch.setattr(bus, "monitor_wait", lambda interval, since: waits.append(0))
        monkeypatch.setattr(monitor, "time", SimpleNamespace(sleep=waits.append))
        with pytest.raises(KeyboardInterrupt):
            monitor._go_on(out, bus, "7m", False)
        assert waits == [420, 0, 420]
        fates = iter([error("busy")])
        with refused("busy", 75):  # who waits for the first check is told
            monitor._go_on(out, bus, "7m", True)
        fates = iter([None, error("busy"), KeyboardInterrupt()])
        with pytest.raises(KeyboardInterrupt):  # and nobody waits after it
            monitor._go_on(out, bus, "7m", True)
    told = capfd.readouterr()
    assert (told.err, told.out.count("gave back 1,")) == (f"bus: {error('busy')}\n" * 3, 1)
    log = (Path(".milestones") / "logs" / "session-monitor.log").read_text().splitlines()
    busy = [True, False, True, True, False, True]
    assert ["nothing was done: the bus is busy" in line for line in log] == busy


def test_a_monitor_needs_no_working_directory_and_waits_for_room_for_its_log(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Path("worktree").absolute()
    place.mkdir()
    log = folders.log

    def full(path: Path) -> object:
        monkeypatch.setattr(folders, "log", log)  # there is room again
        return open("/dev/full", "ab", buffering=0)

    def wait(interval: str, since: object) -> None:
        if place.exists():
            place.rmdir()
            monkeypatch.setattr(folders, "log", full)
        else:
            raise KeyboardInterrupt

    with Bus.open(Path(".milestones", "coordination.db").absolute(), create=True) as bus:
        monkeypatch.chdir(place)
        monkeypatch.setattr(bus, "monitor_wait", wait)
        monkeypatch.setattr(monitor, "time", SimpleNamespace(sleep=lambda _: None))
        with pytest.raises(KeyboardInterrupt):
            monitor._go_on(Output(), bus, "7m", False)
    told = capfd.readouterr()
    assert (told.out.count("gave back 0,"), told.err) == (2, f"bus: {error('disk_full')}\n")


def test_a_monitor_in_the_background_that_is_broken_off_does_not_stay(command: Command, url: str) -> None:
    with contextlib.closing(sqlite3.connect(url, isolation_level=None)) as hand:
        hand.execute("begin immediate")
        with subprocess.Popen([*BUS, "monitor", "--detach"], stderr=subprocess.PIPE) as starting:
            while not (pid := monitor._running(parse(url))):
                assert starting.poll() is None
            process = os.pidfd_open(pid)
            starting.terminate()
        assert starting.returncode == 143
        hand.execute("rollback")
    assert select.select([process], [], [], 20)[0]
    os.close(process)
    command("monitor", "--stop", status=1)


def meets(fate: BaseException | None) -> None:
    """Raise it, if there is any."""
    if fate:
        raise fate


def test_a_monitor_hands_on_what_a_killed_process_held_at_once(command: Command, url: str, process: Process) -> None:
    command("monitor", "--detach", "--interval", "600")
    # Registered and leased after the monitor's check, by another process: it must notice by itself.
    command("register", "lost", "--type", "validation", "--session", "s", "--pid", str(process.pid))
    with Bus.open(url) as bus:
        bus.send("lost", "lost", TASK, {})
        bus.receive("lost", lease=600)
        process.kill()
        process.wait()
        end = time.monotonic() + 20
        while bus.message(1).status == "leased":
            assert time.monotonic() < end
        assert bus.message(1).status == "ready"
    command("monitor", "--stop")


# --- what is written beside a bus


@pytest.fixture
def generous() -> Iterator[None]:
    """An umask that allows everything to everybody."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("generous")
def test_what_is_written_beside_a_bus_is_its_owners_alone(command: Command, url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("lost", type="validation", session="s", command="exit 3")
        bus.heartbeat("lost", status="failed")
        bus.register("planner", type="milestone-planner", session="p", operation="planning", milestone="m")
        bus.state_save("planner", "milestone-plan", "{}")
    command("monitor", "--once")
    command("recover", "s", "--apply", "resume", "--respawn", status=70)
    command("recover", "p", "--apply", "create-milestone")
    beside = Path(".milestones")
    found = {str(path.relative_to(beside)): path.stat().st_mode & 0o777 for path in [beside, *beside.rglob("*")]}
    assert found == {
        ".": 0o700,
        "active": 0o700,
        "active/m.yaml": 0o600,
        "logs": 0o700,
        "logs/lost.log": 0o600,
        "logs/session-monitor.log": 0o600,
    }


@pytest.mark.usefixtures("generous")
def test_a_folder_for_the_monitors_of_a_server_is_its_owners_alone(postgres: str) -> None:
    Bus.open(postgres, create=True).close()
    done = subprocess.run([*BUS, "--bus", postgres, "monitor", "--stop"], capture_output=True, check=False)
    assert (done.returncode, Path(".milestones").exists()) == (1, False)
    subprocess.run([*BUS, "--bus", postgres, "monitor", "--detach"], capture_output=True, check=True)
    subprocess.run([*BUS, "--bus", postgres, "monitor", "--stop"], capture_output=True, check=True)
    assert [path.stat().st_mode & 0o777 for path in Path(".milestones").glob("*.monitor")] == [0o600]
    assert Path(".milestones").stat().st_mode & 0o777 == 0o700


# --- the functions of bus.sh


def test_the_shell_functions_recover_a_planning_session(shell: Shell, bus: Bus) -> None:
    assert shell("detect_interrupted_sessions") == "no interrupted sessions\n"
    bus.register("planner", type="milestone-planner", session="p", operation="planning", milestone="m9")
    bus.heartbeat("planner", status="failed")
    assert "p        m9         planning" in shell("detect_interrupted_sessions")
    assert "milestone-plan (20): missing" in shell("recover_milestone_session p")
    assert "resume: session p is active" in shell("resume_planning_agents p")
    assert "nothing is left to do" in shell("recover_milestone_session p resume")
    shell("complete_planning_session p", status=65)
    shell("create_milestone_from_recovered_planning p", status=65)
    bus.state_save("planner", "milestone-plan", '{"title": "It\'s \\u00e9"}')
    assert "milestone mine is in " in shell("create_milestone_from_recovered_planning p mine")
    assert 'title: "It\'s \\xE9"' in (Path(".milestones") / "active" / "mine.yaml").read_text()
    assert bus.session_show("p").status == "completed"


def test_the_shell_functions_plan_a_milestone_by_themselves(shell: Shell) -> None:
    shell("""
    register_agent planner milestone-planner m7 plan-7
    for part in scope estimates risks kiro; do save_agent_state planner "planning-$part" x; done
    """)
    shell("complete_planning_session plan-7", status=65)
    shell("""save_agent_state planner milestone-plan '{"title": "Ship it"}'""")
    assert "complete: session plan-7 is completed" in shell("complete_planning_session plan-7")
    assert "milestone m7 is in " in shell("create_milestone_from_recovered_planning plan-7")


@pytest.mark.parametrize("separators", ["$'\\n\\t'", "", ",", "-="])
def test_a_script_may_split_words_at_what_it_likes(shell: Shell, bus: Bus, separators: str) -> None:
    bus.register("planner", type="milestone-planner", session="p")
    bus.heartbeat("planner", status="failed")
    bus.state_save("planner", "milestone-plan", "words")
    script = f"IFS={separators}; recover_milestone_session p resume; create_milestone_from_recovered_planning p mine"
    told = shell(f"{script}; save_agent_state planner k v temp_data 5m; load_agent_state planner k")
    assert "resume: session p is active" in told
    assert "milestone mine is in " in told
    assert told.endswith("\nv\n")


def test_the_shell_functions_complete_a_session(shell: Shell, bus: Bus) -> None:
    for key in ("design", "spec", "task", "execute"):
        bus.state_save("one", f"{key}-phase-results", "x")
    assert "complete: session s is completed" in shell("complete_planning_session s")


def test_the_shell_functions_clean_up_and_count(shell: Shell, bus: Bus) -> None:
    assert shell("cleanup_stale_coordination") == (
        "0 agents and 0 sessions were stale: marked failed\n0 messages given back, 0 buried\n"
    )
    assert "3 agents and 1 session were stale" in shell("cleanup_stale_coordination 0")
    assert shell("cleanup_failed_sessions 24") == "0 failed sessions abandoned\n"
    assert shell("BUS_NOW=+90000 cleanup_failed_sessions") == "1 failed session abandoned\n"
    counts = json.loads(shell("get_session_recovery_status"))
    assert {key: counts[key] for key in ("total", "active", "completed", "failed", "abandoned", "stale")} == {
        "total": 1, "active": 0, "completed": 0, "failed": 0, "abandoned": 1, "stale": 0,
    }  # fmt: skip
    shell("cleanup_stale_coordination soon", status=64)
    assert "recover_milestone_session SESSION" in shell("show_recovery_help")


def test_the_shell_functions_start_and_stop_a_monitor(shell: Shell) -> None:
    assert "is running" in shell("start_session_monitor 60")
    shell("start_session_monitor", status=76)
    assert (Path(".milestones") / "logs" / "session-monitor.log").read_text().count("\n") == 1
    assert "has ended" in shell("stop_session_monitor")
    assert shell("stop_session_monitor", status=1) == "no monitor runs\n"
