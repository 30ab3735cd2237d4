"""What an operation costs on a file does not grow with what was done, nor with what others hold."""

import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress

import psycopg
import pytest

from bus import Bus, clock, recovery
from bus.errors import Conflict
from bus.operation import Operation
from bus.store import postgres, sqlite
from bus.store.url import Server

TASK = "task_assignment"
HISTORY = """
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_messages (session_id, from_agent, to_agent, message_type, payload, status, acknowledged_at)
select 's', 'boss', 'a', 'task_assignment', '{}', 'acknowledged', :now from n;
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_lifecycle (pid, agent_type, task_id, command, registry_id, session_id, status, spawned_at, started_at,
  completed_at)
select 1, 'validation', 't', 'c', 'a', 's', 'completed', :now,
  :now, :now from n;
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_health_log (agent_id, health_status) select 'a', 'healthy' from n;
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_state (agent_id, state_key, state_value) select 'a', 'k' || :many || '-' || i, 'v' from n;
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_checkpoints (checkpoint_id, agent_id, session_id, checkpoint_type, state_snapshot)
select 'c' || :many || '-' || i, 'a', 's', 'manual', '{}' from n
"""


def worked(bus: Bus) -> None:
    life = bus.trace_enter("a", type="milestone-executor", session="s")
    bus.send("boss", "a", TASK, {})
    (message,) = bus.receive("a")
    bus.ack(message.receipt or "")
    bus.state_save("a", "k", "v")
    bus.checkpoint_create("a", {})
    bus.trace_leave("a", life)
    bus.register("a", type="milestone-executor", session="s")


CALLS: list[Callable[[Bus], object]] = [
    worked,
    lambda bus: bus.receive("a"),
    lambda bus: bus.pending("a"),
    lambda bus: bus.dead(),
    lambda bus: bus.redrive(),
    lambda bus: bus.interrupted(),
    lambda bus: bus.store.run(recovery.plan("s")),  # which does not read the file through, as `recovery_plan` does
    lambda bus: bus.checkpoint_restore("a"),
    lambda bus: bus.state_load("a", "k"),
    lambda bus: bus.monitor_check(),
    lambda bus: bus.prune(),
    lambda bus: bus.clean(stale=3600, failed=3600),
    lambda bus: bus.session_show("s"),
    lambda bus: bus.agents(session="s"),
]


def steps(bus: Bus, call: Callable[[Bus], object]) -> int:
    """How many tens of SQLite's instructions a call takes."""
    connection = bus.store.connection()
    assert isinstance(connection, sqlite.Connection)
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    connection.sqlite.set_progress_handler(step, 10)
    call(bus)
    connection.sqlite.set_progress_handler(None, 0)
    return count


def pages(bus: Bus, call: Callable[[Bus], object]) -> int:
    """How many pages of tables and indexes a call looks at on PostgreSQL."""
    connection = bus.store.connection()
    assert isinstance(connection, postgres.Connection)
    url = bus.url
    assert isinstance(url, Server)
    text = """select sum(heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0))
        from pg_statio_user_tables where schemaname = %s"""

    def looked_at(hand: psycopg.Connection[tuple[int]]) -> int:
        connection.driver().execute("select pg_stat_force_next_flush()")  # it tells, else within a second
        found = hand.execute(text, [url.schema]).fetchone()
        assert found
        return int(found[0])

    with psycopg.connect(url.conninfo, autocommit=True) as hand:
        before = looked_at(hand)
        call(bus)
        return looked_at(hand) - before


def history(bus: Bus, many: int) -> None:
    if isinstance(bus.url, Server):
        with psycopg.connect(bus.url.conninfo, options=f"-c search_path={bus.url.schema}") as server:
            for (name,) in server.execute(
                "select relname from pg_stat_user_tables where schemaname = %s", [bus.url.schema]
            ):
                server.execute(f"alter table {name} set (autovacuum_enabled = off)")  # what it looks at counts, too
            server.execute(HISTORY.replace(":many", str(many)).replace(":now", "clock_timestamp()").encode())
            server.execute("select pg_stat_force_next_flush()")  # else what it looked at is told when its process ends
        return
    with closing(sqlite3.connect(bus.url.path)) as hand:
        for statement in HISTORY.split(";\n"):
            hand.execute(statement, {"many": many, "now": clock.stamp(clock.seconds())})
        hand.commit()


@pytest.mark.parametrize("place", ["file", "postgres"])
def test_what_an_operation_looks_at_does_not_grow_with_what_was_done(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("bus.upkeep.BATCH", 50)
    measured, least = (steps, 40) if place == "file" else (pages, 100)
    with Bus.open(request.getfixturevalue("url" if place == "file" else "postgres"), create=True) as bus:
        for agent in ("boss", "a"):
            bus.register(agent, type="milestone-executor", session="s")
        history(bus, 100)
        few = [measured(bus, call) for call in (*CALLS, *CALLS)][len(CALLS) :]
        history(bus, 5000)
        many = [measured(bus, call) for call in CALLS]
    grown = [n for n, (before, after) in enumerate(zip(few, many, strict=True)) if after > 1.2 * before + least]
    assert grown == []


def test_what_is_old_goes_in_pieces(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that who else writes meanwhile waits for one of them, not for all."""
    monkeypatch.setattr("bus.upkeep.BATCH", 4)
    pieces: list[object] = []
    with Bus.open(url) as bus:
        bus.register("boss", type="milestone-executor", session="s")
        for _ in range(10):
            bus.send("boss", "boss", TASK, {})
        bus.ack([message.receipt or "" for message in bus.receive("boss", limit=9)])
        history(bus, 6)
        run = bus.store.run

        def told(operation: Operation[object]) -> object:
            pieces.append(run(operation))
            return pieces[-1]

        monkeypatch.setattr(bus.store, "run", told)
        with clock.moved(100 * clock.DAY):
            assert bus.prune() == 9 + 5
    assert pieces == [0, 4, 2, 4, 2, (4, 4), (4, 8), (3, 12), (3, 16), (0, None), None]


def test_a_message_from_the_future_keeps_none_behind_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.upkeep.BATCH", 1)
    with Bus.open(url) as bus, closing(sqlite3.connect(url)) as hand:
        bus.register("boss", type="milestone-executor", session="s")
        columns = "session_id, from_agent, to_agent, message_type, payload, created_at"
        hand.execute(
            f"insert into agent_messages ({columns}) values ('s', 'boss', 'x', '{TASK}', '{{}}', '9000-01-01 00:00:00')"
        )
        hand.commit()
        for _ in range(2):
            bus.send("boss", "boss", TASK, {})
        bus.ack([message.receipt or "" for message in bus.receive("boss", limit=2)])
        with clock.moved(100 * clock.DAY):
            assert bus.prune() == 1


def test_a_send_that_is_repeated_compares_long_payloads_in_step_with_their_length(url: str) -> None:
    with Bus.open(url) as bus:
        bus.register("a", type="milestone-executor", session="s")

        def again(length: int, last: int) -> int:
            bus.send("a", "a", TASK, {"context": {"all": list(range(length))}}, key=str(length))
            repeated = {"context": {"all": [*range(length - 1), last]}}
            return steps(bus, lambda bus: attempted(lambda: bus.send("a", "a", TASK, repeated, key=str(length))))

        for last in (-1, 0):
            few, many = again(500, last or 499), again(5000, last or 4999)
            assert many < 20 * few


def attempted(act: Callable[[], object]) -> None:
    """Do it, or be refused."""
    with suppress(Conflict):
        act()
