"""Rows that somebody writes by hand, past the clients: the database refuses them, or every reader survives them."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bus import Bus
from bus.errors import BusError
from tests.faults import corpus
from tests.faults.invariants import Breach

if TYPE_CHECKING:
    from tests.faults.attempts import CommandLine
    from tests.faults.bad_input import Scene

# A good row of each table; one column of it is made bad at a time.
ROWS: dict[str, dict[str, Any]] = {
    "agent_messages": {"session_id": "s", "from_agent": "me", "to_agent": "one", "message_type": "note",
    "payload": "{}"},
    "agent_registry": {"agent_id": "hand", "agent_type": "validation", "session_id": "s"},
    "agent_state": {"agent_id": "one", "state_key": "hand", "state_value": "v"},
    "coordination_sessions": {"session_id": "hand"},
    "agent_checkpoints": {"agent_id": "one", "session_id": "s"},
    "agent_health_log": {"agent_id": "one", "health_status": "healthy"},
    "agent_coordination_config": {"key": "hand", "value": "1"},
    "agent_types": {"name": "hand"},
    "message_types": {"name": "hand"},
    "state_types": {"name": "hand"},
    "operation_types": {"name": "hand"},
    "milestones": {"id": "hand"},
    "agent_lifecycle": {"pid": 1, "agent_type": "t", "task_id": "x", "command": "c"},
    "trace_exports": {"target": "x"},
}  # fmt: skip
BAD: tuple[Any, ...] = (
    None, "", " ", 0, 1, -1, 7, 2**31, 2**63 - 1, -(2**63), 1.5, 1e308, float("inf"), "a\0b", b"\xff", b"{}",
    "\x1b[2J", "\u202e", "é",
    "one", "s", "-x", "a b", "@validation", "*", "x" * 200, "x" * 70_000, "yesterday", "2026-13-45 00:00:00.000",
    "2026-01-01 00:00:00",
    "9999-12-31 23:59:59.999", "0000-01-01 00:00:00", "-4712-01-01 00:00:00", "2026-01-01T00:00:00Z", "leased",
    "dead", "active", "failed",
    "[]", "{}", "[1,null,{}]", '{"a":1,"a":2}', '["\\ud800"]', '{"a":"\\ud800"}', '["\\u0000"]', '{"\\ud800":1}',
    "[1e999]", "null", "5", '"x"',
    "[99999999999999999999]", "{", "[" * 1500 + "]" * 1500, '{"a":' * 900 + "1" + "}" * 900,
    '[{"key":"k","weight":"x"}]', '[{"key":5}]',
    '[{"path":5}]', '[{"path":"/x","sha256":"y","size":-1}]', '["x"]', '{"type":7}', '{"properties":[]}',
    "00-" + "1" * 52,
)  # fmt: skip
UNREADABLE = b"\xff\xfe"  # text that is no UTF-8

Look = Callable[[Bus], Any]
LOOKS: dict[str, Look] = {
    "agents": lambda bus: bus.lives(bus.agents()),
    "messages": lambda bus: bus.messages(limit=1000),
    "pending": lambda bus: bus.pending("one"),
    "dead": lambda bus: bus.dead(),
    "state": lambda bus: bus.state_list("one"),
    "checkpoints": lambda bus: bus.checkpoint_list("one"),
    "restore": lambda bus: bus.checkpoint_restore("one"),
    "sessions": lambda bus: bus.session_list(),
    "counts": lambda bus: bus.session_counts(),
    "types": lambda bus: bus.types_list(),
    "settings": lambda bus: bus.config_list(),
    "milestones": lambda bus: bus.milestone_list(),
    "status": lambda bus: bus.store.run(_status()),
    "doctor": lambda bus: bus.doctor(deep=True),
    "interrupted": lambda bus: bus.interrupted(),
    "plan": lambda bus: bus.recovery_plan("s"),
    "overview": lambda bus: bus.overview(),
    "metrics": lambda bus: bus.metrics(),
    "traces": lambda bus: (bus.trace_active(), bus.trace_velocity(), bus.trace_bottlenecks(),
                           bus.trace_timeline(), bus.trace_throughput(), bus.trace_waiting()),
    "monitor": lambda bus: bus.monitor_check(),
    "prune": lambda bus: bus.prune(),
}  # fmt: skip
COMMANDS = (
    ["messages"], ["agents"], ["session", "list"], ["state", "list", "one"], ["checkpoint", "list", "one"], ["types",
    "list"], ["dead"],
    ["recover", "s"], ["trace", "active"], ["trace", "timeline"], ["milestone", "list"], ["config", "list"],
)  # fmt: skip


def _status() -> Any:
    from bus import upkeep

    return upkeep.status(busy=None)


def run(place: Scene, command: CommandLine, chance: random.Random, share: float) -> int:
    """Every column of every table with every bad value, or a share of that; how many rows were tried."""
    count = 0
    for table, good in ROWS.items():
        for column in place.tables[table]:
            for value in (*BAD, UNREADABLE):
                if chance.random() < share:
                    _try(place, command, chance, table, good, column, value)
                    count += 1
    return count


def _try(
    place: Scene, command: CommandLine, chance: random.Random, table: str, good: dict[str, Any], column: str, value: Any
) -> None:
    before = place.dump()
    row = {**good, column: value}
    marks = ["cast(? as text)" if value is UNREADABLE and key == column else "?" for key in row]
    text = f"insert into {table} ({', '.join(row)}) values ({', '.join(marks)})"
    try:
        try:
            place.reader.execute(text, list(row.values()))
        except sqlite3.Error as refusal:
            if place.dump() != before:
                raise Breach([f"it was refused ({refusal}), and changed something"]) from refusal
            return
        try:
            _survive(place, command, chance)
        finally:
            place.reset()
    except Breach as breach:
        shown = repr(value) if len(repr(value)) < 100 else f"{value!r:.60}…"
        raise Breach([f"by hand, {table}.{column} = {shown}: {breach.lines[0]}"]) from breach


def _survive(place: Scene, command: CommandLine, chance: random.Random) -> None:
    """Every reader answers; the good message arrives; nothing that is printed moves the cursor."""
    with Bus.open(str(place.path)) as bus:
        good = bus.send("boss", "one", "note", {"good": True})
        for name, look in LOOKS.items():
            try:
                look(bus)
            except Exception as problem:
                raise Breach([f"{name} was answered by {problem!r}"[:400]]) from problem
        for words in chance.sample(COMMANDS, 2):
            _read(command, place, words)
        seen: list[int] = []
        try:
            while found := bus.receive("one", limit=5):
                bus.ack([message.receipt or "" for message in found])
                seen += [message.id for message in found]
        except BusError as problem:
            raise Breach([f"receive was answered by {problem!r}"]) from problem
        if good not in seen:
            raise Breach(["the good message did not arrive"])


def _read(command: CommandLine, place: Scene, words: list[str]) -> None:
    for option in ([], ["--json"]):
        status, out, told = command.run(["--bus", str(place.path), *option, *words], b"")
        shown = out.decode()
        if status > 1 or "\x1b[2J" in shown or "\u202e" in shown:
            raise Breach([f"{' '.join(words)} answered {status}: {told[:200]!r}{shown[:100]!r}"])
        if option and corpus.is_document(shown) is False and status == 0:
            try:
                json.loads(shown)
            except ValueError as problem:
                raise Breach([f"{' '.join(words)} printed no JSON: {problem}"]) from problem
