"""The rules at their edges: what two rules make together, many rows, odd times; and who wakes whom."""

import inspect
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from bus import Bus, BusError, agents, clock, messages
from bus.models import Message
from bus.operation import Operation, Pause, Routine
from bus.store.url import MEMORY
from tests.conformance.refusal import refused
from tests.conformance.test_messages import TASK, phases, send, take
from tests.conftest import Call, Meanwhile, Process


def told(bus: Bus, agent: str) -> agents.Outlook:
    """What one who waits knows of what comes next."""
    found: Any = bus.store.run(agents.outlook(agent))
    outlook: agents.Outlook = bus._runner.run(found) if inspect.isawaitable(found) else found
    return outlook


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ('{"a": 1e2}', '{"a": 100}'),
        ('{"a": "\\u00e9\\ud83d\\ude00"}', '{"a": "é\U0001f600"}'),
        ('{"\\u0070hase": "x"}', '{"phase": "x"}'),
        ('{"a\\/b": 1}', '{"a/b": 1}'),
        ('{"é": [{"b c": 1}]}', '{ "\\u00e9" :[ {"b c":1.0} ] }'),
    ],
)
def test_a_key_compares_payloads_as_json(team: Bus, first: str, again: str) -> None:
    id = team.send("boss", "one", TASK, first, key="k")
    assert team.send("boss", "one", TASK, again, key="k") == id


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ('{"a": true}', '{"a": 1}'),
        ('{"a": "1"}', '{"a": 1}'),
        ('{"a": null}', "{}"),
        ('{"a.b": 1}', '{"a": {"b": 1}}'),
        ('{"a": {"b": 1}, "a/b": 2}', '{"a": {"b": 2}, "a/b": 1}'),
        ('{"a": [1, 2]}', '{"a": [2, 1]}'),
        ('{"a": [1]}', '{"a": {"0": 1}}'),
        ('{"a": []}', '{"a": {}}'),
        ('{"a": 9007199254740993}', '{"a": 9007199254740992}'),
        ('{"a": "x"}', '{"a": "X"}'),
    ],
)
def test_a_key_tells_payloads_apart(team: Bus, first: str, again: str) -> None:
    team.send("boss", "one", TASK, first, key="k")
    with refused("key_reused", 76):
        team.send("boss", "one", TASK, again, key="k")


def test_a_key_of_a_broadcast_tells_types_and_payloads_apart(team: Bus) -> None:
    ids = team.broadcast("boss", TASK, '{"weight": 1, "new": true}', key="b")
    assert team.broadcast("boss", TASK, '{"new":true,"weight":1.0}', key="b") == ids
    for type, payload in (
        ("progress_update", '{"weight": 1, "new": true}'),
        (TASK, '{"weight": 1, "new": 1}'),
        (TASK, '{"weight": 2, "new": true}'),
        (TASK, '{"weight": 1}'),
    ):
        with refused("key_reused", 76):
            team.broadcast("boss", type, payload, key="b")
    assert len(team.messages()) == len(ids)


def test_a_broadcast_that_breaks_a_rule_stores_none_of_its_copies(team: Bus) -> None:
    send(team, "two", key="b", phase="other")
    with refused("key_reused", 76):
        team.broadcast("boss", TASK, {"phase": "x"}, key="b")
    with refused("invalid_payload", 65):
        team.broadcast("boss", TASK, {"phase": 7})
    assert len(team.messages()) == 1


def test_however_many_expired_none_is_handed_out(team: Bus) -> None:
    team.apply([messages.send("boss", "one", TASK, {}, expires=1, priority=9) for _ in range(1500)])
    send(team, phase="good")
    with clock.moved(2):
        assert phases(team, limit=2000) == ["good"]


def test_however_many_expired_the_next_good_one_is_found(team: Bus) -> None:
    team.apply([messages.send("boss", "one", TASK, {}, expires=1, priority=9) for _ in range(1000)])
    send(team, delay=1, phase="good")
    with clock.moved(2):
        assert phases(team, limit=1) == ["good"]


