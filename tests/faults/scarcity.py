"""What a process lives on is taken away in mid-run, and given back: it goes on without a restart.

Disk, inodes, file size, descriptors, permissions. In each scene, at each door, one process does some work while all is
well, goes on while something is missing, and goes on when it is there again: with the same `Bus`, the same shell. While
it is missing each call is done, or refused by an error of the bus; from the moment on at which it is there again each
call is done. What was confirmed is there, what was refused whole or absent.

A full disk is a small tmpfs of the process's own, for which one has to be root (else: a limit to the size of files);
for permissions root gives up its right to pass over them.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import random
import resource
import signal
import sqlite3
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from bus_client import Agent

from bus import Bus
from bus.errors import BusError, error
from bus.store import doorbell
from bus.store import sqlite as store
from tests.descriptors import descriptors
from tests.faults import attempts, invariants, model, system_calls, work
from tests.faults.invariants import Breach
from tests.faults.model import Asynchronous, Door
from tests.faults.system_calls import BEYOND, MORE, PROGRAM
from tests.faults.world import World

UNIT = "rounds of all scenes"
SIZES = {"quick": 1, "nightly": 60, "release": 600}
PATIENCE = 60  # seconds a process has
BALLAST = "ballast"
CLONE_NEWNS, MS_NOSUID, MS_REC, MS_PRIVATE = 0x20000, 2, 16384, 1 << 18
CAPABILITIES = (1, 2)  # to pass over the permissions of files and folders
STATUSES = {f"exit {number}" for number in (64, 65, 66, 70, 75, 76)}

libc = ctypes.CDLL(None, use_errno=True)


class Place(NamedTuple):
    """Where a scene plays: the bus, and the processes whose limits are to be changed (this one, and a shell)."""

    folder: Path
    path: Path
    pids: list[int]
    chance: random.Random


Scene = Callable[[Place], Iterator[None]]  # takes away when it is entered, gives back when it is left


# --- the scenes


def full_disk(place: Place) -> Iterator[None]:
    """No room on the disk."""
    ballast = place.folder / BALLAST
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20)[: place.chance.choice((1 << 20, 4096))])
    yield
    ballast.unlink()


def full_to_the_last_page(place: Place) -> Iterator[None]:
    """A little room, which the first calls use up."""
    ballast = place.folder / BALLAST
    with suppress(OSError), open(ballast, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, max(ballast.stat().st_size - 4096 * place.chance.randint(1, 12), 0))
    yield
    ballast.unlink()


def no_inodes(place: Place) -> Iterator[None]:
    """No new files."""
    made = []
    with suppress(OSError):
        while True:
            made.append(place.folder / f"{BALLAST}-{len(made)}")
            made[-1].touch()
    yield
    for path in made:
        path.unlink(missing_ok=True)


def short_files(place: Place) -> Iterator[None]:
    """No file may grow beyond some size."""
    yield from _limited(place, resource.RLIMIT_FSIZE, lambda: place.chance.choice((0, 4096, 1 << 16)))


def no_descriptors(place: Place) -> Iterator[None]:
    """No new descriptors."""
    with _all_taken():
        yield from _limited(place, resource.RLIMIT_NOFILE, lambda: place.chance.randint(6, 9))


def read_only_folder(place: Place) -> Iterator[None]:
    """The folder may not be written to: no WAL, no turnstile, no doorbells can be made."""
    yield from _with_mode(place.folder, 0o500)


def locked_folder(place: Place) -> Iterator[None]:
    """The folder may not be entered."""
    yield from _with_mode(place.folder, 0)


def read_only_file(place: Place) -> Iterator[None]:
    """The file may not be written to."""
    yield from _with_mode(place.path, 0o400)


def locked_files(place: Place) -> Iterator[None]:
    """Nothing of the bus may be opened."""
    files = [path for path in place.folder.iterdir() if path.name.startswith(place.path.name)]
    for path in files:
        path.chmod(0)
    yield
    for path in files:
        if path.exists():
            path.chmod(0o700 if path.is_dir() else 0o600)


SCENES: tuple[Scene, ...] = (
    full_disk, full_to_the_last_page, no_inodes, short_files, no_descriptors, read_only_folder, locked_folder,
    read_only_file, locked_files,
)  # fmt: skip
ON_A_SMALL_DISK = (full_disk, full_to_the_last_page, no_inodes)
OF_PERMISSIONS = (read_only_folder, locked_folder, read_only_file, locked_files)


def _with_mode(path: Path, mode: int) -> Iterator[None]:
    before = path.stat().st_mode & 0o777
    path.chmod(mode)
    yield
    path.chmod(before)


def _limited(place: Place, what: int, least: Callable[[], int]) -> Iterator[None]:
    """A limit of the processes; of descriptors, what they have open is still theirs."""
    before = [resource.prlimit(pid, what) for pid in place.pids]
    number = least()
    for pid, (_, hard) in zip(place.pids, before, strict=True):
        if pid != os.getpid() or what == resource.RLIMIT_FSIZE:
            resource.prlimit(pid, what, (number, hard))
    yield
    for pid, limits in zip(place.pids, before, strict=True):
        resource.prlimit(pid, what, limits)


@contextmanager
def _all_taken() -> Iterator[None]:
    """This process has no descriptor left."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.dup(0))
    try:
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- the doors


