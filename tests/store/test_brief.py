"""Brief operations: a lone statement is a transaction by itself, and what was looked at before it still holds."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import Bus, clock, messages
from bus.errors import BusError
from bus.operation import Change, Operation, Ring
from bus.store.turnstile import Turnstile


@pytest.fixture
def bus(url: str) -> Iterator[Bus]:
    with Bus.open(url) as opened:
        opened.register("boss", type="milestone-coordinator", session="s")
        opened.register("one", type="milestone-executor", session="s")
        opened.receive("one")
        yield opened


@contextmanager
def somebody_has_the_turn(bus: Bus) -> Iterator[None]:
    descriptor = os.open(f"{bus.url.path}.turn", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(descriptor)


def test_who_finds_nothing_waits_for_nobody(bus: Bus) -> None:
    with somebody_has_the_turn(bus):
        assert bus.receive("one") == []


def test_what_was_looked_at_before_the_turn_came_is_looked_at_again(
    url: str, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = (bus.send("boss", "one", "task_assignment", {"title": str(n)}) for n in range(3))
    enter = Turnstile.enter
    taken = []
    with Bus.open(url) as quicker:

        def late(turnstile: Turnstile, timeout: float) -> bool:
            monkeypatch.undo()
            taken.extend(quicker.receive("one"))
            quicker.send("boss", "one", "task_assignment", {"title": "urgent"}, priority=10)
            enter(turnstile, timeout)
            return True

        monkeypatch.setattr(Turnstile, "enter", late)
        (found,) = bus.receive("one")
    assert [message.id for message in taken] == [first]
    assert found.payload == {"title": "urgent"}
    assert [message.id for message in bus.pending("one")] == [second, third]


@pytest.mark.parametrize("ends", ["taken", "given back", "cancelled"])
def test_a_message_that_changed_since_it_was_looked_at_is_looked_at_again(
    url: str, bus: Bus, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    first, second = (bus.send("boss", "one", "task_assignment", {}) for _ in range(2))
    enter = Turnstile.enter
    with Bus.open(url) as quicker:

        def by_hand(turnstile: Turnstile, timeout: float) -> bool:
            monkeypatch.undo()
            if ends == "cancelled":
                quicker.cancel(first)
                return enter(turnstile, timeout)
            (taken,) = quicker.receive("one")
            if ends == "given back":
                quicker.release(taken.receipt or "")
            return enter(turnstile, timeout)

        monkeypatch.setattr(Turnstile, "enter", by_hand)
        (found,) = bus.receive("one")
    assert (found.id, found.receipt) == ((first, f"{first}.2") if ends == "given back" else (second, f"{second}.1"))
    assert bus.message(found.id).receipt == found.receipt


def test_who_looked_at_nothing_writes_when_the_turn_comes(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    enter = Turnstile.enter

    def late(turnstile: Turnstile, timeout: float) -> bool:
        enter(turnstile, timeout)
        return True

    first = bus.send("boss", "one", "task_assignment", {})
    (found,) = bus.receive("one")
    monkeypatch.setattr(Turnstile, "enter", late)
    second = bus.send("boss", "one", "task_assignment", {})
    bus.ack(found.receipt or "")
    assert (bus.message(first).status, bus.message(second).status) == ("acknowledged", "ready")


@pytest.mark.parametrize("limit", [1, 2])
def test_a_lease_begins_when_the_turn_comes(bus: Bus, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    enter = Turnstile.enter

    def late(turnstile: Turnstile, timeout: float) -> bool:
        monkeypatch.setattr(clock, "_shift", 60.0)
        enter(turnstile, timeout)
        return True

    bus.send("boss", "one", "task_assignment", {})
    begun = clock.seconds()
    with monkeypatch.context() as patched:
        patched.setattr(Turnstile, "enter", late)
        (found,) = bus.receive("one", limit=limit, lease=30)
    assert found.due_at
    assert found.delivered_at
    assert found.delivered_at.timestamp() > begun + 59
    assert (found.due_at - found.delivered_at).total_seconds() == 30


def brief() -> list[Callable[[str], Operation[Any]]]:
    return [
        lambda _: messages.send("boss", "one", "task_assignment", {}),
        lambda _: messages.claim("one"),
        lambda receipt: messages.ack(receipt),
        lambda receipt: messages.ack(receipt, once=True),
    ]


@pytest.mark.parametrize("make", brief(), ids=["send", "claim", "ack", "ack once"])
def test_nothing_but_bells_follows_a_change_that_is_a_transaction_by_itself(
    bus: Bus, make: Callable[[str], Operation[Any]]
) -> None:
    bus.send("boss", "one", "task_assignment", {})
    bus.send("boss", "one", "task_assignment", {})
    receipt = bus.receive("one")[0].receipt or ""
    operation = make(receipt)
    assert operation.brief
    asked: list[Any] = []

    def noted() -> Any:
        steps, reply = operation.steps(), None
        while True:
            try:
                asked.append(steps.send(reply))
            except StopIteration as stop:
                return stop.value
            reply = yield asked[-1]

    bus.store.run(Operation(noted, True, brief=True))
    (place,) = (place for place, request in enumerate(asked) if isinstance(request, Change))
    assert all(isinstance(request, Ring) for request in asked[place + 1 :])


def test_a_heartbeat_that_is_due_goes_with_the_operation_or_not_at_all(bus: Bus) -> None:
    with clock.moved(20):
        with pytest.raises(BusError, match="no such message type"):
            bus.send("boss", "one", "no-such-type", {})
        (boss,) = (agent for agent in bus.agents() if agent.agent_id == "boss")
        before = boss.last_heartbeat
        bus.send("boss", "one", "task_assignment", {})
        (boss,) = (agent for agent in bus.agents() if agent.agent_id == "boss")
        assert (boss.last_heartbeat - before).total_seconds() >= 20


def test_a_refusal_of_a_driver_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "bus.db"
    with Bus.open(str(path), create=True) as bus:
        bus.register("boss", type="milestone-coordinator", session="s")
        with pytest.raises(BusError):
            bus.send("boss", "\ud800", "task_assignment", {})
    still_open = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.lexists(entry.path)]
    assert not [link for link in still_open if link.startswith(str(path))]
