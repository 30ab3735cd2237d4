"""At some system call on the bus's files the process dies, or the call fails: EIO, ENOSPC, a short or torn write.

A small library (shim.c, compiled here) stands before the C library, so that it is the very SQLite under test that
fails. A run is a program of calls on one door; which system call fails, how, and whether all after it fail too until an
operation has ended, follow from the seed: seeds that follow each other walk through all there are. What was confirmed
must be there, what failed must be whole or absent, and the bus must go on by itself as soon as the calls succeed again.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from bus import Bus
from bus.errors import BusError
from bus.store.sqlite import Connection
from tests.faults import everything, invariants, work
from tests.faults.invariants import Breach
from tests.faults.model import Asynchronous, Call, CommandLine, Door, Shell, receipt
from tests.faults.world import Journal, World

UNIT = "faults"
BROKEN = 3  # status of a process that found a breach
SIZES = {"quick": 250, "nightly": 30_000, "release": 200_000}
KINDS = ("kill", "EIO", "ENOSPC", "short write", "torn write")  # in the order of shim.c
DOORS: dict[str, tuple[type[Door], int]] = {  # and how many of all faults it gets
    "blocking": (Door, 7),
    "async": (Asynchronous, 5),
    "command line": (CommandLine, 5),
    "shell functions": (Shell, 3),
}
SHELL_CALLS = 60  # system calls of a shell function, at most
SOURCE = Path(__file__).with_name("shim.c")
PROGRAM: list[tuple[str, dict[str, Any]]] = [
    ("register", {"agent": "ann", "type": "milestone-executor", "session": "s"}),
    ("send", {"sender": "boss", "to": "ann", "priority": 5}),
    ("send", {"sender": "boss", "to": "@milestone-executor", "priority": 9}),
    ("receive", {"agent": "ann", "lease": 60.0}),
    ("ack", {"delivery": 0}),
    ("save", {"agent": "ann", "key": "k", "value": "v" * 3000, "ttl": None}),
    ("broadcast", {"sender": "boss"}),
    ("receive", {"agent": "ann", "lease": 60.0}),
    ("release", {"delivery": 0, "delay": 0.0}),
    ("load", {"agent": "ann", "key": "k"}),
    ("save", {"agent": "ann", "key": "k", "value": "w", "ttl": None}),
    ("send", {"sender": "ann", "to": "boss", "priority": 1}),
    ("take", {"agent": "ann"}),
    ("retire", {"agent": "ben"}),
]
MORE: list[tuple[str, dict[str, Any]]] = [  # what the shell functions don't have
    ("send", {"sender": "boss", "to": "ann", "priority": 5, "key": "k"}),
    ("receive", {"agent": "ann", "lease": 60.0, "limit": 2}),
    ("extend", {"delivery": 0, "lease": 90.0}),
    ("reject", {"delivery": 0}),
    ("redrive", {"id": 1}),
    ("cancel", {"id": 2}),
    ("delete", {"agent": "ann", "key": "k"}),
]
BEYOND: list[Callable[[Bus, World], None]] = list(everything.CALLS)  # what only the libraries have


class Shim:
    """The library before the C library, in this process."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_count.restype = ctypes.c_long

    def path(self, path: str) -> None:
        self._library.fault_path(os.fsencode(path))

    def arm(self, at: int, kind: int, always: bool = False) -> None:
        self._library.fault_arm(ctypes.c_long(at), kind, int(always))

    def count(self) -> int:
        return int(self._library.fault_count())

    def delay(self, seconds: float) -> None:
        self._library.fault_delay(int(seconds * 1e6))

    def record(self, descriptor: int) -> None:
        self._library.fault_record(descriptor)

    def mark(self, text: str) -> None:
        self._library.fault_mark(text.encode())


