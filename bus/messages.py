"""Messages: send, receive, acknowledge and what else becomes of them.

A message is leased to one receiver at a time; its receipt, `<id>.<delivery>`, is the fencing token: after the lease was
given back or taken over, an old receipt can do nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import msgspec

from bus import agents, bells, claims, clock, config, digests, envelopes, inputs
from bus.errors import BusError, InvalidPayload, about, error
from bus.inputs import Duration, Json
from bus.models import Message, MessageStatus
from bus.operation import Change, Operation, Pause, Query, Ring, Routine, Row, Steps, Tell, looking, reading
from bus.refusals import judged

EVERYBODY = "*"
FEW = 8  # receipts that are acknowledged one by one
LATELY = 5.0  # seconds for which a claim is its holder's heartbeat


def send(
    sender: str,
    to: str,
    type: str,
    payload: Json,
    *,
    priority: int = 5,
    delay: Duration | None = None,
    expires: Duration | None = None,
    key: str | None = None,
    reply_to: int | None = None,
    correlation: str | None = None,
    traceparent: str | None = None,
) -> Operation[int]:
    """Store a message for an agent's id or for `@TYPE`, any one agent of a type in the sender's session; its id.

    `priority` is 1 to 10, 10 the most urgent. `delay` holds it back, `expires` ends it. Under an idempotency `key` the
    first message sent to this address answers for all. `traceparent` is the W3C trace context it is sent in. Raises
    `unknown_agent` for a sender that is not registered, `unknown_type`, `invalid_address`, `invalid_priority`,
    `invalid_payload`, `invalid_json`, `payload_too_large`, `key_reused`, `invalid_traceparent`.
    """
    if to == EVERYBODY:
        raise error("usage", "'*' is for broadcast", "call broadcast")
    parameters = _envelope(sender, to, type, payload, priority, delay, expires, key, reply_to, correlation, traceparent)
    return Operation(partial(_send, parameters), writes=True, closing="messages/send", brief=key is None)


def broadcast(
    sender: str,
    type: str,
    payload: Json,
    *,
    priority: int = 5,
    delay: Duration | None = None,
    expires: Duration | None = None,
    key: str | None = None,
    reply_to: int | None = None,
    correlation: str | None = None,
    traceparent: str | None = None,
) -> Operation[list[int]]:
    """Store a copy for each agent of the sender's session that has not ended, itself excepted; their ids, maybe none.

    Arguments and errors as in `send`.
    """
    parameters = _envelope(
        sender, EVERYBODY, type, payload, priority, delay, expires, key, reply_to, correlation, traceparent
    )
    return Operation(partial(_broadcast, parameters), writes=True, closing="messages/broadcast")


def _send(parameters: Mapping[str, object]) -> Steps[int]:
    yield agents.at_work(str(parameters["from"]))
    rows = (yield from _store(Change("messages/send", parameters))) if "keyless" in parameters else []
    rows = rows or (yield from _store(Query("messages/send", parameters)))
    yield Ring([str(parameters["to"])])
    id: int = rows[0][0]
    return id


def _broadcast(parameters: Mapping[str, object]) -> Steps[list[int]]:
    yield agents.at_work(str(parameters["from"]))
    rows = yield from _store(Query("messages/broadcast", parameters))
    yield Ring([address for _, address in rows])
    return sorted(id for id, _ in rows)


def _store(request: Query | Change) -> Steps[list[Row]]:
    try:
        rows: list[Row] = yield request
    except InvalidPayload as problem:
        raise (yield from _explained(problem, request.parameters)) from problem
    return rows


def _explained(problem: BusError, parameters: Mapping[str, object]) -> Steps[BusError]:
    """The refusal of a payload, in a validator's words where the schema is what it breaks."""
    if problem.code != "invalid_payload" or problem.message != parameters["type"]:
        return problem
    from bus import payloads  # seldom needed

    rows = yield Query("types/schema", {"name": parameters["type"]})
    return payloads.explained(str(parameters["type"]), msgspec.json.decode(rows[0][0]), str(parameters["payload"]))


