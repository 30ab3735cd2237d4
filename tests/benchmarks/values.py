"""W9: state and checkpoints, against the bare upsert, select and insert."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from bus import Bus
from tests.benchmarks import floor, ours
from tests.benchmarks.figures import Figure, Run, percentile, ratio
from tests.benchmarks.traffic import interleaved, rate

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
    count, entries = run.scale.count, {}
    closing: list[Bus | sqlite3.Connection] = []
    for mode in run.modes:
        bare, folder = floor.connect(run.place(f"values-floor-{mode}"), mode), run.place(f"values-{mode}")
        bare.executescript(TABLES)
        bus = ours.open_bus(folder, mode)
        bus.register("a", type=ours.TYPE, session=ours.SESSION)
        closing += [bare, bus]
        entries |= _entries(bare, bus, mode, count)
    rates = interleaved(entries, run.scale.rounds)
    for connection in closing:
        connection.close()
    return [
        Figure("W9", subject, mode, percentile(values, 0.5), "a second", f"bare {subject}",
               ratio(values, rates[f"bare {subject}", mode]), TARGET, samples=values)
        for (subject, mode), values in rates.items()
        if not subject.startswith("bare")
    ]  # fmt: skip


def _entries(
    bare: sqlite3.Connection, bus: Bus, mode: str, count: int
) -> dict[tuple[str, str], Callable[[int], float]]:
    few = max(count // 20, 1)
    return {
        ("bare save", mode): _times(count, lambda at: bare.execute(UPSERT, (f"key-{at % 10}", VALUE))),
        ("save", mode): _times(count, lambda at: bus.state_save("a", f"key-{at % 10}", VALUE)),
        ("bare load", mode): _times(count, lambda at: bare.execute(SELECT, (f"key-{at % 10}",)).fetchall()),
        ("load", mode): _times(count, lambda at: bus.state_load("a", f"key-{at % 10}")),
        ("bare checkpoint", mode): _times(few, lambda _: bare.execute(INSERT, (SNAPSHOT,))),
        ("checkpoint", mode): _times(few, lambda _: bus.checkpoint_create("a", SNAPSHOT)),
    }


def _times(count: int, act: Callable[[int], object]) -> Callable[[int], float]:
    def work() -> int:
        return sum(act(at) is not None for at in range(count))

    return lambda _: rate(work, count)
