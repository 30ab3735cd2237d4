"""`bus run`, `bus trace`, `bus top` and `bus metrics`, as their users meet them: real processes."""

import asyncio
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from bus_cli import top
from bus_cli.child import TAIL, Child, Copy
from bus_cli.main import cli
from bus_client import Agent, AsyncAgent
from bus_client.respawn import respawn
from prometheus_client.openmetrics import parser
from rich.console import Console

from bus import Bus, clock, trace_context
from bus.errors import TryAgain, error
from tests.clients.test_command_line import BUS, bus
from tests.namespaces import unshared

Run = subprocess.CompletedProcess[bytes]
SQLITE = """sqlite3 -cmd '.timeout 5000' "$BUS_URL\""""


@pytest.fixture
def here(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bus, named by BUS_URL, and the command on the path."""
    monkeypatch.setenv("BUS_URL", url)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    return url


def run(*arguments: str, script: str, stdin: bytes = b"", **environment: str) -> Run:
    """Run a shell script as a traced agent."""
    command = [*BUS, "run", "--type", "execute-phase", "--task", "t", *arguments, "--", "sh", "-c", script]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env={**os.environ, **environment})


def record(id: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bus("trace", "show", str(id), "--json"))
    return found


# --- bus run


def test_a_command_is_on_record_from_its_start_to_its_end(here: str) -> None:
    done = run("--priority", "042", "--task-type", "bug", "--metadata", '{"a": 1}', script="echo out; echo err >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")
    found = record()
    assert (found["status"], found["exit_code"], found["error_message"]) == ("completed", 0, None)
    assert (found["priority_number"], found["task_type"], found["metadata"]) == ("042", "bug", {"a": 1})
    assert sorted(found["output_tail"].split()) == ["err", "out"]
    assert found["duration_ms"] >= found["idle_time_ms"] >= 0
    assert found["worktree_path"] == os.getcwd()
    assert found["command"] == "sh -c 'echo out; echo err >&2'"


def test_its_exit_status_is_returned(here: str) -> None:
    assert run(script="exit 7").returncode == 7
    assert (record()["status"], record()["exit_code"], record()["error_message"]) == ("failed", 7, "exit status 7")
    assert run(script="kill -9 $$").returncode == 137
    assert (record(2)["status"], record(2)["exit_code"], record(2)["error_message"]) == (
        "killed",
        137,
        "killed by SIGKILL",
    )
    assert run(script="exit 137").returncode == 137
    assert record(3)["status"] == "failed", "it ended by itself"


def test_a_command_that_is_not_there_failed_and_never_ran(here: str) -> None:
    bus("run", "--type", "validation", "--task", "t", "--session", "s", "--", "no-such-command", status=127)
    assert (record()["status"], record()["started_at"], record()["exit_code"]) == ("failed", None, 127)
    assert json.loads(bus("agents", "--json"))[0]["status"] == "failed"
    assert bus("trace", "active", "--json") == "[]\n"
    Path("data").write_text("no program")
    bus("run", "--type", "x", "--task", "t", "--", "./data", status=126)
    assert record(2)["exit_code"] == 126


@pytest.mark.parametrize("options", [[], ["--session", "s"], ["--worktree", os.fsdecode(b"/caf\xe9")]])
def test_names_that_are_not_utf_8_are_recorded_readably(here: str, options: list[str], tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    options = ["--type", "validation", "--task", "t", *options]
    command = [*BUS, "run", *options, "--", "printf", "%s", os.fsdecode(b"a\xe9"), "€"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    assert done.stdout == b"a\xe9" + "€".encode()
    assert record()["command"] == "printf %s 'a\\xe9' '€'"
    assert record()["worktree_path"].endswith(r"/caf\xe9")


def test_what_can_not_be_recorded_does_not_run(here: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for status, options in ((65, ["--session", "s", "--type", "plumber"]), (65, ["--metadata", "{", "--type", "x"])):
        bus("run", *options, "--task", "t", "--", "touch", str(mark), status=status)
    bus("run", "--bus", str(tmp_path / "none.db"), "--type", "x", "--task", "t", "--", "touch", str(mark), status=66)
    assert not mark.exists()
    assert json.loads(bus("trace", "timeline", "--json"))["agents"] == []
    assert bus("session", "list", "--json") == "[]\n"


def test_the_command_knows_who_it_is(here: str) -> None:
    script = 'echo "$BUS_TRACE $BUS_AGENT $BUS_AGENT_TYPE $BUS_SESSION $BUS_URL $TRACEPARENT"'
    done = run("--session", "s", script=script, BUS_AGENT="boss", BUS_AGENT_TYPE="milestone-coordinator")
    id, agent, type, session, url, traceparent = done.stdout.decode().split()
    assert (id, agent, type, session, url) == ("1", "execute-phase-1", "execute-phase", "s", here)
    assert trace_context.parse(traceparent)
    assert record()["registry_id"] == "execute-phase-1"
    (registered,) = json.loads(bus("agents", "--json"))
    assert (registered["agent_id"], registered["status"]) == ("execute-phase-1", "completed")


@pytest.mark.parametrize(("options", "agent"), [((), "nobody"), (("--agent", "own"), "own")])
def test_outside_of_a_session_it_is_not_its_caller(here: str, options: Sequence[str], agent: str) -> None:
    done = run(*options, script='echo "${BUS_AGENT-nobody} $BUS_AGENT_TYPE"', BUS_AGENT="boss")
    assert done.stdout.decode().split() == [agent, "execute-phase"]


def test_it_is_registered_while_it_runs_and_what_it_sends_stands_in_its_trace(here: str) -> None:
    done = run("--session", "s", "--agent", "me", script="bus send you task_assignment '{}' && bus agents --json")
    assert done.returncode == 0, done.stderr
    (agent,) = json.loads(done.stdout.split(b"\n", 1)[1])
    assert (agent["agent_id"], agent["status"], agent["pid"]) == ("me", "active", record()["pid"])
    with Bus.open(here) as opened:
        (message,) = opened.messages()
        ids = {s.key: s.value for s in opened.config_list()}
    context = trace_context.parse(message.traceparent)
    assert context == trace_context.life(ids["bus_id"], 1, "s", None)


def test_output_goes_through_byte_for_byte_and_only_its_end_is_kept(here: str) -> None:
    data = bytes(range(256)) * 2000
    done = run(script="cat", stdin=data)
    assert done.stdout == data
    tail = record()["output_tail"]
    assert tail.encode()[-128:-1] == data[-4096:].decode("utf-8", "replace").replace("\0", "\ufffd").encode()[-128:-1]


@pytest.mark.parametrize("pieces", [[10], [3000, 3000], [4000] * 5, [1] * 5000])
def test_of_what_a_command_prints_a_few_kilobytes_are_kept(pieces: list[int]) -> None:
    child = object.__new__(Child)
    child._tail = deque()
    for number, length in enumerate(pieces):
        child.keep(bytes([97 + number % 26]) * length)
    whole = "".join(chr(97 + number % 26) * length for number, length in enumerate(pieces))
    assert child.tail() == whole[-TAIL:]
    assert sum(map(len, child._tail)) < 2 * TAIL


def test_a_child_it_leaves_behind_does_not_hold_it(here: str) -> None:
    done = run(script="sleep 300 & echo $!")
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0


def test_nobody_reading_ends_the_command_as_it_would_without(here: str) -> None:
    line = f"{' '.join(BUS)} run --type x --task t -- yes | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True)
    assert done.stdout.split() == [b"y", b"y", b"141"]
    assert record()["error_message"] == "killed by SIGPIPE"


def test_what_can_not_be_passed_on_is_told(here: str) -> None:
    line = f"{' '.join(BUS)} run --type x --task t -- echo yes >/dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert done.stderr == "bus: not all that echo printed could be passed on: No space left on device\n"
    assert record()["output_tail"] == "yes\n"


@contextmanager
def started(*arguments: str, script: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*BUS, "run", "--type", "x", "--task", "t", *arguments, "--", "sh", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(here: str, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    with started(script=f'trap "echo caught; exit 5" {name}; echo ready; while :; do sleep 0.05; done') as process:
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert (out, errors, process.returncode) == (b"caught\n", b"", 5)


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM"])
def test_what_its_parent_ignores_the_command_ignores(here: str, name: str) -> None:
    command = f"sh -c 'kill -{name} $$; sleep 0.1; echo alive'"
    line = f"trap '' {name} CHLD; {' '.join(BUS)} run --type x --task t -- {command}"
    assert subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout == b"alive\n"


def test_a_full_pipe_that_does_not_block_loses_nothing(here: str) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(
        [*BUS, "run", "--type", "x", "--task", "t", "--", "head", "-c", "1000000", "/dev/zero"], stdout=writing
    ) as process:
        os.close(writing)
        with open(reading, "rb") as pipe:
            assert len(pipe.read()) == 1_000_000
        assert process.wait(30) == 0


def test_a_signal_that_ends_the_command_is_told(here: str) -> None:
    with started(script="echo ready; exec sleep 600") as process:
        process.terminate()
        assert process.wait(20) == 143
    assert (record()["status"], record()["error_message"]) == ("killed", "killed by SIGTERM")


@pytest.mark.parametrize(
    ("name", "status"), [("KILL", "failed"), ("SEGV", "failed"), ("TERM", "terminated"), ("HUP", "terminated")]
)
def test_who_is_killed_is_recovered_but_for_who_was_asked_to_end(here: str, name: str, status: str) -> None:
    command = ["run", "--type", "validation", "--task", "t", "--session", "s", "--agent", "a", "--", "sh", "-c"]
    bus(*command, f"ulimit -c 0; kill -{name} $$", status=128 + getattr(signal, f"SIG{name}"))
    assert (json.loads(bus("agents", "--json"))[0]["status"], record()["status"]) == (status, "killed")
    assert len(json.loads(bus("interrupted", "--json"))) == (status == "failed")
    told = bus("recover", "s", "--apply", "resume", "--respawn", "--dry-run")
    assert ("would start a again: " in told) == (status == "failed")


def test_who_is_started_again_is_on_record_again(
    here: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["--type", "validation", "--task", "two words", "--priority", "-1", "--metadata", '{"a": 1}']
    script = 'echo "$0"; [ -e ran ] || { touch ran; kill -9 $$; }'
    bus("run", *told, "--session", "s", "--", "sh", "-c", script, "$HOME 'x'", status=137)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    with Bus.open(here) as open_bus:
        open_bus.recovery_apply("s", "resume", by="me")
        (started,) = respawn(open_bus, "s", settling=60)
    assert (started.agent_id, started.fate, started.exit_status) == ("validation-1", "ended", 0)
    assert Path(started.output).read_text() == "$HOME 'x'\n"
    first, again = record(1), record(2)
    assert (first["status"], again["status"], again["output_tail"]) == ("killed", "completed", "$HOME 'x'\n")
    same = (
        "registry_id",
        "agent_type",
        "task_id",
        "priority_number",
        "metadata",
        "command",
        "session_id",
        "worktree_path",
    )
    assert [first[name] for name in same] == [again[name] for name in same]


def test_ctrl_c_at_a_terminal_reaches_the_command_once(here: str) -> None:
    count = "trap 'n=$((n+1))' INT; echo ready; while [ ${n:-0} -lt 1 ]; do sleep 0.05; done; sleep 0.3; echo n=$n"
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(BUS[0], [*BUS, "run", "--type", "x", "--task", "t", "--", "bash", "-c", count])
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while b"n=" not in seen:
        seen += os.read(terminal, 1024)
    assert b"n=1" in seen
    os.waitpid(pid, 0)
    os.close(terminal)


def test_a_terminal_that_hangs_up_ends_the_command(here: str) -> None:
    """It tells only the leader of its session: `bus run`, where ssh or tmux started it."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(BUS[0], [*BUS, "run", "--type", "x", "--task", "t", "--", "sh", "-c", "echo ready; exec sleep 20"])
    seen = b""
    while b"ready" not in seen:
        seen += os.read(terminal, 1024)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 129
    assert record()["error_message"] == "killed by SIGHUP"


def test_in_a_container_of_its_own_it_leaves_no_zombies(here: str) -> None:
    alone = "(true &); (true &); until set -- /proc/[0-9]*; [ $# = 2 ]; do sleep 0.01; done; echo alone"
    command = [
        *unshared("-p", "-f", "--kill-child", "--mount-proc"),
        *BUS,
        "run",
        "--type",
        "x",
        "--task",
        "t",
        "--",
        "sh",
        "-c",
        alone,
    ]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stdout == b"alone\n"


def test_where_no_thread_can_be_started_nobody_is_left_at_work(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(self: Copy) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Copy, "start", none)
    with pytest.raises(TryAgain, match="no thread can be started"):
        cli.main(["run", "--type", "validation", "--task", "t", "--session", "s", "--", "true"], standalone_mode=False)
    assert [agent["status"] for agent in json.loads(bus("agents", "--json"))] == ["failed"]
    assert record()["status"] == "failed"


def test_where_no_process_can_be_started_nothing_is_on_record(here: str) -> None:
    script = """import errno, os
def none():
    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
os.fork = none
from bus_cli.main import main
main()"""
    arguments = ["run", "--type", "validation", "--task", "t", "--session", "s", "--", "true"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr.startswith("bus: no process can be started: Resource temporarily unavailable; ")
    assert json.loads(bus("agents", "--json")) == []


def test_an_agent_that_was_started_again_elsewhere_does_not_end_with_the_command(here: str) -> None:
    again = f'bus register "$BUS_AGENT" --type execute-phase --session s --pid {os.getpid()}; exit 3'
    assert run("--session", "s", "--agent", "worker", script=again).returncode == 3
    assert record()["status"] == "failed"
    (agent,) = json.loads(bus("agents", "--json"))
    assert (agent["status"], agent["pid"]) == ("active", os.getpid())


def test_an_agent_that_was_started_again_on_another_host_does_not_end_with_the_command(here: str) -> None:
    again = f'bus register $BUS_AGENT --type execute-phase --session s --pid {os.getpid()}; {SQLITE} "$MOVE"'
    move = "update agent_registry set host = 'elsewhere', boot_id = 'another', pid_namespace = 'pid:[1]'"
    assert run("--session", "s", "--agent", "worker", script=again, MOVE=move).returncode == 0
    (agent,) = json.loads(bus("agents", "--json"))
    assert (agent["status"], agent["host"]) == ("active", "elsewhere")


def test_an_agent_whose_host_was_renamed_ends_with_the_command(here: str) -> None:
    renamed = f"""{SQLITE} "update agent_registry set host = 'renamed'\""""
    assert run("--session", "s", "--agent", "worker", script=renamed).returncode == 0
    (agent,) = json.loads(bus("agents", "--json"))
    assert (agent["status"], agent["host"]) == ("completed", "renamed")


def test_a_script_that_registers_itself_without_a_pid_ends_with_the_command(here: str) -> None:
    again = 'bus register "$BUS_AGENT" --type execute-phase --session s'
    assert run("--session", "s", "--agent", "worker", script=again).returncode == 0
    (agent,) = json.loads(bus("agents", "--json"))
    assert (agent["status"], agent["pid"]) == ("completed", None)


def test_killed_with_its_runner_it_is_found_dead(here: str) -> None:
    with started(script="echo ready; exec sleep 600") as process:
        pid = record()["pid"]
        process.kill()
        process.wait()
        (active,) = json.loads(bus("trace", "active", "--json"))
        assert (active["pid"], active["life"]) == (pid, "alive")
        os.kill(pid, signal.SIGKILL)
        wait_gone(pid)
    assert bus("trace", "active", "--json") == "[]\n"
    assert (record()["status"], record()["unseen"]) == ("killed", True)


def wait_gone(pid: int) -> None:
    descriptor = None
    try:
        descriptor = os.pidfd_open(pid)
        select.select([descriptor], [], [], 20)
    except ProcessLookupError:
        pass
    finally:
        if descriptor is not None:
            os.close(descriptor)


def test_a_report_while_it_ends_does_not_spoil_the_record(here: str) -> None:
    """A zombie is gone for everybody but whoever waits for it; that one still says how it ended."""
    with Bus.open(here) as opened:
        id = opened.trace_spawn("x", "t", pid=os.getpid())
        with subprocess.Popen(["true"]) as zombie:
            os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
            opened.trace_start(id, pid=zombie.pid)
            assert opened.trace_active() == []
            assert opened.trace_finish(id, exit_code=zombie.wait()).status == "completed"


# --- bus trace


def test_a_process_started_otherwise_is_put_on_record(here: str) -> None:
    id = bus("trace", "spawn", "--type", "x", "--task", "t", "--pid", str(os.getpid()), "--priority", "1.5").strip()
    bus("trace", "start", id)
    (active,) = json.loads(bus("trace", "active", "--json"))
    assert (active["agent_id"], active["status"], active["priority_number"]) == (int(id), "running", "1.5")
    assert "failed" in bus("trace", "finish", id, "--exit-code", "2", "--error", "tired")
    assert (record()["exit_code"], record()["error_message"]) == (2, "tired")


def test_a_process_is_put_on_record_in_the_session_around_it(here: str) -> None:
    spawn = ("trace", "spawn", "--type", "x", "--task", "t", "--pid", str(os.getpid()))
    bus(*spawn, BUS_SESSION="around")
    bus(*spawn, "--session", "told", BUS_SESSION="around")
    assert [record(id)["session_id"] for id in (1, 2)] == ["around", "told"]


def test_wrong_input_is_told_in_a_line_and_writes_nothing(here: str, tmp_path: Path) -> None:
    own = str(os.getpid())
    bus("trace", "spawn", "--type", "x", "--task", "t", "--pid", own)
    before = record()
    Path("binary").write_bytes(b"\xff\xfe")
    Path("broken.json").write_text("{")
    Path("other.json").write_text("{}")
    for status, arguments in (
        (64, ["spawn", "--type", "x", "--task", "t"]),
        (64, ["spawn", "--type", "x", "--task", "t", "--pid", "0"]),
        (64, ["spawn", "--type", "x", "--task", "t", "--pid", "me"]),
        (65, ["spawn", "--type", "x", "--task", "t", "--pid", own, "--at", "2999-01-01T00:00:00Z"]),
        (65, ["spawn", "--type", "x", "--task", "t", "--pid", own, "--at", "tomorrow"]),
        (65, ["finish", "1"]),
        (65, ["start", "1", "--at", "2020-01-01T00:00:00Z"]),
        (66, ["finish", "99"]),
        (66, ["start", "99"]),
        (64, ["finish", "x"]),
        (64, ["bottlenecks", "--limit", "0"]),
        (64, ["throughput", "--by", "week"]),
        (64, ["velocity", "--days", "0"]),
        (64, ["import", "missing.json"]),
        (65, ["import", "binary"]),
        (65, ["import", "broken.json"]),
        (65, ["import", "other.json"]),
        (64, ["timeline", "--svg", "/no/such/folder/x.svg"]),
        (64, ["export", "--otlp", "localhost"]),
        (64, ["export", "--otlp", "http://localhost:99999"]),
        (64, ["export", "--otlp", "http://[::1"]),
        (64, ["export", "--otlp", "http://localhost", "--header", "x=a\nb"]),
        (64, ["export", "--otlp", "http://localhost", "--header", "x"]),
    ):
        assert bus("trace", *arguments, status=status) == ""
    assert record() == before
    bus("trace", "start", "1")
    bus("trace", "finish", "1")
    bus("trace", "finish", "1", status=76)
    assert bus("trace", "throughput", "--json").count("period") == 1


def test_every_report_has_words_and_json(here: str) -> None:
    run("--priority", "7", script="exit 0")
    run(script="exit 1")
    bus("trace", "spawn", "--type", "x", "--task", "t", "--pid", str(os.getpid()))
    for report, word in (
        ("active", "alive"),
        ("velocity", "50.0 %"),
        ("bottlenecks", "execute-phase"),
        ("timeline", "priority 7"),
        ("throughput", "completed"),
        ("waiting", "has not started"),
    ):
        assert word in "".join([*bus("trace", report), *json.dumps(json.loads(bus("trace", report, "--json")))])
    found = json.loads(bus("trace", "velocity", "--type", "execute-phase", "--json"))
    assert [(v["completed"], v["failed"], v["success_rate"]) for v in found] == [(1, 1, 0.5)]
    assert json.loads(bus("trace", "timeline", "--priority", "7", "--json"))["agents"][0]["agent_id"] == 1
    assert json.loads(bus("trace", "waiting", "--json"))[0]["on"] == "agent"


def test_moments_are_printed_in_rfc_3339(here: str) -> None:
    run("--priority", "7", script="exit 0")
    bus("trace", "spawn", "--type", "x", "--task", "t", "--pid", str(os.getpid()))
    with Bus.open(here) as opened:
        opened.register("planner", type="milestone-planner", session="p", operation="planning", milestone="m")
        opened.state_save("planner", "milestone-plan", "words")
        opened.recovery_apply("p", "create-milestone", by="me")
    timeline = json.loads(bus("trace", "timeline", "--json"))
    ran, waits = timeline["agents"]
    ran_at = [ran["spawned"], ran["started"], ran["ended"]]
    milestone = json.loads(bus("milestone", "export", "m", "--json"))
    period, *_ = json.loads(bus("trace", "throughput", "--json"))
    moments = [timeline["now"], *ran_at, waits["spawned"], period["period"]]
    moments += [milestone[name] for name in ("created_at", "updated_at", "recovered_at")]
    for moment in moments:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", moment), moments
    assert ran_at == sorted(ran_at)
    assert (waits["started"], waits["ended"]) == (None, None)


def test_an_empty_bus_has_empty_reports(here: str) -> None:
    for report in ("active", "velocity", "bottlenecks", "throughput", "waiting"):
        assert bus("trace", report, "--json") == "[]\n"
    assert "no agent is on record" in bus("trace", "timeline")


def test_the_timeline_is_drawn_in_a_terminal_and_as_a_picture(here: str, tmp_path: Path) -> None:
    with Bus.open(here) as opened:
        for n, status in enumerate(["completed", "failed", "killed"]):
            at = f"2025-06-01T12:0{n}:00Z"
            id = opened.trace_spawn("<b>&\u202e\uffff\U000e0041", f"t{n}", pid=os.getpid(), priority=7, at=at)
            opened.trace_start(id, at=f"2025-06-01T12:0{n}:30Z")
            opened.trace_finish(id, status=status, at=f"2025-06-01T12:0{n + 1}:00Z")
    drawn = bus("trace", "timeline", COLUMNS="80").splitlines()
    assert drawn[0] == "2025-06-01T12:00:00Z to 2025-06-01T12:03:00Z, 3m 0s"
    assert drawn[1] == "priority 7"
    for line in drawn[2:]:
        assert line.count("░") > 5
        assert abs(line.count("░") - line.count("█")) <= 1
    assert set("\u202e\uffff\U000e0041").isdisjoint("".join(drawn))
    assert bus("trace", "timeline", "--svg", "out.svg") == ""
    assert bus("trace", "timeline", "--svg", "-").startswith("<svg")
    assert not Path("-").exists()
    picture = ElementTree.parse("out.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{name}svg"
    assert len(picture.findall(f".//{name}title")) == 3
    assert len(picture.findall(f"{name}g/{name}rect")) == 2 * 3
    words = [text.text for text in picture.iter(f"{name}text")]
    assert words[:2] == ["2025-06-01 12:00:00", "2025-06-01 12:00:30"]
    assert words[-5:] == ["idle", "completed", "failed", "killed", "running"]


def test_a_timeline_tells_what_runs_what_took_no_time_and_what_nobody_knows(here: str) -> None:
    with Bus.open(here) as opened:
        for task, end in (("short", {"exit_code": 0}), ("runs", None)):
            id = opened.trace_spawn("x", task, pid=os.getpid(), at="2025-06-01T12:00:00Z")
            opened.trace_start(id, at="2025-06-01T12:00:00Z")
            if end:
                opened.trace_finish(id, at="2025-06-01T12:00:00Z", **end)
        unknown = {"pid": 1, "agent_type": "x", "task_id": "unknown", "started_at": "2025-06-01T12:00:00Z"}
        opened.trace_import(json.dumps({"completed_agents": [unknown]}))
    drawn = {line.split()[2]: line.split()[3:] for line in bus("trace", "timeline").splitlines()[2:]}
    assert drawn["short"] == ["█", "0", "ms"]
    assert drawn["unknown"] == ["?", "-"]
    assert drawn["runs"][0].endswith("█>")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (None, "-"), (0, "0 ms"), (999, "999 ms"), (1000, "1.0 s"), (59_900, "59.9 s"), (60_000, "1m 0s"),
        (3_599_000, "59m 59s"), (3_600_000, "1h 0m"), (90_000_000, "25h 0m"),
    ],
)  # fmt: skip
def test_times_are_told_for_people(given: float | None, shown: str) -> None:
    assert top.milliseconds(given) == shown


def test_of_what_a_command_printed_the_last_lines_are_shown(here: str) -> None:
    assert run(script="seq 1 20").returncode == 0
    assert re.findall(r"(?m)^output +(.*)$", bus("trace", "show", "1")) == ["16", "17", "18", "19", "20"]


def test_who_waits_by_a_clock_that_is_ahead_waits_for_no_time(here: str) -> None:
    bus("register", "anna", "--type", "validation", "--session", "s")
    bus("send", "bert", "task_assignment", "{}", "--from", "anna", BUS_NOW="+100")
    (line,) = bus("trace", "waiting").splitlines()[1:]
    assert " 0 ms " in line


def test_moments_less_than_a_second_apart_are_told_apart(here: str) -> None:
    with Bus.open(here) as opened:
        id = opened.trace_spawn("x", "t", pid=os.getpid(), at="2025-06-01T12:00:00Z")
        opened.trace_start(id, at="2025-06-01T12:00:01Z")
        opened.trace_finish(id, at="2025-06-01T12:00:03Z")
    bus("trace", "timeline", "--svg", "out.svg")
    words = [text.text for text in ElementTree.parse("out.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert words[:2] == ["2025-06-01 12:00:00.000", "2025-06-01 12:00:00.500"]


def test_a_file_of_agents_is_imported(here: str) -> None:
    entry = {
        "pid": 5, "agent_type": "x", "task_id": 1, "command": "c", "status": "completed",
        "started_at": "2025-06-01T12:00:00.5", "completed_at": "2025-06-01T12:00:02",
    }  # fmt: skip
    Path("agent_state.json").write_text(json.dumps({"active_agents": {}, "completed_agents": [entry]}))
    assert bus("trace", "import", "agent_state.json", "--timezone", "UTC").startswith("1 added")
    again = bus("trace", "import", "agent_state.json", "--timezone", "UTC")
    assert again == "0 added (0 of them gone unseen), 0 updated, 1 left\n       1  already on record\n"
    assert record()["duration_ms"] == 1500
    text = Path("agent_state.json").read_text()
    assert json.loads(bus("trace", "import", "-", "--timezone", "UTC", "--json", stdin=text))["left"] == 1


# --- Python agents


def test_python_agents_record_themselves(here: str) -> None:
    with Agent("one", type="validation", session="s", bus=here, task="t-9", priority="042") as agent:
        (life,) = agent.bus.trace_active()
        assert (life.registry_id, life.task_id, life.priority_number, life.status) == ("one", "t-9", "042", "running")
    assert (record()["status"], record()["duration_ms"] >= 0) == ("completed", True)
    with pytest.raises(RuntimeError), Agent("two", type="validation", session="s", bus=here):
        raise RuntimeError("no\0way")
    assert (record(2)["status"], record(2)["task_id"]) == ("failed", "s")
    assert record(2)["error_message"] == "RuntimeError: no\ufffdway"


def test_agents_of_coroutines_record_themselves(here: str) -> None:
    async def work() -> None:
        async with AsyncAgent("one", type="validation", session="s", bus=here, task="t-9", priority=1.5) as agent:
            (life,) = await agent.bus.trace_active()
            assert (life.registry_id, life.task_id, life.priority_number) == ("one", "t-9", "1.5")

    asyncio.run(work())
    assert record()["status"] == "completed"


def test_an_agent_under_bus_run_is_on_record_once(here: str) -> None:
    script = "from bus_client import Agent\nwith Agent('me', type='validation', session='s'): pass\nraise SystemExit(3)"
    command = [*BUS, "run", "--type", "validation", "--task", "t", "--", sys.executable, "-c", script]
    assert subprocess.run(command, check=False).returncode == 3
    assert (record()["status"], record()["registry_id"], record()["exit_code"]) == ("failed", "me", 3)
    assert len(json.loads(bus("trace", "timeline", "--json"))["agents"]) == 1


# --- bus metrics, bus top


def families(text: str) -> dict[str, Any]:
    return {family.name: family for family in parser.text_string_to_metric_families(text)}


def test_metrics_are_what_the_official_parser_reads(here: str) -> None:
    with Bus.open(here) as opened:
        opened.register("a", type="validation", session="s")
        opened.types_add("agent", "own-type")
        opened.send("a", "b", "task_assignment", {})
        opened.send("a", "@own-type", "task_assignment", {})
        id = opened.trace_spawn('x"\\\n', "t", pid=os.getpid(), at="2025-06-01T12:00:00Z")
        opened.trace_start(id, at="2025-06-01T12:00:01Z")
        opened.trace_finish(id, at="2025-06-01T12:00:10Z")
    text = bus("metrics")
    assert text.endswith("# EOF\n")
    found = families(text)
    depth = {sample.labels["mailbox"]: sample.value for sample in found["agent_bus_queue_depth"].samples}
    assert depth == {"b": 1, "@own-type/s": 1}
    assert [s.value for s in found["agent_bus_sent_messages"].samples] == [2]
    assert {(s.labels["status"], s.value) for s in found["agent_bus_messages"].samples} == {("ready", 2.0)}
    took = {
        (s.name, s.labels.get("quantile")): s.value for s in found["agent_bus_traced_agent_duration_seconds"].samples
    }
    assert took[("agent_bus_traced_agent_duration_seconds", "0.95")] == 10
    assert took[("agent_bus_traced_agent_duration_seconds_count", None)] == 1
    assert {s.labels["agent_type"] for s in found["agent_bus_traced_agents"].samples} == {'x"\\\n'}
    assert found["agent_bus_file_bytes"].samples[0].value > 4096
    assert found["agent_bus_queue_oldest_age_seconds"].unit == "seconds"


def test_metrics_of_an_empty_bus_are_read_too(here: str) -> None:
    assert families(bus("metrics"))["agent_bus_sent_messages"].samples[0].value == 0
    names = {family["name"] for family in json.loads(bus("metrics", "--json"))}
    assert names == set(families(bus("metrics")))
    assert "agent_bus_file_bytes" in names


def test_no_label_moves_the_cursor(here: str) -> None:
    with Bus.open(here) as opened:
        opened.trace_spawn("\x1b[31m\rx", "t", pid=os.getpid())
    assert not set(bus("metrics")) & set("\x1b\r")


def test_what_differs_in_control_characters_alone_are_two_labels(here: str) -> None:
    types = ["x\x01", "x\x02", "x\\u0001", "x\\\x01", "x\\\\u0001", "x\ufffd", "x\x9b", "x\\y"]
    with Bus.open(here) as opened:
        for type in types:
            opened.trace_spawn(type, "t", pid=os.getpid())
    found = [sample.labels["agent_type"] for sample in families(bus("metrics"))["agent_bus_traced_agents"].samples]
    assert len(set(found)) == len(found) == len(types)
    assert {"x\\u0001", "x\\u0002", "x\ufffd", "x\\y"} < set(found)


def test_top_shows_what_happens(here: str) -> None:
    with Bus.open(here) as opened:
        opened.register("anna", type="validation", session="s", pid=os.getpid())
        opened.send("anna", "bert", "task_assignment", {})
        opened.send("anna", "anna", "task_assignment", {})
        opened.receive("anna")
    shown = bus("top")
    for word in ("anna", "bert", "alive", "in flight", "sent/s"):
        assert word in shown
    found = json.loads(bus("top", "--json"))
    assert found["in_flight"] == 1
    assert (found["queues"][0]["mailbox"], found["queues"][0]["ready"]) == ("bert", 1)


def test_top_tells_how_long_a_lease_lasts_and_that_it_is_over(here: str) -> None:
    with Bus.open(here) as opened:
        opened.register("anna", type="validation", session="s")
        opened.send("anna", "anna", "task_assignment", {})
        opened.receive("anna", lease=60)
        found = opened.overview()

    def told(now: float) -> list[Any]:
        return list(top._agents(top._lives(found, now), now))

    (cells,) = told(clock.parse(found.now))
    assert str(cells[4]) == "alive", "it gave no process, and was heard of"
    (cells,) = told(clock.parse(found.now) + 1801)
    assert str(cells[4]) == "dead"
    for since, left in ((30, "30.0 s"), (59.5, "500 ms"), (61, "over")):
        (cells,) = top._leased(found, clock.parse(found.leased[0].delivered_at) + since)
        assert cells[-2:] == (top.milliseconds(since * 1000), left)


def test_top_counts_whom_it_does_not_show_and_shows_the_dead_first(here: str) -> None:
    with Bus.open(here) as opened:
        for number in range(30):
            with clock.moved(-7200 if number < 15 else -number):
                opened.register(f"w{number}", type="validation", session=f"s{number % 9}")
        opened.retire("w29")
        found = opened.overview()
    with io.StringIO() as printed:
        Console(file=printed, width=200).print(top.screen(found))
        shown = printed.getvalue()
    assert shown.startswith("9 sessions   29 agents, 15 dead   ")
    assert "\nsessions, 8 of 9 " in shown
    assert "\nagents, 20 of 29 " in shown
    assert re.findall("dead|alive", shown)[2:] == ["dead"] * 10 + ["alive"] * 10


def test_top_tells_when_there_was_more_than_it_counts(here: str) -> None:
    with Bus.open(here) as opened:
        opened.register("anna", type="validation", session="s")
        opened.send("anna", "anna", "task_assignment", {})
        found = opened.overview()
    for sent, told in ((1, " 0.0 sent/s"), (20_000, "≥ 333.3 sent/s   ≥ 0.0 acknowledged/s")):
        with io.StringIO() as printed:
            Console(file=printed, width=200).print(top.screen(msgspec.structs.replace(found, sent=sent)))
            assert told in printed.getvalue()


def test_top_reads_the_bus_only_when_somebody_has_written(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    reads: list[object] = []
    acts: list[Callable[[], object]] = []
    with Bus.open(here) as opened, Bus.open(here) as other:
        acts = [lambda: None, lambda: None, lambda: other.register("x", type="validation", session="s"), lambda: None]

        def sleep(seconds: float) -> None:
            if not acts:
                raise Enough
            acts.pop(0)()

        look = top._look
        monkeypatch.setattr(top.time, "sleep", sleep)
        monkeypatch.setattr(top, "_look", lambda bus: reads.append(bus) or look(bus))
        with pytest.raises(Enough):
            top._follow(opened, 1.0)
    assert len(reads) == 2, "at the beginning, and after the one write"


def test_top_goes_on_when_the_bus_was_busy(here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    with Bus.open(here) as opened, Bus.open(here) as other:
        acts = [lambda: None, lambda: other.register("x", type="validation", session="s")]
        fates = iter([None, error("busy"), Enough()])
        look = top._look

        def looks(bus: Bus) -> object:
            if fate := next(fates):
                raise fate
            return look(bus)

        monkeypatch.setattr(top.time, "sleep", lambda _: acts.pop()() if acts else None)
        monkeypatch.setattr(top, "_look", looks)
        with pytest.raises(Enough):
            top._follow(opened, 1.0)


def test_top_on_a_terminal_follows_until_it_is_interrupted(here: str) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.execvp(BUS[0], [*BUS, "top", "--interval", "0.2"])
    seen = b""
    while b"sessions" not in seen:
        seen += os.read(terminal, 4096)
    with Bus.open(here) as opened:
        opened.register("newcomer", type="validation", session="s")
    while b"newcomer" not in seen:
        seen += os.read(terminal, 4096)
    os.kill(pid, signal.SIGTERM)
    reader = threading.Thread(target=drained, args=(terminal,))
    reader.start()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 143
    reader.join(20)
    os.close(terminal)


def drained(terminal: int) -> None:
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:
        pass
