"""Python beside shells: what one process loses to scripts that write all the time, and how long each waits."""

from __future__ import annotations

import os
import subprocess
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.benchmarks import ours
from tests.benchmarks.figures import Figure, Run, percentile
from tests.benchmarks.ours import Ours
from tests.benchmarks.waiting import SHELL

SHELLS = 2
SCRIPT = f"""source {SHELL}
until [[ -e stop ]]; do
  begin=${{EPOCHREALTIME/[.,]/}}
  save_agent_state worker-0 "shell-$1" "$begin"
  printf '%s\\n' $((${{EPOCHREALTIME/[.,]/}} - begin))
done"""


def beside_shells(run: Run) -> list[Figure]:
    """send → receive → ack by one process alone, then while two shells save states, each as fast as it can."""
    found = []
    for mode in run.modes:
        alone, _, _ = _cycles(run.place(f"mixed-alone-{mode}"), mode, run.scale.count * 3, 0)
        rate, worst, saves = _cycles(run.place(f"mixed-{mode}"), mode, run.scale.count * 3, SHELLS)
        note = f"worst operation {worst * 1000:.0f} ms"
        found += [
            Figure("mixed", f"beside {SHELLS} shells", mode, rate, "cycles/s", "alone", rate / alone, note=note),
            Figure("mixed p99", "save_agent_state there", mode, percentile(saves, 0.99) * 1000, "ms", samples=saves),
        ]
    return found


def _cycles(folder: Path, mode: str, count: int, shells: int) -> tuple[float, float, list[float]]:
    """Cycles a second, the longest operation, and how long each save of the shells took, in seconds."""
    queue = Ours(folder, mode, 0)
    environment = {**os.environ, "BUS_URL": ours.address(folder, mode).replace("sqlite:///", "", 1)}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    ["bash", "-c", SCRIPT, "bash", str(number)],
                    cwd=folder, env=environment, stdout=subprocess.PIPE, text=True,
                )
            )
            for number in range(shells)
        ]  # fmt: skip
        first = [writer.stdout.readline() for writer in writers if writer.stdout]  # they are at work
        try:
            times = _times(queue, count)
        finally:
            (folder / "stop").touch()
        saves = [*first, *(line for writer in writers if writer.stdout for line in writer.stdout)]
    queue.close()
    return count / sum(times), max(times), [int(line) / 1e6 for line in saves]


def _times(queue: Ours, count: int) -> list[float]:
    """Of two operations a cycle: what is sent, what is taken and acknowledged."""
    times = []
    for number in range(count):
        for operation in (partial(queue.put, number), queue.take):
            begin = time.perf_counter()
            operation()
            times.append(time.perf_counter() - begin)
    return times
