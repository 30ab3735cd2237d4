"""The work that agents do in all harnesses: a task is one step, and a step has one effect, in four places at once."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bus_cli.main import COMMANDS

import bus as engine
from bus import Bus, checkpoints, messages, schemas, state
from bus.models import Message
from bus.operation import Operation
from bus.store import sqlite
from bus.store.url import MEMORY as IN_MEMORY
from tests.faults.world import World

MEMORY = "/dev/shm"
SESSION = "s"
BOSS = "boss"
EXECUTOR = "milestone-executor"
QUEUE = f"@{EXECUTOR}"


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards; in memory where there is such a place, for what is not about disks."""
    place = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as made:
        yield Path(made)


def warm() -> None:
    """Import and read what every process that is forked from now on would import and read for itself."""
    for path in sorted((Path(schemas.root()) / "operations").rglob("*.sql")):
        schemas.parts(f"{path.parent.name}/{path.stem}")
    for module in pkgutil.iter_modules(engine.__path__):
        importlib.import_module(f"bus.{module.name}")
    for name in sorted(set(COMMANDS.values())):
        importlib.import_module(f"bus_cli.{name}")


@functools.cache
def _new() -> bytes:
    """A bus with nothing in it."""
    with Bus.open(IN_MEMORY, create=True) as bus:
        return bus.store.connection().sqlite.serialize()


@contextmanager
def made_at_once() -> Iterator[None]:
    """Let new buses be copies of one that was made before; for what is not about how a bus is made."""
    data, prepare = _new(), sqlite.prepare

    def copied(connection: sqlite3.Connection, *rest: Any) -> None:
        if not connection.execute("pragma application_id").fetchone()[0]:
            with closing(sqlite3.connect(IN_MEMORY)) as new:
                new.deserialize(data)
                new.backup(connection)
        prepare(connection, *rest)

    with mock.patch.object(sqlite, "prepare", copied):
        yield


def task(name: str) -> dict[str, Any]:
    """The payload of a task."""
    return {"task_id": name, "context": {"for": name}, "title": f"“{name}” \t \\u0041"}


def answer(message: Message) -> dict[str, Any]:
    """The payload of the message that follows on a task."""
    return {"task_id": f"done-{message.payload['task_id']}", "success": True}


def operations(agent: str, message: Message, count: tuple[str, int] | None) -> Sequence[Operation[Any]]:
    """What a step does about a task, but for the acknowledgement: marks it done, counts, checkpoints, answers."""
    number = int(count[0]) + 1 if count else 1
    return [
        state.save(agent, f"done/{message.id}", message.payload["task_id"]),
        state.save(agent, "count", str(number), if_version=count[1] if count else 0),
        checkpoints.create(agent, {"at": message.id, "count": number}, type="automatic"),
        messages.send(agent, message.from_agent, "completion_notification", answer(message), reply_to=message.id),
    ]


def do(bus: Bus, agent: str, message: Message, world: World) -> None:
    """One step about one message; answers are only acknowledged. Raises `lease_lost` and the like."""
    if message.message_type != "task_assignment":
        bus.ack(message.receipt or "")
        return world.acknowledge(message.receipt)
    doing = operations(agent, message, bus.state_load_versioned(agent, "count"))
    world.intend(answer(message)["task_id"], answer(message))
    results = bus.apply([messages.ack(message.receipt or "", once=True), *doing])
    return told(world, agent, message, results[1:])


def told(world: World, agent: str, message: Message, results: Sequence[Any]) -> None:
    """Note what a step that was confirmed has done; `results` are those of `operations`."""
    world.acknowledge(message.receipt)
    world.save(agent, f"done/{message.id}", results[0], message.payload["task_id"])
    world.save(agent, "count", results[1], str(results[2].state_snapshot["count"]))
    world.confirm(results[3], answer(message)["task_id"])
