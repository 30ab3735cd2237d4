"""bus.sh as scripts use it: one suite, through sqlite3 and through the bus command."""

import json
import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from bus import Bus
from bus.models import Message
from tests.clients.conftest import FUNCTIONS, Shell


def test_a_conversation(shell: Shell) -> None:
    done = shell(
        """
        register_agent three milestone-executor m s
        register_agent four milestone-executor m s '["bash"]'
        send_agent_message boss three task_assignment '{"phase": "design"}' 3
        send_agent_message boss three task_assignment '{"phase": "spec"}' 08
        send_agent_message boss @milestone-executor progress_update '{"progress": 5}'
        get_agent_messages three | jq -c '[.[] | [.id, .payload]]'
        message=$(receive_agent_message three 5m)
        jq -r '.payload.phase' <<<"$message"
        ack_agent_message "$(jq -r .receipt <<<"$message")"
        ack_agent_message "$(jq -r .receipt <<<"$message")"
        get_agent_messages three true | jq -c '.[] | [.id, .status]'
        get_agent_messages three true
        get_agent_messages three
        """
    )
    assert done.splitlines() == [
        "1", "2", "3",
        '[[2,{"phase":"spec"}],[3,{"progress":5}],[1,{"phase":"design"}]]',
        "spec",
        '[3,"acknowledged"]',
        '[1,"acknowledged"]',
        "[]", "[]",
    ]  # fmt: skip


def test_the_scripts_that_exist_run_unchanged(shell: Shell) -> None:
    done = shell(
        """
        ID=late
        save_agent_state unregistered notes "plain text, no JSON"
        load_agent_state unregistered notes
        send_agent_message boss "$ID" task_assignment '{"phase": "first"}' >/dev/null
        send_agent_message boss "$ID" progress_update '{"phase": "not this"}' >/dev/null
        register_agent "$ID" milestone-executor m s '[]'
        get_agent_messages "$ID" true | jq -r '.[] | select(.message_type == "task_assignment") | .payload.phase'
        load_agent_state "$ID" never || echo "status $?"
        """
    )
    assert done == "plain text, no JSON\nfirst\nstatus 1\n"


@pytest.mark.parametrize(("priority", "status"), [("-1", 65), ("0", 65), ("11", 65), ("-x", 64), ("1.5", 64)])
def test_a_priority_is_refused_as_what_it_is(shell: Shell, priority: str, status: int) -> None:
    shell(f"send_agent_message boss one task_assignment '{{}}' {priority}", status=status)


def test_whoever_works_is_heard_of(shell: Shell, bus: Bus) -> None:
    shell(
        """
        export BUS_NOW=+60
        save_agent_state one k v
        create_agent_checkpoint two >/dev/null
        send_agent_message boss one task_assignment '{}' >/dev/null
        """
    )
    assert {agent.agent_id for agent in bus.agents() if (agent.last_heartbeat - agent.spawn_time).seconds >= 59} == {
        "boss", "one", "two",
    }  # fmt: skip


VALUES = [
    "", "plain", "007", "1e5", "-n", "--help", "*", "'", '"', "\\", "$(exit 9) `exit 9` $HOME !!", "a\rb\r\nc\n\rd",
    "\n.tables\n.quit\n-- x\n;\n/\ngo\n", "trailing\n\n", "<0>\r<1\r><2>\r", "é\u202e\U0001f600", "\t\x1b[31m\x7f",
    "{x:1}", "%s %d", "&&", "a" * 5000,
]  # fmt: skip


def test_values_and_payloads_arrive_byte_for_byte(shell: Shell, bus: Bus) -> None:
    script = """
    number=0
    for value; do
      key=k$((++number))
      save_agent_state one "$key" "$value" user_data
      load_agent_state one "$key"
      send_agent_message boss one task_assignment "$(jq -cn --arg v "$value" '{title: $v, n: 1.50}')" >/dev/null
    done
    """
    assert shell(script, *VALUES) == "".join(f"{value}\n" for value in VALUES)
    for number, value in enumerate(VALUES, 1):
        assert bus.state_load("one", f"k{number}") == value
    found = json.loads(shell("get_agent_messages one true"))
    assert [message["payload"]["title"] for message in found] == VALUES


def test_what_is_taken_is_printed_as_it_is_then(shell: Shell, bus: Bus) -> None:
    shell("""send_agent_message boss one task_assignment '{"title": ",\\"status\\":\\"leased\\",", "due_at": null}'""")
    bus.send("boss", "one", "task_assignment", {}, correlation=',"due_at":"x"', expires="1h")
    printed = msgspec.json.decode(shell("get_agent_messages one true"), type=list[Message])
    assert msgspec.json.encode(printed) == msgspec.json.encode([bus.message(1), bus.message(2)])


