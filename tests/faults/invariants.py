"""One list of invariants, and one `verify`, for all harnesses.

The bus is read with plain SQL here, not through its own operations, and compared with what the world outside was told
(`world.World`). Triggers of ours (`watch`) write each change of a message or a state value into tables of the same
file, in the same transaction, so that the way that led here can be judged as well.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from bus import Bus, clock
from bus.errors import BusError
from tests.faults import work
from tests.faults.world import World, canonical

EDGES = {
    ("scheduled", "ready"), ("scheduled", "dead"), ("ready", "leased"), ("ready", "dead"), ("leased", "ready"),
    ("leased", "scheduled"), ("leased", "acknowledged"), ("leased", "dead"), ("dead", "ready"),
}  # fmt: skip
STATUSES = ("scheduled", "ready", "leased", "acknowledged", "dead")
OPENS_WITHIN = 2.0  # seconds
LATER = 40 * 86400.0  # seconds after which every lease and every delay is over
WAL_MOST = 8 << 20  # bytes: the limit at which the bus checkpoints, and a transaction over it

WATCH = """
create table watched_messages (n integer primary key, id, old, new, old_delivery, delivery, old_due, due, at, by);
create table watched_state (n integer primary key, agent, key, old, new);
create table watched_ends (n integer primary key, id, status, answered);
create trigger watched_sent after insert on agent_messages begin
  insert into watched_messages (id, new, delivery, due) values (new.id, new.status, new.delivery, new.due_at);
end;
create trigger watched_moved after update of status, delivery, due_at, leased_by on agent_messages
when old.status <> new.status or old.delivery <> new.delivery or old.due_at is not new.due_at
  or old.leased_by is not new.leased_by
begin
  insert into watched_messages (id, old, new, old_delivery, delivery, old_due, due, at, by)
  values (new.id, old.status, new.status, old.delivery, new.delivery, old.due_at, new.due_at, new.delivered_at,
    new.leased_by);
end;
create trigger watched_removed after delete on agent_messages begin
  insert into watched_ends (id, status, answered) values (old.id, old.status, old.reply_to);
end;
create trigger watched_saved after insert on agent_state begin
  insert into watched_state (agent, key, old, new) values (new.agent_id, new.state_key, 0, new.version);
end;
create trigger watched_saved_again after update on agent_state begin
  insert into watched_state (agent, key, old, new) values (new.agent_id, new.state_key, old.version, new.version);
end;
"""
TABLES = (
    "agent_registry", "agent_messages", "agent_state", "coordination_sessions", "agent_checkpoints", "agent_health_log",
    "agent_coordination_config", "milestones",
)  # fmt: skip

Recovery = Callable[[Bus], None]


class Breach(AssertionError):
    """Invariants that do not hold, a line each."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.lines = list(lines)
        shown = "\n  ".join(lines[:20])
        super().__init__(f"{len(lines)} breaches:\n  {shown}")

    def __reduce__(self) -> tuple[type[Breach], tuple[list[str]]]:
        return type(self), (self.lines,)


_kept: dict[str, sqlite3.Connection] = {}


@contextmanager
def reading(bus: Bus) -> Iterator[sqlite3.Connection]:
    """A plain connection to what a bus keeps; in memory there is only the bus's own."""
    if bus.url.path == ":memory:":
        yield bus.store.connection().sqlite
    elif bus.url.path in _kept:
        yield _kept[bus.url.path]
    else:
        with closing(sqlite3.connect(bus.url.path, timeout=30, isolation_level=None)) as connection:
            connection.execute("pragma wal_autocheckpoint = 0")
            yield connection


@contextmanager
def kept(bus: Bus) -> Iterator[None]:
    """Within this, `reading` takes the same connection each time."""
    if bus.url.path == ":memory:":
        yield
        return
    with reading(bus) as connection:
        _kept[bus.url.path] = connection
        try:
            yield
        finally:
            del _kept[bus.url.path]


