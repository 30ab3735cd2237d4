"""Many processes on one bus note when each operation was invoked and returned; checkers judge the history.

Senders, receivers, and agents who share sets, counters and registers, some blocking, some async, on a file and on
PostgreSQL. No process knows of the others; the checkers (checkers.py) know of no bus: from times and answers alone they
say whether a queue, a set, a counter and a register with compare-and-set could have answered so.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from bus import AsyncBus, Bus
from bus.errors import BusError
from tests import servers
from tests.faults import checkers, planted, work
from tests.faults.checkers import Checker, Op
from tests.faults.crew import Crew
from tests.faults.invariants import Breach

UNIT = "seconds"
SIZES = {"quick": 6, "nightly": 1200, "release": 7200}
ROUND = 45.0  # seconds on one bus: two thirds on a file, one third on PostgreSQL
SHORT = 0.03  # seconds of a lease that runs out before its holder is done
BACKLOG = 40  # messages that may wait
ELEMENTS = 8  # that one process adds to a set, before it turns to the next
SHIFT = 40_000_000  # nanoseconds for which a register is used


class Place(NamedTuple):
    """Where the processes are, until when (in monotonic nanoseconds)."""

    folder: Path
    url: str
    end: int

    def over(self) -> bool:
        return time.monotonic_ns() > self.end


class Recorder:
    """One process's history, and its bus, in one of the colours."""

    def __init__(self, place: Place, name: str, chance: random.Random, part: int = 1) -> None:
        self.place = place
        self.name = name
        self._path = place.folder / f"{name}.{part}.history"
        self.chance = chance
        self.lines: list[str] = []
        self._asynchronous = chance.random() < 0.3

    @contextmanager
    def open(self) -> Iterator[Recorder]:
        """With the bus open; then the history is written down."""
        with asyncio.Runner() as runner:
            opened: Any = AsyncBus.open(self.place.url) if self._asynchronous else Bus.open(self.place.url)
            self.bus = runner.run(opened) if self._asynchronous else opened
            self._run = runner.run
            try:
                yield self
            finally:
                closed = self.bus.close()
                if inspect.isawaitable(closed):
                    runner.run(closed)  # type: ignore[arg-type]
        self._path.write_text("".join(self.lines), "utf-8")

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call the bus."""
        result = getattr(self.bus, name)(*args, **kwargs)
        return self._run(result) if inspect.isawaitable(result) else result  # type: ignore[arg-type]

    def note(self, kind: str, given: dict[str, Any], ask: Callable[[], Any]) -> Any:
        """Do it, and note when it began and ended, and how; the answer, None when it was refused."""
        answer, refused = None, None
        invoked = time.monotonic_ns()
        try:
            answer = ask()
        except BusError as problem:
            refused = problem.code
        returned = time.monotonic_ns()
        self.lines.append(json.dumps([kind, given, invoked, returned, answer, refused]) + "\n")
        return answer


Role = Callable[[Recorder], None]


# --- roles


def sender(me: Recorder) -> None:
    """Send to the queue and to mailboxes, while not too much waits."""
    with me.open():
        me.call("register", me.name, type="milestone-coordinator", session=work.SESSION)
        for number in itertools.count():
            if me.place.over():
                return
            if number % 8 == 0 and len(me.call("messages", status="ready", limit=BACKLOG)) == BACKLOG:
                time.sleep(0.01)
                continue
            name, to = f"{me.name}-{number}", me.chance.choice((work.QUEUE, work.QUEUE, *RECEIVERS))
            priority = me.chance.choice((1, 5, 5, 10))
            send = partial(me.call, "send", me.name, to, "task_assignment", {"task_id": name}, priority=priority)
            me.note("send", {"to": to, "priority": priority, "name": name}, send)


def claim(me: Recorder, limit: int, lease: float) -> list[list[Any]]:
    """Receive, as the bus does it."""
    found = me.call("receive", me.name, limit=limit, lease=lease, wait=0.05 if me.chance.random() < 0.3 else None)
    return [[message.id, int(message.receipt.partition(".")[2]), message.payload["task_id"]] for message in found]


Claim = Callable[[Recorder, int, float], list[list[Any]]]


def take(me: Recorder, claim: Claim, limit: int, lease: float) -> list[str]:
    """Receive, noted; the receipts."""
    given = {"boxes": [me.name, work.QUEUE], "limit": limit, "lease": lease}
    found = me.note("receive", given, lambda: claim(me, limit, lease))
    return [f"{id}.{delivery}" for id, delivery, _ in found or []]


def receiver(me: Recorder, claim: Claim = claim) -> None:
    """Take messages and end them in all ways, sometimes too late; leave nothing behind that is held."""
    with me.open():
        me.call("register", me.name, type=work.EXECUTOR, session=work.SESSION)
        while not me.place.over():
            late = me.chance.random() < 0.15
            receipts = take(me, claim, me.chance.choice((1, 1, 1, 3)), SHORT if late else 20.0)
            if late:
                time.sleep(SHORT * me.chance.choice((0.5, 1.3)))
            for receipt in receipts:
                end(me, receipt)


def end(me: Recorder, receipt: str) -> None:
    """Release, or acknowledge, perhaps after an extension."""
    if me.chance.random() < 0.1:
        me.note("extend", {"receipt": receipt, "lease": 20.0}, lambda: me.call("extend", receipt, lease=20.0))
    kind = "release" if me.chance.random() < 0.15 else "ack"
    me.note(kind, {"receipt": receipt}, lambda: me.call(kind, receipt))


def add(me: Recorder, name: str, element: str) -> None:
    """Add to a set: a key of an agent."""
    me.call("state_save", name, element, "", if_version=0)


def counting(me: Recorder, add: Callable[[Recorder, str, str], None] = add) -> None:
    """Add to sets and read them; count up by compare-and-set; save, load and delete registers."""
    with me.open():
        for number in itertools.count():
            if me.place.over():
                return
            me.chance.choice((member, increment, registered, registered))(me, number, add)


def member(me: Recorder, number: int, add: Callable[[Recorder, str, str], None]) -> None:
    name, element = f"set-{number // (4 * ELEMENTS)}", f"{me.name}-{number}"
    if me.chance.random() < 0.7:
        me.note("add", {"set": name, "element": element}, lambda: add(me, name, element))
    if me.chance.random() < 0.5:
        me.note("elements", {"set": name}, lambda: [found.state_key for found in me.call("state_list", name)])


def increment(me: Recorder, number: int, _: object) -> None:
    counter = f"counter-{number // 300}"
    found = me.note("count", {"counter": counter}, lambda: int((me.call("state_load", counter, "n")) or 0))
    versioned = me.call("state_load_versioned", counter, "n") or ("0", 0)
    value = str(int(versioned[0]) + 1)
    save = partial(me.call, "state_save", counter, "n", value, if_version=versioned[1])
    if found is not None:
        me.note("increment", {"counter": counter}, save)


def registered(me: Recorder, number: int, _: object) -> None:
    """All who are here at this time use the same register."""
    key = f"register-{time.monotonic_ns() // SHIFT}"
    kind = me.chance.choice(("load", "save", "save", "save", "delete"))
    if kind == "load":
        me.note("load", {"key": key}, lambda: me.call("state_load_versioned", "registers", key))
    if kind == "delete" and me.chance.random() < 0.3:
        me.note("delete", {"key": key}, lambda: me.call("state_delete", "registers", key))
    if kind == "save":
        found = me.note("load", {"key": key}, lambda: me.call("state_load_versioned", "registers", key))
        wanted = None if me.chance.random() < 0.2 else found[1] if found else 0
        value = f"{me.name}-{number}"
        save = partial(me.call, "state_save", "registers", key, value, if_version=wanted)
        me.note("save", {"key": key, "value": value, "if_version": wanted}, save)


RECEIVERS = tuple(f"receiver-{number}" for number in range(4))
CAST: dict[str, Role] = {
    **{f"sender-{number}": sender for number in range(3)},
    **dict.fromkeys(RECEIVERS, receiver),
    **{f"counting-{number}": counting for number in range(4)},
}


# --- a round


def play(url: str, seconds: float, seed: int, cast: dict[str, Role] = CAST) -> list[Op]:
    """All at once on a new bus for so long; what they noted, and what was there in the end."""
    work.warm()
    chance = random.Random(seed)
    with work.folder() as folder:
        url = url or str(folder / "coordination.db")
        with Bus.open(url, create=True) as bus:
            bus.config_set("message_retry_limit", "1000000")
        place = Place(folder, url, time.monotonic_ns() + int(seconds * 1e9))
        crew = Crew(folder)
        for name, role in cast.items():
            crew.begin(name, partial(role, Recorder(place, name, random.Random(chance.getrandbits(32)))))
        crew.finish(seconds + 60)
        crew.begin("last", partial(_last, place, sorted(cast)))
        crew.finish(60)
        return [
            checkers.told(path.name.partition(".")[0], json.loads(line))
            for path in sorted(folder.glob("*.history"))
            for line in path.read_text("utf-8").splitlines()
        ]


def _last(place: Place, names: list[str]) -> None:
    """Take what is left, when every lease that ran out has done so, and read all sets and counters."""
    time.sleep(SHORT)
    for name in [name for name in names if name in RECEIVERS]:
        me = Recorder(place, name, random.Random(0), part=2)
        with me.open():
            while receipts := take(me, claim, 50, 20.0):
                for receipt in receipts:
                    me.note("ack", {"receipt": receipt}, partial(me.call, "ack", receipt))
    me = Recorder(place, "last", random.Random(0))
    with me.open():
        sets = {line[1]["set"] for line in _lines(place) if line[0] == "add"}
        for name in sorted(sets):
            me.note("elements", {"set": name}, lambda name=name: [e.state_key for e in me.call("state_list", name)])
        for name in sorted({line[1]["counter"] for line in _lines(place) if line[0] == "increment"}):
            me.note("count", {"counter": name}, lambda name=name: int(me.call("state_load", name, "n") or 0))


def _lines(place: Place) -> Iterator[list[Any]]:
    for path in place.folder.glob("counting*.history"):
        yield from map(json.loads, path.read_text("utf-8").splitlines())


def judged(
    url: str,
    seconds: float,
    seed: int,
    cast: dict[str, Role] = CAST,
    by: tuple[Checker, ...] = checkers.CHECKERS,
) -> Counter[str]:
    """Play a round and judge it; the number of operations by kind. Raises `Breach`."""
    history = play(url, seconds, seed, cast)
    if lines := [line for checker in by for line in checker(history)]:
        raise Breach(lines)
    return Counter(op.kind for op in history)


def run(size: int, seed: int) -> str:
    """So many seconds. The schedule is the machine's: a seed makes the same roles and choices, not the same moments."""
    total, rounds = Counter[str](), max(1, round(size / ROUND))
    with servers.own() as server:
        for number in range(seed, seed + rounds):
            try:
                total += judged("", size / rounds * 2 / 3, number)
                with servers.schema(server.url, "histories") as url:
                    total += judged(url, size / rounds / 3, number)
            except Breach as breach:
                raise Breach([f"histories {size} --seed {number}: {breach}"]) from breach
    return f"{total.total()} operations of {len(CAST)} processes, on a file and on PostgreSQL: {dict(total)}"