@pytest.mark.parametrize("piece", ["x", "'", "\r", "\n", "\\", "é"])
def test_a_megabyte_arrives(shell: Shell, bus: Bus, tmp_path: Path, piece: str) -> None:
    value = piece * (1_000_000 // len(piece.encode()))
    (tmp_path / "value").write_bytes(value.encode())
    (tmp_path / "payload").write_text(
        json.dumps({"title": value}, ensure_ascii=False) if piece in "xé'" else "{}", "utf-8"
    )
    shell(
        """
        save_agent_state one big "$(cat value; echo .)"
        [[ $(load_agent_state one big) == "$(cat value; echo .)" ]]
        send_agent_message boss one task_assignment "$(cat payload)"
        """
    )
    assert bus.state_load("one", "big") == value + "."
    (message,) = bus.receive("one")
    assert message.payload == json.loads((tmp_path / "payload").read_text("utf-8"))


def test_a_state_value_can_run_out(shell: Shell) -> None:
    done = shell(
        """
        save_agent_state one k v temp_data 1h
        load_agent_state one k
        BUS_NOW=+3601 load_agent_state one k || echo "status $?"
        """
    )
    assert done == "v\nstatus 1\n"


def test_a_broadcast_prints_an_id_a_line(shell: Shell) -> None:
    assert shell("send_agent_message boss '*' task_assignment '{}'") == "1\n2\n"
    shell("register_agent alone validation '' t; send_agent_message alone '*' task_assignment '{}'", status=1)
    shell("send_agent_message alone '*' task_assignment '{\"phase\": 1}'", status=65)
    shell("send_agent_message alone '*' gossip '{}'", status=65)


CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
NO_CONTEXTS = [
    "", "x", CONTEXT.upper(), f"{CONTEXT}\n", f"{CONTEXT}-", CONTEXT.replace("00-", "01-"),
    f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
]  # fmt: skip


@pytest.mark.parametrize("told", [CONTEXT, *NO_CONTEXTS])
def test_a_message_goes_with_the_trace_context_it_is_sent_in(shell: Shell, bus: Bus, told: str) -> None:
    """What is no context counts as not there."""
    script = """
    TRACEPARENT=$1
    for to in one @milestone-executor '*'; do send_agent_message boss "$to" task_assignment '{}'; done
    """
    assert shell(script, told) == "1\n2\n3\n4\n"
    assert {message.traceparent for message in bus.messages()} == {told if told == CONTEXT else None}


def test_what_was_given_back_can_not_be_acknowledged(shell: Shell, bus: Bus) -> None:
    shell("send_agent_message boss one task_assignment '{}'; receive_agent_message one; release_agent_message 1.1")
    shell("ack_agent_message 1.1", status=76)
    shell("receive_agent_message one; release_agent_message 1.2 5m")
    assert bus.message(1).status == "scheduled"
    shell("receive_agent_message one", status=1)
    shell("receive_agent_message one 10s 0.01", status=1)


def test_a_wait_finds_what_comes(shell: Shell) -> None:
    done = shell(
        """
        { until [[ -e .milestones/coordination.db.bells/one ]]; do :; done
          send_agent_message boss one task_assignment '{"phase": "rung"}' >/dev/null; } &
        receive_agent_message one 30s 20s | jq -r .payload.phase
        wait
        """
    )
    assert done == "rung\n"


def test_the_leases_of_a_dead_script_come_back(shell: Shell) -> None:
    done = shell(
        """
        sleep 600 & pid=$!
        register_agent mortal milestone-executor m s '[]' "$pid"
        send_agent_message boss @milestone-executor task_assignment '{}' >/dev/null
        receive_agent_message mortal 1h | jq -r .receipt
        receive_agent_message one || echo none
        kill -9 "$pid"; wait "$pid" 2>/dev/null || :
        receive_agent_message one | jq -r .receipt
        register_agent mortal milestone-executor m s '[]' $$
        send_agent_message boss mortal task_assignment '{}' >/dev/null
        receive_agent_message mortal 1h | jq -r .receipt
        register_agent mortal milestone-executor m s '[]' $$
        receive_agent_message mortal || echo kept
        register_agent mortal milestone-executor m s
        receive_agent_message mortal || echo kept
        """
    )
    assert done.split() == ["1.1", "none", "1.2", "2.1", "kept", "kept"]


def test_registering_again_gives_back_what_the_dead_process_held(shell: Shell) -> None:
    done = shell(
        """
        sleep 600 & pid=$!
        register_agent mortal milestone-executor m s '[]' "$pid"
        send_agent_message boss mortal task_assignment '{}' >/dev/null
        receive_agent_message mortal 1h >/dev/null
        kill -9 "$pid"; wait "$pid" 2>/dev/null || :
        register_agent mortal milestone-executor m s '[]' $$
        receive_agent_message mortal | jq -r .receipt
        """
    )
    assert done == "1.2\n"


def test_checkpoints_sessions_and_statuses(shell: Shell, bus: Bus, tmp_path: Path) -> None:
    name = "odd 'name\" é"
    (tmp_path / name).write_text("content")
    done = shell(
        """
        create_agent_checkpoint one
        create_agent_checkpoint one automatic '{"at": "é"}' "$1"
        get_session_status s | jq -r .agent_count
        list_session_agents s | jq -r '.[].agent_id' | sort
        update_agent_status one paused
        update_agent_status two completed
        list_session_agents s | jq -r '[.[].status] | sort | join(" ")'
        """,
        name,
    )
    first, second, *rest = done.splitlines()
    assert rest == ["3", "boss", "one", "two", "active completed paused"]
    restored = bus.checkpoint_restore("one")
    assert restored
    assert (restored.checkpoint.checkpoint_id, restored.checkpoint.parent_id) == (second, first)
    assert [(file.path, file.status) for file in restored.files] == [(str(tmp_path / name), "ok")]
    assert restored.checkpoint.state_snapshot == {"at": "é"}


def test_ending_gives_back(shell: Shell) -> None:
    shell("send_agent_message boss @milestone-executor task_assignment '{}'; receive_agent_message one 1h")
    assert shell("update_agent_status one failed; receive_agent_message two | jq -r .receipt") == "1.2\n"


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("send_agent_message boss one task_assignment", 64),
        ("send_agent_message boss one task_assignment '{}' high", 64),
        ("register_agent one", 64),
        ("save_agent_state one k v user_data soon", 64),
        ("ack_agent_message 1", 64),
        ('ack_agent_message "1.1\'"', 64),
        ("receive_agent_message one soon", 64),
        ("create_agent_checkpoint one manual '{}' missing-file", 64),
        ("create_agent_checkpoint one manual '{}' /dev/null", 64),
        ("register_agent one milestone-executor m s '[]' 4194305", 64),
        ("send_agent_message boss one gossip '{}'", 65),
        ("send_agent_message boss one task_assignment '{}' 0", 65),
        ("send_agent_message boss one task_assignment '{}' 11", 65),
        ("send_agent_message boss one task_assignment '{broken'", 65),
        ("send_agent_message boss one task_assignment '{\"phase\": 7}'", 65),
        ("send_agent_message boss one task_assignment '{\"\\u0070hase\": 7}'", 65),
        ('send_agent_message boss one task_assignment \'{"a": 1, "a": 2}\'', 65),
        ('send_agent_message boss one task_assignment \'{"a": "\\ud800"}\'', 65),
        ('send_agent_message boss one task_assignment $\'{"a": "\\xff"}\'', 65),
        ("send_agent_message boss one task_assignment '" + '{"a":' + "[" * 70 + "]" * 70 + "}'", 65),
        ("send_agent_message boss 'a b' task_assignment '{}'", 65),
        ("send_agent_message boss @plumber task_assignment '{}'", 65),
        ("register_agent x plumber m s", 65),
        ("register_agent 'x y' validation m s", 65),
        ("register_agent x validation m s '{'", 65),
        ("save_agent_state one 'bad key' v", 65),
        ("save_agent_state one k v gossip", 65),
        ("save_agent_state one k $'\\xff'", 65),
        ("save_agent_state one k $'\\xf4\\x90\\x80\\x80'", 65),  # beyond U+10FFFF
        ("update_agent_status one asleep", 65),
        ("create_agent_checkpoint one weekly", 65),
        ("create_agent_checkpoint one manual '{'", 65),
        ("send_agent_message nobody one task_assignment '{}'", 66),
        ("receive_agent_message nobody", 66),
        ("get_agent_messages nobody true", 66),
        ("update_agent_status nobody paused", 66),
        ("create_agent_checkpoint nobody", 66),
        ("get_session_status nowhere", 66),
        ("list_session_agents nowhere", 66),
        ("ack_agent_message 99.1", 66),
        ("BUS_URL=missing.db load_agent_state one k", 66),
        ("cd / && load_agent_state one k", 66),
        ("printf 'no database %.0s' {1..200} >text; BUS_URL=text load_agent_state one k", 66),
        ("BUS_URL=. load_agent_state one k", 66),
        ("ln -s .milestones/coordination.db link; BUS_URL=link save_agent_state one k v", 66),
    ],
)
def test_errors_have_their_status_and_change_nothing(shell: Shell, bus: Bus, script: str, status: int) -> None:
    assert shell(script, status=status) == ""
    assert bus.messages() == []
    assert bus.state_list("one") == []
    assert {agent.agent_id for agent in bus.agents()} == {"boss", "one", "two"}


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("send_agent_message nobody one task_assignment {}", "no such agent: nobody;"),
        ("update_agent_status nobody active", "no such agent: nobody;"),
        ("send_agent_message boss one tusk {}", "there is no such message type: tusk;"),
        ("send_agent_message boss @tusk task_assignment {}", "there is no such agent type: @tusk;"),
        ("register_agent three tusk m s", "there is no such agent type: tusk;"),
        ("save_agent_state one k v tusk", "there is no such state type: tusk;"),
        ("ack_agent_message 9.1", "no such message: 9.1;"),
        ("release_agent_message 9.1", "no such message: 9.1;"),
        ("get_session_status nowhere", "no such session: nowhere;"),
        ("list_session_agents nowhere", "no such session: nowhere;"),
    ],
)
def test_an_error_names_what_is_not_there(shell: Shell, script: str, error: str) -> None:
    status = 65 if "tusk" in script else 66
    assert error in shell(f"{script} 2>told || {{ tee /dev/stderr <told; exit {status}; }}", status=status)


