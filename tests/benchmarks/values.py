"""W9: state and checkpoints, against the bare upsert, select and insert."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks import floor, ours
from tests.benchmarks.figures import Figure, Run, percentile, ratio
from tests.benchmarks.lanes import Key, Measure, interleaved, rate

TARGET = 0.7
VALUE = "v" * 100
SNAPSHOT = '{"at": "design", "text": "' + "x" * 100_000 + '"}'
TABLES = """create table state (agent text, key text, value text, version integer, primary key (agent, key));
create table checkpoint (id integer primary key, agent text, snapshot text);"""
UPSERT = """insert into state values ('a', ?, ?, 1)
on conflict (agent, key) do update set value = excluded.value, version = version + 1"""
SELECT = "select value, version from state where agent = 'a' and key = ?"
INSERT = "insert into checkpoint (agent, snapshot) values ('a', ?)"


def state_and_checkpoints(run: Run) -> list[Figure]:
    """Save and load a hundred bytes under ten keys, checkpoint 100 KB."""
    count = run.scale.count
    openers: dict[Key, Callable[[], Measure]] = {}
    for mode in run.modes:
        for subject in ("save", "load", "checkpoint"):
            for lane, name in ((bare_lane, f"bare {subject}"), (bus_lane, subject)):
                openers[name, mode] = partial(lane, run.place(f"{name}-{mode}"), mode, subject, count)
    rates = interleaved(openers, run.scale.rounds)
    return [
        Figure("W9", subject, mode, percentile(values, 0.5), "a second", f"bare {subject}",
               ratio(values, rates[f"bare {subject}", mode]), TARGET, samples=values)
        for (subject, mode), values in rates.items()
        if not subject.startswith("bare")
    ]  # fmt: skip


def bare_lane(folder: Path, mode: str, subject: str, count: int) -> Measure:
    """SQLite itself."""
    bare = floor.connect(folder, mode)
    bare.executescript(TABLES)
    bare.executemany(UPSERT, [(f"key-{at}", VALUE) for at in range(10)])
    acts: dict[str, Callable[[int], object]] = {
        "save": lambda at: bare.execute(UPSERT, (f"key-{at % 10}", VALUE)),
        "load": lambda at: bare.execute(SELECT, (f"key-{at % 10}",)).fetchall(),
        "checkpoint": lambda _: bare.execute(INSERT, (SNAPSHOT,)),
    }
    return _times(_number(subject, count), acts[subject])


def bus_lane(folder: Path, mode: str, subject: str, count: int) -> Measure:
    """The bus."""
    bus = ours.open_bus(folder, mode)
    bus.register("a", type=ours.TYPE, session=ours.SESSION)
    for at in range(10):
        bus.state_save("a", f"key-{at}", VALUE)
    acts: dict[str, Callable[[int], object]] = {
        "save": lambda at: bus.state_save("a", f"key-{at % 10}", VALUE),
        "load": lambda at: bus.state_load("a", f"key-{at % 10}"),
        "checkpoint": lambda _: bus.checkpoint_create("a", SNAPSHOT),
    }
    return _times(_number(subject, count), acts[subject])


def _number(subject: str, count: int) -> int:
    return max(count // 20, 1) if subject == "checkpoint" else count


def _times(count: int, act: Callable[[int], object]) -> Measure:
    def work() -> int:
        return sum(act(at) is not None for at in range(count))

    return lambda _: rate(work, count)
