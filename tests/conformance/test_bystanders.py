"""Two sessions on one bus that do not know of each other: what one does changes no row of the other, and tells nothing
of it. And within a session what an operation does not name stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from bus import Bus, clock
from tests.conformance.test_by_hand import prompt

TABLES = (
    "coordination_sessions", "agent_registry", "agent_messages", "agent_state", "agent_checkpoints", "agent_lifecycle",
    "agent_health_log", "milestones",
)  # fmt: skip
PLANNED = ("planning-scope", "planning-estimates", "planning-risks", "planning-kiro")
Ids = dict[str, Any]


def made(bus: Bus, s: str) -> Ids:
    """A session with something in each table; every id begins with its letter."""
    ids: Ids = {}
    bus.register(f"{s}-boss", type="milestone-coordinator", session=f"{s}-s", milestone=f"{s}-m", operation="planning")
    for agent in ("one", "two"):
        bus.register(f"{s}-{agent}", type="milestone-executor", session=f"{s}-s", command=f"{s}-cmd")
    for what in ("acked", "dead", "leased", "ready"):
        ids[what] = bus.send(f"{s}-boss", f"{s}-one", "task_assignment", {"title": f"{s}-t"}, key=what)
    for what in ("acked", "dead", "leased"):
        (ids[f"{what}_receipt"],) = [message.receipt for message in bus.receive(f"{s}-one")]
    bus.ack(ids["acked_receipt"])
    bus.reject(ids["dead_receipt"], reason=f"{s}-no")
    beside = [  # in the same mailbox, and nobody names them
        bus.send(f"{s}-boss", f"{s}-one", "task_assignment", {"title": f"{s}n-t"}, priority=1, key=f"n-{number}")
        for number in range(4)
    ]
    for message in bus.receive(f"{s}-one", limit=4):
        if message.id == beside[0]:
            bus.reject(message.receipt or "", reason="no")
    bus.state_save(f"{s}-one", "n", f"{s}n-v")
    for _ in range(2):
        bus.state_save(f"{s}-boss", "k", f"{s}n-v")
    for key in (*PLANNED, "milestone-plan", "k"):
        bus.state_save(f"{s}-one", key, f'{{"title": "{s}-v"}}')
    ids["checkpoints"] = [bus.checkpoint_create(f"{s}-one", {"at": f"{s}-{n}"}).checkpoint_id for n in range(2)]
    bus.checkpoint_create(f"{s}-boss", {"at": f"{s}n-c"})
    for pid in (9, 10, 11):
        neighbour = bus.trace_spawn("validation", f"{s}n-t", pid=pid, command="c")
        if pid > 9:
            bus.trace_start(neighbour)
        if pid > 10:
            bus.trace_finish(neighbour, exit_code=1)
    ids["life"] = bus.trace_spawn("validation", f"{s}-t", pid=7, command=f"{s}-c")
    ids["begun"] = bus.trace_spawn("validation", f"{s}-t", pid=8, command=f"{s}-c")
    bus.trace_start(ids["begun"])
    bus.retire(f"{s}-two", status="failed")
    return ids


def of(bus: Bus, s: str) -> dict[str, list[Any]]:
    """All rows of a session."""
    with prompt(bus) as run:
        rows = {table: run(f"select * from {table}").fetchall() for table in TABLES}
    return {t: sorted(map(repr, (r for r in found if re.search(f"({s})-", repr(r))))) for t, found in rows.items()}


ACTS: dict[str, Callable[[Bus, Ids], Any]] = {
    "look": lambda bus, ids: [
        bus.agents(session="a-s"),
        bus.message(ids["ready"]),
        bus.messages(session="a-s"),
        bus.messages(to="a-one"),
        bus.messages(sender="a-boss"),
        bus.pending("a-one"),
        bus.dead(session="a-s"),
        bus.state_load("a-one", "k"),
        bus.state_list("a-one"),
        bus.checkpoint_list("a-one"),
        bus.checkpoint_show(ids["checkpoints"][0]),
        bus.session_show("a-s"),
        bus.recovery_plan("a-s"),
        bus.trace_show(ids["life"]),
    ],
    "register": lambda bus, ids: bus.register("a-one", type="validation", session="a-s2", capabilities=["x"]),
    "heartbeat": lambda bus, ids: bus.heartbeat("a-one", status="paused", task="t"),
    "update": lambda bus, ids: bus.update("a-one", command="x"),
    "retire": lambda bus, ids: bus.retire("a-one", status="failed"),
    "send": lambda bus, ids: bus.send("a-boss", "a-one", "task_assignment", {}, key="new"),
    "send_again": lambda bus, ids: bus.send("a-boss", "a-one", "task_assignment", {"title": "a-t"}, key="ready"),
    "broadcast": lambda bus, ids: bus.broadcast("a-boss", "task_assignment", {}),
    "receive": lambda bus, ids: bus.receive("a-one", limit=5),
    "ack": lambda bus, ids: bus.ack(ids["leased_receipt"]),
    "release": lambda bus, ids: bus.release(ids["leased_receipt"]),
    "extend": lambda bus, ids: bus.extend(ids["leased_receipt"], lease=99),
    "reject": lambda bus, ids: bus.reject(ids["leased_receipt"], reason="x"),
    "cancel": lambda bus, ids: bus.cancel(ids["ready"]),
    "redrive": lambda bus, ids: bus.redrive(ids["dead"]),
    "redrive_session": lambda bus, ids: bus.redrive(session="a-s"),
    "state_save": lambda bus, ids: bus.state_save("a-one", "k", "new"),
    "state_delete": lambda bus, ids: bus.state_delete("a-one", "k"),
    "state_compare": lambda bus, ids: bus.state_save("a-one", "k", "new", if_version=1),
    "state_new": lambda bus, ids: bus.state_save("a-one", "k3", "new", if_version=0),
    "send_elsewhere": lambda bus, ids: bus.send("a-boss", "a-two", "task_assignment", {"title": "other"}, key="ready"),
    "checkpoint_create": lambda bus, ids: bus.checkpoint_create("a-one", {}),
    "checkpoint_restore": lambda bus, ids: bus.checkpoint_restore("a-one"),
    "checkpoint_restore_named": lambda bus, ids: bus.checkpoint_restore("a-one", checkpoint=ids["checkpoints"][0]),
    "checkpoint_prune": lambda bus, ids: bus.checkpoint_prune(agent="a-one", keep=1),
    "session_progress": lambda bus, ids: bus.session_progress("a-s", 5, phase="x"),
    "session_complete": lambda bus, ids: bus.session_complete("a-s"),
    "session_abandon": lambda bus, ids: bus.session_abandon("a-s"),
    **{option: lambda bus, ids, o=option: bus.recovery_apply("a-s", o, by="a-me")
       for option in ("complete", "resume", "restart", "create-milestone", "abandon")},
    "respawn": lambda bus, ids: bus.recovery_respawn("a-s"),
    "spawned": lambda bus, ids: bus.recovery_spawned("a-two", pid=1),
    "trace_start": lambda bus, ids: bus.trace_start(ids["life"]),
    "trace_finish": lambda bus, ids: bus.trace_finish(ids["begun"], exit_code=0),
    "trace_abort": lambda bus, ids: bus.trace_abort(ids["life"], error="x"),
}  # fmt: skip

# They may change what is beside them in their own session.
ALL = (
    "register",
    "retire",
    "receive",
    "redrive_session",
    "complete",
    "resume",
    "restart",
    "create-milestone",
    "abandon",
)


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize(("order", "later"), [("ab", 20), ("ba", 40)])  # heartbeats are due, then leases are over, too
def test_who_has_nothing_to_do_with_it_sees_nothing_of_it(bus: Bus, name: str, order: str, later: float) -> None:
    ids = {s: made(bus, s) for s in order}
    if name == "spawned":
        for s in "ab":
            bus.recovery_respawn(f"{s}-s")
    alone = "b" if name in ALL else "b|an"
    before = of(bus, alone)
    with clock.moved(later):
        found = ACTS[name](bus, ids["a"])
    assert of(bus, alone) == before
    assert not re.search("bn?-", repr(found))
