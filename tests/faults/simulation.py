"""A whole bus in one thread, with a virtual clock, every interleaving of operations chosen by a seed.

Agents are generators that yield the operations (and the pauses) they need, which is what the bus's own routines are; a
scheduler decides who goes on. It lets processes crash before, within and after an operation, stall past their leases,
find the bus busy, and never hear the answer to what was committed; doorbells go unheard, and the wall clock jumps by up
to a day. The store is the in-memory one; only time, processes and fate are the simulation's.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from typing import Any
from unittest import mock

from bus import Bus, agents, clock, liveness, messages, monitor, state, step, upkeep
from bus.errors import BusError, Conflict, Fault, TryAgain, error
from bus.models import Message
from bus.operation import Operation, Pause, Statement, Steps
from bus.store import sqlite
from bus.store.seldom import Lately
from bus.store.sqlite import Connection
from tests.faults import invariants, planted, work
from tests.faults.invariants import Breach
from tests.faults.world import World

UNIT = "seeds"
SIZES = {"quick": 5_000, "nightly": 500_000, "release": 5_000_000}
CHUNK = 250  # seeds a process takes at a time
OPERATIONS = 60  # operations and pauses of one seed, before it is verified
BEGINNING = 1_800_000_000.0
JUMPS = (-86400.0, -3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0, 86400.0)

Script = Generator[Operation[Any] | Pause | Callable[[], None], Any, None]


class Crash(BaseException):
    """The process is gone."""


class Fated(Connection):
    """A connection in memory on which an operation may fare badly."""

    crash_after = 0  # requests of an operation after which its process is gone; 0: it is not
    heard: Callable[[list[str]], None] = staticmethod(lambda bells: None)

    def _write(self, operation: Operation[Any]) -> Any:
        return super()._write(self._fated(operation) if self.crash_after else operation)

    def _read(self, operation: Operation[Any]) -> Any:
        return super()._read(self._fated(operation) if self.crash_after else operation)

    def _fated(self, operation: Operation[Any]) -> Operation[Any]:
        steps = partial(self._crashing, operation)
        return Operation(steps, operation.writes, single=operation.single, brief=operation.brief)

    def _crashing(self, operation: Operation[Any]) -> Steps[Any]:
        steps, left = operation.steps(), self.crash_after
        try:
            request: Any = next(steps)
            while True:
                left -= 1
                if not left:
                    raise Crash
                try:
                    reply = yield request
                except BusError as problem:
                    request = steps.throw(problem)
                else:
                    request = steps.send(reply)
        except StopIteration as stop:
            raise Crash from stop

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.doorbells.ring = lambda bells: self.heard(list(bells))  # type: ignore[method-assign]


class Nested:
    """A connection whose transactions are savepoints of one around a whole seed: taking that back leaves an empty bus,
    and costs a tenth of making one."""

    def __init__(self, sqlite: sqlite3.Connection) -> None:
        self._sqlite = sqlite
        self.in_transaction = False

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        if statement in ("begin", "begin immediate"):
            statement, self.in_transaction = "savepoint inner", True
        elif statement == "commit":
            statement, self.in_transaction = "release inner", False
        elif statement == "rollback":
            self._sqlite.execute("rollback to inner")
            statement, self.in_transaction = "release inner", False
        return self._sqlite.execute(statement, parameters)

    def close(self) -> None:
        self._sqlite.close()


class Actor:
    """One process of an agent."""

    def __init__(self, name: str, script: Script, pid: int | None, at: float) -> None:
        self.name = name
        self.script = script
        self.pid = pid
        self.at = at  # when it goes on
        self.pause: Pause | None = None
        self.reply: Any = None
        self.problem: BusError | None = None


class Simulation:
    """One seed: a bus, its agents, and what becomes of them."""

    def __init__(self, seed: int, bus: Bus, connection: Fated, cast: dict[str, Role]) -> None:
        self.chance = random.Random(seed)
        self.world = World()
        self.bus = bus
        self.connection = connection
        self.cast = cast
        self.elapsed = 0.0
        self.shift = 0.0
        self.processes: dict[int, int] = {}
        self.actors: dict[str, Actor] = {}
        connection.heard = self._ring

    def play(self) -> Counter[str]:
        """Let it happen, and judge it."""
        for name in self.cast:
            self._begin(name)
        for _ in range(OPERATIONS):
            self._turn()
        with self._now():
            return invariants.verify(self.bus, self.world)

    @contextmanager
    def _now(self) -> Iterator[None]:
        with clock.moved(to=BEGINNING + self.elapsed + self.shift):
            yield

    def _begin(self, name: str) -> None:
        """A process for an agent: now and then under the pid of one that is gone, started later."""
        pid = self.chance.randint(1000, 1008)
        if pid in self.processes or name == "nopid":
            pid = max(self.processes, default=2000) + 2000
        self.processes[pid] = int(self.elapsed * 100) + 1
        given = None if name == "nopid" else pid
        at = self.elapsed + self.chance.random()
        self.actors[name] = Actor(name, self.cast[name](self, name, given), pid, at)

    def _turn(self) -> None:
        """Whoever is next goes on; time passes."""
        first = min(actor.at for actor in self.actors.values())
        self.elapsed = max(self.elapsed, first)
        ready = [actor for actor in self.actors.values() if actor.at <= self.elapsed]
        actor = self.chance.choice(ready)
        self.elapsed += self.chance.random() * self.chance.choice((0.01, 1, 10))
        if self.chance.random() < 0.02:
            self.shift += self.chance.choice(JUMPS)
        try:
            self._go_on(actor)
        except Crash:
            self._crash(actor)

    def _go_on(self, actor: Actor) -> None:
        problem, actor.problem = actor.problem, None
        reply, actor.reply = actor.reply, None
        actor.pause = None
        with self._now():
            request = actor.script.throw(problem) if problem else actor.script.send(reply)
            actor.at = self.elapsed
            if isinstance(request, Pause):
                self._sleep(actor, request)
            elif callable(request):
                request()
            else:
                self._perform(actor, request)

    def _sleep(self, actor: Actor, pause: Pause) -> None:
        seconds = 60.0 if pause.seconds is None else pause.seconds
        gone = any(pid not in self.processes for pid in pause.pids)
        actor.at = self.elapsed + (0 if gone else seconds)
        actor.pause = pause

    def _perform(self, actor: Actor, operation: Operation[Any]) -> None:
        """One operation, and what becomes of it, of its answer, and of who asked."""
        fate = self.chance.random()
        if fate < 0.03:
            raise Crash
        if fate < 0.06:
            actor.problem = error("busy")
            return
        self.connection.crash_after = self.chance.randint(1, 12) if fate < 0.09 else 0
        try:
            actor.reply = self.bus.store.run(operation)
        except BusError as problem:
            actor.problem = problem
        finally:
            self.connection.crash_after = 0
        if fate > 0.97:
            raise Crash
        if fate > 0.94 and operation.writes and actor.problem is None:
            actor.reply, actor.problem = None, error("outcome_unknown")
        elif fate > 0.90:
            actor.at += self.chance.random() * 100  # stopped, past its lease perhaps

    def _crash(self, actor: Actor) -> None:
        actor.script.close()
        self.processes.pop(actor.pid or 0, None)
        for other in self.actors.values():
            if other.pause and actor.pid in other.pause.pids:
                other.at = self.elapsed
        self._begin(actor.name)
        self.actors[actor.name].at += self.chance.choice((0, 0, 50))

    def _ring(self, bells: list[str]) -> None:
        for actor in self.actors.values():
            if actor.pause and set(bells) & set(actor.pause.bells) and self.chance.random() < 0.9:
                actor.at = self.elapsed


Role = Callable[[Simulation, str, int | None], Script]


def insist(operation: Operation[Any]) -> Script:
    """Repeat an operation while the bus is busy, or the answer was lost; for what may be repeated."""
    while True:
        try:
            return (yield operation)
        except (TryAgain, Fault) as problem:
            if problem.code not in ("busy", "outcome_unknown"):
                raise


def receiving(sim: Simulation, name: str) -> Script:
    """The bus's own routine; when its answer is lost, so are the receipts."""
    while True:
        try:
            return (yield from messages.receive(name, limit=sim.chance.choice((1, 1, 3)), wait=20))
        except (TryAgain, Fault):
            continue


