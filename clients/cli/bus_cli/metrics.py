"""`bus metrics`: the bus in numbers for a monitoring system."""

from __future__ import annotations

import click

from bus.metrics import room, text
from bus_cli.output import Output, command


@click.command()
@command
def metrics(out: Output) -> None:
    """The bus in numbers, as OpenMetrics text. For Prometheus and its like."""
    with out.open() as bus:
        found = [*bus.metrics(), *room(bus.store.connection().sizes())]
    if out.as_json:
        out.show([family._asdict() for family in found])
    else:
        out.write(text(found).encode("utf-8", "replace"))
