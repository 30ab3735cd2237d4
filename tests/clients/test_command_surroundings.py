"""The command line in odd surroundings: names of folders, users without a name, readers that leave, small terminals."""

import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from bus_cli.main import Interrupted, Interruption

from bus import Bus
from bus.errors import error
from bus.store.url import Server, Url, parse
from tests.clients.test_command_line import BUS, bus
from tests.namespaces import after, read_only_but_for
from tests.store.test_files import read_only

ECHO = [sys.executable, "-c", "import os; print(os.environ['BUS_URL'])"]
RUN = ["run", "--type", "validation", "--task", "t"]


# --- its process


def test_a_short_command_looks_for_no_garbage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bus("init")
    code = "gc.collect(); gc.callbacks.append(lambda *_: os.write(2, b'looked')); main()"
    command = [sys.executable, "-c", f"import gc, os; from bus_cli.__main__ import main; {code}", "session", "list"]
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stderr == b"none\n"


# --- addresses


@pytest.mark.parametrize("name", ["what?", "100%", "a#b", "a%3Fb", "a b?synchronous=normal", os.fsdecode(b"\xff?")])
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_an_address_made_of_a_path_is_read_back_as_that_path(name: str, synchronous: str) -> None:
    url = Url(f"/tmp/{name}/coordination.db", synchronous)
    assert parse(url.address()) == url


@pytest.mark.parametrize("name", ["what?", "100%", "a#b"])
def test_a_command_that_is_run_finds_the_bus_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    made = bus("init")
    assert bus(*RUN, "--", *BUS, "where") == made


def test_a_command_that_is_run_is_told_the_password_too(postgres: str) -> None:
    given = postgres.replace("postgres@", "postgres:s%2Fcret@", 1)
    bus("--bus", given, "init")
    told = parse(bus("--bus", given, *RUN, "--", *ECHO).strip())
    meant = parse(given)
    assert isinstance(told, Server)
    assert isinstance(meant, Server)
    assert (told.conninfo, told.schema) == (meant.conninfo, meant.schema)
    assert "s%2Fcret" in told.conninfo


THERE = "name a command that is there"


def test_a_command_that_is_not_there_is_named_in_whole() -> None:
    for words, named in (("", "''"), ("/tmp/no such/command", "'/tmp/no such/command'")):
        assert told_of_not_starting(words) == f"bus: {named} can't be run: No such file or directory; {THERE}\n"
        problem = json.loads(told_of_not_starting(words, "--json"))["error"]
        assert (problem["code"], problem["hint"]) == ("usage", THERE)


