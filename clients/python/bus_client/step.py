"""A step: what an agent does about a message, gathered while its body runs and committed at once when that ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from bus import checkpoints, messages, sessions, state
from bus.errors import error
from bus.models import Message
from bus.operation import Operation
from bus.signatures import tell

P = ParamSpec("P")


def _later(operation: Callable[Concatenate[str, P], Operation[Any]]) -> Callable[Concatenate[Gatherer, P], None]:
    def method(self: Gatherer, /, *args: P.args, **kwargs: P.kwargs) -> None:
        self.operations.append(operation(self.agent, *args, **kwargs))

    tell(method, operation, 1, "None")  # not the id; what it comes to is among the step's results
    return method


class Gathered(list[Operation[Any]]):
    """Operations to be run in one transaction. Once `over`, it takes no more: nobody would run them."""

    over = False

    def append(self, operation: Operation[Any]) -> None:
        """Take one more. Raises `usage`."""
        if self.over:
            raise error("usage", "this step has ended", "do it inside of the block, or by the agent itself")
        super().append(operation)


class Gatherer:
    """Operations of one agent, to be run later."""

    def __init__(self, agent: str, operations: Gathered) -> None:
        self.agent = agent
        self.operations = operations


class StepState(Gatherer):
    """The state that a step changes. Reading is for the agent: a step only writes."""

    save = _later(state.save)
    delete = _later(state.delete)


class Step(Gatherer):
    """All of it commits when the body ends, the message acknowledged too; or none, when the body raises.

    What can be told of an argument without the database is told when it is given; what the database refuses is raised
    at the end of the body. Each method returns None; `results` then holds what each came to, in order. `state` has the
    methods that write state. Once the body has ended, all of them raise `usage`.
    """

    def __init__(self, agent: str, session: str, message: Message | None) -> None:
        if message is not None and not isinstance(message, Message):
            raise error("usage", f"a step is of a message, not of {str(message)[:40]!r}", "give it as it was received")
        super().__init__(agent, Gathered())
        self.session = session
        self.message = message
        self.state = StepState(agent, self.operations)
        self.results: list[Any] = []

    send = _later(messages.send)
    broadcast = _later(messages.broadcast)
    checkpoint = _later(checkpoints.create)

    def progress(self, progress: float, *, phase: str | None = None) -> None:
        """Say how far the agent's session is, 0 to 100."""
        self.operations.append(sessions.progress(self.session, progress, phase=phase))

    def finished(self) -> list[Operation[Any]]:
        """What is to be committed: first the acknowledgement, so that a lost lease, or a step that was committed
        although its answer was lost, stops all the rest."""
        receipt = self.message.receipt if self.message else None
        return [messages.ack(receipt, once=True), *self.operations] if receipt else self.operations
