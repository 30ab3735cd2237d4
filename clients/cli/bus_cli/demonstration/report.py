"""What the demo tells at its end: for people, and as JSON."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

from bus_cli.demonstration.coordinator import Outcome
from bus_cli.demonstration.display import Screen
from bus_cli.demonstration.plan import Plan, Recount
from bus_cli.demonstration.team import KINDS, VICTIM
from bus_cli.interpreter import PYTHON
from bus_cli.text import safe


class Report(NamedTuple):
    """The plan, what came of it, in which time, and what the recount says."""

    plan: Plan
    outcome: Outcome
    seconds: float
    recount: Recount
    bus: Path

    @property
    def wrong(self) -> list[str]:
        """All that is wrong; nothing, when every file was done exactly once."""
        return [*self.recount.wrong, *self.outcome.wrong]

    @property
    def rate(self) -> int:
        """Messages a second, of all that went over the bus."""
        return round(self.outcome.messages / self.seconds)

    def record(self) -> dict[str, object]:
        """The report as JSON has it."""
        return {
            "files": len(self.plan.tasks),
            "found": self.plan.found,
            "lines": self.recount.lines,
            "bytes": self.recount.bytes,
            "by_agent": {agent: len(done) for agent, done in self.outcome.results.items()},
            "killed": VICTIM,
            "redelivered": self.outcome.redelivered.id,
            "deliveries": self.outcome.redelivered.delivery,
            "finished_by": self.outcome.finisher,
            "seconds": round(self.seconds, 2),
            "messages": self.outcome.messages,
            "messages_per_second": self.rate,
            "verified": not self.wrong,
            "wrong": [safe(line) for line in self.wrong],  # a name that is not UTF-8 is no JSON
            "bus": str(self.bus),
        }

    def tell(self, screen: Screen) -> None:
        """The report for people."""
        came_back = self.outcome.redelivered
        screen.say()
        for agent, done in self.outcome.results.items():
            fate, style = self._fate(agent)
            screen.say(f"  {agent:<12} {KINDS[agent]:<7} {len(done):>6,} files   {fate}".rstrip(), style)
        screen.say()
        times, finisher = came_back.delivery, self.outcome.finisher or "nobody"
        screen.say(f"  message {came_back.id} came back: delivered {times} times, finished by {finisher}")
        screen.say(f"  {self.outcome.messages:,} messages in {self.seconds:.1f} s: {self.rate:,} a second")
        self._judge(screen)
        screen.say()
        screen.say(f"Try next (what became of message {came_back.id}, who was there, what {VICTIM} had saved):")
        for line in self._commands():
            screen.say(f"  {line}", "cyan")

    def _fate(self, agent: str) -> tuple[str, str]:
        if agent == VICTIM:
            return f"killed (SIGKILL), holding message {self.outcome.redelivered.id}", "red"
        if agent == self.outcome.finisher:
            return f"finished message {self.outcome.redelivered.id} of {VICTIM}", ""
        return "", ""

    def _judge(self, screen: Screen) -> None:
        counted = f"{len(self.plan.tasks):,} files, {self.recount.lines:,} lines, {self.recount.bytes:,} bytes"
        screen.say(f"  recounted {counted}:")
        verdict = f"wrong: {len(self.wrong)}" if self.wrong else "every file exactly once, all values right"
        screen.say(f"  {verdict}", "bold red" if self.wrong else "bold green")
        for line in self.wrong[:10]:
            screen.say(f"    {line}", "red")

    def _commands(self) -> list[str]:
        start = f"{_bus()} --bus {shlex.quote(str(self.bus))}"
        return [
            f"{start} message {self.outcome.redelivered.id}",
            f"{start} agents",
            f"{start} state list {VICTIM}",
        ]


def _bus() -> str:
    """How to call the bus command from here."""
    if shutil.which("bus"):
        return "bus"
    called = sys.argv[0]
    if os.access(called, os.X_OK) and not called.endswith(".py"):
        return shlex.quote(called)
    return f"{shlex.join(PYTHON)} -m bus_cli"
