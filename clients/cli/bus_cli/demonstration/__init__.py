"""`bus demo`: a coordinator and three executors count and hash real files; one of them is killed at work."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bus.errors import error
from bus_cli.demonstration.coordinator import Coordinator
from bus_cli.demonstration.display import display
from bus_cli.demonstration.plan import Plan, recount
from bus_cli.demonstration.report import Report
from bus_cli.demonstration.team import Team
from bus_cli.output import Output


def run(out: Output, path: str | None) -> int:
    """Run the demo, on a bus of its own, which stays; 0 when every file was done exactly once, else 1."""
    plan = Plan.of(path)
    if not plan.tasks:
        raise error("usage", f"there are no files to read in {plan.folder}", "name a folder with files in it")
    bus = Path(tempfile.mkdtemp(prefix="bus-demo-"), "coordination.db")
    begun = time.monotonic()
    with Coordinator(bus, plan) as coordinator, Team(bus.parent, str(bus)) as team:
        with display(out, len(plan.tasks)) as screen:
            screen.say(_intention(plan), "bold")
            screen.say(f"  in   {plan.folder}")
            screen.say(f"  bus  {bus}")
            outcome = coordinator.work(team, screen)
        seconds = time.monotonic() - begun
    report = Report(plan, outcome, seconds, recount(plan, outcome.results), bus)
    report.tell(screen)
    out.show(report.record())
    return 1 if report.wrong else 0


def _intention(plan: Plan) -> str:
    some = "" if len(plan.tasks) == plan.found - plan.unreadable else " (big and small ones)"
    unreadable = f"; {plan.unreadable} can't be read" if plan.unreadable else ""
    return f"Counting {len(plan.tasks):,} of {plan.found:,} files{some}{unreadable}"
