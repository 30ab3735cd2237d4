"""How SQLite finds what an operation needs: nothing that grows is read or sorted whole, unless it is to be told of."""

import re
import sqlite3
from pathlib import Path

import pytest

from bus import schemas

OPERATIONS = sorted(f"{path.parent.name}/{path.stem}" for path in Path(schemas.root(), "operations").glob("*/*.sql"))
FIXED = {"agent_types", "message_types", "state_types", "operation_types", "agent_coordination_config"}
SORT, AGENTS, SESSIONS, MESSAGES = "sort", "agent_registry", "coordination_sessions", "agent_messages"
LIVES, CHECKPOINTS = "agent_lifecycle", "agent_checkpoints"
# Indexes of a part of a table: these are read whole for what is on the way, not for what was done.
TIMERS, DEAD, READY, OPEN = (
    "agent_messages_timers",
    "agent_messages_dead",
    "agent_messages_ready",
    "agent_lifecycle_open",
)

# What an operation reads whole, or sorts, and why it may.
WHOLE = {
    "the caller asks for all there are": {
        "agents/agents": {AGENTS, SORT}, "sessions/list": {SESSIONS, SORT}, "milestones/list": {"milestones", SORT},
        "messages/dead": {DEAD, TIMERS}, "messages/redrive": {DEAD, TIMERS},
        "recovery/leases": {TIMERS}, "recovery/holders": {TIMERS}, "lifecycle/open": {OPEN},
    },
    "from one id on, or from the newest, until the limit is reached": {
        "messages/messages": {MESSAGES}, "bus/prune_window": {MESSAGES}, "exports/messages": {MESSAGES},
        "messages/digests": {MESSAGES}, "exports/lives": {LIVES},
    },
    "reports, which count or sort what they tell of": {
        "bus/doctor": {TIMERS, DEAD},
        "bus/overview": {AGENTS, SESSIONS, MESSAGES, TIMERS, DEAD, OPEN, SORT}, "bus/queues": {READY, TIMERS, SORT},
        "bus/status": {AGENTS, SESSIONS, MESSAGES, CHECKPOINTS, "agent_state", "milestones", SORT},
        "metrics/numbers": {AGENTS, SESSIONS, MESSAGES, TIMERS, DEAD, LIVES, "trace_exports", SORT},
        "sessions/recent": {SESSIONS, SORT}, "lifecycle/active": {OPEN, SORT}, "lifecycle/bottlenecks": {SORT},
        "lifecycle/priorities": {LIVES, SORT}, "lifecycle/throughput": {SORT}, "lifecycle/timeline": {LIVES, SORT},
        "lifecycle/velocity": {SORT}, "lifecycle/waiting": {AGENTS, READY, TIMERS, OPEN, SORT},
    },
    "sorts what it hands out": {
        "messages/receive": {SORT}, "recovery/artifacts": {SORT}, "recovery/planned": {SORT}, "types/list": {SORT},
        "milestones/of_session": {"milestones", SORT},
    },
    "sorts the receivers, and reads what it has just inserted": {"messages/broadcast": {MESSAGES, SORT}},
    "sorts the values of one payload, under an idempotency key": {"messages/send": {SORT}},
    "sorts all that waits for one agent, to look at it": {"messages/pending": {SORT}},
    "sorts a hundred timers at most": {"messages/holders": {SORT}},
    "leases have no index by holder, which would be two more pages for each message": {"messages/give_back": {TIMERS}},
    "what is due anywhere": {"messages/due": {TIMERS}},
    "the monitor, recovery and cleanup look at the whole registry": {
        "checkpoints/prune": {CHECKPOINTS, SORT}, "recovery/checkpointed": {AGENTS}, "recovery/processes": {AGENTS},
        "recovery/silent": {AGENTS}, "sessions/abandon_failed": {SESSIONS}, "sessions/stale": {SESSIONS},
    },
}  # fmt: skip


def whole(connection: sqlite3.Connection, operation: str) -> set[str]:
    """The tables, and the indexes of a part of one, that an operation reads whole or from one id on; and `SORT`."""
    tables = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")} - FIXED
    found = set()
    for statement, _ in schemas.parts(operation):
        named = {alias: table for table, alias in re.findall(r"\b(\w+)(?: as)? (\w)\b", statement) if table in tables}
        parameters = dict.fromkeys(re.findall(r":([a-z_]+)", statement))
        for *_, step in connection.execute(f"explain query plan {statement}", parameters):
            read = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
            read = read or re.match(r"SEARCH (\w+) USING INTEGER PRIMARY KEY \(rowid[<>]\?\)()", step)
            table = read and named.get(read[1], read[1])
            if table in tables:
                found.add(read[2] if read[2] in (TIMERS, DEAD, READY, OPEN) else table)
            elif "USE TEMP B-TREE" in step:
                found.add(SORT)
    return found


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if not name.startswith("copying/")])
def test_nothing_that_grows_is_read_whole(empty: sqlite3.Connection, operation: str) -> None:
    told = [read for operations in WHOLE.values() for name, read in operations.items() if name == operation]
    assert whole(empty, operation) <= (told[0] if told else set())  # a newer SQLite may need less


@pytest.mark.parametrize(
    ("statement", "read"),
    [
        ("select * from agent_messages", {MESSAGES}),
        ("select 1 from agent_state s", {"agent_state"}),
        ("delete from agent_messages where id < 7", {MESSAGES}),
        ("select * from agent_registry order by agent_type", {AGENTS, SORT}),
        ("select 1 from agent_messages indexed by agent_messages_dead where status = 'dead'", {DEAD}),
    ],
)
def test_a_whole_table_is_noticed(
    empty: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, statement: str, read: set[str]
) -> None:
    monkeypatch.setattr(schemas, "parts", lambda name: [schemas.Part(statement)])
    assert whole(empty, "planted") == read
