"""Bad input at every field of every door: kept byte for byte, or refused in one clear line with nothing changed.

First the corpus (tests/faults/corpus.py), then rows written by hand (tests/faults/by_hand.py), then, until time is
over, inputs that hypothesis makes up, from grammars and by changing the corpus. After each input a digest of all tables
tells what changed: nothing, when it was refused; else the one row it was about. Whether an input is to be refused is
told by oracles that share no code with the bus. All doors must agree.
"""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import strategies as st

from bus import Bus, inputs
from bus.store import sqlite as store
from tests.faults import attempts, bad_input_postgres, by_hand, corpus, planted
from tests.faults.attempts import FAST, FIELDS, SLOW, Answer, Field, Library
from tests.faults.corpus import Value
from tests.faults.invariants import Breach

UNIT = "seconds"
SIZES = {"quick": 10, "nightly": 3600, "release": 8 * 3600}
LONG = 60  # seconds from which PostgreSQL is tried, too
REFUSALS = (64, 65, 66, 76)
LONGEST = 600  # characters of a refusal
EXAMPLES = 40  # inputs that hypothesis makes up in a round
BEATS = {"last_heartbeat", "last_activity", "agent_count"}
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")

Dump = dict[str, Counter[tuple[Any, ...]]]


class Scene:
    """A bus with one message of each kind, which is as it was after each input that was refused, and is made anew after
    one that was not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _furnish(str(path))
        self.template = path.read_bytes()
        self.doors: list[Library] = []
        self._open()

    def _open(self) -> None:
        self.reader = sqlite3.connect(self.path, isolation_level=None)
        self.reader.execute("pragma wal_autocheckpoint = 0")
        self.reader.text_factory = bytes
        self.tables = {
            name.decode(): [row[1].decode() for row in self.reader.execute(f'pragma table_info("{name.decode()}")')]
            for (name,) in self.reader.execute("select name from sqlite_schema where type = 'table'")
        } | {"sqlite_schema": ["type", "name", "sql"]}

    def close(self) -> None:
        for door in self.doors:
            door.close()
        self.reader.close()

    def reset(self) -> None:
        """The bus as it was at the beginning."""
        self.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        self.path.write_bytes(self.template)
        self._open()

    def dump(self) -> Dump:
        """All that the bus holds, and its schema."""
        self.reader.execute("begin")
        try:
            return {
                table: Counter(self.reader.execute(f'select {", ".join(columns)} from "{table}"'))
                for table, columns in self.tables.items()
            }
        finally:
            self.reader.execute("rollback")

    def stored(self, query: str, value: str | None) -> bytes | None:
        """What stands where an input was to be kept."""
        row = self.reader.execute(query, {"value": value} if ":value" in query else {}).fetchone()
        return row[0] if row is None or isinstance(row[0], bytes | None) else str(row[0]).encode()


def _furnish(path: str) -> None:
    with Bus.open(path, create=True) as bus:
        bus.types_add("message", "note")
        bus.register("boss", type="milestone-coordinator", session="s")
        bus.register("one", type="milestone-executor", session="s")
        for _ in range(3):
            bus.send("boss", "one", "note", {})
        held = [message.receipt or "" for message in bus.receive("one", limit=3, lease="30d")]
        bus.release([held[1]], delay="20d")
        bus.reject([held[2]], reason="no")
        bus.state_save("one", "k", "v")
        bus.checkpoint_create("one", {})


@contextmanager
def scene() -> Iterator[Scene]:
    """A scene in a folder of its own."""
    with attempts.folder() as folder:
        made = Scene(folder / "coordination.db")
        try:
            yield made
        finally:
            made.close()
            for door in made.doors:
                door.end()


def judge(place: Scene, door: Library, field: Field, value: Value) -> bool:
    """Give an input at a door; whether it was accepted. Raises `Breach`."""
    before = place.dump()
    try:
        answer = door.attempt(field, value)
        after = place.dump()
        text = corpus.text_of(value)
        fits = (False if isinstance(value, str | bytes) else None) if text is None else field.fits(text)
        if answer.status in REFUSALS:
            _refused(answer, before, after, fits)
            return False
        if answer.status not in (0, 1):
            raise Breach([f"its exit status was {answer.status}: {answer.words[:300]}"])
        _accepted(place, field, value, before, after, fits)
    except Breach as breach:
        raise Breach([f"{door.name}, {field.name} = {_shown(value)}: {breach.lines[0]}"]) from breach
    if after != before:
        place.reset()
    return True


def _refused(answer: Answer, before: Dump, after: Dump, fits: bool | None) -> None:
    line = answer.words.removesuffix("\n")
    if fits:
        raise Breach([f"it was refused: {line[:300]}"])
    if after != before:
        raise Breach([f"it was refused, and changed {_changed(before, after)}"])
    if not line or len(line) > LONGEST or (line.startswith("bus: ") and UNSAFE.search(line)):
        raise Breach([f"it was refused by {line[:LONGEST]!r}, {len(line)} characters"])


def _accepted(place: Scene, field: Field, value: Value, before: Dump, after: Dump, fits: bool | None) -> None:
    if fits is False:
        raise Breach(["it was accepted"])
    for table in _changed(before, after):
        beats = [number for number, name in enumerate(place.tables[table]) if name in BEATS]
        gone, came = _without(before[table] - after[table], beats), _without(after[table] - before[table], beats)
        if (gone or came) and gone != came and (table not in field.changes or max(len(gone), len(came)) > 1):
            raise Breach([f"it changed {len(gone)} and added {len(came)} rows of {table}"])
    if field.stored and isinstance(value, str | bytes):
        text = corpus.text_of(value)
        kept = place.stored(field.stored, text)
        number = re.fullmatch(rb"-?[0-9]+", kept or b"") and field.like == "number"
        if kept != (text or "").encode() and not number and not (kept is None and not value):
            raise Breach([f"it was accepted, and {_shown(kept)} was kept"])


def _changed(before: Dump, after: Dump) -> list[str]:
    return [table for table in before | after if before.get(table) != after.get(table)]


def _without(rows: Counter[tuple[Any, ...]], places: Sequence[int]) -> list[tuple[Any, ...]]:
    found = (tuple(part for number, part in enumerate(row) if number not in places) for row in rows.elements())
    return sorted(found, key=repr)


def _shown(value: Value) -> str:
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:120]}… ({len(value)} long)"


# --- the corpus, and what lies beyond it


def everywhere(place: Scene, doors: Iterable[Library], field: Field, value: Value) -> int:
    """Give an input at all doors that can take it; all must agree whether it fits. How many took it."""
    if field.name == "recipient" and value == "*":
        return 0  # a broadcast at some doors
    accepted = {door.name: judge(place, door, field, value) for door in doors if door.takes(field, value)}
    if len(set(accepted.values())) > 1 and isinstance(value, str | bytes) and not _spelt_otherwise(field, value):
        raise Breach([f"{field.name} = {_shown(value)}: the doors differ: {accepted}"])
    return len(accepted)


def _spelt_otherwise(field: Field, value: Value) -> bool:
    """Where a command means something else by an input, or reads a number more leniently than a library."""
    return not value or field.like in ("number", "duration", "line") or value in ("-", b"-")


def recite(place: Scene, doors: Sequence[Library], chance: random.Random | None = None, share: float = 1) -> int:
    """The corpus, or a share of it, at these doors."""
    count = 0
    for field in FIELDS:
        objects = corpus.OBJECTS if any(not isinstance(door, attempts.CommandLine) for door in doors) else ()
        for value in (*corpus.CORPUS[field.like], *objects):
            if chance is None or chance.random() < share:
                count += everywhere(place, doors, field, value)
    return count


def invent(place: Scene, doors: Sequence[Library], seed: int, examples: int = EXAMPLES) -> int:
    """Inputs that hypothesis makes up; one that fails is made small."""
    count = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples, database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck),
        phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
    )  # fmt: skip
    @hypothesis.given(st.sampled_from(FIELDS).flatmap(lambda f: st.tuples(st.just(f), corpus.inputs(f.like))))
    def attempt(given: tuple[Field, Value]) -> None:
        nonlocal count
        try:
            count += everywhere(place, doors, *given)
        except Breach:
            place.reset()
            raise

    attempt()
    return count


def run(size: int, seed: int) -> str:
    """For so many seconds, at least one round of each."""
    end = time.monotonic() + size
    seen: Counter[str] = Counter()
    with scene() as place:
        fast, slow = ([kind(place.path) for kind in kinds] for kinds in (FAST, SLOW))
        place.doors = [*fast, *slow]
        chance = random.Random(seed)
        seen["of the corpus"] += recite(place, fast, chance, size / 250)
        seen["of the corpus"] += recite(place, slow, chance, size / 8000)
        seen["rows by hand"] += by_hand.run(place, fast[2], chance, size / 3000)
        if size >= LONG:
            seen["on PostgreSQL"] += bad_input_postgres.run(_furnish, chance, size / 300)
        while not seen["rounds"] or time.monotonic() < end:
            number = seed + seen["rounds"]
            try:
                seen["made up"] += invent(place, fast, number)
                if number % 5 == 0:
                    seen["made up"] += invent(place, slow, number, 2)
            except Breach as breach:
                raise Breach([f"bad_input 1 --seed {number}: {breach.lines[0]}"]) from breach
            seen["rounds"] += 1
    return ", ".join(f"{count:,} {what}" for what, count in seen.items())


# --- planted defects


def _with_defect(*doors: type[Library], fields: tuple[str, ...]) -> None:
    chosen = tuple(field for field in FIELDS if field.name in fields)
    with scene() as place, mock.patch(f"{__name__}.FIELDS", chosen):
        place.doors = [kind(place.path) for kind in doors]
        recite(place, place.doors)


def a_depth_that_nobody_counts(seed: int) -> None:
    """Planted: JSON may be nested as deep as it likes."""
    with mock.patch.object(inputs, "_depth", return_value=0):
        _with_defect(Library, fields=("payload",))


def a_key_that_may_stand_twice(seed: int) -> None:
    """Planted: the database does not look for duplicate keys in payloads."""
    twice = "json_tree(new.payload) where key is not null group by parent, key having count(*) > "
    with planted.planted({"sqlite/0001_core.sql": (f"{twice}1", f"{twice}9")}):
        _with_defect(attempts.CommandLine, fields=("payload",))


def a_refusal_that_leaves_something(seed: int) -> None:
    """Planted: what was done before a refusal is committed."""

    def commit(self: store.Connection) -> None:
        if self.sqlite.in_transaction:
            self.sqlite.execute("commit")

    with mock.patch.object(store.Connection, "_rollback", commit):
        _with_defect(Library, fields=("agent", "agent type", "step", "receipt"))


def an_exception_of_the_driver(seed: int) -> None:
    """Planted: nobody looks whether text can be written, and what the driver can't encode is not translated."""
    unseen = mock.patch.object(inputs, "_writable", lambda given, *_: given)
    with unseen, mock.patch.object(store, "_DRIVER_ERRORS", (sqlite3.Error,)):
        _with_defect(Library, fields=("agent", "recipient"))


def words_that_move_the_cursor(seed: int) -> None:
    """Planted: refusals are printed as they are, control characters and all."""
    with mock.patch("bus_cli.output.safe", str):
        _with_defect(attempts.CommandLine, fields=("status", "message type", "recipient", "agent type", "state file"))


CONTROLS = (
    a_depth_that_nobody_counts, a_key_that_may_stand_twice, a_refusal_that_leaves_something, an_exception_of_the_driver,
    words_that_move_the_cursor,
)  # fmt: skip