class CommandLine(model.CommandLine):
    """The `bus` command, as its `main` ends it."""

    @contextmanager
    def open(self) -> Iterator[Any]:
        yield None

    def _run(self, *words: str) -> tuple[int, str]:
        status, out, told = attempts.CommandLine(Path(self.url)).run(["--bus", self.url, "--json", *words], b"")
        if status > 1:
            if told.count(b"\n") != 1 or out:
                raise Breach([f"{words} said {told!r} on stderr and {out!r} on stdout"])
            raise BusError(json.loads(told)["error"]["code"])
        return status, out.decode()


class Shell(model.Shell):
    """The shell functions; there is no Bus beside them."""

    @contextmanager
    def open(self) -> Iterator[Any]:
        with mock.patch.object(model.CommandLine, "open", CommandLine.open), super().open():
            yield None


DOORS: dict[str, type[Door]] = {
    "blocking": Door,
    "async": Asynchronous,
    "command line": CommandLine,
    "shell functions": Shell,
}


# --- one process


def _program(door: Door) -> list[tuple[str, dict[str, Any]]]:
    more = [PROGRAM[1], *(call for call in MORE if call[0] in ("receive", "extend", "reject", "delete"))]
    return PROGRAM if isinstance(door, Shell) else PROGRAM + more


def live(door: Door, scene: Scene, place: Place, world: World) -> int:
    """All is well; something is missing; all is well. How many calls were refused."""
    with door.open() as bus, _waiter(bus, door) as heard, _agent(bus, door) as agent:
        if isinstance(door, Shell):
            place.pids.append(door.bash.pid)
        _go_on(door, bus, world, 100)
        before = descriptors()
        scarce = scene(place)
        next(scarce)
        try:
            refused = _struggle(door, bus, world)
        finally:
            next(scarce, None)
        _go_on(door, bus, world, 300)
        if heard:
            system_calls.perform(door, bus, world, 400, "send", {"sender": "boss", "to": "waiting", "priority": 5})
            if not heard[0].wait(20):
                raise Breach(["who waited was not woken any more"])
        if agent:
            agent.heartbeat(task="goes on")
        if (now := descriptors()) > before + 10:
            raise Breach([f"{now - before} descriptors were left open"])
    return refused


def _go_on(door: Door, bus: Any, world: World, number: int) -> None:
    """The whole program; nothing may be refused."""
    for offset, (name, given) in enumerate(_program(door)):
        try:
            system_calls.perform(door, bus, world, number + offset, name, given)
        except BusError as problem:
            when = "before" if number < 200 else "after all was given back"
            raise Breach([f"{name} was refused {when}: {problem.code} {problem}"]) from problem
    if type(door) is Door and number > 200:
        for call in BEYOND:
            call(bus, world)


