"""Exports of traces: what is to be told, and how far that has come."""

import os

import pytest

from bus import Bus, clock, exports, liveness
from bus.exports import Batch
from tests.conformance.refusal import refused
from tests.conformance.test_lifecycle import CONTEXT
from tests.conftest import Process

TARGET = "http://collector/v1/traces"


def told(team: Bus) -> Batch:
    """The next batch, which is done with."""
    batch = team.export_batch(TARGET)
    team.export_advance(TARGET, batch)
    return batch


def test_each_message_is_sent_once_and_processed_once(team: Bus) -> None:
    team.export_claim(TARGET)
    first = team.send("boss", "one", "task_assignment", {}, traceparent=CONTEXT)
    second = team.send("boss", "one", "task_assignment", {})
    batch = told(team)
    assert [sent.message.id for sent in batch.sent] == [first, second]
    assert (batch.processed, batch.lived, batch.spans()) == ([], [], 2)
    assert batch.sent[0].context.trace_id == CONTEXT[3:35]
    team.ack([message.receipt or "" for message in team.receive("one", limit=2)])
    batch = told(team)
    assert (batch.sent, [sent.message.id for sent in batch.processed]) == ([], [first, second])
    assert not team.export_batch(TARGET).moves()


def test_an_export_that_nobody_began_has_no_batch(team: Bus) -> None:
    with refused("usage", 64):
        team.export_batch("http://elsewhere")


def test_a_batch_that_was_not_done_with_comes_again_the_same(team: Bus) -> None:
    team.export_claim(TARGET)
    team.send("boss", "one", "task_assignment", {})
    once, again = team.export_batch(TARGET), team.export_batch(TARGET)
    assert [sent.context for sent in once.sent] == [sent.context for sent in again.sent]
    assert once.bus_id == again.bus_id


def test_a_batch_of_lives_is_no_larger_than_one_of_messages(team: Bus) -> None:
    team.export_claim(TARGET)
    for number in range(6):
        id = team.trace_enter(f"w{number}", type="validation", session="s", task="t")
        team.trace_leave(f"w{number}", id)
        long = team.trace_spawn("t", "x", pid=os.getpid(), metadata={"text": "x" * 900_000})
        team.trace_finish(team.trace_start(long).agent_id)
    sizes = []
    while (batch := told(team)).moves():
        sizes.append(len(batch.lived))
    assert sum(sizes) == 12
    assert max(sizes) <= 6


def test_a_life_is_told_when_it_has_ended(team: Bus) -> None:
    team.export_claim(TARGET)
    id = team.trace_enter("worker", type="validation", session="s")
    team.send("worker", "one", "task_assignment", {})
    batch = told(team)
    assert (batch.lived, len(batch.sent)) == ([], 1)
    team.trace_leave("worker", id)
    (lived,) = told(team).lived
    assert lived.life.agent_id == id
    assert batch.sent[0].parent == lived.context, "what it sent stands below it"
    assert not team.export_batch(TARGET).moves()


