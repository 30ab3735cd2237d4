"""What a run finds: figures, and the circumstances they were taken in."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.benchmarks import floor, ours, peers, servers
from tests.benchmarks.contestant import Contestant


@dataclass
class Figure:
    """One row: what `subject` did in `work`; `ratio` compares it with `reference` in the same run. `target` is what the
    ratio (or, without one, the value) should reach: `least` says in which direction. `samples` are for the pictures."""

    work: str
    subject: str
    mode: str
    value: float
    unit: str
    reference: str = ""
    ratio: float | None = None
    target: float | None = None
    least: bool = True
    note: str = ""
    samples: list[float] = field(default_factory=list, repr=False)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        reached = self.value if self.ratio is None else self.ratio
        return reached >= self.target if self.least else reached <= self.target


@dataclass(frozen=True)
class Scale:
    """How much is measured: rounds, operations a round, rows beside a claim, messages of the long run."""

    rounds: int
    count: int
    rows: int
    long: int
    idle: int
    seconds: float


TINY = Scale(rounds=1, count=20, rows=200, long=200, idle=2, seconds=0.2)
QUICK = Scale(rounds=5, count=600, rows=20_000, long=20_000, idle=8, seconds=2)
USUAL = Scale(rounds=5, count=1000, rows=1_000_000, long=200_000, idle=64, seconds=10)
FULL = replace(USUAL, long=1_000_000)


@dataclass
class Run:
    """The circumstances of a run: an empty folder to work in, the values of `synchronous`, who takes part."""

    folder: Path
    scale: Scale
    modes: Sequence[str]
    contestants: Sequence[Contestant]

    def entries(self) -> list[tuple[Contestant, str]]:
        """Each contestant with each mode that both it and this run know; servers once."""
        return [
            (contestant, mode)
            for contestant in self.contestants
            for mode in contestant.modes
            if mode in self.modes or mode == "server"
        ]

    def place(self, name: str) -> Path:
        """A new folder."""
        path = self.folder / name
        path.mkdir(parents=True)
        return path


def everybody() -> list[Contestant]:
    """All who can be measured here."""
    return [floor.FLOOR, ours.OURS, *peers.installed(), *servers.answering()]


def named(names: str, known: Sequence[str]) -> set[str]:
    """The names of a list such as `huey,litequeue`."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    if unknown := wanted - set(known):
        raise SystemExit(f"there is no {', '.join(sorted(unknown))} here; there are {', '.join(known)}")
    return wanted


def ratio(values: Sequence[float], references: Sequence[float]) -> float:
    """The median of the ratios of each round, so that what slows a whole round down cancels out."""
    return statistics.median(value / reference for value, reference in zip(values, references, strict=True))


def percentile(samples: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the samples do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
