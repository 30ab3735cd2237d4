"""32 processes of all kinds on one file, and again and again one of them is stopped (SIGSTOP) inside an operation.

It is stopped while it holds the write turn, or the transaction as well. Meanwhile the others are told `busy` at the
worst, in the time they are promised; readers read on, and `bus doctor` names the process. As soon as it goes on
(SIGCONT) all go on. At the end the bus is verified.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from bus import Bus
from bus.errors import BusError, Conflict
from bus.store import facts, sqlite
from bus.store.sqlite import Connection
from bus.store.sqlite_transaction import Transaction
from bus.store.turnstile import Turnstile
from tests.faults import invariants, kill, planted, work
from tests.faults.crew import Crew
from tests.faults.invariants import Breach
from tests.faults.model import FUNCTIONS
from tests.faults.world import Journal, World

UNIT = "seconds"
SIZES = {"quick": 5, "nightly": 600, "release": 21_600}
ROUND = 120.0  # seconds on one bus
SHORT_ROUND = 20.0  # seconds; in shorter ones the bus is told to be patient for less long, so that they see a stop
PATIENCE = 0.8  # seconds, then
GRACE = 3.0  # seconds by which the machine, with all its processes, may be late
QUIET = 1.0  # seconds between two stops
GOING_ON = 20.0  # seconds after the last, at most, until all have done something again
WHERE = ("turn", "transaction")
PYTHON = [sys.executable, "-c", "import sys; from bus_cli.main import main; sys.exit(main())"]


class Call(NamedTuple):
    """One transaction of one process: when it began, how long it took, what came of it."""

    process: str
    begin: float
    took: float
    code: str


class Place(NamedTuple):
    """Where the processes are."""

    folder: Path

    @property
    def url(self) -> str:
        return str(self.folder / "coordination.db")

    def orphaned(self) -> bool:
        """Whether it is time to go home."""
        return os.access(self.folder / "over", os.F_OK)

    def note(self, call: Call) -> None:
        """Put a call on record."""
        with open(self.folder / f"{call.process}.calls", "a", encoding="utf-8") as record:
            record.write(json.dumps(call) + "\n")

    def calls(self) -> list[Call]:
        """All calls so far."""
        records = [path.read_text("utf-8") for path in self.folder.glob("*.calls")]
        return [Call(*json.loads(line)) for record in records for line in record.splitlines()]


Role = Callable[[Place, str, Journal, random.Random], None]


# --- roles, besides those of `kill`


def counting(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """Count together by compare-and-set, and keep values of one's own."""
    with Bus.open(place.url) as bus:
        for number in itertools.count():
            if place.orphaned():
                return
            with suppress(Conflict):
                value, version = bus.state_load_versioned("all", "tally") or ("0", 0)
                following = str(int(value) + 1)
                new = bus.state_save("all", "tally", following, if_version=version)
                journal.save("all", "tally", new, following)
            journal.save(name, "own", bus.state_save(name, "own", str(number)), str(number))
            time.sleep(0.01)