def told_of_not_starting(name: str, *options: str) -> str:
    bus("init")
    done = subprocess.run([*BUS, *options, *RUN, "--", name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (127, "")
    return done.stderr


# --- users


UNNAMED = """import pwd, sys
def getpwuid(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = getpwuid
from bus_cli.main import main
main()"""


def test_a_user_without_a_name_goes_by_the_number(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with Bus.open(url) as opened:
        opened.register("a", type="validation", session="s")
    for arguments in (["monitor", "--once"], ["cleanup", "--stale", "0"], ["recover", "s", "--apply", "abandon"]):
        command = [sys.executable, "-c", UNNAMED, "--bus", url, *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    with closing(sqlite3.connect(url)) as hand:
        rows = hand.execute("select agent_id from agent_health_log").fetchall()
    assert (f"uid-{os.getuid()}@{os.uname().nodename}",) in rows


# --- readers and terminals


def piped(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A command whose reader is gone before it prints."""
    script = 'mkfifo gone; exec 3<>gone 4>gone 3<&-; rm gone; "$@" >&4'
    return subprocess.run(
        ["bash", "-c", script, "x", *BUS, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("arguments", ["where", "agents", "top --once", "--help", "agents --help", "--version"])
def test_a_reader_that_is_gone_is_told_of_in_one_line(agents: str, arguments: str) -> None:
    done = piped(*arguments.split())
    assert (done.returncode, done.stderr) == (
        70,
        "bus: standard output can't be written: Broken pipe; give it a reader\n",
    )


@pytest.mark.parametrize("arguments", ["agents", "top", "state list a"])
def test_a_closed_output_is_said_plainly(agents: str, arguments: str) -> None:
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "x", *BUS, *arguments.split()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (70, 1)
    assert done.stderr.startswith("bus: standard output is closed")


@pytest.mark.parametrize(
    ("arguments", "status"), [("", 64), ("receive a", 1), ("messages", 0), ("messages --limit x", 64)]
)
def test_whose_errors_nobody_can_take_has_the_same_exit_status(agents: str, arguments: str, status: int) -> None:
    for full in ("/dev/full", "&-"):
        command = ["bash", "-c", f'"$@" 2>{full}', "x", *BUS, *arguments.split()]
        assert subprocess.run(command, capture_output=True, check=False).returncode == status


def test_what_is_no_utf8_is_told_in_json_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / os.fsdecode(b"n\xff")
    place.mkdir()
    monkeypatch.chdir(place)
    for arguments in (["init"], ["where"], ["doctor"], ["backup", "copy.db"], ["restore", "copy.db"]):
        assert json.loads(bus(*arguments, "--json"))
    assert json.loads(bus("where", "--json"))["path"].endswith("n\ufffd/.milestones/coordination.db")
    for arguments in (["copy", os.fsdecode(b"\xff"), "y"], ["where", "--bus", os.fsdecode(b"x://\xff")]):
        done = subprocess.run([*BUS, *arguments, "--json"], capture_output=True, check=False)
        assert json.loads(done.stderr)["error"]["code"] in ("no_bus", "usage")
        assert done.returncode in (64, 66)


def test_an_empty_word_is_not_taken_for_none(agents: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an unset variable of a script leaves it."""
    monkeypatch.setenv("BUS_AGENT", "a")
    for _ in range(2):
        bus("checkpoint", "create", "a")
    for words in (
        ["retire", ""],
        ["checkpoint", "list", ""],
        ["restore", ""],
        ["copy", "", "y.db"],
        ["copy", "x.db", ""],
        ["--bus", "", "where"],
        ["status", "--bus", ""],
    ):
        bus(*words, status=64)
    bus("run", "--type", "x", "--task", "t", "--session", "", "--", "true", status=65)
    id = bus("trace", "spawn", "--type", "x", "--task", "t", "--pid", str(os.getpid())).strip()
    bus("trace", "start", id)
    bus("trace", "finish", id, "--status", "", status=65)
    bus("checkpoint", "prune", "", "--keep", "1")
    bus("checkpoint", "prune", "", "--all", status=64)
    assert len(json.loads(bus("checkpoint", "list", "a", "--json"))) == 2


def test_completion_prints_nothing_beside_what_completes(agents: str) -> None:
    environment = {**os.environ, "_BUS_COMPLETE": "bash_complete", "COMP_WORDS": "bus foo ", "COMP_CWORD": "2"}
    done = subprocess.run([*BUS], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", ["monitor --detach", "trace spawn --type validation --task t --pid 1"])
def test_nothing_is_begun_whose_number_could_not_be_told(agents: str, arguments: str) -> None:
    for closed in (">&-", ">&- 2>&-"):
        command = ["bash", "-c", f'"$@" {closed}', "x", *BUS, *arguments.split()]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 70
    assert json.loads(bus("trace", "active", "--json")) == []
    bus("monitor", "--stop", status=1)


@pytest.mark.parametrize("arguments", ["send a task_assignment {} --from a", "receive a --ack", "receive a"])
def test_what_could_not_be_told_of_is_not_done(agents: str, arguments: str) -> None:
    bus("send", "a", "task_assignment", "{}", "--from", "a")
    done = subprocess.run(["bash", "-c", '"$@" >&-', "x", *BUS, *arguments.split()], capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (70, 1)
    assert [(m["id"], m["status"]) for m in json.loads(bus("messages", "--json"))] == [(1, "ready")]


@pytest.mark.parametrize("locale", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C"}])
def test_tables_are_in_utf8_whatever_the_locale(agents: str, locale: dict[str, str]) -> None:
    for arguments in ("agents", "state list a", "top --once"):
        shown = bus(*arguments.split(), **locale)
        assert "é→" in shown
    drawn = on_terminal("agents", **locale)
    assert "é→" in drawn
    assert "──" in drawn


def on_terminal(*arguments: str, **environment: str) -> str:
    """What a command shows on a terminal of 80 columns."""
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe(BUS[0], [*BUS, *arguments], {**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment})
    seen = b""
    with suppress(OSError):  # it is gone
        while data := os.read(terminal, 4096):
            seen += data
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return seen.decode()


@pytest.fixture
def agents(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bus, named by BUS_URL, with agent a, whose work and words are not ASCII."""
    monkeypatch.setenv("BUS_URL", url)
    with Bus.open(url) as opened:
        opened.register("a", type="validation", session="s")
        opened.heartbeat("a", task="é→")
        opened.state_save("a", "k", "é→")
    return url


def test_on_a_small_terminal_nothing_is_cut_off(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_URL", url)
    with Bus.open(url) as opened:
        opened.register("milestone-executor-001", type="milestone-executor", session="s")
        for _ in range(2):
            opened.send("milestone-executor-001", "milestone-executor-002", "task_assignment", {})
        opened.cancel(1)
        opened.cancel(2)
    shown = on_terminal("dead")
    assert shown.count("cancelled") == 2
    assert "…" not in on_terminal("dead") + on_terminal("messages") + on_terminal("agents") + on_terminal(
        "config", "list"
    )
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines())) <= 80


# --- places that can't be used


@pytest.fixture
def barred(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bus with session s, whose agent has failed, and a working directory where nothing can be written beside it."""
    with Bus.open(url) as opened:
        opened.register("a", type="validation", session="s", command="true")
        opened.heartbeat("a", status="failed")
    (tmp_path / "barred").mkdir()
    monkeypatch.chdir(tmp_path / "barred")
    (tmp_path / "barred" / ".milestones").write_text("in the way")
    return url


@pytest.mark.parametrize(
    "arguments",
    ["monitor --once", "monitor --detach", "recover s --apply restart --respawn", "recover s --apply resume --respawn"],
)
def test_what_can_not_be_logged_is_not_done_and_the_file_is_named(barred: str, arguments: str) -> None:
    done = subprocess.run([*BUS, "--bus", barred, *arguments.split()], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith(f"bus: {os.getcwd()}/.milestones")
    assert done.stderr.count("\n") == 1
    with closing(sqlite3.connect(barred)) as hand:
        assert hand.execute("select count(*) from agent_health_log").fetchone() == (0,)


def test_nothing_is_restarted_whose_log_could_not_be_written(barred: str) -> None:
    Path(".milestones").unlink()
    logs = Path(".milestones", "logs")
    logs.mkdir(parents=True)
    with read_only(logs):
        arguments = ["recover", "s", "--apply", "restart", "--respawn"]
        done = subprocess.run([*BUS, "--bus", barred, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith(f"bus: {logs.absolute()} can't be read or written: ")
    with closing(sqlite3.connect(barred)) as hand:
        assert hand.execute("select count(*) from agent_health_log").fetchone() == (0,)


def test_what_was_applied_is_told_when_the_rest_fails(barred: str) -> None:
    with Bus.open(barred) as opened:
        opened.register("p", type="milestone-planner", session="p", operation="planning", milestone="m9")
        opened.state_save("p", "milestone-plan", '{"title": "Nine"}')
        opened.heartbeat("p", status="failed")
    arguments = ["recover", "p", "--apply", "create-milestone"]
    done = subprocess.run([*BUS, "--bus", barred, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stdout.startswith("create-milestone: session p is completed\n")
    assert done.stderr.startswith(f"bus: {os.getcwd()}/.milestones")
    with Bus.open(barred) as opened:
        assert opened.milestone_show("m9").title == "Nine"


def test_a_working_directory_that_is_gone_is_said_plainly(agents: str) -> None:
    script = 'mkdir gone; cd gone; rmdir ../gone; "$@"'
    for arguments in ([*RUN, "true"], ["checkpoint", "create", "a", "--file", "x"], ["monitor", "--once"]):
        done = subprocess.run(
            ["bash", "-c", script, "x", *BUS, *arguments], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (64, "")
        assert done.stderr == "bus: the working directory is gone; go to one that is there\n"


# --- a bus that is removed


def monitored(act: Callable[[], object]) -> tuple[int, str]:
    """What a monitor ends with, and says, when somebody acts after its first check."""
    command = [*BUS, "monitor", "--interval", "1.2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as one:
        assert one.stdout
        assert one.stdout.readline()
        act()
        _, errors = one.communicate(timeout=20)
    return one.returncode, errors.decode()


def test_where_there_is_no_folder_for_temporary_files_one_is_told_so(tmp_path: Path) -> None:
    """As in a container whose root can only be read."""
    command = [*read_only_but_for(tmp_path), *BUS, "demo"]
    environment = {key: value for key, value in os.environ.items() if key != "TMPDIR"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 70
    assert done.stderr == "bus: there is no folder for temporary files; name one with TMPDIR\n"


def test_a_monitor_runs_where_the_working_directory_can_only_be_read(tmp_path: Path) -> None:
    """As a service has it: its log is beside the bus then."""
    bus("--bus", "elsewhere.db", "init")
    place = tmp_path / "elsewhere.db"
    command = [*read_only_but_for(tmp_path), *BUS, "--bus", str(place), "monitor", "--once"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / ".milestones/logs/session-monitor.log").read_text() == done.stdout


def test_a_bus_needs_no_proc() -> None:
    """There nobody can tell a mount, a process or a file system from another."""
    bus("init")
    command = [
        *after("mount -t tmpfs none /proc", "-m"),
        *BUS,
        "register",
        "one",
        "--type",
        "validation",
        "--session",
        "s",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("again", [True, False])
def test_a_monitor_ends_with_its_bus(tmp_path: Path, again: bool) -> None:
    def act() -> None:
        Path(".milestones").rename("removed")
        if again:
            bus("init")

    bus("init")
    place = tmp_path / ".milestones" / "coordination.db"
    told = f"bus: {place} was removed or replaced meanwhile; start again on what is there\n"
    assert monitored(act) == (66, told)
    assert not (tmp_path / ".milestones" / "logs").exists()


def test_a_monitor_that_ends_with_its_bus_says_so_in_its_log(tmp_path: Path) -> None:
    bus("init")
    bus("backup", "copy.db")
    assert monitored(lambda: bus("restore", "copy.db"))[0] == 66
    log = (tmp_path / ".milestones" / "logs" / "session-monitor.log").read_text()
    assert "was removed or replaced meanwhile" in log.splitlines()[-1]


# --- signals

AT_EVERY_LINE = """
import os, signal, sys
from bus_cli import agents, main, output

FILES = {module.__file__ for module in (agents, main, output)}

def command(when):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_filename in FILES and callable(signal.getsignal(signal.SIGTERM)):
            if event == "line":
                lines += 1
                if lines in (when, when + 1):  # timeout(1) sends it twice
                    signal.raise_signal(signal.SIGTERM)
            return trace
    sys.settrace(trace)
    try:
        main.main(sys.argv[1:])
    finally:
        os._exit(99)

ended, when = 143, 0
while ended == 143:
    when += 1
    if not (child := os.fork()):
        command(when)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(ended, when)
"""


def test_a_signal_at_any_line_of_a_command_ends_it_with_one_line(agents: str) -> None:
    """Of the command line's own code; what the bus does with a signal is tests/store/test_interrupted.py's."""
    ran = [sys.executable, "-c", AT_EVERY_LINE, "--bus", agents, "agents"]
    done = subprocess.run(ran, capture_output=True, text=True, timeout=60, check=False)
    ended, lines = map(int, done.stdout.splitlines()[-1].split())
    assert (ended, lines > 20) == (0, True), done.stderr
    assert set(done.stderr.splitlines()) == {f"bus: {error('interrupted')}"}


def test_a_signal_long_after_the_first_ends_a_command_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    interruption, asked = Interruption(), time.monotonic()
    with pytest.raises(Interrupted):
        interruption(signal.SIGINT, None)
    for later, expected in ((0.5, []), (1.5, [143])):
        monkeypatch.setattr(time, "monotonic", lambda later=later: asked + later)
        interruption(signal.SIGTERM, None)
        assert ended == expected


def test_an_import_that_is_interrupted_shows_no_trace(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    for command in (BUS, [str(Path(sys.executable).with_name("bus"))]):
        done = subprocess.run(
            [*command, "where"], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