def executor(sim: Simulation, name: str, pid: int | None) -> Script:
    """Takes tasks and does each in one step."""
    yield from insist(agents.register(name, type=work.EXECUTOR, session=work.SESSION, pid=pid))
    while True:
        found: list[Message] = yield from receiving(sim, name)
        for message in found:
            sim.world.take(message.receipt)
        for message in found:
            if message.message_type != "task_assignment":
                yield from acknowledging(sim, message)
                continue
            yield Pause([], sim.chance.random() * sim.chance.choice((1, 20)))
            yield from stepping(sim, name, message)
            yield from tallying(sim)


def tallying(sim: Simulation) -> Script:
    """Adds one to a number that all share, by compare-and-set."""
    number, version = (yield from insist(state.load_versioned("all", "tally"))) or ("0", 0)
    yield Pause([], sim.chance.random())
    following = str(int(number) + 1)
    try:
        found = yield state.save("all", "tally", following, if_version=version)
        sim.world.save("all", "tally", found, following)
    except (Conflict, TryAgain, Fault):
        pass  # somebody else was first, or perhaps it was done


def stepping(sim: Simulation, name: str, message: Message) -> Script:
    """One step about one task, repeated while its outcome is unknown: it happens once."""
    while True:
        count = yield from insist(state.load_versioned(name, "count"))
        doing = work.operations(name, message, count)
        sim.world.intend(work.answer(message)["task_id"], work.answer(message))
        try:
            results = yield step.apply([messages.ack(message.receipt or "", once=True), *doing])
            return work.told(sim.world, name, message, results[1:])
        except Conflict:
            return None
        except (TryAgain, Fault):
            continue


