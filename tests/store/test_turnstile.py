"""The queue of writers: who had no luck for long gets the right of way; who gives up leaves nothing behind."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.errors import BusError
from bus.store import turnstile
from bus.store.turnstile import Turnstile
from tests.descriptors import descriptors


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Turnstile]]:
    """Three of them at one file, whose patience is short."""
    monkeypatch.setattr(turnstile, "PATIENCE", 0.001)
    opened = [Turnstile(str(tmp_path / "bus.turn")) for _ in range(3)]
    yield opened
    for gate in opened:
        gate.close()


def waiting(gate: Turnstile, answers: list[bool]) -> threading.Thread:
    """A thread that waits at a gate, and has the right of way."""
    thread = threading.Thread(target=lambda: answers.append(gate.enter(30)))
    thread.start()
    return thread


def until_somebody_has_the_right_of_way(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.read_bytes().strip(b"\0") and time.monotonic() < deadline:
        time.sleep(0)  # lets the other thread go on


def test_who_waits_long_goes_before_who_comes(
    gates: list[Turnstile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turnstile, "RIGHT_OF_WAY", 60.0)
    holder, waiter, other = gates
    assert holder.enter(1) is False
    answers: list[bool] = []
    thread = waiting(waiter, answers)
    until_somebody_has_the_right_of_way(tmp_path / "bus.turn")
    holder.leave()
    with pytest.raises(BusError) as refused:
        other.enter(0)  # the turn is free, or the waiter's already; it is not for who comes now
    assert refused.value.code == "busy"
    thread.join(30)
    assert answers == [True]
    waiter.leave()
    assert other.enter(1) is False


def test_who_dies_with_the_right_of_way_holds_nobody_up(gates: list[Turnstile]) -> None:
    dead, other, _ = gates
    dead._say(time.monotonic() + turnstile.RIGHT_OF_WAY)
    assert other.enter(30) is True


def test_a_right_of_way_that_nobody_can_have_is_not_believed(gates: list[Turnstile], tmp_path: Path) -> None:
    for written in (b"\xff" * 8, (1 << 60).to_bytes(8, "little"), b"\1", b"not a moment"):
        (tmp_path / "bus.turn").write_bytes(written)
        assert gates[0].enter(1) is False
        gates[0].leave()


def test_on_a_full_disk_it_is_luck(gates: list[Turnstile], monkeypatch: pytest.MonkeyPatch) -> None:
    holder, waiter, _ = gates
    tried = threading.Event()

    def full(*_: object) -> int:
        tried.set()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    holder.enter(1)
    answers: list[bool] = []
    thread = waiting(waiter, answers)
    assert tried.wait(30)
    holder.leave()
    thread.join(30)
    assert answers == [True]


def test_who_gives_up_leaves_nothing_behind(gates: list[Turnstile]) -> None:
    holder, waiter, other = gates
    holder.enter(1)
    before = descriptors(), threading.active_count()
    for _ in range(20):
        with pytest.raises(BusError) as refused:
            waiter.enter(0.002)
        assert refused.value.code == "busy"
    assert (descriptors(), threading.active_count()) == before
    holder.leave()
    assert other.enter(30) in (True, False)
    assert other.inside
    with pytest.raises(BusError):
        waiter.enter(0.002)
    other.leave()
    waiter.enter(30)
    assert waiter.inside
