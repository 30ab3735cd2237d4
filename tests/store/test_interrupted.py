"""An exception out of a signal handler (Ctrl-C, say) comes at any moment of a call: nothing stays open or locked, and
what is asked next gets its own answer."""

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

import bus as package
from bus import Bus, messages, state

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


def interrupted(call: Callable[[], object], moment: int) -> bool:
    """Make a call, into which an exception comes at one of the moments at which Python looks for signals: as a function
    of the bus begins, or after a call of something built in. Whether the call took that long."""
    moments = itertools.count()

    def look(frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(INSIDE) and next(moments) == moment:
            sys.setprofile(None)
            raise Interrupted

    sys.setprofile(look)
    try:
        call()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return False


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