def shimmed(module: str, *arguments: str) -> str:
    """Run a module of this folder under the shim; what it prints. Raises `Breach` with what it says on stderr when it
    ends with `BROKEN`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise RuntimeError("this programme needs a C compiler")
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/shim.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
        environment = {**os.environ, "LD_PRELOAD": library}
        command = [sys.executable, "-m", f"tests.faults.{module}", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == BROKEN:
        raise Breach([done.stderr.strip()])
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr}")
    return done.stdout.strip()


# --- one run, in a child of a process that has the shim


def perform(door: Door, bus: Any, world: World, number: int, name: str, given: dict[str, Any]) -> None:
    """One call of the program; what is confirmed is noted. Raises what the door raises."""
    arguments = dict(given)
    task = f"task-{number}"
    if name in ("send", "broadcast"):
        arguments |= {"type": "progress_update", "payload": f'{{"task_id": "{task}"}}'}
        world.intend(task, {"task_id": task}, times=2, key="key" in given)
    meant = receipt(door.receipts, given["delivery"]) if "delivery" in given else None
    kind, value = door.answer(bus, Call(name, arguments, 0.0))
    if kind == "error":
        raise BusError(str(value))
    for id in [value] if name == "send" else value if name == "broadcast" else []:
        world.confirm(id, task)
    for id, delivery, *_ in value if name in ("receive", "take") else []:
        world.take(f"{id}.{delivery}")
        if name == "take":
            world.acknowledge(f"{id}.{delivery}")
    if name == "ack":
        world.acknowledge(meant)
    if name == "save" and value is not None:
        world.save(given["agent"], given["key"], value, given["value"])


def live(door: Door, journal: World, arm: Callable[[], None], calm: Callable[[str], None]) -> None:
    """The whole program on one door. `arm` begins the trouble; `calm` is told the name of each call that ended."""
    program = PROGRAM if isinstance(door, Shell) else PROGRAM + MORE
    arm()
    while True:
        try:
            with door.open() as bus:
                for number, (name, given) in enumerate(program):
                    _bravely(calm, name, lambda n=number, c=(name, given): perform(door, bus, journal, n, *c))
                if not isinstance(door, CommandLine):
                    for number, call in enumerate(BEYOND):
                        _bravely(calm, f"beyond {number}", lambda call=call: call(cast(Bus, bus), journal))
            return
        except BusError:
            calm("open")


def _bravely(calm: Callable[[str], None], name: str, call: Callable[[], None]) -> None:
    """Make a call; a refusal is an answer, anything else a fault of the bus. Only after it may the trouble end."""
    with suppress(BusError):
        call()
    calm(name)


@functools.cache
def template() -> bytes:
    """A bus with three agents, whose changes are watched."""
    with work.folder() as folder:
        url = f"{folder}/coordination.db"
        with Bus.open(url, create=True) as bus:
            invariants.watch(bus)
            bus.register("boss", type="milestone-coordinator", session="s")
            bus.register("ann", type="milestone-executor", session="s")
            bus.register("ben", type="validation", session="s")
        return Path(url).read_bytes()


@contextmanager
def scene() -> Iterator[str]:
    """The path of a copy of `template`."""
    data = template()
    with work.folder() as folder:
        path = folder / "coordination.db"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        path.write_bytes(data)
        yield str(path)


def child(path: str, door: type[Door], at: int, kind: int, always: bool, counted: Path) -> None:
    """A process in trouble. Never returns."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        shim, journal = Shim(), Journal(Path(path).with_name("journal"))
        shim.path(path)
        if door is Shell:
            _shell(path, journal, at, kind)
        else:
            live(door(path), journal, lambda: shim.arm(at, kind, always), lambda name: _calm(shim, at, kind, always))
        counted.write_text(str(shim.count()), "utf-8")
        status = 0
    except BaseException:
        Path(path).with_name("failure").write_text(traceback.format_exc(), "utf-8")
    finally:
        os._exit(status)


def _calm(shim: Shim, at: int, kind: int, always: bool) -> None:
    if always and shim.count() >= at:
        shim.arm(0, 0)  # the disk is well again


def _shell(path: str, journal: World, at: int, kind: int) -> None:
    """One call of a shell function runs under the shim; its count begins anew in the process that it starts."""
    number, at = divmod(at - 1, SHELL_CALLS)
    os.environ |= {"FAULT_PATH": path, "FAULT_AT": "", "FAULT_KIND": ""}
    door = Shell(path)
    calls = 0

    def next_call(name: str = "") -> None:
        nonlocal calls
        calls += 1
        door.setting = (
            f"FAULT_AT={at + 1} FAULT_KIND={kind} " if calls == 1 + number % len(PROGRAM) else "FAULT_AT= FAULT_KIND= "
        )

    live(door, journal, next_call, next_call)


def calls_of(door: type[Door]) -> int:
    """How many system calls a program makes when nothing fails."""
    with scene() as path:
        counted = Path(path).with_name("count")
        _run(path, door, 2**40, 1, False, counted)
        invariants.verify(path, World.read([Path(path).with_name("journal")]))
        return int(counted.read_text("utf-8"))