def _envelope(
    sender: str,
    to: str,
    type: str,
    payload: Json,
    priority: int,
    delay: Duration | None,
    expires: Duration | None,
    key: str | None,
    reply_to: int | None,
    correlation: str | None,
    traceparent: str | None,
) -> dict[str, object]:
    document = inputs.document(payload)
    parameters: dict[str, object] = {
        "from": inputs.name(sender),
        "to": inputs.address(to),
        "type": inputs.text(type),
        "payload": document,
        "digest": digests.of(document),
        "priority": inputs.priority(priority),
        "delay": inputs.duration(delay) or 0,
        "expires": inputs.duration(expires),
        "beaten": True,  # by `agents.at_work`
        "key": inputs.words(key),
        "reply_to": None if reply_to is None else inputs.message_id(reply_to),
        "correlation": inputs.words(correlation),
        "traceparent": inputs.words(traceparent),
    }
    if key is None:
        parameters["keyless"] = True
    return parameters


def receive(
    agent: str,
    *,
    limit: int = 1,
    wait: Duration | None = None,
    lease: Duration | None = None,
    type: str | None = None,
    ack: bool = False,
) -> Routine[list[Message]]:
    """Lease up to `limit` messages, the most urgent first, from the agent's mailbox and its type's queue.

    `wait` sleeps until there is one, at most so long; else an empty list says there is none. `lease` is how long they
    are ours (default: the setting lease_seconds). `type`: only of that type. `ack` acknowledges them in the same
    transaction. What a dead process held comes back at once. `limit` ≤ 10,000. Raises `unknown_agent`, `unknown_type`.
    """
    claiming = claim(agent, limit=limit, lease=lease, type=type, ack=ack)
    return _until_found(inputs.name(agent), claiming, claiming, inputs.duration(wait) or 0)


def ack_and_receive(
    agent: str,
    receipts: str | Iterable[str],
    *,
    wait: Duration | None = None,
    lease: Duration | None = None,
    type: str | None = None,
) -> Routine[list[Message]]:
    """Acknowledge what is done and lease the next message in one transaction; `wait` begins after it.

    Raises as `ack`, and then leases nothing, and as `receive`.
    """
    parameters = claims.parameters(agent, 1, lease, type)
    steps = partial(_ack_and_claim, inputs.receipt_list(receipts), parameters)
    first = Operation(steps, writes=True, undo=_give_up, closing="messages/receive")
    return _until_found(inputs.name(agent), first, _claiming(parameters, False), inputs.duration(wait) or 0)


def _until_found(
    agent: str, first: Operation[list[Message]], again: Operation[list[Message]], seconds: float
) -> Routine[list[Message]]:
    found: list[Message] = yield first
    if found or not seconds:
        return found
    now = clock.monotonic()
    end, beat = now + seconds, now + agents.BEAT
    news: agents.Outlook = yield agents.outlook(agent)
    while (left := end - clock.monotonic()) > 0:
        written = not news.dead and (yield Pause(news.bells, min(left, news.seconds), news.pids))
        if written and clock.monotonic() < beat:  # mostly for others, which a look tells without the lock for writing
            news = yield agents.outlook(agent)
            if not (news.ready or news.dead):
                continue
        if found := (yield again):
            break
        beat = clock.monotonic() + agents.BEAT
        news = yield agents.outlook(agent)
    return found


def claim(
    agent: str, *, limit: int = 1, lease: Duration | None = None, type: str | None = None, ack: bool = False
) -> Operation[list[Message]]:
    """What is there for `receive`, now: one transaction, no waiting."""
    return _claiming(claims.parameters(agent, limit, lease, type), ack)


def _claiming(parameters: Mapping[str, object], ack: bool) -> Operation[list[Message]]:
    claiming = partial(_claim, parameters, ack)
    if ack:
        return Operation(claiming, writes=True)
    return Operation(claiming, writes=True, undo=_give_up, closing="messages/receive", brief=True)


