"""The messages that an agent has in hand, whose leases it keeps."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable

from bus.models import Message

LONGEST_PAUSE = 60.0  # seconds
LONGEST_ERROR = 1000  # characters


class Held:
    """Receipts in hand, and how often they and the heartbeat are to be renewed; `changed` wakes their keeper."""

    def __init__(self, heartbeat: float, changed: Callable[[], None]) -> None:
        self._receipts: dict[str, float] = {}
        self._heartbeat = heartbeat
        self._changed = changed

    def take(self, message: Message) -> None:
        """A message comes to hand."""
        if message.due_at and message.delivered_at:
            before = self.interval()
            self._receipts[message.receipt or ""] = (message.due_at - message.delivered_at).total_seconds()
            if self.interval() < before:
                self._changed()

    def drop(self, receipts: str | Iterable[str]) -> None:
        """Somebody settled these."""
        for receipt in [receipts] if isinstance(receipts, str) else list(receipts):
            self._receipts.pop(receipt, None)

    def __contains__(self, receipt: object) -> bool:
        return receipt in self._receipts

    def leases(self) -> list[tuple[str, float]]:
        """Each receipt in hand with the seconds of its lease."""
        return list(self._receipts.items())

    def interval(self) -> float:
        """Seconds until the leases and the heartbeat are due again: a third of the shortest."""
        return max(min([self._heartbeat, *self._receipts.values()]) / 3, 0.05)


def pause_after(message: Message) -> float:
    """Seconds that a message rests after its body raised: 1, 2, 4, … 60, by the times it came back."""
    return float(min(LONGEST_PAUSE, 2.0**message.retry_count))


def ending(problem: BaseException | None) -> dict[str, str]:
    """How an agent ends whose block ended so: its status, and what went wrong in a line."""
    if problem is None:
        return {"status": "completed"}
    words = "".join(traceback.format_exception_only(problem)).strip().replace("\0", "\ufffd")
    return {"status": "failed", "error": words.encode("utf-8", "replace").decode()[:LONGEST_ERROR]}