# --- planted defects

CONTROL = 1.5  # seconds


def _careless_claim(me: Recorder, limit: int, lease: float) -> list[list[Any]]:
    """As programs do that look first and then take."""
    with closing(sqlite3.connect(me.place.url, timeout=10, isolation_level=None)) as connection:
        connection.execute("pragma wal_autocheckpoint = 0")
        found = connection.execute(
            "select id, delivery + 1, payload ->> 'task_id' from agent_messages"
            " where to_agent in (?, ?) and status = 'ready' order by priority desc, id limit ?",
            [me.name, work.QUEUE, limit],
        ).fetchall()
        for id, delivery, _ in found:
            with suppress(sqlite3.IntegrityError):
                connection.execute(
                    "update agent_messages set status = 'leased', leased_by = ?, delivery = ?,"
                    " delivered_at = datetime(), due_at = datetime('now', ? || ' seconds') where id = ?",
                    [me.name, delivery, lease, id],
                )
        return [list(row) for row in found]


def a_claim_that_looks_and_then_takes(seed: int) -> None:
    """Planted: a message is selected, and taken by an update in a transaction after that."""
    cast = {**CAST, **dict.fromkeys(RECEIVERS, partial(receiver, claim=_careless_claim))}
    judged("", CONTROL, seed, cast, (checkers.twice,))


