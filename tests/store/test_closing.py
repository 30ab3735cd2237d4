"""How an AsyncBus ends: closed, used after that, never closed; and what is cancelled while a thread is at it."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bus import AsyncBus, Bus
from bus.operation import Operation, Steps
from bus.store import postgres_async, postgres_ear, sqlite_async
from bus.store.postgres import Connection
from bus.store.postgres_async import Pool
from tests.conformance.refusal import refused

TREE = Path(__file__).resolve().parents[2]
PATIENCE = 20  # seconds


@pytest.fixture(params=["file", "memory", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a bus that is not there yet."""
    places = {"file": str(tmp_path / "bus.db"), "memory": ":memory:"}
    return places.get(request.param) or str(request.getfixturevalue("postgres"))


async def with_agent(place: str) -> AsyncBus:
    """A bus with agent a."""
    bus = await AsyncBus.open(place, create=True)
    await bus.register("a", type="validation", session="s")
    return bus


async def asleep(bus: AsyncBus) -> None:
    """Return once somebody sleeps."""
    async with asyncio.timeout(PATIENCE):
        while not bus.store._calls._asleep:
            await asyncio.sleep(0)


@pytest.mark.parametrize("turns", range(1, 5))
def test_a_bus_whose_closing_is_cancelled_is_closed_all_the_same(place: str, turns: int) -> None:
    """Within its loop, and when that ends: no thread stays, and nothing for the end of the process to do."""

    async def cancelled(last: bool) -> None:
        bus = await with_agent(place) if last else await AsyncBus.open(place, create=True)
        closing = asyncio.create_task(bus.close())
        for _ in range(turns):
            await asyncio.sleep(0)  # a turn of the loop: how far the closing gets
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        if not last:
            await bus.close()

    async def run() -> None:
        await cancelled(last=False)
        await cancelled(last=True)

    before = set(threading.enumerate())
    asyncio.run(run())
    for thread in set(threading.enumerate()) - before:
        thread.join(PATIENCE)
    assert not {thread for thread in set(threading.enumerate()) - before if thread.is_alive()}
    assert not {database for database in sqlite_async._open if database._url.path == place}


def test_a_bus_whose_closing_is_cancelled_ends_with_its_last_call(place: str) -> None:
    inside, end = threading.Event(), threading.Event()

    def steps() -> Steps[str]:
        inside.set()
        end.wait(PATIENCE)
        return "done"
        yield

    async def run() -> None:
        bus = await with_agent(place)
        call = asyncio.create_task(bus.store.run(Operation(steps, writes=False)))
        await asyncio.to_thread(inside.wait, PATIENCE)
        closing = asyncio.create_task(bus.close())
        await asyncio.sleep(0)
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        end.set()
        assert await call == "done"
        async with asyncio.timeout(PATIENCE):
            while [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("asyncio_")]:
                await asyncio.sleep(0)

    before = set(threading.enumerate())
    asyncio.run(run())


def test_after_closing_every_call_is_refused_at_once(place: str, tmp_path: Path) -> None:
    async def run() -> None:
        bus = await with_agent(place)
        await bus.close()
        calls: list[Callable[[], Any]] = [
            lambda: bus.send("a", "a", "task_assignment", {}),
            lambda: bus.send("a", "a", "task_assignment", {}),
            lambda: bus.message(1),
            lambda: bus.receive("a", wait=600),
            lambda: bus.monitor_check(),
            lambda: bus.doctor(),
            lambda: bus.status(),
            lambda: bus.backup(str(tmp_path / "copy.db")),
        ]
        for call in calls:
            async with asyncio.timeout(PATIENCE):
                with refused("closed", 65):
                    await call()

    asyncio.run(run())


def test_who_sleeps_when_the_bus_is_closed_is_woken_and_told_so(place: str) -> None:
    async def run() -> None:
        bus = await with_agent(place)
        waiting = [asyncio.create_task(bus.receive("a", wait=600)) for _ in range(3)]
        cancelled = asyncio.create_task(bus.receive("a", wait=600))
        await asleep(bus)
        cancelled.cancel()
        async with asyncio.timeout(PATIENCE):
            await bus.close()
            outcomes = await asyncio.gather(*waiting, cancelled, return_exceptions=True)
        assert [getattr(outcome, "code", None) for outcome in outcomes[:3]] == ["closed"] * 3
        assert isinstance(outcomes[3], asyncio.CancelledError)

    asyncio.run(run())


def test_a_bus_that_was_closed_is_not_kept_until_the_process_ends(url: str) -> None:
    async def run() -> tuple[weakref.ref[Any], threading.Thread]:
        async with await AsyncBus.open(url) as bus:
            return weakref.ref(bus.store._database), bus.store._database._thread

    found, thread = asyncio.run(run())
    thread.join()
    gc.collect()
    assert found() is None


def test_many_may_close_a_bus(place: str) -> None:
    async def run() -> None:
        bus = await with_agent(place)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(bus.close(), bus.close(), bus.close())
            await bus.close()

    asyncio.run(run())


def test_a_bus_in_memory_is_closed_by_whichever_thread_closes_it() -> None:
    bus = Bus.open(":memory:", create=True)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(bus.close).result(PATIENCE)
    with refused("closed", 65):
        bus.state_load("a", "k")
    bus.close()


