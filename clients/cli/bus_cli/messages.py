"""The commands of messages."""

from __future__ import annotations

from typing import Any

import click

from bus import inputs, trace_context
from bus.errors import BusError, error
from bus.models import Message
from bus_cli import signals
from bus_cli.arguments import given, me
from bus_cli.numbers import WHOLE
from bus_cli.output import Output, command
from bus_cli.text import moment, safe

COLUMNS = ("id", "to", "from", "type", "priority", "status", "sent", "redelivered", "held by", "why")


def _row(m: Message) -> tuple[object, ...]:
    return (
        m.id,
        m.to_agent,
        m.from_agent,
        m.message_type,
        m.priority,
        m.status,
        m.created_at,
        m.retry_count,
        m.leased_by,
        _why(m),
    )


def _why(m: Message) -> str | None:
    """Why it is dead. One that was cancelled, or expired, has at most the reason for which it was given back before."""
    told = m.reason if m.dead_reason not in ("cancelled", "expired") else None
    return f"{m.dead_reason}: {told}" if m.dead_reason and told else m.dead_reason


@click.command()
@click.argument("to")
@click.argument("type")
@click.argument("payload", required=False)
@click.option(
    "--from", "sender", envvar="BUS_AGENT", required=True, metavar="AGENT", help="The sender (else $BUS_AGENT)."
)
@click.option("--priority", type=WHOLE, default=5, show_default=True, help="1 to 10, 10 the most urgent.")
@click.option("--delay", metavar="DURATION", help="Hold it back so long: 30s, 5m, 2h, 7d.")
@click.option("--expires", metavar="DURATION", help="It is dead when nobody took it within this time.")
@click.option("--key", help="Idempotency key: sending again under it stores nothing new, and prints the first id.")
@click.option("--reply-to", type=WHOLE, metavar="ID", help="The message this one answers.")
@click.option("--correlation", help="An id of your own that ties messages together.")
@click.option("--traceparent", metavar="CONTEXT", help="The W3C trace context it is sent in (else $TRACEPARENT).")
@click.option(
    "--wait-ack",
    metavar="DURATION",
    help="Wait so long for its acknowledgement; 75 if it runs out, 76 if it is dead.",
)
@command
def send(out: Output, to: str, type: str, payload: str | None, wait_ack: str | None, **options: Any) -> int:
    """Send a message and print its id.

    TO is an agent's id, @TYPE (any one agent of that type in the sender's session) or '*' (each other agent of it, a
    copy; their ids, one a line). PAYLOAD is a JSON object; `-`, or leaving it out, reads it from stdin.
    """
    if inputs.duration(wait_ack) is not None and to == "*":  # judged before anything is sent
        raise error("usage", "--wait-ack is for one message", "send to one agent or to @TYPE")
    document = given(payload)
    if not document.strip():
        raise error("invalid_json", "there is no payload", "give it after the type, or on stdin; {} will do")
    out.stdout()  # else nobody could be told its id
    options["traceparent"] = options["traceparent"] or trace_context.surrounding()
    with out.open() as bus:
        if to == "*":
            ids = bus.broadcast(options.pop("sender"), type, document, **options)
            out.show({"ids": ids}, "\n".join(map(str, ids)) if ids else None)
            return 0 if ids else 1
        id = bus.send(options.pop("sender"), to, type, document, **options)
        out.show({"id": id}, str(id))
        return 0 if wait_ack is None else _outcome(bus.wait_ended(id, wait=wait_ack))


def _outcome(message: Message) -> int:
    if message.status == "acknowledged":
        return 0
    if message.status == "dead":
        words = f"message {message.id} is dead: {_why(message)}"
        raise error("already_ended", words, f"`bus message {message.id}` tells the rest")
    raise error("not_acknowledged", f"message {message.id} is {message.status}, not acknowledged")


@click.command()
@click.argument("agent", required=False)
@click.option("--limit", type=WHOLE, default=1, show_default=True, help="How many at most, 1 to 10,000.")
@click.option("--wait", metavar="DURATION", help="Sleep until there is one, so long at most.")
@click.option("--lease", metavar="DURATION", help="Nobody else gets them for so long (else the setting lease_seconds).")
@click.option("--type", help="Only messages of this type.")
@click.option("--ack", is_flag=True, help="Acknowledge them in the same transaction.")
@command
def receive(out: Output, agent: str | None, **options: Any) -> int:
    """Lease the most urgent messages that are for AGENT.

    They come from its mailbox and from its type's queue.

    Always prints a JSON array, each message with its receipt; `[]` and exit status 1 when there is none. It can be
    interrupted while it waits, and ends when the script that reads from it is gone; what it has taken it prints.
    """
    out.stdout()  # else nobody could be told of what was taken
    with out.open() as bus, signals.only_asleep(bus) as let_through:
        if options["wait"]:
            signals.end_with_reader()
        found = bus.receive(me(agent), **options)
        if not found:
            let_through()
        try:
            Output(None, True).show(found)
            out.flush()
        except BusError:
            if found and not options["ack"]:
                bus.release([message.receipt or "" for message in found])
            raise
    return 0 if found else 1


@click.command()
@click.argument("receipts", nargs=-1, required=True, metavar="RECEIPT...")
@command
def ack(out: Output, receipts: tuple[str, ...]) -> None:
    """Acknowledge messages by their receipts: the work is done. All or none."""
    with out.open() as bus:
        bus.ack(receipts)
    out.show({"acknowledged": receipts})