def acknowledging(sim: Simulation, message: Message) -> Script:
    """Acknowledging twice is done."""
    try:
        yield from insist(messages.ack(message.receipt or ""))
        sim.world.acknowledge(message.receipt)
    except Conflict:
        pass


def coordinator(sim: Simulation, name: str, pid: int | None) -> Script:
    """Hands out tasks in every way there is, and takes the answers."""
    yield from insist(agents.register(name, type="milestone-coordinator", session=work.SESSION, pid=pid))
    while True:
        for _ in range(3):
            yield from handing_out(sim, name)
        found: list[Message] = yield from receiving(sim, name)
        for message in found:
            sim.world.take(message.receipt)
            yield from acknowledging(sim, message)


def handing_out(sim: Simulation, name: str) -> Script:
    """The next task, under its key; some later, some not for long, some withdrawn."""
    number, version = (yield from insist(state.load_versioned(name, "next"))) or ("0", 0)
    task = f"task-{number}"
    chance = random.Random(task)
    sim.world.intend(task, work.task(task), key=True)
    sending = messages.send(
        name,
        chance.choice((work.QUEUE, "one", "nopid")),
        "task_assignment",
        work.task(task),
        key=task,
        priority=chance.randint(1, 10),
        delay=chance.choice((None, None, None, 5)),
        expires=chance.choice((None, None, None, 40)),
    )
    id = yield from insist(sending)
    sim.world.confirm(id, task)
    try:
        if sim.chance.random() < 0.1:
            yield from insist(messages.cancel(id))
        following = str(int(number) + 1)
        found = yield state.save(name, "next", following, if_version=version)
        sim.world.save(name, "next", found, following)
    except (Conflict, TryAgain, Fault):
        return  # acknowledged already, or counted already


def recoverer(sim: Simulation, name: str, pid: int | None) -> Script:
    """Recovers and prunes from time to time."""
    while True:
        yield Pause([], sim.chance.random() * 30)
        yield sim.chance.choice((lambda: invariants.recover(sim.bus), lambda: _monitor(sim)))
        try:
            sim.world.prune((yield from upkeep.prune()))
        except (TryAgain, Fault):
            continue


def _monitor(sim: Simulation) -> None:
    """What a monitor does at each of its checks."""
    invariants.tick(sim.bus)
    sim.world.prune(sim.bus.store.carry_out(monitor.check()).pruned)


CAST: dict[str, Role] = {
    work.BOSS: coordinator,
    **dict.fromkeys(("one", "two", "nopid"), executor),
    "recoverer": recoverer,
}