def an_acknowledgement_without_the_receipt_check(seed: int) -> None:
    """Planted: whoever had a message may acknowledge it."""
    with planted.planted(planted.ACK_WITHOUT_RECEIPT_CHECK):
        judged("", CONTROL, seed, by=(checkers.leases,))


def a_lease_that_is_over_at_once(seed: int) -> None:
    """Planted: a message that is leased is handed to the next who asks."""
    with planted.planted(planted.DUE_AT_ONCE):
        judged("", CONTROL, seed, by=(checkers.leases,))


def a_claim_without_order(seed: int) -> None:
    """Planted: of a queue the newest is claimed, not the most urgent."""
    old = """where agent_id = :agent)
        and status = 'ready' and (:type is null or message_type = :type)
        and (expires_at is null or expires_at > :now)
        and (select cast(value as real) from agent_coordination_config where key = 'priority_aging_seconds') = 0
      order by priority desc, id limit :limit)"""
    head = """'@' || a.agent_type || '/' || a.session_id and status = 'ready'
   order by priority desc, id limit 1)"""
    newest = ("order by priority desc, id", "order by id desc")
    edits = {
        "operations/messages/receive.sql": (old, old.replace(*newest)),
        "operations/messages/sources.sql": (head, head.replace(*newest)),
    }
    with planted.planted(edits):
        judged("", CONTROL, seed, by=(checkers.order,))


