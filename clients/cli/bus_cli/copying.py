"""The command that copies a bus."""

from __future__ import annotations

import click

from bus.api import Bus
from bus.errors import error
from bus_cli.output import Output, command


@click.command()
@click.argument("source", type=click.Path(), metavar="FROM")
@click.argument("target", type=click.Path(), metavar="TO")
@command
def copy(out: Output, source: str, target: str) -> None:
    """Copy a whole bus into a new one: to PostgreSQL, and back.

    FROM and TO are paths or postgresql:// addresses. FROM may be in use, and is not changed; TO is made when it is
    missing, must be empty, and gets all or nothing. Every table is compared by its digest.
    """
    if out.url:
        raise error("usage", "copy takes no --bus: it is told both", "bus copy FROM TO")
    if not source or not target:
        raise error("usage", "FROM and TO can't be empty", "bus copy FROM TO")
    with Bus.open(source, read_only=True) as old, Bus.open(target, create=True) as new:
        copied = old.copy_to(new)
    pairs = list(zip(copied.source, copied.target, strict=True))
    rows = [(one.table, str(one.rows), one.sha256[:16], str(two.rows), two.sha256[:16]) for one, two in pairs]
    if out.as_json:
        out.show(copied)
    else:
        out.table(pairs, ("table", "rows", "digest", "copied", "digest there"), rows)
