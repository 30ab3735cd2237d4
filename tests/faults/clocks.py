"""The wall clock jumps by a second to centuries, the machine sleeps or boots anew, a pid is given to another.

Every kind of jump at every moment of a message's life: before its claim, while it is leased, after an extension, after
a heartbeat. Time that really passes is kept apart from what the clock says: by real time no lease may outlast its
length, no process that runs may be called dead, and by either nothing may be lost or done twice.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from unittest import mock

from bus import Bus, clock, liveness
from bus.errors import Conflict
from bus.liveness import Identity, Life
from bus.models import Message
from tests.faults import invariants, planted, work
from tests.faults.invariants import Breach
from tests.faults.world import World

UNIT = "rounds of all cases"
SIZES = {"quick": 5, "nightly": 50, "release": 500}
BEGINNING = 1_800_000_000.0
DAY = 86400.0
LEASE = 30.0
TOLERANCE = 6.0  # seconds: a clock that is set back by less than five is not noticed
ABSOLUTE = {"1970": 0.0, "2038": float(2**31 - 2), "2100": 4_102_444_799.0}
JUMPS: dict[str, Callable[[float], float]] = {
    **{f"{by:+.0f} s": (lambda now, by=by: now + by) for by in (-DAY, -3600.0, -1.0, 1.0, 3600.0, DAY)},
    **{year: (lambda now, to=to: to) for year, to in ABSOLUTE.items()},
}
MOMENTS = ("claim", "lease", "extend", "heartbeat")


class Time:
    """What really passes, and what the clock says."""

    def __init__(self) -> None:
        self.said = BEGINNING

    @contextmanager
    def now(self) -> Iterator[None]:
        with clock.moved(to=self.said):
            yield

    def passes(self, seconds: float) -> None:
        self.said += seconds

    def jumps(self, jump: str) -> None:
        self.said = JUMPS[jump](self.said)


class Case:
    """One message's life on a fresh bus: `holder`, whose process runs, takes it, and `heir` after it."""

    def __init__(self, bus: Bus, chance: random.Random) -> None:
        self.bus = bus
        self.chance = chance
        self.time = Time()
        self.world = World()
        self.done: list[str] = []

    def begin(self) -> None:
        with self.time.now():
            invariants.watch(self.bus)
            self.bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
            for name in ("holder", "heir"):
                self.bus.register(name, type=work.EXECUTOR, session=work.SESSION, pid=os.getpid())
            self.world.intend("task", work.task("task"))
            self.world.confirm(self.bus.send(work.BOSS, work.QUEUE, "task_assignment", work.task("task")), "task")

    def take(self, name: str) -> list[Message]:
        with self.time.now():
            found = self.bus.receive(name, lease=LEASE)
            for message in found:
                self.world.take(message.receipt)
            return found

    def finish(self, name: str, message: Message) -> None:
        """Do the work; who does it a second time is refused."""
        with self.time.now(), suppress(Conflict):
            work.do(self.bus, name, message, self.world)
            self.done.append(name)

    def heartbeat(self) -> None:
        with self.time.now():
            self.bus.heartbeat("holder")

    def everybody_lives(self) -> None:
        with self.time.now():
            found = self.bus.agents()
            for agent, life in zip(found, self.bus.lives(found), strict=True):
                if agent.pid and life is not Life.ALIVE:
                    raise Breach([f"{agent.agent_id} runs, and is called {life}"])
            invariants.recover(self.bus)

    def judge(self) -> None:
        if len(self.done) > 1:
            raise Breach([f"the message was done by {self.done}"])
        with self.time.now():
            invariants.verify(self.bus, self.world)


