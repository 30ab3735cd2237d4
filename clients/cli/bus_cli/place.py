"""The commands of the bus as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bus.api import Bus
from bus.store.url import locate
from bus_cli.output import Output, command
from bus_cli.text import counted, safe


@click.command()
@command
def init(out: Output) -> None:
    """Make the bus, or bring it to this version. Without --bus and $BUS_URL: .milestones/coordination.db here."""
    with out.open(create=True) as bus:
        out.show({"path": bus.url.path}, safe(bus.url.path))


@click.command()
@command
def where(out: Output) -> None:
    """Which bus is meant from here."""
    url = locate(out.url)
    out.show({"path": url.path, "synchronous": url.synchronous}, safe(url.path))


@click.command()
@click.option("--deep", is_flag=True, help="Compare each payload with its digest, too.")
@command
def doctor(out: Output, deep: bool) -> int:
    """Look for what is wrong with the file, locks and leases. Exit status 70 when something is."""
    with out.open() as bus:
        findings = bus.doctor(deep=deep)
    if out.as_json:
        out.show(findings)
    else:
        for finding in findings:
            out.line(f"{finding.verdict:<8} {finding.subject:<13} {safe(finding.details)}")
    return 70 if any(finding.verdict == "fault" for finding in findings) else 0


@click.command()
@click.argument("file", type=click.Path())
@command
def backup(out: Output, file: str) -> None:
    """Copy the bus into a new FILE, while it is used."""
    with out.open() as bus:
        bus.backup(str(Path(file).absolute()))
    out.show({"backup": file})


@click.command()
@click.argument("file", type=click.Path())
@command
def restore(out: Output, file: str) -> None:
    """Go back to a copy that `bus backup` made. What was there is set aside, whole; stop the agents first."""
    aside = Bus.restore(file, out.url)
    words = f"restored from {file}" + (f"; what was there is {aside}" if aside else "")
    out.show({"restored": file, "aside": aside}, safe(words))


@click.command()
@command
def status(out: Output) -> None:
    """The bus in numbers."""
    with out.open() as bus:
        found = bus.status()
    out.show(found, "\n".join(f"{key.replace('_', ' '):<13} {_told(value) or '-'}" for key, value in found.items()))


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in value.items())
    return "\n              ".join(value) if isinstance(value, list) else value


@click.command()
@command
def prune(out: Output) -> None:
    """Remove what is past its retention. That is acknowledged messages, health records and agents' lives on record, and
    state whose time was over a day ago; and the doorbells of who waits no more. Dead messages stay."""
    with out.open() as bus:
        gone = bus.prune()
        bus.store.connection().tidy()
    out.show(
        {"pruned": gone}, f"removed {counted(gone, 'message')}, and all records, health rows and state past their time"
    )


@click.command()
@click.argument("path", required=False, type=click.Path(exists=True, file_okay=False))
@command
def demo(out: Output, path: str | None) -> int:
    """Show the bus at work: one of its workers is killed.

    A coordinator and three executors count the files below PATH (default: Python's own library). One is killed in the
    middle of a file, which another finishes; then everything is counted again, and compared.
    """
    from bus_cli import demonstration

    return demonstration.run(out, path)