@pytest.mark.parametrize("way", ["receive", "check"])
def test_a_time_is_over_at_its_very_moment(team: Bus, way: str) -> None:
    begun = float(round(clock.seconds()) + 1)
    with clock.moved(to=begun):
        expiring = send(team, "boss", expires=60)
        leased = send(team, "@milestone-executor")
        take(team, "one", lease=60)
        delayed = send(team, "@milestone-executor", delay=60)
        team.state_save("a", "k", "v", ttl=60)
        old = team.checkpoint_create("one", {}, retention=60)
        team.checkpoint_create("one", {})
    with clock.moved(to=begun + 59.999):
        assert team.monitor_check().due == 0
        assert [message.id for message in team.pending("boss")] == [expiring]
        assert team.receive("two") == []
        assert (team.state_load("a", "k"), len(team.state_list("a"))) == ("v", 1)
        assert team.checkpoint_prune() == []
    with clock.moved(to=begun + 60):
        assert team.pending("boss") == []
        if way == "check":
            assert team.monitor_check().due == 3
        assert [message.id for message in team.receive("two", limit=9)] == [leased, delayed]
        assert team.receive("boss") == []
        assert team.message(expiring).dead_reason == "expired"
        assert (team.state_load("a", "k"), team.state_list("a")) == (None, [])
        assert team.state_save("a", "k", "w", if_version=0) == 2
        assert team.checkpoint_prune() == [old.checkpoint_id]


def test_an_expiry_ends_a_message_that_is_still_held_back(team: Bus) -> None:
    id = send(team, delay=60, expires=30)
    with clock.moved(31):
        assert team.receive("one") == []
        assert team.message(id).dead_reason == "expired"


@pytest.mark.parametrize("way", ["receive", "check"])
def test_what_comes_back_still_expires(team: Bus, way: str) -> None:
    def moved() -> list[Message]:
        if way == "check":
            team.monitor_check()
        else:
            assert team.receive("one", type="progress_update") == []  # what is due comes back, and stays
        return team.messages()

    send(team, expires=100)
    take(team, lease=10)
    send(team, delay=10, expires=100)
    with clock.moved(11):
        assert {(message.status, message.due_at == message.expires_at) for message in moved()} == {("ready", True)}
    with clock.moved(101):
        assert {(message.status, message.dead_reason) for message in moved()} == {("dead", "expired")}


def test_what_is_given_back_still_expires(team: Bus) -> None:
    released, delayed, retired = (send(team, expires=100) for _ in range(3))
    receipts = [message.receipt or "" for message in team.receive("one", limit=3)]
    team.release(receipts[0])
    team.release(receipts[1], delay=200)
    team.retire("one")
    found = [team.message(id) for id in (released, delayed, retired)]
    assert [message.status for message in found] == ["ready", "scheduled", "ready"]
    assert [message.due_at for message in found] == [message.expires_at for message in found]
    with clock.moved(101):
        assert team.receive("one") == []
        assert {message.dead_reason for message in team.messages()} == {"expired"}


def test_a_check_counts_no_lease_that_ran_out_after_the_expiry(team: Bus) -> None:
    send(team, expires=10)
    take(team, lease=5)
    with clock.moved(20):
        assert team.monitor_check().due == 1
        assert (team.message(1).dead_reason, team.message(1).retry_count) == ("expired", 0)


def test_a_check_counts_the_leases_that_ran_out_and_buries_past_the_limit(team: Bus) -> None:
    team.config_set("message_retry_limit", "1")
    send(team)
    for n, found in enumerate([("ready", 1, None), ("dead", 1, "retries_exhausted")]):
        with clock.moved(n * 20):
            take(team, lease=10)
        with clock.moved(n * 20 + 11):
            assert team.monitor_check().due == 1
            message = team.message(1)
            assert (message.status, message.retry_count, message.dead_reason) == found


def test_the_reason_of_a_release_stays_until_there_is_another(team: Bus) -> None:
    send(team)
    for reason, kept in ((None, None), ("not now", "not now"), (None, "not now")):
        team.release(take(team), reason=reason)
        assert team.message(1).reason == kept


def test_a_lease_outlives_the_expiry_and_can_be_acknowledged(team: Bus) -> None:
    send(team, expires=10)
    receipt = take(team, lease=60)
    with clock.moved(20):
        team.ack(receipt)
    assert team.message(1).status == "acknowledged"


def test_a_lease_that_ran_out_after_the_expiry_is_dead(team: Bus) -> None:
    send(team, expires=10)
    receipt = take(team, lease=5)
    with clock.moved(20):
        assert team.receive("one") == []
        assert (team.message(1).dead_reason, team.message(1).retry_count) == ("expired", 0)
        with refused("lease_lost", 76):
            team.ack(receipt)


def test_pending_has_the_order_of_receive(team: Bus) -> None:
    team.config_set("priority_aging_seconds", "10")
    send(team, phase="old", priority=1)
    with clock.moved(100):
        send(team, "@milestone-executor", "new", priority=9)
        assert [m.payload["phase"] for m in team.pending("one")] == ["old", "new"]
        assert phases(team) == ["old", "new"]


