"""The messages that an agent has in hand, whose leases it keeps."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable

from bus import clock
from bus.models import Message

LONGEST_PAUSE = 60  # seconds that a message rests whose body raised
SHORTEST_PAUSE = 0.05  # seconds between two renewals
LONGEST_ERROR = 1000  # characters


class Held:
    """Receipts in hand, and when they and the heartbeat are to be renewed: `heartbeat` seconds after the last time, or
    a third of the shortest lease. `changed` wakes their keeper when that has become sooner."""

    def __init__(self, heartbeat: float, changed: Callable[[], None]) -> None:
        self._receipts: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._heartbeat = max(heartbeat, SHORTEST_PAUSE)
        self._changed = changed
        self._lock = threading.RLock()  # the keeper renews in a thread of its own
        self._renewed, self._patience = clock.monotonic(), self._heartbeat

    def take(self, message: Message) -> None:
        """A message comes to hand."""
        if message.due_at and message.delivered_at:
            lease = (message.due_at - message.delivered_at).total_seconds()
            with self._lock:
                self._receipts[message.receipt or ""] = lease
                sooner = _third(lease) < self._patience
                self._patience = min(_third(lease), self._patience)
            if sooner:
                self._changed()

    def drop(self, receipts: str | Iterable[str]) -> None:
        """Somebody settled these."""
        for receipt in [receipts] if isinstance(receipts, str) else receipts:
            self._receipts.pop(receipt, None)
            self._reasons.pop(receipt, None)

    def failed(self, message: Message | None, problem: BaseException) -> None:
        """The step of a message raised; its reason, should it be given back."""
        if message and message.receipt in self:
            self._reasons[message.receipt or ""] = _in_a_line(problem)

    def reason(self, receipt: str) -> str | None:
        """Why the work on a message failed, when that is known."""
        return self._reasons.get(receipt)

    def __contains__(self, receipt: object) -> bool:
        return receipt in self._receipts

    def due(self) -> float:
        """Seconds until the leases and the heartbeat are to be renewed."""
        return max(self._renewed + self._patience - clock.monotonic(), 0.0)

    def renew(self) -> list[tuple[str, float]]:
        """They are renewed now: each receipt in hand with the seconds of its lease."""
        with self._lock:
            self._renewed = clock.monotonic()
            held = list(self._receipts.items())
            self._patience = min([self._heartbeat, *(_third(lease) for _, lease in held)])
            return held


def _third(lease: float) -> float:
    return max(lease / 3, SHORTEST_PAUSE)


def pause_after(message: Message) -> float:
    """Seconds that a message rests after its body raised: 1, 2, 4, … 60, by the times it came back."""
    return float(min(LONGEST_PAUSE, 2**message.retry_count))


def ending(problem: BaseException | None) -> dict[str, str]:
    """How an agent ends whose block ended so: its status, and what went wrong in a line."""
    if problem is None or (isinstance(problem, SystemExit) and problem.code in (None, 0)):
        return {"status": "completed"}
    return {"status": "failed", "error": _in_a_line(problem)}


def _in_a_line(problem: BaseException) -> str:
    words = "".join(traceback.format_exception_only(problem)).strip().replace("\0", "\ufffd")
    return words.encode("utf-8", "replace").decode()[:LONGEST_ERROR]