class Stage:
    """A process in which seeds are played, one after the other, each on a fresh copy of an empty bus."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.processes: dict[int, int] = {}

    def __enter__(self) -> Stage:
        enter = self._stack.enter_context
        enter(mock.patch.object(sqlite, "Connection", Fated))
        enter(mock.patch.object(liveness, "started_at", lambda pid: self.processes.get(pid)))
        self.bus = enter(Bus.open(":memory:", create=True))
        connection = self.bus.store.connection()
        assert isinstance(connection, Fated)
        self.connection = connection
        with clock.moved(to=BEGINNING):
            invariants.watch(self.bus)
            self.bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
            self.bus.register("one", type=work.EXECUTOR, session=work.SESSION)
        self._sqlite = connection.sqlite
        nested = Nested(self._sqlite)
        connection.sqlite, connection.execute = nested, nested.execute  # type: ignore[assignment]  # a stand-in
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def play(self, seed: int, cast: dict[str, Role]) -> Counter[str]:
        """One seed; raises `Breach`."""
        simulation = Simulation(seed, self.bus, self.connection, cast)
        self.processes = simulation.processes
        self.connection.lately = Lately()
        self._sqlite.execute("begin")
        try:
            return simulation.play()
        except BusError as problem:
            raise Breach([f"an operation failed: {problem!r}"]) from problem
        finally:
            self._sqlite.execute("rollback")


def play(first: int, number: int, cast: dict[str, Role]) -> Counter[str]:
    """Seeds from `first` on; raises `Breach`, whose text names the seed."""
    total = Counter[str]()
    with Stage() as stage:
        for seed in range(first, first + number):
            try:
                total += stage.play(seed, cast)
            except Breach as breach:
                raise Breach([f"simulation 1 --seed {seed}: {breach}"]) from breach
    return total


def run(size: int, seed: int) -> str:
    """So many seeds, from `seed` on, on all processors."""
    firsts = range(seed, seed + size, CHUNK)
    numbers = [min(CHUNK, seed + size - first) for first in firsts]
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(numbers))) as pool:
        total = sum(pool.map(play, firsts, numbers, repeat(CAST)), Counter[str]())
    return f"{size} seeds, messages at the end: {dict(total)}"


# --- planted defects


def _unreceipted(seed: int) -> None:
    with planted.planted(planted.ACK_WITHOUT_RECEIPT_CHECK):
        play(seed, 1000, CAST)


def an_acknowledgement_without_the_receipt_check(seed: int) -> None:
    """Planted: whoever had a message may acknowledge it."""
    _unreceipted(seed)


def a_lease_that_is_taken_over_before_its_end(seed: int) -> None:
    """Planted: what is leased counts as due at once."""
    with planted.planted(
        {"operations/messages/receive.sql": ("    and due_at <= :now\n", "    and due_at is not null\n")}
    ):
        play(seed, 1000, CAST)


def a_delivery_that_is_not_counted(seed: int) -> None:
    """Planted: each delivery of a message has the same receipt."""
    with planted.planted(planted.SAME_DELIVERY):
        play(seed, 1000, CAST)


def a_claim_that_looks_and_then_takes(seed: int) -> None:
    """Planted: the claim is a select and, in another transaction, an update."""
    play(seed, 1000, {**CAST, **dict.fromkeys(("one", "two", "nopid"), _select_then_update)})


def _select_then_update(sim: Simulation, name: str, pid: int | None) -> Script:
    yield from insist(agents.register(name, type=work.EXECUTOR, session=work.SESSION, pid=pid))
    while True:
        found: list[Message] = yield from insist(messages.pending(name, limit=1))
        yield Pause([], sim.chance.random())
        for message in found:
            yield from insist(Operation(lambda id=message.id: _taken(id, name), True))
            taken: Message = yield from insist(messages.message(message.id))
            yield from stepping(sim, name, taken)


def _taken(id: int, name: str) -> Steps[None]:
    until = clock.stamp(clock.seconds() + 30)
    text = (
        f"update agent_messages set status = 'leased', leased_by = '{name}', delivery = delivery + 1,"
        f" delivered_at = '{clock.now()}', due_at = '{until}' where id = {id} and status in ('ready', 'leased')"
    )
    yield Statement({"sqlite": text})


def a_step_in_two_transactions(seed: int) -> None:
    """Planted: the effects are committed first, the acknowledgement later."""
    with mock.patch(f"{__name__}.stepping", _torn):
        play(seed, 1000, CAST)


def _torn(sim: Simulation, name: str, message: Message) -> Script:
    count = yield from insist(state.load_versioned(name, "count"))
    doing = work.operations(name, message, count)
    sim.world.intend(work.answer(message)["task_id"], work.answer(message))
    try:
        yield step.apply(doing)
        yield from acknowledging(sim, message)
    except (TryAgain, Fault, Conflict):
        pass


def a_step_that_may_be_repeated(seed: int) -> None:
    """Planted: a step whose message is acknowledged already happens again."""
    with mock.patch.object(messages, "ack", lambda receipts, once=False: real_ack(receipts)):
        play(seed, 1000, CAST)


real_ack = messages.ack


def a_compare_and_set_that_does_not_compare(seed: int) -> None:
    """Planted: the version that a save asks for is not looked at."""
    with planted.planted({"operations/state/save.sql": (":if_version is not null", "0")}):
        play(seed, 1000, CAST)


CONTROLS = (
    an_acknowledgement_without_the_receipt_check,
    a_lease_that_is_taken_over_before_its_end,
    a_delivery_that_is_not_counted,
    a_claim_that_looks_and_then_takes,
    a_step_in_two_transactions,
    a_step_that_may_be_repeated,
    a_compare_and_set_that_does_not_compare,
)