def test_pending_shows_nothing_that_expired(team: Bus) -> None:
    send(team, phase="late", expires=1)
    send(team, phase="good")
    with clock.moved(2):
        assert [m.payload["phase"] for m in team.pending("one")] == ["good"]
        assert phases(team) == ["good"]


def test_aging_counts_in_both_queues_and_ties_go_by_age(team: Bus) -> None:
    team.config_set("priority_aging_seconds", "10")
    send(team, phase="first", priority=5)
    with clock.moved(9):
        send(team, "@milestone-executor", "urgent", priority=6)
        send(team, phase="later", priority=5)
    with clock.moved(30):
        send(team, phase="last", priority=7)
        assert phases(team) == ["urgent", "first", "later", "last"]


def test_with_aging_too_only_the_type_asked_for_is_taken(team: Bus) -> None:
    team.config_set("priority_aging_seconds", "10")
    for type in (TASK, "progress_update"):
        team.send("boss", "one", type, {})
        team.send("boss", "@milestone-executor", type, {})
    found = team.receive("one", type="progress_update", limit=9)
    assert [message.message_type for message in found] == ["progress_update"] * 2


def test_the_queue_of_a_type_is_that_of_the_session(team: Bus) -> None:
    team.register("far", type="milestone-executor", session="other")
    send(team, "@milestone-executor")
    assert team.receive("far") == []
    team.register("far", type="milestone-executor", session="s")
    assert phases(team, "far") == ["x"]


def test_a_message_goes_to_one_of_a_type_only(team: Bus) -> None:
    send(team, "@milestone-executor")
    assert [phases(team, "one"), phases(team, "two"), phases(team, "boss")] == [["x"], [], []]


def test_only_the_type_asked_for_is_taken(team: Bus) -> None:
    send(team, phase="task", priority=10)
    team.send("boss", "one", "progress_update", {"phase": "progress"})
    assert [m.payload["phase"] for m in team.receive("one", type="progress_update", limit=5)] == ["progress"]
    assert team.receive("one", type="error_report") == []
    with refused("unknown_type", 65):
        team.receive("one", type="gossip")
    assert phases(team) == ["task"]


def test_a_lapsed_lease_that_nobody_took_can_be_settled_in_every_way(team: Bus) -> None:
    for settle in (team.ack, team.extend, team.release, lambda receipt: team.reject(receipt, reason="no")):
        id = send(team, "two")
        receipt = take(team, "two", lease=10)
        with clock.moved(20):
            settle(receipt)
        assert team.message(id).receipt == receipt
        if team.message(id).status not in ("acknowledged", "dead"):
            team.cancel(id)


def test_a_lapsed_lease_that_came_back_but_was_not_taken_can_still_be_settled(team: Bus) -> None:
    for settle, retries in (("ack", 1), ("extend", 0), ("release", 1), ("reject", 1)):
        id = send(team)
        receipt = take(team, lease=10)
        with clock.moved(20):
            assert team.receive("one", type="progress_update") == []  # it comes back, and stays
            assert team.message(id).status == "ready"
            getattr(team, settle)(receipt, **({"reason": "no"} if settle == "reject" else {}))
            assert team.message(id).retry_count == retries
        if team.message(id).status not in ("acknowledged", "dead"):
            team.cancel(id)


def test_extending_what_came_back_keeps_others_off(team: Bus) -> None:
    send(team, "@milestone-executor")
    receipt = take(team, lease=10)
    with clock.moved(20):
        assert team.receive("two", type="progress_update") == []
        team.extend(receipt, lease=60)
        assert team.receive("two") == []
        team.ack(receipt)


def test_a_stale_receipt_can_do_nothing(team: Bus) -> None:
    send(team, "@milestone-executor")
    stale = take(team, lease=10)
    with clock.moved(20):
        fresh = take(team, "two", lease=60)
        for settle in (team.ack, team.extend, team.release, lambda receipt: team.reject(receipt, reason="no")):
            with refused("lease_lost", 76):
                settle(stale)
        assert team.message(1).receipt == fresh
        assert team.message(1).leased_by == "two"
        team.ack(fresh)
        with refused("lease_lost", 76):
            team.ack(stale)


