"""W3: how soon a receiver that waits has the message, and what waiting costs."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from bus import Bus
from tests.benchmarks import ours
from tests.benchmarks.contestant import body
from tests.benchmarks.figures import Figure, Run, percentile

FORK = multiprocessing.get_context("fork")
SHELL = Path(__file__).resolve().parents[2] / "clients" / "shell" / "bus.sh"


def wake_up(run: Run) -> list[Figure]:
    """From the return of the send to the return of the receive, in two processes; by Python and by bash. Then the CPU
    time of those who wait."""
    mode = run.modes[0]
    count = min(run.scale.count, 300)
    found = []
    for sender, measure in (("python", _by_python), ("bus.sh", _by_shell)):
        folder = run.place(f"wait-{sender}")
        times = _wakes(folder, mode, count, measure)
        for name, share, target in (("p50", 0.5, 0.3), ("p99", 0.99, 3.0)):
            value = percentile(times, share) * 1000
            found.append(
                Figure(f"W3 {name}", f"sent by {sender}", mode, value, "ms", target=target, least=False, samples=times)
            )
    return [*found, *_idle(run, mode)]


def _wakes(folder: Path, mode: str, count: int, measure: Any) -> list[float]:
    bus = ours.open_bus(folder, mode)
    bus.register("sender", type=ours.TYPE, session=ours.SESSION)
    bus.register("waiter", type=ours.TYPE, session=ours.SESSION)
    bus.close()
    mine, theirs = FORK.Pipe()
    process = FORK.Process(target=_waiter, args=(folder, mode, count, theirs))
    process.start()
    sent = measure(folder, mode, count, mine)
    received = mine.recv()
    process.join()
    return [max(there - here, 0.0) for here, there in zip(sent, received, strict=True)]


def _waiter(folder: Path, mode: str, count: int, pipe: Any) -> None:
    received = []
    with ours.open_bus(folder, mode) as bus:
        for _ in range(count):
            pipe.send("waiting")
            (message,) = bus.receive("waiter", wait=30)
            received.append(time.time())
            bus.ack(message.receipt or "")
    pipe.send(received)


def _by_python(folder: Path, mode: str, count: int, pipe: Any) -> list[float]:
    sent = []
    with ours.open_bus(folder, mode) as bus:
        for number in range(count):
            pipe.recv()
            time.sleep(0.003)  # until it sleeps
            bus.send("sender", "waiter", "task_assignment", body(number))
            sent.append(time.time())
    return sent


def _by_shell(folder: Path, mode: str, count: int, pipe: Any) -> list[float]:
    """By `send_agent_message` of one bash, which writes down when it returned."""
    script = f"""source {SHELL}
while read -r _; do
  send_agent_message sender waiter task_assignment '{body(0)}' >/dev/null
  printf '%s\\n' "$EPOCHREALTIME"
done"""
    environment = {**os.environ, "BUS_URL": ours.address(folder, mode).replace("sqlite:///", "", 1)}
    sent = []
    with subprocess.Popen(
        ["bash", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as shell:
        assert shell.stdin
        assert shell.stdout
        for _ in range(count):
            pipe.recv()
            time.sleep(0.003)
            print("go", file=shell.stdin, flush=True)
            sent.append(float(shell.stdout.readline().replace(",", ".")))
        shell.stdin.close()
    return sent


def _idle(run: Run, mode: str) -> list[Figure]:
    """The CPU time of one receiver on a quiet bus, and of many beside a pair that exchanges 100 messages a second."""
    seconds = run.scale.seconds
    alone = _cost(run.place("idle-one"), mode, 1, seconds, 0)
    many = _cost(run.place("idle-many"), mode, run.scale.idle, seconds, 100)
    return [
        Figure("W3 idle", "one receiver", mode, alone * 100, "% CPU", target=0.1, least=False),
        Figure("W3 idle", f"{run.scale.idle} receivers, 100 messages/s", mode, many * 100, "% CPU", target=5,
               least=False),
    ]  # fmt: skip


def _cost(folder: Path, mode: str, receivers: int, seconds: float, rate: float) -> float:
    """The share of a core that the idle receivers take together."""
    with ours.open_bus(folder, mode) as bus:
        for number in range(receivers):
            bus.register(f"idle-{number}", type="validation", session=ours.SESSION)
        bus.register("sender", type=ours.TYPE, session=ours.SESSION)
    start = FORK.Barrier(receivers + 1)
    pipe, theirs = FORK.Pipe(duplex=False)
    idle = [
        FORK.Process(target=_sleeper, args=(folder, mode, f"idle-{number}", seconds, start, theirs))
        for number in range(receivers)
    ]
    for process in idle:
        process.start()
    start.wait()
    with ours.open_bus(folder, mode) as bus:
        _exchange(bus, seconds, rate)
    spent = sum(pipe.recv() for _ in idle)
    for process in idle:
        process.join()
    return float(spent) / seconds


def _exchange(bus: Bus, seconds: float, rate: float) -> None:
    end = time.monotonic() + seconds
    while rate and time.monotonic() < end:
        bus.send("sender", "sender", "task_assignment", body(0))
        (message,) = bus.receive("sender")
        bus.ack(message.receipt or "")
        time.sleep(1 / rate)


def _sleeper(folder: Path, mode: str, agent: str, seconds: float, start: Any, pipe: Any) -> None:
    with ours.open_bus(folder, mode) as bus:
        bus.receive(agent, wait=0.01)
        start.wait()
        before = time.process_time()
        bus.receive(agent, wait=seconds)
        pipe.send(time.process_time() - before)
