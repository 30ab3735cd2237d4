"""What is measured: a queue that numbers are put into and taken out of, one by one, each with its own commit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec

from tests.benchmarks.lanes import Measure, rate

MODES = ("normal", "full")  # pragma synchronous: to the operating system, to the disk


class Queue(Protocol):
    """One process's connection to a queue."""

    def put(self, number: int) -> None:
        """Store a message that carries this number."""

    def take(self) -> int | None:
        """Claim the next message and acknowledge it; None when there is none."""

    def close(self) -> None:
        """Let go of the connection."""


class Contestant(NamedTuple):
    """A kind of queue: `open(folder, mode, worker)` connects to the one in that folder. `kind` is floor, ours, peer or
    server; `modes` are the values of `synchronous` it can be measured with; `note` is said below the table."""

    name: str
    kind: str
    open: Callable[[Path, str, int], Queue]
    modes: tuple[str, ...] = MODES
    note: str = ""


def body(number: int) -> str:
    """The payload of every contestant's message: about a hundred bytes of JSON."""
    return f'{{"task_id":"{number}","phase":"design","title":"Sketch the first part of the work","weight":25}}'


def number(payload: str | bytes) -> int:
    """What `body` was made of."""
    return int(msgspec.json.decode(payload)["task_id"])


def cycles(queue: Queue, first: int, count: int) -> int:
    """Put and take one by one, so many times; how many arrived.

    (What was put into JetStream can be had a moment later only.)"""
    arrived = 0
    for at in range(first, first + count):
        queue.put(at)
        taken = next((taken for taken in (queue.take() for _ in range(1000)) if taken is not None), None)
        arrived += taken == at
    return arrived


def queue_lane(contestant: Contestant, folder: Path, mode: str, count: int) -> Measure:
    """Measures `count` cycles of a contestant."""
    queue = contestant.open(folder, mode, 0)
    return lambda round: rate(partial(cycles, queue, round * count, count), count)
