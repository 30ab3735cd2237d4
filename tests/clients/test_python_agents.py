"""`Agent` and `AsyncAgent`: the loop over messages, steps, the keeper."""

import asyncio
import logging
import threading
from collections.abc import Iterator

import pytest
from bus_client import Agent, AsyncAgent, Conflict

from bus import Bus, clock
from tests.conformance.refusal import refused

TASK = "task_assignment"


@pytest.fixture
def bus(url: str) -> Iterator[Bus]:
    with Bus.open(url) as opened:
        opened.register("boss", type="milestone-coordinator", session="s")
        for phase in "abc":
            opened.send("boss", "worker", TASK, {"phase": phase})
        yield opened


@pytest.fixture
def worker(url: str, bus: Bus) -> Iterator[Agent]:
    with Agent("worker", type="milestone-executor", session="s", bus=url) as agent:
        yield agent


def statuses(bus: Bus) -> list[str]:
    return [message.status.value for message in reversed(bus.messages(to="worker"))]


def test_a_body_that_ends_acknowledges(bus: Bus, worker: Agent) -> None:
    seen = []
    for message in worker.messages():
        seen.append(message.payload["phase"])
        if message.payload["phase"] == "a":
            continue
    assert seen == ["a", "b", "c"]
    assert statuses(bus) == ["acknowledged"] * 3


def test_break_and_return_acknowledge(bus: Bus, worker: Agent) -> None:
    def first() -> str:
        for message in worker.messages():
            return str(message.payload["phase"])
        raise AssertionError

    assert first() == "a"
    for _ in worker.messages():
        break
    assert statuses(bus) == ["acknowledged", "acknowledged", "ready"]


def test_a_body_that_raises_gives_back_for_longer_each_time(bus: Bus, worker: Agent) -> None:
    for n in range(3):
        with clock.moved(n * 100):
            due = clock.seconds() + 2**n
            with pytest.raises(ZeroDivisionError):
                for message in worker.messages():
                    print(message.id / 0)
            assert bus.message(1).status == "scheduled"
            found = bus.message(1).due_at
            assert found
            assert found.timestamp() == pytest.approx(due, abs=0.5)


def test_a_body_may_settle_by_itself(bus: Bus, worker: Agent) -> None:
    for message in worker.messages():
        if message.id == 1:
            worker.release(message.receipt or "", delay=60)
        elif message.id == 2:
            worker.reject(message.receipt or "", reason="no")
        else:
            worker.ack(message.receipt or "")
    assert statuses(bus) == ["scheduled", "dead", "acknowledged"]


def test_a_step_commits_all_of_it_and_the_acknowledgement(bus: Bus, worker: Agent) -> None:
    for message in worker.messages():
        with worker.step(message) as step:
            step.state.save("k", "v")
            step.send("boss", "progress_update", {"progress": 1})
            step.checkpoint({"at": 1})
            step.progress(40)
        assert step.results[1] == 1
        break
    assert statuses(bus) == ["acknowledged", "ready", "ready"]
    assert worker.state.load("k") == "v"
    assert worker.restore()
    assert bus.session_show("s").progress == 40
    assert len(bus.messages(to="boss")) == 1


def test_a_step_that_raises_commits_none_of_it(bus: Bus, worker: Agent) -> None:
    (message,) = worker.receive()
    with pytest.raises(ZeroDivisionError), worker.step(message) as step:
        step.state.save("k", "v")
        raise ZeroDivisionError
    with refused("unknown_type"), worker.step(message) as step:
        step.state.save("k", "v")
        step.send("boss", "gossip", {})
    assert worker.state.load("k") is None
    assert statuses(bus)[0] == "leased"


def test_a_step_on_a_lost_lease_is_a_conflict(bus: Bus, worker: Agent) -> None:
    (message,) = worker.receive(lease=1)
    with clock.moved(2):
        worker.receive()
        with pytest.raises(Conflict), worker.step(message) as step:
            step.state.save("k", "v")
    assert worker.state.load("k") is None


def test_a_lost_lease_is_logged_and_the_loop_goes_on(bus: Bus, worker: Agent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    seen = []
    for message in worker.messages():
        seen.append(message.id)
        if message.id == 1:
            bus.cancel(1)
    assert seen == [1, 2, 3]
    assert "message 1 was not acknowledged" in caplog.text or "the lease of 1.1 was lost" in caplog.text


def test_the_keeper_keeps_a_short_lease_while_the_body_runs(bus: Bus, worker: Agent) -> None:
    for message in worker.messages(lease=0.3):
        before = bus.message(message.id).due_at
        while bus.message(message.id).due_at == before:  # the keeper's thread extends it
            threading.Event().wait(0.01)
        assert bus.message(message.id).receipt == message.receipt
        break
    assert statuses(bus)[0] == "acknowledged"


def test_leaving_retires_and_gives_back(bus: Bus, url: str) -> None:
    with Agent("worker", type="milestone-executor", session="s", bus=url) as agent:
        agent.receive()
    assert statuses(bus)[0] == "ready"
    assert {a.agent_id: a.status for a in bus.agents()}["worker"] == "completed"
    with pytest.raises(ZeroDivisionError), Agent("worker", type="milestone-executor", session="s", bus=url):
        raise ZeroDivisionError
    assert {a.agent_id: a.status for a in bus.agents()}["worker"] == "failed"


def test_async_bodies_that_end_break_and_raise(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            async for _ in agent.messages():
                break
            with pytest.raises(ZeroDivisionError):
                async for message in agent.messages():
                    print(message.id / 0)
            async for message in agent.messages():
                async with agent.step(message) as step:
                    step.state.save("k", "v")
            assert await agent.state.load("k") == "v"

    asyncio.run(main())
    assert statuses(bus) == ["acknowledged", "scheduled", "acknowledged"]


def test_a_cancelled_body_gives_back(bus: Bus, url: str) -> None:
    async def body(agent: AsyncAgent, begun: asyncio.Event) -> None:
        async for _ in agent.messages():
            begun.set()
            await asyncio.Event().wait()

    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            begun = asyncio.Event()
            task = asyncio.create_task(body(agent, begun))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task

    asyncio.run(main())
    assert statuses(bus)[0] in ("scheduled", "ready")


def test_a_receive_that_is_cancelled_loses_nothing(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            for turns in range(12):
                task = asyncio.create_task(agent.receive())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                try:
                    for message in await task:
                        await agent.release(message.receipt or "")
                except asyncio.CancelledError:
                    pass
            assert (await agent.bus.status())["messages"].get("leased") is None

    bus.config_set("message_retry_limit", "1000")
    asyncio.run(main())
    assert set(statuses(bus)) == {"ready"}


def test_many_tasks_share_one_async_bus(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            await asyncio.gather(*(agent.state.save(f"k{n}", "v") for n in range(50)))
            assert len(await agent.state.list()) == 50

            async def later() -> None:
                await asyncio.sleep(0)
                await agent.send("worker", TASK, {"phase": "rung"}, priority=10)

            for _ in range(3):
                await agent.receive()
            found, _ = await asyncio.gather(agent.receive(wait=20), later())
            assert found[0].payload["phase"] == "rung"

    asyncio.run(main())
