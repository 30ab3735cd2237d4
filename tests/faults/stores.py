"""Random calls of all kinds on a bus in memory and one on PostgreSQL: each answer and, at the end, each row is alike.

Where `model` knows what is right, here nobody does: what is wrong on both stores alike is not found. The calls are all
that the library has but for waiting, in an order that makes little sense, at moments of a virtual clock; at most one
argument of a call is none that there can be. Processes are real, and die. A program that fails is shortened.
"""

from __future__ import annotations

import datetime
import json
import random
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import zip_longest
from typing import Any
from unittest import mock

import msgspec

from bus import Bus, clock, copying
from bus.errors import BusError
from bus.operation import Query, Steps, reading, writing
from bus.step import OPERATIONS
from bus.store import seldom
from tests import empty, servers
from tests.faults import planted, work
from tests.faults.invariants import Breach
from tests.faults.model import BEGINNING, Answer, Call, Calls, Choices, judge

UNIT = "programs"
SIZES = {"quick": 40, "nightly": 2_000, "release": 20_000}
LENGTH = 80  # calls of a program
SPOILED = 0.15  # of the calls have one argument that can't be
ODD = (
    "",
    "nobody",
    "a b\n",
    "ünï",
    "'",
    "x" * 2000,
    '{"a"',
    "\ud800",
    "a\0b",
    -1,
    0,
    10**12,
    float("nan"),
    [],
    {"a": 1},
)
# White space of payloads; and a session's last activity, kept to ten seconds, and not moved by all the same events.
APART = ("raw", "last_activity", "minutes_inactive")
PROCESSES = ("process 0", "process 1", "process 2")  # each stands for the pid of one that runs

AGENTS = ("ann", "ben", "cat", "dan")
TYPES = ("milestone-planner", "milestone-executor", "validation")
SESSIONS = ("s", "s", "t", "u")
MAYBE = (None, None, None)
SECONDS = (0.5, 5, "2m", "1h")
TEXTS = ("x", "two words", "“b”")
PAYLOADS: tuple[Any, ...] = ({}, {"phase": "p"}, '{"progress": 5.0}', '{"phase":"\\u0041","n":1}')
PLANS = ('{"title": "T", "phases": [{"name": "p"}]}', '{"title": "T", "status": "done", "priority": "high"}', "no plan")
KEYS = ("milestone-plan", "design-phase-results", "spec-phase-results", "k/1", "k_2")
RECORDS = (
    '{"active_agents": {"999999": {"agent_type": "t", "task_id": "1", "started_at": "2026-10-25T02:30:00"}}}',
    '{"completed_agents": [{"pid": 7, "agent_type": "t", "task_id": "1", "started_at": "2026-01-01T00:00:00.0005",'
    ' "completed_at": "2026-01-01T00:00:01+01:00", "priority_number": 7, "why": 1.50}, {"pid": 8}]}',
    '{"completed_agents": [{"pid": 999999, "agent_type": "t", "task_id": "1", "started_at": "2026-10-25T02:30:00",'
    ' "completed_at": "2026-11-01", "status": "killed"}]}',
)
MESSAGES, LIVES = tuple(range(1, 10)), tuple(range(1, 7))
WHO: Choices = {"agent": AGENTS}
IN: Choices = {"session": SESSIONS}
KEPT: Choices = {"agent": (*AGENTS, "s"), "key": KEYS}
SENT: Choices = {
    "sender": AGENTS,
    "type": ("task_assignment", "task_assignment", "error_report"),
    "payload": PAYLOADS,
    "priority": (*MAYBE, 1, 10),
    "delay": (*MAYBE, *SECONDS),
    "expires": (*MAYBE, *SECONDS),
    "key": (*MAYBE, "k", "l"),
}
HELD: Choices = {"receipts": ("last", "last", "last", "1.1", "2.1", "3.2")}  # the last that was given out
TOLD: Choices = {"task": TEXTS, "priority": (*MAYBE, 1, 2.5, "042", "high"), "command": (*MAYBE, "true")}

