"""What is run seldom: a heartbeat, for instance, need not be written with each of an agent's operations."""

from __future__ import annotations

from collections.abc import Mapping

Key = tuple[object, ...]

SELDOM = 1.0  # seconds
MOST = 1000  # keys that are remembered


class Lately:
    """When that was run which is run seldom."""

    def __init__(self) -> None:
        self._when: dict[Key, float] = {}

    def has(self, key: Key, seconds: float) -> bool:
        """Whether this was run less than a second before."""
        return 0 <= seconds - self._when.get(key, -1.0) < SELDOM

    def note(self, committed: Mapping[Key, float]) -> None:
        """These were run, and committed."""
        if len(self._when) > MOST:
            self._when.clear()
        self._when.update(committed)
