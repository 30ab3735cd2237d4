"""Payload integrity, on a file, where a payload can be damaged so that it is no JSON any more; see conformance, too."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import Bus, digests
from tests.clients.conftest import FUNCTIONS, Shell
from tests.clients.conftest import shell as shell_fixture

shell = shell_fixture
__all__ = ["FUNCTIONS", "shell"]

PAYLOADS = ['{"a":1}', ' { "a" : [ 1 , "b  \\" c" ] ,\n"d":{}}\t', '{"\\u0041":"ä “€” \\\\"}', "{}"]


def damage(url: str, id: int, payload: str) -> None:
    """Change a payload behind the back of the bus."""
    with closing(sqlite3.connect(url, isolation_level=None)) as connection:
        (guard,) = connection.execute("select sql from sqlite_schema where name = 'agent_messages_envelope'").fetchone()
        connection.execute("drop trigger agent_messages_envelope")
        connection.execute("update agent_messages set payload = ? where id = ?", [payload, id])
        connection.execute(guard)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
), st.sampled_from([None, 0, 3, "\t", "\r\n "]), st.booleans())  # fmt: skip
def test_compact_is_the_text_without_white_space_between_its_tokens(
    value: object, indent: int | str | None, ascii: bool
) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=ascii)
    strings = re.compile(r'("(?:[^"\\]|\\.)*")|[ \t\r\n]+', re.S)
    assert digests.compact(written) == strings.sub(r"\1", written)
    assert json.loads(digests.compact(written)) == value


@pytest.mark.parametrize("text", ['{"a": ', '{"a" : nonsense}', "", '["a" "b"]', "[" * 5000])
def test_what_is_no_json_has_a_digest_too(text: str) -> None:
    assert digests.compact(text) == text.replace(" ", "")
    assert len(digests.of(text)) == digests.LENGTH


@pytest.mark.parametrize("limit", [1, 5])
@pytest.mark.parametrize("damaged", ['{"a":', "", "null"])
def test_a_payload_that_is_no_json_any_more_is_buried_and_blocks_nobody(url: str, damaged: str, limit: int) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="milestone-executor", session="s")
        for number in (1, 2):
            bus.send("a", "a", "task_assignment", {"a": number})
        damage(url, 1, damaged)
        finding = bus.doctor(deep=True)[-1]
        assert (finding.verdict, finding.details) == ("fault", "1 of 2 are not what was sent: 1")
        assert [message.id for message in bus.receive("a", limit=limit)] == [2]
        dead = bus.message(1)
        assert (dead.status, dead.dead_reason, dead.reason) == ("dead", "damaged", "the text is not what was sent")
        bus.redrive([1])
        assert bus.receive("a") == []
        assert bus.message(1).dead_reason == "damaged"


@pytest.mark.parametrize("limit", [1, 5])
@pytest.mark.parametrize("damaged", ['{"a":', "", "null"])
def test_what_was_put_in_by_hand_and_is_no_json_any_more_is_buried(url: str, damaged: str, limit: int) -> None:
    with Bus.open(url) as bus, closing(sqlite3.connect(url, isolation_level=None)) as hand:
        bus.register("a", type="milestone-executor", session="s")
        hand.execute(
            "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload)"
            " values ('s', 'me', 'a', 'task_assignment', '{}')"
        )
        damage(url, 1, damaged)
        assert bus.receive("a", limit=limit) == []
        assert (bus.message(1).status, bus.message(1).dead_reason) == ("dead", "damaged")


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_shell_s_digest_is_the_same(shell: Shell, payload: str) -> None:
    shell('send_agent_message boss one task_assignment "$1"', payload)
    with Bus.open() as bus:
        assert bus.message(1).digest == digests.of(payload)
        assert json.loads(shell("receive_agent_message one"))["payload"] == json.loads(payload)


def test_the_shell_buries_what_is_damaged(shell: Shell) -> None:
    path = str(Path(".milestones") / "coordination.db")
    with Bus.open() as bus:
        for number in range(4):
            bus.send("boss", "one", "task_assignment", {"a": number})
        damage(path, 1, '{"a":9}')
        assert json.loads(shell("receive_agent_message one"))["id"] == 2
        damage(path, 3, '{"a"')
        assert [message["id"] for message in json.loads(shell("get_agent_messages one true"))] == [4]
        assert [bus.message(id).dead_reason for id in (1, 3)] == ["damaged", "damaged"]
        damage(path, 4, "{}")
        bus.send("boss", "one", "task_assignment", {})
        damage(path, 5, '{"b":1}')
        shell("receive_agent_message one", status=1)
        assert bus.message(5).dead_reason == "damaged"
