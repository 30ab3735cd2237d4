"""Tells a collector what is new on a bus."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bus import Bus
from bus.errors import BusError, TryAgain, error
from bus_cli.otlp import spans
from bus_cli.otlp.collector import Collector, NotNow
from bus_cli.output import note
from bus_cli.text import safe

T = TypeVar("T")

LONGEST = 60.0  # seconds between two tries
LOOK = 1.0  # seconds between two looks


class Exporter:
    """Tells one collector, batch by batch; a batch is done with when the collector has taken it. `wait` lets so many
    seconds pass."""

    def __init__(
        self, bus: Bus, collector: Collector, *, follow: bool, bodies: bool, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._bus = bus
        self._collector = collector
        self._follow = follow
        self._bodies = bodies
        self._wait = wait
        self._told = 0

    def carry_out(self) -> int:
        """Tell all that is new, and, following, all that becomes new; how many spans were told."""
        self._asked(partial(self._bus.export_claim, self._collector.target))
        try:
            version, looked = None, 0.0
            while True:
                before, version = version, self._asked(self._bus.data_version)
                if version != before or time.monotonic() - looked > LONGEST:  # who was found gone ends a minute later
                    looked = time.monotonic()
                    while self._round():
                        pass
                if not self._follow:
                    return self._told
                self._wait(LOOK)
        finally:
            with suppress(BusError):  # whoever comes next sees that this process is gone
                self._bus.export_release(self._collector.target)

    def _asked(self, ask: Callable[[], T]) -> T:
        """What the bus answers; who follows asks again while it can't."""
        while True:
            try:
                return ask()
            except TryAgain as problem:
                if not self._follow or problem.code == "already_exporting":
                    raise
                note(f"bus: {safe(problem)}")
                self._wait(LOOK)

    def _round(self) -> bool:
        """One batch: told first, then done with. False when there was none."""
        batch = self._asked(partial(self._bus.export_batch, self._collector.target))
        if not batch.moves():
            return False
        if batch.spans():
            self._tell(spans.request(batch, self._bodies))
        self._asked(partial(self._bus.export_advance, self._collector.target, batch))
        self._told += batch.spans()
        return True

    def _tell(self, request: ExportTraceServiceRequest) -> None:
        tries = 0
        while True:
            try:
                if complaint := self._collector.take(request):
                    note(f"bus: {safe(complaint)}")
                return
            except NotNow as problem:
                words = f"the collector at {self._collector.target} can't be reached: {problem}"
                if not self._follow:
                    raise error("collector_down", words) from problem
                if not tries:
                    note(f"bus: {safe(words)}; trying on")
                self._wait(min(LONGEST, 2.0**tries if problem.wait is None else problem.wait))
                tries = min(tries + 1, 6)
