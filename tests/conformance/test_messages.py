"""Send, order, receive, receipts."""

import os
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from bus import Bus, BusError, clock, messages
from tests.conformance.refusal import refused
from tests.conftest import Process

TASK = "task_assignment"


def send(bus: Bus, to: str = "one", phase: str = "x", **options: object) -> int:
    return bus.send("boss", to, TASK, {"phase": phase}, **options)  # type: ignore[arg-type]


def take(bus: Bus, agent: str = "one", **options: object) -> str:
    (message,) = bus.receive(agent, **options)  # type: ignore[arg-type]
    assert message.receipt
    return message.receipt


def phases(bus: Bus, agent: str = "one", limit: int = 100) -> list[str]:
    return [message.payload["phase"] for message in bus.receive(agent, limit=limit)]


# --- send


def test_the_sender_must_be_registered(bus: Bus) -> None:
    with refused("unknown_agent", 66):
        bus.send("nobody", "one", TASK, {})


def test_the_recipient_may_register_later(team: Bus) -> None:
    send(team, "late")
    team.register("late", type="milestone-executor", session="other")
    assert phases(team, "late") == ["x"]


def test_the_session_of_a_message_is_its_senders(team: Bus) -> None:
    assert team.message(send(team)).session_id == "s"


@pytest.mark.parametrize("priority", [0, 11, -1, True, 1.5, "5"])
def test_a_bad_priority_is_refused(team: Bus, priority: object) -> None:
    with refused("invalid_priority", 65):
        send(team, priority=priority)
    assert team.messages() == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"phase": 7}, "invalid_payload"),
        ('{"\\u0070hase": 7}', "invalid_payload"),
        ("[]", "invalid_payload"),
        ("7", "invalid_payload"),
        ('{"a": 1, "a": 2}', "invalid_json"),
        ('{"a": 1, "\\u0061": 2}', "invalid_json"),
        ('{"a": {"b": [{"c": 1, "c": 1}]}}', "invalid_json"),
        ('{"a": "\\u0000"}', "invalid_json"),
        ('{"a": "\\\\\\u0000"}', "invalid_json"),
        ('{"a": 12345678901234567890}', "invalid_json"),
        ('{"a": 1e999}', "invalid_json"),
        ('{"a": NaN}', "invalid_json"),
        ('{"a": "\\ud800"}', "invalid_json"),
        ('{"a": "\ud800"}', "invalid_json"),
        (b'{"a": "\xff"}', "invalid_json"),
        ("{a: 1}", "invalid_json"),
        ('{"a": 1', "invalid_json"),
        ("", "invalid_json"),
        ("\ufeff{}", "invalid_json"),
        ({"a": float("nan")}, "invalid_json"),
        ({"a": float("inf")}, "invalid_json"),
        ({"a": 2**70}, "invalid_json"),
        ({"a": object()}, "invalid_json"),
        ('{"a":' + "[" * 64 + "]" * 64 + "}", "invalid_json"),
        ({"a": "x" * 1048576}, "payload_too_large"),
    ],
)
def test_a_bad_payload_is_refused_and_nothing_is_stored(team: Bus, payload: object, code: str) -> None:
    with refused(code, 65):
        team.send("boss", "one", TASK, payload)  # type: ignore[arg-type]
    assert team.messages() == []


def test_long_text_that_is_no_json_is_refused_at_once(team: Bus) -> None:
    for text in ("[" * 40 + '"' + '\\"' * 400_000, "[" * 40 + '"\\' * 400_001):
        with refused("invalid_json", 65):
            team.send("boss", "one", TASK, text)
        with refused("invalid_json", 65):
            team.checkpoint_create("one", text)


@pytest.mark.parametrize("payload", ['{"a": 1, "b": 2,}', "{a: 1}", '{"a": 1', "", '{"a": NaN}', '{"a": 1e999}'])
def test_what_is_no_json_is_told_so_where_keys_are_required(team: Bus, payload: str) -> None:
    team.types_add("message", "strict", schema={"required": ["a", "b"]})
    with refused("invalid_json", 65):
        team.send("boss", "one", "strict", payload)
    with refused("invalid_payload", 65):
        team.send("boss", "one", "strict", '{"a": 1}')
    with refused("invalid_json", 65):
        team.send("boss", "one", "progress_update", '{"progress": ' + "9" * 5000 + "}")


