"""Every await of every async operation is cancelled at every scheduling point; commands get ctrl-C and SIGTERM.

An operation of the async client runs on the database's thread, so that it can be cancelled while it is queued, while
it runs, and when it has ended and nobody has heard it yet. The thread is held at each of these points, in turn, while
the task is cancelled after 0, 1, 2, … turns of the event loop, while others share its commit or not. Whatever
happened, happened whole; the bus goes on; what was received by nobody is there again.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bus_cli.main import main
from bus_client import AsyncAgent

from bus import AsyncBus, Bus, checkpoints, messages, state
from bus.errors import BusError
from bus.store import sqlite_async
from bus.store.sqlite import Connection
from tests.descriptors import descriptors
from tests.faults import invariants, work
from tests.faults.invariants import Breach
from tests.faults.world import World

UNIT = "rounds of all points"
SIZES = {"quick": 1, "nightly": 20, "release": 200}
TURNS = 6  # turns of the event loop before the cancellation, at most
POINTS = ("queued", "running", "ended", "free")
SIGNALS = 30  # commands that get a signal, a round
PATIENCE = 20.0  # seconds

Awaiting = Callable[[AsyncBus, list[str]], Coroutine[Any, Any, Any]]


async def _stepping(bus: AsyncBus, receipts: list[str]) -> None:
    await bus.apply(
        [
            messages.ack(receipts[0], once=True),
            state.save("one", "k", "v"),
            checkpoints.create("one", {"at": 1}),
            messages.send("one", work.BOSS, "progress_update", {"task_id": "extra"}),
        ]
    )


async def _looping(bus: AsyncBus, receipts: list[str]) -> None:
    async with AsyncAgent("three", type="validation", session=work.SESSION, bus=bus) as agent:
        async for message in agent.messages(wait=0.05):
            async with agent.step(message) as step:
                step.state.save("looped", "yes")


AWAITING: dict[str, Awaiting] = {
    "register": lambda bus, receipts: bus.register("new", type="validation", session=work.SESSION),
    "send": lambda bus, receipts: bus.send(work.BOSS, "two", "progress_update", {"task_id": "extra"}),
    "broadcast": lambda bus, receipts: bus.broadcast(work.BOSS, "progress_update", {"task_id": "extra"}),
    "receive": lambda bus, receipts: bus.receive("two", limit=2),
    "receive and wait": lambda bus, receipts: bus.receive("idle", wait=0.02),
    "receive, acknowledged": lambda bus, receipts: bus.receive("two", ack=True),
    "ack": lambda bus, receipts: bus.ack(receipts),
    "release": lambda bus, receipts: bus.release(receipts, delay=1),
    "extend": lambda bus, receipts: bus.extend(receipts, lease=60),
    "reject": lambda bus, receipts: bus.reject(receipts, reason="no"),
    "cancel": lambda bus, receipts: bus.cancel(1),
    "redrive": lambda bus, receipts: bus.redrive(),
    "wait_ended": lambda bus, receipts: bus.wait_ended(1, wait=0.02),
    "state_save": lambda bus, receipts: bus.state_save("one", "k", "v"),
    "state_watch": lambda bus, receipts: bus.state_watch("one", "k", wait=0.02),
    "state_delete": lambda bus, receipts: bus.state_delete("one", "k"),
    "checkpoint_create": lambda bus, receipts: bus.checkpoint_create("one", {"a": 1}),
    "recovery_apply": lambda bus, receipts: bus.recovery_apply(work.SESSION, "resume", by="faults"),
    "monitor_check": lambda bus, receipts: bus.monitor_check(),
    "prune": lambda bus, receipts: bus.prune(),
    "retire": lambda bus, receipts: bus.retire("one"),
    "step": _stepping,
    "loop": _looping,
}


class Gate:
    """Holds the database's thread at a point of its work, once."""

    def __init__(self, point: str) -> None:
        self.point = point
        self.open = threading.Event()
        self.reached = threading.Event()

    def at(self, point: str) -> None:
        if point == self.point and not self.reached.is_set():
            self.reached.set()
            self.open.wait(PATIENCE)

    @contextmanager
    def built_in(self) -> Iterator[None]:
        run, commit = Connection.run, Connection._commit

        def gated_run(connection: Connection, operation: Any) -> Any:
            self.at("queued")
            result = run(connection, operation)
            self.at("ended")
            return result

        def gated_commit(connection: Connection, begun: bool) -> None:
            self.at("running")
            commit(connection, begun)

        with mock.patch.multiple(Connection, run=gated_run, _commit=gated_commit):
            yield


async def cancelled(url: str, call: Awaiting, point: str, turns: int, receipts: list[str]) -> bool:
    """Cancel a call at a point, after so many turns; whether it had ended by itself before that."""
    async with await AsyncBus.open(url) as bus:
        gate = Gate(point)
        with gate.built_in():
            task = asyncio.ensure_future(call(bus, receipts))
            others = [asyncio.ensure_future(bus.state_save("two", f"k{n}", "v")) for n in range(turns % 3)]
            deadline = time.monotonic() + PATIENCE
            while point != "free" and not gate.reached.is_set() and not task.done() and time.monotonic() < deadline:
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            await asyncio.sleep(0)
            gate.open.set()
            try:
                await asyncio.wait_for(asyncio.shield(asyncio.gather(task, return_exceptions=True)), PATIENCE)
                await asyncio.wait_for(asyncio.gather(*others), PATIENCE)
            except TimeoutError as problem:
                raise Breach(["a cancelled call hangs"]) from problem
            except (BusError, asyncio.CancelledError) as problem:
                raise Breach([f"a call that shared a commit with a cancelled one failed: {problem!r}"]) from problem
        try:
            await bus.config_list()  # the bus goes on, after all that the thread had to do
        except BusError as problem:
            raise Breach([f"after a cancelled call the bus can't be used: {problem}"]) from problem
        if bus.store._database.bus.sqlite.in_transaction:
            raise Breach(["a cancelled call left a transaction open"])
    return ended


