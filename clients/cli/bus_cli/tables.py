"""Tables for a terminal; with `bus top` and the display of `bus demo` the place that draws with rich."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from bus_cli.columns import cell


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table to be printed, folded to the terminal's width."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell(value)) for value in row))
    return picture(drawn)


def picture(drawn: RenderableType, width: int | None = None) -> bytes:
    """What rich draws, to be printed to a terminal; or off one, without colour, and so wide. Rich's own way of printing
    ends the process without a word when nobody reads."""
    console = Console(force_terminal=False, no_color=True, width=width) if width else Console(highlight=False)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().encode("utf-8", "surrogateescape")