@pytest.mark.parametrize("to", ["one", "*"])
def test_what_is_no_json_is_told_so_under_a_key_that_was_used(team: Bus, to: str) -> None:
    def tell(payload: str) -> object:
        if to == "*":
            return team.broadcast("boss", TASK, payload, key="k")
        return team.send("boss", to, TASK, payload, key="k")

    tell("{}")
    with refused("invalid_json", 65):
        tell("x")


def test_no_idempotency_key_is_empty(team: Bus) -> None:
    with refused("invalid_idempotency_key", 65):
        send(team, key="")
    assert team.messages() == []


@pytest.mark.parametrize(
    "payload",
    [
        "{}",
        '{"other": [1, 1.0, null, true, "\\u00e9\\ud83d\\ude00"]}',
        '{"weight": 1.0}',
        '{"a": "\\\\u0000"}',
        '{"a": 9223372036854775807}',
        '{"a":' + "[" * 63 + "]" * 63 + "}",
        '{ "phase" :\n "with spaces" }',
    ],
)
def test_a_good_payload_arrives(team: Bus, payload: str) -> None:
    import json

    team.send("boss", "one", TASK, payload)
    assert team.receive("one")[0].payload == json.loads(payload)


class Task(msgspec.Struct):
    phase: str


def test_a_payload_may_be_a_struct_and_be_read_as_one(team: Bus) -> None:
    team.send("boss", "one", TASK, Task("x"))
    team.send("boss", "one", TASK, {})
    found, other = team.receive("one", limit=2)
    assert found.payload_as(Task) == Task("x")
    with pytest.raises(msgspec.ValidationError):
        other.payload_as(Task)


def test_the_refusal_of_a_payload_says_what_is_wrong(team: Bus) -> None:
    with pytest.raises(Exception, match=r"phase: 7 is not of type 'string'"):
        team.send("boss", "one", TASK, {"phase": 7})


def test_the_refusal_of_what_is_no_object_says_so(team: Bus) -> None:
    with pytest.raises(Exception, match=r"^a payload is a JSON object;"):
        team.send("boss", "one", TASK, "[]")


def test_unknown_types_are_refused(team: Bus) -> None:
    with refused("unknown_type", 65):
        team.send("boss", "one", "gossip", {})
    with refused("unknown_type", 65):
        send(team, "@nobody-of-this-type")


@pytest.mark.parametrize("to", ["", "@", "-x", ".x", "a b", "a/b", "é", "x" * 129, "a\n", "a\0b", "@-x", "**"])
def test_an_illegal_address_is_refused(team: Bus, to: str) -> None:
    with pytest.raises(Exception, match=r"legal address|agent type|address with a NUL"):
        send(team, to)
    assert team.messages() == []


def test_a_key_makes_the_second_send_the_first(team: Bus) -> None:
    first = team.send("boss", "one", TASK, '{"phase": "x", "weight": 1}', key="k")
    assert team.send("boss", "one", TASK, '{"weight":1.0,"phase":"x"}', key="k") == first
    assert len(team.messages()) == 1


def test_a_key_with_another_payload_or_type_is_a_conflict(team: Bus) -> None:
    send(team, key="k")
    with refused("key_reused", 76):
        send(team, phase="y", key="k")
    with refused("key_reused", 76):
        team.send("boss", "one", "progress_update", {"phase": "x"}, key="k")


def test_a_key_holds_for_one_sender_and_one_recipient(team: Bus) -> None:
    assert len({send(team, key="k"), send(team, "two", key="k"), team.send("two", "one", TASK, {}, key="k")}) == 3


def test_a_key_lasts_as_long_as_the_row(team: Bus) -> None:
    first = send(team, key="k")
    team.ack(take(team))
    assert send(team, key="k") == first
    assert team.receive("one") == []


def test_a_broadcast_goes_to_all_that_have_not_ended_but_the_sender(team: Bus) -> None:
    team.register("ended", type="milestone-executor", session="s")
    team.retire("ended")
    team.register("elsewhere", type="milestone-executor", session="other")
    ids = team.broadcast("boss", TASK, {"phase": "all"}, key="b")
    assert sorted(team.message(id).to_agent for id in ids) == ["one", "two"]
    assert team.broadcast("boss", TASK, {"phase": "all"}, key="b") == ids
    with refused("key_reused"):
        team.broadcast("boss", TASK, {"phase": "other"}, key="b")