def test_one_that_was_found_gone_is_told_a_minute_later(team: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    team.export_claim(TARGET)
    with clock.moved(0):
        with monkeypatch.context() as gone:
            gone.setattr(liveness, "started_at", lambda pid: None)
            id = team.trace_spawn("x", "t", pid=os.getpid())
            team.trace_close_the_dead()
        assert told(team).lived == []
        assert not team.export_batch(TARGET).moves()
    with clock.moved(61):
        assert [lived.life.agent_id for lived in told(team).lived] == [id]


def test_a_message_stands_below_the_life_its_sender_had_then(team: Bus) -> None:
    team.export_claim(TARGET)
    with clock.moved(0):
        team.register("worker", type="validation", session="s")
        team.send("worker", "one", "task_assignment", {})
    lives = []
    for begun in (100, 300):
        with clock.moved(begun):
            lives.append(team.trace_enter("worker", type="validation", session="s"))
            team.send("worker", "one", "task_assignment", {})
        with clock.moved(begun + 50):
            team.trace_leave("worker", lives[-1])
        with clock.moved(begun + 100):
            team.send("worker", "one", "task_assignment", {})
    batch = told(team)
    first, second = ({lived.life.agent_id: lived.context for lived in batch.lived}[id] for id in lives)
    expected = [None, first, None, second, None]
    assert [sent.parent for sent in batch.sent] == expected
    with clock.moved(500):
        team.ack([message.receipt or "" for message in team.receive("one", limit=9)])
        assert [sent.parent for sent in told(team).processed] == expected


def test_what_one_sent_last_that_was_found_gone_stands_below_it(team: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    team.export_claim(TARGET)
    monkeypatch.setenv("TRACEPARENT", CONTEXT)
    with clock.moved(0):
        team.trace_enter("worker", type="validation", session="s")
    with clock.moved(4):
        team.send("worker", "one", "task_assignment", {})
        (first,) = told(team).sent
    with clock.moved(5), monkeypatch.context() as gone:
        gone.setattr(liveness, "started_at", lambda pid: None)
        (life,) = team.trace_close_the_dead()
    with clock.moved(20):
        team.send("worker", "two", "task_assignment", {})
        team.ack([message.receipt or "" for message in team.receive("one")])
        batch = told(team)
    assert life.completed_at
    assert life.completed_at < first.message.created_at
    assert [sent.context for sent in batch.processed] == [first.context], "the consumer's link is the producer's span"
    assert [sent.parent is None for sent in (first, *batch.sent, *batch.processed)] == [False, True, False]


@pytest.mark.parametrize(("unseen", "sent"), [(True, 4), (True, 11), (False, 4)])
def test_what_was_sent_after_a_record_ended_is_its_own_where_that_was_found_gone_lately(
    team: Bus, monkeypatch: pytest.MonkeyPatch, unseen: bool, sent: int
) -> None:
    team.export_claim(TARGET)
    with clock.moved(0):
        life = team.trace_enter("worker", type="validation", session="s")
    with clock.moved(0 if unseen else 1), monkeypatch.context() as gone:
        if unseen:
            gone.setattr(liveness, "started_at", lambda pid: None)
            team.trace_close_the_dead()
        else:
            team.trace_leave("worker", life)
    with clock.moved(sent):
        team.send("worker", "one", "task_assignment", {})
        (first,) = told(team).sent
    assert (first.parent is not None) == (unseen and sent <= 10)


def test_what_is_gone_is_pending_no_more(team: Bus) -> None:
    team.export_claim(TARGET)
    team.send("boss", "one", "task_assignment", {})
    team.send("boss", "two", "task_assignment", {})
    with clock.moved(0):
        team.trace_spawn("x", "t", pid=os.getpid())
        assert told(team).pending
        team.ack([message.receipt or "" for message in team.receive("one")])
        (active,) = team.trace_active()
        team.trace_start(active.agent_id)
        team.trace_finish(active.agent_id)
    with clock.moved(100 * 86400):
        team.prune()
        assert sorted(kind for kind, _ in told(team).done) == ["life", "message"]
        assert not team.export_batch(TARGET).moves()


def test_what_is_pending_is_so_for_each_target(team: Bus) -> None:
    for target in (TARGET, "other"):
        team.export_claim(target)
    id = team.trace_spawn("x", "t", pid=os.getpid())
    team.send("boss", "one", "task_assignment", {})
    assert told(team).pending
    team.export_advance("other", team.export_batch("other"))
    team.trace_start(id)
    team.trace_finish(id)
    team.ack([message.receipt or "" for message in team.receive("one")])
    batch = told(team)
    assert (len(batch.processed), len(batch.lived)) == (1, 1)
    assert not team.export_batch(TARGET).moves()
    batch = team.export_batch("other")
    assert (len(batch.processed), len(batch.lived)) == (1, 1)


def test_a_message_that_was_buried_may_be_processed_again(team: Bus) -> None:
    team.export_claim(TARGET)
    id = team.send("boss", "one", "task_assignment", {})
    (message,) = team.receive("one")
    team.reject(message.receipt or "", reason="no")
    assert [sent.message.dead_reason for sent in told(team).processed] == ["rejected"]
    assert not team.export_batch(TARGET).moves()
    team.redrive([id])
    assert not team.export_batch(TARGET).moves()
    team.ack([message.receipt or "" for message in team.receive("one")])
    assert [sent.message.receipt for sent in told(team).processed] == [f"{id}.2"]
    assert not team.export_batch(TARGET).moves()


def test_a_message_that_dies_again_is_told_again_once(team: Bus) -> None:
    team.export_claim(TARGET)
    id = team.send("boss", "one", "task_assignment", {})
    for delivery in (1, 2):
        team.reject(team.receive("one")[0].receipt or "", reason="no")
        assert [sent.message.receipt for sent in told(team).processed] == [f"{id}.{delivery}"]
        assert not team.export_batch(TARGET).moves()
        team.redrive([id])


def test_batches_have_a_limit_and_none_is_left_out(team: Bus) -> None:
    team.export_claim(TARGET)
    ids = [team.send("boss", "one", "task_assignment", {"weight": n}) for n in range(25)]
    seen: list[int] = []
    while (batch := team.export_batch(TARGET, limit=10)).moves():
        assert len(batch.sent) <= 10
        seen += [sent.message.id for sent in batch.sent]
        team.export_advance(TARGET, batch)
    assert seen == ids


def test_a_batch_is_not_large_also_of_what_has_ended(team: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "LARGE", 10_000)
    team.export_claim(TARGET)
    ids = [team.send("boss", "one", "task_assignment", {"title": "x" * 6_000}) for _ in range(5)]
    assert [len(told(team).sent) for _ in range(3)] == [2, 2, 1]
    team.ack([message.receipt or "" for message in team.receive("one", limit=5)])
    seen = [[sent.message.id for sent in told(team).processed] for _ in range(3)]
    assert [len(ids) for ids in seen] == [2, 2, 1]
    assert sorted(id for ids in seen for id in ids) == ids


def test_each_target_has_a_cursor_of_its_own(team: Bus) -> None:
    team.export_claim(TARGET)
    team.export_claim("other")
    team.send("boss", "one", "task_assignment", {})
    told(team)
    assert len(team.export_batch("other").sent) == 1


def test_one_process_exports_to_a_target_at_a_time(
    team: Bus, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    another = liveness.identity(process.pid)
    with monkeypatch.context() as patch:
        patch.setattr(liveness, "identity", lambda pid: another)
        team.export_claim(TARGET)
    with refused("already_exporting", 75):
        team.export_claim(TARGET)
    process.kill()
    process.wait()
    team.export_claim(TARGET)
    team.export_claim(TARGET)
    team.export_release(TARGET)
    team.export_claim(TARGET)


def test_whoever_took_over_an_export_keeps_it(team: Bus, process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = liveness.identity(process.pid), liveness.identity(os.getppid())
    with monkeypatch.context() as patch:
        patch.setattr(liveness, "identity", lambda pid: first)
        team.export_claim(TARGET)
        process.kill()
        process.wait()
        patch.setattr(liveness, "identity", lambda pid: second)
        team.export_claim(TARGET)
    with refused("already_exporting", 75):
        team.export_claim(TARGET)


def test_metrics_count_what_was_exported(team: Bus) -> None:
    team.export_claim(TARGET)
    team.send("boss", "one", "task_assignment", {})
    told(team)
    (sample,) = next(family for family in team.metrics() if family.name == "agent_bus_exported_spans").samples
    assert (dict(sample.labels), sample.value) == ({"target": TARGET}, 1)
    team.ack([message.receipt or "" for message in team.receive("one")])
    told(team)
    (sample,) = next(family for family in team.metrics() if family.name == "agent_bus_exported_spans").samples
    assert sample.value == 2
    team.send("boss", "one", "task_assignment", {})
    assert [(queue.mailbox, queue.ready) for queue in team.overview().queues] == [("one", 1)]
    assert team.data_version() >= 0
