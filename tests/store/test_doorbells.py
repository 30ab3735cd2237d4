"""Doorbells, where what they are made of is taken away."""

import asyncio
import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bus import AsyncBus, Bus, clock, messages
from bus.store import doorbell
from bus.store.doorbell import FOREIGN, Endings, Glance, Listener, Porch, Room
from tests.conftest import Process, listening
from tests.descriptors import descriptors


class Interrupted(frozenset[str]):
    """Bells of a guest who leaves while somebody looks whether they are rung."""

    leaving: threading.Thread

    def isdisjoint(self, other: Iterable[object]) -> bool:
        self.leaving.start()
        self.leaving.join(0.2)  # who must wait for the ringing to end is not gone by then
        return super().isdisjoint(other)


def test_who_rings_in_memory_never_writes_to_what_a_waiter_has_closed() -> None:
    room = Room(threading.RLock())
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
    before = descriptors()
    waiting = Porch(str(tmp_path / "bells"), str(tmp_path / "wal")).listen(["a"])
    assert isinstance(waiting, Glance)
    waiting.close()
    assert descriptors() == before


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


def test_a_bell_that_was_taken_away_from_who_rests_is_hung_up_again(tmp_path: Path) -> None:
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    before = descriptors()
    first = porch.listen(["a"])
    first.close()
    (tmp_path / "bells" / "a").unlink()
    again = porch.listen(["a"])
    porch.ring(["a"])
    assert select.select([again], [], [], 0)[0]
    again.close()
    porch.close()
    assert descriptors() == before


def hung(url: str) -> list[str]:
    """The bells of messages."""
    return sorted(path.name for path in Path(f"{url}.bells").iterdir() if path.name.startswith("message="))


@pytest.mark.parametrize("colour", ["blocking", "async"])
def test_no_bell_is_left_of_a_message_that_nobody_waits_for(url: str, colour: str) -> None:
    async def wait() -> None:
        async with await AsyncBus.open(url) as bus:
            waiting = asyncio.gather(
                *(bus.wait_ended(id, wait=60) for id in (1, 1, 2, 3)), bus.wait_ended(4, wait=0.01)
            )
            while not os.path.exists(f"{url}.bells/message=3"):
                await asyncio.sleep(0)
            for id in (1, 2, 3):
                await bus.cancel(id)
            assert [message.status for message in await waiting] == [*["dead"] * 4, "ready"]

    with Bus.open(url) as bus:
        bus.register("one", type="validation", session="s")
        for _ in range(4):
            bus.send("one", "one", "task_assignment", {})
        if colour == "blocking":
            assert [bus.wait_ended(id, wait=0.01).status for id in (1, 2, 3, 4)] == ["ready"] * 4
        else:
            asyncio.run(wait())
    assert hung(url) == []


def test_who_still_waits_for_a_message_hangs_up_its_bell_again_and_looks(tmp_path: Path) -> None:
    porches = [Porch(str(tmp_path / "bells"), str(tmp_path / "wal")) for _ in range(2)]
    first, second = (porch.listen(["message=1"]) for porch in porches)
    assert isinstance(second, Listener)
    rounds = second.rounds(None, ())
    next(rounds)
    first.close()
    assert not (tmp_path / "bells" / "message=1").exists()
    assert select.select([second], [], [], 0)[0]
    with pytest.raises(StopIteration):
        rounds.send(True)  # it looks
    with pytest.raises(StopIteration):
        next(second.rounds(None, ()))  # and once more, after it hung up the bell
    rounds = second.rounds(None, ())
    next(rounds)
    assert not select.select([second], [], [], 0)[0]
    porches[0].ring(["message=1"])
    assert select.select([second], [], [], 0)[0]
    second.close()
    for porch in porches:
        porch.close()


def test_a_bell_that_is_taken_down_before_it_is_watched_is_hung_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Listener._watch

    def watch_too_late(listener: Listener, path: str, mask: int) -> int:
        if path.endswith("message=1"):
            monkeypatch.setattr(Listener, "_watch", watch)
            os.unlink(path)
        return watch(listener, path, mask)

    monkeypatch.setattr(Listener, "_watch", watch_too_late)
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    waiting = porch.listen(["message=1"])
    assert isinstance(waiting, Listener)
    with pytest.raises(StopIteration):
        next(waiting.rounds(None, ()))
    porch.ring(["message=1"])
    assert select.select([waiting], [], [], 0)[0]
    waiting.close()
    porch.close()


def test_where_no_bell_can_be_hung_up_again_one_still_hears_of_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "wal").touch()
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    waiting = porch.listen(["message=1"])
    (tmp_path / "bells" / "message=1").unlink()
    (tmp_path / "bells" / "message=1").symlink_to("elsewhere")
    for _ in range(2):
        with pytest.raises(StopIteration):
            rounds = waiting.rounds(None, ())
            next(rounds)
            rounds.send(True)
    assert next(waiting.rounds(None, ())) is None  # it sleeps
    with open(tmp_path / "wal", "w") as wal:
        wal.write("x")
        wal.flush()
    assert select.select([waiting], [], [], 0)[0]
    waiting.close()
    porch.close()


