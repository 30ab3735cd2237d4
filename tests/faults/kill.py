"""A coordinator, workers and a recoverer are killed with SIGKILL at random moments, and go on.

The processes are forked from one parent that has imported everything and never holds the bus open while they run. Each
lives for a random time, from less than it takes to open the bus to a few dozen steps; a killed one is sometimes left a
zombie for a while. What was confirmed to them stands in their journals. After some hundred kills the bus is verified,
and a new one begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bus_client import Agent

from bus import Bus, messages
from bus.errors import BusError, Conflict
from bus.models import Message
from tests.faults import invariants, planted, work
from tests.faults.invariants import Breach
from tests.faults.world import Journal, World

UNIT = "kills"
SIZES = {"quick": 300, "nightly": 10_000, "release": 50_000}
ROUND = 300  # kills after which a bus is verified
EXECUTORS = ("one", "two", "three")
PATIENCE = 120.0  # seconds that a round may take at most
_libc = ctypes.CDLL(None)


class Place(NamedTuple):
    """Where a storm rages."""

    folder: Path
    parent: int

    @property
    def url(self) -> str:
        return str(self.folder / "coordination.db")

    def orphaned(self) -> bool:
        return os.getppid() != self.parent


Role = Callable[[Place, str, Journal, random.Random], None]
Step = Callable[[Agent, Message, World], None]


def step(agent: Agent, message: Message, world: World) -> None:
    """All that a task asks for, in one step."""
    world.intend(work.answer(message)["task_id"], work.answer(message))
    with agent.step(message) as step:
        step.operations.extend(work.operations(agent.id, message, agent.state.load_versioned("count")))
    work.told(world, agent.id, message, step.results[1:])


def torn_step(agent: Agent, message: Message, world: World) -> None:
    """A planted defect: the step is two transactions."""
    world.intend(work.answer(message)["task_id"], work.answer(message))
    doing = work.operations(agent.id, message, agent.state.load_versioned("count"))
    agent.bus.apply(doing[:2])
    agent.bus.apply([messages.ack(message.receipt or ""), *doing[2:]])


def executor(
    place: Place, name: str, journal: Journal, chance: random.Random, step: Step = step, slowness: float = 0.1
) -> None:
    """Take tasks and do them; sometimes longer than the lease lasts."""
    with Agent(name, type=work.EXECUTOR, session=work.SESSION, bus=place.url) as agent:
        while not place.orphaned():
            slow = chance.random() < slowness
            found = agent.receive(limit=chance.choice((1, 1, 3)), wait=0.5, lease=0.005 if slow else None)
            for message in found:
                journal.take(message.receipt)
            if slow:
                time.sleep(0.01)
            for message in found:
                with contextlib.suppress(Conflict):
                    step(agent, message, journal)


def coordinator(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """Hand out tasks under idempotency keys, a few at a time, and take the answers."""
    with Agent(name, type="milestone-coordinator", session=work.SESSION, bus=place.url) as agent:
        while not place.orphaned():
            waiting = agent.bus.messages(status="ready", limit=31)
            for _ in range(0 if len(waiting) > 30 else 5):
                _hand_out(agent, journal)
            for message in agent.receive(limit=20, wait=0.02):
                journal.take(message.receipt)
                with contextlib.suppress(Conflict):
                    agent.ack(message.receipt or "")
                    journal.acknowledge(message.receipt)


def _hand_out(agent: Agent, journal: Journal) -> None:
    """The next task. Killed between the two calls, it is sent again, under the same key."""
    number, version = agent.state.load_versioned("next") or ("0", 0)
    name = f"task-{number}"
    to = (work.QUEUE, *EXECUTORS)[int(number) % 4]
    journal.intend(name, work.task(name), key=True)
    journal.confirm(agent.send(to, "task_assignment", work.task(name), key=name, priority=1 + int(number) % 10), name)
    following = str(int(number) + 1)
    journal.save(agent.id, "next", agent.state.save("next", following, if_version=version), following)


def recoverer(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """Recover again and again, as a supervising script does, or check as a monitor does."""
    while not place.orphaned():
        with Bus.open(place.url) as bus:
            invariants.recover(bus) if chance.random() < 0.7 else bus.monitor_check()
        time.sleep(chance.random() * 0.03)


CAST: dict[str, Role] = {work.BOSS: coordinator, **dict.fromkeys(EXECUTORS, executor), "recoverer": recoverer}


class Storm:
    """One bus, its processes, and who kills them."""

    LIVES: tuple[float, ...] = (0.01, 0.04, 0.16)  # seconds, on average

    def __init__(self, place: Place, seed: int, cast: dict[str, Role]) -> None:
        self.place = place
        self.chance = random.Random(seed)
        self.cast = cast
        self.alive: dict[str, tuple[float, int]] = {}
        self.zombies: list[int] = []
        self.lives = 0

    def rage(self, kills: int) -> None:
        """Kill so many processes; each is followed by another in its role."""
        end = time.monotonic() + PATIENCE
        try:
            for name in self.cast:
                self._begin(name)
            for _ in range(kills):
                name = min(self.alive, key=lambda name: self.alive[name][0])
                time.sleep(max(self.alive[name][0] - time.monotonic(), 0))
                self._kill(name)
                self._begin(name)
                if time.monotonic() > end:
                    raise Breach([f"{kills} kills took more than {PATIENCE} s"])
        finally:
            for name in list(self.alive):
                self._kill(name)
            self._reap()
        if failures := list(self.place.folder.glob("*.failure")):
            raise Breach([path.read_text("utf-8") for path in failures])

    def _begin(self, name: str) -> None:
        self.lives += 1
        seed = self.chance.getrandbits(32)
        life = self.chance.choice(self.LIVES) * self.chance.random() * 2
        pid = os.fork()
        if not pid:
            _live(self.place, name, self.cast[name], self.lives, seed)
        self.alive[name] = (time.monotonic() + life, pid)

    def _kill(self, name: str) -> None:
        _, pid = self.alive.pop(name)
        os.kill(pid, signal.SIGKILL)
        self.zombies.append(pid)
        if self.chance.random() < 0.8:
            self._reap()

    def _reap(self) -> None:
        for pid in self.zombies:
            os.waitpid(pid, 0)
        self.zombies.clear()


def _live(place: Place, name: str, role: Role, number: int, seed: int) -> None:
    """A process's life, in the child."""
    try:
        _libc.prctl(1, signal.SIGKILL)  # it ends with its parent
        role(place, name, Journal(place.folder / f"{number}.journal"), random.Random(seed))
    except BaseException as problem:
        (place.folder / f"{number}.failure").write_text(
            f"{name} failed: {problem!r}\n{traceback.format_exc()}", "utf-8"
        )
    finally:
        os._exit(1)


