"""Databases with very many rows, made by SQL: beside a claim (W4), and for the plans of the queries."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from bus import clock
from tests.benchmarks.contestant import body

SHAPES = ("ready", "scheduled", "leased", "acknowledged", "others")
_COLUMNS = "session_id, from_agent, to_agent, message_type, payload, priority, status, created_at, due_at, leased_by, \
delivery, delivered_at, acknowledged_at"


def fill(path: Path, shape: str, rows: int, now: float) -> None:
    """Add messages: ready for `claimer`, scheduled for it at a higher priority, leased by it, acknowledged, or ready
    for another agent. The triggers are laid aside meanwhile, and the WAL is written back."""
    connection = sqlite3.connect(path, isolation_level=None)
    triggers = connection.execute(
        "select name, sql from sqlite_schema where type = 'trigger' and tbl_name = 'agent_messages'"
    ).fetchall()
    connection.execute("begin immediate")
    for name, _ in triggers:
        connection.execute(f'drop trigger "{name}"')
    connection.execute(_statement(shape), {"rows": rows, "now": clock.stamp(now), "later": clock.stamp(now + 86400)})
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("commit")
    connection.execute("analyze")
    connection.execute("delete from sqlite_stat1")  # the bus has none: what it plans must not rest on it
    connection.execute("pragma wal_checkpoint(truncate)")
    connection.close()


def _statement(shape: str) -> str:
    status = "ready" if shape == "others" else shape
    agent = "other" if shape == "others" else "claimer"
    priority = 9 if shape == "scheduled" else 5
    timed = shape in ("scheduled", "leased")
    taken = shape in ("leased", "acknowledged")
    return f"""insert into agent_messages ({_COLUMNS})
    with recursive number (n) as (select 1 union all select n + 1 from number where n < :rows)
    select 'bench', 'claimer', '{agent}', 'task_assignment', '{body(0)}', {priority}, '{status}', :now,
      {":later" if timed else "null"}, {"'claimer'" if taken else "null"}, {int(taken)}, {":now" if taken else "null"},
      {":now" if shape == "acknowledged" else "null"}
    from number"""
