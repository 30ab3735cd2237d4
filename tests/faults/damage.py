"""The file is damaged, or is no bus at all, or lies where a bus must not lie.

Bits flip, pages are zeroed or swapped, the file or its WAL is cut short, the WAL is missing or is that of another bus,
somebody has planted tables, triggers and views, the file is another program's, it has two names, is a link, a pipe, a
folder, another user's. Then every operation either answers or is refused by an error of the bus, in time; what is
handed out is what was sent; the doctor sees what SQLite's own check sees; looking makes nothing worse.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import traceback
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from bus import Bus, envelopes
from bus.errors import BusError
from bus.store import files
from tests.faults import work
from tests.faults.invariants import Breach
from tests.faults.world import canonical

UNIT = "damaged files"
SIZES = {"quick": 200, "nightly": 5_000, "release": 50_000}
PATIENCE = 20  # seconds for all operations on one file
PAGE = 4096

Damage = Callable[[Path, random.Random], None]


def _edit(path: Path, change: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    if data:
        change(data)
        path.write_bytes(data)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def flips(path: Path, chance: random.Random) -> None:
    """Some bits of the file."""

    def change(data: bytearray) -> None:
        for _ in range(chance.choice((1, 3, 50))):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)

    _edit(chance.choice((path, _wal(path))), change)


def text_flips(path: Path, chance: random.Random) -> None:
    """A letter of some payloads."""

    def change(data: bytearray) -> None:
        places = [at for at in range(len(data)) if data[at : at + 8] == b'task_id"']
        for place in chance.sample(places, min(len(places), 20)):
            data[place + chance.randrange(12, 15)] ^= 1 << chance.randrange(6)

    _edit(chance.choice((path, _wal(path))), change)


def cut(path: Path, chance: random.Random) -> None:
    """The end is missing."""
    victim = chance.choice((path, _wal(path)))
    os.truncate(victim, chance.randrange(victim.stat().st_size + 1))


def zeroed(path: Path, chance: random.Random) -> None:
    """A page is zeroed, or stands where another should."""

    def change(data: bytearray) -> None:
        to, source = (PAGE * chance.randrange(max(len(data) // PAGE, 1)) for _ in range(2))
        page = bytes(PAGE) if chance.random() < 0.5 else bytes(data[source : source + PAGE])
        data[to : to + PAGE] = page[: len(data) - to]

    _edit(chance.choice((path, _wal(path))), change)


def without_wal(path: Path, chance: random.Random) -> None:
    """What was not yet copied into the file is gone."""
    _wal(path).unlink()


def with_anothers_wal(path: Path, chance: random.Random) -> None:
    """The WAL is that of another bus."""
    with work.folder() as folder:
        other = folder / "coordination.db"
        _make(other, chance)
        _wal(path).write_bytes(_wal(other).read_bytes())


def planted_by_hand(path: Path, chance: random.Random) -> None:
    """Somebody has changed the schema."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(chance.choice(PLANTED))


PLANTED = (
    "create trigger evil after insert on agent_messages begin delete from agent_state; end",
    "create trigger agent_messages_evil before update on agent_messages begin select raise(ignore); end",
    "drop view message_records; create view message_records as select 1 as id, '{}' as record",
    "drop trigger agent_messages_check",
    "drop table agent_state",
    "drop index agent_messages_ready",
    "create table stranger (a)",
    "pragma user_version = 99",
    "pragma application_id = 7",
    "pragma journal_mode = delete",
    "drop trigger agent_coordination_config_numbers;"
    "update agent_coordination_config set value = 'x' where key in ('lease_seconds', 'stale_after')",
    "drop trigger agent_coordination_config_kept;delete from agent_coordination_config",
    "delete from agent_registry",
    "pragma writable_schema = on; update sqlite_schema set sql = 'create table x' where name = 'agent_messages'",
)


def anothers(path: Path, chance: random.Random) -> None:
    """The file is not a bus."""
    _wal(path).unlink()
    path.unlink()
    kind = chance.choice(("text", "sqlite", "empty", "short"))
    if kind == "sqlite":
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("create table mine (a)")
            connection.commit()
    else:
        path.write_bytes({"text": b"hello\n" * 1000, "empty": b"", "short": b"SQLite format 3\0"}[kind])


def elsewhere(path: Path, chance: random.Random) -> None:
    """It lies where a bus must not lie, and is refused."""
    moved = path.with_name("moved.db")
    root = os.geteuid() == 0  # who may give files away, and read what is locked
    kind = chance.choice(("hard link", "symlink", "dangling", "pipe", "folder", "owner" if root else "mode"))
    if kind == "hard link":
        os.link(path, moved)
    elif kind == "owner":
        os.chown(path, 12345, -1)
    elif kind == "mode":
        os.chmod(path, 0)
    else:
        path.rename(moved)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(moved if kind == "symlink" else "nowhere.db")


DAMAGES: dict[Damage, int] = {
    flips: 6, text_flips: 4, cut: 4, zeroed: 4, without_wal: 1, with_anothers_wal: 2, planted_by_hand: 4, anothers: 2,
    elsewhere: 3,
}  # fmt: skip


