"""Calls of the libraries that together use every operation that writes, for `power` and `system_calls`.

They stand beside the calls that every door has (system_calls.PROGRAM, MORE), on the same bus: agents boss, ann and ben
of session s. `UNUSED` are the operations that no such scenario can use, each with the programme that does.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from bus import Bus, schemas
from tests.faults import invariants, work
from tests.faults.world import World

EXECUTION = "execution"
CHANGES = re.compile(r"\s*(insert into (?!refusals)|update\b|delete\b)", re.I)
UNUSED = {
    "messages/put_back": "cancellation: a receive whose caller went away",
    "messages/bury": "damage: a payload that was changed behind the bus's back",
    "copying/": "one transaction on another bus; `bus copy` compares what it made",
}


def a_step(bus: Bus, world: World) -> None:
    """A task, and the step about it."""
    world.intend("task", work.task("task"))
    world.confirm(bus.send("boss", "ben", "task_assignment", work.task("task"), priority=10), "task")
    for message in bus.receive("ben"):
        world.take(message.receipt)
        work.do(bus, "ben", message, world)


def several_receipts(bus: Bus, world: World) -> None:
    for number in range(2):
        world.intend(f"pair-{number}", {"task_id": f"pair-{number}"})
        world.confirm(bus.send("boss", "ben", "progress_update", {"task_id": f"pair-{number}"}), f"pair-{number}")
    receipts = [message.receipt or "" for message in bus.receive("ben", limit=2, type="progress_update")]
    for receipt in receipts:
        world.take(receipt)
    bus.ack(receipts)
    bus.ack(receipts)
    for receipt in receipts:
        world.acknowledge(receipt)


def registry(bus: Bus, world: World) -> None:
    bus.register("eve", type=work.EXECUTOR, session="s", command="true")
    bus.heartbeat("eve", status="paused", task="a task", phase="a phase")
    bus.update("eve", resource_usage={"cpu": 1}, capabilities=["x"])


def checkpointing(bus: Bus, world: World) -> None:
    for number in range(3):
        bus.checkpoint_create("ann", {"number": number})
    bus.checkpoint_prune("ann", keep=1)


def sessions(bus: Bus, world: World) -> None:
    for name in ("done", "given up"):
        bus.register("lea", type="milestone-coordinator", session=name.replace(" ", "-"))
    bus.session_progress("done", 50, phase="p")
    bus.session_complete("done")
    bus.session_abandon("given-up")


def settings(bus: Bus, world: World) -> None:
    bus.config_set("cleanup_retention_days", "8")
    for kind in ("agent", "state", "operation"):
        bus.types_add(kind, "own-type")
    bus.types_add("message", "own_type", schema={"type": "object", "properties": {"n": {"type": "integer"}}})


@contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until the end of the block, or until this process ends."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as cat:
        yield cat


def lives(bus: Bus, world: World) -> None:
    """On record: one who works, one who could not start, one who dies unseen, one who comes and goes."""
    with _process() as process:
        first, second, third = (bus.trace_spawn("t", "work", pid=process.pid) for _ in range(3))
        bus.trace_start(first)
        bus.trace_finish(first, exit_code=0)
        bus.trace_abort(second, error="it can't be")
        bus.trace_start(third)
        bus.register("zoe", type=work.EXECUTOR, session="s", pid=process.pid, command="true")
    bus.trace_close_the_dead()
    guest = bus.trace_enter("guest", type=work.EXECUTOR, session="s")
    bus.trace_leave("guest", guest)
    run = {"pid": 4001, "agent_type": "t", "task_id": "w", "started_at": "2025-06-01T12:00:00Z", "status": "running"}
    end = {"completed_at": "2025-06-01T12:10:00Z", "status": "completed"}
    for ended in ([], [{**run, "pid": 4002, **end}], [{**run, "pid": 4002, **end}, {**run, **end}]):
        active = {} if len(ended) == 2 else {"4001": run}
        bus.trace_import(json.dumps({"active_agents": active, "completed_agents": ended}))


def exporting(bus: Bus, world: World) -> None:
    bus.export_claim("collector")
    bus.export_advance("collector", bus.export_batch("collector"))
    bus.export_release("collector")


def recovering(bus: Bus, world: World) -> None:
    """A session that begins again, one that becomes a milestone, and agents that are started again."""
    bus.register("rex", type=work.EXECUTOR, session="again", operation=EXECUTION)
    bus.recovery_apply("again", "restart", by="faults")
    bus.register("pia", type="milestone-planner", session="planned", operation="planning")
    bus.state_save("pia", "milestone-plan", json.dumps({"title": "M", "tasks": []}))
    bus.recovery_apply("planned", "create-milestone", by="faults")
    invariants.recover(bus)
    bus.recovery_respawn("s")
    bus.recovery_spawned("zoe", pid=1)


def tidying(bus: Bus, world: World) -> None:
    world.prune(bus.monitor_check().pruned)
    bus.clean(stale=0, failed=None)
    bus.clean(stale=None, failed=0)
    world.prune(bus.prune())


CALLS: tuple[Callable[[Bus, World], None], ...] = (
    a_step, several_receipts, registry, checkpointing, sessions, settings, lives, exporting, recovering, tidying,
)  # fmt: skip


@cache
def writing() -> frozenset[str]:
    """The operations that change a bus, and can be used here."""
    names = {f"{path.parent.name}/{path.stem}" for path in (Path(schemas.root()) / "operations").rglob("*.sql")}
    changes = (name for name in names if any(CHANGES.match(part.statement) for part in schemas.parts(name)))
    return frozenset(name for name in changes if not name.startswith(tuple(UNUSED)))


def missing(used: set[Any]) -> list[str]:
    """Those that were not used, though they could have been."""
    return sorted(writing() - used)