def jumping(case: Case, jump: str, moment: str) -> None:
    """The clock jumps at a moment; after the length of the lease, in real time, the heir must have the message."""
    time, chance = case.time, case.chance
    case.begin()
    time.passes(chance.random() * 20)
    if moment == "claim":
        time.jumps(jump)
    (message,) = case.take("holder")
    time.passes(chance.random() * 5)
    if moment == "extend":
        with time.now():
            case.bus.extend(message.receipt or "", lease=LEASE)
    if moment == "heartbeat":
        case.heartbeat()
    if moment != "claim":
        time.jumps(jump)
    case.everybody_lives()
    if chance.random() < 0.5:  # it works on for a moment, and is in time or not
        time.passes(chance.random() * 10)
        case.finish("holder", message)
    time.passes(LEASE + TOLERANCE)
    found = case.take("heir")
    if not found and not case.done:
        raise Breach([f"the lease outlasts its {LEASE} s by more than {TOLERANCE} s"])
    case.finish("holder", message)
    for taken in found:
        case.finish("heir", taken)
    case.judge()


def asleep(case: Case) -> None:
    """The machine sleeps for hours while a message is leased: holder and heir wake up together."""
    case.begin()
    (message,) = case.take("holder")
    case.time.passes(LEASE + case.chance.random() * DAY)
    case.everybody_lives()
    order = case.chance.random() < 0.5
    if order:
        case.finish("holder", message)
    for taken in case.take("heir"):
        case.finish("heir", taken)
    if not order:
        case.finish("holder", message)
    case.judge()


def booted(case: Case) -> None:
    """The machine boots anew: whoever held something is gone, whatever runs under its pid now."""
    case.begin()
    case.take("holder")
    with mock.patch.object(liveness, "boot_id", return_value="another boot"):
        _inherited_at_once(case, "heir-2")


def reused(case: Case) -> None:
    """The holder's process ends, and its pid is given to another before anybody looks."""
    case.begin()
    case.take("holder")
    started = (liveness.started_at(os.getpid()) or 0) + 1 + case.chance.randrange(10**6)
    with (
        mock.patch.object(liveness, "started_at", return_value=started),
        mock.patch.dict(liveness._watched, clear=True),
    ):
        _inherited_at_once(case, "heir-2")


def _inherited_at_once(case: Case, heir: str) -> None:
    with case.time.now():
        case.bus.register(heir, type=work.EXECUTOR, session=work.SESSION)
    found = case.take(heir)
    if not found:
        raise Breach(["what a process that is gone held is not given back"])
    case.finish(heir, found[0])
    case.judge()


Play = Callable[[Case], None]
CASES: dict[str, Play] = {
    **{
        f"{jump} at {moment}": (lambda case, jump=jump, moment=moment: jumping(case, jump, moment))
        for jump, moment in product(JUMPS, MOMENTS)
    },
    "suspend": asleep,
    "boot": booted,
    "pid reuse": reused,
}


def run(size: int, seed: int) -> str:
    """All cases, so many times, each with other pauses between."""
    for number in range(seed, seed + size):
        for name, play in CASES.items():
            try:
                with Bus.open(":memory:", create=True) as bus:
                    play(Case(bus, random.Random(f"{number} {name}")))
            except Breach as breach:
                raise Breach([f"clocks 1 --seed {number}, {name}: {breach}"]) from breach
    return f"{len(CASES)} cases × {size}"


def a_clock_that_may_make_leases_last(seed: int) -> None:
    """Planted: nobody looks whether the clock was set back."""
    with planted.planted({"operations/messages/sources.sql": ("(select last_activity from", "(select '' from")}):
        run(1, seed)


def a_process_that_is_told_by_its_pid_alone(seed: int) -> None:
    """Planted: neither the boot nor the start time of a process is compared."""

    def told(agent: Identity) -> Life:
        return Life.UNKNOWN if agent.pid is None else Life.ALIVE if os.path.exists(f"/proc/{agent.pid}") else Life.DEAD

    with mock.patch.object(liveness, "life", told), mock.patch.object(liveness, "glance", told):
        run(1, seed)


CONTROLS = (a_clock_that_may_make_leases_last, a_process_that_is_told_by_its_pid_alone)