@functools.cache
def _template() -> tuple[bytes, World, list[str]]:
    """The file of a bus, made once."""
    with work.folder() as folder:
        url = f"{folder}/coordination.db"
        world, receipts = scene(url)
        return Path(url).read_bytes(), world, receipts


def copied(url: str) -> tuple[World, list[str]]:
    """A copy of `scene`."""
    data, world, receipts = _template()
    os.umask(0o077)
    Path(url.partition("?")[0]).write_bytes(data)
    return copy.deepcopy(world), receipts


def scene(url: str) -> tuple[World, list[str]]:
    """A bus with messages in every status; the receipts that `one` holds."""
    world = World()
    with Bus.open(url, create=True) as bus:
        invariants.watch(bus)
        bus.register(work.BOSS, type="milestone-coordinator", session=work.SESSION)
        for name, kind in (("one", "milestone-executor"), ("two", "milestone-executor"), ("idle", "git-operations")):
            bus.register(name, type=kind, session=work.SESSION)
        for number, to in enumerate(("one", "one", "two", "two", "two", "@validation")):
            world.intend(f"t{number}", {"task_id": f"t{number}"})
            id = bus.send(work.BOSS, to, "progress_update", {"task_id": f"t{number}"})
            world.confirm(id, f"t{number}")
        world.intend("extra", {"task_id": "extra"}, times=9)
        found = bus.receive("one", limit=1)
        bus.reject(bus.receive("two")[0].receipt or "", reason="for redrive")
        return world, [message.receipt or "" for message in found]


def one(name: str, point: str, turns: int) -> None:
    """One call, cancelled at one point; then everything is judged."""
    with work.folder() as folder:
        url = f"{folder}/coordination.db?synchronous=normal"
        world, receipts = copied(url)
        before = descriptors()
        asyncio.run(cancelled(url, AWAITING[name], point, turns, receipts))
        if descriptors() > before:
            raise Breach(["descriptors are left open"])
        with Bus.open(url) as bus:
            held = [m for m in bus.messages(status="leased") if m.leased_by == "two"]
            if name.startswith("receive") and held and not _answered(point):
                raise Breach([f"{len(held)} messages are leased to a call that was cancelled"])
            invariants.verify(bus, world)


def _answered(point: str) -> bool:
    return point == "free"  # the answer may have been there before the cancellation


def signalled(chance: random.Random) -> None:
    """`bus receive --wait`, interrupted: what it has not printed nobody holds."""
    with work.folder() as folder:
        url = f"{folder}/coordination.db?synchronous=normal"
        world, _ = copied(url)
        number = chance.choice((signal.SIGINT, signal.SIGTERM))
        agent = chance.choice(("two", "idle"))
        out = folder / "out"
        out.touch(0o600)
        pid = _command(out, "--bus", url, "receive", agent, "--wait", "30")
        time.sleep(chance.random() * (0.06 if agent == "two" else 0.2))
        os.kill(pid, number)
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 128 + number, -number):  # the last: before it was ready for signals
            raise Breach([f"receive ended with {code} after {signal.Signals(number).name}"])
        printed = out.read_text("utf-8")
        with Bus.open(url) as bus:
            held = [message for message in bus.messages(status="leased") if message.leased_by == agent]
            if held and '"receipt"' not in printed:
                raise Breach([f"{agent} holds {held[0].receipt}, which was never printed, after exit status {code}"])
            invariants.verify(bus, world)


def _command(out: Path, *arguments: str) -> int:
    """The `bus` command in a child of this process, with its output in a file."""
    numbers = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # a fork is not to be interrupted
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        return pid
    try:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT, 0o600), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        main(list(arguments))
    finally:
        os._exit(99)


def run(size: int, seed: int) -> str:
    """Every call at every point after 0 to `TURNS` turns; then commands with signals."""
    points = 0
    work.warm()
    for number in range(seed, seed + size):
        chance = random.Random(number)
        for name in AWAITING:
            for point in POINTS:
                for turns in range(TURNS) if point == "free" else (0, chance.randrange(1, TURNS)):
                    points += 1
                    try:
                        one(name, point, turns)
                    except (Breach, BusError) as problem:
                        raise Breach([f"{name}, {point}, after {turns} turns: {problem}"]) from problem
        for _ in range(SIGNALS):
            signalled(chance)
    return f"{len(AWAITING)} calls, {points} points, {SIGNALS * size} signals"


def an_answer_that_nobody_takes_back(seed: int) -> None:
    """Planted: what a cancelled receive has leased stays leased."""
    with mock.patch.object(sqlite_async.Store, "_take_back"):
        for point in ("running", "ended"):
            one("receive", point, 0)


def a_transaction_that_stays_open(seed: int) -> None:
    """Planted: a cancelled call leaves its transaction open."""

    async def begin(bus: AsyncBus, receipts: list[str]) -> None:
        await bus.store.call(lambda connection: connection.sqlite.execute("begin"))
        await bus.store.call(lambda connection: connection.sqlite.execute("commit"))

    with mock.patch.dict(AWAITING, {"torn": begin}):
        for turns in range(TURNS):
            one("torn", "free", turns)


CONTROLS = (an_answer_that_nobody_takes_back, a_transaction_that_stays_open)
