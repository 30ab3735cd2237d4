"""How the demo shows its progress: live on a terminal, a line a second elsewhere, nothing with --json."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bus_cli.demonstration.team import KINDS
from bus_cli.output import Output
from bus_cli.text import safe

if TYPE_CHECKING:
    from rich.console import Console, Group


class Screen:
    """Counts, and says nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = dict.fromkeys(KINDS, 0)
        self.states = dict.fromkeys(KINDS, "not started")
        self.styles = dict.fromkeys(KINDS, "")

    def say(self, text: str = "", style: str = "") -> None:
        """A line for people."""

    def advance(self, agent: str) -> None:
        """One more file was done by this agent."""
        self.done[agent] += 1

    def becomes(self, agent: str, state: str, style: str = "") -> None:
        """What this agent does now."""
        self.states[agent] = state
        self.styles[agent] = style


class Lines(Screen):
    """Plain lines."""

    def __init__(self, out: Output, total: int) -> None:
        super().__init__(total)
        self._out = out
        self._next = time.monotonic() + 1

    def say(self, text: str = "", style: str = "") -> None:
        self._out.line(safe(text))
        self._out.flush()

    def advance(self, agent: str) -> None:
        super().advance(agent)
        done = sum(self.done.values())
        if time.monotonic() >= self._next or done == self.total:
            self._next = time.monotonic() + 1
            each = ", ".join(f"{name} {number:,}" for name, number in self.done.items())
            self.say(f"{done:>7,} of {self.total:,} files: {each}")

    def becomes(self, agent: str, state: str, style: str = "") -> None:
        super().becomes(agent, state, style)
        self.say(f"{agent} ({KINDS[agent]}): {state}")


class Terminal(Screen):
    """A bar for all files, and a line for each executor."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(total)
        self._console = console
        self._begun = time.monotonic()

    def say(self, text: str = "", style: str = "") -> None:
        self._console.print(safe(text), style=style or None, highlight=False, markup=False, soft_wrap=True)

    def picture(self) -> Group:
        """What is seen while the work goes on."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        done, seconds = sum(self.done.values()), time.monotonic() - self._begun
        bar, team = Table.grid(padding=(0, 2)), Table.grid(padding=(0, 2))
        rate = f"{done / max(seconds, 0.1):,.0f}/s"
        bar.add_row(
            "", ProgressBar(self.total, done, width=40), f"{done:,} of {self.total:,} files", rate, f"{seconds:.0f} s"
        )
        for agent, kind in KINDS.items():
            files = Text(f"{self.done[agent]:,}".rjust(6))
            team.add_row("", agent, kind, files, Text(self.states[agent], self.styles[agent]))
        return Group("", bar, "", team)


@contextmanager
def display(out: Output, total: int) -> Iterator[Screen]:
    """The screen that fits where the output goes; it may be talked to after the work too."""
    if out.as_json:
        yield Screen(total)
    elif sys.stdout is None or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        yield Lines(out, total)
    else:
        from rich.console import Console
        from rich.live import Live

        console = Console()
        screen = Terminal(console, total)
        with Live(get_renderable=screen.picture, console=console, refresh_per_second=10, transient=True):
            yield screen
