"""The command that tells where the functions of shell agents are."""

from __future__ import annotations

from pathlib import Path

import click

from bus_cli.output import Output, command


def functions() -> Path:
    """Where bus.sh is: in the package of a wheel, else in the tree."""
    inside = Path(__file__).parent / "bus.sh"
    return inside if inside.exists() else Path(__file__).parents[2] / "shell" / "bus.sh"


@click.command()
@command
def shell(out: Output) -> None:
    """Print the path of bus.sh: source "$(bus shell)"."""
    out.show({"path": str(functions())}, str(functions()))
