"""`Agent` and `AsyncAgent`: the loop over messages, steps, the keeper."""

import asyncio
import gc
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any

import anyio
import pytest
from bus_client import Agent, AsyncAgent, BusError, Conflict
from bus_client.held import Held

from bus import AsyncBus, Bus, clock
from bus.errors import error
from bus.models import Message
from tests.conformance.refusal import refused
from tests.descriptors import descriptors

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


def test_a_lease_may_be_made_longer_by_hand(bus: Bus, worker: Agent) -> None:
    (message,) = worker.receive(lease=1)
    worker.extend(message.receipt or "", lease="1h")
    due = bus.message(message.id).due_at
    assert due
    assert due.timestamp() > clock.seconds() + 3000


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


def test_where_no_thread_can_be_started_nobody_is_registered(
    bus: Bus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = [agent.agent_id for agent in bus.agents()]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none)
        with pytest.raises(RuntimeError), Agent("late", type="validation", session="s", bus=url):
            pass
    assert [agent.agent_id for agent in bus.agents()] == before


def test_an_agent_that_could_not_begin_leaves_no_thread(bus: Bus) -> None:
    agent, threads = Agent("late", type="no-such-type", session="s", bus=bus), threading.active_count()
    for _ in range(20):
        with refused("unknown_type", 65), agent:
            pass
    assert threading.active_count() == threads


