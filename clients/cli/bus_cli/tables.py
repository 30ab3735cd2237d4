"""Tables for people; with `bus top` and the display of `bus demo` the place that needs rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from bus_cli.text import moment, safe


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], terminal: bool) -> bytes:
    """A table to be printed: off a terminal wide enough for all of it, on one folded to its width."""
    drawn = Table(
        box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, padding=(0, 1, 0, 0) if terminal else (0, 1)
    )
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(_cell(value)) for value in row))
    return picture(drawn, terminal, 10_000)


def picture(drawn: RenderableType, terminal: bool, width: int) -> bytes:
    """What rich draws, to be printed; off a terminal without colour, and so wide. Rich's own way of printing ends the
    process without a word when nobody reads."""
    console = Console(highlight=False) if terminal else Console(force_terminal=False, no_color=True, width=width)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().encode("utf-8", "surrogateescape")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    return safe(value)
