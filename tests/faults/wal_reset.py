"""Checkpoints that race with commits, on a SQLite that can lose rows to that (sqlite.org/wal.html#walresetbug).

A checkpointer reads how many frames the WAL has; before it looks at how many of them were copied already, a writer
finds all of them copied, and begins the WAL anew; the checkpointer, with the old number, notes as copied what nobody
has written yet; and a later checkpoint leaves that out. Between the two looks is one system call: a connection with
memory-mapped I/O drops its map there. The shim (shim.c) sleeps in it, so that the race is met many times a second.

The bus checkpoints with the write lock held, and must lose nothing even so; the same without the lock must lose rows.
Half the writers take no turns, as shells and a sqlite3 prompt do: the lock alone protects them.
"""

from __future__ import annotations

import random
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from bus import Bus
from bus.errors import BusError
from bus.store import facts, sqlite
from bus.store.sqlite import Connection
from tests.faults import invariants, work
from tests.faults.crew import Crew
from tests.faults.invariants import Breach
from tests.faults.system_calls import BROKEN, Shim, shimmed
from tests.faults.world import Journal, World

UNIT = "seconds"
SIZES = {"quick": 5, "nightly": 600, "release": 3600}
ROUND = 30.0  # seconds on one file
WINDOW = 0.008  # seconds for which a checkpointer sleeps
WRITERS = 2
CHECKPOINTERS = 2
AFFECTED = facts._library()[1] != "ok"


Tidy = Callable[[Bus, "Sleepy"], None]


class Place(NamedTuple):
    """Where the processes are, until when."""

    folder: Path
    end: float

    @property
    def url(self) -> str:
        return str(self.folder / "coordination.db")

    def over(self) -> bool:
        return time.monotonic() > self.end


def writer(here: Place, name: str, seed: int, turns: bool) -> None:
    """Write until the end, or until the bus refuses, as it does when what was there is not there any more."""
    try:
        _writing(here, name, seed, turns)
    except BusError as problem:
        (here.folder / f"{name}.refused").write_text(f"{name} was told: {problem}", "utf-8")


def _writing(here: Place, name: str, seed: int, turns: bool) -> None:
    """Send in bursts, with pauses in which a checkpoint can copy all there is; sometimes take some."""
    journal, chance = Journal(here.folder / f"{name}.journal"), random.Random(seed)
    number = 0
    with Bus.open(here.url) as bus:
        if not turns:
            _without_turns(bus.store.connection())
        bus.register(name, type=work.EXECUTOR, session=work.SESSION)
        while not here.over():
            for _ in range(chance.choice((1, 1, 2, 8, 20))):
                number += 1
                payload = {"task_id": f"{name}-{number}", "message": "x" * chance.choice((10, 3000))}
                journal.intend(payload["task_id"], payload)
                journal.confirm(bus.send(name, name, "progress_update", payload), payload["task_id"])
            if chance.random() < 0.3:
                for message in bus.receive(name, limit=5, lease=3600.0):
                    journal.take(message.receipt)
                    bus.ack(message.receipt or "")
                    journal.acknowledge(message.receipt)
            time.sleep(chance.random() * 0.01)


def _without_turns(connection: Connection) -> None:
    if connection._turnstile:
        connection._turnstile.close()
    connection._turnstile = None


class Sleepy:
    """A bus's connection, with memory-mapped I/O, that sleeps inside of its checkpoints."""

    def __init__(self, connection: Connection) -> None:
        self._sqlite = connection.sqlite
        self._execute = connection.execute
        connection.execute = self.execute  # type: ignore[assignment]  # a stand-in
        self._shim = Shim()
        self.late = 0
        self._sqlite.execute("pragma mmap_size = 268435456").fetchall()
        self._look()

    def _look(self) -> None:
        """Read what no writer changes, through the map."""
        self._sqlite.execute("select count(*), max(description) from message_types").fetchall()

    def execute(self, text: str, *parameters: Any) -> Any:
        """Run a statement; a checkpoint slowly."""
        if not text.startswith("pragma wal_checkpoint"):
            return self._execute(text, *parameters)
        self._shim.delay(WINDOW)
        begun = time.monotonic()
        try:
            return self._execute(text)
        finally:
            self._shim.delay(0)
            self.late += time.monotonic() - begun >= WINDOW
            self._look()