def test_who_interrupts_an_agent_that_leaves_does_not_keep_it(
    bus: Bus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def join(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        monkeypatch.context() as patch,
        Agent("worker", type="milestone-executor", session="s", bus=url),
    ):
        patch.setattr(threading.Thread, "join", join)
    assert {a.agent_id: a.status for a in bus.agents()}["worker"] == "completed"


def test_a_child_that_leaves_a_body_takes_nothing_from_its_parent(bus: Bus, url: str) -> None:
    code = f"""
import os, sys
from bus_client import Agent
with Agent("worker", type="milestone-executor", session="s", bus={url!r}) as agent:
    for message in agent.messages():
        for leave in (sys.exit, int):
            if not (child := os.fork()):
                leave()
                break
            assert os.waitpid(child, 0)[1] == 0
        else:
            me = next(each for each in agent.bus.agents() if each.agent_id == "worker")
            print(agent.bus.message(message.id).status.value, me.status)
        break
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    assert done.stdout == "leased active\n"
    assert statuses(bus)[0] == "acknowledged"


@pytest.mark.parametrize(
    "kept",
    [
        "worker = Agent({}); worker.__enter__(); found = iter(worker.messages()); next(found)",
        "with Agent({}) as worker: found = iter(worker.messages()); next(found)",
    ],
)
def test_an_iterator_that_is_there_at_the_end_of_python_ends_quietly(bus: Bus, url: str, kept: str) -> None:
    given = f"'worker', type='milestone-executor', session='s', bus={url!r}"
    code = f"from bus_client import Agent\n{kept.format(given)}\nimport json; json.kept = found"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("", "")
    bus.register("worker", type="milestone-executor", session="s")  # the process that had the message is gone
    assert bus.receive("worker")[0].id == 1


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


def test_an_agent_that_is_cancelled_however_often_leaves_in_order(bus: Bus, url: str) -> None:
    async def body() -> None:
        async with AsyncAgent("late", type="milestone-executor", session="s", bus=url):
            await asyncio.Event().wait()

    async def scoped() -> None:
        with anyio.move_on_after(0.05):
            await body()

    async def main() -> None:
        for turns in (*range(8), 20, 50, 100):
            task = asyncio.create_task(body())
            for _ in range(turns):
                await asyncio.sleep(0.0003)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            check()
        await scoped()
        check()

    def check() -> None:
        assert [agent.status for agent in bus.agents() if agent.agent_id == "late"] in ([], ["failed"])
        assert [life.registry_id for life in bus.trace_active()] == []

    asyncio.run(main())


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


# --- every way out of a loop


def by_break_in_with(agent: Agent) -> None:
    for _ in agent.messages():
        with threading.Lock():
            break


def by_break_in_try(agent: Agent) -> None:
    for _ in agent.messages():
        try:
            break
        finally:
            threading.get_ident()


def by_return_in_nested_loops(agent: Agent) -> int:
    for message in agent.messages():
        for number in range(3):
            if number == 1:
                return message.id
    return 0


def by_return_in_with(agent: Agent) -> str:
    for message in agent.messages():
        with threading.Lock():
            return message.receipt or ""
    return ""


def by_break_after_a_caught_error(agent: Agent) -> None:
    for _ in agent.messages():
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            break


def by_enumerate(agent: Agent) -> None:
    for number, _ in enumerate(agent.messages()):
        if number == 0:
            break


def by_break_of_an_iterator_with_a_name(agent: Agent) -> None:
    todo = agent.messages()
    for _ in todo:
        break
    assert "acknowledged" in [message.status for message in agent.bus.messages(to=agent.id)]


def by_break_after_a_call(agent: Agent) -> None:
    for message in agent.messages():
        str(message)
        break


def by_return_of_a_call(agent: Agent) -> str:
    for message in agent.messages():
        return str(message)
    return ""


def by_break_into_else(agent: Agent) -> None:
    for _ in agent.messages():
        break
    else:
        raise AssertionError


@pytest.mark.parametrize(
    "leave",
    [
        by_break_in_with,
        by_break_in_try,
        by_return_in_nested_loops,
        by_return_in_with,
        by_break_after_a_caught_error,
        by_enumerate,
        by_break_of_an_iterator_with_a_name,
        by_break_after_a_call,
        by_return_of_a_call,
        by_break_into_else,
    ],
    ids=lambda function: function.__name__,
)
def test_leaving_a_loop_in_order_acknowledges(bus: Bus, worker: Agent, leave: Callable[[Agent], object]) -> None:
    leave(worker)
    assert statuses(bus) == ["acknowledged", "ready", "ready"]


def raising_in_a_call(agent: Agent) -> None:
    for _ in agent.messages():
        int("x")


def raising_in_a_nested_loop(agent: Agent) -> None:
    for _ in agent.messages():
        for number in (1, 0):
            print(1 / number)


def raising_in_a_with(agent: Agent) -> None:
    for _ in agent.messages():
        with threading.Lock():
            raise ValueError


def raising_after_finally(agent: Agent) -> None:
    for _ in agent.messages():
        try:
            raise ValueError
        finally:
            threading.get_ident()


def raising_by_an_assertion(agent: Agent) -> None:
    for message in agent.messages():
        assert message.id == 0


def raising_by_an_unknown_name(agent: Agent) -> None:
    for _ in agent.messages():
        unknown  # type: ignore[name-defined]  # noqa: B018, F821


def raising_system_exit(agent: Agent) -> None:
    for _ in agent.messages():
        raise SystemExit


def raising_through_a_generator(agent: Agent) -> None:
    def inner() -> Iterator[int]:
        for message in agent.messages():
            yield message.id

    for id in inner():
        print(id / 0)


def raising_with_a_name_for_the_iterator(agent: Agent) -> None:
    todo = agent.messages()
    for message in todo:
        print(message.id / 0)


RAISING = [
    raising_in_a_call,
    raising_in_a_nested_loop,
    raising_in_a_with,
    raising_after_finally,
    raising_by_an_assertion,
    raising_by_an_unknown_name,
    raising_system_exit,
    raising_through_a_generator,
    raising_with_a_name_for_the_iterator,
]


@pytest.mark.parametrize("leave", RAISING, ids=lambda function: function.__name__)
def test_leaving_a_loop_by_an_exception_gives_back(bus: Bus, worker: Agent, leave: Callable[[Agent], object]) -> None:
    caught = None
    try:
        leave(worker)
    except BaseException as problem:
        caught = problem
    assert caught
    assert statuses(bus) == ["scheduled", "ready", "ready"]


def test_an_error_that_is_caught_around_the_loop_in_the_same_function_gives_back(bus: Bus, worker: Agent) -> None:
    try:
        for _ in worker.messages():
            int("x")
    except ValueError:
        pass
    assert statuses(bus) == ["scheduled", "ready", "ready"]


def test_an_iterator_that_dies_with_the_exception_elsewhere_gives_back(bus: Bus, worker: Agent) -> None:
    def work() -> None:
        todo = enumerate(worker.messages())
        for _, message in todo:
            print(message.id / 0)

    def failure() -> Exception:
        try:
            work()
        except ZeroDivisionError as problem:
            return problem
        raise AssertionError

    failure()  # a statement that drops the exception, its traceback, the frame of the loop and the iterator
    assert statuses(bus) == ["scheduled", "ready", "ready"]


def test_an_iterator_that_is_dropped_later_in_the_frame_of_its_loop_gives_back(bus: Bus, worker: Agent) -> None:
    kept = [enumerate(worker.messages())]
    with suppress(ZeroDivisionError):
        for _, message in kept[0]:
            print(message.id / 0)
    kept.pop()
    assert statuses(bus) == ["scheduled", "ready", "ready"]


class Box:
    """Gives away what it has, without a call, as `break` drops an iterator."""

    def __init__(self, *kept: object) -> None:
        self._kept = list(kept)

    @property
    def taken(self) -> object:
        return self._kept.pop()


def test_an_iterator_that_is_dropped_in_another_frame_than_that_of_its_loop_gives_back(bus: Bus, worker: Agent) -> None:
    def work(todo: Iterator[tuple[int, Message]]) -> Box:
        with suppress(ZeroDivisionError):
            for _, message in todo:
                print(message.id / 0)
        return Box(todo)

    box = work(enumerate(worker.messages()))
    box.taken  # noqa: B018  (what it gives is to be dropped, by no call)
    assert statuses(bus) == ["scheduled", "ready", "ready"]


def test_an_iterator_that_no_loop_asks_gives_back(bus: Bus, worker: Agent) -> None:
    kept = [worker.messages()]
    assert [next(kept[0]).id, next(kept[0]).id] == [1, 2]
    kept.pop()
    assert statuses(bus) == ["acknowledged", "scheduled", "ready"]


def test_a_loop_over_what_was_asked_by_hand_before_goes_on_from_there(bus: Bus, worker: Agent) -> None:
    todo = worker.messages()
    assert next(todo).id == 1
    for message in todo:
        assert (message.id, statuses(bus)) == (2, ["acknowledged", "leased", "ready"])
        break
    assert [message.id for message in todo] == [3]
    assert statuses(bus) == ["acknowledged"] * 3


# --- an acknowledgement that fails


def test_an_async_iterator_that_another_thread_drops_gives_back(bus: Bus, url: str) -> None:
    """The garbage collector runs on any thread, such as that of the database."""

    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            kept = [aiter(agent.messages())]
            await anext(kept[0])
            await asyncio.to_thread(kept.clear)
            while "1.1" in agent.held:
                await asyncio.sleep(0)

    asyncio.run(main())
    assert (bus.message(1).status, bus.message(1).retry_count) == ("scheduled", 1)


def test_an_iterator_that_outlives_its_event_loop_is_dropped_in_silence(
    url: str, recwarn: pytest.WarningsRecorder
) -> None:
    kept: list[Any] = []

    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            await agent.send("worker", "task_assignment", {})
            kept.append(aiter(agent.messages(wait=0)))
            await anext(kept[0])

    asyncio.run(main())
    with pytest.MonkeyPatch.context() as patch:
        ignored: list[Any] = []
        patch.setattr(sys, "unraisablehook", ignored.append)
        kept.clear()
        gc.collect()
    assert ignored == []
    with Bus.open(url) as bus:
        assert bus.message(1).status == "ready"


@pytest.mark.parametrize("turns", range(0, 60, 3))
def test_a_start_that_is_cancelled_leaves_nobody(url: str, turns: int) -> None:
    async def main() -> None:
        async with await AsyncBus.open(url) as bus:
            agent = AsyncAgent("worker", type="milestone-executor", session="s", bus=bus)
            task = asyncio.create_task(agent.__aenter__())
            for _ in range(turns):
                await asyncio.sleep(0.0001)  # a turn of the loop, and of the thread that does it
            task.cancel()
            with suppress(asyncio.CancelledError):
                await (await task).__aexit__(None, None, None)

    asyncio.run(main())
    with Bus.open(url) as bus:
        assert {agent.status for agent in bus.agents() if agent.agent_id == "worker"} <= {"failed", "completed"}
        assert bus.trace_active() == []


def refusing(monkeypatch: pytest.MonkeyPatch, agent: Agent | AsyncAgent, code: str, *names: str) -> None:
    """Let these operations of an agent fail."""

    def refuse(*_: object, **__: object) -> None:
        raise error(code)

    async def refuse_async(*_: object, **__: object) -> None:
        raise error(code)

    for name in names:
        monkeypatch.setattr(agent, name, refuse_async if isinstance(agent, AsyncAgent) else refuse)


FAILURES = ["busy", "outcome_unknown", "io_error"]


@pytest.mark.parametrize("code", FAILURES)
def test_an_acknowledgement_that_fails_is_raised_and_tried_again_at_the_end(
    bus: Bus, worker: Agent, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    refusing(monkeypatch, worker, code, "ack_and_receive")
    with pytest.raises(BusError) as caught:  # and its traceback, which has the iterator's frame
        for _ in worker.messages():
            pass
    assert caught.value.code == code
    assert statuses(bus) == ["acknowledged", "ready", "ready"]


def test_an_acknowledgement_that_fails_is_tried_again_with_the_next_message(
    bus: Bus, worker: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = worker.messages()
    next(todo)
    with monkeypatch.context() as patch, refused("busy"):
        refusing(patch, worker, "busy", "ack_and_receive")
        next(todo)
    assert worker.held.renew() == []  # nobody extends it any more
    assert next(todo).id == 2
    assert statuses(bus) == ["acknowledged", "leased", "ready"]


def test_a_message_that_can_not_be_acknowledged_is_kept_no_longer(
    bus: Bus, worker: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing(monkeypatch, worker, "busy", "ack_and_receive", "ack")
    with refused("busy"):
        for _ in worker.messages():
            pass
    for _ in worker.messages():
        break
    assert statuses(bus) == ["leased", "leased", "ready"]
    assert worker.held.renew() == []
    assert "message 1 was not acknowledged" in caplog.text
    assert "message 2 was not acknowledged" in caplog.text


def test_a_message_that_can_not_be_given_back_is_kept_no_longer(
    worker: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker.bus, "release", lambda *_, **__: (_ for _ in ()).throw(error("busy")))
    with pytest.raises(ValueError, match="invalid literal"):
        raising_in_a_call(worker)
    assert worker.held.renew() == []
    assert "message 1 was not given back" in caplog.text


@pytest.mark.parametrize("code", FAILURES)
def test_an_async_acknowledgement_that_fails_is_tried_again(
    bus: Bus, url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            with monkeypatch.context() as patch, refused(code):
                refusing(patch, agent, code, "ack_and_receive")
                await leave_async(agent, "continue")
            await asyncio.gather(*agent._settling)
            assert statuses(bus) == ["acknowledged", "ready", "ready"]
            refusing(monkeypatch, agent, code, "ack")
            await leave_async(agent, "break")
            await asyncio.gather(*agent._settling)
            assert statuses(bus) == ["acknowledged", "leased", "ready"]
            assert agent.held.renew() == []

    finish(main())
    assert "message 2 was not acknowledged" in caplog.text


def test_an_async_agent_ends_after_what_it_still_has_to_acknowledge(
    bus: Bus, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            ack = agent.bus.ack

            async def slowly(receipts: str) -> None:
                for _ in range(100):
                    await asyncio.sleep(0)  # turns of the event loop, in which who leaves could end
                await ack(receipts)

            monkeypatch.setattr(agent.bus, "ack", slowly)
            await leave_async(agent, "break")

    finish(main())
    assert statuses(bus) == ["acknowledged", "ready", "ready"]


def test_an_acknowledgement_that_is_cancelled_while_it_waits_its_turn_is_tried_again(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            busy, gate = asyncio.Event(), threading.Event()

            async def work() -> None:
                async for _ in agent.messages(lease="1h"):
                    others.append(asyncio.create_task(agent.bus.store.call(lambda _: gate.wait(20))))
                    await asyncio.sleep(0)
                    busy.set()

            others: list[asyncio.Task[bool]] = []
            task = asyncio.create_task(work())
            await busy.wait()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert statuses(bus) == ["leased", "ready", "ready"]
            gate.set()
            await asyncio.gather(*others, *agent._settling)
            assert statuses(bus) == ["acknowledged", "ready", "ready"]
            assert agent.held.renew() == []

    finish(main())


def test_an_async_iterator_with_a_name_is_as_one_without(bus: Bus, url: str) -> None:
    async def fail(agent: AsyncAgent) -> None:
        todo = agent.messages()
        async for message in todo:
            print(message.id / 0)

    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            await asyncio.gather(fail(agent), return_exceptions=True)  # a statement that drops the exception
            todo = agent.messages()
            async for _ in todo:
                break
            await asyncio.gather(*agent._settling)
            assert statuses(bus) == ["scheduled", "acknowledged", "ready"]

    finish(main())


# --- several receipts


SETTLING: dict[str, dict[str, str]] = {"ack": {}, "release": {}, "reject": {"reason": "no"}}


@pytest.mark.parametrize(("name", "status"), [("ack", "acknowledged"), ("release", "ready"), ("reject", "dead")])
def test_receipts_may_come_from_an_iterator(bus: Bus, worker: Agent, name: str, status: str) -> None:
    for message in (found := worker.receive(limit=2)):
        worker.held.take(message)
    getattr(worker, name)((message.receipt or "" for message in found), **SETTLING[name])
    assert statuses(bus) == [status, status, "ready"]
    assert worker.held.renew() == []


@pytest.mark.parametrize(("name", "status"), [("ack", "acknowledged"), ("release", "ready"), ("reject", "dead")])
def test_an_async_agents_receipts_may_come_from_an_iterator(bus: Bus, url: str, name: str, status: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            for message in (found := await agent.receive(limit=2)):
                agent.held.take(message)
            await getattr(agent, name)((message.receipt or "" for message in found), **SETTLING[name])
            assert statuses(bus) == [status, status, "ready"]
            assert agent.held.renew() == []

    finish(main())


# --- an agent that is entered again


def test_an_agent_that_is_entered_again_keeps_its_leases(bus: Bus, url: str) -> None:
    agent = Agent("worker", type="milestone-executor", session="s", bus=url)
    with agent:
        pass
    with agent:
        for message in agent.messages(lease=0.3):
            before, end = bus.message(message.id).due_at, clock.monotonic() + 10
            while bus.message(message.id).due_at == before and clock.monotonic() < end:
                threading.Event().wait(0.01)
            assert bus.message(message.id).due_at != before
            break
    assert statuses(bus)[0] == "acknowledged"


def test_an_async_agent_that_is_entered_again_keeps_its_leases(bus: Bus, url: str) -> None:
    async def main() -> None:
        agent = AsyncAgent("worker", type="milestone-executor", session="s", bus=url)
        async with agent:
            pass
        async with agent:
            async for message in agent.messages(lease=0.3):
                before = bus.message(message.id).due_at
                while bus.message(message.id).due_at == before:
                    await asyncio.sleep(0.01)
                break

    finish(main())
    assert statuses(bus)[0] == "acknowledged"


def test_a_message_that_was_given_back_waits_up_to_a_minute(bus: Bus, worker: Agent) -> None:
    bus.config_set("message_retry_limit", "20")
    for attempt in range(9):
        with clock.moved(attempt * 1000):
            with pytest.raises(ValueError, match="invalid literal"):
                raising_in_a_call(worker)
            due = bus.message(1).due_at
            assert due
            assert due.timestamp() - clock.seconds() == pytest.approx(min(60, 2**attempt), abs=0.5)
            for id in (2, 3):
                if bus.message(id).status == "ready":
                    bus.cancel(id)


def test_a_message_that_came_back_a_thousand_times_waits_as_long(bus: Bus, worker: Agent, url: str) -> None:
    with closing(sqlite3.connect(url)) as hand, hand:
        hand.execute("update agent_messages set retry_count = 1100 where id = 1")
    bus.config_set("message_retry_limit", "2000")
    with pytest.raises(ValueError, match="invalid literal"):
        raising_in_a_call(worker)
    due = bus.message(1).due_at
    assert due
    assert due.timestamp() - clock.seconds() == pytest.approx(60, abs=0.5)


def test_past_the_retry_limit_a_body_that_raises_buries(bus: Bus, worker: Agent) -> None:
    bus.config_set("message_retry_limit", "0")
    with pytest.raises(ValueError, match="invalid literal"):
        raising_in_a_call(worker)
    assert bus.message(1).dead_reason == "retries_exhausted"


def test_a_step_without_a_message_and_an_empty_one(bus: Bus, worker: Agent) -> None:
    with worker.step() as step:
        step.state.save("k", "v")
        step.broadcast("progress_update", {})
    assert step.results == [1, [4]]
    with worker.step() as step:
        pass
    assert step.results == []
    (message,) = worker.receive()
    with worker.step(message):
        pass
    assert statuses(bus)[0] == "acknowledged"


def test_a_step_in_a_loop_that_raises_gives_back(bus: Bus, worker: Agent) -> None:
    with pytest.raises(ZeroDivisionError):
        for message in worker.messages():
            with worker.step(message) as step:
                step.state.save("k", "v")
                print(1 / 0)
    assert worker.state.load("k") is None
    assert statuses(bus) == ["scheduled", "ready", "ready"]
    assert bus.message(1).reason == "ZeroDivisionError: division by zero"


def test_an_async_step_that_raises_says_why(bus: Bus, url: str) -> None:
    bus.config_set("message_retry_limit", "0")

    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            async for message in agent.messages():
                async with agent.step(message):
                    raise ValueError("the parser broke\0 at line 7")

    with pytest.raises(ValueError, match="the parser broke"):
        asyncio.run(main())
    (dead,) = bus.dead()
    assert (dead.dead_reason, dead.reason) == ("retries_exhausted", "ValueError: the parser broke\ufffd at line 7")


def test_an_async_agent_is_entered_again_on_another_loop(bus: Bus, url: str) -> None:
    agent = AsyncAgent("worker", type="milestone-executor", session="s", bus=url)

    async def main() -> int:
        async with agent:
            async for message in agent.messages(lease=0.3):
                before = bus.message(message.id).due_at
                while bus.message(message.id).due_at == before:  # its keeper is at work
                    await asyncio.sleep(0.02)  # looks again
                break
        return message.id

    assert [asyncio.run(main()), asyncio.run(main())] == [1, 2]


def test_a_step_that_raised_and_was_caught_says_nothing(bus: Bus, worker: Agent) -> None:
    for message in worker.messages():
        with suppress(ZeroDivisionError), worker.step(message):
            print(1 / 0)
        break
    assert (bus.message(1).status, bus.message(1).reason) == ("acknowledged", None)
    assert worker.held.reason("1.1") is None


def test_the_keeper_outlives_many_leases(bus: Bus, worker: Agent) -> None:
    bus.config_set("message_retry_limit", "0")  # were the lease to run out, the message would be dead
    bus.register("rival", type="milestone-executor", session="s")
    for message in worker.messages(lease=0.3):
        for _ in range(20):
            threading.Event().wait(0.05)
            assert bus.receive("worker", type="progress_update") == []  # promotes what ran out
        assert bus.message(message.id).receipt == message.receipt
        assert bus.message(message.id).status == "leased"
        break
    assert statuses(bus)[0] == "acknowledged"


def test_settling_by_oneself_is_no_lost_lease(bus: Bus, worker: Agent, caplog: pytest.LogCaptureFixture) -> None:
    for message in worker.messages(lease=0.2):
        if message.id == 1:
            worker.ack(message.receipt or "")
        elif message.id == 2:
            with worker.step(message):
                pass
        else:
            worker.reject(message.receipt or "", reason="no")
        threading.Event().wait(0.2)
    assert caplog.text == ""


def test_an_agent_that_is_not_let_in_leaves_nothing_behind(bus: Bus, url: str) -> None:
    def refuse() -> None:
        with refused("unknown_type"), Agent("x", type="plumber", session="s", bus=url):
            raise AssertionError
        gc.collect()

    refuse()  # SQLite keeps the descriptor of a file that another connection has locked, and uses it again
    before = descriptors(), threading.active_count()
    for _ in range(3):
        refuse()
    assert descriptors() <= before[0]
    assert threading.active_count() <= before[1]


@pytest.mark.parametrize("words", ["x" * 5000, "a\0b", "\ud800", "two\nlines"])
def test_an_agent_may_fail_of_whatever_words(bus: Bus, url: str, words: str) -> None:
    with pytest.raises(RuntimeError), Agent("frail", type="validation", session="s", bus=url):
        raise RuntimeError(words)
    (life,) = [bus.trace_show(bar.agent_id) for bar in bus.trace_timeline().agents]
    assert life.status == "failed"
    assert (life.error_message or "").startswith("RuntimeError: ")
    assert len(life.error_message or "") <= 1000


def test_an_agent_works_before_its_block_too_an_async_one_says_that_it_can_not(bus: Bus, url: str) -> None:
    bus.register("worker", type="milestone-executor", session="s")
    agent = Agent("worker", type="milestone-executor", session="s", bus=bus)
    for settle in (agent.ack, agent.release, partial(agent.reject, reason="no")):
        settle(agent.receive()[0].receipt or "")

    async def main() -> None:
        early = AsyncAgent("worker", type="milestone-executor", session="s", bus=url)
        for call in (early.receive(), early.ack("1.1"), early.release("1.1"), early.state.load("k")):
            with pytest.raises(BusError, match="inside of its `async with` block") as problem:
                await call
            assert problem.value.code == "closed"

    asyncio.run(main())


def test_a_step_checks_its_arguments_when_they_are_given(worker: Agent) -> None:
    with worker.step() as step:
        for wrong in (
            lambda: step.send("boss", "progress_update", {}, priority=11),
            lambda: step.progress(200),
            lambda: step.state.save("k", "a\0b"),
            lambda: step.state.delete("a\0b"),
            lambda: step.checkpoint(type="sometimes"),
        ):
            with pytest.raises(BusError):
                wrong()
    assert step.results == []


def test_a_step_that_has_ended_takes_nothing_more(bus: Bus, worker: Agent) -> None:
    with worker.step() as done:
        done.state.save("k", "in time")
    with suppress(ZeroDivisionError), worker.step() as failed:
        raise ZeroDivisionError
    for step in (done, failed):
        for late in (
            partial(step.send, "boss", "progress_update", {}),
            partial(step.state.save, "k", "late"),
            partial(step.progress, 5),
            step.checkpoint,
        ):
            with refused("usage"):
                late()
    assert (worker.state.load("k"), len(done.results), failed.results) == ("in time", 1, [])


def test_an_async_step_that_has_ended_takes_nothing_more(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            async with agent.step() as step:
                pass
            with refused("usage"):
                step.send("boss", "progress_update", {})

    finish(main())


def test_a_step_of_anything_but_a_message_does_not_begin(worker: Agent) -> None:
    (message,) = worker.receive(limit=1)
    for wrong in (message.receipt, [message], message.id):
        with refused("usage"), worker.step(wrong):  # type: ignore[arg-type]
            pytest.fail("the body ran")


@pytest.mark.parametrize(("code", "status"), [(0, "completed"), (None, "completed"), (3, "failed"), ("oh", "failed")])
def test_an_exit_ends_the_agent_as_it_says(bus: Bus, url: str, code: int | str | None, status: str) -> None:
    with pytest.raises(SystemExit), Agent("worker", type="milestone-executor", session="s", bus=url):
        sys.exit(code)
    assert {agent.agent_id: agent.status for agent in bus.agents()}["worker"] == status
    assert bus.trace_show(1).status == status


def test_a_keeper_beats_in_time_and_renews_leases_in_a_third_of_theirs(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "monotonic", lambda: 100.0)
    changes: list[None] = []
    held = Held(30, lambda: changes.append(None))
    assert held.due() == 30
    bus.register("worker", type="milestone-executor", session="s")
    for lease, due in ((60, 20), (6, 2), (0.003, 0.05)):
        held.take(bus.receive("worker", lease=lease)[0])
        assert held.due() == pytest.approx(due)
    assert len(changes) == 3, "the keeper is woken where it would come too late"
    held.drop([receipt for receipt, lease in held.renew() if lease < 10])
    held.renew()
    assert held.due() == 20
    held.drop([receipt for receipt, _ in held.renew()])
    held.renew()
    assert held.due() == 30


def test_a_keeper_is_not_put_off_nor_woken_by_each_message_that_comes_and_goes(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: passed[0])
    changes: list[None] = []
    held = Held(30, lambda: changes.append(None))
    bus.register("worker", type="milestone-executor", session="s")
    outer, inner, _ = (bus.receive("worker", lease=lease)[0] for lease in (4, 1, 1))
    held.take(outer)
    assert held.due() == pytest.approx(4 / 3)
    for _ in range(4):
        held.take(inner)
        held.drop(inner.receipt or "")
        passed[0] += 0.125
    assert held.due() == 0, "a third of a second after the inner one came, whoever came after it"
    assert len(changes) == 2, "once for the outer one, once for the first of the inner ones"
    assert held.renew() == [(outer.receipt, 4)]
    assert held.due() == pytest.approx(4 / 3)


def test_a_keeper_keeps_a_lease_while_others_come_and_go(bus: Bus, worker: Agent) -> None:
    for outer in worker.messages(lease=1):
        before, end = bus.message(outer.id).due_at, clock.monotonic() + 20
        while bus.message(outer.id).due_at == before and clock.monotonic() < end:
            bus.send("boss", "worker", TASK, {})
            for _ in worker.messages(lease=0.3):
                threading.Event().wait(0.02)
        assert bus.message(outer.id).due_at != before
        assert bus.message(outer.id).receipt == outer.receipt
        break


def test_an_async_keeper_keeps_a_lease_while_others_come_and_go(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            async for outer in agent.messages(lease=1):
                before = bus.message(outer.id).due_at
                while bus.message(outer.id).due_at == before:
                    bus.send("boss", "worker", TASK, {})
                    async for _ in agent.messages(lease=0.3):
                        await asyncio.sleep(0.02)
                assert bus.message(outer.id).receipt == outer.receipt
                break

    finish(main())


def test_an_async_agent_that_is_not_let_in_leaves_nothing_behind(bus: Bus, url: str) -> None:
    async def refuse() -> None:
        with refused("unknown_type"):
            async with AsyncAgent("x", type="plumber", session="s", bus=url):
                raise AssertionError

    before = threading.active_count()
    for _ in range(3):
        finish(refuse())
    for thread in threading.enumerate()[before:]:
        thread.join(5)
    assert threading.active_count() == before


def test_agents_share_a_bus_that_is_given(bus: Bus) -> None:
    with (
        Agent("x", type="validation", session="s", bus=bus) as x,
        Agent("y", type="validation", session="s", bus=bus) as y,
    ):
        x.send("y", TASK, {"phase": "hello"})
        assert [message.payload["phase"] for message in y.messages()] == ["hello"]
    assert {a.agent_id: a.status for a in bus.agents()}["x"] == "completed"


def test_agents_work_in_memory() -> None:
    with Bus.open(":memory:", create=True) as bus, Agent("x", type="validation", session="s", bus=bus) as agent:
        agent.send("x", TASK, {"phase": "self"})
        for message in agent.messages(lease=0.3):
            threading.Event().wait(0.4)
            assert bus.message(message.id).receipt == "1.1"
            assert bus.message(message.id).status == "leased"
        assert bus.message(1).status == "acknowledged"


def finish(body: Coroutine[None, None, None]) -> None:
    """Run a coroutine that must end soon."""
    asyncio.run(asyncio.wait_for(body, 5))


async def leave_async(agent: AsyncAgent, way: str) -> int:
    async for message in agent.messages():
        if way == "continue":
            continue
        if way == "break":
            break
        if way == "return":
            return message.id
        async with asyncio.Lock():
            if way == "break in with":
                break
            if way == "return in with":
                return message.id
        raise ZeroDivisionError
    return 0


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("continue", ["acknowledged", "acknowledged", "acknowledged"]),
        ("break", ["acknowledged", "ready", "ready"]),
        ("return", ["acknowledged", "ready", "ready"]),
        ("break in with", ["acknowledged", "ready", "ready"]),
        ("return in with", ["acknowledged", "ready", "ready"]),
        ("raise", ["scheduled", "ready", "ready"]),
    ],
)
def test_every_way_out_of_an_async_loop(bus: Bus, url: str, way: str, expected: list[str]) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            with suppress(ZeroDivisionError):
                await leave_async(agent, way)

    finish(main())
    assert statuses(bus) == expected


def test_an_async_keeper_outlives_many_leases(bus: Bus, url: str) -> None:
    bus.config_set("message_retry_limit", "0")

    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            async for message in agent.messages(lease=0.3):
                for _ in range(20):
                    with suppress(TimeoutError):
                        await asyncio.wait_for(asyncio.Event().wait(), 0.05)
                    assert await agent.receive(type="progress_update") == []
                assert (await agent.bus.message(message.id)).status == "leased"
                break

    finish(main())
    assert statuses(bus)[0] == "acknowledged"


def test_an_async_step_on_a_lost_lease_changes_nothing(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            (message,) = await agent.receive(lease=1)
            with clock.moved(2):
                await agent.receive()
                with pytest.raises(Conflict):
                    async with agent.step(message) as step:
                        step.state.save("k", "v")
            assert await agent.state.load("k") is None
            with pytest.raises(ZeroDivisionError):
                async with agent.step() as step:
                    step.state.save("k", "v")
                    raise ZeroDivisionError
            assert await agent.state.load("k") is None

    finish(main())


def test_a_waiting_receive_that_is_cancelled_leaves_the_bus_usable(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("idle", type="validation", session="s", bus=url) as agent:
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(agent.receive(wait=60), 0.05)
            await agent.send("idle", TASK, {"phase": "after"})
            assert (await agent.receive(wait=5))[0].payload == {"phase": "after"}

    finish(main())


def test_a_task_group_that_falls_apart_leaves_nothing_leased(bus: Bus, url: str) -> None:
    async def main() -> None:
        async with AsyncAgent("worker", type="milestone-executor", session="s", bus=url) as agent:
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(agent.receive(wait=30, type="progress_update"))
                    group.create_task(leave_async(agent, "raise"))
            assert (await agent.bus.status())["messages"].get("leased") is None

    finish(main())
    assert set(statuses(bus)) <= {"ready", "scheduled"}
