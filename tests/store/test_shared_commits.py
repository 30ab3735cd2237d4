"""Concurrent callers of one AsyncBus share commits; each is answered as if it had run by itself."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bus import AsyncBus, Bus
from bus.errors import BusError, error
from bus.store.sqlite import Connection
from bus.store.sqlite_async import Database


@asynccontextmanager
async def crowded(path: Path, agents: int) -> AsyncIterator[tuple[AsyncBus, Callable[[], int]]]:
    """A bus with so many agents, and what tells how often it has committed since."""
    async with await AsyncBus.open(str(path / "bus.db"), create=True) as bus:
        for number in range(agents):
            await bus.register(f"agent-{number}", type="validation", session="s")
        ran: list[str] = []
        await bus.store.call(lambda connection: connection.sqlite.set_trace_callback(ran.append))
        yield bus, lambda: ran.count("commit")


def test_a_hundred_tasks_share_a_few_commits(tmp_path: Path) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 100) as (bus, commits):

            async def cycle(agent: str) -> int:
                id = await bus.send(agent, agent, "task_assignment", {"title": agent})
                (message,) = await bus.receive(agent)
                await bus.ack(message.receipt or "")
                assert message.id == id
                assert message.payload == {"title": agent}
                return id

            ids = await asyncio.gather(*(cycle(f"agent-{number}") for number in range(100)))
            assert len(set(ids)) == 100
            assert commits() < 30
            assert all([(await bus.message(id)).status == "acknowledged" for id in ids])

    asyncio.run(run())


def test_one_that_is_refused_spoils_none_of_the_others(tmp_path: Path) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 3) as (bus, _):
            outcomes = await asyncio.gather(
                bus.send("agent-0", "agent-1", "task_assignment", {"title": "good"}),
                bus.send("nobody", "agent-1", "task_assignment", {"title": "from a stranger"}),
                bus.send("agent-0", "agent-1", "task_assignment", {"title": 7}),
                bus.state_save("agent-0", "key", "value"),
                bus.ack("999.1"),
                return_exceptions=True,
            )
            codes = [outcome.code if isinstance(outcome, BusError) else None for outcome in outcomes]
            assert codes == [None, "unknown_agent", "invalid_payload", None, "unknown_message"]
            assert [message.payload for message in await bus.pending("agent-1")] == [{"title": "good"}]
            assert await bus.state_load("agent-0", "key") == "value"

    asyncio.run(run())


def test_an_unknown_outcome_is_unknown_for_all_who_shared_it_and_nothing_runs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 2) as (bus, _):

            def prepare(connection: object) -> None:
                commit = connection._commit  # type: ignore[attr-defined]

                def committed_but_lost(begun: bool) -> None:
                    commit(begun)
                    monkeypatch.undo()
                    raise BusError("outcome_unknown", "")

                monkeypatch.setattr(connection, "_commit", committed_but_lost)

            await bus.store.call(prepare)
            outcomes = await asyncio.gather(
                *(bus.send("agent-0", "agent-1", "task_assignment", {"n": n}) for n in range(5)),
                return_exceptions=True,
            )
            assert {getattr(outcome, "code", None) for outcome in outcomes} == {"outcome_unknown"}
            assert len(await bus.pending("agent-1")) == 5

    asyncio.run(run())


def test_when_the_bus_is_busy_all_are_told_so_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def busy(connection: Connection, operation: object) -> None:
        tried.append(operation)
        raise error("busy")

    async def run() -> None:
        async with crowded(tmp_path, 2) as (bus, _):
            monkeypatch.setattr(Connection, "_run", busy)
            outcomes = await asyncio.gather(
                *(bus.send("agent-0", "agent-1", "task_assignment", {"n": n}) for n in range(50)),
                return_exceptions=True,
            )
            assert {getattr(outcome, "code", None) for outcome in outcomes} == {"busy"}
            assert len(tried) <= 2
            monkeypatch.undo()

    asyncio.run(run())


def test_one_that_is_cancelled_before_it_ran_does_not_run_and_the_others_do(tmp_path: Path) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 2) as (bus, _):
            tasks = [
                asyncio.create_task(bus.send("agent-0", "agent-1", "task_assignment", {"n": n})) for n in range(10)
            ]
            tasks[3].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert [message.payload["n"] for message in await bus.pending("agent-1")] == [0, 1, 2, 4, 5, 6, 7, 8, 9]

    asyncio.run(run())


def test_many_receivers_that_are_cancelled_together_lose_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 2) as (bus, _):
            for n in range(20):
                await bus.send("agent-0", "agent-1", "task_assignment", {"n": n})
            tasks = [asyncio.create_task(bus.receive("agent-1")) for _ in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
            kept = [message.payload["n"] for messages in found if isinstance(messages, list) for message in messages]
            waiting = [message.payload["n"] for message in await bus.pending("agent-1")]
            assert sorted(kept + waiting) == list(range(20))

    asyncio.run(run())


def test_more_than_share_one_commit_all_run(tmp_path: Path) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 1) as (bus, commits):
            await asyncio.gather(*(bus.send("agent-0", "agent-0", "task_assignment", {"n": n}) for n in range(350)))
            assert len(await bus.pending("agent-0", limit=1000)) == 350
            assert commits() >= 4

    asyncio.run(run())


def test_one_that_can_not_be_taken_back_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, running, go = threading.Event(), threading.Event(), threading.Event()

    async def run() -> None:
        async with crowded(tmp_path, 1) as (bus, _):
            await bus.send("agent-0", "agent-0", "task_assignment", {})
            commit = Connection._commit

            def commit_slowly(connection: Connection, begun: bool) -> None:
                running.set()
                go.wait(20)
                commit(connection, begun)
                monkeypatch.setattr(Connection, "run", busy)

            monkeypatch.setattr(Connection, "_commit", commit_slowly)
            first = asyncio.create_task(bus.store.call(lambda _: held.wait(20)))
            receiving = asyncio.create_task(bus.receive("agent-0"))
            saving = asyncio.create_task(bus.state_save("agent-0", "key", "value"))
            await asyncio.sleep(0)
            held.set()
            await asyncio.to_thread(running.wait, 20)
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)
            go.set()
            assert await asyncio.wait_for(saving, 20) == 1
            assert await first

    def busy(*_: object) -> None:
        raise error("busy")

    asyncio.run(run())


def test_what_waits_when_the_bus_is_closed_is_done(tmp_path: Path) -> None:
    async def run() -> None:
        async with crowded(tmp_path, 1) as (bus, _):
            task = asyncio.create_task(bus.state_save("agent-0", "key", "value"))
            await asyncio.sleep(0)
        assert await task == 1

    asyncio.run(run())
    with Bus.open(str(tmp_path / "bus.db")) as bus:
        assert bus.state_load("agent-0", "key") == "value"


def test_each_hears_of_a_shared_commit_on_its_own_loop_also_where_anothers_has_ended() -> None:
    async def future() -> asyncio.Future[int]:
        return asyncio.get_running_loop().create_future()

    async def answered(future: asyncio.Future[int]) -> int:
        return await asyncio.wait_for(future, 20)

    with asyncio.Runner() as one, asyncio.Runner() as other:
        with asyncio.Runner() as ended:
            waiting = [runner.run(future()) for runner in (ended, one, other, one)]
        Database.answer(None, list(zip(waiting, range(4), strict=True)))  # type: ignore[arg-type]
        assert one.run(answered(waiting[1])) + one.run(answered(waiting[3])) == 4
        assert other.run(answered(waiting[2])) == 2
