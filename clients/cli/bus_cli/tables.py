"""Tables for people; the one place that needs rich."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus_cli.text import safe


def show(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; off a terminal without colour, and wide enough for all of it."""
    terminal = sys.stdout.isatty()
    console = Console(highlight=False) if terminal else Console(force_terminal=False, no_color=True, width=10_000)
    table = Table(*columns, box=box.SIMPLE_HEAD if terminal else None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console.print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%SZ")
    return safe(value)