def _make(path: Path, chance: random.Random) -> None:
    """A bus: all of it in the file, or some in the WAL, as a process that was killed leaves it."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        _wal(path).touch()
        return
    try:
        bus = Bus.open(str(path), create=True)
        bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
        last = chance.randint(5, 30)
        copied = chance.choice((3, last - 1))
        for number in range(last):
            if number == copied:
                bus.store.connection().checkpoint()
            bus.send(work.BOSS, chance.choice(("one", work.QUEUE)), "task_assignment", work.task(f"t-{number:03}"))
            bus.state_save("one", f"k{number}", "v" * chance.randrange(3000))
        bus.register("one", type=work.EXECUTOR, session=work.SESSION)
        work.do(bus, "one", bus.receive("one")[0], work.World())
        bus.receive("one")
        if chance.random() < 0.5:
            bus.close()
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


USES: tuple[Callable[[Bus], Any], ...] = (
    lambda bus: bus.status(),
    lambda bus: bus.doctor(),
    lambda bus: bus.messages(limit=1000),
    lambda bus: bus.dead(),
    lambda bus: bus.agents(),
    lambda bus: bus.pending("one"),
    lambda bus: bus.interrupted(),
    lambda bus: bus.recovery_plan(work.SESSION),
    lambda bus: bus.state_list("one"),
    lambda bus: bus.checkpoint_restore("one"),
    lambda bus: bus.register("new", type=work.EXECUTOR, session=work.SESSION),
    lambda bus: bus.send(work.BOSS, "one", "task_assignment", work.task("t-new")),
    lambda bus: bus.state_save("one", "new", "v"),
    lambda bus: bus.monitor_check(),
    lambda bus: bus.backup(f"{bus.url.path}.copy"),
)


def use(path: Path, refused: bool) -> None:
    """Everything that can be done with a bus; each thing answers, or is refused by an error of the bus."""
    with suppress(BusError), Bus.open(str(path)) as bus:
        if refused:
            raise Breach(["it was opened, where no bus must be"])
        for number, call in enumerate(USES):
            try:
                call(bus)
            except BusError:
                continue
            except Exception as problem:
                raise Breach([f"use {number} was answered by {problem!r}"]) from problem
        with suppress(BusError):
            while found := bus.receive("new") + bus.receive("one"):
                for message in found:
                    _as_sent(bytes(message.raw).decode())
                    bus.ack(message.receipt or "")


def _as_sent(payload: str) -> None:
    """Whether a payload that was handed out is one that was sent."""
    names = [f"t-{number:03}" for number in range(30)] + ["t-new"]
    sent = {canonical(work.task(name)) for name in names}
    sent |= {canonical({"task_id": f"done-{name}", "success": True}) for name in names}
    if canonical(payload) not in sent:
        raise Breach([f"a payload was handed out that nobody sent: {payload[:100]}"])


def look(path: Path) -> None:
    """The doctor sees what SQLite sees, and looking changes nothing."""
    if not path.is_file() or path.is_symlink():
        return
    before = path.read_bytes()
    verdict = "ok"
    try:
        with Bus.open(str(path), read_only=True) as bus:
            verdict = next(finding.verdict for finding in bus.doctor() if finding.subject == "file")
            with suppress(BusError):
                bus.recovery_plan(work.SESSION)
    except BusError:
        verdict = "refused"
    if path.read_bytes() != before:
        raise Breach(["looking at the bus changed it"])
    if verdict == "ok" and (told := _integrity(path)) != "ok":
        raise Breach([f"the doctor found nothing, SQLite says: {told}"])


def _integrity(path: Path) -> str:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return str(connection.execute("pragma quick_check(1)").fetchone()[0])
    except sqlite3.Error as problem:
        return str(problem)


def suffer(seed: int) -> str:
    """One damaged file, looked at and used in a process of its own."""
    chance = random.Random(seed)
    (damage,) = chance.choices(list(DAMAGES), list(DAMAGES.values()))
    with work.folder() as folder:
        path = folder / "coordination.db"
        _make(path, chance)
        damage(path, chance)
        pid = os.fork()
        if not pid:
            _child(path, damage is elsewhere)
        _, status = os.waitpid(pid, 0)
        failure = path.with_name("failure")
        told = failure.read_text("utf-8") if failure.exists() else ""
        if status:
            raise Breach([f"damage 1 --seed {seed}, {damage.__name__}: {told or f'it died of status {status}'}"])
        return damage.__name__


def _child(path: Path, refused: bool) -> None:
    status = 1
    try:
        signal.alarm(PATIENCE)
        look(path)
        use(path, refused)
        status = 0
    except BaseException as problem:
        text = problem.lines[0] if isinstance(problem, Breach) else traceback.format_exc()
        path.with_name("failure").write_text(text, "utf-8", "replace")
    finally:
        os._exit(status)


def run(size: int, seed: int) -> str:
    """So many damaged files."""
    work.warm()
    with work.made_at_once():
        seen = [suffer(number) for number in range(seed, seed + size)]
    return ", ".join(f"{damage.__name__} {seen.count(damage.__name__)}" for damage in DAMAGES)


def a_file_with_two_names(seed: int) -> None:
    """Planted: nobody looks what kind of file it is."""
    with mock.patch.object(files, "check"), mock.patch.dict(DAMAGES, {elsewhere: 1}, clear=True):
        run(60, seed)


def errors_of_the_library(seed: int) -> None:
    """Planted: SQLite's errors are not turned into the bus's."""
    with (
        mock.patch("bus.store.sqlite.border", return_value=nullcontext()),
        mock.patch.dict(DAMAGES, {zeroed: 1, cut: 1}, clear=True),
    ):
        run(60, seed)


def payloads_that_nobody_compares(seed: int) -> None:
    """Planted: the digest of a payload is not looked at."""
    with (
        mock.patch.object(envelopes, "intact", return_value=True),
        mock.patch.dict(DAMAGES, {text_flips: 1}, clear=True),
    ):
        run(60, seed)


CONTROLS = (a_file_with_two_names, errors_of_the_library, payloads_that_nobody_compares)
