"""How long the reports take over 100,000 records, and what their plans use: python -m tests.benchmarks.reports"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from bus import Bus, schemas
from tests.benchmarks.figures import Figure, Run

RECORDS = 100_000
LIMIT = 0.5  # seconds
SHARE = 0.05  # of W1, that recording may cost
TYPES = ("design-phase", "spec-phase", "task-phase", "execute-phase", "validation")
VIEWS = ("agent_velocity", "agent_bottlenecks", "priority_timeline", "active_agents")
FILL = """
with recursive n (i) as (select 0 union all select i + 1 from n where i + 1 < :records)
insert into agent_lifecycle (pid, agent_type, task_id, priority_number, command, status, spawned_at, started_at,
  completed_at, exit_code)
select 1000 + i % 30000, json_extract(:types, '$[' || (i % 5) || ']'), 'task-' || (i / 4), 1 + i % 200, 'run task',
  kind.status,
  strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ((:records - i) * 60 + 3600) || ' seconds'),
  strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ((:records - i) * 60 + 3600 - 2 - i % 7) || ' seconds'),
  strftime('%Y-%m-%d %H:%M:%f', 'now', '-' || ((:records - i) * 60 + 3600 - 2 - i % 7 - i * 7919 % 2000) || ' seconds'),
  kind.status <> 'completed'
from n join (select 0 as k, 'completed' as status union all select 1, 'failed') kind on kind.k = (i % 20 = 0)
"""


def fill(path: str, records: int = RECORDS) -> None:
    """Put so many ended agents on record, of five types, over months."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("pragma wal_autocheckpoint = 0")
        connection.execute(FILL, {"records": records, "types": json.dumps(TYPES)})


def reports(bus: Bus) -> dict[str, Callable[[], Any]]:
    """Each report by name, and some with what narrows them."""
    return {
        "active": bus.trace_active,
        "velocity": bus.trace_velocity,
        "velocity --type --days 30": lambda: bus.trace_velocity(type="spec-phase", days=30),
        "bottlenecks": bus.trace_bottlenecks,
        "bottlenecks --type": lambda: bus.trace_bottlenecks(type="spec-phase"),
        "timeline": bus.trace_timeline,
        "timeline --priority": lambda: bus.trace_timeline(priority="7"),
        "throughput": bus.trace_throughput,
        "throughput --by day, all": lambda: bus.trace_throughput(by="day", days=36600),
        "waiting": bus.trace_waiting,
    }


def seconds(call: Callable[[], Any], times: int = 3) -> float:
    """The median of some runs."""
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _look(connection: sqlite3.Connection, view: str) -> None:
    connection.execute(f"select * from {view}").fetchall()


def plans(path: str) -> Iterator[tuple[str, str]]:
    """Each report's query, and each step of its plan that reads agent_lifecycle."""
    with closing(sqlite3.connect(path)) as connection:
        names = ("active", "open", "velocity", "bottlenecks", "priorities", "timeline", "throughput")
        queries = {name: schemas.parts(f"lifecycle/{name}")[-1].statement for name in names}
        queries |= {f"view {view}": f"select * from {view}" for view in VIEWS}
        for name, text in queries.items():
            parameters = dict.fromkeys(("now", "type", "since", "limit", "priority", "length"))
            for *_, step in connection.execute(f"explain query plan {text}", parameters):
                if "agent_lifecycle" in step or step.startswith(("SCAN l", "SEARCH l")):
                    yield name, step


def measure(records: int = RECORDS) -> dict[str, float]:
    """Seconds of each report and view over so many records."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "bus.db")
        with Bus.open(path, create=True) as bus:
            fill(path, records)
            taken = {name: seconds(call) for name, call in reports(bus).items()}
        with closing(sqlite3.connect(path)) as connection:
            for view in VIEWS:
                taken[f"view {view}"] = seconds(partial(_look, connection, view))
        return taken


def recording(lives: int = 200) -> tuple[float, float]:
    """The seconds that a life on record costs more than an agent that is only registered, and those of a W1 cycle."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{Path(folder) / 'bus.db'}?synchronous=normal"
        with Bus.open(address, create=True) as bus:
            plain = seconds(lambda: _registered(bus), lives)
            recorded = seconds(lambda: _recorded(bus), lives)
            bus.register("one", type="validation", session="bench")
            return max(recorded - plain, 1e-9), seconds(lambda: _cycle(bus), lives)


def _registered(bus: Bus) -> None:
    bus.register("plain", type="validation", session="bench", pid=os.getpid())
    bus.retire("plain")


def _recorded(bus: Bus) -> None:
    bus.trace_leave("recorded", bus.trace_enter("recorded", type="validation", session="bench"))


def _cycle(bus: Bus) -> None:
    bus.send("one", "one", "progress_update", {"progress": 1})
    (message,) = bus.receive("one")
    bus.ack(message.receipt or "")


def figures(run: Run) -> list[Figure]:
    """The reports over 100,000 records (fewer in a smaller run), and what recording costs a life of 1,000 messages."""
    records = min(RECORDS, run.scale.rows)
    taken = measure(records)
    more, cycle = recording(min(200, run.scale.count))
    reported = [
        Figure("reports", name, "full", value * 1000, "ms", target=LIMIT * 1000, least=False, note=f"{records} records")
        for name, value in taken.items()
    ]
    share = more / (1000 * cycle)
    return [
        *reported,
        Figure("recording", "1,000 messages", "normal", more * 1e6, "µs", "their W1", share, SHARE, least=False),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Print a table; 1 when a report takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--json", metavar="FILE", help="keep the figures, too")
    options = parser.parse_args(arguments)
    taken = measure(options.records)
    for name, value in taken.items():
        print(f"{name:<28} {value * 1000:8.1f} ms {'' if value <= LIMIT else '  too slow'}")
    if options.json:
        Path(options.json).write_text(json.dumps({"records": options.records, "seconds": taken}, indent=2) + "\n")
    return int(max(taken.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
