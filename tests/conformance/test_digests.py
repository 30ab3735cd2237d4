"""Payload integrity, in every store: what is handed out is what was sent, or it is buried as damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
import pytest

from bus import Bus, clock, digests, doctor, messages
from bus.store.url import MEMORY, Server

ENVELOPE = "agent_messages_envelope"  # the trigger that keeps a payload as it was sent


def behind(bus: Bus, text: str, *values: object) -> None:
    """Run a statement behind the back of the bus, past the guard of what was sent."""
    if isinstance(bus.url, Server):
        with psycopg.connect(bus.url.conninfo, autocommit=True) as connection:
            connection.execute(f'set search_path to "{bus.url.schema}"')  # type: ignore[arg-type]
            connection.execute("alter table agent_messages disable trigger agent_messages_envelope")
            connection.execute(text.replace("?", "%s"), values)  # type: ignore[arg-type]
            connection.execute("alter table agent_messages enable trigger agent_messages_envelope")
    elif bus.url.path == MEMORY:
        _unguarded(own(bus), text, values)
    else:
        with closing(sqlite3.connect(bus.url.path, isolation_level=None)) as hand:
            _unguarded(hand, text, values)


def own(bus: Any) -> sqlite3.Connection:
    store = bus.store
    found: sqlite3.Connection = (
        store.connection().sqlite if hasattr(store, "connection") else store._database.bus.sqlite
    )
    return found


def _unguarded(connection: sqlite3.Connection, text: str, values: tuple[object, ...]) -> None:
    (guard,) = connection.execute("select sql from sqlite_schema where name = ?", [ENVELOPE]).fetchone()
    connection.execute(f"drop trigger {ENVELOPE}")
    connection.execute(text, values)
    connection.execute(guard)


def damage(bus: Bus, id: int, payload: str = '{"a":9}') -> None:
    """Change a payload."""
    behind(bus, "update agent_messages set payload = ? where id = ?", payload, id)


def payloads(bus: Bus) -> tuple[str, str]:
    """What the doctor says of the payloads."""
    finding = bus.doctor(deep=True)[-1]
    assert finding.subject == "payloads"
    return finding.verdict, finding.details


def test_the_doctor_reads_some_at_a_time(team: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BATCH", 2)
    ids = [team.send("boss", "one", "task_assignment", {"n": n}) for n in range(5)]
    assert payloads(team) == ("ok", "5 are what was sent")
    damage(team, ids[3])
    assert payloads(team) == ("fault", f"1 of 5 are not what was sent: {ids[3]}")


@pytest.mark.parametrize(
    "payload", ['{"a":1}', ' { "a" : [ 1 , "b  \\" c" ] ,\n"d":{}}\t', '{"\\u0041":"ä “€” \\\\"}', "{}"]
)
def test_a_message_carries_the_digest_of_its_payload(team: Bus, payload: str) -> None:
    id = team.send("boss", "one", "task_assignment", payload)
    assert team.message(id).digest == digests.of(payload)
    (message,) = team.receive("one")
    assert message.digest == digests.of(payload)
    assert payloads(team) == ("ok", "1 are what was sent")


def test_copies_of_a_broadcast_and_messages_of_a_step_carry_it_too(team: Bus) -> None:
    ids = team.broadcast("boss", "task_assignment", {"a": 1})
    ids += team.apply([messages.send("boss", "one", "task_assignment", {"a": 1})])
    assert len(ids) == 3
    assert {team.message(id).digest for id in ids} == {digests.of('{"a":1}')}


Receiving = Callable[[Bus], list[Any]]
RECEIVING: dict[str, Receiving] = {
    "one": lambda bus: bus.receive("one"),
    "several": lambda bus: bus.receive("one", limit=5),
    "of a type": lambda bus: bus.receive("one", type="task_assignment"),
    "and acknowledge": lambda bus: bus.receive("one", ack=True),
    "after an acknowledgement": lambda bus: bus.ack_and_receive("one", bus.receive("one")[0].receipt or "", wait=0),
}


@pytest.mark.parametrize("receiving", RECEIVING.values(), ids=RECEIVING)
def test_a_damaged_message_is_buried_and_blocks_nobody(team: Bus, receiving: Receiving) -> None:
    if receiving is RECEIVING["after an acknowledgement"]:
        team.send("boss", "one", "task_assignment", {"a": 0}, priority=9)
    damaged, good = (team.send("boss", "one", "task_assignment", {"a": number}) for number in (1, 2))
    damage(team, damaged)
    assert payloads(team)[0] == "fault"
    assert payloads(team)[1].endswith(f"are not what was sent: {damaged}")
    assert [message.id for message in receiving(team)] == [good]
    dead = team.message(damaged)
    assert (dead.status, dead.dead_reason, dead.reason) == ("dead", "damaged", "the text is not what was sent")
    assert [message.id for message in team.dead()] == [damaged]
    assert team.receive("one") == []
    with clock.moved(3600):
        team.monitor_check()
        assert team.message(damaged) == dead


def test_a_damaged_message_that_is_redriven_is_buried_again(team: Bus) -> None:
    id = team.send("boss", "one", "task_assignment", {"a": 1})
    damage(team, id)
    assert team.receive("one") == []
    assert team.redrive([id]) == [id]
    assert team.receive("one") == []
    assert team.message(id).dead_reason == "damaged"


def test_who_waits_for_the_end_of_a_damaged_message_is_told(team: Bus) -> None:
    id = team.send("boss", "one", "task_assignment", {"a": 1})
    damage(team, id)
    assert team.receive("one") == []
    assert team.wait_ended(id, wait=5).dead_reason == "damaged"


def test_white_space_between_tokens_is_no_damage(team: Bus) -> None:
    id = team.send("boss", "one", "task_assignment", '{"a":[1,2]}')
    damage(team, id, '{ "a" : [1,\n2] }')
    assert payloads(team)[0] == "ok"
    assert [message.id for message in team.receive("one")] == [id]


def test_a_row_put_in_by_hand_has_no_digest_and_is_received(team: Bus) -> None:
    behind(
        team,
        "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload)"
        " values ('s', 'me', 'one', 'task_assignment', ?)",
        '{"a":1}',
    )
    (message,) = team.receive("one")
    assert (message.digest, message.payload) == (None, {"a": 1})
    assert payloads(team) == ("ok", "0 are what was sent")
