"""The command line as its users meet it: real processes, exit statuses, one line of error."""

import fcntl
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import termios
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bus_cli.text import ascii_json
from rich.cells import cell_len

from bus import Bus, BusError, step

BUS = [sys.executable, "-m", "bus_cli"]


def bus(*arguments: str, status: int = 0, stdin: str | bytes = "", **environment: str) -> str:
    """What a bus command prints; its exit status must be `status`, and its error one line without a trace."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*BUS, *arguments], input=given, capture_output=True, check=False, env={**os.environ, **environment}
    )
    errors = done.stderr.decode()
    assert done.returncode == status, (done, errors)
    assert "Traceback" not in errors
    if status in (64, 65, 66, 70, 75, 76):
        assert errors.count("\n") == 1
        assert errors.startswith(("bus: ", '{"error":'))
    return done.stdout.decode()


@pytest.fixture
def here(url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bus, named by BUS_URL, with agents a and b."""
    monkeypatch.setenv("BUS_URL", url)
    with Bus.open(url) as opened:
        opened.register("a", type="milestone-executor", session="s")
        opened.register("b", type="milestone-executor", session="s")
    return url


def test_the_life_of_a_message(here: str) -> None:
    assert bus("send", "b", "task_assignment", '{"phase": "é\u202e"}', "--from", "a", "--priority", "7") == "1\n"
    assert "ready" in bus("messages", "--to", "b")
    assert json.loads(bus("messages", "--pending", "b", "--json"))[0]["priority"] == 7
    taken = bus("receive", "b", "--lease", "2m")
    assert taken.isascii()
    (message,) = json.loads(taken)
    assert (message["receipt"], message["payload"]) == ("1.1", {"phase": "é\u202e"})
    assert bus("receive", "b", status=1) == "[]\n"
    assert bus("extend", "1.1", "--lease", "5m") == ""
    assert bus("ack", "1.1") == ""
    story = bus("message", "1")
    assert "acknowledged" in story
    assert "\u202e" not in story
    assert bus("release", "1.1", status=76) == ""


def test_what_was_told_is_told_in_words_too(here: str) -> None:
    bus("register", "m", "--type", "validation", "--session", "told", "--milestone", "m7")
    bus("session", "progress", "told", "40", "--phase", "design")
    assert ", 40 %, phase design, milestone m7, 1 agent, last active 2" in bus("session", "show", "told")
    bus("send", "m", "task_assignment", "{}", "--from", "a", "--key", "k", "--correlation", "c", "--reply-to", "7")
    assert bus("messages", "--pending", "") == ""
    assert "key           k\ncorrelation   c\nreply to      7\n" in bus("message", "1")
    id = bus("trace", "spawn", "--type", "x", "--task", "t", "--pid", str(os.getpid()), "--metadata", '{"n": 1}')
    assert 'metadata      {"n":1}\n' in bus("trace", "show", id.strip())