@click.command()
@click.argument("receipts", nargs=-1, required=True, metavar="RECEIPT...")
@click.option("--delay", metavar="DURATION", help="Not before this time is over.")
@click.option("--reason", help="Why; kept with the message.")
@command
def release(out: Output, receipts: tuple[str, ...], delay: str | None, reason: str | None) -> None:
    """Give messages back by their receipts. All or none."""
    with out.open() as bus:
        bus.release(receipts, delay=delay, reason=reason)
    out.show({"released": receipts})


@click.command()
@click.argument("receipts", nargs=-1, required=True, metavar="RECEIPT...")
@click.option("--lease", metavar="DURATION", help="So long from now (else the setting lease_seconds).")
@command
def extend(out: Output, receipts: tuple[str, ...], lease: str | None) -> None:
    """Keep messages leased for longer. All or none."""
    with out.open() as bus:
        bus.extend(receipts, lease=lease)
    out.show({"extended": receipts})


@click.command()
@click.argument("receipts", nargs=-1, required=True, metavar="RECEIPT...")
@click.option("--reason", required=True, help="Why; kept with the message.")
@command
def reject(out: Output, receipts: tuple[str, ...], reason: str) -> None:
    """Bury messages: dead until somebody redrives them. All or none."""
    with out.open() as bus:
        bus.reject(receipts, reason=reason)
    out.show({"rejected": receipts})


@click.command()
@click.argument("id")
@command
def cancel(out: Output, id: str) -> None:
    """Withdraw a message that is not over."""
    with out.open() as bus:
        bus.cancel(id)
    out.show({"cancelled": int(id)})


@click.command()
@click.argument("id")
@command
def message(out: Output, id: str) -> None:
    """What became of a message. Stored, handed over (when; to whom while it is held), given back, acknowledged, or dead
    and why."""
    with out.open() as bus:
        found = bus.message(id)
    out.show(found, _story(found))


def _story(message: Message) -> str:
    lines = [
        f"message {message.id}: {message.message_type} from {message.from_agent} to {message.to_agent}, "
        f"priority {message.priority}, session {message.session_id}",
        f"stored        {moment(message.created_at)}",
    ]
    told = {"key": message.idempotency_key, "correlation": message.correlation_id, "reply to": message.reply_to}
    lines += [f"{name:<13} {value}" for name, value in told.items() if value is not None]
    if message.delivered_at:
        by = f" to {message.leased_by}" if message.leased_by else ""
        lines.append(f"handed over   {moment(message.delivered_at)}{by}, receipt {message.receipt}")
    if message.acknowledged_at:
        lines.append(f"acknowledged  {moment(message.acknowledged_at)}")
    elif message.status == "dead":
        lines.append(f"dead          {_why(message)}")
    else:
        if message.reason and message.status != "leased":
            lines.append(f"given back    {message.reason}")
        until = f" until {moment(message.due_at)}" if message.due_at else ""
        lines.append(f"{message.status:<13} {until.strip()}".rstrip())
    return "\n".join([*map(safe, lines), "payload       " + safe(bytes(message.raw).decode())])


@click.command()
@click.option("--to", metavar="ADDRESS", help="Sent to this id or @TYPE.")
@click.option("--from", "sender", metavar="AGENT", help="Sent by this agent.")
@click.option("--status", help="scheduled, ready, leased, acknowledged or dead.")
@click.option("--session", help="Of this session.")
@click.option("--pending", metavar="AGENT", help="What this agent would receive, in that order; no other filter.")
@click.option("--limit", type=WHOLE, default=10_000, show_default=True, help="How many at most.")
@command
def messages(out: Output, pending: str | None, limit: int, **filters: Any) -> None:
    """Look at messages, newest first; nothing is changed."""
    if pending is not None and any(value is not None for value in filters.values()):
        raise error("usage", "--pending stands alone", "bus messages --pending AGENT --limit N")
    with out.open() as bus:
        found = bus.pending(pending, limit=limit) if pending is not None else bus.messages(limit=limit, **filters)
    out.table(found, COLUMNS, map(_row, found), limit)


@click.command()
@click.option("--session", help="Of this session.")
@click.option("--limit", type=WHOLE, default=10_000, show_default=True, help="How many at most.")
@command
def dead(out: Output, session: str | None, limit: int) -> None:
    """The dead messages, oldest first, each with the reason."""
    with out.open() as bus:
        found = bus.dead(session=session, limit=limit)
    kept = [place for place, column in enumerate(COLUMNS) if column not in ("status", "held by")]
    rows = [[_row(message)[place] for place in kept] for message in found]
    out.table(found, [COLUMNS[place] for place in kept], rows, limit)


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "everything", is_flag=True, help="All dead messages, those that expired or were cancelled, too.")
@click.option("--session", help="With --all: of this session.")
@command
def redrive(out: Output, ids: tuple[str, ...], everything: bool, session: str | None) -> int:
    """Give dead messages another life. Prints their ids."""
    if bool(ids) == everything or (session and not everything):
        raise error("usage", "name ids, or --all", "bus redrive 42, or bus redrive --all --session S")
    with out.open() as bus:
        alive = bus.redrive(None if everything else ids, session=session)
    out.show({"redriven": alive}, "\n".join(map(str, alive)) if alive else None)
    return 0 if alive else 1
