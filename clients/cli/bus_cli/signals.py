"""Ctrl-C and SIGTERM, held back while they would do harm, and a reader who leaves, which is told by SIGTERM."""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from bus.api import Bus

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def end_with_reader() -> None:
    """From now on SIGTERM comes when nobody reads any more what is printed, or what bus.sh prints of it to descriptor
    `$BUS_READER`. Who waits for a script that was killed would take what is for the one that is started next."""
    poll, watched = select.poll(), 0
    for descriptor in ("1", os.environ.get("BUS_READER", "")):
        with suppress(OSError, ValueError, OverflowError):
            if stat.S_ISFIFO(os.fstat(int(descriptor)).st_mode):
                poll.register(int(descriptor), 0)  # of errors one is told in any case
                watched += 1

    def watch() -> None:
        poll.poll()
        os.kill(os.getpid(), signal.SIGTERM)

    if watched:
        threading.Thread(target=watch, daemon=True).start()


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
        bus.store.before_sleep = None
        for number, handler in former.items():
            signal.signal(number, handler)
