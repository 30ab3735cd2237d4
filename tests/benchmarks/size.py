"""W4 and W8: what lies beside a message costs it nothing, and the file stays small."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path

from bus import Bus, clock
from tests.benchmarks import ours
from tests.benchmarks.contestant import body
from tests.benchmarks.figures import Figure, Run, percentile
from tests.benchmarks.filled import SHAPES, fill

CLAIMS = 200
MEBIBYTE = 1 << 20


def claims(run: Run) -> list[Figure]:
    """W4: one claim with a million rows beside it, as a multiple of the claim on an empty file."""
    mode = run.modes[0]
    buses = {shape: filled_bus(run, mode, shape, run.scale.rows) for shape in ("empty", *SHAPES)}
    times: dict[str, list[float]] = {shape: [] for shape in buses}
    typed: dict[str, list[float]] = {shape: [] for shape in buses}
    try:
        for _ in range(min(CLAIMS, run.scale.count)):
            for shape, bus in buses.items():
                times[shape].append(claim(bus, None))
                typed[shape].append(claim(bus, "task_assignment"))
    finally:
        for bus in buses.values():
            bus.close()
    return [*_figures("W4", mode, times), *_figures("W4 --type", mode, typed)]


def _figures(work: str, mode: str, times: dict[str, list[float]]) -> list[Figure]:
    empty = percentile(times["empty"], 0.5)
    return [
        Figure(
            work, shape, mode, percentile(found, 0.5) * 1e6, "µs", "empty file", percentile(found, 0.5) / empty,
            target=None if shape == "empty" or work != "W4" else 2.0 if shape == "ready" else 1.3, least=False,
            samples=found,
        )
        for shape, found in times.items()
    ]  # fmt: skip


def filled_bus(run: Run, mode: str, shape: str, rows: int) -> Bus:
    """A bus with so many messages of a shape; none for `empty`."""
    folder = run.place(f"{shape}-{rows}-{len(list(run.folder.iterdir()))}")
    bus = ours.open_bus(folder, mode)
    for agent in ("claimer", "other"):
        bus.register(agent, type=ours.TYPE, session=ours.SESSION)
    bus.close()
    if shape != "empty":
        fill(folder / "bus.db", shape, rows, clock.seconds())
    return ours.open_bus(folder, mode)


def claim(bus: Bus, type: str | None) -> float:
    """The seconds of one claim; the message is sent before and acknowledged after."""
    bus.send("claimer", "claimer", "task_assignment", body(0), priority=6)
    begin = time.perf_counter()
    (message,) = bus.receive("claimer", type=type)
    seconds = time.perf_counter() - begin
    bus.ack(message.receipt or "")
    return seconds


def long_run(run: Run) -> list[Figure]:
    """W8: very many messages through one file, 1,000 alive at a time, old ones pruned: sizes, memory, and the rate of
    the last tenth against the first."""
    mode, folder = run.modes[0], run.place("long")
    bus = ours.open_bus(folder, mode)
    bus.register("runner", type=ours.TYPE, session=ours.SESSION)
    alive, total = min(1000, run.scale.long // 10), run.scale.long
    rates, sizes, memory = [], [], []
    _send(bus, 0, alive)
    for tenth in range(10):
        begin = time.perf_counter()
        _tenth(bus, alive + tenth * total // 10, total // 10, sizes, folder)
        rates.append(total / 10 / (time.perf_counter() - begin))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    left = len(bus.pending("runner", limit=10 * alive))
    bus.close()
    assert left == alive, f"{left} of {alive} are left"
    return [
        Figure("W8 file + WAL", "agent-bus", mode, max(sizes) / MEBIBYTE, "MiB", target=64, least=False),
        Figure("W8 rate", "agent-bus", mode, rates[-1], "messages/s", "first tenth", rates[-1] / rates[0], 0.9,
               samples=rates),
        Figure("W8 memory", "agent-bus", mode, memory[-1], "MiB", "first tenth", memory[-1] / memory[0], 1.1, False),
    ]  # fmt: skip


def _tenth(bus: Bus, first: int, count: int, sizes: list[int], folder: Path) -> None:
    """Messages pass by hundreds; every ten thousand the acknowledged ones are pruned, as if their days were over."""
    size = min(100, count)
    for start in range(first, first + count, size):
        _send(bus, start, size)
        found = bus.receive("runner", limit=size)
        bus.ack([message.receipt or "" for message in found])
        if start // 10_000 != (start + size) // 10_000 or count < 10_000:
            with clock.moved(8 * 86400.0):
                bus.prune()
            sizes.append(sum(os.stat(folder / name).st_size for name in ("bus.db", "bus.db-wal")))


def _send(bus: Bus, first: int, count: int) -> None:
    from bus import messages

    bus.apply([messages.send("runner", "runner", "task_assignment", body(at)) for at in range(first, first + count)])
