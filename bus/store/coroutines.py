"""What the async stores share: a store's calls, and a routine carried out by a coroutine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio

from bus.errors import Refused, error
from bus.operation import Operation, Routine
from bus.store import routines
from bus.store.doorbell import Waiting

T = TypeVar("T")

Run = Callable[[Operation[Any]], Awaitable[Any]]
Listen = Callable[[Sequence[str]], Awaitable[Waiting]]


class Calls:
    """The calls of one store that have begun and not ended, each in a `with` block; none begins once it is closed, nor
    after a fork in the child: there the store has no threads, and its connections are the parent's."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._closed = False
        self._begun = 0
        self._all_ended = asyncio.Event()
        self._asleep: set[anyio.CancelScope] = set()

    def __enter__(self) -> None:
        self._refuse_when_closed()
        self._begun += 1

    def __exit__(self, *_: object) -> None:
        self._begun -= 1
        if self._closed and not self._begun:
            self._all_ended.set()

    async def close(self) -> None:
        """Begin no more, wake those who sleep, and wait until each has ended."""
        self._closed = True
        for scope in self._asleep:
            scope.cancel()
        if self._begun:
            await self._all_ended.wait()

    def inherited(self) -> bool:
        """Whether it was the parent of this process that opened the store."""
        return self._process != os.getpid()

    async def sleep(self, need: routines.Sleep) -> bool:
        """Sleep until there is something to look at; see `doorbell.Listener.rounds`. Raises `closed`."""
        rounds = need.listener.rounds(need.seconds, need.pids)
        try:
            seconds = next(rounds)
            while True:
                self._refuse_when_closed()
                seconds = rounds.send(await self._readable(need.listener, seconds))
        except StopIteration as stop:
            return bool(stop.value)

    async def _readable(self, listener: Waiting, seconds: float | None) -> bool:
        with anyio.move_on_after(seconds) as scope:
            self._asleep.add(scope)
            try:
                await anyio.wait_readable(listener)
                return True
            finally:
                self._asleep.discard(scope)
        return False

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise error("closed")
        if self.inherited():
            raise error("closed", "an AsyncBus belongs to the process that opened it", "open one in this process, too")


async def carry_out(routine: Routine[T], calls: Calls, run: Run, listen: Listen) -> T:
    """Carry out a routine: run its operations, sleep through its pauses; see `routines.carried_out`."""
    needs = routines.carried_out(routine)
    reply: object = None
    try:
        while True:
            need = needs.send(reply)
            if isinstance(need, Operation):
                try:
                    reply = await run(need)
                except Refused as problem:
                    if not routines.can_do_without(need, problem):
                        raise
                    reply = None
            elif isinstance(need, routines.Listen):
                reply = await listen(need.bells)
            else:
                reply = await calls.sleep(need)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        needs.close()
