"""A bus that is made or upgraded while something goes wrong: kills, failing system calls, others, other versions.

Files of every version there was are made from the numbered migrations, with rows in every table. Each is opened under
the shim of `system_calls`, which lets the process die, or a call fail, at one system call after the other; by several
processes at once, some of which know fewer migrations; and on PostgreSQL the server's process ends itself after one
statement of the migration after the other. Afterwards the bus opens without a manual step, has the very schema of a new
one, and the rows it had. A file of a newer version is refused, and left as it is.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import re
import signal
import sqlite3
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg

from bus import Bus, copying, schemas
from bus.errors import BusError
from bus.store import sqlite_schema
from tests import servers
from tests.faults import attempts, system_calls, work
from tests.faults.invariants import Breach
from tests.faults.system_calls import KINDS, Shim

UNIT = "faults"
SIZES = {"quick": 60, "nightly": 20_000, "release": 100_000}
NEWEST = len(schemas.migrations("sqlite"))
STARTS = ("nothing", "empty file", *(f"version {number}" for number in range(1, NEWEST)))
CROWD = 5  # processes that open a bus at once
PATIENCE = 60  # seconds
NO_BUS = 66  # the exit status for what is no bus of this version
ADDS_TO = ("agent_coordination_config", "message_types")  # tables into which a migration inserts, beside those it makes

Rows = dict[str, Counter[tuple[tuple[str, Any], ...]]]  # of each table, column and value
original = schemas.migrations


@contextmanager
def knowing(number: int) -> Iterator[None]:
    """As a program that knows so many migrations only."""
    with mock.patch.object(schemas, "migrations", lambda dialect: original(dialect)[:number]):
        yield


# --- buses of old versions


@functools.cache
def _furnished() -> dict[str, list[dict[str, Any]]]:
    """Rows of every table, made by a bus of this version; not those with which it begins."""
    with work.folder() as folder:
        Bus.open(f"{folder}/new.db", create=True).close()
        with closing(sqlite3.connect(f"{folder}/new.db")) as connection:
            begins = {table: {row[0][1] for row in _rows_of(connection, table)} for table in copying.TABLES}
        with Bus.open(f"{folder}/bus.db", create=True) as bus:
            bus.types_add("message", "note", schema={"properties": {"n": {"type": "integer"}}})
            bus.types_add("state", "mine")
            bus.register("boss", type="milestone-coordinator", session="s", milestone="m", capabilities=["a", "“b”"])
            bus.register("one", type="milestone-executor", session="s", pid=os.getpid(), command="true")
            for number in range(6):
                bus.send("boss", "one", "note", work.task(f"t{number}"), priority=1 + number)
            for number, message in enumerate(bus.receive("one", limit=4, lease="1d")):
                (bus.ack, bus.release, lambda receipt: bus.reject(receipt, reason="no"), len)[number](message.receipt)
            bus.send("boss", "@milestone-executor", "note", {"n": 5}, delay="1h", key="k")
            bus.state_save("one", "k", "v\r\n“”", ttl="1d")
            bus.checkpoint_create("one", {"at": 1}, files=[__file__])
            bus.session_progress("s", 40, phase="p")
            bus.trace_spawn("t", "x", pid=1, command="c")
        with closing(sqlite3.connect(f"{folder}/bus.db")) as connection:
            connection.execute("insert into milestones (id, title) values ('m', 'Milestone')")
            connection.execute("insert into agent_health_log (agent_id, health_status) values ('one', 'healthy')")
            connection.execute("insert into trace_exports (target) values ('x')")
            connection.execute("insert into trace_exports_pending (target, kind, id) values ('x', 'life', 1)")
            return {
                table: [dict(row) for row in _rows_of(connection, table) if row[0][1] not in begins[table]]
                for table in copying.TABLES
            }


def _rows_of(connection: sqlite3.Connection, table: str) -> Iterator[list[tuple[str, Any]]]:
    cursor = connection.execute(f"select * from {table}")
    names = [column[0] for column in cursor.description]
    for row in cursor.fetchall():
        yield [(name, value) for name, value in zip(names, row, strict=True) if name != "mailbox"]


@functools.cache
def old(number: int) -> bytes:
    """A file of that version, with rows in every table it has."""
    with work.folder() as folder:
        path = f"{folder}/bus.db"
        with knowing(number):
            Bus.open(path, create=True).close()
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for table, rows in _furnished().items():
                known = [name for _, name, *_ in connection.execute(f"pragma table_info({table})")]
                for row in rows if known else ():
                    values = {name: value for name, value in row.items() if name in known}
                    marks = ", ".join("?" * len(values))
                    connection.execute(
                        f"insert or ignore into {table} ({', '.join(values)}) values ({marks})", list(values.values())
                    )
            connection.execute("pragma wal_checkpoint(truncate)").fetchall()
        return Path(path).read_bytes()


def place(path: Path, start: str) -> None:
    """What is there before the bus is opened."""
    if start == "nothing":
        return
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    if start != "empty file":
        path.write_bytes(old(int(start.rpartition(" ")[2])))


# --- what must be true afterwards


def contents(path: Path) -> Rows:
    """All rows, by column; none where there is no bus yet."""
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as connection:
        there = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
        return {table: Counter(map(tuple, _rows_of(connection, table))) for table in copying.TABLES if table in there}


@functools.cache
def schema_of_a_new_one() -> set[tuple[str, str, str]]:
    """The schema of a bus that was made in peace."""
    with work.folder() as folder:
        Bus.open(f"{folder}/bus.db", create=True).close()
        return _schema(Path(f"{folder}/bus.db"))


def _schema(path: Path) -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("select type, name, coalesce(sql, '') from sqlite_schema"))


def whole(path: Path, before: Rows) -> None:
    """It opens, is of this version, is the same as a new one, and has the rows it had; and it works."""
    try:
        with Bus.open(str(path), create=True) as bus:
            _works(bus)
    except BusError as problem:
        raise Breach([f"it can't be used: {problem.code} {problem}"]) from problem
    if differing := _schema(path) ^ schema_of_a_new_one():
        raise Breach([f"its schema is another: {sorted(name for _, name, _ in differing)[:5]}"])
    with closing(sqlite3.connect(path)) as connection:
        told = connection.execute("pragma integrity_check(1)").fetchone()[0]
        (version,) = connection.execute("pragma user_version").fetchone()
    if told != "ok" or version != NEWEST:
        raise Breach([f"integrity_check says {told}, the version is {version}"])
    _kept(before, contents(path))


def _works(bus: Bus) -> None:
    if any(finding.verdict == "fault" for finding in bus.doctor(deep=True)):
        raise Breach([f"bus doctor: {[found for found in bus.doctor(deep=True) if found.verdict == 'fault']}"])
    for name in ("agents", "messages", "dead", "session_list", "types_list", "milestone_list", "interrupted", "status"):
        getattr(bus, name)()


def _kept(before: Rows, after: Rows) -> None:
    for table, rows in before.items():
        names = {name for row in rows for name, _ in row}
        now = Counter(tuple(part for part in row if part[0] in names) for row in after[table].elements())
        if lost := rows - now:
            raise Breach([f"{lost.total()} rows of {table} are not what they were: {next(iter(lost))}"])
        if (more := now - rows) and table not in ADDS_TO:
            raise Breach([f"{more.total()} rows of {table} were added"])


# --- under the shim


def child(path: Path, at: int, kind: int, counted: Path) -> None:
    """Open the bus while something goes wrong; and, if that was survived, once more. Never returns."""
    status = 1
    try:
        signal.alarm(PATIENCE)
        shim = Shim()
        shim.path(str(path))
        shim.arm(at, kind)
        with contextlib.suppress(BusError):
            Bus.open(str(path), create=True).close()
        counted.write_text(str(shim.count()), "utf-8")
        shim.arm(0, 0)
        Bus.open(str(path), create=True).close()
        status = 0
    except BusError as problem:
        path.with_name("failure").write_text(f"it can't be opened again: {problem.code} {problem}", "utf-8")
        status = system_calls.BROKEN
    except BaseException:
        path.with_name("failure").write_text(traceback.format_exc(), "utf-8")
    finally:
        os._exit(status)


def _under_the_shim(start: str, at: int, kind: int) -> int:
    """One fault; how many calls there were."""
    with work.folder() as folder:
        path, counted = folder / "bus.db", folder / "count"
        place(path, start)
        before = contents(path)
        pid = os.fork()
        if not pid:
            child(path, at, kind, counted)
        _, status = os.waitpid(pid, 0)
        if (failure := folder / "failure").exists():
            broken = os.waitstatus_to_exitcode(status) == system_calls.BROKEN
            raise (Breach if broken else RuntimeError)([failure.read_text("utf-8")])
        if status and status != signal.SIGKILL:
            raise Breach([f"it died of {status}"])
        whole(path, before)
        return int(counted.read_text("utf-8")) if counted.exists() else 0


def suffer(count: int, seed: int) -> str:
    """So many faults, or one at every call, of every kind, from every start, if there are fewer."""
    calls = {start: _under_the_shim(start, 2**40, 1) for start in STARTS}
    cases = [
        (start, kind, at)
        for start, number in calls.items()
        for kind in range(len(KINDS))
        for at in range(1, number + 1)
    ]
    random.Random(seed).shuffle(cases)
    for start, kind, at in cases[:count]:
        try:
            _under_the_shim(start, at, kind + 1)
        except Breach as breach:
            words = f"{KINDS[kind]} at call {at} of {calls[start]}, from {start}"
            raise Breach([f"migrations {count} --seed {seed}, {words}: {breach.lines[0]}"]) from breach
    return f"{min(count, len(cases))} of {len(cases)} faults at the system calls of {', '.join(STARTS)}"


# --- several at once, and other versions


def at_once(chance: random.Random) -> None:
    """Several processes open a bus at the same moment; some of them know fewer migrations."""
    with work.folder() as folder:
        path = folder / "bus.db"
        place(path, chance.choice(STARTS))
        before = contents(path)
        known = [NEWEST, *(chance.choice((NEWEST, *range(1, NEWEST + 1))) for _ in range(CROWD - 1))]
        read, write = os.pipe()
        pids = [_opener(path, number, read, write) for number in known]
        os.close(read)
        os.close(write)  # off they go
        failed = [number for number, pid in zip(known, pids, strict=True) if os.waitpid(pid, 0)[1]]
        if failed:
            told = "".join(failure.read_text("utf-8")[-300:] for failure in folder.glob("failure*"))
            raise Breach([f"of those that know {known} migrations, those failed that know {failed}: {told}"])
        whole(path, before)


def _opener(path: Path, number: int, read: int, write: int) -> int:
    if pid := os.fork():
        return pid
    status = 1
    try:
        signal.alarm(PATIENCE)
        os.close(write)
        os.read(read, 1)
        with knowing(number):
            Bus.open(str(path), create=True).close()
        status = 0
    except BusError as problem:
        status = int(problem.code != "newer_bus" or number == NEWEST)
        path.with_name(f"failure-{os.getpid()}").write_text(f"{problem.code} {problem}", "utf-8")
    finally:
        os._exit(status)


def newer(chance: random.Random) -> None:
    """A file of a version that is not known yet is refused, at every door, and stays as it was."""
    with work.folder() as folder:
        path = folder / "bus.db"
        Bus.open(str(path), create=True).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"pragma user_version = {chance.choice((NEWEST + 1, 999, 2**31 - 1))}")
        before = path.read_bytes()
        for options in ({}, {"create": True}, {"read_only": True}):
            try:
                Bus.open(str(path), **options).close()
            except BusError as problem:
                if problem.code == "newer_bus" and path.read_bytes() == before:
                    continue
            raise Breach([f"a file of a newer version was opened, or changed ({options})"])
        for door, save in OTHER_DOORS.items():
            if (status := save(path)) != NO_BUS or path.read_bytes() != before:
                raise Breach([f"a file of a newer version, {door}: exit status {status}, or it changed"])


def _by_command(path: Path) -> int:
    words = ["--bus", str(path), "state", "save", "one", "new", "-"]
    return attempts.CommandLine(path).run(words, b"v")[0]


def _by_shell(kind: type[attempts.Shell], path: Path) -> int:
    shell = kind(path)
    try:
        return shell.call(("save_agent_state", "one", "new", "v"))[0]
    finally:
        shell.end()


OTHER_DOORS: dict[str, Callable[[Path], int]] = {  # each saves a value; its exit status
    "command line": _by_command,
    "shell by sqlite3": functools.partial(_by_shell, attempts.Shell),
    "shell by bus": functools.partial(_by_shell, attempts.ShellByBus),
}


def by_other_doors(chance: random.Random) -> None:
    """The command and the shell functions bring an old file to this version, too, and do what they were to do."""
    for door, save in OTHER_DOORS.items():
        with work.folder() as folder:
            path = folder / "bus.db"
            place(path, chance.choice(STARTS[2:]))
            before = contents(path)
            if status := save(path):
                raise Breach([f"an old file, {door}: exit status {status}"])
            with Bus.open(str(path)) as bus:
                if bus.state_load("one", "new") != "v" or not bus.state_delete("one", "new"):
                    raise Breach([f"an old file, {door}: the value was not saved"])
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("delete from agent_state where state_key = 'new'")
                connection.commit()
            before.pop("agent_registry")  # saving is a heartbeat
            before.pop("coordination_sessions")
            whole(path, before)


def upgrades() -> None:
    """Every version there was comes to this one, with all it had; who only reads is told that it is old."""
    for start in STARTS:
        with work.folder() as folder:
            path = folder / "bus.db"
            place(path, start)
            before = contents(path)
            if before:
                with contextlib.suppress(BusError):
                    Bus.open(str(path), read_only=True).close()
                    raise Breach([f"{start} was opened for reading, though it has to be upgraded"])
                if not all(before.values()):
                    raise Breach([f"{start} has empty tables: {[name for name, rows in before.items() if not rows]}"])
            whole(path, before)


# --- PostgreSQL

SUICIDE = "\nselect pg_terminate_backend(pg_backend_pid());\n"


_QUOTED = re.compile(r"--[^\n]*|/\*.*?\*/|\$(\w*)\$.*?\$\1\$|'(?:[^']|'')*'|\"[^\"]*\"|;\n", re.S)


def places(text: str) -> list[int]:
    """Where a statement of a migration has ended."""
    return [match.end() for match in _QUOTED.finditer(text) if match[0] == ";\n"]


def on_postgres(server: str, count: int, chance: random.Random) -> int:
    """The server's process ends after some statement of a migration, from some version on; how often."""
    texts = original("postgres")
    cases = [
        (start, number, at)
        for start in range(len(texts))
        for number in range(start, len(texts))
        for at in [0, *places(texts[number][1])]
    ]
    chance.shuffle(cases)
    fresh = _catalogue(server, 0, None)
    for start, number, at in cases[:count]:
        text = texts[number][1]
        broken = [*texts[:number], (texts[number][0], text[:at] + SUICIDE + text[at:]), *texts[number + 1 :]]
        try:
            if (found := _catalogue(server, start, broken)) != fresh:
                raise Breach([f"its catalogue is another: {sorted(found ^ fresh)[:3]}"])
        except Breach as breach:
            raise Breach([f"PostgreSQL, from {start}, at {at} of {number + 1}: {breach.lines[0]}"]) from breach
    return min(count, len(cases))


