"""What a waiting receiver does when others write: it looks, and takes the lock for writing only for a reason."""

import asyncio
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pytest

from bus import AsyncBus, Bus, agents, clock, messages, state
from bus.operation import Operation, Pause, Routine
from bus.store.blocking import Store


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


class Roused:
    """Somebody who waits, and whom others' writing rouses each time: they do one thing after the other."""

    def __init__(self, *acts: Callable[[], object]) -> None:
        self.acts = list(acts)
        self._event = os.eventfd(0)

    def fileno(self) -> int:
        return self._event

    def rounds(self, seconds: float | None, pids: Sequence[int]) -> Generator[float | None, bool, bool]:
        assert seconds
        assert seconds <= 60
        self.acts.pop(0)()
        return True
        yield  # a generator it is

    def close(self) -> None:
        os.close(self._event)


def until_roused() -> Routine[tuple[object, object]]:
    yield state.load("one", "k")
    yield Pause([], 60)
    before = yield state.load("one", "k")
    return before, (yield Pause([], 60))


def acts(bus: Bus) -> list[Callable[[], object]]:
    """What concerns the sleeper is the third."""
    return [
        lambda: bus.state_save("one", "other", "1"),
        lambda: bus.send("one", "boss", "progress_update", {}),
        lambda: bus.state_save("one", "k", "1"),
        lambda: pytest.fail("it slept on"),
    ]


def test_who_sees_the_same_sleeps_on(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(bus.store, Store)
    roused = Roused(*acts(bus))
    monkeypatch.setattr(bus.store.connection(), "listen", lambda bells: roused)
    assert bus.store.carry_out(until_roused()) == (None, True)
    assert len(roused.acts) == 1


def test_who_sees_the_same_sleeps_on_in_a_task_too(url: str, bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    roused = Roused(*acts(bus))

    async def listen(bells: Sequence[str]) -> Roused:
        return roused

    async def carry_out() -> object:
        async with await AsyncBus.open(url) as other:
            monkeypatch.setattr(other.store, "_listen", listen)
            return await other.store.carry_out(until_roused())

    assert asyncio.run(carry_out()) == (None, True)
    assert len(roused.acts) == 1


def test_who_watches_a_value_looks_again_soon_since_nobody_rings_when_its_time_is_over(bus: Bus) -> None:
    bus.state_save("one", "k", "v", ttl=60)
    routine, reply = state.watch("one", "k", wait="1h"), None
    while isinstance(request := routine.send(reply), Operation):
        reply = bus.store.run(request)
    assert request.seconds is not None
    assert request.seconds <= 1
    with clock.moved(61), pytest.raises(StopIteration) as ended:
        routine.send(bus.store.run(routine.send(False)))
    assert ended.value.value is None


def test_an_outlook_is_the_same_as_long_as_nothing_comes_to_pass(bus: Bus) -> None:
    def outlook() -> agents.Outlook:
        return bus.store.run(agents.outlook("one"))

    bus.send("boss", "one", "task_assignment", {}, delay="1h")
    first = outlook()
    assert 0 < first.seconds <= agents.BEAT
    assert first == outlook()
    bus.send("boss", "@milestone-executor", "task_assignment", {}, delay="1s")
    second = outlook()
    assert second != first
    assert 0 < second.seconds <= 1.001  # moments are rounded to a millisecond
    with clock.moved(2):
        assert outlook() == second
        assert outlook().seconds < second.seconds
    bus.send("boss", "one", "task_assignment", {})
    assert outlook() != second
