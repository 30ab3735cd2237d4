"""What an operation costs on a file does not grow with what was done, nor with what others hold."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from bus import Bus, clock, recovery
from bus.operation import Operation
from bus.store import sqlite

TASK = "task_assignment"
HISTORY = """
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_messages (session_id, from_agent, to_agent, message_type, payload, status, acknowledged_at)
select 's', 'boss', 'a', 'task_assignment', '{}', 'acknowledged', strftime('%Y-%m-%d %H:%M:%f', 'now') from n;
with recursive n (i) as (select 1 union all select i + 1 from n where i < :many)
insert into agent_lifecycle (pid, agent_type, task_id, command, registry_id, session_id, status, spawned_at, started_at,
  completed_at)
select 1, 'validation', 't', 'c', 'a', 's', 'completed', strftime('%Y-%m-%d %H:%M:%f', 'now'),
  strftime('%Y-%m-%d %H:%M:%f', 'now'), strftime('%Y-%m-%d %H:%M:%f', 'now') from n;
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


def steps(bus: Bus) -> list[int]:
    """How many tens of SQLite's instructions each call takes."""
    connection = bus.store.connection()
    assert isinstance(connection, sqlite.Connection)
    told = []
    for call in CALLS:
        count = [0]

        def step(count: list[int] = count) -> int:
            count[0] += 1
            return 0

        connection.sqlite.set_progress_handler(step, 10)
        call(bus)
        connection.sqlite.set_progress_handler(None, 0)
        told.append(count[0])
    return told


def history(bus: Bus, many: int) -> None:
    with closing(sqlite3.connect(bus.url.path)) as hand:
        for statement in HISTORY.split(";\n"):
            hand.execute(statement, {"many": many})
        hand.commit()


def test_what_an_operation_looks_at_does_not_grow_with_what_was_done(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.upkeep.BATCH", 50)
    with Bus.open(url) as bus:
        for agent in ("boss", "a"):
            bus.register(agent, type="milestone-executor", session="s")
        history(bus, 100)
        few = steps(bus)
        history(bus, 5000)
        many = steps(bus)
    assert [n for n, (before, after) in enumerate(zip(few, many, strict=True)) if after > 1.2 * before + 40] == []


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
