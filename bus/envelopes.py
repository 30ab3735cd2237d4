"""Messages as the database tells them, also where somebody planted text that can't be read as it is."""

from __future__ import annotations

from datetime import datetime

import msgspec

from bus import digests
from bus.models import Message, MessageStatus
from bus.operation import Row

ENDED = (MessageStatus.ACKNOWLEDGED, MessageStatus.DEAD)
_MESSAGE = msgspec.json.Decoder(Message)


def decode(rows: list[Row]) -> list[Message]:
    """The messages of rows whose first column is a record; what is not UTF-8 in them is shown as U+FFFD."""
    return [sound(row[0]) or _shown(row[0]) for row in rows]


def sound(record: str) -> Message | None:
    """The message of a record; None when that is not to be read."""
    try:
        return _MESSAGE.decode(record)
    except (UnicodeError, msgspec.DecodeError, RecursionError):
        return None


def intact(message: Message) -> bool:
    """Whether its payload is the one that was sent, as far as its digest tells."""
    raw = bytes(message.raw)
    return raw != b"null" if message.digest is None else digests.of(raw.decode()) == message.digest


def leased(message: Message, agent: str, delivery: int, now: str, due: str) -> Message:
    """A message that was ready, as it is after it was leased; moments as the database writes them."""
    return msgspec.structs.replace(
        message,
        status=MessageStatus.LEASED,
        leased_by=agent,
        receipt=f"{message.id}.{delivery}",
        delivered_at=datetime.fromisoformat(f"{now}+00:00"),
        due_at=datetime.fromisoformat(f"{due}+00:00"),
    )


def acknowledged(message: Message) -> Message:
    """A message that was leased just now, as it is after it was acknowledged at the same moment."""
    return msgspec.structs.replace(
        message, status=MessageStatus.ACKNOWLEDGED, acknowledged_at=message.delivered_at, due_at=None
    )


def as_it_stands(found: Message, now: float) -> Message:
    """As whoever receives next would make it: dead if it expired (but while `leased_by` stands, its holder may still
    acknowledge it), ready if it was scheduled and is due."""
    if found.status not in ENDED and not found.leased_by and found.expires_at and found.expires_at.timestamp() <= now:
        return msgspec.structs.replace(found, status=MessageStatus.DEAD, dead_reason="expired", due_at=None)
    if found.status is MessageStatus.SCHEDULED and found.due_at and found.due_at.timestamp() <= now:
        return msgspec.structs.replace(found, status=MessageStatus.READY)
    return found


def _shown(record: str) -> Message:
    """A record that can't be read as it is: without its payload, if that is what can't."""
    readable = record.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    before, _, rest = readable.partition('"payload":')
    _, mark, after = rest.rpartition(',"priority":')
    without = f'{before}"payload":{{}}{mark}{after}'
    return sound(readable) or _MESSAGE.decode(without)
