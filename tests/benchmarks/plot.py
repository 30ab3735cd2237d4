"""Pictures of a run: cost against backlog, rate against processes, latency distribution. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import figures as found
from tests.benchmarks import size, traffic
from tests.benchmarks.figures import Figure, Run

BACKLOGS = (100, 1_000, 10_000, 100_000, 1_000_000)
PROCESSES = (1, 2, 4, 8, 16)


def draw(run: Run, figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Draw what was measured, and measure what only the pictures need."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _backlog(run, folder / "cost-against-backlog.svg"),
        _crowds(run, folder / "rate-against-processes.svg"),
        _latencies(figures, folder / "latency-distribution.svg"),
    ]


def _backlog(run: Run, path: Path) -> Path:
    """The median claim with so many rows beside it, for each kind of row."""
    axes, save = _axes("One claim against what lies beside it", "rows beside it", "µs")
    sizes = [rows for rows in BACKLOGS if rows <= run.scale.rows]
    for shape in size.SHAPES:
        costs = []
        for rows in sizes:
            bus = size.filled_bus(run, run.modes[0], shape, rows)
            costs.append(found.percentile([size.claim(bus, None) for _ in range(100)], 0.5) * 1e6)
            bus.close()
        axes.plot(sizes, costs, marker="o", label=shape)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    return save(path)


def _crowds(run: Run, path: Path) -> Path:
    """Messages a second by the number of processes, half of them senders."""
    axes, save = _axes("Messages through one queue", "processes", "messages/s")
    mode = run.modes[0]
    for contestant in [entry for entry, known in run.entries() if known in (mode, "server")]:
        rates = [
            traffic.exchange(
                contestant, run.place(f"plot-{contestant.name}-{number}"), mode, max(number // 2, 1),
                max(number // 2, 1), max(run.scale.count * 2 // number, 20),
            )["rate"]
            for number in PROCESSES[1:]
        ]  # fmt: skip
        axes.plot(PROCESSES[1:], rates, marker="o", label=contestant.name)
    axes.set_ylim(bottom=0)
    return save(path)


def _latencies(figures: Sequence[Figure], path: Path) -> Path:
    """How long single operations of W2 took, and wake-ups of W3."""
    axes, save = _axes("How long an operation takes (W2, and the wake-up of W3)", "ms", "share that is done by then")
    colours: dict[str, str] = {}
    for figure in figures:
        if figure.work in ("W2", "W3 p50") and figure.samples:
            times = sorted(seconds * 1000 for seconds in figure.samples)
            shares = [(place + 1) / len(times) for place in range(len(times))]
            work = figure.work.split()[0]
            style = {"W3": ":", "W2": "--" if figure.mode == "full" else "-"}[work]
            colour = colours.setdefault(figure.subject, f"C{len(colours) % 10}")
            early = sum(time <= 0 for time in times) / len(times)  # received before the sender went on
            note = f"; {early:.0%} before the sender went on" if early else ""
            label = f"{work} {figure.subject} ({figure.mode}{note})"
            axes.plot(times, shares, style, color=colour, label=label)
    axes.set_xscale("log")
    return save(path)


def _axes(title: str, x: str, y: str) -> tuple[Any, Any]:
    import matplotlib  # type: ignore[import-not-found,unused-ignore]

    matplotlib.use("svg")
    from matplotlib import pyplot  # type: ignore[import-not-found,unused-ignore]

    picture, axes = pyplot.subplots(figsize=(8, 5))
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)

    def save(path: Path) -> Path:
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
        picture.tight_layout()
        picture.savefig(path)
        pyplot.close(picture)
        return path

    return axes, save
