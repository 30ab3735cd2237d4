"""`bus trace export`: the bus's traces to a collector of OpenTelemetry."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from bus import Bus
from bus.errors import error
from bus_cli.output import Output, command
from bus_cli.text import safe

if TYPE_CHECKING:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from bus_cli.otlp.collector import Collector

LONGEST = 60.0  # seconds between two tries
LOOK = 1.0  # seconds between two looks


@click.command()
@click.option("--otlp", "url", metavar="URL", required=True, help="The collector, such as http://localhost:4318.")
@click.option("--follow", is_flag=True, help="Go on as long as the bus is used; wait for a collector that is down.")
@click.option("--bodies", is_flag=True, help="Tell payloads, commands and outputs, too.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Send this header; may be repeated.")
@command
def export(out: Output, url: str, follow: bool, bodies: bool, headers: tuple[str, ...]) -> None:
    """Export agents' lives and messages as OpenTelemetry spans, by OTLP over HTTP.

    Goes on where it stopped the last time, for each collector by itself. Headers can be given in
    OTEL_EXPORTER_OTLP_HEADERS, too, where no other process sees them; user and password in URL.
    """
    collector = _collector(url, dict(_header(header) for header in headers))
    with out.open() as bus:
        bus.export_claim(collector.target)
        try:
            told = Exporter(bus, collector, bodies).carry_out(follow)
        finally:
            bus.export_release(collector.target)
    out.show({"exported": told}, f"{told} spans exported")


def _collector(url: str, headers: dict[str, str]) -> Collector:
    try:
        from bus_cli.otlp.collector import Collector
    except ImportError as problem:
        words = f"exporting needs {problem.name or 'opentelemetry-proto'}"
        raise error("usage", words, "install agent-bus[otel]") from problem
    return Collector(url, headers)


def _header(given: str) -> tuple[str, str]:
    name, sign, value = given.partition("=")
    if not sign or not name.strip():
        raise error("usage", "a header is NAME=VALUE")
    return name.strip(), value.strip()


class Exporter:
    """Tells a collector what is new on a bus."""

    def __init__(self, bus: Bus, collector: Collector, bodies: bool) -> None:
        self._bus = bus
        self._collector = collector
        self._bodies = bodies
        self._told = 0

    def carry_out(self, follow: bool) -> int:
        """Tell all that is new, and go on with `follow`; how many spans were told."""
        version, looked = None, 0.0
        while True:
            before, version = version, self._bus.data_version()
            if version != before or time.monotonic() - looked > LONGEST:  # what was found gone has ended a minute later
                looked = time.monotonic()
                while self._round(follow):
                    pass
            if not follow:
                return self._told
            time.sleep(LOOK)

    def _round(self, follow: bool) -> bool:
        """One batch: told first, then done with. False when there was none."""
        from bus_cli.otlp import spans

        batch = self._bus.export_batch(self._collector.target)
        if not batch.moves():
            return False
        if batch.spans():
            self._tell(spans.request(batch, self._bodies), follow)
        self._bus.export_advance(self._collector.target, batch)
        self._told += batch.spans()
        return True

    def _tell(self, request: ExportTraceServiceRequest, follow: bool) -> None:
        from bus_cli.otlp.collector import NotNow

        tries = 0
        while True:
            try:
                complaint = self._collector.take(request)
                break
            except NotNow as problem:
                if not follow:
                    words = f"the collector at {self._collector.target} can't be reached: {problem}"
                    raise error("collector_down", words) from problem
                if not tries:
                    _note(f"the collector at {self._collector.target} can't be reached ({problem}); trying on")
                time.sleep(min(LONGEST, problem.wait if problem.wait is not None else 2.0**tries))
                tries = min(tries + 1, 6)
        if complaint:
            _note(complaint)


def _note(words: str) -> None:
    if sys.stderr is not None:
        print(f"bus: {safe(words)}", file=sys.stderr, flush=True)