def _catalogue(server: str, start: int, broken: list[tuple[int, str]] | None) -> set[tuple[Any, ...]]:
    """The catalogue of a schema that was brought from a version to this one, by way of a migration that breaks off."""
    with servers.schema(server) as url:
        if start:
            with knowing(start):
                Bus.open(url, create=True).close()
            _fill(server, url)
        before = _filled(server, url) if start else []
        if broken:
            with mock.patch.object(schemas, "migrations", return_value=broken):
                try:
                    Bus.open(url, create=True).close()
                    raise Breach(["the server's process did not end"])
                except BusError:
                    pass
        with Bus.open(url, create=True) as bus:
            _works(bus)
        if start and before != _filled(server, url):
            raise Breach([f"its rows were {before} and are {_filled(server, url)}"])
        return _described(server, url)


def _fill(server: str, url: str) -> None:
    with _connected(server, url) as connection:
        connection.execute(
            "insert into agent_registry (agent_id, agent_type, session_id) values ('one', 'validation', 's')"
        )
        connection.execute("insert into coordination_sessions (session_id) values ('s')")
        connection.execute("insert into agent_state (agent_id, state_key, state_value) values ('one', 'k', E'v\\n')")
        connection.execute("insert into milestones (id) values ('m')")
        connection.execute("insert into message_types (name) values ('note')")
        connection.execute(
            "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload)"
            """ values ('s', 'one', 'one', 'note', '{"title" : "x"}')"""
        )
        connection.execute("insert into agent_checkpoints (agent_id, session_id) values ('one', 's')")
        connection.execute("insert into agent_health_log (agent_id, health_status) values ('one', 'healthy')")