def _run(path: str, door: type[Door], at: int, kind: int, always: bool, counted: Path) -> None:
    pid = os.fork()
    if not pid:
        child(path, door, at, kind, always, counted)
    os.waitpid(pid, 0)
    failure = Path(path).with_name("failure")
    if failure.exists():
        raise Breach([failure.read_text("utf-8")])


class Fault(NamedTuple):
    """What happens where."""

    door: str
    at: int
    kind: int
    always: bool

    def __str__(self) -> str:
        return f"{KINDS[self.kind]} at call {self.at}{' and on' if self.always else ''}, {self.door}"


def fault(number: int, lengths: dict[str, int]) -> Fault:
    """The fault of a number. So many numbers in a row as a door has calls and kinds, divided by its share, walk through
    all of them in steps that leave the gaps even; half of them go on, and the other half the next time."""
    turns = [name for name in DOORS for _ in range(DOORS[name][1])]
    turn, place = divmod(number, len(turns))
    name = turns[place * STEP % len(turns)]
    share = [n for n in range(len(turns)) if turns[n * STEP % len(turns)] == name]
    walk, step = divmod(turn * len(share) + share.index(place), lengths[name] * len(KINDS))
    at, kind = divmod(step * _stride(lengths[name] * len(KINDS)) % (lengths[name] * len(KINDS)), len(KINDS))
    return Fault(name, at + 1, kind, bool((walk + at + kind) % 2))


STEP = 7  # so that the doors take turns; their shares must not add up to a multiple of it


@functools.cache
def _stride(number: int) -> int:
    """A step that comes to each of so many places, and soon near each (the golden ratio)."""
    return next(step for step in range(round(number * 0.618), number + 1) if math.gcd(step, number) == 1)


def suffer(count: int, seed: int) -> Counter[str]:
    """So many faults; raises `Breach`."""
    seen = Counter[str]()
    work.warm()
    lengths = {
        name: SHELL_CALLS * len(PROGRAM) if kind is Shell else calls_of(kind) for name, (kind, _) in DOORS.items()
    }
    for number in range(seed, seed + count):
        what = fault(number, lengths)
        with scene() as path:
            try:
                _run(path, DOORS[what.door][0], what.at, what.kind + 1, what.always, Path(path).with_name("count"))
                invariants.verify(path, World.read([Path(path).with_name("journal")]))
            except Breach as breach:
                raise Breach([f"system_calls 1 --seed {number}, {what}: {breach}"]) from breach
        seen[f"{what.door}: {KINDS[what.kind]}"] += 1
    return seen


def run(size: int, seed: int) -> str:
    """So many faults, chosen by the seed among doors, kinds and calls."""
    return shimmed("system_calls", str(size), str(seed))


# --- planted defects


def _careless(connection: Connection, begun: bool) -> None:
    """A commit whose error is taken for a success."""
    try:
        connection.sqlite.execute("commit")
    except Exception:
        if connection.sqlite.in_transaction:
            connection.sqlite.execute("rollback")


def _step_in_two(bus: Bus, operations: Any) -> Any:
    return [bus.store.run(operation) for operation in operations]


def a_commit_whose_failure_is_not_told(seed: int) -> None:
    """Planted: the error of a commit is taken for a success."""
    shimmed("system_calls", "400", str(seed), "commit")


def a_step_in_many_transactions(seed: int) -> None:
    """Planted: each operation of a step is a transaction of its own."""
    shimmed("system_calls", "2000", str(seed), "step")


CONTROLS = (a_commit_whose_failure_is_not_told, a_step_in_many_transactions)


def main(count: int, seed: int, defect: str = "") -> None:
    """In the process that has the shim."""
    if defect == "commit":
        Connection._commit = _careless  # type: ignore[method-assign]
    if defect == "step":
        Bus.apply = _step_in_two  # type: ignore[method-assign,assignment]
        PROGRAM[:], MORE[:], BEYOND[:] = PROGRAM[:1], [], [everything.a_step] * 3
        DOORS.clear()
        DOORS["blocking"] = (Door, 1)
    seen = suffer(count, seed)
    doors = Counter(name.partition(":")[0] for name in seen.elements())
    print(f"{seen.total()} faults ({', '.join(KINDS)}) on {dict(doors)}")


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    except Breach as found:
        print(found.lines[0], file=sys.stderr)
        sys.exit(BROKEN)