@pytest.mark.parametrize("status", ["completed", "failed", "terminated"])
def test_a_broadcast_leaves_out_who_ended_in_whatever_way(team: Bus, status: str) -> None:
    team.retire("two", status=status)
    assert [team.message(id).to_agent for id in team.broadcast("boss", TASK, {})] == ["one"]


def test_the_copies_of_a_broadcast_have_all_that_was_given(team: Bus) -> None:
    ids = team.broadcast("boss", TASK, {}, priority=9, delay=60, expires=300, correlation="c", reply_to=7)
    for copy in [team.message(id) for id in ids]:
        assert (copy.priority, copy.status, copy.correlation_id, copy.reply_to) == (9, "scheduled", "c", 7)
        assert copy.due_at
        assert copy.expires_at
        assert (copy.due_at - copy.created_at).total_seconds() == 60
        assert (copy.expires_at - copy.created_at).total_seconds() == 300
    assert team.receive("one") == []
    with clock.moved(61):
        assert len(team.receive("one")) == 1
    with clock.moved(301):
        assert team.receive("two") == []


def test_a_broadcast_to_nobody_is_empty_and_one_from_nobody_an_error(bus: Bus) -> None:
    bus.register("alone", type="validation", session="s")
    assert bus.broadcast("alone", TASK, {}) == []
    with refused("unknown_agent", 66):
        bus.broadcast("nobody", TASK, {})


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(
    ("type", "payload", "code"),
    [
        ("gossip", {}, "unknown_type"),
        (TASK, {"phase": 1}, "invalid_payload"),
        (TASK, "[]", "invalid_payload"),
        (TASK, "{", "invalid_json"),
        (TASK, {"title": "x" * 200}, "payload_too_large"),
    ],
)
def test_a_broadcast_to_nobody_is_judged_as_any(
    bus: Bus, type: str, payload: dict[str, object] | str, code: str, at_once: bool
) -> None:
    bus.config_set("max_payload_bytes", "100")
    bus.register("alone", type="validation", session="s")
    with refused(code, 65):
        if at_once:
            bus.apply([messages.broadcast("alone", TASK, {}), messages.broadcast("alone", type, payload)])
        else:
            bus.broadcast("alone", type, payload)
    assert bus.broadcast("alone", TASK, {}) == []
    assert bus.messages() == []


# --- time


def test_delay_holds_a_message_back(team: Bus) -> None:
    id = send(team, delay="5m")
    assert team.message(id).status == "scheduled"
    assert team.receive("one") == []
    with clock.moved(299):
        assert team.receive("one") == []
    with clock.moved(301):
        assert phases(team) == ["x"]


def test_what_is_due_is_seen_by_who_only_looks(team: Bus) -> None:
    delayed, leased, queued = send(team, delay=60), send(team, priority=9), send(team, "@milestone-executor", delay=60)
    send(team, delay=60, expires=61), send(team, delay=90)
    assert [message.id for message in team.receive("one", lease=60)] == [leased]
    assert team.pending("one") == []
    with clock.moved(61):
        seen = [message.id for message in team.pending("one")]
        assert seen == [message.id for message in team.receive("one", limit=9)] == [leased, delayed, queued]


def test_who_only_looks_does_not_see_what_would_be_dead(team: Bus) -> None:
    team.config_set("message_retry_limit", "0")
    send(team)
    team.receive("one", lease=60)
    with clock.moved(61):
        assert team.pending("one") == team.receive("one") == []