def _ack_and_claim(receipts: list[str], parameters: Mapping[str, object]) -> Steps[list[Message]]:
    if left := (yield from _finish_few(receipts)):
        yield Tell("messages/ack", {"receipts": inputs.receipts(left)})
    yield _over_with(receipts)
    return (yield from _claim(parameters, False))


def _claim(parameters: Mapping[str, object], ack_too: bool) -> Steps[list[Message]]:
    found = yield from claims.take(parameters)
    if ack_too and found:
        yield from _ack([message.receipt or "" for message in found], False)
        return [envelopes.acknowledged(message) for message in found]
    return found


def _give_up(found: list[Message]) -> Operation[None] | None:
    """Nobody got them: they are as if they had not been received."""
    if not found:
        return None
    parameters = {"receipts": inputs.receipts([message.receipt or "" for message in found])}
    return Operation(partial(_came_back, "messages/put_back", parameters), writes=True, closing="messages/put_back")


def ack(receipts: str | Iterable[str], *, once: bool = False) -> Operation[None]:
    """Acknowledge: the work is done. All receipts or none. Idempotent, but not with `once`: a step that is
    repeated because nobody knows how it ended must not happen twice.

    Raises `lease_lost` when a message was given back, buried or taken by another, `unknown_message`; with `once`
    `already_ended`.
    """
    several = list(dict.fromkeys(inputs.receipt_list(receipts)))
    closing = None if once else "messages/ack"
    return Operation(partial(_ack, several, once), writes=True, closing=closing, brief=len(several) == 1)


def _ack(receipts: list[str], once: bool) -> Steps[None]:
    if left := (yield from _finish_few(receipts)):
        rows = yield from judged("messages/ack", {"receipts": inputs.receipts(left)})
        if once and len(rows) < len(left):
            raise error("already_ended", "it is acknowledged already", "the step was done before; drop the work")
    yield _over_with(receipts)


def _over_with(receipts: list[str]) -> Ring:
    return Ring([bells.of_message(int(receipt.partition(".")[0])) for receipt in receipts])


def _finish_few(receipts: list[str]) -> Steps[list[str]]:
    """Acknowledge a few in the plain case; those that are left."""
    if len(receipts) > FEW:
        return receipts
    left = []
    for receipt in receipts:
        if not (yield from _finish(receipt)):
            left.append(receipt)
    return left


def _finish(receipt: str) -> Steps[bool]:
    """Acknowledge one message in the plain case; whether it was one."""
    id, _, delivery = receipt.partition(".")
    lately = clock.stamp(clock.seconds() - LATELY)
    rows = yield Change("messages/finish", {"id": int(id), "delivery": int(delivery), "lately": lately})
    return bool(rows and rows[0][1])


def release(
    receipts: str | Iterable[str], *, delay: Duration | None = None, reason: str | None = None
) -> Operation[None]:
    """Give messages back, at once or after `delay`; past the retry limit they are dead. Errors as in `ack`."""
    parameters = {
        "receipts": inputs.receipts(receipts),
        "delay": inputs.duration(delay) or 0,
        "reason": inputs.words(reason),
    }
    return Operation(partial(_came_back, "messages/release", parameters), writes=True, closing="messages/release")


def _came_back(name: str, parameters: Mapping[str, object]) -> Steps[None]:
    yield Ring([bells.of_returned(*row) for row in (yield from judged(name, parameters))])


def extend(receipts: str | Iterable[str], *, lease: Duration | None = None) -> Operation[None]:
    """Let leases run for `lease` from now on (default: the setting lease_seconds). All or none; errors as in `ack`."""
    parameters = {"receipts": inputs.receipts(receipts), "lease": inputs.lease(lease)}
    return Operation(partial(_extend, parameters), writes=True, closing="messages/extend")


def reject(receipts: str | Iterable[str], *, reason: str) -> Operation[None]:
    """Bury messages: they are dead, for this reason, until they are redriven. All or none; errors as in `ack`."""
    parameters = {"receipts": inputs.receipts(receipts), "reason": inputs.text(reason)}
    return Operation(partial(_over, "messages/reject", parameters), writes=True, closing="messages/reject")