def test_a_thread_that_sleeps_when_the_bus_in_memory_is_closed_is_woken() -> None:
    bus = Bus.open(":memory:", create=True)
    bus.register("a", type="validation", session="s")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(bus.receive, "a", wait=600)
        while not bus.store.asleep and not waiting.done():
            pass
        bus.close()
        with refused("closed", 65):
            waiting.result(PATIENCE)
    with refused("closed", 65):
        bus.state_load("a", "k")


# --- a bus that nobody closes


NEVER_CLOSED = """
import asyncio, sys, threading
from bus import AsyncBus
from bus.store.sqlite import Connection

async def main():
    bus = await AsyncBus.open(sys.argv[1], create=True)
    commit, running = Connection._commit, threading.Event()

    def commit_when_the_process_ends(connection, begun):
        running.set()
        threading.main_thread().join()
        commit(connection, begun)

    if len(sys.argv) > 2:
        Connection._commit = commit_when_the_process_ends
        saving = asyncio.create_task(bus.state_save("a", "k", "v"))
        await asyncio.to_thread(running.wait)
    raise ValueError("before it was closed")

asyncio.run(main())
"""


@pytest.mark.parametrize("where", [[":memory:"], ["bus.db"], ["bus.db", "while it commits"]])
def test_a_bus_that_was_never_closed_ends_with_its_process(where: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", NEVER_CLOSED, *where]
    environment = {**os.environ, "PYTHONPATH": str(TREE)}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, timeout=60, check=False, capture_output=True)
    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1] == "ValueError: before it was closed"
    if len(where) > 1:
        with Bus.open(str(tmp_path / "bus.db")) as bus:
            assert bus.state_load("a", "k") == "v"
    elif where == ["bus.db"]:
        assert not (tmp_path / "bus.db-wal").exists()


def test_an_answer_for_a_loop_that_has_ended_leaves_the_thread_at_work(url: str) -> None:
    go, later = threading.Event(), threading.Event()

    async def leave() -> sqlite_async.Store:
        store = (await AsyncBus.open(url)).store
        assert isinstance(store, sqlite_async.Store)
        unanswered = asyncio.create_task(store.call(lambda _: go.wait(PATIENCE)))
        await asyncio.sleep(0)
        assert not unanswered.done()
        return store

    store = asyncio.run(leave())
    go.set()
    store._database.call_soon(later.set)
    assert later.wait(PATIENCE)
    asyncio.run(store.close())


# --- what is cancelled while a thread is at it


def test_a_connection_that_a_cancelled_call_still_uses_is_nobody_elses(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = threading.Event(), threading.Event()
    held: list[Connection] = []
    used: list[Connection] = []
    take, run = Pool.take, Connection.run

    def take_slowly(pool: Pool) -> Any:
        taken = take(pool)
        if not held:
            held.append(taken)
            begun.set()
            go.wait(PATIENCE)
        return taken

    def run_and_tell(connection: Connection, operation: Any) -> Any:
        used.append(connection)
        return run(connection, operation)

    async def cancel() -> None:
        bus = await with_agent(postgres)
        monkeypatch.setattr(Pool, "take", take_slowly)
        task = asyncio.create_task(bus.receive("a", wait=600))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        monkeypatch.setattr(Connection, "run", run_and_tell)
        await bus.state_save("a", "k", "v")
        assert held[0] not in used
        go.set()
        await bus.close()
        assert not held[0].sound()

    asyncio.run(cancel())


def test_who_is_cancelled_before_it_hears_leaves_nothing(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    opened = postgres_ear.Connection

    def open_slowly(*given: Any) -> Connection:
        begun.set()
        go.wait(PATIENCE)
        return opened(*given)

    async def cancel() -> None:
        bus = await with_agent(postgres)
        monkeypatch.setattr(postgres_ear, "Connection", open_slowly)
        task = asyncio.create_task(bus.receive("a", wait=600))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert isinstance(bus.store, postgres_async.Store)
        ear = bus.store._ear
        assert ear
        assert not ear._guests
        go.set()
        await bus.close()
        assert ear._thread is None

    asyncio.run(cancel())


def test_an_open_that_is_cancelled_leaves_nothing_open(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go = threading.Event(), threading.Event()
    opened: list[sqlite_async.Connection] = []
    databases: list[sqlite_async.Database] = []
    begin = sqlite_async.Database._open

    def open_slowly(database: sqlite_async.Database) -> Any:
        databases.append(database)
        begun.set()
        go.wait(PATIENCE)
        found = begin(database)
        opened.append(database.bus)
        return found

    async def cancel() -> None:
        monkeypatch.setattr(sqlite_async.Database, "_open", open_slowly)
        task = asyncio.create_task(AsyncBus.open(url))
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        go.set()
        await asyncio.to_thread(databases[0]._thread.join, PATIENCE)
        assert opened[0]._turnstile is None

    asyncio.run(cancel())


def test_an_answer_that_came_before_the_cancellation_is_taken_back(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_async, "WORKERS", 1)

    async def cancel() -> str:
        async with await with_agent(postgres) as bus:
            await bus.send("a", "a", "task_assignment", {})
            receiving = asyncio.ensure_future(bus.receive("a"))
            await asyncio.sleep(0)
            bus.store._workers.submit(int).result(PATIENCE)  # type: ignore[union-attr]  # the loop stands still
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            return (await bus.message(1)).status

    assert asyncio.run(cancel()) == "ready"
