"""`bus trace`: agents' lives on record, and what they answer."""

from __future__ import annotations

import click

from bus_cli.output import Output, command
from bus_cli.trace import exporting, importing, recording, reports


@click.group()
@command
def trace(out: Output) -> None:
    """Agents' lives on record: who runs, how long, what is slow."""


COMMANDS = (
    recording.spawn,
    recording.start,
    recording.finish,
    recording.show,
    reports.active,
    reports.velocity,
    reports.bottlenecks,
    reports.timeline,
    reports.throughput,
    reports.waiting,
    importing.import_,
    exporting.export,
)
for each in COMMANDS:
    trace.add_command(each)