def cancel(id: int | str) -> Operation[None]:
    """Withdraw a message that is not over, even from whoever holds it. Raises `unknown_message`, `already_ended`."""
    return Operation(partial(_over, "messages/cancel", {"id": inputs.message_id(id)}), writes=True)


def _extend(parameters: Mapping[str, object]) -> Steps[None]:
    yield Ring([address for (address,) in (yield from judged("messages/extend", parameters))])


def _over(name: str, parameters: Mapping[str, object]) -> Steps[None]:
    yield Ring([bells.of_message(id) for (id,) in (yield from judged(name, parameters))])


@reading
def message(id: int | str) -> Steps[Message]:
    """One message as it stands; one that expired is dead, and one that is due ready, also before a
    receiver finds it. Raises `unknown_message`."""
    rows = yield Query("messages/message", {"id": inputs.message_id(id)})
    if not rows:
        raise about(error("unknown_message"), {"id": id})
    return (yield from _told(rows))[0]


@reading
def messages(
    *,
    to: str | None = None,
    sender: str | None = None,
    status: str | None = None,
    session: str | None = None,
    limit: int = 10_000,
) -> Steps[list[Message]]:
    """The newest messages that match, newest first; nothing is changed. `to` is an address as it was sent."""
    if status is not None and status not in tuple(MessageStatus):
        raise error("invalid_status", f"no message has the status {str(status)[:40]!r}", ", ".join(MessageStatus))
    parameters = {"from": inputs.chosen(sender), "status": status, **inputs.page(limit, to=to, session=session)}
    return (yield from _told((yield Query("messages/messages", parameters))))


@looking
def pending(agent: str, *, limit: int = 10_000) -> Steps[list[Message]]:
    """What `receive` would find for an agent, in that order, but for what dead processes hold; nothing is changed."""
    return envelopes.decode((yield Query("messages/pending", inputs.page(limit, agent=inputs.name(agent)))))


@reading
def dead(*, session: str | None = None, limit: int = 10_000) -> Steps[list[Message]]:
    """The dead messages, oldest first, each with its `dead_reason`."""
    return (yield from _told((yield Query("messages/dead", inputs.page(limit, session=session)))))


def redrive(ids: int | str | Iterable[int | str] | None = None, *, session: str | None = None) -> Operation[list[int]]:
    """Give dead messages another life: the one or those named, all or none, or (None) all of a session or of the bus.

    Raises `unknown_message`, `not_dead`, and `usage` for both ids and a session.
    """
    if ids is not None and session is not None:
        raise error("usage", "redrive takes ids or a session, not both", "leave one of them out")
    given = None if ids is None else str(inputs.message_ids(ids))
    return Operation(partial(_redrive, {"ids": given, "session": inputs.chosen(session)}), writes=True)


def _redrive(parameters: Mapping[str, object]) -> Steps[list[int]]:
    rows = yield from judged("messages/redrive", parameters)
    yield Ring([address for _, address in rows])
    return sorted(id for id, _ in rows)


def wait_ended(id: int | str, *, wait: Duration) -> Routine[Message]:
    """Wait until a message is acknowledged or dead, at most so long; the message as it then stands, see `message`.

    Raises `unknown_message`.
    """
    end = clock.monotonic() + (inputs.duration(wait) or 0)
    while True:
        now: float = yield _now()
        found: Message = yield message(id)
        left = end - clock.monotonic()
        if found.status in envelopes.ENDED or left <= 0:
            return found
        expires = found.expires_at.timestamp() - now if found.expires_at else 0
        yield Pause([bells.of_message(found.id)], min(left, expires) if expires > 0 else left)


_now = reading(config.now)


def _told(rows: list[Row]) -> Steps[list[Message]]:
    now = yield from config.now()
    return [envelopes.as_it_stands(found, now) for found in envelopes.decode(rows)]
