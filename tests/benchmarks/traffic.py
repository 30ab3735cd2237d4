"""W1, W1', W2, W5, W7: messages through a queue, by one process, by eight, by a hundred tasks."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bus_client import Agent

from bus import AsyncBus
from tests.benchmarks import ours
from tests.benchmarks.contestant import Contestant, body, queue_lane
from tests.benchmarks.figures import Figure, Run, percentile, ratio
from tests.benchmarks.lanes import Key, Measure, interleaved, rate

FORK = multiprocessing.get_context("fork")
W1_TARGETS = {"normal": 0.5, "full": 0.7}
LOOP_TARGETS = {"normal": 0.7, "full": 1.0}
W2_TARGETS = {"normal": 0.6, "full": 0.8}
BATCH_TARGETS = {"normal": 4.0, "full": 9.0}
TASK_TARGETS = {"normal": 1.0, "full": 3.0}
BATCH, TASKS = 100, 100


def one_by_one(run: Run) -> list[Figure]:
    """W1: one process, send → receive → ack. And W1', W5, W7, which are told as multiples of W1 or of the floor."""
    count = run.scale.count
    openers: dict[Key, Callable[[], Measure]] = {
        (contestant.name, mode): partial(
            queue_lane, contestant, run.place(f"one-{contestant.name}-{mode}"), mode, count
        )
        for contestant, mode in run.entries()
    }
    for mode in run.modes:
        for name, lane in (("W1'", loop_lane), ("W5", batch_lane), ("W7", task_lane)):
            openers[name, mode] = partial(lane, run.place(f"{lane.__name__}-{mode}"), mode, count)
    rates = interleaved(openers, run.scale.rounds)
    return [_figure(key, rates) for key in rates]


def loop_lane(folder: Path, mode: str, count: int) -> Measure:
    """The bus through `agent.messages()`, of an agent that is on it already, as the other contestants are."""
    bus = ours.open_bus(folder, mode)

    def measure(_: int) -> float:
        with Agent("looper", type=ours.TYPE, session=ours.SESSION, bus=bus) as agent:
            return rate(partial(ours.loop, agent, count), count)

    return measure