def test_a_bell_that_somebody_still_has_open_when_it_is_taken_down_is_hung_up_again(tmp_path: Path) -> None:
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    waiting = porch.listen(["message=1"])
    with open(tmp_path / "bells" / "message=1"):
        (tmp_path / "bells" / "message=1").unlink()
        look_is_due(waiting)
        rounds = waiting.rounds(None, ())
        next(rounds)
    assert select.select([waiting], [], [], 0)[0]  # only now is the watch gone
    with pytest.raises(StopIteration):
        rounds.send(True)
    look_is_due(waiting)
    assert (tmp_path / "bells" / "message=1").exists()
    waiting.close()
    porch.close()


def look_is_due(waiting: doorbell.Waiting) -> object:
    """Go on to the end of a round that is due to end, without sleeping; what it says."""
    rounds = waiting.rounds(None, ())
    with pytest.raises(StopIteration) as ended:
        next(rounds)
        rounds.send(True)
    return ended.value.value


def test_one_looks_again_while_a_commit_may_not_have_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "FOREIGN", 0)
    wal = tmp_path / "wal"
    wal.touch()
    porch = Porch(str(tmp_path / "bells"), str(wal))
    waiting = porch.listen(["a"])
    os.utime(wal, (time.time() + 60, time.time() + 60))
    for _ in range(2):
        assert look_is_due(waiting) is True
    os.utime(wal, (0, 0))
    assert look_is_due(waiting) is True
    assert next(waiting.rounds(None, ())) is None  # it sleeps
    waiting.close()
    porch.close()


def test_what_is_written_before_one_listens_again_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorbell, "FOREIGN", 0)
    wal = tmp_path / "wal"
    wal.touch()
    os.utime(wal, (0, 0))
    porch = Porch(str(tmp_path / "bells"), str(wal))
    waiting = porch.listen(["a"])
    assert look_is_due(waiting) is True
    listen = Listener._listen_to_wal

    def listen_too_late(listener: Listener) -> None:
        os.utime(wal, (1, 1))
        listen(listener)

    monkeypatch.setattr(Listener, "_listen_to_wal", listen_too_late)
    with pytest.raises(StopIteration):
        next(waiting.rounds(None, ()))  # without sleeping first
    waiting.close()
    porch.close()


def test_what_killed_waiters_leave_is_swept_away(url: str) -> None:
    with Bus.open(url) as bus:
        bus.monitor_check()  # there is nothing to sweep
        bus.register("one", type="validation", session="s")
        bus.store.connection().listen(["one"]).close()
        for bell in ("message=1", "message=2"):
            Path(f"{url}.bells", bell).touch()
        for bell in ("message=1", "one"):
            os.utime(f"{url}.bells/{bell}", (0, 0))
        bus.monitor_check()
        assert hung(url) == ["message=2"]
        assert not Path(f"{url}.bells/one").exists()
        waiting = bus.store.connection().listen(["one"])
        assert Path(f"{url}.bells/one").exists(), "who waits hangs up its bell again"
        waiting.close()


def test_the_listener_that_was_last_needed_is_kept_whatever_was_waited_for_before(tmp_path: Path) -> None:
    porch = Porch(str(tmp_path / "bells"), str(tmp_path / "wal"))
    for id in range(doorbell.RESTING):
        porch.listen([f"message={id}"]).close()
    mine = porch.listen(["one"])
    mine.close()
    assert porch.listen(["one"]) is mine
    mine.close()
    porch.close()


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


def test_who_can_watch_no_more_processes_looks_now_and_then(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand agents are more than the usual limit of descriptors."""

    def watch(fails: OSError) -> float | None:
        def fail(_: int) -> int:
            raise fails

        monkeypatch.setattr(os, "pidfd_open", fail)
        return endings.watch([process.pid, os.getpid()], 600)

    with select.epoll() as poll:
        endings = Endings(poll)
        assert watch(OSError(errno.EMFILE, "no descriptors")) == doorbell.BLIND
        assert watch(ProcessLookupError(errno.ESRCH, "it is gone")) == 600
        monkeypatch.undo()
        assert endings.watch([process.pid, os.getpid()], 600) == 600
        process.kill()
        process.wait()
        assert poll.poll(0)
        endings.close()


def test_in_memory_one_looks_where_nothing_can_wake_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "eventfd")
    before = descriptors()
    with Bus.open(":memory:", create=True) as bus:
        bus.register("one", type="validation", session="s")

        def send() -> None:
            bus.store.before_sleep = None
            bus.send("one", "one", "task_assignment", {})

        bus.store.before_sleep = send
        assert [message.id for message in bus.receive("one", wait=20)] == [1]
    assert descriptors() == before


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


@pytest.mark.parametrize("place", ["url", "postgres"])
def test_where_there_is_no_epoll_a_receiver_is_woken_too(
    request: pytest.FixtureRequest, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "epoll")  # as gevent does
    with Bus.open(request.getfixturevalue(place), create=True) as bus, ThreadPoolExecutor(1) as thread:
        bus.register("a", type="validation", session="s")
        with listening() as listens:
            waiting = thread.submit(bus.receive, "a", wait=30)
            assert listens.wait(20)
            id = bus.send("a", "a", "task_assignment", {})
        assert [message.id for message in waiting.result(20)] == [id]