def test_why_a_message_was_given_back_is_told_while_nobody_has_it(here: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    bus("receive", "b")
    bus("release", "1.1", "--reason", "not mine")
    assert "given back    not mine" in bus("message", "1")
    bus("receive", "b")
    assert "given back" not in bus("message", "1")
    bus("release", "1.2", "--reason", "not mine")
    bus("cancel", "1")
    assert "dead          cancelled\n" in bus("message", "1")


def test_pruning_takes_down_the_bells_of_who_waits_no_more(here: str) -> None:
    with Bus.open(here) as waiting:
        waiting.store.connection().listen(["a"]).close()
    bells = Path(f"{here}.bells")
    assert os.listdir(bells)
    for bell in bells.iterdir():
        os.utime(bell, (0, 0))
    bus("prune")
    assert os.listdir(bells) == []


def test_a_message_that_expired_is_told_as_dead_also_when_nobody_has_looked(here: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a", "--expires", "5m")
    assert "ready" in bus("message", "1")
    assert "expired" in bus("message", "1", BUS_NOW="+301")
    assert json.loads(bus("message", "1", "--json", BUS_NOW="+301"))["dead_reason"] == "expired"
    assert json.loads(bus("messages", "--json"))[0]["status"] == "ready", "nothing was changed"


@pytest.mark.parametrize("moment", ["garbage", "1795331000", "+x", "2026-02-30 10:00:00"])
def test_a_moment_that_is_none_is_told_so_and_not_as_damage(here: str, moment: str) -> None:
    for words in (["status"], ["send", "b", "task_assignment", "{}", "--from", "a"]):
        done = subprocess.run([*BUS, *words], capture_output=True, check=False, env={**os.environ, "BUS_NOW": moment})
        assert (done.returncode, done.stdout) == (64, b"")
        assert done.stderr.startswith(b"bus: BUS_NOW is no moment")


@pytest.mark.parametrize("given", [[], ["-"], [""], [" "]])
def test_a_message_without_a_payload_is_told_so(here: str, given: list[str]) -> None:
    command = [*BUS, "send", "b", "task_assignment", *given, "--from", "a"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr.startswith("bus: there is no payload; ")


def test_looking_at_a_mailbox_nobody_has_is_empty(here: str) -> None:
    assert bus("messages", "--to", "nobody", "--json") == "[]\n"
    assert bus("messages", "--pending", "nobody", "--json") == "[]\n"
    assert bus("messages", "--to", "nobody") == ""
    assert bus("messages", "--pending", "nobody", "--to", "nobody", status=64) == ""


def test_errors_have_their_status(here: str, tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database " * 200)
    for status, arguments in (
        (64, ["fly"]),
        (64, ["send", "b"]),
        (64, ["send", "b", "task_assignment", "{}", "--from", "a", "--priority", "high"]),
        (64, ["receive", "a", "--wait", "soon"]),
        (64, ["ack", "1"]),
        (64, ["state", "load", "a"]),
        (65, ["send", "b", "gossip", "{}", "--from", "a"]),
        (65, ["send", "b", "task_assignment", '{"phase": 1}', "--from", "a"]),
        (65, ["send", "b", "task_assignment", "{", "--from", "a"]),
        (65, ["send", "b", "task_assignment", "{}", "--from", "a", "--priority", "11"]),
        (65, ["register", "x y", "--type", "validation", "--session", "s"]),
        (65, ["register", "x", "--type", "plumber", "--session", "s"]),
        (66, ["send", "b", "task_assignment", "{}", "--from", "nobody"]),
        (66, ["session", "show", "nowhere"]),
        (66, ["agents", "--session", "nowhere"]),
        (66, ["agents", "--session", ""]),
        (66, ["message", "99"]),
        (66, ["--bus", "missing.db", "status"]),
        (66, ["status", "--bus", str(text)]),
        (66, ["config", "set", "colour", "red"]),
    ):
        assert bus(*arguments, status=status) == "", arguments


def test_errors_are_json_when_asked_for(here: str) -> None:
    for arguments in (["--json", "message", "9"], ["message", "9", "--json"], ["fly", "--json"]):
        done = subprocess.run([*BUS, *arguments], capture_output=True, check=False)
        assert set(json.loads(done.stderr)["error"]) == {"code", "message", "hint"}
        assert done.stdout == b""


def test_the_identity_may_come_from_the_environment(here: str) -> None:
    assert bus("send", "a", "task_assignment", "{}", BUS_AGENT="a") == "1\n"
    assert len(json.loads(bus("receive", BUS_AGENT="a"))) == 1
    bus("state", "save", "a", "k", "v")
    assert bus("state", "load", "k", BUS_AGENT="a") == "v\n"
    bus("state", "load", "k", status=64, BUS_AGENT="")
    bus("state", "load", status=64, BUS_AGENT="a")
    bus("heartbeat", status=64)


def test_a_value_is_never_saved_in_a_place_that_was_not_meant(here: str) -> None:
    assert bus("state", "save", "k", "-", stdin="one", BUS_AGENT="a") == "1\n"
    assert bus("state", "save", "k", stdin="two", BUS_AGENT="a") == "2\n"
    assert bus("state", "save", "b", "k", "three", BUS_AGENT="a") == "1\n"
    assert bus("state", "save", "b", "k", "-", stdin="four", BUS_AGENT="a") == "2\n"
    assert bus("state", "save", "b", "k", stdin="five") == "3\n"
    assert bus("state", "save", "b", "k", stdin="six", BUS_AGENT="b") == "4\n"
    bus("state", "save", "kk", "vv", stdin="", status=64, BUS_AGENT="a")
    bus("state", "save", "kk", stdin="", status=64)
    with Bus.open(here) as opened:
        assert [(v.state_key, v.state_value) for v in opened.state_list("a")] == [("k", "two")]
        assert [(v.state_key, v.state_value) for v in opened.state_list("b")] == [("k", "six")]
        assert opened.state_list("kk") == []


def test_values_pass_through_unchanged(here: str) -> None:
    value = "'\"\\\r\n $(x) `y` 007 é\u202e\x1b[31m\n\n"
    assert bus("state", "save", "a", "k", "-", stdin=value) == "1\n"
    assert bus("state", "load", "a", "k") == value + "\n"
    assert json.loads(bus("state", "load", "a", "k", "--json")) == {"value": value, "version": 1}
    assert "\x1b" not in bus("state", "list", "a")
    assert bus("state", "save", "a", "k", value, LC_ALL="C") == "2\n"
    assert bus("state", "load", "a", "k", LC_ALL="C") == value + "\n"
    bus("state", "save", "a", "k", "-", stdin=b"\xff", status=65)
    bus("state", "save", "a", "k", "-", stdin=b"a\0b", status=65)
    assert bus("state", "load", "a", "never", status=1) == ""
    assert bus("state", "delete", "a", "k") == ""
    assert bus("state", "watch", "a", "k", "--wait", "0", status=1) == ""


def test_a_negative_number_stays_where_it_was_given(here: str) -> None:
    bus("state", "save", "a", "-7", "3", status=64)
    assert bus("state", "list", "a", "--json") == "[]\n"


def test_a_value_may_be_a_negative_number(here: str) -> None:
    for value in ("-1", "-1.5e3", "-.5", "-7m"):
        bus("state", "save", "a", "k", value, "--type", "progress")
        assert bus("state", "load", "a", "k") == f"{value}\n"
    bus("state", "save", "--ttl", "1h", "a", "k", "--", "-2")
    assert bus("state", "load", "a", "k") == "-2\n"
    assert bus("state", "save", "b", "k", "-3", BUS_AGENT="a") == "1\n"
    for refused in (["session", "progress", "s", "-1"], ["config", "set", "lease_seconds", "-1"]):
        bus(*refused, status=65)
    for refused in (
        ["state", "save", "a", "k", "-x"],
        ["state", "save", "a", "k", "--frob"],
        ["state", "save", "a", "k", "v", "--if-version", "-1"],
        ["state", "save", "a", "k", "-1", "--if-version", "-1"],
        ["state", "load", "a", "-1"],
    ):
        bus(*refused, status=64)
    assert bus("state", "load", "a", "k") == "-2\n"


def test_a_list_shows_the_beginning_of_a_long_value(here: str) -> None:
    for length in (60, 61):
        bus("state", "save", "a", f"k{length}", "x" * length)
    short, long = bus("state", "list", "a").splitlines()[1:]
    assert short.split()[-1] == "x" * 60
    assert long.split()[-1] == "x" * 57 + "..."


def test_broadcast_prints_an_id_a_line_and_fails_softly(here: str) -> None:
    assert bus("send", "*", "task_assignment", "{}", "--from", "a") == "1\n"
    bus("register", "alone", "--type", "validation", "--session", "t", "--capability", "x")
    assert bus("send", "*", "task_assignment", "{}", "--from", "alone", status=1) == ""


def test_the_sender_can_wait_for_the_acknowledgement(here: str) -> None:
    assert bus("send", "b", "task_assignment", "{}", "--from", "a", "--wait-ack", "0.05", status=75) == "1\n"
    with Bus.open(here) as opened:
        opened.cancel(1)
    assert bus("send", "b", "task_assignment", "{}", "--from", "a", "--key", "k") == "2\n"
    bus("ack", json.loads(bus("receive", "b"))[0]["receipt"])
    assert bus("send", "b", "task_assignment", "{}", "--from", "a", "--key", "k", "--wait-ack", "5s") == "2\n"


@pytest.mark.parametrize("wait", ["soon", "", "-1s"])
def test_nothing_is_sent_whose_acknowledgement_can_not_be_waited_for(here: str, wait: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a", f"--wait-ack={wait}", status=64)
    assert bus("messages", "--json") == "[]\n"


def test_the_dead_are_listed_and_redriven(here: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    bus("receive", "b")
    bus("reject", "1.1", "--reason", "no\x1bnsense")
    assert "rejected: no\\x1bnsense" in bus("dead")
    bus("redrive", status=64)
    assert bus("redrive", "--all") == "1\n"
    assert bus("redrive", "--all", status=1) == ""
    bus("cancel", "1")


def test_the_registry_tells_who_lives(here: str) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        bus("register", "c", "--type", "validation", "--session", "s", "--pid", str(process.pid))
        assert {agent["agent_id"]: agent["life"] for agent in json.loads(bus("agents", "--json"))}["c"] == "alive"
        process.kill()
    lives = {agent["agent_id"]: agent["life"] for agent in json.loads(bus("agents", "--session", "s", "--json"))}
    assert lives == {"a": "alive", "b": "alive", "c": "dead"}
    assert [re.split(r"\s\s+", line)[4] for line in bus("agents").splitlines()[1:]] == ["dead", "alive", "alive"]
    assert {agent["agent_id"] for agent in json.loads(bus("agents", "--living", "--json"))} == {"a", "b"}


@pytest.mark.parametrize("words", [["messages"], ["messages", "--pending", "b"], ["dead"], ["checkpoint", "list", "a"]])
def test_a_list_that_is_cut_off_says_so(here: str, words: list[str]) -> None:
    for _ in range(2):
        bus("send", "b", "task_assignment", "{}", "--from", "a")
        bus("checkpoint", "create", "a")
    if words == ["dead"]:
        bus("receive", "b", "--limit", "2")
        bus("reject", "1.1", "2.1", "--reason", "no")
    for limit, told in ((1, "1, and there may be more; see --limit\n"), (3, "")):
        done = subprocess.run(
            [*BUS, *words, "--limit", str(limit), "--json"], capture_output=True, text=True, check=True
        )
        assert (len(json.loads(done.stdout)), done.stderr) == (min(limit, 2), told)


def test_a_step_is_applied_whole_and_names_the_line_of_its_error(here: str) -> None:
    lines = [
        {"op": "messages.send", "from": "a", "to": "b", "type": "task_assignment", "payload": {"phase": "x"}},
        {"op": "state.save", "agent": "a", "key": "k", "value": "v"},
    ]
    bad = {"op": "messages.ack", "receipt": "77.1"}
    done = subprocess.run(
        [*BUS, "apply"],
        input="\n\n".join(json.dumps(x) for x in [*lines, bad]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr.startswith("bus: line 5: ")
    assert bus("state", "load", "a", "k", status=1) == ""
    assert bus("apply", "step.ndjson", stdin="", status=64) == ""
    given = "\n".join(json.dumps(x) for x in lines)
    assert [json.loads(x) for x in bus("apply", "-", stdin=given).splitlines()] == [{"result": 1}, {"result": 1}]
    for wrong in ("{", "[]", '{"op": "fly"}', '{"op": "messages.send", "payload": {"a": 1, "a": 2}}'):
        bus("apply", stdin=wrong, status=64 if "fly" in wrong else 65)
    twice = '{"op":"messages.send","from":"a","to":"b","type":"task_assignment","payload":{"a":1,"a":2}}'
    bus("apply", stdin=twice, status=65)


def test_a_line_that_is_no_text_is_named(here: str) -> None:
    done = subprocess.run([*BUS, "apply"], input=b'{"op": "fly"}\n\n{"op": "\xff"}', capture_output=True, check=False)
    assert (done.returncode, done.stderr.startswith(b"bus: line 3 of the value is not UTF-8 text;")) == (65, True)


def test_checkpoints_sessions_types_and_settings(here: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    id = bus("checkpoint", "create", "a", "--snapshot", '{"n": 1}', "--file", "file").strip()
    assert json.loads(bus("checkpoint", "show", id))["state_snapshot"] == {"n": 1}
    assert bus("checkpoint", "restore", "a") == '{"n":1}\n'
    assert json.loads(bus("checkpoint", "restore", "a", "--json"))["files"][0]["status"] == "ok"
    assert bus("checkpoint", "restore", "b", status=1) == ""
    assert bus("checkpoint", "restore", id) == '{"n":1}\n'
    assert id in bus("checkpoint", "list", "a")
    assert json.loads(bus("session", "progress", "s", "40", "--json"))["progress"] == 40
    assert "40 %" in bus("session", "show", "s")
    bus("session", "complete", "s")
    bus("session", "abandon", "s", status=76)
    bus("types", "add", "message", "ping", "--schema", '{"required": ["n"]}')
    bus("send", "b", "ping", "{}", "--from", "a", status=65)
    bus("types", "add", "message", "pong", "--schema", '{"pattern": "x"}', status=65)
    assert "ping" in bus("types", "list", "message")
    bus("config", "set", "lease_seconds", "5")
    assert {s["key"]: s["value"] for s in json.loads(bus("config", "list", "--json"))}["lease_seconds"] == "5"


def test_a_bus_is_made_found_copied_and_examined(tmp_path: Path) -> None:
    assert bus("where", status=66) == ""
    made = bus("init").strip()
    assert made == str(tmp_path / ".milestones" / "coordination.db")
    (tmp_path / "below").mkdir()
    below = subprocess.run([*BUS, "where"], cwd=tmp_path / "below", capture_output=True, text=True, check=True)
    assert below.stdout.strip() == made
    bus("init")
    bus("backup", "copy.db")
    bus("backup", "copy.db", status=64)
    assert "quick_check says ok" in bus("doctor")
    assert json.loads(bus("status", "--json"))["messages"] == {}
    assert " 0.0 writes per second, " in bus("status")
    assert bus("prune").startswith("removed 0 messages, ")
    assert Path(bus("shell").strip()).name == "bus.sh"


def test_a_refusal_leads_on(here: str) -> None:
    for words, told in (
        (["recieve"], "Did you mean receive"),
        (["frobnicate"], "No such command 'frobnicate'; see `bus --help`"),
        (["recover", "s", "--respawn"], "see `bus recover --help`"),
        (["trace", "export", "--otlp", "http://h", "--header", "x"], "see `bus trace export --help`"),
        (["--bus", here, "copy", here, "new.db"], "copy takes no --bus"),
        (["restore", "no\x1b[31m.db"], "no\\x1b[31m.db"),
    ):
        done = subprocess.run([*BUS, *words], capture_output=True, text=True, check=False)
        assert done.returncode in (64, 66)
        assert told in done.stderr


def test_a_moved_clock_is_told_of(here: str) -> None:
    assert "BUS_NOW" not in bus("doctor")
    assert re.search(r"warning +clock +BUS_NOW moves it: here it is 2\d{3}-", bus("doctor", BUS_NOW="+864000"))


def test_who_was_started_for_an_agent_registers_as_it(here: str) -> None:
    own = {"BUS_AGENT": "c", "BUS_AGENT_TYPE": "validation", "BUS_SESSION": "s2", "BUS_MILESTONE": "m2"}
    bus("register", **own)
    (found,) = json.loads(bus("agents", "--session", "s2", "--json"))
    assert (found["agent_id"], found["agent_type"], found["milestone_id"]) == ("c", "validation", "m2")


def test_to_prune_checkpoints_is_to_prune_ones_own(here: str) -> None:
    with Bus.open(here) as opened:
        for agent in ("one", "two"):
            opened.register(agent, type="validation", session="s")
            opened.checkpoint_create(agent, "{}"), opened.checkpoint_create(agent, "{}")
    assert bus("checkpoint", "prune", "--keep", "1", BUS_AGENT="one") == "1 checkpoint forgotten\n"
    assert len(json.loads(bus("checkpoint", "list", "two", "--json"))) == 2
    bus("checkpoint", "prune", "one", "--all", status=64)
    assert bus("checkpoint", "prune", "--all", "--keep", "1", BUS_AGENT="one") == "1 checkpoint forgotten\n"
    assert bus("checkpoint", "prune", "--keep", "1") == "0 checkpoints forgotten\n"


def test_a_payload_that_is_not_what_was_sent_is_found_by_a_deep_look(here: str) -> None:
    with Bus.open(here) as opened:
        opened.send("a", "b", "task_assignment", {"phase": "one"})
    assert "1 are what was sent" in bus("doctor", "--deep")
    with closing(sqlite3.connect(here, isolation_level=None)) as hand:
        hand.execute("drop trigger agent_messages_envelope")
        hand.execute("""update agent_messages set payload = '{"phase": "two"}'""")
    assert "payloads" not in bus("doctor")
    done = subprocess.run([*BUS, "doctor", "--deep", "--json"], capture_output=True, check=False)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 70
    assert findings["payloads"]["details"] == "1 of 1 are not what was sent: 1"


def test_a_damaged_file_is_said_plainly(here: str) -> None:
    data = bytearray(Path(here).read_bytes())
    data[4096:] = b"\x55" * (len(data) - 4096)
    Path(here).write_bytes(data)
    bus("agents", status=70)


@pytest.mark.parametrize("where", ["closed", "full"])
def test_what_can_not_be_printed_is_given_back(here: str, where: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    target = ">&-" if where == "closed" else ">/dev/full"
    done = subprocess.run(
        ["bash", "-c", f'"$@" {target}', "x", *BUS, "receive", "b"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 70
    assert done.stderr.startswith("bus: standard output")
    assert done.stderr.count("\n") == 1
    assert len(json.loads(bus("receive", "b"))) == 1


@pytest.mark.parametrize(
    "words", [["apply"], ["checkpoint", "create", "a"], ["send", "b", "task_assignment", "-", "--from", "a"]]
)
def test_what_nobody_could_be_told_of_is_not_done(here: str, words: list[str]) -> None:
    step = '{"op": "messages.send", "from": "a", "to": "b", "type": "task_assignment", "payload": {}}'
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "x", *BUS, *words], input=step, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.startswith("bus: standard output is closed")) == (70, True)
    assert json.loads(bus("messages", "--json")) == json.loads(bus("checkpoint", "list", "a", "--json")) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_is_waited_for(here: str, blocking: bool, unbuffered: str) -> None:
    """Also where another has made the pipe so that a write does not wait; a write that is stopped is not all of it."""
    payload = {"title": "x" * 10_000}
    task = {"op": "messages.send", "to": "b", "from": "a", "type": "task_assignment", "payload": payload}
    bus("apply", stdin=f"{json.dumps(task)}\n" * 20)
    read, write = os.pipe()
    os.set_blocking(write, blocking)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with subprocess.Popen([*BUS, "receive", "b", "--limit", "20", "--ack"], stdout=write, env=environment) as process:
        os.close(write)
        while int.from_bytes(fcntl.ioctl(read, termios.FIONREAD, bytes(4)), sys.byteorder) < 32 << 10:
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        with open(read, "rb") as pipe:
            assert len(json.load(pipe)) == 20
    assert process.returncode == 0


def test_what_was_acknowledged_and_can_not_be_printed_stays_so(here: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    done = subprocess.run(
        ["bash", "-c", '"$@" >/dev/full', "x", *BUS, "receive", "b", "--ack"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr.startswith(b"bus: standard output")) == (70, True)
    assert json.loads(bus("message", "1", "--json"))["status"] == "acknowledged"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_wait_can_be_interrupted(here: str, number: int, status: int) -> None:
    process = subprocess.Popen([*BUS, "receive", "b", "--wait", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        while not Path(f"{here}.bells/b").exists():
            os.sched_yield()
        process.send_signal(number)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == status
    assert out == b""
    assert errors == b"bus: interrupted; nothing is half done; start it again when you like\n"


def test_who_waits_ends_when_nobody_reads_from_it_any_more(here: str) -> None:
    """A script was killed: what comes now is for the one that is started next."""
    with subprocess.Popen([*BUS, "receive", "b", "--wait", "60"], stdout=subprocess.PIPE) as process:
        while not Path(f"{here}.bells/b").exists():
            os.sched_yield()
        assert process.stdout
        process.stdout.close()
        assert process.wait(20) == 143
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    assert [found["receipt"] for found in json.loads(bus("receive", "b"))] == ["1.1"]


def test_a_signal_that_its_parent_ignores_interrupts_no_wait(here: str) -> None:
    waiting = ["bash", "-c", """trap '' INT; exec "$@" """, "x", *BUS, "receive", "b", "--wait", "60"]
    with subprocess.Popen(waiting, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while not Path(f"{here}.bells/b").exists():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors.count(b"\n")) == (143, 1)


def test_help_helps() -> None:
    assert "Commands:" in bus("--help")
    assert "PAYLOAD is a JSON object" in bus("send", "--help")
    told = bus("apply", "--help")
    for name in step.OPERATIONS:
        noun, _, verb = name.partition(".")
        assert re.search(rf"^ +{noun}\.(\w+, )*{verb}\b", told, re.MULTILINE), name
    for group in ("", "state", "checkpoint", "session", "milestone", "types", "config", "trace"):
        summaries = bus(*group.split(), "--help", COLUMNS="80").partition("Commands:")[2]
        assert summaries
        assert "..." not in summaries, "each is short enough to be read whole"
    assert bus("--version").strip() == "0.1.0"


# --- bad input, each once


ODD = {
    64: [
        ["state", "fly"],
        ["receive", "a", "--limit", "0"],
        ["receive", "a", "--limit", "9" * 30],
        ["receive", "a", "--lease", "0"],
        ["receive"],
        ["message", "9" * 30],
        ["message", "x"],
        ["redrive", "x"],
        ["redrive"],
        ["redrive", "1", "--all"],
        ["redrive", "1", "--session", "s"],
        ["recover", "s", "--milestone", "m"],
        ["monitor", "--once", "--stop"],
        ["monitor", "--once", "--detach"],
        ["monitor", "--detach", "--stop"],
        ["monitor", "--once", "--interval", "0"],
        ["recover", "s", "--apply", "abandon", "--milestone", "m"],
        ["recover", "s", "--apply", "abandon", "--respawn"],
        ["types", "add", "agent", "x", "--schema", "{}"],
        ["types", "add", "message", "x", "--artifact", "k"],
        ["ack"],
        ["ack", "1.1", "1"],
        ["reject", "1.1"],
        ["send", "b", "task_assignment", "{}", "--from", "a", "--reply-to", "-5"],
        ["send", "b", "task_assignment", "{}", "--from", "a", "--delay", "1w"],
        ["send", "*", "task_assignment", "{}", "--from", "a", "--wait-ack", "1"],
        ["send", "b", "task_assignment", "{}"],
        ["session", "progress", "s", "abc"],
        ["state", "save", "a", "k", "v", "--ttl", "-5"],
        ["state", "save", "a", "k", "v", "--if-version", "-1"],
        ["register", "c", "--type", "validation", "--session", "s", "--pid", "99999999"],
        ["register", "c", "--type", "validation", "--session", "s", "--pid", "-3"],
        ["register", "c", "--type", "validation"],
        ["checkpoint", "create", "a", "--file", "missing"],
        ["checkpoint", "create", "a", "--retention", "soon"],
        ["types", "list", "colour"],
        ["types", "add", "message", "m", "--schema", "missing.json"],
        ["types", "add", "message", "m", "--schema", ""],
        ["types", "add", "operation", "o", "--artifact", "a=b"],
        ["types", "add", "operation", "o", "--artifact", "a=1_0"],
        ["types", "add", "operation", "o", "--artifact", "a=1", "--artifact", "b"],
        ["types", "add", "operation", "o", "--artifact", "a=1", "--artifact", "a=2"],
        ["session", "progress", "s", "nan"],
        ["session", "progress", "s", "1_0"],
        ["session", "progress", "s", "٣"],
        ["session", "counts", "--days", "nan"],
        ["session", "counts", "--days", "-5"],
        ["session", "counts", "--days", "inf"],
        ["session", "counts", "--days", "1e300"],
        ["session", "counts", "--days", "1_0"],
        ["trace", "velocity", "--days", "0"],
        ["top", "--once", "--interval", "nan"],
        ["send", "b", "task_assignment", "{}", "--from", "a", "--priority", "1_0"],
        ["send", "b", "task_assignment", "{}", "--from", "a", "--priority", "٣"],
        ["receive", "a", "--limit", "+1"],
        ["--bus", "mysql://x", "status"],
        ["--bus", "x.db?mode=rw", "status"],
    ],
    65: [
        ["send", "", "task_assignment", "{}", "--from", "a"],
        ["send", "b", "task_assignment", "", "--from", "a"],
        ["send", "b", "task_assignment", '{"a": NaN}', "--from", "a"],
        ["send", "b", "task_assignment", '{"a": 1, "a": 2}', "--from", "a"],
        ["send", "b", "task_assignment", '{"a": "\\ud800"}', "--from", "a"],
        ["send", "b", "task_assignment", '{"a": "\\u0000"}', "--from", "a"],
        ["send", "b", "task_assignment", '{"a": 99999999999999999999}', "--from", "a"],
        ["send", "b", "task_assignment", '{"a":' * 65 + "1" + "}" * 65, "--from", "a"],
        ["send", "b", "task_assignment", os.fsdecode(b'{"a":"\xff"}'), "--from", "a"],
        ["send", "b", "task_assignment", "{}", "--from", os.fsdecode(b"\xff")],
        ["send", "b", "task_assignment", "{}", "--from", "a", "--key", os.fsdecode(b"\xff")],
        ["send", "b", "task_assignment", "{}", "--from", "a", "--priority", "0"],
        ["state", "save", "a", "k k", "v"],
        ["state", "save", "a", "k", "v", "--type", "gossip"],
        ["state", "list", os.fsdecode(b"\xff")],
        ["register", "c", "--type", "validation", "--session", "s", "--capabilities", '{"a": 1}'],
        ["heartbeat", "a", "--status", "asleep"],
        ["retire", "a", "--status", "active"],
        ["messages", "--status", "lost"],
        ["session", "progress", "s", "101"],
        ["checkpoint", "create", "a", "--type", "weekly"],
        ["checkpoint", "create", "a", "--snapshot", "{"],
        ["config", "set", "lease_seconds", "soon"],
        ["config", "set", "failed_session_hours", "878401"],
        ["config", "set", "message_retry_limit", "1.5"],
        ["types", "add", "message", "m", "--schema", "{"],
        ["types", "add", "operation", "o", "--artifact", "bad key"],
        ["types", "add", "agent", "a b"],
    ],
    66: [
        ["receive", "nobody"],
        ["heartbeat", "nobody"],
        ["retire", "nobody"],
        ["update", "nobody"],
        ["ack", "99.1"],
        ["cancel", "99"],
        ["redrive", "99"],
        ["session", "complete", "nowhere"],
        ["checkpoint", "show", "none"],
        ["checkpoint", "create", "nobody"],
        ["--bus", "folder/missing.db", "status"],
        ["--bus", "/dev/null/x.db", "status"],
        ["--bus", ".", "status"],
    ],
}


@pytest.mark.parametrize("status", ODD)
def test_bad_input_is_one_line_and_its_status(here: str, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = []
    for arguments in ODD[status]:
        found, out, errors = inside(arguments, capfd)
        if (found, out) != (status, "") or errors.count("\n") != 1 or "Traceback" in errors:
            wrong.append((arguments, found, out, errors))
    assert not wrong


def test_a_step_repeats_the_operation_that_it_has_not(here: str) -> None:
    done = subprocess.run([*BUS, "apply"], input=b'{"op": "messages.receive"}', capture_output=True, check=False)
    assert b"line 1: a step has no operation 'messages.receive'; " in done.stderr


@pytest.mark.parametrize("words", [[], ["state"], ["trace"]])
def test_no_command_at_all_is_usage_and_helps(words: list[str]) -> None:
    done = subprocess.run([*BUS, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith(" ".join(["Usage: bus", *words]))


def test_what_can_not_be_read_is_not_repeated_at_length(here: str) -> None:
    done = subprocess.run([*BUS, "state", "x" * 5000], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), len(done.stderr) < 500) == (64, 1, True)


def test_json_is_asked_for_by_the_command_itself_only(here: str) -> None:
    refused = ["run", "--type", "plumber", "--task", "t", "--session", "s"]
    for arguments, environment, begin in (
        ([*refused, "--json", "--", "echo"], {}, '{"error":'),
        ([*refused, "--", "echo", "--json"], {}, "bus: "),
        ([*refused, "--json", "--", "echo"], {"BUS_ERRORS": "text"}, "bus: "),
    ):
        environment = {**os.environ, **environment}
        done = subprocess.run([*BUS, *arguments], capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stderr.startswith(begin)) == (65, True)


@pytest.mark.parametrize("sign", ["\x7f", "\x80", "é", "\u2028", "\uffff", "\U00010000", "\U0010ffff"])
def test_json_is_ascii_and_says_what_was_meant(sign: str) -> None:
    text = ascii_json({sign: sign})
    assert re.fullmatch(r"[\x20-\x7e]*", text)
    assert json.loads(text) == {sign: sign}


def test_an_error_of_several_lines_is_one(here: str) -> None:
    done = subprocess.run([*BUS, "types", "add"], capture_output=True, text=True, check=False)
    assert "Choose from: agent, message, state, operation; see " in done.stderr


def test_a_hint_names_what_can_be_given(here: str) -> None:
    for arguments, words in (
        (["checkpoint", "create", "a", "--type", "foo"], "manual, automatic, phase_completion, error_recovery"),
        (["heartbeat", "a", "--status", "asleep"], "spawning, active, paused, completed, failed or terminated"),
        (["update", "a", "--capabilities", "{}"], "capabilities are a JSON array"),
        (["register", "c", "--type", "validation", "--session", "s", "--capabilities", "{}"], "a JSON array"),
    ):
        done = subprocess.run([*BUS, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 65, done
        assert words in done.stderr


def inside(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """What a command does in a child of this process, which saves it the start of Python."""
    if not (child := os.fork()):
        from bus_cli.main import main

        main(arguments)
    _, status = os.waitpid(child, 0)
    return (os.waitstatus_to_exitcode(status), *capfd.readouterr())


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ({"op": "messages.ack", "receipt": 5}, 64),
        ({"op": "messages.ack", "receipt": None}, 64),
        ({"op": "messages.ack", "receipt": []}, 64),
        ({"op": "messages.redrive", "ids": 5}, 66),
        ({"op": "messages.redrive"}, 64),
        ({"op": "message.redrive", "ids": [1], "all": True}, 64),
        ({"op": "messages.ack", "receipt": "1.1", "receipts": ["2.1"]}, 64),
        ({"op": "messages.cancel", "id": None}, 64),
        ({"op": "state.save", "agent": ["a"], "key": "k", "value": "v"}, (64, 65)),
        ({"op": "state.save", "agent": "a", "key": {"a": 1}, "value": "v"}, (64, 65)),
        ({"op": "state.save", "agent": "a", "key": "k", "value": "v", "ttl": {}}, 64),
        ({"op": "state.save", "agent": "a", "key": "k", "value": {"a": 1}}, 65),
        ({"op": "state.save", "agent": "a", "key": "k", "value": "v", "type": 7}, (64, 65)),
        ({"op": "session.progress", "session": "s", "progress": "40"}, (64, 65)),
        ({"op": "session.progress", "session": "s", "progress": True}, (64, 65)),
        ({"op": "checkpoints.create", "agent": "a", "file": 5}, (64, 65)),
        ({"op": "messages.send", "from": "a", "to": "b", "type": {}, "payload": {}}, (64, 65)),
        ({"op": "messages.send", "from": "a", "to": "b", "type": "task_assignment", "payload": {}, "delay": []}, 64),
        ({"op": "agents.heartbeat", "agent": "a", "status": 5}, (64, 65)),
        ({"op": "__class__"}, 64),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_line_of_a_step_with_values_of_another_kind_is_refused(
    here: str, line: dict[str, object], status: int | tuple[int, ...]
) -> None:
    done = subprocess.run([*BUS, "apply"], input=json.dumps(line).encode(), capture_output=True, check=False)
    assert done.returncode in (status if isinstance(status, tuple) else (status,)), done.stderr
    assert done.stderr.startswith(b"bus: line 1: ")
    assert done.stderr.count(b"\n") == 1
    assert done.stdout == b""


def test_a_step_takes_one_value_where_a_list_may_stand(here: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    lines = [
        {"op": "checkpoints.create", "agent": "a", "file": "notes.txt"},
        {"op": "agents.register", "agent": "c", "type": "validation", "session": "s", "capability": "paint"},
    ]
    made, registered = map(json.loads, bus("apply", stdin="\n".join(map(json.dumps, lines))).splitlines())
    assert [file["path"] for file in made["result"]["file_references"]] == [str(tmp_path / "notes.txt")]
    assert registered["result"]["capabilities"] == ["paint"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"op": "messages.send", "to": "b"}, "messages.send lacks from; name it, or set BUS_AGENT"),
        ({"op": "messages.broadcast", "from": None}, "messages.broadcast lacks from; name it, or set BUS_AGENT"),
        ({"op": "messages.ack"}, "messages.ack lacks receipt; the keys are"),
        ({"op": "messages.send", "to": "*", "from": "a", "sender": "b"}, "an argument stands twice"),
        ({"op": "state.save", "agent": None, "key": "k", "value": "v"}, "state.save lacks agent; name it, or set"),
        ({"op": "state.save", "agent": 7, "key": "k", "value": "v"}, "agent is text; "),
        ({"op": "messages.reject", "receipt": "1.1", "reasons": "x"}, "messages.reject has no 'reasons'; the keys are"),
        ({"op": "checkpoint.create", "agent": "a", "file": [5]}, "file is text; "),
        ({"op": "messages.redrive", "id": "1.1"}, "not a message id: '1.1'; "),
        ({"op": "messages.redrive", "ids": 1, "id": 2}, "messages.redrive has no 'id'; "),
        ({"op": "messages.redrive", "all": "no"}, "name ids, or all; "),
        ({"op": "messages.ack", "receipt": "1.1", "once": "no"}, "once is true or false; "),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_is_wrong_with_a_line_of_a_step_is_said_by_the_names_of_options(
    here: str, line: dict[str, object], words: str
) -> None:
    done = subprocess.run([*BUS, "apply"], input=json.dumps(line).encode(), capture_output=True, check=False)
    assert (done.returncode in (64, 65), done.stdout) == (True, b"")
    assert done.stderr.decode().startswith(f"bus: line 1: {words}")


def test_a_line_of_a_step_that_names_nobody_is_by_whom_the_environment_names(here: str) -> None:
    lines = [
        {"op": "messages.send", "to": "b", "type": "task_assignment", "payload": {}},
        {"op": "messages.send", "from": "b", "to": "a", "type": "task_assignment", "payload": {}},
        {"op": "messages.broadcast", "type": "task_assignment", "payload": {}},
        {"op": "state.save", "key": "k", "value": "v"},
        {"op": "checkpoint.create"},
        {"op": "agents.heartbeat", "agent": None, "task": "t"},
        {"op": "agents.heartbeat", "agent": "b", "task": "u"},
    ]
    bus("apply", stdin="\n".join(map(json.dumps, lines)), BUS_AGENT="a")
    sent = json.loads(bus("messages", "--json"))
    assert [(message["from_agent"], message["to_agent"]) for message in sent] == [("a", "b"), ("b", "a"), ("a", "b")]
    assert bus("state", "load", "a", "k") == "v\n"
    assert json.loads(bus("checkpoint", "list", "a", "--json"))[0]["agent_id"] == "a"
    tasks = {agent["agent_id"]: agent["current_task"] for agent in json.loads(bus("agents", "--json"))}
    assert (tasks["a"], tasks["b"]) == ("t", "u")
    bus("apply", stdin=json.dumps(lines[0]), BUS_AGENT="", status=64)


@pytest.mark.parametrize("named", [{"id": 1}, {"id": [1, "1"]}, {"ids": 1}, {"ids": "1"}, {"ids": [1]}])
def test_a_step_redrives_what_is_named(here: str, named: dict[str, object]) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    bus("cancel", "1")
    assert bus("apply", stdin=json.dumps({"op": "messages.redrive", **named})) == '{"result":[1]}\n'


LINES: list[dict[str, Any]] = [
    {"op": "messages.send", "from": "a", "to": "b", "type": "task_assignment", "payload": {}, "priority": 5,
     "delay": "1s", "expires": "2s", "key": None, "reply-to": 1, "correlation": "c", "traceparent": None},
    {"op": "messages.broadcast", "from": "a", "type": "task_assignment", "payload": {}},
    {"op": "messages.ack", "receipt": "1.1", "once": True},
    {"op": "messages.release", "receipt": "1.1", "delay": 1, "reason": "r"},
    {"op": "messages.extend", "receipt": "1.1", "lease": 1},
    {"op": "messages.reject", "receipt": "1.1", "reason": "r"},
    {"op": "messages.cancel", "id": 1},
    {"op": "messages.redrive", "id": 1},
    {"op": "messages.redrive", "all": True, "session": "s"},
    {"op": "state.save", "agent": "a", "key": "k", "value": "v", "type": "user_data", "ttl": 1, "if-version": 0},
    {"op": "state.delete", "agent": "a", "key": "k"},
    {"op": "checkpoint.create", "agent": "a", "snapshot": {}, "type": "manual", "file": "notes.txt", "retention": 1},
    {"op": "agents.register", "agent": "c", "type": "validation", "session": "s", "milestone": "m", "capability": "x",
     "operation": "execution", "pid": 1, "command": "true"},
    {"op": "agents.register", "agent": "c", "type": "validation", "session": "s", "capabilities": ["x"]},
    {"op": "agents.heartbeat", "agent": "a", "status": "active", "task": "t", "phase": "p"},
    {"op": "agents.retire", "agent": "a", "status": "failed"},
    {"op": "sessions.progress", "session": "s", "progress": 40, "phase": "p"},
    {"op": "sessions.complete", "session": "s"},
    {"op": "sessions.abandon", "session": "s"},
]  # fmt: skip
KINDS: list[Any] = [None, 7, 1.5, -1, True, "", "?", [], {}, [None], [[]], {"a": 1}]


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['op']} {len(line)}")
def test_whatever_stands_in_a_line_of_a_step_is_judged_in_words_for_people(here: str, line: dict[str, Any]) -> None:
    Path("notes.txt").write_text("x")
    jargon = re.compile(r"constraint|NULL|object is|'(str|int|float|bool|list|dict|NoneType)'|keyword|not (int|list)\b")
    wrong = []
    with Bus.open(here) as opened:
        for key in list(line)[1:]:
            for value in KINDS:
                try:
                    opened.apply([step.named({**line, key: value})])
                except BusError as problem:
                    if problem.exit_status == 70 or jargon.search(str(problem)):
                        wrong.append((key, value, str(problem)))
    assert not wrong


def test_the_lines_of_a_step_end_at_line_feeds_only(here: str) -> None:
    value = "a\u2028b\u2029c\x85d\x7fe"
    line = json.dumps({"op": "state.save", "agent": "a", "key": "k", "value": value}, ensure_ascii=False)
    assert bus("apply", stdin=f"{line}\r\n") == '{"result":1}\n'
    assert bus("state", "load", "a", "k") == f"{value}\n"


def test_a_payload_in_a_line_of_a_step_may_be_the_text_of_one(here: str) -> None:
    line = {"op": "messages.send", "from": "a", "to": "b", "type": "task_assignment", "payload": '{"phase": "x"}'}
    bus("apply", stdin=json.dumps(line))
    assert json.loads(bus("receive", "b"))[0]["payload"] == {"phase": "x"}


def test_a_key_that_stands_twice_in_a_line_of_a_step_is_refused(here: str) -> None:
    bus("apply", stdin='{"op":"state.save","agent":"a","key":"k","value":"x","value":"y"}', status=65)


# --- streams


def redirected(shell: str, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """A command run by bash with a redirection."""
    return subprocess.run(
        ["bash", "-c", f'"$@" {shell}', "x", *BUS, *arguments], input=stdin, capture_output=True, text=True, check=False
    )


def test_an_error_never_goes_to_stdout(here: str) -> None:
    done = redirected("2>&-", "message", "9")
    assert (done.returncode, done.stdout) == (66, "")


@pytest.mark.parametrize("redirection", [">&-", ">/dev/full", ">&- 2>&-", "<&- >/dev/null", "| true"])
def test_whatever_the_streams_nothing_breaks(here: str, redirection: str) -> None:
    for arguments in (["status"], ["agents", "--json"], ["--help"]):
        done = redirected(redirection, *arguments)
        assert done.returncode in (0, 70)
        assert done.stderr.count("\n") <= 1
        assert "Traceback" not in done.stderr
    assert json.loads(bus("status", "--json"))["agents"] == {"active": 2}


def test_a_writer_is_waited_for(here: str) -> None:
    """Also where another has made the pipe so that a read does not wait."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    with subprocess.Popen([*BUS, "state", "save", "a", "k", "-"], stdin=read) as process:
        for part in (b"first half, ", b"second half"):
            os.write(write, part)
            while any(fcntl.ioctl(read, termios.FIONREAD, bytes(4))):
                assert process.poll() is None
        os.close(read)
        os.close(write)
    assert process.returncode == 0
    assert bus("state", "load", "a", "k") == "first half, second half\n"


def test_a_closed_stdin_is_said_plainly(here: str) -> None:
    done = redirected("<&-", "state", "save", "a", "k")
    assert (done.returncode, done.stderr.count("\n")) == (64, 1)


def test_a_folder_that_is_gone_is_no_place_for_a_bus(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", 'mkdir gone; cd gone; rmdir ../gone; "$@"', "x", *BUS, "where"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (66, "", 1)


# --- what people and programs see

HOSTILE = "\x1b]0;x\x07\u202e\u200b\u2066\x7f\x9b31m\r\n\tpayload"


def test_columns_stand_below_each_other_in_every_script(here: str) -> None:
    with Bus.open(here) as opened:
        opened.heartbeat("a", task="日本語")
    lines = bus("agents").splitlines()
    assert [line.split()[0] for line in lines] == ["agent", "a", "b"]
    before = [line[: line.index(word)] for line, word in zip(lines, ("last", "20", "20"), strict=True)]
    assert len(set(map(cell_len, before))) == 1


def test_what_strangers_wrote_moves_no_cursor(here: str) -> None:
    with Bus.open(here) as opened:
        id = opened.send("a", "b", "task_assignment", {"phase": HOSTILE}, key=HOSTILE, correlation=HOSTILE)
        opened.reject(opened.receive("b")[0].receipt or "", reason=HOSTILE)
        opened.heartbeat("a", task=HOSTILE, phase=HOSTILE)
        opened.update("a", command=HOSTILE)
        opened.state_save("a", "k", HOSTILE)
        opened.checkpoint_create("a", {"k": HOSTILE})
        opened.session_progress("s", 5, phase=HOSTILE)
        opened.types_add("agent", "odd", description=HOSTILE)
    for arguments in (
        ["message", str(id)],
        ["messages"],
        ["dead"],
        ["agents"],
        ["state", "list", "a"],
        ["checkpoint", "list", "a"],
        ["checkpoint", "restore", "a"],
        ["session", "list"],
        ["session", "show", "s"],
        ["types", "list"],
    ):
        shown = bus(*arguments)
        assert not set(shown) & set("\x1b\x07\u202e\u200b\u2066\x7f\x9b\r\t"), arguments
        as_json = bus(*arguments, "--json")
        assert as_json.isascii(), arguments
        assert as_json.count("\n") == 1, arguments
        json.loads(as_json)


def test_an_error_shows_nothing_that_moves_the_cursor(here: str) -> None:
    for arguments in (
        ["message", HOSTILE],
        [HOSTILE],
        ["receive", "a", "--wait", HOSTILE],
        ["--bus", HOSTILE, "status"],
    ):
        done = subprocess.run([*BUS, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode in (64, 66), arguments
        assert done.stderr.count("\n") == 1
        assert not set(done.stderr) & set("\x1b\x07\u202e\u200b\u2066\x7f\x9b\r\t"), arguments


def test_no_colour_off_a_terminal(here: str) -> None:
    for environment in ({"FORCE_COLOR": "1"}, {"CLICOLOR_FORCE": "1"}, {"TERM": "xterm-256color"}):
        assert "\x1b" not in bus("agents", **environment)


@pytest.mark.parametrize("locale", [{"LANG": "C", "LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONIOENCODING": "ascii"}])
def test_any_locale_will_do(here: str, locale: dict[str, str]) -> None:
    bus("send", "b", "task_assignment", '{"phase": "é\U0001f600"}', "--from", "a", "--correlation", "é", **locale)
    (message,) = json.loads(bus("receive", "b", **locale))
    assert (message["payload"], message["correlation_id"]) == ({"phase": "é\U0001f600"}, "é")
    assert "é" in bus("message", "1", **locale)
    bus("register", "é", "--type", "validation", "--session", "s", status=65, **locale)


def test_bus_and_json_stand_before_or_after(url: str) -> None:
    for arguments in (
        ["--bus", url, "--json", "status"],
        ["status", "--bus", url, "--json"],
        ["--json", "status", "--bus", url],
        ["--bus", url, "status", "--json"],
        ["--bus", "elsewhere.db", "status", "--bus", url, "--json"],
    ):
        assert json.loads(bus(*arguments))["messages"] == {}
    for arguments in (["--bus", url, "session", "--json", "list"], ["session", "--bus", url, "list", "--json"]):
        assert json.loads(bus(*arguments)) == []


def test_the_time_of_a_process_can_be_moved(here: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a", "--delay", "1h")
    assert bus("receive", "b", status=1) == "[]\n"
    assert len(json.loads(bus("receive", "b", BUS_NOW="+3601"))) == 1


def test_a_waiting_receive_prints_what_comes(here: str) -> None:
    process = subprocess.Popen([*BUS, "receive", "b", "--wait", "60", "--ack"], stdout=subprocess.PIPE)
    with process:
        while not Path(f"{here}.bells/b").exists():
            os.sched_yield()
        with Bus.open(here) as opened:
            id = opened.send("a", "b", "task_assignment", {"phase": "rung"})
            out, _ = process.communicate(timeout=20)
            assert opened.message(id).status == "acknowledged"
    assert process.returncode == 0
    assert json.loads(out)[0]["payload"] == {"phase": "rung"}


def test_waiting_for_the_acknowledgement_of_what_is_rejected_is_a_conflict(here: str) -> None:
    process = subprocess.Popen(
        [*BUS, "send", "b", "task_assignment", "{}", "--from", "a", "--wait-ack", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process, Bus.open(here) as opened:
        (message,) = opened.receive("b", wait=30)
        opened.reject(message.receipt or "", reason="nonsense")
        out, errors = process.communicate(timeout=20)
    assert (process.returncode, out) == (76, b"1\n")
    assert b"nonsense" in errors
