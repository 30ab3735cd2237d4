"""`bus trace export`: the bus's traces to a collector of OpenTelemetry."""

from __future__ import annotations

import sys

import click

from bus.errors import error
from bus_cli.output import Output, command
from bus_cli.text import counted


@click.command()
@click.option("--otlp", "url", metavar="URL", required=True, help="The collector, such as http://localhost:4318.")
@click.option("--follow", is_flag=True, help="Go on as long as the bus is used; wait for a collector that is down.")
@click.option("--bodies", is_flag=True, help="Tell payloads, commands and outputs, too.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Send this header; may be repeated.")
@command
def export(out: Output, url: str, follow: bool, bodies: bool, headers: tuple[str, ...]) -> None:
    """Send lives and messages to a collector of OpenTelemetry. As spans, by OTLP over HTTP.

    Goes on where it stopped the last time, for each collector by itself. Headers can be given in
    OTEL_EXPORTER_OTLP_HEADERS, too, where no other process sees them; user and password in URL.
    """
    try:
        from bus_cli.otlp.collector import Collector
        from bus_cli.otlp.exporter import Exporter
    except ImportError as problem:
        hint = f"{sys.executable} -m pip install opentelemetry-proto"
        raise error("usage", "exporting needs opentelemetry-proto", hint) from problem
    collector = Collector(url, dict(map(_header, headers)))
    with out.open() as bus:
        told = Exporter(bus, collector, follow=follow, bodies=bodies).carry_out()
    out.show({"exported": told}, f"{counted(told, 'span')} exported")


def _header(given: str) -> tuple[str, str]:
    name, sign, value = given.partition("=")
    if not sign or not name.strip():
        raise error("usage", "a header is NAME=VALUE")
    return name.strip(), value.strip()
