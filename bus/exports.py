"""Exports of traces: what is to be told to a collector, and how far that has come.

A `target` is a collector. Its cursor stands in the bus, so that an export goes on where it stopped: everything up to
two ids was looked at, and what had not ended by then is pending. A batch is told first and committed then; the
ids of spans are worked out from what they are about: a batch that is told again after a crash in between is the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import msgspec

from bus import config, envelopes, inputs, liveness, salvage, trace_context
from bus.errors import error
from bus.liveness import Identity, Life
from bus.models import Lifecycle, Message
from bus.operation import Query, Row, Steps, reading, writing
from bus.trace_context import Context, parse

LARGE = 2 << 20  # bytes of records in a batch


class Sent(msgspec.Struct, frozen=True):
    """A message, and the span of its being sent; `parent` is the span that sent it."""

    message: Message
    context: Context
    parent: Context | None


class Lived(msgspec.Struct, frozen=True):
    """A life that has ended, and its span; `parent` is the span that started it."""

    life: Lifecycle
    context: Context
    parent: Context | None


class Batch(msgspec.Struct):
    """What is to be told: messages that were `sent`, those whose last delivery is `processed`, lives that have ended;
    and how the cursor moves then."""

    bus_id: str
    message_id: int
    life_id: int
    sent: list[Sent] = []
    processed: list[Sent] = []
    lived: list[Lived] = []
    pending: list[tuple[str, int, int]] = []
    done: list[tuple[str, int]] = []

    def spans(self) -> int:
        """How many spans there are in it."""
        return len(self.sent) + len(self.processed) + len(self.lived)

    def moves(self) -> bool:
        """Whether there was anything to look at."""
        return bool(self.spans() or self.pending or self.done)


@writing
def claim(target: str) -> Steps[None]:
    """Let this process be the one that exports to a target. Raises `already_exporting` while another does."""
    rows = yield Query("exports/holder", {"target": target})
    if rows and rows[0][2]:
        holder = Identity(*json.loads(rows[0][2]))
        if holder.pid != os.getpid() and liveness.life(holder) is Life.ALIVE:
            raise error("already_exporting", f"process {holder.pid} exports to {target} already")
    yield Query("exports/claim", {"target": target, "holder": json.dumps(liveness.identity(os.getpid()))})


@writing
def release(target: str) -> Steps[None]:
    """Let others export to a target."""
    yield Query("exports/claim", {"target": target, "holder": None})


@reading
def batch(target: str, *, limit: int = 500) -> Steps[Batch]:
    """What is to be told next to a target that was claimed; at most `limit` new messages and lives, and as many that
    have ended. Raises `usage`."""
    inputs.whole("limit", limit)
    bus_id = yield from config.text("bus_id")
    rows = yield Query("exports/holder", {"target": target})
    if not rows:
        raise error("usage", "no export to this target has begun", "call export_claim first")
    ((message_id, life_id, _),) = rows
    found = Batch(bus_id, message_id, life_id)
    parameters = {"target": target, "limit": limit}
    _add_lives(found, _first((yield Query("exports/lives", parameters))))
    _add_ended_lives(found, _first((yield Query("exports/lives_pending", parameters))))
    _add_messages(found, _first((yield Query("exports/messages", parameters))))
    _add_ended(found, _first((yield Query("exports/messages_pending", parameters))))
    return found


def _first(rows: list[Row]) -> Iterable[Row]:
    """The first rows, until they are large together."""
    size = 0
    for row in rows:
        yield row
        size += len(row[1] or "")
        if size > LARGE:
            return


def _add_lives(found: Batch, rows: Iterable[Row]) -> None:
    for id, record, is_over in rows:
        found.life_id = id
        if is_over:
            found.lived.append(_lived(found.bus_id, record))
        else:
            found.pending.append(("life", id, 0))


def _add_ended_lives(found: Batch, rows: Iterable[Row]) -> None:
    for id, record in rows:
        found.done.append(("life", id))
        if record:
            found.lived.append(_lived(found.bus_id, record))


def _lived(bus_id: str, record: str) -> Lived:
    life = salvage.record(record, Lifecycle)
    parent = parse(life.traceparent)
    return Lived(life, trace_context.life(bus_id, life.agent_id, life.session_id, parent), parent)


def _add_messages(found: Batch, rows: Iterable[Row]) -> None:
    for row in rows:
        sent = _sent(found.bus_id, row)
        found.message_id = row[0]
        found.sent.append(sent)
        if sent.message.status in envelopes.ENDED and sent.message.delivery:
            found.processed.append(sent)
        if sent.message.status != "acknowledged":
            ended = sent.message.status == "dead"
            found.pending.append(("message", row[0], sent.message.delivery if ended else 0))


def _add_ended(found: Batch, rows: Iterable[Row]) -> None:
    for row in rows:
        sent = _sent(found.bus_id, row) if row[1] else None
        if sent:
            found.processed.append(sent)
        if sent and sent.message.status == "dead":
            found.pending.append(("message", row[0], sent.message.delivery))
        else:
            found.done.append(("message", row[0]))


def _sent(bus_id: str, row: Row) -> Sent:
    _, record, life, session, traceparent = row
    (message,) = envelopes.decode([(record,)])
    parent = parse(message.traceparent)
    if parent is None and life is not None:
        parent = trace_context.life(bus_id, life, session, parse(traceparent))
    return Sent(message, trace_context.sending(bus_id, message.id, message.session_id, parent), parent)


@writing
def advance(target: str, told: Batch) -> Steps[None]:
    """A batch was told: go on behind it."""
    yield Query(
        "exports/advance",
        {
            "target": target,
            "message_id": told.message_id,
            "life_id": told.life_id,
            "sent": told.spans(),
            "pending": json.dumps(told.pending),
            "done": json.dumps(told.done),
        },
    )
