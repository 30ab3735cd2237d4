"""An agent's place on the bus, for blocking code."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from bus import clock
from bus.api import Bus
from bus.errors import BusError, Conflict
from bus.inputs import Duration, receipt_list
from bus.models import Message
from bus.signatures import tell
from bus_client.held import Held, ending, pause_after
from bus_client.loop import Loop
from bus_client.step import Step

T = TypeVar("T")
P = ParamSpec("P")

log = logging.getLogger("bus_client")
RESTING = 2.0  # seconds for which a keeper that has nothing to do holds a connection to a server


def _mine(method: Callable[Concatenate[Bus, str, P], T]) -> Callable[Concatenate[Identity, P], T]:
    def bound(self: Identity, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return method(self.bus, self.id, *args, **kwargs)

    tell(bound, method, 2)  # not `self` and the id
    return bound


class Identity:
    """An id on a bus."""

    def __init__(self, bus: Bus, id: str) -> None:
        self.bus = bus
        self.id = id


class State(Identity):
    """The agent's state. Other agents' is read with `agent.bus.state_load(their_id, key)`."""

    save = _mine(Bus.state_save)
    load = _mine(Bus.state_load)
    load_versioned = _mine(Bus.state_load_versioned)
    list = _mine(Bus.state_list)
    delete = _mine(Bus.state_delete)
    watch = _mine(Bus.state_watch)


class Agent(Identity):
    """One identity on the bus, registered with this process for the length of a `with` block.

    `type` is one of `bus types list agent`; `session` is made when it is new, for `milestone` and with the `operation`
    type given (execution). `bus` is an address (default: as `Bus.open`) or a `Bus`, which then stays open.
    `capabilities` are names; `command` is how `bus recover --respawn` starts the agent again. The constructor raises
    what `Bus.open` raises, entering the block what `Bus.register` does.

    `id` and `session` are what was given; `state` is the agent's state (`State`: save, load, watch, …), `bus` the whole
    bus.

    A thread in the background keeps the heartbeat and the leases of messages in hand, as long as the thread that
    entered the block lives. Leaving it retires the agent: completed, or failed when an exception leaves it too (but
    `sys.exit(0)` is a good end). Its life is on record (`bus trace`), with the `task` it works on (default: its
    session) and that task's `priority`.
    """

    def __init__(
        self,
        id: str,
        *,
        type: str,
        session: str,
        bus: str | os.PathLike[str] | Bus | None = None,
        milestone: str | None = None,
        capabilities: Sequence[str] | None = None,
        operation: str | None = None,
        command: str | None = None,
        task: str | None = None,
        priority: str | float | None = None,
    ) -> None:
        self._owns_bus = not isinstance(bus, Bus)
        super().__init__(bus if isinstance(bus, Bus) else Bus.open(bus), id)
        self.session = session
        self.state = State(self.bus, id)
        self._registration: dict[str, Any] = {
            "type": type, "session": session, "milestone": milestone, "capabilities": capabilities,
            "operation": operation, "command": command, "task": task, "priority": priority,
        }  # fmt: skip
        self._wake = threading.Event()
        self._left: deque[tuple[str, bool, Callable[[], None]]] = deque()  # what is still to be settled, see `_settle`
        self.held = Held(clock.DAY, lambda: None)  # outside of the block nobody keeps anything

    def __enter__(self) -> Self:
        self._stopped = False
        self._process = os.getpid()
        self._keeper = threading.Thread(target=self._keep, args=(threading.current_thread(),), daemon=True)
        try:
            self._keeper.start()  # before anybody is registered: there may be no thread left
            self._begin()
        except BaseException:
            self._end_keeper()
            self._close()
            raise
        self._wake.set()
        return self

    def _begin(self) -> None:
        self.held = Held(float(self.bus.config_get("heartbeat_interval")), self._wake.set)
        self._life = self.bus.trace_enter(self.id, **self._registration)

    def _end_keeper(self) -> None:
        self._stopped = True
        self._wake.set()
        if self._keeper.ident:  # it was started
            self._keeper.join()

    def _close(self) -> None:
        if self._owns_bus:
            self.bus.close()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._process != os.getpid():  # a child leaves the block: the agent is its parent
            return
        try:
            self._end_keeper()  # seconds, if its call waits for others: time enough for a Ctrl-C
            self._settle_left()
        finally:
            try:
                self.bus.trace_leave(self.id, self._life, **ending(problem))
            finally:
                self._close()

    send = _mine(Bus.send)
    broadcast = _mine(Bus.broadcast)
    receive = _mine(Bus.receive)
    ack_and_receive = _mine(Bus.ack_and_receive)
    pending = _mine(Bus.pending)
    heartbeat = _mine(Bus.heartbeat)
    update = _mine(Bus.update)
    checkpoint = _mine(Bus.checkpoint_create)
    restore = _mine(Bus.checkpoint_restore)

    def ack(self, receipts: str | Iterable[str]) -> None:
        """See `Bus.ack`."""
        receipts = receipt_list(receipts)
        self.bus.ack(receipts)
        self.held.drop(receipts)

    def release(
        self, receipts: str | Iterable[str], *, delay: Duration | None = None, reason: str | None = None
    ) -> None:
        """See `Bus.release`."""
        receipts = receipt_list(receipts)
        self.held.drop(receipts)
        self.bus.release(receipts, delay=delay, reason=reason)

    def extend(self, receipts: str | Iterable[str], *, lease: Duration | None = None) -> None:
        """See `Bus.extend`. The leases of what this agent has in hand are kept without it."""
        self.bus.extend(receipts, lease=lease)

    def reject(self, receipts: str | Iterable[str], *, reason: str) -> None:
        """See `Bus.reject`."""
        receipts = receipt_list(receipts)
        self.held.drop(receipts)
        self.bus.reject(receipts, reason=reason)

    def messages(
        self, *, wait: Duration | None = None, lease: Duration | None = None, type: str | None = None
    ) -> Iterator[Message]:
        """The messages for this agent, one after the other, until there is none (for `wait`).

        A message is acknowledged when the loop's body ends, also by `break` and `return`, and given back when it
        raises, for 1, 2, 4, … 60 seconds; its lease is kept meanwhile. A body may settle it by itself (`ack`,
        `release`, `reject`, `step`). A lease that was lost is logged, and the loop goes on: another has the message.

        An acknowledgement that fails is raised, and tried again when the next message is asked for or the loop is left
        (which can only log that it failed); if that fails too, the lease runs out. What can't be told from a body that
        raised is given back, and done again: the last message of `islice`, of a generator that loops over
        messages and is left itself, or of `next` called by hand.
        """
        return Deliveries(self, {"wait": wait, "lease": lease, "type": type}, Loop())

    def settle(self, message: Message, ended: bool) -> None:
        """Acknowledge the message of a loop that was left, if its body ended, else give it back."""
        if self._process != os.getpid():  # a child leaves the loop: the message is in its parent's hands
            return
        receipt = message.receipt or ""
        if ended:
            self._settle(receipt, True, partial(self.ack, receipt))
        else:
            pause, reason = pause_after(message), self.held.reason(receipt)
            self._settle(receipt, False, partial(self.release, receipt, delay=pause, reason=reason))

    def _settle(self, receipt: str, ended: bool, settling: Callable[[], None]) -> None:
        try:
            settling()
        except BusError as problem:
            if problem.code == "reentrant":  # the garbage collector found the loop while another call ran
                self._left.append((receipt, ended, settling))
                self._wake.set()
                return
            self.held.drop(receipt)
            not_settled(self.id, receipt, ended, problem)

    def _settle_left(self) -> None:
        while self._left:
            self._settle(*self._left.popleft())

    @contextlib.contextmanager
    def step(self, message: Message | None = None) -> Iterator[Step]:
        """Gather operations in the body and commit them in one transaction at its end, acknowledging `message`.

        All or none: raises what the first refused operation raises, `lease_lost` when the message went to another,
        `already_ended` when this step was committed before. When the body raises nothing is done, and a message that is
        given back for it says why.
        """
        step = Step(self.id, self.session, message)
        try:
            yield step
        except BaseException as problem:  # whatever ends the body: it is noted, and goes on
            self.held.failed(message, problem)
            raise
        finally:
            step.operations.over = True
        step.results = self.bus.apply(step.finished())
        if message and message.receipt:
            self.held.drop(message.receipt)

    def _keep(self, owner: threading.Thread) -> None:
        while not self._stopped and owner.is_alive():
            if self._wake.wait(self.held.due()):
                self._wake.clear()
                self._settle_left()
                continue
            held = self.held.renew()
            try:
                self.bus.heartbeat(self.id)
                for receipt, lease in held:
                    self._keep_lease(receipt, lease)
            except BusError as problem:
                log.warning("agent %s: the heartbeat failed: %s", self.id, problem)
            if self.held.due() > RESTING:
                self.bus.store.rest()

    def _keep_lease(self, receipt: str, lease: float) -> None:
        try:
            self.bus.extend(receipt, lease=lease)
        except Conflict:
            if receipt in self.held:
                log.warning("agent %s: the lease of %s was lost", self.id, receipt)
                self.held.drop(receipt)


class Deliveries:
    """The iterator behind `Agent.messages`; a class, because a generator can't tell a body that raised from a break."""

    def __init__(self, agent: Agent, how: dict[str, Any], loop: Loop) -> None:
        self._agent = agent
        self._how = how
        self._loop = loop

    def __iter__(self) -> Deliveries:
        """For each loop an iterator of its own: nobody else has it, so that it is dropped where the loop is left."""
        fresh = Loop()  # made first: threads that begin to loop over one iterator together must not share it
        loop, self._loop = self._loop, fresh
        return Deliveries(self._agent, self._how, loop)

    def __next__(self) -> Message:
        receipt = self._loop.asks(sys._getframe(1), self._agent.held)
        try:
            found = _after(self._agent, receipt, self._how)
        except BaseException:
            del self  # the traceback keeps this frame, and must not keep the iterator: it is dropped with its loop
            raise
        self._loop.message = None
        if not found:
            raise StopIteration
        return self._loop.hands_out(found[0], self._agent.held)

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if at_exit():  # modules are being taken down; the message goes back as that of any process that is gone
            return
        if self._loop.message and (message := self._loop.is_dropped(sys._getframe().f_back, self._agent.held)):
            self._agent.settle(message, self._loop.ended)


def _after(agent: Agent, receipt: str | None, how: dict[str, Any]) -> list[Message]:
    """The next message, received as the one before is acknowledged, if there is one and it did not go to another."""
    if receipt:
        try:
            return agent.ack_and_receive(receipt, **how)
        except Conflict as problem:
            not_settled(agent.id, receipt, True, problem)
    return agent.receive(**how)


def not_settled(agent: str, receipt: str, ended: bool, problem: BusError) -> None:
    """Say that a message was not acknowledged though its body ended, or not given back though no other has it."""
    if ended or not isinstance(problem, Conflict):
        done = "acknowledged" if ended else "given back"
        log.warning("agent %s: message %s was not %s: %s", agent, receipt.partition(".")[0], done, problem)
