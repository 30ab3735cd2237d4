"""The command line as its users meet it: real processes, exit statuses, one line of error."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bus import Bus

BUS = [sys.executable, "-m", "bus_cli.main"]


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


def test_looking_at_a_mailbox_nobody_has_is_empty(here: str) -> None:
    assert bus("messages", "--to", "nobody", "--json") == "[]\n"
    assert bus("messages", "--pending", "nobody", "--json") == "[]\n"
    assert bus("messages", "--to", "nobody") == ""


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
    bus("heartbeat", status=64)


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


def test_the_dead_are_listed_and_redriven(here: str) -> None:
    bus("send", "b", "task_assignment", "{}", "--from", "a")
    bus("receive", "b")
    bus("reject", "1.1", "--reason", "no\x1bnsense")
    assert "rejected: no\\x1bnsense" in bus("dead")
    bus("redrive", status=64)
    assert bus("redrive", "--all") == "1\n"
    assert bus("redrive", "--all", status=1) == ""
    bus("cancel", "1")


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
    given = "\n".join(json.dumps(x) for x in lines)
    assert [json.loads(x) for x in bus("apply", "-", stdin=given).splitlines()] == [{"result": 1}, {"result": 1}]
    for wrong in ("{", "[]", '{"op": "fly"}', '{"op": "messages.send", "payload": {"a": 1, "a": 2}}'):
        bus("apply", stdin=wrong, status=65 if wrong in ("{", "[]") else 64)
    twice = '{"op":"messages.send","from":"a","to":"b","type":"task_assignment","payload":{"a":1,"a":2}}'
    bus("apply", stdin=twice, status=65)


def test_checkpoints_sessions_types_and_settings(here: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    id = bus("checkpoint", "create", "a", "--snapshot", '{"n": 1}', "--file", "file").strip()
    assert json.loads(bus("checkpoint", "show", id))["state_snapshot"] == {"n": 1}
    assert bus("checkpoint", "restore", "a") == '{"n":1}\n'
    assert json.loads(bus("checkpoint", "restore", "a", "--json"))["files"][0]["status"] == "ok"
    assert bus("checkpoint", "restore", "b", status=1) == ""
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
    assert bus("prune") == "0 messages removed\n"
    assert Path(bus("shell").strip()).name == "bus.sh"


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


def test_a_wait_can_be_interrupted(here: str) -> None:
    process = subprocess.Popen([*BUS, "receive", "b", "--wait", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        while not Path(f"{here}.bells/b").exists():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == b""
    assert errors == b"bus: interrupted; nothing is half done; start it again when you like\n"


def test_help_helps() -> None:
    assert "Commands:" in bus("--help")
    assert "PAYLOAD is a JSON object" in bus("send", "--help")
    assert bus("--version").strip() == "0.1.0"
