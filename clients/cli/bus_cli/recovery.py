"""The commands that bring work back after a crash."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import click

from bus import folders, milestones
from bus.api import Bus
from bus.errors import error
from bus.models import Cleaned, Interruption, Member, Plan, Recovered
from bus.recovery import OPTIONS, check, startable
from bus.store.url import folder, logs
from bus_cli.arguments import on_whose_word
from bus_cli.output import Output, command
from bus_cli.text import counted, milliseconds, moment, safe

if TYPE_CHECKING:
    from bus_client.respawn import Started  # which takes time to load, and most commands start nothing

COLUMNS = (
    "session",
    "milestone",
    "operation",
    "minutes inactive",
    "agents",
    "active",
    "dead",
    "in flight",
    "checkpoint age",
)
TOLD = 20  # messages in the hands of one agent
NOTHING = "no interrupted sessions"
NOBODY = "nobody to start again: no failed agent of the session has a command"


@click.command()
@command
def interrupted(out: Output) -> None:
    """The active sessions that do not go on by themselves. An agent died or failed, or nothing happened for a while."""
    with out.open() as bus:
        _list(out, bus.interrupted())


def _list(out: Output, found: list[Interruption]) -> None:
    if not found:
        out.show(found, NOTHING)
        return
    rows = [
        (
            s.session_id,
            s.milestone_id or None,
            s.operation_type,
            f"{s.minutes_inactive:.1f}",
            s.agents,
            s.active,
            s.dead,
            s.in_flight,
            None if s.checkpoint_age is None else milliseconds(s.checkpoint_age * 1000),
        )
        for s in found
    ]
    out.table(found, COLUMNS, rows)


@click.command()
@click.argument("session", required=False)
@click.option("--apply", "option", type=click.Choice(OPTIONS), help="Do it; else only say what could be done.")
@click.option("--milestone", metavar="ID", help="With create-milestone: its id.")
@click.option("--respawn", is_flag=True, help="With resume or restart: start the dead agents' commands again.")
@click.option("--dry-run", is_flag=True, help="Only say what --apply would do; the file is opened for reading only.")
@command
def recover(
    out: Output, session: str | None, option: str | None, milestone: str | None, respawn: bool, dry_run: bool
) -> int:
    """Bring SESSION back after a crash.

    Says what is left of it, and what can be done; --apply does it. Without SESSION: the only interrupted one, or the
    list of them.
    """
    if respawn and option not in ("resume", "restart"):
        raise error("usage", "--respawn goes with --apply resume or --apply restart")
    if milestone and option != "create-milestone":
        raise error("usage", "--milestone goes with --apply create-milestone")
    with out.open(read_only=True) as bus:
        if session is None:
            found = bus.interrupted()
            if len(found) != 1:
                bus.store.run(check())  # what a damaged file lists says little
                return _which(out, found, option)
            session = found[0].session_id
        plan = bus.recovery_plan(session)
    if option is None or dry_run:
        _show(out, plan, option, respawn)
        return 0
    with out.open() as bus:
        _apply(out, bus, session, option, milestone, respawn)
    return 0


def _which(out: Output, found: list[Interruption], option: str | None) -> int:
    if option and found:
        raise error("usage", f"{len(found)} sessions were interrupted", "name one; see `bus interrupted`")
    _list(out, found)
    return 0


def _show(out: Output, plan: Plan, option: str | None, respawn: bool) -> None:
    if option and option not in [choice.name for choice in plan.options]:
        fit = ", ".join(choice.name for choice in plan.options) or "none"
        raise error("unfit_option", f"{option} does not fit session {plan.session.session_id}", f"what fits: {fit}")
    out.show(plan)
    if not out.as_json:
        lines = _words(plan, option)
        if respawn:
            lines += [f"would start {agent.agent_id} again: {agent.command}" for agent in startable(plan)] or [NOBODY]
        for line in lines:
            out.line(safe(line))


def _words(plan: Plan, option: str | None) -> list[str]:
    session = plan.session
    progress = session.progress if plan.progress is None else plan.progress
    told = f" by its artifacts ({session.progress:g} % was told)" if session.progress > progress else ""
    lines = [
        f"session {session.session_id}: {session.operation_type}, {session.status}, {progress:g} %{told}, "
        f"last active {moment(session.last_activity)}"
    ]
    lines += ["agents:" if plan.agents else "agents: none"]
    for member in plan.agents:
        lines += _about(member)
    if plan.artifacts:
        lines += ["artifacts:"]
        lines += [
            f"  {a.key} ({a.weight:g}): {f'there, from {a.saved_by}' if a.saved_by else 'missing'}"
            for a in plan.artifacts
        ]
    if option:
        return [*lines, *(f"would {choice.name}: {choice.does}" for choice in plan.options if choice.name == option)]
    lines += ["options:" if plan.options else "options: none, the session has ended"]
    lines += [f"  {choice.name}: {choice.does}" for choice in plan.options]
    if plan.options:
        lines += [f"do one of them: bus recover {session.session_id} --apply {plan.options[0].name}"]
    return lines


def _about(member: Member) -> list[str]:
    task = f", at {member.current_task}" if member.current_task else ""
    life = "" if member.status in ("completed", "terminated") else f", {member.life}"  # it ended, as it said
    lines = [
        f"  {member.agent_id} ({member.agent_type}): {member.status}{life}, "
        f"last heard of {moment(member.last_heartbeat)}{task}"
    ]
    lines += [
        f"    holds message {held.id} ({held.message_type} from {held.from_agent}, priority {held.priority})"
        for held in member.held[:TOLD]
    ]
    if len(member.held) > TOLD:
        lines += [f"    and {counted(len(member.held) - TOLD, 'message')} more; see --json"]
    if member.checkpoint:
        made = moment(member.checkpoint.created_at)
        lines += [
            f"    latest checkpoint {member.checkpoint.checkpoint_id} ({member.checkpoint.checkpoint_type}, {made})"
        ]
        lines += [f"      {file.status:<8} {file.path}" for file in member.files]
    return lines


def _apply(out: Output, bus: Bus, session: str, option: str, milestone: str | None, respawn: bool) -> None:
    if respawn:
        _place_for_logs(bus)
    done = bus.recovery_apply(session, option, by=on_whose_word(), milestone=milestone)
    told: dict[str, Any] = {"recovered": done}
    words = _did(done)
    try:
        if done.milestone_id:
            path, written = milestones.export(bus.milestone_show(done.milestone_id), folder(bus.url))
            told["file"] = str(path) if written else None
            where = f"is in {path}" if written else f"is on the bus; {path} is another, and was left as it is"
            words.append(f"milestone {done.milestone_id} {where}")
        if respawn:
            told["started"] = _respawn(bus, session, words)
    finally:  # what was applied is told also when the rest fails
        out.show(told, safe("\n".join(words)).replace("\\x0a", "\n"))
    if down := [start.agent_id for start in told.get("started", []) if start.fate == "failed"]:
        raise error("fault", f"{', '.join(down)} did not start again", "see what was printed, and its output")


def _place_for_logs(bus: Bus) -> None:
    """Make sure that what is started again can write its log: before anything is changed."""
    place = logs(bus.url)
    folders.make(place)
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))


def _respawn(bus: Bus, session: str, words: list[str]) -> list[Started]:
    from bus_client.respawn import respawn

    started = respawn(bus, session)
    words += [_about_start(s) for s in started] or [NOBODY]
    return started


def _about_start(started: Started) -> str:
    if started.pid is None:
        return f"{started.agent_id} was not started: {started.error}"
    fate = started.fate if started.exit_status is None else f"{started.fate} with status {started.exit_status}"
    unnoted = f"; the bus could not note that: {started.error}" if started.error else ""
    return f"{started.agent_id}, started as process {started.pid}: {fate}; its output is in {started.output}{unnoted}"


def _did(done: Recovered) -> list[str]:
    if not done.changed:
        return [f"session {done.session_id} is {done.status}; nothing is left to do"]
    lines = [f"{done.option}: session {done.session_id} is {done.status}"]
    lines += [f"marked {', '.join(done.failed)} failed"] if done.failed else []
    lines += (
        [f"gave back message{'s' * (len(done.given_back) > 1)} {', '.join(map(str, done.given_back))}"]
        if done.given_back
        else []
    )
    lines += (
        [f"buried message{'s' * (len(done.buried) > 1)} {', '.join(map(str, done.buried))}, past their retries"]
        if done.buried
        else []
    )
    return lines


@click.command()
@click.option(
    "--stale", metavar="[DURATION]", is_flag=False, flag_value="", help="Silent for so long (else session_timeout)."
)
@click.option(
    "--failed",
    metavar="[DURATION]",
    is_flag=False,
    flag_value="",
    help="Failed so long ago (else failed_session_hours).",
)
@command
def cleanup(out: Output, stale: str | None, failed: str | None) -> None:
    """Mark failed what is stale, abandon what failed long ago. Nothing is deleted. Without options: both.

    An agent whose process is seen to run is never stale, nor is its session.
    """
    both = stale is None and failed is None
    with out.open() as bus:
        if both or stale == "":
            stale = bus.config_get("session_timeout")
        if both or failed == "":
            failed = f"{bus.config_get('failed_session_hours')}h"
        done = bus.clean(stale=stale, failed=failed, by=on_whose_word())
    out.show(done, "\n".join(_cleaned(done, stale, failed)))


def _cleaned(done: Cleaned, stale: str | None, failed: str | None) -> list[str]:
    lines = []
    if stale is not None:
        marked = (counted(len(done.failed_agents), "agent"), counted(len(done.failed_sessions), "session"))
        lines += [f"{' and '.join(marked)} were stale: marked failed"]
        lines += [f"{counted(done.given_back, 'message')} given back, {done.buried} buried"]
    if failed is not None:
        lines += [f"{counted(len(done.abandoned_sessions), 'failed session')} abandoned"]
    return lines
