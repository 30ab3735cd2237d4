"""The queue of writers: who had no luck waits in the kernel's queue, who gives up lets the turn pass."""

import os
import threading
import time
from pathlib import Path

import pytest

from bus.errors import BusError
from bus.store import turnstile
from bus.store.turnstile import Turnstile


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Turnstile]:
    """Three of them at one file, whose patience is short."""
    monkeypatch.setattr(turnstile, "PATIENCE", 0.001)
    return [Turnstile(str(tmp_path / "bus.turn")) for _ in range(3)]


def test_who_waits_long_gets_the_turn_when_it_is_free(gates: list[Turnstile]) -> None:
    holder, waiter, other = gates
    before = len(os.listdir("/proc/self/fd"))
    holder.enter(1)
    entered = threading.Event()

    def wait() -> None:
        waiter.enter(30)
        entered.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not _somebody_waits():
        time.sleep(0)
    holder.leave()
    thread.join(30)
    assert entered.is_set()
    with pytest.raises(BusError) as refused:
        other.enter(0.01)
    assert refused.value.code == "busy"
    waiter.leave()
    _threads_end()
    assert len(os.listdir("/proc/self/fd")) <= before
    for gate in gates:
        gate.close()


def _somebody_waits() -> bool:
    """Whether one of this process's threads waits in the kernel's queue."""
    return any("->" in line and f" {os.getpid()} " in line for line in Path("/proc/locks").read_text().splitlines())


def _threads_end() -> None:
    deadline = time.monotonic() + 30
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0)


def test_who_gave_up_lets_the_turn_pass(gates: list[Turnstile]) -> None:
    holder, waiter, other = gates
    holder.enter(1)
    with pytest.raises(BusError) as refused:
        waiter.enter(0.01)
    assert refused.value.code == "busy"
    before = len(os.listdir("/proc/self/fd"))
    holder.leave()
    other.enter(30)
    other.leave()
    _threads_end()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    waiter.enter(30)
    waiter.leave()
    for gate in gates:
        gate.close()


def test_who_gives_up_again_and_again_has_one_place(gates: list[Turnstile]) -> None:
    holder, waiter, other = gates
    holder.enter(1)
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(20):
        with pytest.raises(BusError):
            waiter.enter(0.002)
    assert (len(os.listdir("/proc/self/fd")) - 1, threading.active_count() - 1) == before
    holder.leave()
    waiter.enter(30)
    with pytest.raises(BusError):
        other.enter(0.002)
    waiter.leave()
    _threads_end()
    for gate in gates:
        gate.close()