def watch(bus: Bus) -> None:
    """Let each change leave a trace from now on."""
    with reading(bus) as connection:
        connection.execute("pragma user_version").fetchall()
        connection.executescript(f"begin immediate; {WATCH} commit;")


def tick(bus: Bus) -> None:
    """Leave word that leases may run out now without a claim, as they do when a monitor looks; for clocks that jump."""
    with reading(bus) as connection:
        connection.execute(
            "insert into watched_messages (id, old, new, old_delivery, delivery, due, at)"
            " values (0, 'ready', 'leased', 0, 1, '', ?)",
            [clock.now()],
        )


def recover(bus: Bus) -> None:
    """Bring back what the dead held, as `bus recover --apply resume` does for every session that was interrupted."""
    for session in bus.interrupted():
        bus.recovery_apply(session.session_id, "resume", by="faults")


def verify(where: str | Bus, world: World, *, recovery: Recovery | None = recover, drains: bool = True) -> Counter[str]:
    """Check every invariant; raises `Breach` with all that does not hold, returns the messages by status.

    A bus given by its address is opened here, without any manual step, within two seconds. `drains` False leaves the
    messages as they are (a harness that goes on), `recovery` None the sessions.
    """
    if isinstance(where, Bus):
        return _judge(where, world, recovery, drains)
    begun = time.monotonic()
    try:
        with Bus.open(where) as bus:
            bus.config_list()
            took = time.monotonic() - begun
            if took > OPENS_WITHIN:
                raise Breach([f"the bus took {took:.1f} s to open"])
            with kept(bus):
                return _judge(bus, world, recovery, drains)
    except (BusError, sqlite3.Error) as problem:
        raise Breach([f"the bus can't be used: {problem!r}"]) from problem


def _judge(bus: Bus, world: World, recovery: Recovery | None, drains: bool) -> Counter[str]:
    lines = [*check(bus, world), *(_recovers_once(bus, recovery) if recovery else ())]
    if drains and not lines:
        lines = [*_drains(bus, world), *check(bus, world)]
    if not lines and bus.url.path != ":memory:":
        lines = [*_bounded(bus)]
    if lines:
        raise Breach(lines)
    with reading(bus) as connection:
        return Counter(status for (status,) in connection.execute("select status from agent_messages"))


def check(bus: Bus, world: World) -> list[str]:
    """The breaches that can be seen without changing anything."""
    with reading(bus) as connection:
        connection.execute("begin")
        try:
            return [line for rule in RULES for line in rule(connection, world)]
        finally:
            connection.execute("rollback")


# --- rules: each yields a line for each breach it sees


