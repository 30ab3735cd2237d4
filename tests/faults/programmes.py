"""The fault programmes, by name. Each is a module of this folder with UNIT, SIZES, run(size, seed) and CONTROLS."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, cast

SIZE_NAMES = ("quick", "nightly", "release")
NAMES = (
    "kill",
    "simulation",
    "model",
    "stores",
    "clocks",
    "cancellation",
    "system_calls",
    "damage",
    "power",
    "postgres",
    "histories",
    "crowd",
    "wal_reset",
    "bad_input",
    "scarcity",
    "migrations",
)


class Programme(Protocol):
    """A harness. `run` raises `Breach` when an invariant does not hold; each control must raise it."""

    __name__: str
    __doc__: str | None
    UNIT: str
    SIZES: dict[str, int]
    CONTROLS: tuple[Callable[[int], None], ...]

    def run(self, size: int, seed: int) -> str: ...


def programme(name: str) -> Programme:
    """The programme of that name."""
    return cast(Programme, importlib.import_module(f"tests.faults.{name}"))
