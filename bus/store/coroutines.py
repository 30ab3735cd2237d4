"""What the async stores share: a store's calls, and a routine carried out by a coroutine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import anyio

from bus.errors import error
from bus.operation import Operation, Routine
from bus.store.doorbell import Waiting, lasting

T = TypeVar("T")

Run = Callable[[Operation[Any]], Awaitable[Any]]
Listen = Callable[[Sequence[str]], Awaitable[Waiting]]


class Calls:
    """The calls of one store that have begun and not ended, each in a `with` block; none begins once it is closed."""

    def __init__(self) -> None:
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

    async def sleep(self, listener: Waiting, seconds: float | None, pids: Sequence[int]) -> bool:
        """Sleep until there is something to look at; see `doorbell.Listener.rounds`. Raises `closed`."""
        rounds = listener.rounds(seconds, pids)
        try:
            seconds = next(rounds)
            while True:
                self._refuse_when_closed()
                seconds = rounds.send(await self._readable(listener, seconds))
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


async def carry_out(routine: Routine[T], calls: Calls, run: Run, listen: Listen) -> T:
    """Carry out a routine: run its operations, sleep through its pauses. The first pause at some bells only starts to
    listen, so that the routine looks once more before it sleeps. What it does last before a pause is its look: while
    that tells the same it sleeps on, whatever others write."""
    listener: Waiting | None = None
    heard: Sequence[str] = ()
    look: Operation[Any] | None = None
    seen: object = None
    reply: object = None
    try:
        while True:
            request = routine.send(reply)
            if isinstance(request, Operation):
                look, reply = request, await run(request)
                seen = reply
            elif listener is None or request.bells != heard:
                if listener:
                    listener.close()
                    listener = None
                heard = request.bells
                listener, reply = await listen(heard), None
            else:
                reply = False
                for seconds in lasting(request.seconds):
                    if not await calls.sleep(listener, seconds, request.pids):
                        break
                    if reply := look is None or look.writes or await run(look) != seen:
                        break
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        routine.close()
        if listener:
            listener.close()
