"""The checkers of histories, on histories by hand: the least that each must complain about, and what it must not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.faults import checkers
from tests.faults.checkers import UNKNOWN, Op

MILLISECOND = 1_000_000


def op(process: str, kind: str, begin: float, end: float, answer: Any = None, refused: str = "", **given: Any) -> Op:
    """An operation, with its times in milliseconds."""
    return checkers.told(process, [kind, given, begin * MILLISECOND, end * MILLISECOND, answer, refused or None])


def send(id: int, begin: float, end: float, priority: int = 5) -> Op:
    return op("s", "send", begin, end, id, to="@q", priority=priority, name=f"m{id}")


def receive(process: str, begin: float, end: float, *receipts: str, limit: int = 1, lease: float = 1.0) -> Op:
    found = [[int(id), int(delivery), f"m{id}"] for id, _, delivery in (r.partition(".") for r in receipts)]
    return op(process, "receive", begin, end, found, boxes=["@q"], limit=limit, lease=lease)


def ack(process: str, begin: float, end: float, receipt: str, refused: str = "") -> Op:
    return op(process, "ack", begin, end, refused=refused, receipt=receipt)


def load(process: str, begin: float, end: float, answer: Any) -> Op:
    return op(process, "load", begin, end, answer, key="k")


def save(
    process: str, begin: float, end: float, value: str, answer: Any, if_version: int | None = None, refused=""
) -> Op:
    return op(process, "save", begin, end, answer, refused, key="k", value=value, if_version=if_version)


GOOD: dict[str, list[Op]] = {
    "a message sent, taken, acknowledged": [send(1, 0, 1), receive("a", 2, 3, "1.1"), ack("a", 4, 5, "1.1")],
    "taken before its sender was told": [send(1, 0, 9), receive("a", 2, 3, "1.1"), ack("a", 4, 5, "1.1")],
    "sent with an outcome that nobody knows": [op("s", "send", 0, 1, None, UNKNOWN, to="@q", priority=5, name="m1")],
    "a lease that ran out": [
        send(1, 0, 1),
        receive("a", 2, 3, "1.1", lease=0.1),
        receive("b", 110, 111, "1.2"),
        ack("a", 112, 113, "1.1", "lease_lost"),
        ack("b", 114, 115, "1.2"),
    ],
    "a more urgent one that came at the same time": [
        send(1, 0, 1),
        send(2, 2, 4, priority=9),
        receive("a", 3, 5, "1.1"),
        receive("b", 3, 6, "2.1"),
        ack("a", 7, 8, "1.1"),
        ack("b", 7, 8, "2.1"),
    ],
    "a register that is read while it changes": [
        save("a", 0, 10, "x", 1),
        load("b", 1, 2, None),
        load("b", 3, 4, ["x", 1]),
        save("c", 5, 6, "y", None, if_version=0, refused="version_conflict"),
    ],
    "a save that may have happened and did": [save("a", 0, 1, "x", None, refused=UNKNOWN), load("b", 50, 51, ["x", 1])],
    "a save that may have happened and did not": [save("a", 0, 1, "x", None, refused=UNKNOWN), load("b", 5, 6, None)],
    "a set": [
        op("a", "add", 0, 5, set="s", element="x"),
        op("b", "elements", 1, 2, ["x"], set="s"),
        op("b", "elements", 3, 4, ["x"], set="s"),
    ],
    "a counter": [
        op("a", "increment", 0, 5, 1, counter="c"),
        op("b", "count", 1, 2, 0, counter="c"),
        op("b", "count", 6, 7, 1, counter="c"),
    ],
}
BAD: dict[str, tuple[checkers.Checker, list[Op]]] = {
    "never taken": (checkers.lost, [send(1, 0, 1)]),
    "handed to two": (checkers.twice, [send(1, 0, 1), receive("a", 2, 3, "1.1"), receive("b", 2, 3, "1.1")]),
    "handed out after it was acknowledged": (
        checkers.twice,
        [send(1, 0, 1), receive("a", 2, 3, "1.1"), ack("a", 4, 5, "1.1"), receive("b", 6, 7, "1.2")],
    ),
    "acknowledged by two": (checkers.twice, [ack("a", 4, 5, "1.1"), ack("b", 6, 7, "1.2")]),
    "never sent": (checkers.unexpected, [receive("a", 2, 3, "1.1")]),
    "taken before it was sent": (checkers.unexpected, [receive("a", 0, 1, "1.1"), send(1, 2, 3)]),
    "the later one first": (checkers.order, [send(1, 0, 1), send(2, 0, 1), receive("a", 2, 3, "2.1")]),
    "the less urgent one first": (checkers.order, [send(1, 0, 1), send(2, 0, 1, 9), receive("a", 2, 3, "1.1")]),
    "nothing, though there was something": (checkers.order, [send(1, 0, 1), receive("a", 2, 3)]),
    "more than was asked for": (
        checkers.order,
        [send(1, 0, 1), send(2, 0, 1), receive("a", 2, 3, "1.1", "2.1")],
    ),
    "taken while another held it": (
        checkers.leases,
        [send(1, 0, 1), receive("a", 2, 3, "1.1", lease=1.0), receive("b", 500, 501, "1.2")],
    ),
    "taken while another had extended": (
        checkers.leases,
        [
            receive("a", 2, 3, "1.1", lease=0.1),
            op("a", "extend", 50, 51, receipt="1.1", lease=1.0),
            receive("b", 500, 501, "1.2"),
        ],
    ),
    "deliveries that shrink": (checkers.leases, [receive("a", 2, 3, "1.2"), receive("b", 4, 5, "1.1")]),
    "acknowledged with an old receipt": (
        checkers.leases,
        [receive("a", 0, 1, "1.1", lease=0.01), receive("b", 20, 21, "1.2"), ack("a", 22, 23, "1.1")],
    ),
    "an element that is lost": (
        checkers.sets,
        [op("a", "add", 0, 1, set="s", element="x"), op("b", "elements", 2, 3, [], set="s")],
    ),
    "an element that was seen and is gone": (
        checkers.sets,
        [
            op("a", "add", 0, 9, set="s", element="x"),
            op("b", "elements", 1, 2, ["x"], set="s"),
            op("b", "elements", 3, 4, [], set="s"),
        ],
    ),
    "an element out of nowhere": (checkers.sets, [op("b", "elements", 2, 3, ["x"], set="s")]),
    "an increment that is lost": (
        checkers.counters,
        [op("a", "increment", 0, 1, 1, counter="c"), op("b", "count", 2, 3, 0, counter="c")],
    ),
    "two who set from the same version": (
        checkers.registers,
        [save("a", 0, 5, "x", 1, if_version=0), save("b", 0, 5, "y", 2, if_version=0)],
    ),
    "a value that was there and is not": (
        checkers.registers,
        [save("a", 0, 1, "x", 1), load("b", 2, 3, None)],
    ),
    "two who see changes in different orders": (
        checkers.registers,
        [
            save("a", 0, 9, "x", 1),
            save("b", 0, 9, "y", 2),
            load("c", 1, 2, ["y", 2]),
            load("c", 3, 4, ["x", 1]),
        ],
    ),
    "a conflict where there was none": (
        checkers.registers,
        [save("a", 0, 1, "x", 1), save("b", 2, 3, "y", None, if_version=1, refused="version_conflict")],
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_have_been_is_no_breach(name: str) -> None:
    assert checkers.judge(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_have_been_is_a_breach(name: str) -> None:
    checker, history = BAD[name]
    assert list(checker(history))


def test_an_operation_of_unknown_outcome_never_returned() -> None:
    assert op("a", "ack", 0, 1, None, UNKNOWN, receipt="1.1").returned == math.inf


def test_a_long_history_of_many_is_judged_at_once() -> None:
    history = [save(f"p{n % 8}", n, n + 7.5, f"v{n}", n + 1) for n in range(400)]
    assert list(checkers.registers(history)) == []
