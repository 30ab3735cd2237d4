"""Ctrl-C and SIGTERM, held back while they would do harm."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bus.api import Bus

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def only_asleep(bus: Bus) -> Iterator[Callable[[], None]]:
    """In the body a signal interrupts only while the bus sleeps, or as soon as it would; others are held back. What is
    yielded lets the first of these interrupt; when the body ends without that, they came too late. What is ignored
    stays so."""
    handlers = {number: signal.getsignal(number) for number in NUMBERS}
    former = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if bus.store.asleep:
            let_through()

    def let_through() -> None:
        handler = former[signal.Signals(held[0])] if held else None
        if callable(handler):
            handler(held[0], None)

    for number in former:
        signal.signal(number, hold)
    bus.store.before_sleep = let_through
    try:
        yield let_through
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