def _filled(server: str, url: str) -> list[Any]:
    with _connected(server, url) as connection:
        return [
            connection.execute(text).fetchall()
            for text in (
                "select agent_id, agent_type, spawn_time, status from agent_registry",
                "select session_id, created_at, last_activity, agent_count from coordination_sessions",
                "select agent_id, state_key, state_value, version, created_at from agent_state",
                "select id, status, payload::text, created_at from agent_messages",
                "select checkpoint_id, created_at, state_snapshot::text from agent_checkpoints",
                "select id, created_at from milestones", "select id, timestamp from agent_health_log",
                "select name, description from agent_types order by name",
            )
        ]  # fmt: skip


def _described(server: str, url: str) -> set[tuple[Any, ...]]:
    """Tables with their columns, constraints, indexes, triggers, functions and views."""
    with _connected(server, url) as connection:
        name = connection.execute("select current_schema()").fetchone()[0]  # type: ignore[index]
        found: set[tuple[Any, ...]] = set()
        for text in (
            "select 'column', table_name, column_name, data_type, column_default from information_schema.columns"
            " where table_schema = current_schema()",
            "select 'index', indexname, indexdef from pg_indexes where schemaname = current_schema()",
            "select 'constraint', conname, pg_get_constraintdef(oid) from pg_constraint"
            " where connamespace = current_schema()::regnamespace",
            "select 'trigger', tgname, pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = tgrelid"
            " where relnamespace = current_schema()::regnamespace and not tgisinternal",
            "select 'function', proname, md5(prosrc), pg_get_function_arguments(oid) from pg_proc"
            " where pronamespace = current_schema()::regnamespace",
            "select 'view', viewname, definition from pg_views where schemaname = current_schema()",
            "select 'migration', number from bus_migrations",
        ):
            for row in connection.execute(text).fetchall():
                found.add(tuple(str(part).replace(name, "S") for part in row))
        return found


