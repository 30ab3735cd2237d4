"""An agent's place on the bus, for coroutines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import anyio

from bus import clock
from bus.api import AsyncBus
from bus.errors import BusError, Conflict, error
from bus.inputs import Duration, receipt_list
from bus.models import Message
from bus.signatures import tell
from bus_client.agent import log, not_settled
from bus_client.held import Held, ending, pause_after
from bus_client.loop import Loop
from bus_client.step import Step

T = TypeVar("T")
P = ParamSpec("P")


def _mine(
    method: Callable[Concatenate[AsyncBus, str, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[AsyncIdentity, P], Coroutine[Any, Any, T]]:
    async def bound(self: AsyncIdentity, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await method(self.bus, self.id, *args, **kwargs)

    tell(bound, method, 2)  # not `self` and the id
    return bound


class AsyncIdentity:
    """An id on a bus, which may still have to be opened."""

    def __init__(self, id: str) -> None:
        self.id = id
        self._bus: AsyncBus | None = None

    @property
    def bus(self) -> AsyncBus:
        """The bus, from the beginning of the `async with` block on. Raises `closed` before."""
        if self._bus is None:
            raise error("closed", f"agent {self.id} has no bus yet", "use it inside of its `async with` block")
        return self._bus


class AsyncState(AsyncIdentity):
    """As `State`."""

    save = _mine(AsyncBus.state_save)
    load = _mine(AsyncBus.state_load)
    load_versioned = _mine(AsyncBus.state_load_versioned)
    list = _mine(AsyncBus.state_list)
    delete = _mine(AsyncBus.state_delete)
    watch = _mine(AsyncBus.state_watch)


class AsyncAgent(AsyncIdentity):
    """As `Agent`, for an `async with` block; the keeper is a task, and what can go wrong does on entering it."""

    def __init__(
        self,
        id: str,
        *,
        type: str,
        session: str,
        bus: str | os.PathLike[str] | AsyncBus | None = None,
        milestone: str | None = None,
        capabilities: Sequence[str] | None = None,
        operation: str | None = None,
        command: str | None = None,
        task: str | None = None,
        priority: str | float | None = None,
    ) -> None:
        super().__init__(id)
        self._given = bus
        self.session = session
        self.state = AsyncState(id)
        self._registration: dict[str, Any] = {
            "type": type, "session": session, "milestone": milestone, "capabilities": capabilities,
            "operation": operation, "command": command, "task": task, "priority": priority,
        }  # fmt: skip
        self._settling: set[asyncio.Task[None]] = set()
        self.held = Held(clock.DAY, lambda: None)  # outside of the block nobody keeps anything

    async def __aenter__(self) -> Self:
        self._bus = self._given if isinstance(self._given, AsyncBus) else await AsyncBus.open(self._given)
        self.state._bus = self._bus
        self._life: int | None = None
        self._keeper: asyncio.Task[None] | None = None
        try:
            await _to_its_end(self._begin())
        except BaseException as problem:
            await _to_its_end(self._leave(problem))
            raise
        return self

    async def _begin(self) -> None:
        self._wake = asyncio.Event()  # of the loop that runs now
        self._home, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self.held = Held(float(await self.bus.config_get("heartbeat_interval")), self._wake.set)
        self._life = await self.bus.trace_enter(self.id, **self._registration)
        self._keeper = asyncio.create_task(self._keep())

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        await _to_its_end(self._leave(problem))

    async def _leave(self, problem: BaseException | None) -> None:
        try:
            if self._keeper:
                self._keeper.cancel()
                await asyncio.gather(self._keeper, *self._settling, return_exceptions=True)
            if self._life is not None:
                await self.bus.trace_leave(self.id, self._life, **ending(problem))
        finally:
            if not isinstance(self._given, AsyncBus):
                await self.bus.close()

    send = _mine(AsyncBus.send)
    broadcast = _mine(AsyncBus.broadcast)
    receive = _mine(AsyncBus.receive)
    ack_and_receive = _mine(AsyncBus.ack_and_receive)
    pending = _mine(AsyncBus.pending)
    heartbeat = _mine(AsyncBus.heartbeat)
    update = _mine(AsyncBus.update)
    checkpoint = _mine(AsyncBus.checkpoint_create)
    restore = _mine(AsyncBus.checkpoint_restore)

    async def ack(self, receipts: str | Iterable[str]) -> None:
        """See `Bus.ack`."""
        receipts = receipt_list(receipts)
        await self.bus.ack(receipts)
        self.held.drop(receipts)

    async def release(
        self, receipts: str | Iterable[str], *, delay: Duration | None = None, reason: str | None = None
    ) -> None:
        """See `Bus.release`."""
        receipts = receipt_list(receipts)
        self.held.drop(receipts)
        await self.bus.release(receipts, delay=delay, reason=reason)

    async def extend(self, receipts: str | Iterable[str], *, lease: Duration | None = None) -> None:
        """See `Bus.extend`. The leases of what this agent has in hand are kept without it."""
        await self.bus.extend(receipts, lease=lease)

    async def reject(self, receipts: str | Iterable[str], *, reason: str) -> None:
        """See `Bus.reject`."""
        receipts = receipt_list(receipts)
        self.held.drop(receipts)
        await self.bus.reject(receipts, reason=reason)

    def messages(
        self, *, wait: Duration | None = None, lease: Duration | None = None, type: str | None = None
    ) -> AsyncIterator[Message]:
        """As `Agent.messages`, for `async for`; one that is cancelled while it acknowledges has failed to."""
        return AsyncDeliveries(self, {"wait": wait, "lease": lease, "type": type}, Loop())

    @contextlib.asynccontextmanager
    async def step(self, message: Message | None = None) -> AsyncIterator[Step]:
        """As `Agent.step`; what is gathered in the body is not awaited."""
        step = Step(self.id, self.session, message)
        try:
            yield step
        except BaseException as problem:  # whatever ends the body: it is noted, and goes on
            self.held.failed(message, problem)
            raise
        finally:
            step.operations.over = True
        step.results = await self.bus.apply(step.finished())
        if message and message.receipt:
            self.held.drop(message.receipt)

    def settle_later(self, message: Message, ended: bool) -> None:
        """Settle the message of a loop that was left; the agent's end waits for it."""
        if self._home.is_closed():  # and the agent has ended before it, who gave back what it held
            return
        if threading.get_ident() == self._thread:
            self._settle_soon(message, ended)
        else:  # the garbage collector found the loop over messages, on any thread
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self._home.call_soon_threadsafe(self._settle_soon, message, ended)

    def _settle_soon(self, message: Message, ended: bool) -> None:
        task = self._home.create_task(self._settle(message, ended))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, message: Message, ended: bool) -> None:
        receipt = message.receipt or ""
        try:
            if ended:
                await self.ack(receipt)
            else:
                await self.release(receipt, delay=pause_after(message), reason=self.held.reason(receipt))
        except BusError as problem:
            self.held.drop(receipt)
            not_settled(self.id, receipt, ended, problem)

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.held.due()):
                    await self._wake.wait()
                self._wake.clear()
                continue
            held = self.held.renew()
            try:
                await self.bus.heartbeat(self.id)
                for receipt, lease in held:
                    await self._keep_lease(receipt, lease)
            except BusError as problem:
                log.warning("agent %s: the heartbeat failed: %s", self.id, problem)

    async def _keep_lease(self, receipt: str, lease: float) -> None:
        try:
            await self.bus.extend(receipt, lease=lease)
        except Conflict:
            if receipt in self.held:
                log.warning("agent %s: the lease of %s was lost", self.id, receipt)
                self.held.drop(receipt)