def test_what_expired_unseen_is_over(team: Bus) -> None:
    lapsed, scheduled, other = send(team, expires=60), send(team, delay=60, expires=60), send(team, expires=60)
    with clock.moved(61):
        for id in (lapsed, scheduled, other):
            assert team.wait_ended(id, wait=0).dead_reason == "expired"
            assert team.message(id).status == "dead"
            with refused("already_ended", 76):
                team.cancel(id)
        assert [message.id for message in team.dead()] == [lapsed, scheduled, other]
        assert {message.dead_reason for message in team.dead(session="s")} == {"expired"}
        assert team.dead(session="t") == team.messages(status="ready") == []
        assert [message.id for message in team.messages(status="dead")] == [other, scheduled, lapsed]
        assert (team.status()["messages"], team.status()["oldest_ready"]) == ({"dead": 3}, None)
        assert team.redrive([lapsed, scheduled]) == [lapsed, scheduled]
        assert team.redrive(session="t") == []
        assert team.redrive() == [other]
        assert [message.id for message in team.receive("one", limit=9)] == [lapsed, scheduled, other]


def test_what_is_due_is_ready_though_nobody_moved_it(team: Bus) -> None:
    first, later = send(team, delay=60), send(team, delay=600)
    lapsed = team.send("boss", "two", "task_assignment", {}, expires=50)
    waits = team.send("boss", "two", "task_assignment", {})
    with clock.moved(61):
        assert team.message(first).status == "ready"
        assert [message.id for message in team.messages(status="ready")] == [waits, first]
        assert [message.id for message in team.messages(status="scheduled")] == [later]
        found = team.status()
        assert found["messages"] == {"ready": 2, "scheduled": 1, "dead": 1}
        assert found["oldest_ready"] == clock.rfc3339(team.message(first).created_at.timestamp())
        assert [(queue.mailbox, queue.ready) for queue in team.overview().queues] == [("one", 1), ("two", 1)]
        told = [(found.owner, found.number, found.subject) for found in team.trace_waiting()]
        assert told == [("one", 1, f"message {first}"), ("two", 1, f"message {waits}")]
        numbers = {family.name: [[*s.labels.values(), s.value] for s in family.samples] for family in team.metrics()}
        assert sorted(numbers["agent_bus_messages"]) == [["dead", 1], ["ready", 2], ["scheduled", 1]]
        assert numbers["agent_bus_dead_messages"] == [["expired", 1]]
        assert sorted(numbers["agent_bus_queue_depth"]) == [["one", 1], ["two", 1]]
    assert team.message(lapsed).status == "ready"


def test_what_expired_in_the_hands_of_one_who_may_still_acknowledge_it_is_not_over(team: Bus) -> None:
    send(team, expires=60)
    receipt = take(team, lease=30)
    with clock.moved(31):
        assert team.monitor_check().due == 1
    with clock.moved(61):
        assert team.message(1).status == team.wait_ended(1, wait=0).status == "ready"
        with refused("not_dead", 76):
            team.redrive(1)
        team.ack(receipt)


def test_a_message_nobody_took_in_time_is_dead(team: Bus) -> None:
    id = send(team, expires="1m")
    assert phases(team) == ["x"]
    other = send(team, expires=60)
    with clock.moved(61):
        assert team.receive("one") == []
        assert {team.message(id).dead_reason, team.message(other).dead_reason} == {"expired"}


def test_a_bad_duration_is_refused(team: Bus) -> None:
    for duration in ("soon", "-1", -1, "1w", "", float("nan"), float("inf"), "9" * 30, True):
        with refused("usage", 64):
            send(team, delay=duration)


# --- order


def test_the_most_urgent_first_and_then_the_first_sent(team: Bus) -> None:
    for phase, priority in (("a", 1), ("b", 10), ("c", 5), ("d", 10), ("e", 5)):
        send(team, phase=phase, priority=priority)
    assert phases(team) == ["b", "d", "c", "e", "a"]


def test_a_message_that_comes_back_keeps_its_place(team: Bus) -> None:
    for phase in "ab":
        send(team, phase=phase)
    team.release(take(team))
    assert phases(team) == ["a", "b"]


def test_the_best_of_mailbox_and_queue_comes_first(team: Bus) -> None:
    send(team, "one", "low", priority=1)
    send(team, "@milestone-executor", "high", priority=9)
    send(team, "one", "higher", priority=10)
    send(team, "@milestone-executor", "lowest", priority=1)
    assert phases(team) == ["higher", "high", "low", "lowest"]