def checkpointing(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """Checkpoint, and look at the last one."""
    with Bus.open(place.url) as bus:
        bus.register(name, type="validation", session="checkpoints")
        for number in itertools.count():
            if place.orphaned():
                return
            bus.checkpoint_create(name, {"number": number}, type="automatic")
            if (bus.checkpoint_latest(name) or number) is number:
                raise Breach([f"{name} has no checkpoint after it made one"])
            bus.checkpoint_prune()
            time.sleep(0.02)


def leading(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """Begin a session, move it on, complete it, begin the next."""
    with Bus.open(place.url) as bus:
        for number in itertools.count():
            if place.orphaned():
                return
            session = f"{name}-{number}-{chance.getrandbits(32)}"
            bus.register(name, type="milestone-coordinator", session=session)
            for progress in (20, 60):
                bus.session_progress(session, progress)
            bus.session_complete(session)
            bus.session_list()
            time.sleep(0.02)


def monitoring(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """What the monitor does, over and over: it looks, prunes, and checkpoints the WAL."""
    with Bus.open(place.url) as bus:
        while not place.orphaned():
            journal.prune(bus.monitor_check().pruned)
            bus.status()
            time.sleep(0.05)


def commanding(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """The command line, a process each time."""
    environment = {**os.environ, "BUS_URL": place.url, "BUS_AGENT": name}
    for number in itertools.count():
        if place.orphaned():
            return
        task = f"{name}-{number}-{chance.getrandbits(32)}"
        journal.intend(task, {"task_id": task})
        calls = [
            ["register", name, "--type", "validation", "--session", "commands"],
            ["send", name, "progress_update", json.dumps({"task_id": task})],
            ["receive", name, "--lease", "60"],
            ["status"],
        ]
        commands = {call[0]: [*PYTHON, *call, "--json"] for call in calls}
        _run_all(place, name, journal, task, commands, environment)


def scripting(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    """The functions of bus.sh, in a bash each time."""
    environment = {**os.environ, "BUS_URL": place.url, "BUS_COMMAND": "false", "BUS_SHELL_VIA": "sqlite3"}
    for number in itertools.count():
        if place.orphaned():
            return
        task = f"{name}-{number}-{chance.getrandbits(32)}"
        journal.intend(task, {"task_id": task})
        payload = json.dumps({"task_id": task})
        calls = {
            "register": f"register_agent {name} validation '' scripts",
            "send": f"send_agent_message {name} {name} progress_update '{payload}'",
            "receive": f"receive_agent_message {name} 60",
            "save": f"save_agent_state {name} k {number}",
        }
        commands = {what: ["bash", "-c", f"source '{FUNCTIONS}'; {call}"] for what, call in calls.items()}
        _run_all(place, name, journal, task, commands, environment)


def _run_all(
    place: Place, name: str, journal: Journal, task: str, commands: dict[str, list[str]], environment: dict[str, str]
) -> None:
    """Run them one after the other, unless the first, which registers, is told to try again."""
    for what, command in commands.items():
        out = _ran(place, name, command, environment)
        if what == "register" and out is None:
            return
        if what == "send" and out:
            told = json.loads(out)
            journal.confirm(int(told["id"] if isinstance(told, dict) else told), task)
        if what == "receive" and out:
            told = json.loads(out)
            for message in told if isinstance(told, list) else [told]:
                journal.take(message["receipt"])


def _ran(place: Place, name: str, command: list[str], environment: dict[str, str]) -> str | None:
    """What a command printed; None when it was told to try again."""
    begin = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    code = {0: "", 1: "", 75: "busy"}.get(done.returncode)
    if code is None:
        raise Breach([f"{command} ended with {done.returncode}: {done.stderr}"])
    place.note(Call(name, begin, time.monotonic() - begin, code))
    return None if code == "busy" else done.stdout if done.returncode == 0 else ""


EXECUTORS = tuple(f"executor-{number}" for number in range(8))
CAST: dict[str, Role] = {
    work.BOSS: kill.coordinator,
    **dict.fromkeys(EXECUTORS, kill.executor),
    **{f"counting-{number}": counting for number in range(6)},
    **{f"checkpointing-{number}": checkpointing for number in range(4)},
    **{f"leading-{number}": leading for number in range(4)},
    **{f"recoverer-{number}": kill.recoverer for number in range(3)},
    **{f"monitor-{number}": monitoring for number in range(2)},
    **{f"command-{number}": commanding for number in range(2)},
    **{f"script-{number}": scripting for number in range(2)},
}


# --- a process's life


def live(place: Place, name: str, role: Role, seed: int) -> None:
    """Play the role until the end, again from the start when the bus is busy; each call on record."""
    journal, chance = Journal(place.folder / f"{name}.journal"), random.Random(seed)
    with timed(place, name), stopping(place, name):
        while not place.orphaned():
            try:
                role(place, name, journal, chance)
            except BusError as problem:
                if problem.code != "busy":
                    raise


@contextmanager
def timed(place: Place, name: str) -> Iterator[None]:
    """Note every transaction."""
    run = Connection.run

    def timing(self: Connection, operation: Any) -> Any:
        code, begin = "", time.monotonic()
        try:
            return run(self, operation)
        except BusError as problem:
            code = problem.code
            raise
        finally:
            place.note(Call(name, begin, time.monotonic() - begin, code))

    with mock.patch.object(Connection, "run", timing):
        yield


@contextmanager
def stopping(place: Place, name: str) -> Iterator[None]:
    """Let this process stop itself where it is told to: with the turn, or in the transaction, before its commit."""
    enter, change, commit = Turnstile.enter, Transaction.change, Connection._commit

    def told(where: str) -> Path:
        return place.folder / f"{name} {where}"

    def stop(where: str) -> None:
        if os.access(told(where), os.F_OK):
            told(where).unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    def entering(self: Turnstile, timeout: float) -> bool:
        waited = enter(self, timeout)
        stop("turn")
        return waited

    def changing(self: Transaction, asked: Any) -> Any:
        if not self.begun and os.access(told("transaction"), os.F_OK):
            self.begin()  # a lone statement would be over before it can be stopped
        return change(self, asked)

    def committing(self: Connection, begun: bool) -> None:
        if begun:
            stop("transaction")
        commit(self, begun)

    with (
        mock.patch.object(Turnstile, "enter", entering),
        mock.patch.object(Transaction, "change", changing),
        mock.patch.object(Connection, "_commit", committing),
    ):
        yield


# --- who stops them


class Stop(NamedTuple):
    """A time in which a process was stopped, and what a doctor said then."""

    name: str
    where: str
    pid: int
    begin: float
    end: float
    doctor: str


class Crowd:
    """All of them on one bus."""

    def __init__(self, place: Place, seed: int, cast: dict[str, Role]) -> None:
        self.place = place
        self.chance = random.Random(seed)
        self.crew = Crew(place.folder)
        self.cast = cast
        self.stops: list[Stop] = []

    def work(self, seconds: float) -> None:
        """Let them work for so long, or until there was a stop, and stop one after the other."""
        end = time.monotonic() + seconds
        pids = {name: self._begin(name) for name in self.cast}
        length = sqlite.TIMEOUT * 1.5
        try:
            time.sleep(QUIET)
            while not self.stops or time.monotonic() + length + QUIET < end:
                self._stop(pids, length)
                time.sleep(QUIET)
            self._await_all()
        finally:
            for pid in self.crew.alive:
                os.kill(pid, signal.SIGCONT)
            (self.place.folder / "over").touch()
            self.crew.finish(30)

    def _begin(self, name: str) -> int:
        return self.crew.begin(name, partial(live, self.place, name, self.cast[name], self.chance.getrandbits(32)))

    def _stop(self, pids: dict[str, int], length: float) -> None:
        name, where = self.chance.choice(EXECUTORS), WHERE[len(self.stops) % len(WHERE)]
        (self.place.folder / f"{name} {where}").touch()
        _await_stopped(pids[name])
        begin = time.monotonic()
        time.sleep(length / 2)
        doctor = self._asked()
        time.sleep(max(begin + length - time.monotonic(), 0))
        os.kill(pids[name], signal.SIGCONT)
        self.stops.append(Stop(name, where, pids[name], begin, time.monotonic(), doctor))

    def _await_all(self) -> None:
        """Wait until each has done something after the last stop; on a busy machine that takes its time."""
        end = time.monotonic() + GOING_ON
        while any(all_go_on(self.place.calls(), self.stops, list(self.cast))) and time.monotonic() < end:
            time.sleep(0.1)

    def _asked(self) -> str:
        """What `bus doctor` says of who writes, in a process of its own."""
        answer = self.place.folder / "doctor"
        _forked(self.place.folder, lambda: answer.write_text(_writer(self.place.url), "utf-8"))
        return answer.read_text("utf-8") if answer.exists() else ""


def _writer(url: str) -> str:
    with Bus.open(url) as bus:
        return "; ".join(finding.details for finding in bus.doctor() if finding.subject in ("writer", "turn"))


def _forked(folder: Path, role: Callable[[], object]) -> None:
    crew = Crew(folder)
    crew.begin("doctor", lambda: role() and None)
    crew.finish(GRACE + sqlite.TIMEOUT)


def _await_stopped(pid: int) -> None:
    end = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "T":
        if time.monotonic() > end:
            raise Breach([f"process {pid} did not come to where it was to be stopped"])
        time.sleep(0.002)


# --- judging


Judge = Callable[[list[Call], list[Stop], list[str]], Iterator[str]]


def holder_is_named(calls: list[Call], stops: list[Stop], names: list[str]) -> Iterator[str]:
    """The doctor says who was stopped."""
    for stop in stops:
        if f"process {stop.pid} " not in stop.doctor or "is stopped" not in stop.doctor:
            yield f"{stop.name} was stopped in its {stop.where}; the doctor does not name {stop.pid}: {stop.doctor}"


def told_in_time(calls: list[Call], stops: list[Stop], names: list[str]) -> Iterator[str]:
    """Others wait for as long as was promised, and are told that it is busy."""
    most = 2 * sqlite.TIMEOUT + GRACE
    for stop in stops:
        told = 0
        for call in calls:
            if call.process != stop.name and call.begin < stop.end and call.begin + call.took > stop.begin:
                told += call.code == "busy"
                if call.took > most:
                    yield f"{call.process} waited {call.took:.1f} s while {stop.name} was stopped"
        if not told:
            yield f"nobody was told that the bus is busy while {stop.name} was stopped in its {stop.where}"


def all_go_on(calls: list[Call], stops: list[Stop], names: list[str]) -> Iterator[str]:
    """After the last stop each does something that succeeds."""
    going_on = {call.process for call in calls if call.begin + call.took > stops[-1].end and not call.code}
    for name in names:
        if name not in going_on:
            yield f"{name} did not go on"


JUDGES: tuple[Judge, ...] = (holder_is_named, told_in_time, all_go_on)


def crowd(
    seconds: float, seed: int, cast: dict[str, Role] = CAST, by: tuple[Judge, ...] = JUDGES
) -> tuple[list[Call], list[Stop], Counter[str]]:
    """One bus, judged and verified: all transactions, all stops, its messages by status."""
    work.warm()
    with work.folder() as folder:
        home = Place(folder)
        with Bus.open(home.url, create=True) as bus:
            invariants.watch(bus)
            bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
        working = Crowd(home, seed, cast)
        working.work(seconds)
        calls = home.calls()
        if lines := [line for judge in by for line in judge(calls, working.stops, list(cast))]:
            raise Breach(lines)
        world = World.read(sorted(folder.glob("*.journal")))
        return calls, working.stops, invariants.verify(home.url, world)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """In a short round, and for the processes of this one, the bus is busy sooner."""
    with mock.patch.object(sqlite, "TIMEOUT", PATIENCE if seconds < SHORT_ROUND else sqlite.TIMEOUT):
        yield


def run(size: int, seed: int) -> str:
    """So many seconds."""
    calls, stops, total, rounds = [], [], Counter[str](), max(1, round(size / ROUND))
    for number in range(seed, seed + rounds):
        try:
            with patience(size / rounds):
                more, stopped, messages = crowd(size / rounds, number)
        except (Breach, BusError) as problem:
            raise Breach([f"crowd {round(size / rounds)} --seed {number}: {problem}"]) from problem
        calls, stops, total = calls + more, stops + stopped, total + messages
    return f"{len(CAST)} processes, {len(stops)} stops, {_latencies(calls, stops)}; messages {dict(total)}"


def _latencies(calls: list[Call], stops: list[Stop]) -> str:
    """The longest that a transaction took, with and without a stop in it."""
    worst = {False: 0.0, True: 0.0}
    for call in calls:
        stopped = any(call.begin < stop.end + GRACE and call.begin + call.took > stop.begin for stop in stops)
        worst[stopped] = max(worst[stopped], call.took)
    busy = sum(call.code == "busy" for call in calls)
    longest = f"the longest {worst[False]:.2f} s, {worst[True]:.2f} s at a stop"
    return f"{len(calls):,} calls, {longest}; {busy} were told `busy`"


# --- planted defects

CONTROL = 2.0  # seconds
FEW = {name: role for name, role in CAST.items() if role not in (commanding, scripting, checkpointing, leading)}


def a_queue_without_an_end(seed: int) -> None:
    """Planted: who waits for the turn waits for ever."""
    enter = Turnstile.enter
    with (
        patience(CONTROL),
        mock.patch.object(Turnstile, "enter", lambda self, timeout: enter(self, 3600.0)),
    ):
        crowd(CONTROL, seed, FEW, by=(told_in_time,))


def a_doctor_who_does_not_know(seed: int) -> None:
    """Planted: nobody looks who holds the locks."""
    with patience(CONTROL), mock.patch.object(facts, "_holder", return_value=None):
        crowd(CONTROL, seed, FEW, by=(holder_is_named,))


def a_process_that_does_not_go_on(seed: int) -> None:
    """Planted: who was told once that it is busy gives up."""
    with patience(CONTROL), mock.patch(f"{__name__}.GOING_ON", 1.0):
        crowd(CONTROL, seed, {**FEW, "counting-0": _giving_up}, by=(all_go_on,))


def _giving_up(place: Place, name: str, journal: Journal, chance: random.Random) -> None:
    with suppress(BusError):
        counting(place, name, journal, chance)
    while not place.orphaned():
        time.sleep(0.01)


def an_acknowledgement_without_the_receipt_check(seed: int) -> None:
    """Planted: whoever was stopped for longer than its lease acknowledges what another has by now."""
    slow = partial(kill.executor, slowness=0.8)
    with patience(CONTROL), planted.planted(planted.ACK_WITHOUT_RECEIPT_CHECK):
        crowd(CONTROL, seed, {**FEW, **dict.fromkeys(EXECUTORS, slow)}, by=())


CONTROLS = (
    a_queue_without_an_end,
    a_doctor_who_does_not_know,
    a_process_that_does_not_go_on,
    an_acknowledgement_without_the_receipt_check,
)
