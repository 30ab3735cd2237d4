"""Threads that share one bus, in every store."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bus import Bus, messages, monitor
from bus.agents import Holder, Returned
from bus.errors import Conflict
from bus.operation import Operation
from tests.conftest import Process

COUNT, THREADS = 300, 6


@pytest.fixture(params=["file", "memory", "postgres", "older_postgres"])
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bus]:
    """A bus on which two agents of this process share a queue."""
    places = {"file": str(tmp_path / "coordination.db"), "memory": ":memory:"}
    with Bus.open(places.get(request.param) or request.getfixturevalue(request.param), create=True) as opened:
        for name in "ab":
            opened.register(name, type="milestone-executor", session="s", pid=os.getpid())
        yield opened


def test_each_message_is_for_one_thread(bus: Bus) -> None:
    """Each holds leases meanwhile, so that the others look whether it lives."""
    bus.apply([messages.send("a", "@milestone-executor", "task_assignment", {"n": n}) for n in range(COUNT)])

    def work(number: int) -> list[int]:
        taken = []
        while found := bus.receive("ab"[number % 2], limit=1 + number % 3):
            bus.ack([message.receipt or "" for message in found])
            taken += [message.payload["n"] for message in found]
        return taken

    with ThreadPoolExecutor(THREADS) as pool:
        assert sorted(n for taken in pool.map(work, range(THREADS)) for n in taken) == list(range(COUNT))
    ended = bus.messages(limit=COUNT)
    assert {message.status for message in ended} == {"acknowledged"}
    assert all(message.receipt and message.receipt.endswith(".1") for message in ended)


def test_no_thread_overwrites_what_another_saved(bus: Bus) -> None:
    def count(_: int) -> int:
        saved = 0
        while saved < 20:
            value, version = bus.state_load_versioned("a", "n") or ("0", 0)
            try:
                bus.state_save("a", "n", str(int(value) + 1), if_version=version)
            except Conflict:
                continue
            saved += 1
        return saved

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(count, range(THREADS))) == THREADS * 20
    assert bus.state_load_versioned("a", "n") == (str(THREADS * 20), THREADS * 20)


def test_who_is_started_again_while_a_monitor_looks_keeps_what_it_received(
    bus: Bus, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.register("lost", type="validation", session="s", pid=process.pid)
    bus.send("a", "lost", "task_assignment", {})
    bus.receive("lost")
    process.kill()
    process.wait()
    relieve = monitor._relieve

    def too_late(holder: Holder, by: str) -> Operation[Returned]:
        bus.register("lost", type="validation", session="s", pid=os.getpid())
        bus.receive("lost")
        return relieve(holder, by)

    monkeypatch.setattr(monitor, "_relieve", too_late)
    assert bus.monitor_check().given_back == 0
    assert bus.message(1).receipt == "1.2"
    assert bus.message(1).status == "leased"