def test_with_aging_a_message_that_waited_long_overtakes(team: Bus) -> None:
    team.config_set("priority_aging_seconds", "10")
    send(team, phase="old", priority=1)
    with clock.moved(85):
        send(team, phase="new", priority=9)
        assert [message.payload["phase"] for message in team.receive("one")] == ["old"]
        team.release(team.messages(status="leased")[0].receipt or "")
    with clock.moved(75):
        send(team, "two", phase="b", priority=9)
    send(team, "two", phase="a", priority=1)
    with clock.moved(90):
        assert phases(team, "two") == ["b", "a"]


# --- receive


def test_receive_is_empty_when_there_is_nothing_and_refuses_strangers(team: Bus) -> None:
    assert team.receive("one") == []
    with refused("unknown_agent", 66):
        team.receive("nobody")


def test_a_message_belongs_to_one_receiver(team: Bus) -> None:
    send(team, "@milestone-executor")
    assert len(team.receive("one") + team.receive("two")) == 1


def test_the_queues_of_sessions_are_apart(team: Bus) -> None:
    team.register("other", type="milestone-executor", session="elsewhere")
    send(team, "@milestone-executor")
    assert team.receive("other") == []
    assert phases(team) == ["x"]


def test_nobody_waits_for_a_type_that_there_is_not(team: Bus) -> None:
    held = send(team)
    receipt = take(team)
    with refused("unknown_type", 65):
        team.receive("one", type="gossip", wait=600)
    with refused("unknown_type", 65):
        team.receive("one", type="gossip", limit=5, ack=True)
    with refused("unknown_type", 65):
        team.ack_and_receive("one", receipt, type="gossip", wait=600)
    assert team.message(held).status == "leased"
    assert team.receive("one", type="progress_update") == []


def test_limit_and_type_choose(team: Bus) -> None:
    for _ in range(3):
        send(team)
    team.send("boss", "one", "progress_update", {"progress": 5})
    assert [m.message_type for m in team.receive("one", type="progress_update")] == ["progress_update"]
    assert len(team.receive("one", limit=2)) == 2
    for limit in (0, -1, 10**6, True):
        with refused("usage", 64):
            team.receive("one", limit=limit)


def test_a_lease_that_runs_out_gives_the_message_to_another(team: Bus) -> None:
    send(team, "@milestone-executor")
    old = take(team, "one", lease=10)
    with clock.moved(11):
        (message,) = team.receive("two")
        assert message.retry_count == 1
        assert message.receipt == "1.2"
        for late in (team.ack, team.release, team.extend):
            with refused("lease_lost", 76):
                late(old)
        team.ack(message.receipt)


def test_a_lease_that_ran_out_and_nobody_took_can_be_acknowledged_and_extended(team: Bus) -> None:
    send(team, "@milestone-executor", "a", priority=1)
    receipt = take(team, "one", lease=10)
    with clock.moved(11):
        send(team, "two", "b", priority=9)
        assert phases(team, "two", limit=1) == ["b"]  # which also makes `a` ready again
        team.extend(receipt, lease=10)
        assert team.message(1).status == "leased"
        assert team.message(1).retry_count == 0
    with clock.moved(30):
        team.send("two", "two", TASK, {"phase": "c"}, priority=10)
        assert phases(team, "two", limit=1) == ["c"]
        team.ack(receipt)
        assert team.message(1).status == "acknowledged"


def test_a_clock_that_is_set_back_makes_no_lease_last(team: Bus) -> None:
    send(team, "@milestone-executor")
    with clock.moved(86400):
        take(team, "one", lease=10)
    assert phases(team, "two") == ["x"]


def test_a_clock_that_is_set_back_ends_the_leases_of_the_time_before_and_no_others(team: Bus) -> None:
    send(team, "one", "own")
    send(team, "@milestone-executor", "shared")
    with clock.moved(86400):
        take(team, "one", lease=10)
    assert phases(team, "one", limit=1) == ["own"]
    receipt = take(team, "one", lease=60)
    assert team.receive("two") == []
    assert team.receive("one") == []
    team.ack(receipt)


def test_receive_with_ack_is_over_at_once(team: Bus) -> None:
    send(team)
    (message,) = team.receive("one", ack=True)
    assert message.status == "acknowledged"
    assert message.acknowledged_at
    stored = team.message(message.id)
    assert msgspec.json.encode(message) == msgspec.json.encode(stored)
    team.ack(message.receipt or "")