class AsyncDeliveries:
    """The iterator behind `AsyncAgent.messages`; see `Deliveries`."""

    def __init__(self, agent: AsyncAgent, how: dict[str, Any], loop: Loop) -> None:
        self._agent = agent
        self._how = how
        self._loop = loop

    def __aiter__(self) -> AsyncDeliveries:
        loop, self._loop = self._loop, Loop()
        return AsyncDeliveries(self._agent, self._how, loop)

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        return self._next(self._loop.asks(sys._getframe(1), self._agent.held))

    async def _next(self, receipt: str | None) -> Message:
        try:
            found = await _after(self._agent, receipt, self._how)
        except BaseException:
            del self  # as in `Deliveries.__next__`
            raise
        self._loop.message = None
        if not found:
            raise StopAsyncIteration
        return self._loop.hands_out(found[0], self._agent.held)

    def __del__(self) -> None:
        if self._loop.message and (message := self._loop.is_dropped(sys._getframe().f_back, self._agent.held)):
            self._agent.settle_later(message, self._loop.ended)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await it to its end, in a task of its own; who is cancelled meanwhile is so after it."""
    task, cancelled = asyncio.create_task(work), None
    with anyio.CancelScope(shield=True):  # which would cancel each `await` anew
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as problem:
                cancelled = problem
    if cancelled:
        raise cancelled from task.exception()
    await task


async def _after(agent: AsyncAgent, receipt: str | None, how: dict[str, Any]) -> list[Message]:
    if receipt:
        try:
            return await agent.ack_and_receive(receipt, **how)
        except Conflict as problem:
            not_settled(agent.id, receipt, True, problem)
    return await agent.receive(**how)