def a_save_that_ignores_the_version(seed: int) -> None:
    """Planted: compare-and-set sets without comparing."""
    with planted.planted({"operations/state/save.sql": (":if_version is not null and", "0 and")}):
        judged("", CONTROL, seed, by=(checkers.registers,))


def a_count_that_ignores_the_version(seed: int) -> None:
    """Planted: the same, for those who count up together."""
    with planted.planted({"operations/state/save.sql": (":if_version is not null and", "0 and")}):
        judged("", CONTROL, seed, by=(checkers.counters,))


_waiting: list[tuple[str, str]] = []


def _later(me: Recorder, name: str, element: str) -> None:
    """Some at a time, to save commits."""
    _waiting.append((name, element))
    if len(_waiting) == 4:
        for found in _waiting:
            add(me, *found)
        _waiting.clear()


def an_answer_before_the_commit(seed: int) -> None:
    """Planted: what is added is confirmed at once, and stored with the next ones."""
    roles = {name: partial(counting, add=_later) if role is counting else role for name, role in CAST.items()}
    judged("", CONTROL, seed, roles, (checkers.sets,))


def _forgotten(me: Recorder, claim: Claim = claim) -> None:
    """Takes what it receives without a lease that ends, and does one in ten of them never."""
    with me.open():
        me.call("register", me.name, type=work.EXECUTOR, session=work.SESSION)
        while not me.place.over():
            for receipt in take(me, claim, 1, 3600.0):
                if me.chance.random() < 0.9:
                    end(me, receipt)


def a_receiver_that_forgets(seed: int) -> None:
    """Planted: a message is taken for an hour and never done."""
    judged("", CONTROL, seed, {**CAST, RECEIVERS[0]: _forgotten}, (checkers.lost,))


def _misread(me: Recorder, limit: int, lease: float) -> list[list[Any]]:
    """Sees the work of another message."""
    found = claim(me, limit, lease)
    return [[id + 1, delivery, name] for id, delivery, name in found]


def a_message_that_was_never_sent(seed: int) -> None:
    """Planted: what is handed out is not what was sent under that id."""
    judged("", CONTROL, seed, {**CAST, RECEIVERS[0]: partial(receiver, claim=_misread)}, (checkers.unexpected,))


CONTROLS = (
    a_claim_that_looks_and_then_takes,
    an_acknowledgement_without_the_receipt_check,
    a_lease_that_is_over_at_once,
    a_claim_without_order,
    a_save_that_ignores_the_version,
    a_count_that_ignores_the_version,
    an_answer_before_the_commit,
    a_receiver_that_forgets,
    a_message_that_was_never_sent,
)
