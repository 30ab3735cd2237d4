"""The power is cut at every write of a scenario that uses every operation.

The shim (shim.c) records each write, truncation and sync of a process on the bus's files, and between them what was
confirmed to it. From every prefix of that record disks are made as a cut could leave them: all that was not synced is
there, none of it is, or a random part of it, torn at sectors. On each the bus must open by itself, and hold what had
been confirmed by then, every step whole.
"""

from __future__ import annotations

import json
import os
import random
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from bus import Bus
from bus.store import sqlite
from bus.store.sqlite_transaction import Transaction
from tests.faults import everything, invariants, work
from tests.faults.invariants import Breach
from tests.faults.model import Door
from tests.faults.system_calls import BEYOND, Shim, live, scene, shimmed
from tests.faults.world import World

UNIT = "disks a write"
SIZES = {"quick": 3, "nightly": 20, "release": 200}
SECTOR = 512
HEAD = struct.Struct("=cbqq")  # operation, file, offset, length; as in shim.c
SUFFIXES = {1: "", 2: "-wal", 4: "-journal"}  # -shm is memory: it does not outlive the power
SLICES = 8  # parts of the record that are judged side by side


class Entry(NamedTuple):
    """One line of the record: W write, T truncate, S sync, U unlink, C create, M mark."""

    what: str
    file: int
    offset: int
    length: int
    data: bytes


