"""The commands that put agents' lives on record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from bus import trace_context
from bus.models import Lifecycle
from bus_cli.numbers import WHOLE
from bus_cli.output import Output, command
from bus_cli.text import ascii_json, milliseconds, moment, safe


@click.command()
@click.option("--type", required=True, help="The agent's type.")
@click.option("--task", required=True, help="The id of what it works on.")
@click.option("--pid", type=WHOLE, required=True, help="Its process.")
@click.option("--command", metavar="CMD", help="How it was started (else as the system knows it).")
@click.option("--task-type", help="What kind of task that is.")
@click.option("--priority", help="The task's priority, as it is written: 7, 1.5, 042, or a word.")
@click.option("--session", envvar="BUS_SESSION", help="Its session (else $BUS_SESSION).")
@click.option("--agent", help="Its id in the registry.")
@click.option("--worktree", help="Where it works.")
@click.option("--metadata", metavar="JSON", help="Anything else to be kept on record.")
@click.option("--traceparent", metavar="CONTEXT", help="The W3C trace context it was started in (else $TRACEPARENT).")
@click.option(
    "--at", metavar="TIME", help="When it was spawned, such as 2030-12-31T23:59:59Z; UTC without a zone (else now)."
)
@command
def spawn(out: Output, type: str, task: str, **options: Any) -> None:
    """Put a process that was spawned otherwise on record. Prints the record's id."""
    out.stdout()  # else nobody could be told its id
    options["traceparent"] = options["traceparent"] or trace_context.surrounding()
    with out.open() as bus:
        id = bus.trace_spawn(type, task, **options)
    out.show({"agent_id": id}, str(id))


@click.command()
@click.argument("id", type=WHOLE)
@click.option("--pid", type=WHOLE, help="Its process, when it is not the one it was spawned as.")
@click.option(
    "--at", metavar="TIME", help="When it started to work, such as 2030-12-31T23:59:59Z; UTC without a zone (else now)."
)
@command
def start(out: Output, id: int, pid: int | None, at: str | None) -> None:
    """Mark record ID as running."""
    with out.open() as bus:
        out.show(bus.trace_start(id, pid=pid, at=at))


@click.command()
@click.argument("id", type=WHOLE)
@click.option(
    "--exit-code",
    type=WHOLE,
    help="Its exit status: 0 completed, 129 to 192 killed, as is -9 (by signal 9, as Python tells it), else failed.",
)
@click.option("--status", help="completed, failed or killed, whatever the exit status tells.")
@click.option("--error", metavar="TEXT", help="What went wrong.")
@click.option(
    "--at", metavar="TIME", help="When it ended, such as 2030-12-31T23:59:59Z; UTC without a zone (else now)."
)
@command
def finish(out: Output, id: int, **options: Any) -> None:
    """Mark record ID, which was started, as ended."""
    with out.open() as bus:
        found = bus.trace_finish(id, **options)
    out.show(found, story(found))


@click.command()
@click.argument("id", type=WHOLE)
@command
def show(out: Output, id: int) -> None:
    """One record."""
    with out.open() as bus:
        found = bus.trace_show(id)
    out.show(found, story(found))


def story(found: Lifecycle) -> str:
    """A life in a few lines, for people."""
    of = f", priority {found.priority_number}" if found.priority_number else ""
    lines = [
        f"{found.agent_id}: {found.agent_type} on {found.task_id}{of}, {found.status}, process {found.pid}",
        f"command       {found.command or '-'}",
        *_told(found),
        f"spawned       {moment(found.spawned_at)}",
    ]
    if found.started_at:
        lines.append(f"started       {moment(found.started_at)}, after {milliseconds(found.idle_time_ms)}")
    if found.completed_at:
        lines.append(f"ended         {moment(found.completed_at)}, after {milliseconds(found.duration_ms)}")
    if found.error_message:
        lines.append(f"error         {found.error_message}")
    if found.output_tail:
        lines += [f"output        {line}" for line in found.output_tail.splitlines()[-5:]]
    return "\n".join(map(safe, lines))


def _told(found: Lifecycle) -> Iterator[str]:
    """A line for each of what may be told of a life, and was."""
    if found.registry_id:
        yield f"agent         {found.registry_id}"
    if found.session_id:
        yield f"session       {found.session_id}"
    if found.task_type:
        yield f"task type     {found.task_type}"
    if found.worktree_path:
        yield f"worktree      {found.worktree_path}"
    if found.metadata is not None:
        yield f"metadata      {ascii_json(found.metadata)}"
