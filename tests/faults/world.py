"""What the world outside the bus knows: who meant to do what, and what was confirmed to them.

Each process of a harness notes it in a file of its own, a line a call of `os.write`, so that a killed one loses nothing
that it was told. `World.read` puts the journals together again, for `invariants.verify`.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class World:
    """All that was intended and confirmed. `note` takes one event; see the methods for those there are."""

    def __init__(self) -> None:
        self.intended: Counter[str] = Counter()
        self.payloads: dict[str, set[str]] = {}
        self.sent: dict[int, str] = {}
        self.taken: Counter[tuple[int, int]] = Counter()
        self.acknowledged: dict[int, int] = {}
        self.saved: dict[tuple[str, str, int], set[str]] = {}
        self.pruned = 0

    def copy(self) -> World:
        """As it is now."""
        return copy.deepcopy(self)

    def intend(self, task: str, payload: dict[str, Any], *, times: int = 1, key: bool = False) -> None:
        """Somebody is about to send this, at most so many times; `task` is its task_id, by which it is known again.
        Under an idempotency key it is stored once, however often it is sent."""
        self.note("intended", task, canonical(payload), times, key)

    def confirm(self, id: int, task: str) -> None:
        """The bus gave the message this id."""
        self.note("sent", id, task)

    def take(self, receipt: str | None) -> None:
        """The bus handed this out."""
        self.note("taken", *parts(receipt))

    def acknowledge(self, receipt: str | None) -> None:
        """The bus took the acknowledgement."""
        self.note("acknowledged", *parts(receipt))

    def save(self, agent: str, key: str, version: int, value: str) -> None:
        """The bus gave the value this version."""
        self.note("saved", agent, key, version, value)

    def prune(self, number: int) -> None:
        """Retention removed so many messages."""
        self.note("pruned", number)

    def note(self, what: str, *facts: Any) -> None:
        getattr(self, f"_{what}")(*facts)

    def _intended(self, task: str, payload: str, times: int, key: bool) -> None:
        self.intended[task] = 1 if key else self.intended[task] + times
        self.payloads.setdefault(task, set()).add(payload)

    def _sent(self, id: int, task: str) -> None:
        self.sent[id] = task

    def _taken(self, id: int, delivery: int) -> None:
        self.taken[id, delivery] += 1

    def _acknowledged(self, id: int, delivery: int) -> None:
        self.acknowledged[id] = delivery

    def _saved(self, agent: str, key: str, version: int, value: str) -> None:
        self.saved.setdefault((agent, key, version), set()).add(value)

    def _pruned(self, number: int) -> None:
        self.pruned += number

    @classmethod
    def read(cls, journals: Iterable[Path]) -> World:
        """The world as journals tell it. A line that was never finished tells nothing."""
        world = cls()
        for journal in journals:
            for line in journal.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    world.note(*json.loads(line))
        return world


class Journal(World):
    """A world that is written down, for another process to read."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, what: str, *facts: Any) -> None:
        os.write(self._descriptor, json.dumps([what, *facts]).encode() + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def parts(receipt: str | None) -> tuple[int, int]:
    """Message and delivery of a receipt."""
    id, _, delivery = (receipt or "").partition(".")
    return int(id), int(delivery)


def canonical(payload: str | dict[str, Any]) -> str:
    """The payload in a form in which equal ones are the same text."""
    return json.dumps(json.loads(payload) if isinstance(payload, str) else payload, sort_keys=True)