def recorded(path: Path) -> Iterator[Entry]:
    """The record that the shim wrote."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        what, file, offset, length = HEAD.unpack_from(data, at)
        at += HEAD.size
        content = data[at : at + length] if what in b"WM" else b""
        at += len(content)
        yield Entry(what.decode(), file, offset, length, content)


class Disk:
    """One file: what is safe on the disk, and what was written since."""

    def __init__(self, safe: bytes | None) -> None:
        self.safe = safe
        self.pending: list[Entry] = []

    def take(self, entry: Entry) -> None:
        if entry.what == "S":
            self.safe, self.pending = self.after(self.pending), []
        else:
            self.pending.append(entry)

    def after(self, entries: list[Entry]) -> bytes | None:
        """The content when these of the pending entries got to the disk; None: no file."""
        content = None if self.safe is None else bytearray(self.safe)
        for entry in entries:
            if entry.what == "U":
                content = None
                continue
            if content is None:
                content = bytearray()
            if entry.what == "T":
                content = content[: entry.length].ljust(entry.length, b"\0")
            if entry.what == "W":
                if len(content) < entry.offset:
                    content.extend(bytes(entry.offset - len(content)))
                content[entry.offset : entry.offset + len(entry.data)] = entry.data
        return None if content is None else bytes(content)

    def cut(self, chance: random.Random | None, kept: bool) -> bytes | None:
        """The content after a cut: all pending kept or lost, or, by chance, some of it, and of a write some sectors."""
        if chance is None:
            return self.after(self.pending if kept else [])
        survivors = []
        for entry in self.pending:
            if entry.what == "W":
                survivors += [sector for sector in _sectors(entry) if chance.random() < 0.5]
            elif chance.random() < 0.5:
                survivors.append(entry)
        return self.after(survivors)


def _sectors(entry: Entry) -> Iterator[Entry]:
    at = 0
    while at < len(entry.data):
        end = min(len(entry.data), at + SECTOR - (entry.offset + at) % SECTOR)
        yield Entry("W", entry.file, entry.offset + at, end - at, entry.data[at:end])
        at = end


class Marked(World):
    """A world that is written into the record, between the writes."""

    def __init__(self, shim: Shim) -> None:
        super().__init__()
        self._shim = shim

    def note(self, what: str, *facts: Any) -> None:
        self._shim.mark(json.dumps([what, *facts]))


def record(log: Path, defect: str) -> None:
    """In a process that has the shim: the scenario, recorded."""
    if defect == "unsynced":
        BEYOND.clear()  # it shows soon
        configure = sqlite._configure

        def careless(connection: Any, url: Any) -> None:
            configure(connection, url)
            connection.execute("pragma synchronous = off")

        sqlite._configure = careless
    shim, used = Shim(), set[Any]()
    with scene() as path, noted(used):
        log.with_name("template").write_bytes(Path(path).read_bytes())
        shim.path(path)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
        shim.record(descriptor)
        world = Marked(shim)
        live(Door(path), world, lambda: None, lambda name: None)
        with Bus.open(path) as bus:
            bus.store.connection().tidy()  # a checkpoint, whatever the size of the WAL
            everything.a_step(bus, world)
            everything.several_receipts(bus, world)
    if not defect and (unused := everything.missing(used)):
        raise RuntimeError(f"the scenario leaves out {', '.join(unused)}")


@contextmanager
def noted(used: set[Any]) -> Iterator[None]:
    """Note which operations are run."""
    query, change = Transaction.query, Transaction.change

    def noting(self: Transaction, asked: Any) -> Any:
        used.add(asked.name)
        return query(self, asked)

    def noting_change(self: Transaction, asked: Any) -> Any:
        used.add(asked.name)
        return change(self, asked)

    with mock.patch.multiple(Transaction, query=noting, change=noting_change):
        yield


def judge(log: Path, part: int, size: int, seed: int) -> int:
    """Cut the power at each write of a part of the record; raises `Breach`."""
    world, disks = World(), {1: Disk(log.with_name("template").read_bytes()), 2: Disk(None), 4: Disk(None)}
    entries = list(recorded(log))
    first, last = len(entries) * part // SLICES, len(entries) * (part + 1) // SLICES
    made, judged = 0, set[tuple[Any, ...]]()
    marks = 0
    for number, entry in enumerate(entries[:last]):
        if entry.what == "M":
            world.note(*json.loads(entry.data))
            marks += 1
        elif entry.file in disks:
            disks[entry.file].take(entry)
        if number < first or entry.what not in "WTSU":
            continue
        for variant in range(size):
            chance = random.Random(f"{seed} {number} {variant}") if variant > 1 else None
            content = {file: disk.cut(chance, variant == 0) for file, disk in disks.items()}
            how = (
                "none of it lost" if variant == 0 else "all unsynced lost" if variant == 1 else f"part lost, {variant}"
            )
            made += 1
            same = (marks, *content.values())
            if same in judged:
                continue  # this very disk was judged, at a time when the same had been confirmed
            judged.add(same)
            try:
                _boot(content, world, len(judged))
            except Breach as breach:
                raise Breach(
                    [f"power {size} --seed {seed}, at entry {number} ({entry.what}), {how}: {breach}"]
                ) from breach
    return made


def _boot(content: dict[int, bytes | None], world: World, number: int) -> None:
    """Judge a disk; every other one is recovered as well, every fifth drained. What the judge does is not noted in the
    world, which goes on."""
    with work.folder() as folder:
        path = folder / "coordination.db"
        for file, data in content.items():
            if data is not None:
                place = folder / f"coordination.db{SUFFIXES[file]}"
                os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o600))
                place.write_bytes(data)
        recovery = invariants.recover if number % 2 else None
        invariants.verify(str(path), world.copy(), recovery=recovery, drains=number % 5 == 0)


def run(size: int, seed: int) -> str:
    """So many disks at each write."""
    return cut(size, seed, "")


def cut(size: int, seed: int, defect: str) -> str:
    """Record the scenario, and judge its parts side by side."""
    with work.folder() as folder:
        log = folder / "log"
        shimmed("power", str(log), defect)
        with ProcessPoolExecutor(min(os.cpu_count() or 1, SLICES)) as pool:
            made = sum(pool.map(judge, repeat(log), range(SLICES), repeat(size), repeat(seed)))
        writes = sum(entry.what in "WTSU" for entry in recorded(log))
        return f"{made} disks, from {writes} writes and syncs of all {len(everything.writing())} operations that write"


def commits_that_are_not_synced(seed: int) -> None:
    """Planted: `pragma synchronous = off`."""
    cut(2, seed, "unsynced")


CONTROLS = (commits_that_are_not_synced,)

if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2])
