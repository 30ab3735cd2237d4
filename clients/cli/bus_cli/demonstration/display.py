"""How the demo shows its progress: live on a terminal, a line a second elsewhere, nothing with --json."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bus_cli.demonstration.plan import Plan
from bus_cli.demonstration.team import KINDS
from bus_cli.output import Output
from bus_cli.text import safe

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Screen:
    """Counts, and says nothing."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = dict.fromkeys(KINDS, 0)
        self.fates = dict.fromkeys(KINDS, "")

    def say(self, text: str) -> None:
        """A line for people."""

    def advance(self, agent: str) -> None:
        """One more file was done by this agent."""
        self.done[agent] += 1

    def killed(self, agent: str, message: int) -> None:
        """This agent was killed in the middle of a message."""
        self.fates[agent] = f"killed in the middle of message {message}"
        self.say(f"{agent} {self.fates[agent]}; its message goes to another")


class Lines(Screen):
    """Plain lines."""

    def __init__(self, out: Output, total: int) -> None:
        super().__init__(total)
        self._out = out
        self._next = time.monotonic() + 1

    def say(self, text: str) -> None:
        self._out.line(safe(text))
        self._out.flush()

    def advance(self, agent: str) -> None:
        super().advance(agent)
        if time.monotonic() >= self._next or sum(self.done.values()) == self.total:
            self._next = time.monotonic() + 1
            each = ", ".join(f"{name} {number}" for name, number in self.done.items())
            self.say(f"{sum(self.done.values()):>5} of {self.total} files: {each}")


class Bars(Screen):
    """A bar for all and one for each executor."""

    def __init__(self, progress: Progress, total: int) -> None:
        super().__init__(total)
        self._progress = progress
        self._all = progress.add_task("all files", total=total, note="")
        self._bars: dict[str, TaskID] = {
            agent: progress.add_task(f"{agent} ({kind})", total=total, note="") for agent, kind in KINDS.items()
        }

    def say(self, text: str) -> None:
        self._progress.console.print(safe(text), highlight=False, markup=False)

    def advance(self, agent: str) -> None:
        super().advance(agent)
        self._progress.advance(self._all)
        self._progress.advance(self._bars[agent])

    def killed(self, agent: str, message: int) -> None:
        super().killed(agent, message)
        self._progress.update(self._bars[agent], note="killed")


@contextmanager
def display(out: Output, plan: Plan) -> Iterator[Screen]:
    """The screen that fits where the output goes."""
    if out.as_json:
        yield Screen(len(plan.tasks))
    elif sys.stdout is not None and sys.stdout.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TextColumn("[red]{task.fields[note]}")) as progress:
            yield Bars(progress, len(plan.tasks))
    else:
        yield Lines(out, len(plan.tasks))