def storm(kills: int, seed: int, cast: dict[str, Role] = CAST) -> Counter[str]:
    """One bus through so many kills, verified; its messages by status."""
    work.warm()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), os.getpid())
        with Bus.open(place.url, create=True) as bus:
            invariants.watch(bus)
            bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
        Storm(place, seed, cast).rage(kills)
        world = World.read(sorted(place.folder.glob("*.journal")))
        return invariants.verify(place.url, world)


def run(size: int, seed: int) -> str:
    """So many kills in all; raises `Breach`, whose text names the seed of its round."""
    total = Counter[str]()
    for done in range(0, size, ROUND):
        number = seed + done // ROUND
        try:
            total += storm(min(ROUND, size - done), number)
        except (Breach, BusError) as problem:
            raise Breach([f"kill {min(ROUND, size - done)} --seed {number}: {problem}"]) from problem
    return f"{size} kills, messages at the end: {dict(total)}"


def _torn(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    executor(place, name, journal, chance, torn_step)


def a_step_in_two_transactions(seed: int) -> None:
    """Planted: the state is saved in one transaction and the message acknowledged in another."""
    storm(150, seed, {**CAST, **dict.fromkeys(EXECUTORS, _torn)})


def an_acknowledgement_without_the_receipt_check(seed: int) -> None:
    """Planted: whoever had a message may acknowledge it."""
    with planted.planted(planted.ACK_WITHOUT_RECEIPT_CHECK):
        storm(300, seed, {**CAST, **dict.fromkeys(EXECUTORS, _slow)})


def _slow(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    executor(place, name, journal, chance, slowness=0.8)


CONTROLS = (a_step_in_two_transactions, an_acknowledgement_without_the_receipt_check)