def test_a_receipt_of_the_future_is_no_receipt(team: Bus) -> None:
    send(team)
    for receipt in ("1.0", "1.1", "1.2"):
        with refused("lease_lost", 76):
            team.ack(receipt)
    take(team)
    with refused("lease_lost", 76):
        team.ack("1.2")


def test_rejecting_or_releasing_several_is_all_or_nothing(team: Bus) -> None:
    send(team)
    send(team)
    first, second = (message.receipt or "" for message in team.receive("one", limit=2))
    team.ack(second)
    for settle in (team.release, team.extend, lambda receipts: team.reject(receipts, reason="no")):
        with refused("lease_lost", 76):
            settle([first, second])
        assert team.message(1).status == "leased"
        with refused("unknown_message", 66):
            settle([first, "99.1"])
        assert team.message(1).status == "leased"
    team.reject([first, first], reason="twice the same")
    assert team.message(1).dead_reason == "rejected"


def test_a_crash_loop_ends_and_redriving_keeps_the_delivery_growing(team: Bus, process: Process) -> None:
    team.config_set("message_retry_limit", "1")
    team.register("mortal", type="validation", session="s", pid=process.pid)
    send(team, "mortal")
    assert take(team, "mortal", lease=1) == "1.1"
    with clock.moved(2):
        assert take(team, "mortal", lease="1h") == "1.2"
        process.kill()
        process.wait()
        team.register("mortal", type="validation", session="s")
        assert team.message(1).dead_reason == "retries_exhausted"
        assert team.redrive(["1"]) == [1]
        assert take(team, "mortal") == "1.3"


def test_retiring_counts_what_it_gives_back(team: Bus) -> None:
    team.config_set("message_retry_limit", "0")
    send(team)
    take(team)
    team.retire("one")
    assert team.message(1).dead_reason == "retries_exhausted"


def test_the_message_of_a_dead_holder_is_there_before_less_urgent_ones(team: Bus, process: Process) -> None:
    team.register("mortal", type="milestone-executor", session="s", pid=process.pid)
    send(team, "@milestone-executor", "urgent", priority=10)
    take(team, "mortal", lease="1h")
    send(team, "@milestone-executor", "low", priority=1)
    process.kill()
    process.wait()
    assert [m.payload["phase"] for m in team.receive("one")] == ["urgent"]


def test_who_waits_does_not_look_for_ever_after_who_had_a_message_and_died(team: Bus, process: Process) -> None:
    team.register("mortal", type="milestone-executor", session="s", pid=process.pid)
    send(team, "@milestone-executor", expires="1h")
    take(team, "mortal", lease=1)
    with clock.moved(2):
        assert team.receive("one", type="progress_update") == []  # the lease is over: the message is ready again
        process.kill()
        process.wait()
        outlook = told(team, "one")
        assert (outlook.ready, outlook.pids, outlook.dead) == (True, [], False)
        assert take(team) == "1.2"


def test_receiving_needs_a_registered_agent(bus: Bus) -> None:
    with refused("unknown_agent", 66):
        bus.receive("nobody")


@pytest.mark.parametrize("limit", [0, -1, 10_001, True, "1", 1.5])
def test_a_limit_is_a_number_of_messages(team: Bus, limit: object) -> None:
    with refused("usage", 64):
        team.receive("one", limit=limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("lease", [0, "0s", -1, "soon", float("nan")])
def test_a_lease_takes_time(team: Bus, lease: object) -> None:
    with refused("usage", 64):
        team.receive("one", lease=lease)  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["0", "99999999999999", "9" * 400])
def test_no_setting_of_the_lease_stops_a_receive(team: Bus, setting: str) -> None:
    with suppress(BusError):
        team.config_set("lease_seconds", setting)
    send(team)
    assert team.message(int(take(team).partition(".")[0])).status == "leased"
    assert team.receive("one") == []


@pytest.mark.parametrize("seconds", [5e-324, 1e-7, 0.0004, 100 * 366 * 86400.0])
def test_the_shortest_and_the_longest_times_are_kept(team: Bus, seconds: float) -> None:
    delayed, expiring = team.message(send(team, delay=seconds)), team.message(send(team, expires=seconds))
    for found, moment in ((delayed, delayed.due_at), (expiring, expiring.expires_at)):
        assert moment
        assert (moment - found.created_at).total_seconds() == pytest.approx(seconds, abs=0.002)


def test_acknowledged_is_final(team: Bus) -> None:
    send(team)
    receipt = take(team)
    team.ack(receipt)
    for settle in (team.release, team.extend, lambda receipt: team.reject(receipt, reason="no")):
        with refused("lease_lost", 76):
            settle(receipt)
    with refused("not_dead", 76):
        team.redrive([1])
    with refused("already_ended", 76):
        team.cancel(1)
    assert team.message(1).status == "acknowledged"