def _sound(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    if connection.execute("select file = '' from pragma_database_list where name = 'main'").fetchone()[0]:
        return  # in memory there is no disk that could have lost anything
    for (line,) in connection.execute("pragma integrity_check(5)"):
        if line != "ok":
            yield f"integrity_check: {line}"


def _confirmed_are_there(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    there = dict(connection.execute("select id, payload from agent_messages"))
    gone = dict(connection.execute("select id, status from watched_ends"))
    for id, task in world.sent.items():
        if id in there:
            if canonical(there[id]) not in world.payloads[task]:
                yield f"message {id} ({task}) was sent with another payload: {there[id][:80]}"
        elif gone.get(id) != "acknowledged":
            yield f"message {id} ({task}) was confirmed and is lost"


def _nothing_unsent(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for id, payload in connection.execute("select id, payload from agent_messages"):
        task = str(json.loads(payload).get("task_id"))
        seen[task] += 1
        if canonical(payload) not in world.payloads.get(task, ()):
            yield f"message {id} ({task}) was never sent so: {payload[:80]}"
    for task, number in seen.items():
        if number > world.intended[task]:
            yield f"{task} was sent {world.intended[task]} times and stored {number} times"


def _conserved(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    rows = Counter(dict(connection.execute("select status, count(*) from agent_messages group by status")))
    ((sent,),) = connection.execute("select count(*) from watched_messages where old is null")
    ends = Counter(dict(connection.execute("select status, count(*) from watched_ends group by status")))
    if set(rows) - set(STATUSES):
        yield f"statuses that do not exist: {set(rows) - set(STATUSES)}"
    if set(ends) - {"acknowledged"}:
        yield f"removed without being acknowledged: {dict(ends)}"
    if ends.total() < world.pruned:
        yield f"retention told of {world.pruned} messages, {ends.total()} went"
    if rows.total() + ends.total() != sent:
        yield f"sent {sent}, but there are {dict(rows)} and {ends.total()} removed"


def _edges(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    changes = connection.execute("select distinct old, new from watched_messages where old is not new")
    for old, new in changes:
        if old is None and new not in ("ready", "scheduled"):
            yield f"a message was born {new}"
        if old is not None and (old, new) not in EDGES:
            yield f"a message went from {old} to {new}"


def _leases(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    leases: dict[int, tuple[int, str]] = {}  # the claims so far when it was last prolonged, and its end
    claims: list[str] = []  # the moments of all claims, in the order in which they happened
    query = """
      select id, old, new, old_delivery, delivery, due, at, by from watched_messages where old is not null order by n"""
    for id, old, new, before, delivery, due, at, by in connection.execute(query):
        if delivery > before:
            claims.append(at)
            if old != "ready" or new != "leased":
                yield f"message {id}: delivery {delivery} began {old} and ended {new}"
            begun, until = leases.get(id, (0, ""))
            if at < until and max(claims[begun:]) < until:  # a clock set back makes no lease alive again
                yield f"message {id}: delivery {delivery} at {at}, while {before} was leased until {until}"
        elif delivery < before:
            yield f"message {id}: delivery {before} was followed by {delivery}"
        if new == "leased":
            leases[id] = len(claims), due
        elif by is None or new in ("acknowledged", "dead"):
            leases.pop(id, None)
    for (id, delivery), takers in world.taken.items():
        if takers > 1:
            yield f"delivery {id}.{delivery} was handed to {takers}"


def _acknowledged_stays(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    rows = {id: (status, delivery) for id, status, delivery in connection.execute(
        "select id, status, delivery from agent_messages")}  # fmt: skip
    gone = dict(connection.execute("select id, status from watched_ends"))
    for id, delivery in world.acknowledged.items():
        found = rows.get(id) or (gone.get(id), delivery)
        if found != ("acknowledged", delivery):
            yield f"message {id} was acknowledged at delivery {delivery} and is {found[0]} at {found[1]}"


def _one_effect(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    done = Counter[int]()
    for key, version in connection.execute("select state_key, version from agent_state where state_key glob 'done/*'"):
        done[int(key.removeprefix("done/"))] += version
    query = """
      select reply_to from agent_messages where reply_to is not null
      union all select answered from watched_ends where answered is not null"""
    answers = Counter(id for (id,) in connection.execute(query))
    kept = Counter(json.loads(snapshot).get("at") for (snapshot,) in connection.execute(
        "select state_snapshot from agent_checkpoints"))  # fmt: skip
    query = "select id, status = 'acknowledged' from agent_messages where message_type = 'task_assignment'"
    for id, over in connection.execute(query):
        effects = (done[id], answers[id], kept[id])
        if effects != ((1, 1, 1) if over else (0, 0, 0)):
            yield f"task {id} is {'' if over else 'not '}acknowledged: (state, answers, checkpoints) {effects}"


def _counts_agree(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    """The counter, the marks and the last checkpoint of an agent tell the same."""
    query = """
      select c.agent_id, cast(c.state_value as integer), c.version,
        (select count(*) from agent_state d where d.agent_id = c.agent_id and d.state_key glob 'done/*'),
        (select state_snapshot ->> 'count' from agent_checkpoints k where k.agent_id = c.agent_id
          order by rowid desc limit 1)
      from agent_state c where state_key = 'count'"""
    for agent, count, version, marks, kept in connection.execute(query):
        if not count == version == marks == kept:
            yield f"{agent} counted {count} in version {version}, marked {marks}, and its checkpoint says {kept}"
    query = "select state_value, version from agent_state where state_key = 'tally' and state_value <> version"
    for count, version in connection.execute(query):
        yield f"who counts together by compare-and-set came to {count} in version {version}"


def _versions(connection: sqlite3.Connection, world: World) -> Iterator[str]:
    last: dict[tuple[str, str], int] = {}
    for agent, key, old, new in connection.execute("select agent, key, old, new from watched_state order by n"):
        if old not in (0, last.get((agent, key), 0)) or new < old or new > old + 1:
            yield f"{agent} {key}: version {last.get((agent, key))} was followed by {old} to {new}"
        last[agent, key] = new
    query = "select agent_id, state_key, version, state_value, expires_at is null from agent_state"
    now = {(agent, key): (version, value, lasts) for agent, key, version, value, lasts in connection.execute(query)}
    for (agent, key, version), values in world.saved.items():
        found = now.get((agent, key))
        if len(values) > 1:
            yield f"{agent} {key}: version {version} was given to {sorted(values)}"
        if found is None or found[0] < version or (found[0] == version and found[2] and found[1] not in values):
            yield f"{agent} {key}: version {version} was confirmed as {sorted(values)}, now it is {found}"


Rule = Callable[[sqlite3.Connection, World], Iterable[str]]
RULES: tuple[Rule, ...] = (
    _sound, _confirmed_are_there, _nothing_unsent, _conserved, _edges, _leases, _acknowledged_stays, _one_effect,
    _counts_agree, _versions,
)  # fmt: skip


# --- what changes the bus: recovery, and a fresh worker


def _recovers_once(bus: Bus, recovery: Recovery) -> Iterator[str]:
    recovery(bus)
    before = dump(bus)
    recovery(bus)
    after = dump(bus)
    for table in TABLES:
        if before[table] != after[table]:
            yield f"a second recovery changed {table}"


def dump(bus: Bus) -> dict[str, list[Any]]:
    """All that a bus holds."""
    with reading(bus) as connection:
        return {table: connection.execute(f"select * from {table}").fetchall() for table in TABLES}


def _drains(bus: Bus, world: World) -> Iterator[str]:
    """Dead letters are redriven, time goes by, and fresh workers take what there is, until nothing comes any more."""
    bus.redrive()
    with clock.moved(by=LATER):
        while sum(_drain(bus, world, to, session) for to, session in _boxes(bus)):
            pass
    with reading(bus) as connection:
        query = "select id, status, to_agent from agent_messages where status not in ('acknowledged', 'dead')"
        for id, status, to in connection.execute(query):
            yield f"message {id} to {to} is still {status} after fresh workers drained everything"


def _boxes(bus: Bus) -> list[tuple[str, str]]:
    """Where messages wait: addresses, and the session each is of."""
    with reading(bus) as connection:
        return connection.execute(
            "select distinct to_agent, session_id from agent_messages where status not in ('acknowledged', 'dead')"
        ).fetchall()


def _drain(bus: Bus, world: World, to: str, session: str) -> int:
    agent = f"fresh{to}" if to.startswith("@") else to
    known = {found.agent_id: found.agent_type for found in bus.agents()}
    kind = to[1:] if to.startswith("@") else known.get(agent, work.EXECUTOR)
    bus.register(agent, type=kind, session=session)
    taken = 0
    while found := bus.receive(agent, limit=50):
        for message in found:
            world.take(message.receipt)
            work.do(bus, agent, message, world)
        taken += len(found)
    return taken


def _bounded(bus: Bus) -> Iterator[str]:
    size = os.stat(f"{bus.url.path}-wal").st_size
    if size > WAL_MOST:
        yield f"the WAL has {size} bytes"