def checkpointer(here: Place, name: str, seed: int, tidy: Tidy) -> None:
    """Checkpoint as the monitor does, again and again."""
    chance = random.Random(seed)
    with Bus.open(here.url) as bus:
        sleepy = Sleepy(bus.store.connection())
        while not here.over():
            tidy(bus, sleepy)
            time.sleep(chance.random() * 0.003)
    (here.folder / f"{name}.late").write_text(str(sleepy.late), "ascii")


def guarded(bus: Bus, sleepy: Sleepy) -> None:
    """As the monitor does."""
    bus.store.connection().tidy()


def unguarded(bus: Bus, sleepy: Sleepy) -> None:
    """As programs do that know nothing of this."""
    sleepy.execute("pragma wal_checkpoint(passive)").fetchall()


def _unreadable(path: str, world: World) -> int:
    """How many confirmed messages a plain reader of the table does not get to see."""
    seen = set()
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error):
        for (id,) in connection.execute("select id from agent_messages not indexed"):
            seen.add(id)
    return len(world.sent.keys() - seen)


def race(seconds: float, seed: int, tidy: Tidy) -> tuple[int, int]:
    """One file, verified: how many messages were sent, and how many checkpoints slept in the window."""
    work.warm()
    with work.folder() as folder:
        here = Place(folder, time.monotonic() + seconds)
        with Bus.open(here.url, create=True) as bus:
            invariants.watch(bus)
        crew, chance = Crew(folder), random.Random(seed)
        for number in range(WRITERS):
            name, turns = f"writer-{number}", number % 2 == 0
            crew.begin(name, partial(writer, here, name, chance.getrandbits(32), turns))
        for number in range(CHECKPOINTERS):
            name = f"checkpointer-{number}"
            crew.begin(name, partial(checkpointer, here, name, chance.getrandbits(32), tidy))
        crew.finish(seconds + 30)
        world = World.read(sorted(folder.glob("*.journal")))
        lines = [path.read_text("utf-8") for path in sorted(folder.glob("*.refused"))]
        try:
            invariants.verify(here.url, world)
        except Breach as breach:
            lines += breach.lines
        if lines:
            raise Breach([f"{_unreadable(here.url, world)} of {len(world.sent)} messages can't be read", *lines])
        return len(world.sent), sum(int(path.read_text("ascii")) for path in folder.glob("*.late"))


def run(size: int, seed: int) -> str:
    """So many seconds."""
    return shimmed("wal_reset", str(size), str(seed))


def a_checkpoint_without_turn_and_lock(seed: int) -> None:
    """Planted: checkpoints happen as they do in programs that know nothing of the bug."""
    shimmed("wal_reset", "3", str(seed), "unguarded")


def a_checkpoint_without_the_write_lock(seed: int) -> None:
    """Planted: who checkpoints has the turn to write, but not the write lock."""
    shimmed("wal_reset", "3", str(seed), "unlocked")


def a_row_that_goes_away(seed: int) -> None:
    """Planted: somebody removes a message."""
    shimmed("wal_reset", "1", str(seed), "removing")


def removing(bus: Bus, sleepy: Sleepy) -> None:
    guarded(bus, sleepy)
    with invariants.reading(bus) as connection:
        connection.execute("delete from agent_messages where id = 7 and id < (select max(id) from agent_messages)")


def unlocked(bus: Bus, sleepy: Sleepy) -> None:
    with mock.patch.object(sqlite, "_bare", return_value=sqlite3.connect(":memory:")):  # the guard locks another file
        guarded(bus, sleepy)


RACES = (a_checkpoint_without_turn_and_lock, a_checkpoint_without_the_write_lock)
CONTROLS = (a_row_that_goes_away, *(RACES if AFFECTED else ()))
TIDY = {"": guarded, "unguarded": unguarded, "unlocked": unlocked, "removing": removing}


def main(size: int, seed: int, defect: str = "") -> None:
    """In the process that has the shim."""
    sent = late = 0
    rounds = max(1, round(size / ROUND))
    for number in range(seed, seed + rounds):
        try:
            more, slept = race(size / rounds, number, TIDY[defect])
        except Breach as breach:
            raise Breach([f"wal_reset {round(size / rounds)} --seed {number}: {breach}"]) from breach
        sent, late = sent + more, late + slept
    if not late:
        raise RuntimeError("no checkpoint slept between its two looks: the race was not met")
    library = f"SQLite {sqlite3.sqlite_version}, {'affected' if AFFECTED else 'not affected'}"
    print(f"{library}: {sent} messages, {late} checkpoints slept in the window")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    except Breach as found:
        print(found.lines[0], file=sys.stderr)
        sys.exit(BROKEN)
