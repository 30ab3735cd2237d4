"""PostgreSQL: agents are killed as in `kill`; and so are the server's processes, and the server itself.

A strike ends one server process politely (SIGTERM), or with SIGKILL, which makes the server recover; or it is the whole
server: an immediate shutdown, or SIGKILL for its first process. Then it is started again, and the agents go on by
themselves. After some strikes the bus is copied into a file, with the traces of all changes, and verified there. Before
that four agents, whom nobody strikes, claim from one queue as fast as they can.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psycopg

from bus import Bus
from bus.errors import BusError
from tests import servers
from tests.faults import invariants, kill, planted, work
from tests.faults.invariants import Breach
from tests.faults.world import Journal, World

UNIT = "strikes"
SIZES = {"quick": 8, "nightly": 200, "release": 2000}
ROUND = 20  # strikes after which the bus is verified
CLAIMS = 400
ENDURED = {"outcome_unknown", "unreachable", "busy"}  # what an agent is told while the server is struck
SCHEMA = "storm"
# The traces of `invariants.WATCH`, in PostgreSQL's words.
WATCH = """
create table watched_messages (n bigint generated always as identity, id bigint, old text, new text,
  old_delivery bigint, delivery bigint, old_due text, due text, at text, by text);
create table watched_state (n bigint generated always as identity, agent text, key text, old bigint, new bigint);
create table watched_ends (n bigint generated always as identity, id bigint, status text, answered bigint);
create function told(timestamptz) returns text language sql as
  $$select to_char($1 at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')$$;
create function watched() returns trigger language plpgsql set search_path from current as $$
begin
  if tg_table_name = 'agent_state' then
    insert into watched_state (agent, key, old, new)
    values (new.agent_id, new.state_key, case when tg_op = 'INSERT' then 0 else old.version end, new.version);
  elsif tg_op = 'DELETE' then
    insert into watched_ends (id, status, answered) values (old.id, old.status, old.reply_to);
  elsif tg_op = 'INSERT' then
    insert into watched_messages (id, new, delivery, due) values (new.id, new.status, new.delivery, told(new.due_at));
  elsif (old.status, old.delivery, old.due_at, old.leased_by)
      is distinct from (new.status, new.delivery, new.due_at, new.leased_by) then
    insert into watched_messages (id, old, new, old_delivery, delivery, old_due, due, at, by)
    values (new.id, old.status, new.status, old.delivery, new.delivery, told(old.due_at), told(new.due_at),
      told(new.delivered_at), new.leased_by);
  end if;
  return null;
end $$;
create trigger watched after insert or update or delete on agent_messages for each row execute function watched();
create trigger watched after insert or update on agent_state for each row execute function watched();
"""
TRACES = {
    "watched_messages": "n, id, old, new, old_delivery, delivery, old_due, due, at, by",
    "watched_state": "n, agent, key, old, new",
    "watched_ends": "n, id, status, answered",
}


class Place(NamedTuple):
    """Where a storm rages."""

    folder: Path
    parent: int
    url: str

    def orphaned(self) -> bool:
        return os.getppid() != self.parent


def enduring(role: kill.Role) -> kill.Role:
    """A role that begins anew when the server was in the way."""

    def play(place: kill.Place, name: str, journal: Journal, chance: random.Random) -> None:
        while not place.orphaned():
            try:
                role(place, name, journal, chance)
            except BusError as problem:
                if problem.code not in ENDURED:
                    raise

    return play


CAST = {name: enduring(role) for name, role in kill.CAST.items()}


class Storm(kill.Storm):
    """A storm that strikes the server, too: at every fifth death of an agent."""

    LIVES = (0.05, 0.2, 0.8)

    def __init__(self, place: Place, seed: int, cast: dict[str, kill.Role], server: servers.Server) -> None:
        super().__init__(place, seed, cast)  # type: ignore[arg-type]
        self.server = server
        self.struck = Counter[str]()

    def _kill(self, name: str) -> None:
        super()._kill(name)
        if self.chance.random() < 0.2 and self.alive:
            how = self.chance.choice((_end, _end, _end, _kill_one, _kill_one, _stop_at_once, _kill_all))
            how(self.server, self.chance)
            self.struck[how.__name__] += 1


def _processes(server: servers.Server) -> list[int]:
    query = "select pid from pg_stat_activity where application_name = 'agent-bus'"
    while True:
        try:
            with psycopg.connect(server.url, autocommit=True) as connection:
                return [int(pid) for (pid,) in connection.execute(query)]
        except psycopg.OperationalError:
            server.await_()  # it recovers from the last strike


def _end(server: servers.Server, chance: random.Random) -> None:
    _signal(server, chance, signal.SIGTERM)


def _kill_one(server: servers.Server, chance: random.Random) -> None:
    """The server ends all its processes after that, one of ours among them, and recovers."""
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(server.url) as witness:
        if _signal(server, chance, signal.SIGKILL):
            select.select([witness.fileno()], [], [], 20)
    server.await_()


def _signal(server: servers.Server, chance: random.Random, number: int) -> bool:
    """Send one of its processes a signal; whether there was one."""
    pids = _processes(server)
    with contextlib.suppress(ProcessLookupError, IndexError):
        os.kill(chance.choice(pids), number)
        return True
    return False


def _stop_at_once(server: servers.Server, chance: random.Random) -> None:
    server.kill(signal.SIGQUIT)
    server.start()


def _kill_all(server: servers.Server, chance: random.Random) -> None:
    server.kill(signal.SIGKILL)
    server.start()


def storm(server: servers.Server, strikes: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """One bus through so many strikes, verified: the strikes by kind, its messages by status."""
    with tempfile.TemporaryDirectory() as folder, servers.schema(server.url, SCHEMA) as url:
        place = Place(Path(folder), os.getpid(), url)
        with Bus.open(url, create=True) as bus:
            bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(f"set search_path = {SCHEMA}")
            connection.execute(WATCH)
        raging = Storm(place, seed, CAST, server)
        while raging.struck.total() < strikes:
            raging.rage(20)
        world = World.read(sorted(place.folder.glob("*.journal")))
        return raging.struck, invariants.verify(_brought_home(server, url, place.folder), world)


def crowd(server: servers.Server) -> None:
    """Four claim from one queue as fast as they can. Raises `Breach` when two of them get the same message."""
    names = [f"claimer-{number}" for number in range(4)]
    with servers.schema(server.url) as url:
        with Bus.open(url, create=True) as bus:
            for name in names:
                bus.register(name, type=work.EXECUTOR, session=work.SESSION)
            for _ in range(CLAIMS):
                bus.send(names[0], f"@{work.EXECUTOR}", "task_assignment", {})
        with ThreadPoolExecutor(len(names)) as pool:
            found = Counter(id for ids in pool.map(partial(_claims, url), names) for id in ids)
    if twice := [id for id, times in found.items() if times > 1]:
        raise Breach([f"two got the same message, {len(twice)} of {CLAIMS} times: message {twice[0]}"])
    if len(found) < CLAIMS:
        raise Breach([f"of {CLAIMS} messages {len(found)} were handed out"])


def _claims(url: str, name: str) -> list[int]:
    ids: list[int] = []
    with Bus.open(url) as bus:
        while taken := bus.receive(name, lease="1h"):
            ids += [message.id for message in taken]
    return ids


def _brought_home(server: servers.Server, url: str, folder: Path) -> str:
    """A copy of the bus in a file, with the traces of all that happened to it."""
    path = str(folder / "coordination.db")
    with Bus.open(url) as there, Bus.open(path, create=True) as here:
        there.copy_to(here)
        invariants.watch(here)
        with invariants.reading(here) as file, closing(psycopg.connect(server.url)) as connection:
            for table, columns in TRACES.items():
                rows = connection.execute(f"select {columns} from {SCHEMA}.{table} order by n").fetchall()  # type: ignore[arg-type]
                marks = ", ".join("?" * (columns.count(",") + 1))
                file.executemany(f"insert into {table} ({columns}) values ({marks})", rows)
    return path


def run(size: int, seed: int) -> str:
    """So many strikes in all; raises `Breach`, whose text names the seed of its round."""
    struck, total, begun = Counter[str](), Counter[str](), time.monotonic()
    with servers.own() as server:
        for done in range(0, size, ROUND):
            number = seed + done // ROUND
            try:
                crowd(server)
                kinds, told = storm(server, min(ROUND, size - done), number)
            except (Breach, BusError) as problem:
                raise Breach([f"postgres {min(ROUND, size - done)} --seed {number}: {problem}"]) from problem
            struck, total = struck + kinds, total + told
    kinds_told = {name.strip("_"): number for name, number in struck.items()}
    return f"{kinds_told} in {time.monotonic() - begun:.0f} s, messages at the end: {dict(total)}"


def a_claim_that_locks_nothing(seed: int) -> None:
    """Planted: a message is leased without being locked when it is chosen, so that two may choose it."""
    text = "order by c.priority desc, c.id limit 1 for update skip locked)"
    defect = {"postgres/0001_core.sql": (text, text.replace(" for update skip locked", ""))}
    with planted.planted(defect), servers.own() as server:
        crowd(server)


CONTROLS = (a_claim_that_locks_nothing,)