def test_a_rejected_message_can_not_be_cancelled_and_a_cancelled_one_can(team: Bus) -> None:
    send(team)
    team.reject(take(team), reason="no")
    with refused("already_ended", 76):
        team.cancel(1)
    send(team)
    team.cancel(2)
    team.cancel(2)
    assert team.message(2).dead_reason == "cancelled"


def test_redriving_lifts_an_expiry_that_is_past(team: Bus) -> None:
    send(team, expires=1)
    with clock.moved(2):
        assert team.receive("one") == []
        team.redrive()
        assert phases(team) == ["x"]


def test_redriving_keeps_an_expiry_that_is_to_come_and_forgets_the_reason(team: Bus) -> None:
    send(team, expires=60)
    team.reject(take(team), reason="nonsense")
    team.redrive()
    found = team.message(1)
    assert (found.status, found.reason, found.dead_reason) == ("ready", None, None)
    assert found.expires_at
    assert found.due_at == found.expires_at
    with clock.moved(61):
        assert team.receive("one") == []
        assert team.message(1).dead_reason == "expired"


def test_redriving_nothing_is_nothing(team: Bus) -> None:
    send(team)
    team.cancel(1)
    assert team.redrive([]) == []
    assert team.message(1).status == "dead"


@pytest.mark.parametrize("ids", ["12", 12, ["12"], (12,)])
def test_redriving_one_is_redriving_that_one(team: Bus, ids: Any) -> None:
    for id in range(1, 13):
        send(team)
        team.cancel(id)
    assert team.redrive(ids) == [12]
    assert len(team.dead()) == 11


def test_wait_ended_tells_how_it_stands_when_the_time_is_over(team: Bus) -> None:
    assert team.wait_ended(send(team), wait=0.01).status == "ready"
    with refused("unknown_message", 66):
        team.wait_ended(99, wait=0)


def test_wait_ended_tells_of_an_expiry_that_nobody_else_sees(team: Bus) -> None:
    begun = clock.monotonic()
    found = team.wait_ended(send(team, expires=0.2), wait=20)
    assert (found.status, found.dead_reason) == ("dead", "expired")
    assert clock.monotonic() - begun < 10


def test_wait_ended_leaves_an_expired_message_to_whoever_may_still_acknowledge_it(team: Bus) -> None:
    send(team, expires=10)
    receipt = take(team, lease=5)
    with clock.moved(20):
        assert team.wait_ended(1, wait=0).status == "leased"
        team.ack(receipt)
        assert team.wait_ended(1, wait=0).status == "acknowledged"


# --- what was received by nobody


def put_back(bus: Bus, *found: Message) -> None:
    """As a store does with a claim whose caller was cancelled."""
    undo = messages.claim("one").undo
    assert undo
    bus.apply([undone for undone in [undo(list(found))] if undone])


def test_what_nobody_got_is_as_if_it_had_not_been_received(team: Bus) -> None:
    for phase in "ab":
        send(team, phase=phase, expires=3600)
    before = team.message(1)
    for _ in range(9):
        put_back(team, *team.receive("one", limit=2))
    after = team.message(1)
    assert (after.status, after.retry_count, after.due_at, after.leased_by) == ("ready", 0, before.expires_at, None)
    assert [message.receipt for message in team.receive("one", limit=2)] == ["1.10", "2.10"]


def test_what_nobody_got_counts_the_attempts_before_it(team: Bus) -> None:
    send(team)
    team.release(take(team))
    put_back(team, *team.receive("one"))
    assert team.message(1).retry_count == 1


def test_what_nobody_got_and_another_has_stays_there(team: Bus) -> None:
    send(team)
    old = team.receive("one", lease=1)
    with clock.moved(5):
        receipt = take(team)
        put_back(team, *old)
        assert (team.message(1).status, team.message(1).receipt) == ("leased", receipt)
        team.ack(receipt)
        put_back(team, *old)
    assert team.message(1).status == "acknowledged"


def test_what_nobody_got_goes_back_and_what_was_acknowledged_with_it_stays_so(team: Bus) -> None:
    for phase in "ab":
        send(team, phase=phase)
    both = next(messages.ack_and_receive("one", take(team)))
    assert isinstance(both, Operation)
    (found,) = team.apply([both])
    assert both.undo
    undo = both.undo(found)
    assert undo
    team.apply([undo])
    (first, second) = (team.message(id) for id in (1, 2))
    assert (first.status, second.status, second.retry_count) == ("acknowledged", "ready", 0)


