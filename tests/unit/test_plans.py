"""How SQLite finds what an operation needs: nothing that grows is read or sorted whole, unless it is to be told of."""

import re
import sqlite3
from pathlib import Path

import pytest

from bus import schemas

OPERATIONS = sorted(f"{path.parent.name}/{path.stem}" for path in Path(schemas.root(), "operations").glob("*/*.sql"))
UNDER_WAY = (
    "agent_messages_timers",
    "agent_messages_dead",
    "agent_lifecycle_open",
)  # not what was done, nor what waits
FIXED = {"agent_types", "message_types", "state_types", "operation_types", "agent_coordination_config"}

WHOLE = {
    "the caller asks for all there are": {
        "agents/agents", "milestones/list", "sessions/list", "messages/digests",
    },
    "from the newest on, until the limit is reached": {"messages/messages"},
    "reports, which count or sort what they tell of": {
        "bus/overview", "bus/status", "metrics/numbers", "sessions/recent", "lifecycle/active",
        "lifecycle/bottlenecks", "lifecycle/priorities", "lifecycle/throughput", "lifecycle/timeline",
        "lifecycle/velocity", "lifecycle/waiting",
    },
    "sorts what it hands out": {
        "messages/receive", "messages/broadcast", "recovery/artifacts",
        "milestones/of_session", "types/list",
    },
    "the values of one payload, under an idempotency key": {"messages/send"},
    "a look at all that waits for one agent": {"messages/pending"},
    "a hundred timers at most": {"messages/holders"},
    "two thousand messages at most": {"bus/prune_window"},
    "what was noted since, from one id on": {"exports/lives", "exports/messages"},
    "the registry: the monitor, recovery and cleanup look at all agents, sessions and their checkpoints": {
        "checkpoints/prune", "recovery/checkpointed", "recovery/processes", "recovery/silent",
        "sessions/abandon_failed", "sessions/stale",
    },
}  # fmt: skip


def whole(connection: sqlite3.Connection, operation: str) -> list[str]:
    """The steps of an operation's plans that read or sort something whole."""
    tables = {name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")} - FIXED
    found = []
    for statement, _ in schemas.parts(operation):
        aliases = {alias for table, alias in re.findall(r"\b(\w+)(?: as)? (\w)\b", statement) if table in tables}
        parameters = dict.fromkeys(re.findall(r":([a-z_]+)", statement))
        for *_, step in connection.execute(f"explain query plan {statement}", parameters):
            scanned = re.match(r"SCAN (\w+)(?: USING (?:COVERING )?INDEX (\w+))?", step)
            if (
                (scanned and scanned[1] in tables | aliases and scanned[2] not in UNDER_WAY)
                or "USE TEMP B-TREE" in step
                or re.search(r"PRIMARY KEY \(rowid[<>]\?\)", step)
            ):
                found.append(step)
    return found


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if not name.startswith("copying/")])
def test_nothing_that_grows_is_read_whole(empty: sqlite3.Connection, operation: str) -> None:
    assert bool(whole(empty, operation)) == any(operation in names for names in WHOLE.values()), whole(empty, operation)


@pytest.mark.parametrize(
    "statement",
    ["select * from agent_messages", "select 1 from agent_state s", "delete from agent_messages where id < 7"],
)
def test_a_whole_table_is_noticed(empty: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    monkeypatch.setattr(schemas, "parts", lambda name: [schemas.Part(statement)])
    assert whole(empty, "planted")
