"""What the async stores share: a routine carried out by a coroutine, an operation whose caller may go away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import anyio

from bus.operation import Operation, Routine
from bus.store.doorbell import Waiting, lasting

T = TypeVar("T")

Run = Callable[[Operation[Any]], Awaitable[Any]]
Listen = Callable[[Sequence[str]], Awaitable[Waiting]]


class Runner(Protocol):
    """What runs operations, on the thread it is called on."""

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction."""


async def carry_out(routine: Routine[T], run: Run, listen: Listen) -> T:
    """Carry out a routine: run its operations, sleep through its pauses. The first pause only starts to listen, so that
    the routine looks once more before it sleeps. What it does last before a pause is its look: while that tells the
    same it sleeps on, whatever others write."""
    listener: Waiting | None = None
    look: Operation[Any] | None = None
    seen: object = None
    reply: object = None
    try:
        while True:
            request = routine.send(reply)
            if isinstance(request, Operation):
                look, reply = request, await run(request)
                seen = reply
            elif listener is None:
                listener, reply = await listen(request.bells), None
            else:
                reply = False
                for seconds in lasting(request.seconds):
                    if not await _sleep(listener, seconds, request.pids):
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


class Job(Generic[T]):
    """One operation on a thread, whose caller may go away."""

    def __init__(self, runner: Runner, operation: Operation[T]) -> None:
        self._runner = runner
        self._operation = operation
        self._lock = threading.Lock()
        self._results: list[T] = []
        self._abandoned = False

    def __call__(self) -> T:
        if self._abandoned:
            raise asyncio.CancelledError
        result = self._runner.run(self._operation)
        with self._lock:
            self._results.append(result)
            abandoned = self._abandoned
        if abandoned:
            self.take_back()
        return result

    def abandon(self) -> bool:
        """Nobody waits any more; true when the operation has ended and is still to be taken back."""
        with self._lock:
            self._abandoned = True
            return bool(self._results)

    def take_back(self) -> None:
        if self._operation.undo and (undo := self._operation.undo(self._results[0])):
            self._runner.run(undo)


async def _sleep(listener: Waiting, seconds: float | None, pids: Sequence[int]) -> bool:
    rounds = listener.rounds(seconds, pids)
    try:
        seconds = next(rounds)
        while True:
            readable = False
            with anyio.move_on_after(seconds):
                await anyio.wait_readable(listener)
                readable = True
            seconds = rounds.send(readable)
    except StopIteration as stop:
        return bool(stop.value)