# --- waking up: somebody waits while somebody else acts


def test_a_waiting_receiver_is_woken_by_a_send(team: Bus, meanwhile: Meanwhile) -> None:
    found = meanwhile(("receive", "one", {"wait": 20}), ("send", "boss", "one", TASK, {"phase": "rung"}, {}))
    assert [message.payload["phase"] for message in found] == ["rung"]


@pytest.mark.parametrize("to", ["one", "@milestone-executor"])
def test_a_waiting_receiver_is_there_when_a_message_is_due(team: Bus, to: str) -> None:
    begun = clock.monotonic()
    send(team, to, delay=0.2)
    assert phases(team, limit=1) == []
    assert [message.payload["phase"] for message in team.receive("one", wait=8)] == ["x"]
    assert clock.monotonic() - begun < 6


def test_a_waiting_receiver_is_woken_by_a_release(team: Bus, meanwhile: Meanwhile) -> None:
    send(team, "@milestone-executor")
    receipt = take(team, "two", lease="1h")
    found = meanwhile(("receive", "one", {"wait": 20}), ("release", receipt, {}))
    assert [message.receipt for message in found] == ["1.2"]


@pytest.mark.parametrize("wait", [20, "36600d"])
def test_a_waiting_sender_is_woken_by_the_acknowledgement(team: Bus, meanwhile: Meanwhile, wait: int | str) -> None:
    send(team)
    receipt = take(team)
    assert meanwhile(("wait_ended", 1, {"wait": wait}), ("ack", receipt, {})).status == "acknowledged"


def test_a_waiting_sender_is_woken_by_the_death_of_its_message(team: Bus, meanwhile: Meanwhile) -> None:
    team.config_set("message_retry_limit", "0")
    send(team)
    take(team)
    begun = clock.monotonic()
    assert meanwhile(("wait_ended", 1, {"wait": 8}), ("retire", "one", {})).dead_reason == "retries_exhausted"
    assert clock.monotonic() - begun < 6


def test_a_waiting_sender_is_told_of_what_a_claim_buries(team: Bus, meanwhile: Meanwhile) -> None:
    team.config_set("message_retry_limit", "0")
    send(team)
    take(team, lease=0.001)
    begun = clock.monotonic()
    assert meanwhile(("wait_ended", 1, {"wait": 8}), ("receive", "one", {})).dead_reason == "retries_exhausted"
    assert clock.monotonic() - begun < 6


@pytest.mark.parametrize("end", [("reject", "1.1", {"reason": "nonsense"}), ("cancel", 1, {})])
def test_a_waiting_sender_is_woken_when_its_message_is_given_up(team: Bus, meanwhile: Meanwhile, end: Call) -> None:
    send(team)
    take(team)
    begun = clock.monotonic()
    assert meanwhile(("wait_ended", 1, {"wait": 8}), end).status == "dead"
    assert clock.monotonic() - begun < 6


def test_a_waiting_sender_is_woken_by_who_acknowledges_and_goes_on(team: Bus, meanwhile: Meanwhile) -> None:
    send(team)
    receipt = take(team)
    begun = clock.monotonic()
    ended = meanwhile(("wait_ended", 1, {"wait": 8}), ("ack_and_receive", "one", receipt, {}))
    assert ended.status == "acknowledged"
    assert clock.monotonic() - begun < 6


def test_a_waiting_receiver_is_woken_by_a_redrive(team: Bus, meanwhile: Meanwhile) -> None:
    send(team, "@milestone-executor", "again")
    team.cancel(1)
    found = meanwhile(("receive", "one", {"wait": 8}), ("redrive", [1], {}))
    assert [message.payload["phase"] for message in found] == ["again"]


BELLS = [["one", "@milestone-executor"], ["one", "@validation"]]


@pytest.mark.parametrize(
    ("listening", "act"),
    [
        (BELLS[:1], lambda: messages.extend("1.1", lease="1m")),  # a lease that is over sooner
        (BELLS[:1], lambda: agents.register("one", type="validation", session="s")),  # it becomes another
        (BELLS, lambda: messages.send("boss", "@validation", TASK, {})),  # and waits for other messages
    ],
)
def test_who_waits_is_woken_by_what_makes_it_look_anew(
    team: Bus, listening: list[list[str]], act: Callable[[], Operation[Any]]
) -> None:
    send(team, "@milestone-executor")
    take(team, "two", lease="1h")

    def waits() -> Routine[None]:
        for bells in listening:
            yield Pause(bells, 8)  # listens
        if team.url.path == MEMORY:
            yield act()
        else:  # who listens is not notified of what it does itself
            with Bus.open(team.url.address()) as other:
                other.store.run(act())
        yield Pause(bells, 8)

    begun = clock.monotonic()
    team.store.carry_out(waits())
    assert clock.monotonic() - begun < 6


