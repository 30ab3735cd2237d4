"""What a waiting receiver does when others write: it looks, and takes the lock for writing only for a reason."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from bus import Bus, agents, clock, messages
from bus.operation import Operation, Pause


@pytest.fixture
def bus(url: str) -> Iterator[Bus]:
    with Bus.open(url) as opened:
        opened.register("boss", type="milestone-coordinator", session="s")
        opened.register("one", type="milestone-executor", session="s")
        yield opened


class Waiting:
    """A receiver that waits, as a store carries it out, pause by pause."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.routine = messages.receive("one", wait="1h")
        self.found: Any = None
        self.go_on(None)

    def go_on(self, reply: object) -> list[bool]:
        """Answer its pause and go on to the next, or to its end: of each operation meanwhile, whether it writes."""
        wrote = []
        try:
            while not isinstance(request := self.routine.send(reply), Pause):
                assert isinstance(request, Operation)
                wrote.append(request.writes)
                reply = self.bus.store.run(request)
        except StopIteration as stop:
            self.found = stop.value
        return wrote


def test_who_is_woken_by_what_others_write_only_looks(bus: Bus) -> None:
    waiting = Waiting(bus)
    assert waiting.go_on(True) == [False]
    bus.send("one", "boss", "progress_update", {"progress": 1})
    assert waiting.go_on(True) == [False]


def test_it_takes_what_there_is_for_it_whoever_wrote_it(bus: Bus) -> None:
    waiting = Waiting(bus)
    id = bus.send("boss", "one", "task_assignment", {})
    assert waiting.go_on(True) == [False, True]
    assert [message.id for message in waiting.found] == [id]


def test_who_is_rung_for_takes_at_once(bus: Bus) -> None:
    waiting = Waiting(bus)
    bus.send("boss", "@milestone-executor", "task_assignment", {})
    assert waiting.go_on(False) == [True]
    assert len(waiting.found) == 1


def test_its_heartbeat_goes_on_however_much_others_write(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting(bus)
    later = agents.BEAT + 6
    monkeypatch.setattr(clock, "monotonic", lambda: time.monotonic() + later)
    with clock.moved(by=later):
        assert waiting.go_on(True) == [True, False]
        (heard,) = [agent.last_heartbeat for agent in bus.agents() if agent.agent_id == "one"]
        assert abs(heard.timestamp() - clock.seconds()) < 5
        assert waiting.go_on(True) == [False]