def test_a_message_is_found_however_many_others_are_due(team: Bus) -> None:
    for _ in range(3):
        team.apply([messages.send("boss", "one", TASK, {}, expires=1) for _ in range(4000)])
    last = send(team, delay=2)
    with clock.moved(3):
        assert take(team).startswith(f"{last}.")


def test_past_the_retry_limit_a_message_is_dead_and_can_be_redriven(team: Bus) -> None:
    id = send(team)
    assert team.message(id).delivery == 0
    for delivery in range(1, 5):
        with clock.moved(delivery * 100):
            (message,) = team.receive("one")
            assert (message.receipt, message.delivery) == (f"{id}.{delivery}", delivery)
    with clock.moved(500):
        assert team.receive("one") == []
        (dead,) = team.dead(session="s")
        assert dead.dead_reason == "retries_exhausted"
        with refused("lease_lost"):
            team.ack(f"{id}.4")
        assert team.redrive([id]) == [id]
        (message,) = team.receive("one")
        assert (message.receipt, message.retry_count) == (f"{id}.5", 0)


@pytest.mark.parametrize("by_monitor", [False, True])
def test_what_died_of_its_deliveries_does_not_expire(team: Bus, by_monitor: bool) -> None:
    team.config_set("message_retry_limit", "0")
    id = send(team, expires=100)
    take(team, lease=1)
    for seconds in (5, 200):
        with clock.moved(seconds):
            if by_monitor:
                team.monitor_check()
            assert team.receive("one") == []
            assert team.message(id).dead_reason == "retries_exhausted"
    assert team.message(id).due_at is None


def test_giving_back_counts_too(team: Bus) -> None:
    id = send(team)
    for _ in range(4):
        team.release(take(team), reason="not now")
    assert (team.message(id).dead_reason, team.message(id).reason) == ("retries_exhausted", "not now")


# --- receipts


def test_acknowledging_twice_is_done(team: Bus) -> None:
    send(team)
    receipt = take(team)
    team.ack(receipt)
    team.ack([receipt, receipt])


def test_several_receipts_are_all_or_nothing(team: Bus) -> None:
    send(team)
    send(team)
    first, second = (message.receipt or "" for message in team.receive("one", limit=2))
    team.release(second)
    for settle in (team.ack, team.release, team.extend):
        with refused("lease_lost", 76):
            settle([first, second])
    assert team.message(1).status == "leased"
    with refused("unknown_message", 66):
        team.ack([first, "99.1"])


@pytest.mark.parametrize("receipt", ["", "1", "1.", ".1", "a.b", "1.1.1", "-1.1", "1.1 ", "٣.١", "9" * 19 + ".1"])
def test_what_is_no_receipt_is_usage(team: Bus, receipt: str) -> None:
    with refused("usage", 64):
        team.ack(receipt)


def test_release_with_delay_schedules(team: Bus) -> None:
    send(team)
    team.release(take(team), delay=60)
    assert team.message(1).status == "scheduled"
    assert team.receive("one") == []
    with clock.moved(61):
        assert phases(team) == ["x"]


def test_a_receipt_that_was_given_back_is_lost(team: Bus) -> None:
    send(team)
    receipt = take(team)
    team.release(receipt)
    with refused("lease_lost", 76):
        team.ack(receipt)


def test_extend_keeps_a_message(team: Bus) -> None:
    send(team, "@milestone-executor")
    receipt = take(team, lease=10)
    team.extend(receipt, lease=100)
    with clock.moved(50):
        assert team.receive("two") == []


def test_a_dead_message_tells_who_had_it(team: Bus) -> None:
    team.config_set("message_retry_limit", "0")
    for _ in range(4):
        send(team)
    team.reject(take(team), reason="nonsense")
    team.release(take(team))
    team.cancel(take(team).partition(".")[0])
    take(team)
    team.retire("one")
    assert [(message.status, message.leased_by) for message in team.messages()] == [("dead", "one")] * 4
    for message in team.dead():
        with refused("lease_lost"):
            team.ack(message.receipt or "")
    team.redrive()
    assert {message.leased_by for message in team.messages()} == {None}


