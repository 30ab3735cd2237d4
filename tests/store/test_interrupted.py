"""A signal's handler is called at any moment of a call. Where it raises (Ctrl-C, say) nothing stays open or locked, and
what is asked next gets its own answer; where it calls the bus, that is done or refused, and the call goes on."""

import itertools
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest
from bus_client import Agent

import bus as package
from bus import Bus, messages, state
from bus.errors import TryAgain, UnknownType
from bus.operation import Operation, Steps

INSIDE = os.path.dirname(package.__file__)


class Interrupted(Exception):
    """What the handler raises."""


@pytest.fixture(params=["file", "memory", "postgres", "older_postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for a bus."""
    places = {"file": str(tmp_path / "coordination.db"), "memory": ":memory:"}
    return str(places.get(request.param) or request.getfixturevalue(request.param))


@pytest.fixture
def bus(url: str) -> Iterator[Bus]:
    with Bus.open(url, create=True) as opened:
        opened.register("a", type="milestone-executor", session="s")
        opened.state_save("a", "k", "value of a")
        yield opened


def raising() -> None:
    raise Interrupted


def interrupted(call: Callable[[], object], moment: int, handler: Callable[[], object] = raising) -> bool:
    """Make a call, and in it one of a handler at one of the moments at which Python looks for signals: as a function
    of the bus begins, or after a call of something built in. Whether the call took that long."""
    moments = itertools.count()
    handled = False

    def look(frame: FrameType, event: str, _: object) -> None:
        nonlocal handled
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(INSIDE) and next(moments) == moment:
            sys.setprofile(None)
            handled = True
            handler()

    sys.setprofile(look)
    with suppress(Interrupted):
        try:
            call()
        finally:
            sys.setprofile(None)
    return handled


CALLS: dict[str, Callable[[Bus], object]] = {
    "send": lambda bus: bus.send("a", "a", "task_assignment", {}),
    "receive": lambda bus: bus.receive("a"),
    "a step": lambda bus: bus.apply([messages.send("a", "a", "task_assignment", {}), state.save("a", "n", "1")]),
    "load": lambda bus: bus.state_load("a", "nothing"),
    "several looks": lambda bus: bus.session_counts(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupted_call_leaves_nothing_behind(url: str, bus: Bus, call: Callable[[Bus], object]) -> None:
    stride = 1 if url.endswith("coordination.db") else 7  # a new connection to a server each time
    other = bus if url == ":memory:" else Bus.open(url)
    call(bus)  # what is read but once has been read
    for moment in itertools.count(0, stride):
        if not interrupted(lambda: call(bus), moment):
            break
        other.state_save("other", "k", str(moment))
        assert bus.state_load("a", "k") == "value of a"
        assert bus.state_load("other", "k") == str(moment)
        assert bus.state_save("a", "number", str(moment)) > 0
    assert moment > 20
    other.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_the_middle_of_another_is_done_or_refused(url: str, bus: Bus, name: str) -> None:
    said = defaultdict[str, list[str]](list)

    def handler() -> None:
        try:
            bus.state_save("other", f"k{moment}", "v")
        except TryAgain as problem:
            said[problem.code].append(f"k{moment}")
        else:
            said["done"].append(f"k{moment}")

    calls = 0
    for moment in itertools.count(0, 3 if url.startswith("postgres") else 1):
        calls += 1
        if not interrupted(lambda: CALLS[name](bus), moment, handler):
            break
    assert said.keys() == {"done", "reentrant"}
    assert sorted(found.state_key for found in bus.state_list("other")) == sorted(said["done"])
    sent = calls if name in ("send", "a step") else 0
    assert len(bus.messages()) == sent
    assert len([found for found in bus.state_list("a") if found.version == sent]) == (name == "a step")


def test_what_the_garbage_collector_drops_in_the_middle_of_a_call_is_settled_after_it(url: str, bus: Bus) -> None:
    """A loop over messages that is garbage calls the bus where it is found."""

    def loop(agent: Agent) -> Iterator[int]:
        for message in agent.messages():
            yield message.id

    def steps() -> Steps[None]:
        yield from state.save("a", "k1", "v").steps()
        del garbage[:]
        yield from state.save("a", "k2", "v", type="nope").steps()

    other = bus if url == ":memory:" else Bus.open(url)
    with Agent("b", type="milestone-executor", session="s", bus=bus) as agent:
        id = bus.send("a", "b", "task_assignment", {})
        garbage = [loop(agent)]
        assert next(garbage[0]) == id
        with pytest.raises(UnknownType):
            bus.store.run(Operation(steps, writes=True))
        assert [found.state_key for found in bus.state_list("a")] == ["k"]
    found = other.message(id)
    assert (found.status, found.retry_count) == ("scheduled", 1)
    other.close()


def test_a_killed_process_leaves_the_turn_to_others_though_it_has_forked(tmp_path: Path) -> None:
    """A child has its parent's descriptors, and would hold the turn for as long as it lives."""
    url = str(tmp_path / "coordination.db")
    with Bus.open(url, create=True) as bus:
        bus.register("a", type="milestone-executor", session="s")
    told, tell = os.pipe()
    if not (parent := os.fork()):
        with Bus.open(url) as bus:
            bus.register("a", type="milestone-executor", session="s")
            bus.store.connection().enter()  # type: ignore[union-attr]
            child = os.fork()
            if child:
                os.write(tell, str(child).encode())
            signal.pause()
    child = int(os.read(told, 20))
    try:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        with Bus.open(url) as bus:
            assert bus.send("a", "a", "task_assignment", {}) == 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(told)
        os.close(tell)