CALLS: Calls = {
    "die": (1, {"process": PROCESSES}),
    # the registry
    "register": (
        8,
        {
            "agent": AGENTS,
            "type": TYPES,
            "session": SESSIONS,
            "milestone": (*MAYBE, "m1", "m2"),
            "operation": (*MAYBE, "planning", "execution"),
            "pid": (None, *PROCESSES),
            "command": (*MAYBE, "true"),
            "capabilities": (*MAYBE, ["bash"]),
        },
    ),
    "heartbeat": (3, {**WHO, "status": (*MAYBE, "active", "paused", "failed"), "task": (*MAYBE, *TEXTS)}),
    "update": (2, {**WHO, "resource_usage": (*MAYBE, {"cpu": 1.5}), "error_info": (*MAYBE, {"why": "x"})}),
    "retire": (3, {**WHO, "status": (None, "completed", "failed", "terminated")}),
    "agents": (2, {"session": (*MAYBE, *SESSIONS)}),
    # messages
    "send": (14, {**SENT, "to": (*AGENTS, "@milestone-executor", "@validation"), "reply_to": (*MAYBE, *MESSAGES)}),
    "broadcast": (2, {name: of for name, of in SENT.items() if name != "key"}),  # a copy that is there leaves a gap
    "receive": (
        10,
        {
            **WHO,
            "limit": (None, None, 2),
            "lease": (*MAYBE, *SECONDS),
            "ack": (*MAYBE, True),
            "type": (*MAYBE, "error_report"),
        },
    ),
    "ack_and_receive": (2, {**WHO, **HELD, "lease": (*MAYBE, *SECONDS), "type": (*MAYBE, "error_report")}),
    "ack": (5, {**HELD, "once": (*MAYBE, True)}),
    "release": (3, {**HELD, "delay": (*MAYBE, *SECONDS), "reason": (*MAYBE, *TEXTS)}),
    "extend": (2, {**HELD, "lease": (*MAYBE, *SECONDS)}),
    "reject": (2, {**HELD, "reason": TEXTS}),
    "cancel": (1, {"id": MESSAGES}),
    "redrive": (2, {"ids": (None, *MESSAGES), "session": (*MAYBE, *SESSIONS)}),
    "message": (2, {"id": MESSAGES}),
    "messages": (2, {"to": (*MAYBE, *AGENTS), "status": (*MAYBE, "ready", "leased", "dead"), "limit": (None, 2)}),
    "pending": (1, WHO),
    "dead": (1, {"session": (*MAYBE, *SESSIONS)}),
    # state and checkpoints
    "state_save": (
        7,
        {**KEPT, "value": (*TEXTS, *PLANS), "ttl": (*MAYBE, *SECONDS), "if_version": (*MAYBE, 0, 1, 2)},
    ),
    "state_delete": (1, KEPT),
    "state_load_versioned": (1, KEPT),
    "state_list": (1, {**WHO, "prefix": (None, "k/", "k_")}),
    "checkpoint_create": (3, {**WHO, "snapshot": PAYLOADS, "retention": (*MAYBE, *SECONDS)}),
    "checkpoint_restore": (1, WHO),
    "checkpoint_list": (1, WHO),
    "checkpoint_prune": (1, {"agent": (None, *AGENTS), "keep": (None, 1)}),
    # sessions and recovery
    "session_progress": (2, {**IN, "progress": (0, 33.3, 100), "phase": (*MAYBE, *TEXTS)}),
    "session_complete": (2, IN),
    "session_abandon": (1, IN),
    "session_show": (2, IN),
    "session_list": (1, {"status": (None, "active", "completed", "failed")}),
    "session_counts": (1, {}),
    "interrupted": (2, {}),
    "recovery_plan": (3, IN),
    "recovery_apply": (
        4,
        {**IN, "option": ("resume", "restart", "complete", "abandon", "create-milestone"), "by": ("me",)},
    ),
    "recovery_respawn": (1, IN),
    "milestone_list": (1, {}),
    "milestone_show": (1, {"id": ("m1", "s")}),
    "monitor_check": (2, {"by": (None, "me")}),
    "clean": (1, {"stale": (None, *SECONDS), "failed": (None, *SECONDS), "by": (None, "me")}),
    "prune": (2, {}),
    # lives on record
    "trace_spawn": (
        3,
        {**TOLD, "type": TYPES, "pid": PROCESSES, "session": (*MAYBE, *SESSIONS), "agent": (None, *AGENTS)},
    ),
    "trace_start": (3, {"id": LIVES, "agent": (*MAYBE, *AGENTS)}),
    "trace_finish": (3, {"id": LIVES, "exit_code": (None, 0, 1, 137), "output": (*MAYBE, *TEXTS)}),
    "trace_abort": (1, {"id": LIVES, "error": TEXTS}),
    "trace_show": (2, {"id": LIVES}),
    "trace_enter": (2, {**WHO, **TOLD, **IN, "type": TYPES}),
    "trace_leave": (2, {**WHO, "id": LIVES, "status": (None, "completed", "failed")}),
    "trace_active": (1, {}),
    "trace_bottlenecks": (1, {"limit": (None, 1)}),
    "trace_throughput": (1, {"by": (None, "day")}),
    "trace_timeline": (1, {"limit": (None, 2), "priority": (*MAYBE, "high")}),
    "trace_velocity": (1, {"type": (None, *TYPES)}),
    "trace_waiting": (1, {}),
    "trace_import": (1, {"text": RECORDS, "zone": ("UTC", "Asia/Tokyo"), "skip_invalid": (*MAYBE, True)}),
    "export_batch": (1, {"target": ("collector",), "limit": (None, 2)}),
    "metrics": (1, {}),
    "status": (1, {}),
    # types and settings
    "types_add": (
        1,
        {"kind": ("agent", "state", "operation"), "name": ("own", "validation"), "description": (None, *TEXTS)},
    ),
    "types_list": (1, {}),
    "step": (6, {}),  # of two or three of `IN_A_STEP`
    "config_set": (1, {"key": ("lease_seconds", "message_retry_limit", "session_timeout"), "value": ("1", "7")}),
    "config_list": (1, {}),
}