def _struggle(door: Door, bus: Any, world: World) -> int:
    """The program while something is missing, and a thread that needs a connection of its own."""
    refused = 0
    calls = [
        lambda n=number, c=call: system_calls.perform(door, bus, world, n, *c)
        for number, call in enumerate(_program(door), 200)
    ]
    if type(door) is Door:
        calls += [lambda: bus.interrupted(), lambda: bus.monitor_check(), lambda: bus.doctor(), lambda: bus.status()]
        calls += [
            lambda: bus.backup(str(Path(door.url).with_name("copy"))),
            *[lambda: bus.receive("ben", wait=0.002)] * 15,
        ]
        calls += [lambda: _in_a_thread(lambda: bus.state_save("ben", "k", "v"))]
    for call in calls:
        try:
            call()
        except BusError as problem:
            refused += 1
            if isinstance(door, Shell) and problem.code not in STATUSES:
                raise Breach([f"a shell function ended with {problem.code}"]) from problem
    return refused


def _in_a_thread(call: Callable[[], Any]) -> None:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    if problems:
        raise problems[0]


@contextmanager
def _waiter(bus: Any, door: Door) -> Iterator[list[threading.Event]]:
    """Somebody who waits for a message all the time, in a thread; who is refused asks again."""
    if type(door) is not Door:
        yield []
        return
    heard, over = threading.Event(), threading.Event()
    problems: list[BaseException] = []

    def wait() -> None:
        while not heard.is_set() and not over.is_set():
            try:
                if bus.receive("waiting", wait=5):
                    heard.set()
            except BusError:
                over.wait(0.01)
            except BaseException as problem:
                problems.append(problem)
                return
        bus.close()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield [heard]
    finally:
        over.set()
        thread.join(30)
    if problems:
        raise Breach([f"who waited was answered by {problems[0]!r}"])


@contextmanager
def _agent(bus: Any, door: Door) -> Iterator[Agent | None]:
    """An agent whose keeper runs in the background."""
    if type(door) is not Door:
        yield None
        return
    with Agent("kept", type="validation", session="elsewhere", bus=door.url) as agent:
        yield agent


# --- a process of its own for each


def _prepare(scene: Scene, folder: Path) -> str:
    """A small disk, or permissions that count; what was done instead, where one is not root."""
    root = os.geteuid() == 0
    if scene in ON_A_SMALL_DISK and not (root and _small_disk(folder)):
        return "no small disk: one has to be root"
    if scene in OF_PERMISSIONS and root and not _drop():
        return "root passes over permissions"
    return ""


def _small_disk(folder: Path) -> bool:
    """Mount a tmpfs that only this process and its children see."""
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        return False
    options = b"size=1800k,nr_inodes=30,mode=700"
    return not libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", MS_NOSUID, options)


