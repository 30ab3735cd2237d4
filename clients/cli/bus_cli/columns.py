"""Tables for programs and files, and of very many rows: words below each other, each line whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.cells import cell_len

from bus_cli.text import moment, safe


def lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A table to be printed, its columns as wide as what is widest in each."""
    cells = [columns, *([cell(value) for value in row] for row in rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    return "".join(f"{'  '.join(map(_filled, line, widths))}\n" for line in cells).encode("utf-8", "surrogateescape")


def cell(value: object) -> str:
    """What is told of a value in a table."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return moment(value)
    return safe(value)


def _filled(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
