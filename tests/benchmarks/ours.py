"""The bus, as its users call it: every check and feature on."""

from __future__ import annotations

import os
from pathlib import Path

from bus_client import Agent

from bus import Bus
from tests.benchmarks.contestant import Contestant, body

TYPE = "milestone-executor"
SESSION = "bench"


def address(folder: Path, mode: str) -> str:
    """The URL of the bus in a folder."""
    return f"sqlite:///{folder}/bus.db?synchronous={mode}"


def open_bus(folder: Path, mode: str) -> Bus:
    return Bus.open(address(folder, mode), create=True)


class Ours:
    """send, receive, ack. Workers share the queue of their type."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        self.bus = open_bus(folder, mode)
        self.agent = f"worker-{worker}"
        self.bus.register(self.agent, type=TYPE, session=SESSION, pid=os.getpid())

    def put(self, number: int) -> None:
        self.bus.send(self.agent, f"@{TYPE}", "task_assignment", body(number))

    def take(self) -> int | None:
        found = self.bus.receive(self.agent)
        if not found:
            return None
        self.bus.ack(found[0].receipt or "")
        return int(found[0].payload["task_id"])

    def close(self) -> None:
        self.bus.close()


def loop(agent: Agent, count: int) -> int:
    """`count` messages through `for message in agent.messages()`, each sent by the body of the one before it; how many
    arrived."""
    arrived = 0
    agent.send(agent.id, "task_assignment", body(0))
    for message in agent.messages():
        arrived += message.payload["task_id"] == str(arrived)
        if arrived < count:
            agent.send(agent.id, "task_assignment", body(arrived))
    return arrived


def batches(bus: Bus, agent: str, first: int, count: int, size: int) -> int:
    """`count` messages, sent, received and acknowledged so many in one transaction; how many arrived."""
    from bus import messages

    arrived = 0
    for start in range(first, first + count, size):
        bus.apply([messages.send(agent, agent, "task_assignment", body(at)) for at in range(start, start + size)])
        found = bus.receive(agent, limit=size)
        bus.ack([message.receipt or "" for message in found])
        arrived += sum(int(message.payload["task_id"]) == start + at for at, message in enumerate(found))
    return arrived


OURS = Contestant("agent-bus", "ours", Ours)