def test_reject_buries(team: Bus) -> None:
    send(team)
    receipt = take(team)
    team.reject(receipt, reason="nonsense")
    assert (team.message(1).dead_reason, team.message(1).reason) == ("rejected", "nonsense")
    with refused("lease_lost", 76):
        team.ack(receipt)


def test_a_refusal_names_what_it_is_about(team: Bus) -> None:
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: team.send("typo", "one", TASK, {}), "no such agent: typo"),
        (lambda: team.receive("typo"), "no such agent: typo"),
        (lambda: team.session_show("typo"), "no such session: typo"),
        (lambda: team.cancel(99), "no such message: 99"),
        (lambda: team.checkpoint_show("typo"), "no such checkpoint: typo"),
        (lambda: team.checkpoint_restore("one", checkpoint="typo"), "no such checkpoint: typo"),
        (lambda: team.milestone_show("typo"), "no such milestone: typo"),
        (lambda: team.trace_show(99), "no such record of an agent's life: 99"),
        (lambda: team.trace_start(99), "no such record of an agent's life: 99"),
        (lambda: team.config_set("typo", "1"), "no such setting: typo"),
        (lambda: team.register("x", type="validation", session="new", operation="typo"), "no such type: typo"),
    ]
    for call, words in calls:
        with pytest.raises(BusError) as caught:
            call()
        assert caught.value.message == words


def test_a_refusal_names_the_receipts_that_are_lost(team: Bus) -> None:
    for _ in range(9):
        send(team)
    receipts = [message.receipt or "" for message in team.receive("one", limit=9)]
    team.ack(receipts[0])
    team.cancel(2)
    verbs = {
        team.ack: "2.1",
        team.extend: "1.1, 2.1",
        team.release: "1.1, 2.1",
        partial(team.reject, reason="x"): "1.1, 2.1",
    }
    for verb, lost in verbs.items():
        with pytest.raises(BusError) as caught:
            verb(receipts)
        assert (caught.value.code, caught.value.message) == ("lease_lost", f"the lease was lost: {lost}")
        with pytest.raises(BusError, match=r"^no such message: 98\.1, 99\.1;"):
            verb([receipts[3], "98.1", "99.1"])
    team.ack(receipts[2:])
    with pytest.raises(BusError, match=r"^the lease was lost: 1\.1, 2\.1, 3\.1, 4\.1, 5\.1 and 4 more;"):
        team.release(receipts)


def test_cancel_withdraws_what_is_not_over(team: Bus) -> None:
    waiting, scheduled, leased, done = send(team, "two"), send(team, delay=60), send(team), send(team, "x")
    receipt = take(team)
    team.register("x", type="validation", session="s")
    team.ack(take(team, "x"))
    for id in (waiting, scheduled, leased, leased):
        team.cancel(id)
        assert team.message(id).dead_reason == "cancelled"
    with refused("lease_lost", 76):
        team.ack(receipt)
    with refused("already_ended", 76):
        team.cancel(done)
    with refused("unknown_message", 66):
        team.cancel(99)


def test_the_dead_stay_dead_when_their_time_comes(team: Bus) -> None:
    scheduled, expiring, held, rejected = send(team, delay=60), send(team, "two", expires=60), send(team), send(team)
    receipts = [message.receipt or "" for message in team.receive("one", limit=2, lease=60)]
    team.reject(receipts[1], reason="no")
    for id in (scheduled, expiring, held):
        team.cancel(id)
    with clock.moved(61):
        assert team.receive("one") == team.receive("two") == []
        assert team.monitor_check().due == 0
        assert [(message.id, message.dead_reason) for message in team.dead()] == [
            (scheduled, "cancelled"), (expiring, "cancelled"), (held, "cancelled"), (rejected, "rejected"),
        ]  # fmt: skip


def test_redrive_is_all_or_nothing_and_only_for_the_dead(team: Bus) -> None:
    dead, alive = send(team, "two"), send(team)
    team.cancel(dead)
    with pytest.raises(BusError, match=rf"^the message is not dead: {alive}; ") as caught:
        team.redrive([dead, alive])
    assert caught.value.code == "not_dead"
    with pytest.raises(BusError, match=r"^no such message: 98, 99; ") as caught:
        team.redrive([dead, 98, 99])
    assert caught.value.code == "unknown_message"
    assert team.message(dead).status == "dead"
    assert team.redrive(session="elsewhere") == []
    assert team.redrive() == [dead]


