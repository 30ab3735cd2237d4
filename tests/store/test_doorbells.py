"""Doorbells, where what they are made of is taken away."""

import os
import select
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from bus import Bus, clock, messages
from bus.store import doorbell
from bus.store.doorbell import FOREIGN, Endings, Glance, Listener, Porch, Room
from tests.conftest import Process


class Interrupted(frozenset[str]):
    """Bells of a guest who leaves while somebody looks whether they are rung."""

    leaving: threading.Thread

    def isdisjoint(self, other: Iterable[object]) -> bool:
        self.leaving.start()
        self.leaving.join(0.2)  # who must wait for the ringing to end is not gone by then
        return super().isdisjoint(other)


def test_who_rings_in_memory_never_writes_to_what_a_waiter_has_closed() -> None:
    room = Room()
    guest = room.listen([])
    bells = Interrupted(["a"])
    bells.leaving = threading.Thread(target=guest.close)
    guest.bells = bells
    room.ring(["a"])
    bells.leaving.join()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(guest.fileno())


@pytest.fixture
def none_left(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ends of those paths for which inotify has no watch."""
    watch = Listener._watch
    ends: list[str] = []

    def watch_or_not(listener: Listener, path: str, mask: int) -> int:
        return -1 if path.endswith(tuple(ends)) else watch(listener, path, mask)

    monkeypatch.setattr(Listener, "_watch", watch_or_not)
    return ends


def test_without_watches_one_looks(tmp_path: Path, none_left: list[str]) -> None:
    none_left.append("/a")
    before = len(os.listdir("/proc/self/fd"))
    waiting = Porch(str(tmp_path / "bells"), str(tmp_path / "wal")).listen(["a"])
    assert isinstance(waiting, Glance)
    waiting.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_watch_for_what_other_programs_write_one_looks_at_its_time(
    tmp_path: Path, none_left: list[str]
) -> None:
    wal = tmp_path / "wal"
    wal.touch()
    none_left.append("/wal")
    porch = Porch(str(tmp_path / "bells"), str(wal))
    waiting = porch.listen(["a"])
    assert isinstance(waiting, Listener)
    seconds = next(waiting.rounds(600, ()))
    assert seconds is not None
    assert seconds <= FOREIGN
    waiting.close()
    porch.close()


@pytest.mark.parametrize(
    ("bell", "act"),
    [
        ("state=one", lambda bus: bus.state_save("one", "k", "w")),
        ("state=one", lambda bus: bus.state_delete("one", "k")),
        ("one", lambda bus: bus.redrive([1])),
        ("two", lambda bus: bus.broadcast("boss", "task_assignment", {})),
        ("message=2", lambda bus: bus.reject("2.1", reason="nonsense")),
        ("message=2", lambda bus: bus.cancel(2)),
        ("message=2", lambda bus: bus.ack_and_receive("one", "2.1")),
        ("message=2", lambda bus: bus.apply([messages.ack("2.1", once=True)])),
        ("message=2", lambda bus: (bus.config_set("message_retry_limit", "0"), bus.release("2.1"))),
        ("message=2", lambda bus: (bus.config_set("message_retry_limit", "0"), bus.retire("one"))),
        ("@validation", lambda bus: bus.release("3.1")),
        ("@validation", lambda bus: bus.retire("one")),
        ("@validation", lambda bus: late(bus.monitor_check)),
    ],
)
def test_a_change_rings_those_whom_it_concerns(bell: str, act: Callable[[Bus], object]) -> None:
    with Bus.open(":memory:", create=True) as bus:
        for agent in ("boss", "one", "two"):
            bus.register(agent, type="validation", session="s")
        bus.state_save("one", "k", "v")
        for to in ("one", "one", "@validation"):
            bus.send("boss", to, "task_assignment", {})
        bus.cancel(1)
        bus.receive("one", limit=2)
        heard = bus.store.connection().listen([bell])
        assert not select.select([heard], [], [], 0)[0]
        act(bus)
        assert select.select([heard], [], [], 0)[0]
        heard.close()


def late(call: Callable[[], object]) -> None:
    with clock.moved(60):
        call()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_connection_keeps_a_few_listeners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "RESTING", 2)
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    before = descriptors()
    listeners = [porch.listen([f"bell-{n}"]) for n in range(5)]
    each = (descriptors() - before) // 5
    for listener in listeners:
        listener.close()
    assert descriptors() == before + 2 * each
    porch.close()
    assert descriptors() == before


def test_a_listener_whose_bell_was_taken_away_is_replaced(tmp_path: Path) -> None:
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    before = descriptors()
    first = porch.listen(["a"])
    first.close()
    (tmp_path / "bells" / "a").unlink()
    again = porch.listen(["a"])
    assert again is not first
    porch.ring(["a"])
    assert select.select([again], [], [], 0)[0]
    again.close()
    porch.close()
    assert descriptors() == before


def test_a_bell_is_no_link_to_somewhere_else(tmp_path: Path) -> None:
    (tmp_path / "bells").mkdir()
    (tmp_path / "bells" / "a").symlink_to(tmp_path / "elsewhere")
    waiting = Porch(str(tmp_path / "bells"), str(tmp_path / "wal")).listen(["a"])
    assert isinstance(waiting, Glance)
    waiting.close()
    assert not (tmp_path / "elsewhere").exists()


def test_only_those_processes_wake_one_that_are_watched_now(process: Process) -> None:
    with select.epoll() as poll:
        endings = Endings(poll)
        endings.watch([process.pid, os.getpid()])
        endings.watch([os.getpid()])
        process.kill()
        process.wait()
        assert poll.poll(0) == []
        endings.close()


@pytest.mark.parametrize("place", ["file", "memory", "postgres"])
def test_one_may_wait_for_a_century(place: str, url: str, request: pytest.FixtureRequest) -> None:
    address = {"file": url, "memory": ":memory:"}.get(place) or request.getfixturevalue("postgres")
    with Bus.open(address, create=True) as bus:
        bus.register("one", type="validation", session="s")
        bus.send("one", "one", "task_assignment", {})

        def cancel_elsewhere() -> None:
            bus.store.before_sleep = None
            another = threading.Thread(target=bus.cancel, args=(1,))
            another.start()
            another.join()

        bus.store.before_sleep = cancel_elsewhere
        assert bus.wait_ended(1, wait="36600d").status == "dead"
