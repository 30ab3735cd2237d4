"""Claims: which messages come next for an agent, and their lease.

A single message of any type, the usual case, goes a short way: where it comes from is looked up, and that row is
leased. When there is more to sort out (something is due, a holder has died, messages age, several are wanted) what is
due moves first, and then the best of what is ready are leased.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus import agents, bells, clock, envelopes, inputs, liveness
from bus.inputs import Duration
from bus.models import Message
from bus.operation import Change, Leap, Query, Ring, Row, Shortcut, Steps

AHEAD = 5  # seconds that a session's last activity may be ahead of the clock, which else was set back
_NOTHING = (0, 0, None)  # in place of messages: there are none, and nobody who holds some has died


def parameters(agent: str, limit: int, lease: Duration | None, type: str | None) -> Mapping[str, object]:
    """What `take` needs to know. Raises `usage`, `invalid_id`, `invalid_value`."""
    whole = inputs.whole("limit", limit, most=10_000)
    return {
        "agent": inputs.name(agent),
        "limit": whole,
        "lease": inputs.lease(lease),
        "type": inputs.words(type),
        "seen": None,
    }


def take(parameters: Mapping[str, object]) -> Steps[list[Message]]:
    """Lease what comes next, up to the limit, the most urgent first. Raises `unknown_agent`, `unknown_type`."""
    found = (yield from _next(parameters)) if parameters["limit"] == 1 and parameters["type"] is None else None
    return (yield from _all_sorted(parameters)) if found is None else found


def _next(parameters: Mapping[str, object]) -> Steps[list[Message] | None]:
    """The one message that comes next, or none; None when more must be looked at to tell: something is due, somebody
    died, messages age."""
    agent = str(parameters["agent"])
    for _ in range(2):  # once without the lock, and once with it when that was too late
        rows = yield Shortcut("messages/sources", parameters)
        if not rows:
            return None
        now, own_due, queue_due, last_activity, aging, lease, *holders, id, delivery, record = rows[0]
        timers = [moment for moment in (own_due, queue_due) if moment]
        if (
            aging
            or lease is None
            or (timers and (min(timers) <= now or (last_activity or "") > clock.later(now, AHEAD)))
        ):
            return None
        if any(holders) and (yield from agents.holder_has_died(agent, " ".join(filter(None, holders)).split())):
            return None
        yield agents.at_work(agent)
        if id is None:
            return []
        message = envelopes.sound(record)
        if not message or not envelopes.intact(message):
            return None
        due = clock.later(now, float(lease))
        found = envelopes.leased(message, agent, delivery + 1, now, due)
        taken = yield Change("messages/take", {"agent": agent, "id": id, "delivery": delivery, "due": due})
        if taken[0][1]:
            return [found]
    return None


def _all_sorted(parameters: Mapping[str, object]) -> Steps[list[Message]]:
    """What there is after all that is due has moved, up to the limit."""
    found: list[Message] = []
    rows: list[Row] = yield Leap("messages/receive", {**parameters, "seen": liveness.seen()})
    if rows == [_NOTHING] or (found := (yield from _sorted_out(sorted(rows)))):
        return found
    yield from agents.relieve_the_dead(str(parameters["agent"]))
    more = True
    while more and not found:
        rows = yield Query("messages/receive", parameters)
        found = yield from _sorted_out(sorted(rows))
        more = bool(rows) or (yield from _is_due(parameters))
    return found


def _is_due(parameters: Mapping[str, object]) -> Steps[bool]:
    """Whether more was due than `messages/receive` moves at once. PostgreSQL's moves it all."""
    rows = yield Shortcut("messages/next_due", {"agent": parameters["agent"]})
    return any(seconds is not None and seconds <= 0 for (seconds,) in rows)


def _sorted_out(rows: list[Row]) -> Steps[list[Message]]:
    """The messages that can be read; the others are buried, so that they block nobody."""
    found = []
    for _, id, record in rows:
        if (message := envelopes.sound(record)) and envelopes.intact(message):
            found.append(message)
        else:
            yield Query("messages/bury", {"id": id})
            yield Ring([bells.of_message(id)])
    return found