@contextmanager
def _connected(server: str, url: str) -> Iterator[psycopg.Connection[Any]]:
    schema = url.rpartition("schema=")[2]
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"set search_path to {schema}")
        yield connection


# --- the programme


def run(size: int, seed: int) -> str:
    """So many faults at system calls; crowds, and faults on PostgreSQL, as a share of that."""
    chance = random.Random(seed)
    upgrades()
    newer(chance)
    by_other_doors(chance)
    told = system_calls.shimmed("migrations", str(size), str(seed))
    crowds = max(size // 20, 3)
    for _ in range(crowds):
        at_once(chance)
    with servers.any_server() as server:
        ended = on_postgres(server, max(size // 15, 4), chance)
    return f"{told}; {len(STARTS)} upgrades; {crowds} crowds of {CROWD}; {ended} ends of a server's process"


# --- planted defects

Migrate = Callable[[sqlite3.Connection, int, str], None]


def _in_many(connection: sqlite3.Connection, number: int, text: str) -> None:
    """Each statement is a transaction of its own."""
    for statement in schemas.split(text):
        connection.execute(statement)
    connection.execute(f"pragma user_version = {number}")


def _number_first(connection: sqlite3.Connection, number: int, text: str) -> None:
    """The version is told before it is there."""
    connection.execute(f"pragma user_version = {number}")
    connection.execute("begin immediate")
    for statement in schemas.split(text):
        connection.execute(statement)
    connection.execute("commit")


def _without_looking(connection: sqlite3.Connection, number: int, text: str) -> None:
    """Nobody looks whether another process did it meanwhile."""
    connection.execute("begin immediate")
    try:
        for statement in schemas.split(text):
            connection.execute(statement)
        connection.execute(f"pragma user_version = {number}")
        connection.execute("commit")
    except BaseException:
        connection.execute("rollback")
        raise


DEFECTS: dict[str, Migrate] = {"many": _in_many, "first": _number_first}


def a_migration_in_many_transactions(seed: int) -> None:
    """Planted: each statement of a migration is a transaction of its own."""
    system_calls.shimmed("migrations", "100", str(seed), "many")


def a_version_that_is_told_too_early(seed: int) -> None:
    """Planted: the version is written before the migration."""
    system_calls.shimmed("migrations", "200", str(seed), "first")


def a_migration_that_is_done_twice(seed: int) -> None:
    """Planted: nobody looks whether another process has migrated meanwhile."""
    with mock.patch.object(sqlite_schema, "_migrate", _without_looking):
        for number in itertools.count(seed):
            at_once(random.Random(number))
            if number == seed + 20:
                return


CONTROLS = (
    a_migration_in_many_transactions, a_version_that_is_told_too_early, a_migration_that_is_done_twice,
)  # fmt: skip


def main(count: int, seed: int, defect: str = "") -> None:
    """In the process that has the shim."""
    if defect:
        schema_of_a_new_one()
        for number in range(1, NEWEST):
            old(number)
        sqlite_schema._migrate = DEFECTS[defect]  # type: ignore[assignment]
    print(suffer(count, seed))


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    except Breach as found:
        print(found.lines[0], file=sys.stderr)
        sys.exit(system_calls.BROKEN)
