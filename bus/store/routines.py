"""How a routine is carried out, once for blocking and async stores: a generator that says what it needs of them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, NamedTuple, TypeVar

from bus.errors import Refused
from bus.operation import Operation, Pause, Routine
from bus.store.doorbell import Waiting, lasting

T = TypeVar("T")


class Listen(NamedTuple):
    """Begin to listen at these bells; answered with who listens."""

    bells: Sequence[str]


class Sleep(NamedTuple):
    """Sleep until there is something to look at, or the seconds are over; answered as `Waiting.rounds` ends."""

    listener: Waiting
    seconds: float | None
    pids: Sequence[int]


Needs = Generator[Operation[Any] | Listen | Sleep, Any, T]  # an operation is answered with its result


def carried_out(routine: Routine[T]) -> Needs[T]:
    """Run a routine's operations, sleep through its pauses. The first pause at some bells only starts to listen, so
    that the routine looks once more before it sleeps. What it does last before a pause is its look: while that tells
    the same it sleeps on, whatever others write. To be closed when it is left early."""
    listener: Waiting | None = None
    heard: Sequence[str] = ()
    look: Operation[Any] | None = None
    seen: object = None
    reply: object = None
    try:
        while True:
            request = routine.send(reply)
            if isinstance(request, Operation):
                look, reply = request, (yield request)
                seen = reply
            elif listener is None or request.bells != heard:
                if listener:
                    listener.close()
                    listener = None
                heard = request.bells
                listener, reply = (yield Listen(heard)), None
            else:
                reply = yield from _slept(listener, request, look, seen)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        routine.close()
        if listener:
            listener.close()


def can_do_without(operation: Operation[Any], problem: Refused) -> bool:
    """Whether a routine goes on after one of its operations was refused."""
    return operation.optional and problem.code == "not_allowed"


def _slept(listener: Waiting, pause: Pause, look: Operation[Any] | None, seen: object) -> Needs[bool]:
    for seconds in lasting(pause.seconds):
        if not (yield Sleep(listener, seconds, pause.pids)):
            return False
        if look is None or look.writes or (yield look) != seen:
            return True
    return False