def test_a_waiting_receiver_has_what_it_may_take_when_it_becomes_another(team: Bus, meanwhile: Meanwhile) -> None:
    send(team, "@validation")
    becomes = ("register", "one", {"type": "validation", "session": "s"})
    assert [message.id for message in meanwhile(("receive", "one", {"wait": 8}), becomes)] == [1]


def test_who_acknowledges_and_waits_gets_what_it_asked_for(team: Bus, meanwhile: Meanwhile) -> None:
    send(team)
    waiting = ("ack_and_receive", "one", take(team), {"wait": 8, "type": "error_report", "lease": "1h"})
    sent = [messages.send("boss", "one", type, {}) for type in (TASK, "error_report")]
    (message,) = meanwhile(waiting, ("apply", sent, {}))
    assert message.message_type == "error_report"
    assert (message.due_at - message.delivered_at).total_seconds() == 3600


def test_a_watcher_is_woken_by_a_save(team: Bus, meanwhile: Meanwhile) -> None:
    assert meanwhile(("state_watch", "a", "k", {"wait": 20}), ("state_save", "a", "k", "v", {})) == ("v", 1)


def test_a_watcher_notices_a_value_that_was_deleted_and_saved_again(team: Bus) -> None:
    version = team.state_save("a", "k", "old")
    team.state_delete("a", "k")
    team.state_save("a", "k", "new")
    assert team.state_watch("a", "k", after=version, wait=0) == ("new", 2)
    with refused("version_conflict", 76):
        team.state_save("a", "k", "mine", if_version=version)


@pytest.mark.parametrize("number", ["-9223372036854775808", "9223372036854775807", "-1.7976931348623157e308", "5e-324"])
def test_the_largest_and_smallest_numbers_are_kept(team: Bus, number: str) -> None:
    document = f'{{"a":{number}}}'
    id = team.send("boss", "one", "task_assignment", document)
    assert bytes(team.message(id).raw).decode() == document
    assert team.checkpoint_create("one", document).state_snapshot == {"a": json.loads(number)}


# --- what a rule looks at, and nothing else


def test_two_keys_are_two_messages(team: Bus) -> None:
    first = team.send("boss", "one", TASK, {"n": 0})
    ids = [team.send("boss", "one", TASK, {"n": n}, key=f"k{n}") for n in range(2)]
    assert len({first, *ids}) == 3
    assert [team.message(id).idempotency_key for id in ids] == ["k0", "k1"]
    assert [team.send("boss", "one", TASK, {"n": n}, key=f"k{n}") for n in range(2)] == ids
    team.send("boss", "two", TASK, {"n": 2}, key="k0")
    assert team.message(team.send("two", "one", TASK, {"n": 3}, key="k0")).payload == {"n": 3}


def test_a_broadcast_under_a_key_is_compared_with_its_own(team: Bus) -> None:
    team.send("boss", "one", TASK, {"n": 0})
    team.send("two", "one", TASK, {"n": 1}, key="k")
    team.send("boss", "boss", TASK, {"n": 1}, key="k")  # whom a broadcast of their own leaves out
    assert len(team.broadcast("boss", TASK, {"n": 2}, key="k")) == 2


@pytest.mark.parametrize("number", ["1e0001", "1e-0001", f"0.{'0' * 400}1", f"1.{'0' * 500}"])
def test_a_number_counts_for_what_it_is_however_it_is_written(team: Bus, number: str) -> None:
    team.send("boss", "one", TASK, f'{{"weight": {number}}}')
    (message,) = team.receive("one")
    assert message.payload["weight"] == float(number)


def test_redrive_takes_ids_or_a_session(team: Bus) -> None:
    with refused("usage", 64):
        team.redrive(1, session="s")


def test_a_completed_session_is_at_100_again_when_it_is_completed_again(team: Bus) -> None:
    first = team.session_complete("s")
    team.session_progress("s", 30)
    again = team.session_complete("s")
    assert (again.progress, again.completed_at) == (100, first.completed_at)


