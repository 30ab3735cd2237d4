"""`bus demo`: a coordinator and three executors count and hash real files; one of them is killed at work."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bus.errors import error
from bus_cli.demonstration.coordinator import Coordinator, Outcome
from bus_cli.demonstration.display import display
from bus_cli.demonstration.plan import Plan, recount
from bus_cli.demonstration.team import Team
from bus_cli.output import Output
from bus_cli.text import safe


def run(out: Output, path: str | None) -> int:
    """Run the demo; 0 when every file was done exactly once, else 1."""
    plan = Plan.of(path)
    if not plan.tasks:
        raise error("usage", f"there are no files in {plan.folder}", "name a folder with files in it")
    folder = Path(tempfile.mkdtemp(prefix="bus-demo-"))
    command = _command(folder)
    begun = time.monotonic()
    with Coordinator(folder / "coordination.db", plan) as coordinator, Team(folder, command) as team:
        with display(out, plan) as screen:
            screen.say(f"{len(plan.tasks)} of {plan.found} files below {plan.folder}; the bus is {coordinator.path}")
            outcome = coordinator.work(team, screen)
        seconds = time.monotonic() - begun
        wrong = recount(plan, outcome.results)
    _report(out, plan, outcome, seconds, wrong)
    if not out.as_json:
        _next(out, coordinator.path, outcome)
    return 1 if wrong else 0


def _command(folder: Path) -> Path:
    """A `bus` command for the shell executors, whatever is on the path."""
    command = folder / "bus"
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bus_cli.main "$@"\n')
    command.chmod(0o700)
    return command


def _report(out: Output, plan: Plan, outcome: Outcome, seconds: float, wrong: list[str]) -> None:
    done = {agent: len(results) for agent, results in outcome.results.items()}
    rate = round(outcome.messages / seconds)
    out.show(
        {
            "files": len(plan.tasks),
            "by_agent": done,
            "killed": outcome.killed,
            "redelivered": outcome.redelivered,
            "finished_by": outcome.finisher,
            "seconds": round(seconds, 2),
            "messages": outcome.messages,
            "messages_per_second": rate,
            "verified": not wrong,
            "wrong": wrong,
        }
    )
    if out.as_json:
        return
    out.line("")
    for agent, number in done.items():
        out.line(f"  {agent:<12} {outcome.kinds[agent]:<7} {number:>5} files{_fate(agent, outcome)}")
    out.line("")
    out.line(f"  {outcome.messages} messages in {seconds:.1f} s: {rate} a second")
    for line in wrong[:10]:
        out.line(f"  wrong: {safe(line)}")
    verdict = f"  {len(wrong)} of them wrong" if wrong else "every file exactly once, lines and digests right"
    out.line(f"  recounted {len(plan.tasks)} files: {verdict}")


def _fate(agent: str, outcome: Outcome) -> str:
    if agent == outcome.killed:
        return f"   killed (SIGKILL) in the middle of message {outcome.redelivered}"
    if agent == outcome.finisher:
        return f"   took over message {outcome.redelivered} from {outcome.killed}"
    return ""


def _next(out: Output, path: Path, outcome: Outcome) -> None:
    bus = "bus" if shutil.which("bus") else shlex.quote(sys.argv[0])
    place = shlex.quote(str(path))
    out.line("\nTry next:")
    out.line(f"  {bus} --bus {place} message {outcome.redelivered}      # what became of it")
    out.line(f"  {bus} --bus {place} agents         # who lives, who died")
    out.line(f"  {bus} --bus {place} state list {outcome.finisher} --prefix file/1")
