"""Doorbells, where what they are made of is taken away."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from bus.store.doorbell import FOREIGN, Glance, Listener, Porch, Room


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