def test_a_value_that_begins_anew_is_of_no_former_type(team: Bus) -> None:
    team.state_save("one", "k", "v", type="temp_data", ttl=5)
    team.state_save("one", "l", "v", type="temp_data")
    team.state_delete("one", "l")
    with clock.moved(10):
        for key in "kl":
            team.state_save("one", key, "w")
        assert {value.state_type for value in team.state_list("one")} == {"user_data"}


def test_what_is_acknowledged_once_may_take_a_while(team: Bus) -> None:
    send(team)
    receipt = take(team, lease=60)
    with clock.moved(30):
        team.ack(receipt, once=True)
        with refused("already_ended"):
            team.ack(receipt, once=True)


def test_who_waits_knows_of_what_is_due_beside_what_is_over(team: Bus) -> None:
    send(team)
    team.ack(take(team))
    send(team, delay=5)
    assert 4 < told(team, "one").seconds < 5.1


def test_only_the_death_of_a_holder_matters_to_who_waits(team: Bus, process: Process) -> None:
    team.register("three", type="milestone-executor", session="s", pid=process.pid)
    send(team, "@milestone-executor")
    take(team, "two", lease=60)
    process.kill()
    process.wait()
    assert not told(team, "one").dead


def test_of_many_the_most_urgent_are_received(team: Bus) -> None:
    for to in ("one", "@milestone-executor"):
        for priority in (2, 9, 5, 7):
            send(team, to, priority=priority)
    assert [message.priority for message in team.receive("one", limit=3)] == [9, 9, 7]
    assert [message.priority for message in team.receive("one", limit=3)] == [7, 5, 5]


def test_a_lease_that_ran_out_is_counted_once(team: Bus) -> None:
    id = send(team, expires=600)
    take(team, lease=1)
    with clock.moved(5):
        assert team.receive("one", type="error_report") == []
        assert team.message(id).retry_count == 1
        team.retire("one")
        assert team.message(id).retry_count == 1


def test_an_agents_queue_is_that_of_its_type_also_with_aging(team: Bus) -> None:
    team.register("v", type="validation", session="s")
    send(team, "@validation")
    team.config_set("priority_aging_seconds", "10")
    assert team.receive("one", limit=2) == []
    assert len(team.receive("v", limit=2)) == 1


def test_who_is_not_there_is_unknown_beside_others(team: Bus) -> None:
    team.trace_spawn("validation", "t", pid=7)
    with refused("unknown_session"):
        team.session_progress("nowhere", 1)
    with refused("unknown_agent"):
        team.update("nobody", command="x")
    with refused("unknown_agent"):
        team.receive("nobody", limit=2)
    with refused("unknown_agent"):
        team.heartbeat("nobody")
    with refused("unknown_trace"):
        team.trace_abort(99, error="x")


def test_a_coordinator_is_that_of_its_session(team: Bus) -> None:
    team.register("x", type="milestone-executor", session="p", operation="planning")
    team.register("boss2", type="milestone-coordinator", session="q")
    assert team.session_show("p").coordinator_id is None
    assert len(team.recovery_plan("p").artifacts) == 5


def test_a_restart_is_that_of_its_session(team: Bus) -> None:
    made = [team.checkpoint_create(agent, {}).checkpoint_id for agent in ("two", "one", "two", "one")]
    assert [checkpoint.parent_id for checkpoint in team.checkpoint_list("one")] == [made[1], None]
    team.register("x", type="milestone-executor", session="t")
    with clock.moved(1):
        team.recovery_apply("t", "restart", by="me")
    assert team.checkpoint_restore("one")


def test_who_enters_and_leaves_ends_its_own_record(team: Bus) -> None:
    other = team.trace_spawn("validation", "t", pid=7)
    team.trace_start(other)
    id = team.trace_enter("e", type="validation", session="s")
    assert team.trace_show(other).status == "running"
    team.trace_leave("e", id)
    assert team.trace_show(other).status == "running"


def test_who_had_no_error_has_only_the_mark_of_silence(team: Bus) -> None:
    with clock.moved(4000):
        team.heartbeat("one")
        team.monitor_check(by="me")
        found = {agent.agent_id: agent.error_info for agent in team.agents()}
    assert found["two"]
    assert "error" not in found["two"]


def test_a_value_is_compared_with_ones_own(team: Bus) -> None:
    for _ in range(3):
        team.state_save("boss", "k", "v")
    assert [team.state_save("one", "k", "v", if_version=version) for version in range(2)] == [1, 2]
