"""Measuring side by side: each contestant in a process of its own (so that none finds the heap as another left it), a
round of each in turn (so that whatever else the machine does hits all alike)."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

Key = tuple[str, str]
Measure = Callable[[int], float]  # of the round's number: a rate
SPAWN = multiprocessing.get_context("spawn")


def rate(work: Callable[[], int], count: int) -> float:
    """Cycles a second of something that says how many messages arrived; all must."""
    begin = time.perf_counter()
    arrived = work()
    seconds = time.perf_counter() - begin
    assert arrived == count, f"{arrived} of {count} arrived"
    return count / seconds


def interleaved(openers: Mapping[Key, Callable[[], Measure]], rounds: int) -> dict[Key, list[float]]:
    """The rates of each in every round; a round to warm up goes before. An opener is called in its lane's process."""
    lanes = {key: Lane(opener) for key, opener in openers.items()}
    rates: dict[Key, list[float]] = {key: [] for key in lanes}
    try:
        for round in range(rounds + 1):
            for key, lane in lanes.items():
                found = lane.measure(round)
                if round:
                    rates[key].append(found)
    finally:
        for lane in lanes.values():
            lane.close()
    return rates


class Lane:
    """A process that measures when it is told to."""

    def __init__(self, opener: Callable[[], Measure]) -> None:
        self._pipe, theirs = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(opener, theirs))
        self._process.start()

    def measure(self, round: int) -> float:
        self._pipe.send(round)
        found = self._pipe.recv()
        if isinstance(found, str):
            raise RuntimeError(found)
        return float(found)

    def close(self) -> None:
        self._pipe.send(None)
        self._process.join()
        self._pipe.close()


def _serve(opener: Callable[[], Measure], pipe: Any) -> None:
    try:
        measure = opener()
        while (round := pipe.recv()) is not None:
            pipe.send(measure(round))
    except Exception:
        pipe.send(traceback.format_exc())