def test_looking_changes_nothing(team: Bus) -> None:
    send(team, phase="a", priority=2)
    send(team, "@milestone-executor", phase="b", priority=3)
    send(team, "two", phase="c")
    assert [m.payload["phase"] for m in team.pending("one")] == ["b", "a"]
    assert team.pending("nobody") == []
    assert [m.payload["phase"] for m in team.messages(to="two")] == ["c"]
    assert len(team.messages(sender="boss", status="ready", session="s")) == 3
    assert {m.status for m in team.messages()} == {"ready"}
    with refused("invalid_status", 65):
        team.messages(status="lost")
    with refused("unknown_message", 66):
        team.message(99)


def test_lists_have_a_filter_an_order_and_a_limit(team: Bus) -> None:
    team.register("far", type="validation", session="other")
    ids = [send(team), send(team, "two"), team.send("far", "one", TASK, {}), send(team)]
    assert [message.id for message in team.messages()] == ids[::-1]
    assert [message.id for message in team.messages(sender="far")] == [ids[2]]
    assert [message.id for message in team.messages(session="s", limit=2)] == [ids[3], ids[1]]
    assert [message.id for message in team.pending("one", limit=2)] == [ids[0], ids[2]]
    for id in reversed(ids):
        team.cancel(id)
    assert [message.id for message in team.dead()] == ids
    assert [message.id for message in team.dead(session="other")] == [ids[2]]
    assert [message.id for message in team.dead(session="s", limit=2)] == ids[:2]


def test_what_receive_returns_is_what_message_shows(team: Bus) -> None:
    team.send("boss", "one", TASK, {"a": "é"}, key="k", correlation="c", reply_to=7, expires=60)
    (message,) = team.receive("one")
    assert message == team.message(message.id)


def test_the_sender_can_wait_for_the_end(team: Bus) -> None:
    id = send(team)
    assert team.wait_ended(id, wait=0).status == "ready"
    team.ack(take(team))
    assert team.wait_ended(id, wait=5).status == "acknowledged"


# --- liveness


def test_what_the_dead_had_leased_is_there_again_at_once(team: Bus, process: Process) -> None:
    team.register("mortal", type="milestone-executor", session="s", pid=process.pid)
    send(team, "@milestone-executor")
    take(team, "mortal", lease="1h")
    assert team.receive("one") == []
    process.kill()
    process.wait()
    assert phases(team) == ["x"]


def test_the_dead_are_found_among_many_who_live(team: Bus, process: Process) -> None:
    for agent, pid in (("alpha", os.getpid()), ("mortal", process.pid), ("omega", os.getpid())):
        team.register(agent, type="milestone-executor", session="s", pid=pid)
        send(team, "@milestone-executor", phase=agent)
        take(team, agent, lease="1h")
    assert team.receive("one") == []
    process.kill()
    process.wait()
    assert phases(team, limit=1) == ["mortal"]


def test_registering_again_gives_back_what_a_dead_process_held(team: Bus, process: Process) -> None:
    team.register("mortal", type="milestone-executor", session="s", pid=process.pid)
    send(team, "mortal")
    take(team, "mortal", lease="1h")
    team.register("mortal", type="milestone-executor", session="s", pid=process.pid)
    assert team.receive("mortal") == []
    process.kill()
    process.wait()
    team.register("mortal", type="milestone-executor", session="s", pid=os.getpid())
    assert phases(team, "mortal") == ["x"]


def test_registering_at_each_call_without_a_pid_keeps_the_leases(team: Bus) -> None:
    send(team)
    receipt = take(team)
    team.register("one", type="milestone-executor", session="s")
    team.ack(receipt)


def test_retiring_gives_back(team: Bus) -> None:
    send(team, "@milestone-executor")
    take(team, "one")
    team.retire("one", status="failed")
    assert phases(team, "two") == ["x"]


def test_a_reused_key_is_told_whatever_else_is_wrong(team: Bus) -> None:
    team.send("boss", "one", "task_assignment", {}, key="k")
    with refused("key_reused", 76):
        team.send("boss", "one", "no_such_type", {}, key="k")