def _drop() -> bool:
    """Give up the right to pass over permissions, for this process and those it starts."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    sets = (ctypes.c_uint32 * 6)()
    for capability in CAPABILITIES:
        libc.prctl(24, capability, 0, 0, 0)
    if libc.capget(header, sets):
        return False
    for place in range(3):
        sets[place] &= ~sum(1 << capability for capability in CAPABILITIES)
    return not libc.capset(header, sets)


def _child(folder: Path, told: Path, door: type[Door], scene: Scene, seed: int) -> None:
    status = 1
    answer: dict[str, Any] = {}
    try:
        signal.alarm(PATIENCE)
        logging.disable()
        if lacking := _prepare(scene, folder):
            scene = short_files
            answer["lacking"] = lacking
        path = folder / "coordination.db"
        _furnish(path)
        world = World()
        place = Place(folder, path, [os.getpid()], random.Random(seed))
        answer["refused"] = live(door(str(path)), scene, place, world)
        (folder / "copy").unlink(missing_ok=True)
        invariants.verify(str(path), world)
        status = 0
    except Breach as breach:
        answer["breach"] = breach.lines[0]
    except (BusError, OSError, sqlite3.Error):
        answer["breach"] = traceback.format_exc()
    except BaseException:  # the harness itself
        answer["failure"] = traceback.format_exc()
    finally:
        told.write_text(json.dumps(answer), "utf-8")
        os._exit(status)


def _furnish(path: Path) -> None:
    with Bus.open(str(path), create=True) as bus:
        bus.config_set("heartbeat_interval", "0.2")
        invariants.watch(bus)
        for name, type in (("boss", "milestone-coordinator"), ("ann", "milestone-executor"), ("ben", "validation")):
            bus.register(name, type=type, session="s")
        bus.register("waiting", type="scope-analyzer", session="elsewhere")


def suffer(door: str, scene: Scene, seed: int) -> dict[str, Any]:
    """One scene at one door, in a process of its own."""
    with work.folder() as folder:
        told = folder.with_name(f"{folder.name}-told")
        try:
            pid = os.fork()
            if not pid:
                _child(folder, told, DOORS[door], scene, seed)
            _, status = os.waitpid(pid, 0)
            found: dict[str, Any] = json.loads(told.read_text("utf-8")) if told.exists() else {}
        finally:
            folder.chmod(0o700)
            told.unlink(missing_ok=True)
    if "failure" in found:
        raise RuntimeError(found["failure"])
    if status:
        words = found.get("breach") or f"it died of {status}"
        raise Breach([f"{scene.__name__}, {door}: {words}"])
    return found


def run(size: int, seed: int) -> str:
    """So many rounds of all scenes at all doors."""
    refused: Counter[str] = Counter()
    lacking: set[str] = set()
    for number in range(seed, seed + size):
        for scene in SCENES:
            for door in DOORS:
                try:
                    found = suffer(door, scene, number)
                except Breach as breach:
                    raise Breach([f"scarcity 1 --seed {number}: {breach.lines[0]}"]) from breach
                refused[scene.__name__] += found["refused"]
                lacking |= {found["lacking"]} if "lacking" in found else set()
    for scene in SCENES:
        if not refused[scene.__name__]:
            raise Breach([f"scarcity {size} --seed {seed}: nothing was refused in the scene {scene.__name__}"])
    told = ", ".join(f"{scene} {number}" for scene, number in refused.items())
    return f"{size * len(SCENES) * len(DOORS)} processes; refused calls: {told}" + "".join(
        f"; {words}" for words in lacking
    )


# --- planted defects


def _with_defect(scene: Scene, seed: int) -> None:
    for number in range(3):
        suffer("blocking", scene, seed + number)


def a_connection_that_stays_broken(seed: int) -> None:
    """Planted: after an error of the disk the connection is closed, and none is opened anew."""

    def run(self: store.Connection, operation: Any) -> Any:
        if self._broken:
            raise error("io_error")
        return original(self, operation)

    original = store.Connection.run
    with mock.patch.object(store.Connection, "run", run), mock.patch.object(store.Connection, "_commit", _break_always):
        _with_defect(full_disk, seed)


def _break_always(self: store.Connection, begun: bool) -> None:
    """A commit after whose failure the connection is given up."""
    try:
        if begun:
            self.sqlite.execute("commit")
    except sqlite3.Error as problem:
        self._break()
        raise error("outcome_unknown") from problem


def a_commit_whose_failure_is_not_told(seed: int) -> None:
    """Planted: the error of a commit is taken for a success."""
    with mock.patch.object(store.Connection, "_commit", system_calls._careless):
        _with_defect(full_disk, seed)


def errors_of_the_system(seed: int) -> None:
    """Planted: what the system refuses is not turned into the bus's errors."""
    with mock.patch("bus.folders.of_system", lambda problem, path: problem):
        _with_defect(locked_files, seed)


def descriptors_that_stay_open(seed: int) -> None:
    """Planted: who can't listen leaves open what it had opened for it."""

    def listen(self: doorbell.Porch, bells: Any) -> Any:
        os.open(os.devnull, os.O_RDONLY)
        return original(self, bells)

    original = doorbell.Porch.listen
    with mock.patch.object(doorbell.Porch, "listen", listen):
        _with_defect(read_only_folder, seed)


CONTROLS = (
    a_connection_that_stays_broken, a_commit_whose_failure_is_not_told, errors_of_the_system,
    descriptors_that_stay_open,
)  # fmt: skip