def test_looking_at_a_mailbox_nobody_has_is_empty(shell: Shell) -> None:
    assert shell("get_agent_messages nobody") == "[]\n"


def test_a_newer_bus_is_said_plainly(shell: Shell) -> None:
    with sqlite3.connect(".milestones/coordination.db") as connection:
        connection.execute("pragma user_version = 999")
    connection.close()
    shell("load_agent_state one k", status=66)


def test_initialising_makes_the_bus_here(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shell("cd new; unset BUS_URL; initialize_agent_coordination; initialize_agent_coordination")
    assert (tmp_path / "new" / ".milestones" / "coordination.db").exists()


def test_many_shells_at_once_lose_nothing(shell: Shell, bus: Bus) -> None:
    done = shell(
        """
        for n in {1..6}; do
          ( for m in {1..10}; do send_agent_message boss one task_assignment "{\\"task_id\\": \\"$n/$m\\"}"; done ) &
        done
        wait
        """
    )
    assert sorted(map(int, done.split())) == list(range(1, 61))
    assert len(bus.pending("one")) == 60


def test_the_wrappers_are_the_commands(tmp_path: Path) -> None:
    tree = FUNCTIONS.parents[2]
    for wrapper in sorted((tree / "bin").glob("bus-*")):
        text = wrapper.read_text("utf-8")
        assert f'/bus" {wrapper.name.removeprefix("bus-")} "$@"' in text
        assert 3 <= text.count("\n") <= 10
        assert os.access(wrapper, os.X_OK)


def test_what_a_function_says_moves_no_cursor(shell: Shell) -> None:
    said = shell('send_agent_message boss one note "{}" "$1" 2>&1 || true', "\u202e\x1b[2J\u200b")
    assert said.startswith("bus: not a whole number: ")
    assert said.isascii()
    assert said[:-1].isprintable()


def test_the_words_of_usage_are_readable(shell: Shell) -> None:
    assert "ID [TYPE] [SNAPSHOT_JSON] [FILE...]" in shell("create_agent_checkpoint 2>&1 || exit 0; exit 9")
    assert "name one of manual, automatic" in shell("create_agent_checkpoint one weekly 2>&1 || exit 0; exit 9")


@pytest.mark.parametrize("capabilities", ['[{"a":1,"a":2}]', '["\\u0000"]', "[9223372036854775808]", "[1e999]"])
def test_capabilities_are_judged_as_payloads_are(shell: Shell, capabilities: str) -> None:
    shell('register_agent three validation m s "$1"', capabilities, status=65)


@pytest.mark.parametrize("capabilities", ['{"bash": true}', "5", '"bash"', "bash"])
def test_capabilities_that_are_no_array_are_told_so(shell: Shell, capabilities: str) -> None:
    told = shell('register_agent three validation m s "$1" 2>&1 || (($? == 65))', capabilities)
    assert told == """bus: capabilities are a JSON array; write '["bash", "python"]'\n"""