def _method(operation: str) -> str:
    """The client's method for an operation of a step."""
    noun, verb = operation.split(".")
    return verb if noun in ("messages", "agents") else f"{noun.removesuffix('s')}_{verb}"


# Without what leaves a gap among PostgreSQL's ids, which is closed after a call: here others come after it in the same.
IN_A_STEP = {_method(name): make for name, make in OPERATIONS.items() if name != "messages.broadcast"}
BEGIN = [
    *(
        Call("register", {"agent": agent, "type": TYPES[n % 3], "session": "st"[n // 3], "pid": PROCESSES[n % 3]}, 0.0)
        for n, agent in enumerate(AGENTS)
    ),
    Call("export_claim", {"target": "collector"}, 0.0),
]


def program(seed: int) -> list[Call]:
    """The program of a seed."""
    chance = random.Random(seed)
    return [_call(chance) for _ in range(LENGTH)]


def _call(chance: random.Random) -> Call:
    name = _any(chance, list(CALLS))
    if name == "step":
        parts = [_any(chance, list(IN_A_STEP)) for _ in range(chance.choice((2, 3)))]
        given: Mapping[str, Any] = {f"{n} {part}": _given_to(chance, part) for n, part in enumerate(parts)}
        for part in given.values():
            if "sender" in part:
                part.pop("key", None)
    else:
        given = _given_to(chance, name)
    after = chance.choice((0, 0, 0.001, 0.5, 3, 40)) if chance.random() < 0.97 else chance.choice((1000, 90_000, 1e6))
    return Call(name, given, after)


def _any(chance: random.Random, names: list[str]) -> str:
    return chance.choices(names, [CALLS[name][0] for name in names])[0]


def _given_to(chance: random.Random, name: str) -> dict[str, Any]:
    given = {key: chance.choice(of) for key, of in CALLS[name][1].items()}
    if given and name != "die" and chance.random() < SPOILED:
        given[chance.choice(list(given))] = chance.choice(ODD)
    return {key: value for key, value in given.items() if value is not None}


# --- two stores


class Side:
    """One of the two buses. Ids that the database draws are told by the order in which they are seen."""

    def __init__(self, bus: Bus, pids: Mapping[str, int]) -> None:
        self.bus = bus
        self.pids = pids
        self.receipt = "1.1"
        self._drawn: dict[str, str] = {}

    def answer(self, name: str, given: Mapping[str, Any]) -> Answer:
        """What a call answers."""
        try:
            value = self._step(given) if name == "step" else getattr(self.bus, name)(**self._known(given))
        except BusError as problem:
            return "error", (problem.code, problem.index)
        if name in ("receive", "ack_and_receive") and value:
            self.receipt = value[-1].receipt or self.receipt
        if name == "status":
            value = {key: value[key] for key in ("sessions", "agents", "messages")}
        if name == "checkpoint_prune":
            value = len(value)  # which stand in the order of their ids
        return "ok", self.told(value)

    def _step(self, given: Mapping[str, Any]) -> list[Any]:
        parts = [IN_A_STEP[part.split()[1]](**self._known(arguments)) for part, arguments in given.items()]
        return self.bus.apply(parts)

    def _known(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments, with the receipt and the pids that words stand for."""
        known = {"last": self.receipt, **self.pids}
        return {key: known.get(value, value) if isinstance(value, str) else value for key, value in given.items()}

    def told(self, value: Any) -> Any:
        """A value as both stores would tell it."""
        if isinstance(value, str):
            return re.sub(r"\b(?:[0-9a-f]{32}|[0-9a-f]{16})\b", self._by_order, value)
        if isinstance(value, float):
            return float(f"{value:.9g}")  # sums and means are not worked out in the same order
        if isinstance(value, Mapping):
            return {self.told(key): self.told(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.told(part) for part in value]
        if isinstance(value, msgspec.Struct):
            return {name: self.told(getattr(value, name)) for name in value.__struct_fields__ if name not in APART}
        return value.isoformat() if isinstance(value, datetime.datetime) else value

    def rows(self) -> Iterator[tuple[str, Any]]:
        """All rows but the settings, which tell when the bus was made, each with its table."""
        with copying.Spool() as spool:
            self.bus.store.run(copying.take(spool))
            for table, rows in spool.chunks():
                columns = [name for _, name in copying.TABLES[table].pairs()]
                if table != "agent_coordination_config":
                    yield from ((table, self.told(_named(columns, row))) for row in rows)

    def _by_order(self, found: re.Match[str]) -> str:
        return self._drawn.setdefault(found[0], f"<{len(self._drawn)}>")


def _named(columns: list[str], row: tuple[Any, ...]) -> dict[str, Any]:
    return {name: _parsed(cell) for name, cell in zip(columns, row, strict=True) if name not in APART}


def _parsed(cell: Any) -> Any:
    """A cell; of JSON its value."""
    with suppress(ValueError):
        return json.loads(cell) if isinstance(cell, str) and cell.startswith(("[", "{")) else cell
    return cell


@reading
def _given() -> Steps[dict[str, object]]:
    return dict((yield Query("copying/given", {})))


@writing
def _give(given: Mapping[str, object]) -> Steps[None]:
    """Count on from these ids: what is refused leaves a gap on PostgreSQL."""
    yield Query("copying/finish", given)


@contextmanager
def processes() -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """A process for each of `PROCESSES`, and for each that ends another one."""
    running = {name: subprocess.Popen(["sleep", "1000"]) for name in PROCESSES}
    try:
        yield running
    finally:
        for process in running.values():
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait for its end."""
    process.kill()
    process.wait()


def differs(calls: list[Call], server: str) -> Breach | None:
    """The first answer, or row, that is not the same on both stores."""
    with ExitStack() as stack:
        running = stack.enter_context(processes())
        stack.enter_context(clock.moved(to=BEGINNING))
        # A heartbeat within a second of another is left out, and each store counts it from another statement.
        stack.enter_context(mock.patch.object(seldom, "SELDOM", 0))
        pids = {name: process.pid for name, process in running.items()}
        file = Side(stack.enter_context(Bus.open(":memory:", create=True)), pids)
        other = Side(stack.enter_context(Bus.open(stack.enter_context(empty.schema(server)))), pids)
        now = BEGINNING
        for name, given, after in calls:
            now += after
            if name == "die":
                end(running[given["process"]])
                running[given["process"]] = subprocess.Popen(["sleep", "1000"])
                pids[given["process"]] = running[given["process"]].pid
                continue
            with clock.moved(to=now):
                here, there = file.answer(name, given), other.answer(name, given)
                other.bus.store.run(_give(file.bus.store.run(_given())))
            if here != there or here[1] == "fault":
                return Breach([f"{name} {given} answered {_part(here, there)}"])
        with clock.moved(to=now):
            here, there = list(file.rows()), list(other.rows())
        rows = next((pair for pair in zip_longest(here, there) if pair[0] != pair[1]), None)
        return rows and Breach([f"at the end there is {rows[0]} on SQLite, {rows[1]} on PostgreSQL"])


def _part(here: Any, there: Any) -> str:
    """What differs of two values."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        here, there = sorted(here.items(), key=str), sorted(there.items(), key=str)
    if isinstance(here, list | tuple) and isinstance(there, list | tuple) and len(here) == len(there):
        return next((_part(one, two) for one, two in zip(here, there, strict=True) if one != two), "")
    return f"{here!r:.500} on SQLite, {there!r:.500} on PostgreSQL"


def _check(size: int, seed: int, server: str) -> None:
    for number in range(seed, seed + size):
        try:
            with work.made_at_once():
                judge([*BEGIN, *program(number)], partial(differs, server=server))
        except Breach as breach:
            raise Breach([f"stores 1 --seed {number}: {breach.lines[0]}"]) from breach


def run(size: int, seed: int) -> str:
    """So many programs."""
    with servers.any_server() as server:
        try:
            _check(size, seed, server)
        finally:
            empty.drop(server)
    return f"{size} programs of {LENGTH} calls of {len(CALLS)} kinds, in memory and on PostgreSQL"


# --- planted defects


def _find(edits: planted.Edits, seed: int) -> None:
    with servers.any_server() as server, planted.planted(edits), work.made_at_once():
        for number in range(seed, seed + 500):
            if breach := differs([*BEGIN, *program(number)], server):
                raise breach


def a_session_that_does_not_begin_anew(seed: int) -> None:
    """Planted: on PostgreSQL what was saved before a session was opened again counts."""
    _find(
        {"operations/agents/register.sql": ("jsonb_build_object('reopened_at', ", "jsonb_build_object('opened_at', ")},
        seed,
    )


def a_lease_that_is_no_attempt(seed: int) -> None:
    """Planted: on PostgreSQL a lease that runs out is not counted."""
    edit = ("retry_count < most then 1 else 0 end", "retry_count < most then 0 else 0 end")
    _find({"postgres/0001_core.sql": edit}, seed)


CONTROLS = (a_session_that_does_not_begin_anew, a_lease_that_is_no_attempt)
