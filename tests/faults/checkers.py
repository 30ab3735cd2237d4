"""Checkers of histories: pure functions from what was asked and answered, and when, to the breaches that it shows.

An operation takes effect at some moment between its invocation and its return; which, nobody outside can see. So a
checker complains only about what no choice of such moments explains. One whose outcome is unknown may take effect at
any time after its invocation, or never.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

UNKNOWN = "outcome_unknown"
SLACK = 3_000_000  # nanoseconds: a bus writes its times in milliseconds
SECOND = 1_000_000_000


class Op(NamedTuple):
    """One operation of one process; times in nanoseconds of a monotonic clock that all processes share."""

    process: str
    kind: str
    given: dict[str, Any]
    invoked: float
    returned: float  # for ever, when the outcome is unknown
    answer: Any
    refused: str | None

    @property
    def done(self) -> bool:
        """Whether it certainly took effect."""
        return self.refused is None

    @property
    def perhaps(self) -> bool:
        """Whether it took effect, or may have."""
        return self.refused in (None, UNKNOWN)


def told(process: str, line: Sequence[Any]) -> Op:
    """An operation as a process noted it."""
    kind, given, invoked, returned, answer, refused = line
    return Op(process, kind, given, invoked, math.inf if refused == UNKNOWN else returned, answer, refused)


def of(history: Iterable[Op], *kinds: str) -> list[Op]:
    """The operations of some kinds, by the time of their invocation."""
    return sorted((op for op in history if op.kind in kinds), key=lambda op: op.invoked)


def judge(history: Sequence[Op]) -> list[str]:
    """What all checkers find."""
    return [line for checker in CHECKERS for line in checker(history)]


# --- the queue. send {to, priority, name}: id; receive {boxes, limit, lease}: [id, delivery, name]…, best first;
# ack, release, extend {receipt}. What is left at the end is taken, too, and is part of the history.


class Delivery(NamedTuple):
    """A message that was handed out."""

    id: int
    number: int
    name: str
    by: Op

    @property
    def receipt(self) -> str:
        return f"{self.id}.{self.number}"


def deliveries(history: Iterable[Op]) -> list[Delivery]:
    """All that was handed out, by the time at which it was asked for."""
    return [Delivery(*found, op) for op in of(history, "receive") if op.done for found in op.answer]


def lost(history: Sequence[Op]) -> Iterator[str]:
    """Each message that was confirmed is acknowledged in the end."""
    over = {op.given["receipt"].partition(".")[0] for op in of(history, "ack") if op.perhaps}
    for op in of(history, "send"):
        if op.done and str(op.answer) not in over:
            yield f"message {op.answer} ({op.given['name']}) was confirmed and is lost"


def twice(history: Sequence[Op]) -> Iterator[str]:
    """A delivery is handed out once, a message acknowledged under one receipt, and not handed out after that."""
    handed = Counter(delivery.receipt for delivery in deliveries(history))
    for receipt, number in handed.items():
        if number > 1:
            yield f"delivery {receipt} was handed out {number} times"
    ended: dict[int, Op] = {}
    for op in of(history, "ack"):
        id = int(op.given["receipt"].partition(".")[0])
        if op.done and ended.setdefault(id, op).given["receipt"] != op.given["receipt"]:
            yield f"message {id} was acknowledged as {ended[id].given['receipt']} and as {op.given['receipt']}"
    for delivery in deliveries(history):
        end = ended.get(delivery.id)
        if end and end.returned < delivery.by.invoked:
            yield f"message {delivery.id} was handed out as {delivery.receipt} after it was acknowledged"


def unexpected(history: Sequence[Op]) -> Iterator[str]:
    """Only what was sent is handed out, as it was sent, and not before."""
    sent = {op.given["name"]: op for op in of(history, "send")}
    for delivery in deliveries(history):
        op = sent.get(delivery.name)
        if op is None or not op.perhaps:
            yield f"message {delivery.id} ({delivery.name}) was never sent"
        elif op.done and op.answer != delivery.id:
            yield f"message {delivery.id} came with what was sent as {op.answer}"
        elif delivery.by.returned < op.invoked:
            yield f"message {delivery.id} came before it was sent"


class Ready(NamedTuple):
    """A time in which a message certainly lay there to be taken."""

    begin: float
    end: float
    box: str
    rank: tuple[int, int]  # who has the least is the best


def ready(history: Sequence[Op]) -> list[Ready]:
    """From when a message was sent or given back, to when somebody asked and got its next delivery."""
    asked: dict[tuple[int, int], float] = {}
    for delivery in deliveries(history):
        asked.setdefault((delivery.id, delivery.number), delivery.by.invoked)
    sent = {op.answer: op for op in of(history, "send") if op.done}
    begins = [(id, 1, op.returned) for id, op in sent.items()]
    for op in of(history, "release"):
        id, _, number = op.given["receipt"].partition(".")
        if op.done and int(id) in sent:
            begins.append((int(id), int(number) + 1, op.returned))
    times = [
        Ready(begin, asked.get((id, number), math.inf), sent[id].given["to"], (-sent[id].given["priority"], id))
        for id, number, begin in begins
    ]
    return sorted(time for time in times if time.begin < time.end)


def order(history: Sequence[Op]) -> Iterator[str]:
    """Who receives gets the best of what lay there all the while, best first, and as many as were asked for."""
    rank = {op.answer: (-op.given["priority"], op.answer) for op in of(history, "send") if op.done}
    times, next_time = ready(history), 0
    there: list[Ready] = []
    for op in of(history, "receive"):
        while next_time < len(times) and times[next_time].begin < op.invoked:
            there.append(times[next_time])
            next_time += 1
        there = [time for time in there if time.end > op.invoked]
        if not op.done:
            continue
        got = [rank.get(id, (0, id)) for id, *_ in op.answer]
        if len(got) > op.given["limit"]:
            yield f"{op.process} asked for {op.given['limit']} and received {len(got)}"
        if got != sorted(got):
            yield f"{op.process} received {[id for id, *_ in op.answer]}, the best of them not first"
        for time in there:
            if time.end > op.returned and time.box in op.given["boxes"]:
                if len(got) < op.given["limit"]:
                    yield f"{op.process} received {len(got)} of {op.given['limit']}, though {time.rank[1]} lay there"
                elif time.rank < max(got):
                    yield f"{op.process} received {max(got)[1]}, though {time.rank[1]} lay there and comes before it"


class Lease(NamedTuple):
    """A time in which a delivery certainly belonged to its receiver."""

    begin: float
    end: float
    delivery: Delivery


def leased(history: Sequence[Op]) -> Iterator[Lease]:
    """From when the receiver, or who extended, was told, to the end of the lease or when anybody began to end it."""
    ended: dict[str, float] = {}
    for op in of(history, "ack", "release"):
        ended.setdefault(op.given["receipt"], op.invoked)
    extended = defaultdict(list)
    for op in of(history, "extend"):
        if op.done:
            extended[op.given["receipt"]].append(op)
    for delivery in deliveries(history):
        for op in (delivery.by, *extended[delivery.receipt]):
            end = min(op.invoked + op.given["lease"] * SECOND - SLACK, ended.get(delivery.receipt, math.inf))
            if op.returned < end:
                yield Lease(op.returned, end, delivery)


def leases(history: Sequence[Op]) -> Iterator[str]:
    """While somebody holds a message nobody else gets it; deliveries grow; a receipt of before can end nothing."""
    of_message: dict[int, list[Delivery]] = defaultdict(list)
    for delivery in deliveries(history):
        of_message[delivery.id].append(delivery)
    for lease in leased(history):
        for other in of_message[lease.delivery.id]:
            held = lease.begin < other.by.invoked and other.by.returned < lease.end
            if other.number != lease.delivery.number and held:
                holder = lease.delivery.by.process
                yield f"{other.by.process} got {other.receipt}, while {holder} held {lease.delivery.receipt}"
    for delivered in of_message.values():
        for one in delivered:
            for other in delivered:
                if one.number < other.number and other.by.returned < one.by.invoked:
                    yield f"{one.receipt} was handed out after {other.receipt}"
    for op in of(history, "ack", "release", "extend"):
        id, _, number = op.given["receipt"].partition(".")
        after = (d for d in of_message[int(id)] if d.number > int(number) and d.by.returned < op.invoked)
        if op.done and (later := next(after, None)):
            yield f"{op.process} could {op.kind} {op.given['receipt']} after {later.by.process} got {later.receipt}"


# --- a set. add {set, element}; elements {set}: those there are.


def sets(history: Sequence[Op]) -> Iterator[str]:
    """A reading holds all that was added or read before it began, and nothing that was not being added."""
    added: dict[str, dict[str, Op]] = defaultdict(dict)
    for op in of(history, "add"):
        if op.perhaps:
            added[op.given["set"]][op.given["element"]] = op
    seen: dict[str, dict[str, float]] = defaultdict(dict)  # since when an element is known to be there
    for name, elements in added.items():
        seen[name] = {element: op.returned for element, op in elements.items() if op.done}
    readings = [op for op in of(history, "elements") if op.done]
    for op in readings:
        for element in op.answer:
            since = seen[op.given["set"]]
            since[element] = min(since.get(element, math.inf), op.returned)
    for op in readings:
        name, found = op.given["set"], set(op.answer)
        for element, since in seen[name].items():
            if since < op.invoked and element not in found:
                yield f"{element} of {name} was there, and {op.process} does not see it"
        for element in found:
            if element not in added[name]:
                yield f"{element} of {name} was never added"
            elif added[name][element].invoked > op.returned:
                yield f"{element} of {name} was seen before it was added"


# --- a counter that is counted up by compare-and-set. increment {counter}; count {counter}: how many.


def counters(history: Sequence[Op]) -> Iterator[str]:
    """A reading lies between the increments that had ended before it began and those begun before it ended."""
    invoked: dict[str, list[float]] = defaultdict(list)
    returned: dict[str, list[float]] = defaultdict(list)
    for op in of(history, "increment"):
        if op.perhaps:
            invoked[op.given["counter"]].append(op.invoked)
            returned[op.given["counter"]].append(op.returned)
    for times in (*invoked.values(), *returned.values()):
        times.sort()
    for op in of(history, "count"):
        name = op.given["counter"]
        least, most = bisect_left(returned[name], op.invoked), bisect_right(invoked[name], op.returned)
        if op.done and not least <= op.answer <= most:
            yield f"{op.process} reads {op.answer} of {name}, which was incremented {least} to {most} times"


# --- a register with compare-and-set. load {key}: value and version or nothing; save {key, value, if_version}: version;
# delete {key}: whether there was one.

Register = tuple[int, str | None]  # version, which goes on growing after a deletion, and value


def register(state: Register, op: Op) -> Register | None:
    """The state after an operation; None when it would not have answered so."""
    version, value = state
    present = 0 if value is None else version
    if op.kind == "load":
        return state if op.answer == (None if value is None else [value, version]) else None
    if op.kind == "delete":
        return (version, None) if op.refused or op.answer == (value is not None) else None
    wanted = op.given["if_version"]
    if wanted is not None and wanted != present:
        return state if op.refused else None
    if op.refused == UNKNOWN or (op.done and op.answer == version + 1):
        return version + 1, op.given["value"]
    return None


State = Any
Step = Callable[[State, Op], State | None]


def linearizable(history: Iterable[Op], step: Step, state: State) -> list[Op]:
    """The operations that no order explains, besides the largest number that one does; none: it is linearizable.

    Wing and Gong's search ("Testing and verifying concurrent objects", JPDC 17, 1993): of the operations left, any that
    was invoked before each of the others returned may be the next; go back where none fits. What was tried, which
    operations in which state, is remembered and not tried again (Lowe, "Testing for linearizability", CCPE 29, 2017).
    """
    ops = sorted(history, key=lambda op: op.invoked)
    needed = sum(1 << number for number, op in enumerate(ops) if op.returned < math.inf)
    todo, tried, furthest = [(0, state)], {(0, state)}, 0
    while todo:
        done, state = todo.pop()
        if done & needed == needed:
            return []
        if done.bit_count() > furthest.bit_count():
            furthest = done
        for number in _next(ops, done):
            following = step(state, ops[number])
            reached = (done | 1 << number, following)
            if following is not None and reached not in tried:
                tried.add(reached)
                todo.append(reached)
    return [op for number, op in enumerate(ops) if not furthest >> number & 1]


def _next(ops: Sequence[Op], done: int) -> list[int]:
    """Which may come next: those invoked before any other that is left returned."""
    first = (~done & (done + 1)).bit_length() - 1
    limit, found = math.inf, []
    for number in range(first, len(ops)):
        if ops[number].invoked > limit:
            break
        if not done >> number & 1:
            found.append(number)
            limit = min(limit, ops[number].returned)
    return [number for number in found if ops[number].invoked <= limit]


def registers(history: Sequence[Op]) -> Iterator[str]:
    """Each key by itself is linearizable, and then all together are."""
    of_key = defaultdict(list)
    for op in of(history, "load", "save", "delete"):
        if op.perhaps or op.refused == "version_conflict":
            of_key[op.given["key"]].append(op)
    for key, ops in of_key.items():
        if left := linearizable(ops, register, (0, None)):
            first = f"{left[0].process}'s {left[0].kind} {left[0].given}, answered {left[0].answer or left[0].refused}"
            yield f"{key}: no order explains {len(left)} of {len(ops)} operations, first {first}"


Checker = Callable[[Sequence[Op]], Iterator[str]]
CHECKERS: tuple[Checker, ...] = (lost, twice, unexpected, order, leases, sets, counters, registers)