def batch_lane(folder: Path, mode: str, count: int) -> Measure:
    """The bus by hundreds."""
    many = max(count // BATCH, 1) * BATCH
    bus = ours.open_bus(folder, mode)
    bus.register("batcher", type=ours.TYPE, session=ours.SESSION)
    return lambda round: rate(partial(ours.batches, bus, "batcher", round * many, many, BATCH), many)


def task_lane(folder: Path, mode: str, count: int) -> Measure:
    """The bus by a hundred tasks."""
    return lambda _: asyncio.run(_tasks(folder, mode, max(count // TASKS, 1)))


async def _tasks(folder: Path, mode: str, each: int) -> float:
    """The rate of a hundred tasks on one AsyncBus, each with a mailbox of its own."""
    async with await AsyncBus.open(ours.address(folder, mode), create=True) as bus:
        for task in range(TASKS):
            await bus.register(f"task-{task}", type=ours.TYPE, session=ours.SESSION)

        async def work(agent: str) -> int:
            arrived = 0
            for number in range(each):
                await bus.send(agent, agent, "task_assignment", body(number))
                (message,) = await bus.receive(agent)
                await bus.ack(message.receipt or "")
                arrived += message.payload["task_id"] == str(number)
            return arrived

        begin = time.perf_counter()
        arrived = sum(await asyncio.gather(*(work(f"task-{task}") for task in range(TASKS))))
        seconds = time.perf_counter() - begin
    assert arrived == each * TASKS
    return arrived / seconds


def _figure(key: Key, rates: dict[Key, list[float]]) -> Figure:
    subject, mode = key
    if subject in ("W1'", "W5", "W7"):
        work, reference = subject, "floor" if subject == "W1'" else "agent-bus"
        target = {"W1'": LOOP_TARGETS, "W5": BATCH_TARGETS, "W7": TASK_TARGETS}[subject][mode]
        subject = "agent-bus"
    else:
        work, reference = "W1", "floor"
        target = W1_TARGETS[mode] if subject == "agent-bus" else None
    base = rates.get((reference, mode)) or rates.get((reference, "normal")) or rates[key]
    named = reference if (reference, mode) in rates else f"{reference}, normal"
    return Figure(
        work, subject, mode, percentile(rates[key], 0.5), "cycles/s", named, ratio(rates[key], base), target,
        samples=rates[key],
    )  # fmt: skip


# --- W2


def crowd(run: Run) -> list[Figure]:
    """W2: four senders and four receivers, each a process; rate, worst operation, what was lost or came twice."""
    rates: dict[Key, list[float]] = {}
    worst: dict[Key, float] = {}
    samples: dict[Key, list[float]] = {}
    trouble: dict[Key, tuple[int, int]] = {}
    for round in range(max(run.scale.rounds // 2, 1)):
        for contestant, mode in run.entries():
            key = (contestant.name, mode)
            folder = run.place(f"crowd-{contestant.name}-{mode}-{round}")
            found = exchange(contestant, folder, mode, 4, 4, run.scale.count)
            rates.setdefault(key, []).append(found["rate"])
            worst[key] = max(worst.get(key, 0), found["worst"])
            samples.setdefault(key, []).extend(found["samples"])
            lost, twice = trouble.get(key, (0, 0))
            trouble[key] = lost + found["lost"], twice + found["twice"]
    figures = []
    for (subject, mode), values in rates.items():
        key = (subject, mode)
        base = rates.get(("floor", mode)) or rates.get(("floor", "normal")) or values
        target = W2_TARGETS[mode] if subject == "agent-bus" else None
        lost, twice = trouble[key]
        note = f"worst {worst[key] * 1000:.0f} ms, lost {lost}, twice {twice}"
        figures.append(
            Figure("W2", subject, mode, percentile(values, 0.5), "messages/s", "floor", ratio(values, base), target,
                   note=note, samples=samples[key])
        )  # fmt: skip
        if subject == "agent-bus":
            figures.append(Figure("W2 worst", subject, mode, worst[key] * 1000, "ms", target=50, least=False))
            assert not lost, "a message was lost"
            assert not twice, "a message was delivered twice"
    return figures


def exchange(
    contestant: Contestant, folder: Path, mode: str, senders: int, receivers: int, count: int
) -> dict[str, Any]:
    """So many senders put `count` messages each, receivers take them all."""
    contestant.open(folder, mode, 0).close()
    start, over = FORK.Barrier(senders + receivers + 1), FORK.Event()
    pipes, processes = [], []
    for worker in range(senders + receivers):
        mine, theirs = FORK.Pipe(duplex=False)
        numbers = range(worker * count, (worker + 1) * count) if worker < senders else None
        process = FORK.Process(target=_worker, args=(contestant, folder, mode, worker, numbers, start, over, theirs))
        process.start()
        pipes.append(mine)
        processes.append(process)
    start.wait()
    found = [pipe.recv() for pipe in pipes[:senders]]
    over.set()
    found += [pipe.recv() for pipe in pipes[senders:]]
    for process in processes:
        process.join()
    arrived = [number for numbers, _, _, _ in found for number in numbers]
    operations = [seconds for _, times, _, _ in found for seconds in times]
    return {
        "rate": len(arrived) / (max(end for _, _, end, _ in found) - min(begin for _, _, _, begin in found)),
        "worst": max(operations),
        "samples": sorted(operations)[:: max(len(operations) // 500, 1)],
        "lost": senders * count - len(set(arrived)),
        "twice": len(arrived) - len(set(arrived)),
    }


def _worker(
    contestant: Contestant,
    folder: Path,
    mode: str,
    worker: int,
    numbers: range | None,
    start: Any,
    over: Any,
    pipe: Any,
) -> None:
    queue = contestant.open(folder, mode, worker)
    start.wait()
    begin = time.perf_counter()  # here: on a busy machine this process may be done before its parent goes on
    result = _sends(queue, numbers) if numbers is not None else _receives(queue, over)
    pipe.send((*result, begin))
    queue.close()


def _sends(queue: Any, numbers: range) -> tuple[list[int], list[float], float]:
    times = []
    for number in numbers:
        begin = time.perf_counter()
        queue.put(number)
        times.append(time.perf_counter() - begin)
    return [], times, time.perf_counter()


def _receives(queue: Any, over: Any) -> tuple[list[int], list[float], float]:
    """Take until the senders have ended and nothing is left; an empty queue is looked at again
    half a millisecond later. Each message is two operations, claim and acknowledgement, timed as one."""
    arrived, times, last = [], [], time.perf_counter()
    ending = False
    while True:
        begin = time.perf_counter()
        number = queue.take()
        if number is not None:
            last = time.perf_counter()
            times.append(last - begin)
            arrived.append(number)
        elif ending:
            return arrived, times, last
        else:
            ending = over.is_set()
            time.sleep(0.0005)
