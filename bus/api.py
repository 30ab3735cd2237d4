"""Bus and AsyncBus: one line per operation and colour; the only place where operations and stores meet.

What each takes, returns and raises stands with the operation, in the file of its noun.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from bus import agents, checkpoints, config, inputs, messages, sessions, state, step, upkeep
from bus.inputs import Duration
from bus.later import (
    copying,
    doctor,
    exports,
    lifecycle,
    metrics,
    milestones,
    monitor,
    overview,
    recovery,
    reports,
    trace_import,
    types,
)
from bus.models import Check, Checkpoint, Plan, Restored
from bus.operation import Operation, Routine
from bus.signatures import tell
from bus.store import blocking, facts, opening
from bus.store.url import Place, locate, locate_new, parse

if TYPE_CHECKING:
    from bus.copying import Copied
    from bus.store import postgres_async, sqlite_async

T = TypeVar("T")
P = ParamSpec("P")


def _now(operation: Callable[P, Operation[T]]) -> Callable[Concatenate[Bus, P], T]:
    def method(self: Bus, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.store.run(operation(*args, **kwargs))

    tell(method, operation)
    return method


def _in_time(routine: Callable[P, Routine[T]]) -> Callable[Concatenate[Bus, P], T]:
    def method(self: Bus, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.store.carry_out(routine(*args, **kwargs))

    tell(method, routine)
    return method


def _await(operation: Callable[P, Operation[T]]) -> Callable[Concatenate[AsyncBus, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncBus, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.store.run(operation(*args, **kwargs))

    tell(method, operation)
    return method


def _await_in_time(routine: Callable[P, Routine[T]]) -> Callable[Concatenate[AsyncBus, P], Coroutine[Any, Any, T]]:
    async def method(self: AsyncBus, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.store.carry_out(routine(*args, **kwargs))

    tell(method, routine)
    return method


class Bus:
    """A bus, for blocking calls from any thread: `with Bus.open() as bus: …`. Durations are numbers of seconds, or text
    such as 500ms, 30s, 5m, 2h, 7d. An argument that can't be read raises `usage`, or an `invalid_…` of its own."""

    def __init__(self, store: blocking.Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str | PathLike[str] | None = None, *, create: bool = False, read_only: bool = False) -> Self:
        """Open the bus at `url`, else at `BUS_URL`, else the nearest `.milestones/coordination.db` walking up.

        `create` makes it when it is missing (an empty file is made one without it: an interrupted `create` leaves it);
        `read_only` can change nothing, which raises `not_allowed`. Raises `no_bus`, `not_a_bus`, `newer_bus`,
        `unsafe_file`, `unreachable`, `usage` for what is no address, and `older_bus` where only an upgrade would help a
        reader.
        """
        return cls(blocking.Store(locate_new(url) if create else locate(url), create, read_only))

    @property
    def url(self) -> Place:
        """Where this bus is."""
        return self.store.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close this thread's connection, in memory everybody's."""
        self.store.close()

    register = _now(agents.register)
    heartbeat = _now(agents.heartbeat)
    update = _now(agents.update)
    retire = _now(agents.retire)
    lives = _now(agents.lives)
    agents = _now(agents.agents)

    send = _now(messages.send)
    broadcast = _now(messages.broadcast)
    receive = _in_time(messages.receive)
    ack_and_receive = _in_time(messages.ack_and_receive)
    ack = _now(messages.ack)
    release = _now(messages.release)
    extend = _now(messages.extend)
    reject = _now(messages.reject)
    cancel = _now(messages.cancel)
    message = _now(messages.message)
    pending = _now(messages.pending)
    dead = _now(messages.dead)
    redrive = _now(messages.redrive)
    wait_ended = _in_time(messages.wait_ended)
    messages = _now(messages.messages)

    state_save = _now(state.save)
    state_load = _now(state.load)
    state_load_versioned = _now(state.load_versioned)
    state_list = _now(state.list_)
    state_delete = _now(state.delete)
    state_watch = _in_time(state.watch)

    checkpoint_create = _now(checkpoints.create)
    checkpoint_list = _now(checkpoints.list_)
    checkpoint_show = _now(checkpoints.show)
    checkpoint_latest = _now(checkpoints.latest)
    checkpoint_prune = _now(checkpoints.prune)

    def checkpoint_restore(self, agent: str, *, checkpoint: str | None = None) -> Restored | None:
        """The checkpoint to go on from, as `checkpoint_latest`, with its files verified."""
        return checkpoints.verify(self.checkpoint_latest(agent, checkpoint=checkpoint))

    interrupted = _now(recovery.interrupted)
    recovery_apply = _now(recovery.apply)
    recovery_respawn = _now(recovery.respawn)
    recovery_spawned = _now(recovery.spawned)
    monitor_wait = _in_time(monitor.wait)
    clean = _now(monitor.clean)
    session_counts = _now(monitor.session_counts)

    def recovery_plan(self, session: str) -> Plan:
        """As `recovery.plan`, after the whole file was read, with the files of the checkpoints verified. Raises
        `damaged`, too."""
        self.store.run(recovery.check())
        return recovery.verified(self.store.run(recovery.plan(session)))

    def monitor_check(self, *, by: str = "monitor") -> Check:
        """As `monitor.check`; then what is in the WAL goes into the file."""
        found: Check = self.store.carry_out(monitor.check(by=by))
        self.store.connection().tidy()
        return found

    session_list = _now(sessions.list_)
    session_show = _now(sessions.show)
    session_progress = _now(sessions.progress)
    session_complete = _now(sessions.complete)
    session_abandon = _now(sessions.abandon)

    trace_spawn = _now(lifecycle.spawn)
    trace_launch = _now(lifecycle.launch)
    trace_start = _now(lifecycle.start)
    trace_finish = _now(lifecycle.finish)
    trace_abort = _now(lifecycle.abort)
    trace_show = _now(lifecycle.show)
    trace_enter = _now(lifecycle.enter)
    trace_leave = _now(lifecycle.leave)
    trace_close_the_dead = _in_time(lifecycle.close_the_dead)
    trace_active = _in_time(reports.active)
    trace_velocity = _in_time(reports.velocity)
    trace_bottlenecks = _in_time(reports.bottlenecks)
    trace_timeline = _in_time(reports.timeline)
    trace_throughput = _in_time(reports.throughput)
    trace_waiting = _in_time(reports.waiting)
    trace_import = _now(trace_import.import_)

    export_claim = _now(exports.claim)
    export_release = _now(exports.release)
    export_batch = _now(exports.batch)
    export_advance = _now(exports.advance)

    milestone_list = _now(milestones.list_)
    milestone_show = _now(milestones.show)
    types_list = _now(types.list_)
    types_add = _now(types.add)
    config_list = _now(config.list_)
    config_get = _now(config.get)
    config_set = _now(config.set_)
    apply = _now(step.apply)
    prune = _in_time(upkeep.prune)
    data_version = _now(overview.data_version)
    overview = _now(overview.overview)
    metrics = _in_time(metrics.metrics)

    def status(self) -> Mapping[str, Any]:
        """The bus in numbers, its load, and whether it has outgrown its file: see `upkeep.status`."""
        found: Mapping[str, Any] = self.store.run(upkeep.status(busy=facts.busy(self.url)))
        return found

    def doctor(self, *, deep: bool = False) -> list[doctor.Finding]:
        """What is well and what is not: file, library, WAL, leases; `deep`: each payload, too."""
        found = doctor.report(self.store.connection().facts(), self.store.run(doctor.inside()))
        return [*found, self.store.run(doctor.deep())] if deep else found

    def copy_to(self, target: Bus) -> Copied:
        """Copy this whole bus, as it is now, into one that is empty: all or nothing. Raises `not_empty`."""
        with copying.Spool() as spool:
            return target.store.run(copying.put(spool, self.store.run(copying.take(spool))))

    def backup(self, path: str | PathLike[str]) -> None:
        """Copy the bus, online, into a new file. Raises `usage` where there is one already, and on PostgreSQL."""
        self.store.connection().backup(path)

    @staticmethod
    def restore(file: str | PathLike[str], url: str | PathLike[str] | None = None) -> str | None:
        """Put a copy that `backup` made in the place of the bus at `url`; where that is now, or None if there was none.

        Who has it open is told `no_bus` within a second. Raises, for the copy, `damaged`, and what `open` raises.
        """
        from bus.store import restoring  # seldom needed

        return restoring.restore(parse(file), locate_new(url))


class AsyncBus:
    """A bus, for the coroutines of one event loop in one process: `async with await AsyncBus.open() as bus: …`."""

    def __init__(self, store: sqlite_async.Store | postgres_async.Store) -> None:
        self.store = store

    @classmethod
    async def open(cls, url: str | PathLike[str] | None = None, *, create: bool = False) -> Self:
        """As `Bus.open`, for reading and writing."""
        return cls(await opening.asynchronous(locate_new(url) if create else locate(url), create))

    @property
    def url(self) -> Place:
        """Where this bus is."""
        return self.store.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, after what was begun has ended; who waits is told `closed`. Idempotent."""
        await self.store.close()

    register = _await(agents.register)
    heartbeat = _await(agents.heartbeat)
    update = _await(agents.update)
    retire = _await(agents.retire)
    lives = _await(agents.lives)
    agents = _await(agents.agents)

    send = _await(messages.send)
    broadcast = _await(messages.broadcast)
    receive = _await_in_time(messages.receive)
    ack_and_receive = _await_in_time(messages.ack_and_receive)
    ack = _await(messages.ack)
    release = _await(messages.release)
    extend = _await(messages.extend)
    reject = _await(messages.reject)
    cancel = _await(messages.cancel)
    message = _await(messages.message)
    pending = _await(messages.pending)
    dead = _await(messages.dead)
    redrive = _await(messages.redrive)
    wait_ended = _await_in_time(messages.wait_ended)
    messages = _await(messages.messages)

    state_save = _await(state.save)
    state_load = _await(state.load)
    state_load_versioned = _await(state.load_versioned)
    state_list = _await(state.list_)
    state_delete = _await(state.delete)
    state_watch = _await_in_time(state.watch)

    checkpoint_list = _await(checkpoints.list_)
    checkpoint_show = _await(checkpoints.show)
    checkpoint_latest = _await(checkpoints.latest)
    checkpoint_prune = _await(checkpoints.prune)

    async def checkpoint_create(
        self,
        agent: str,
        snapshot: object = None,
        *,
        type: str = "manual",
        files: Iterable[str | PathLike[str]] = (),
        retention: Duration | None = None,
    ) -> Checkpoint:
        """As `Bus.checkpoint_create`, of the snapshot as it is now, with the files hashed off the event loop."""
        import anyio.to_thread

        written = inputs.document({} if snapshot is None else snapshot)
        create = partial(checkpoints.create, agent, written, type=type, files=files, retention=retention)
        return await self.store.run(await anyio.to_thread.run_sync(create))

    async def checkpoint_restore(self, agent: str, *, checkpoint: str | None = None) -> Restored | None:
        """The checkpoint to go on from, as `checkpoint_latest`, with its files verified off the event loop."""
        import anyio.to_thread

        found: Checkpoint | None = await self.checkpoint_latest(agent, checkpoint=checkpoint)
        return await anyio.to_thread.run_sync(checkpoints.verify, found)

    interrupted = _await(recovery.interrupted)
    recovery_apply = _await(recovery.apply)
    recovery_respawn = _await(recovery.respawn)
    recovery_spawned = _await(recovery.spawned)
    monitor_wait = _await_in_time(monitor.wait)
    clean = _await(monitor.clean)
    session_counts = _await(monitor.session_counts)

    async def recovery_plan(self, session: str) -> Plan:
        """As `Bus.recovery_plan`, with the files verified off the event loop."""
        import anyio.to_thread

        await self.store.run(recovery.check())
        found: Plan = await self.store.run(recovery.plan(session))
        return await anyio.to_thread.run_sync(recovery.verified, found)

    async def monitor_check(self, *, by: str = "monitor") -> Check:
        """As `Bus.monitor_check`."""
        found: Check = await self.store.carry_out(monitor.check(by=by))
        await self.store.call(lambda connection: connection.tidy())
        return found

    session_list = _await(sessions.list_)
    session_show = _await(sessions.show)
    session_progress = _await(sessions.progress)
    session_complete = _await(sessions.complete)
    session_abandon = _await(sessions.abandon)

    trace_spawn = _await(lifecycle.spawn)
    trace_launch = _await(lifecycle.launch)
    trace_start = _await(lifecycle.start)
    trace_finish = _await(lifecycle.finish)
    trace_abort = _await(lifecycle.abort)
    trace_show = _await(lifecycle.show)
    trace_enter = _await(lifecycle.enter)
    trace_leave = _await(lifecycle.leave)
    trace_close_the_dead = _await_in_time(lifecycle.close_the_dead)
    trace_active = _await_in_time(reports.active)
    trace_velocity = _await_in_time(reports.velocity)
    trace_bottlenecks = _await_in_time(reports.bottlenecks)
    trace_timeline = _await_in_time(reports.timeline)
    trace_throughput = _await_in_time(reports.throughput)
    trace_waiting = _await_in_time(reports.waiting)
    trace_import = _await(trace_import.import_)

    export_claim = _await(exports.claim)
    export_release = _await(exports.release)
    export_batch = _await(exports.batch)
    export_advance = _await(exports.advance)

    milestone_list = _await(milestones.list_)
    milestone_show = _await(milestones.show)
    types_list = _await(types.list_)
    types_add = _await(types.add)
    config_list = _await(config.list_)
    config_get = _await(config.get)
    config_set = _await(config.set_)
    apply = _await(step.apply)
    prune = _await_in_time(upkeep.prune)
    data_version = _await(overview.data_version)
    overview = _await(overview.overview)
    metrics = _await_in_time(metrics.metrics)

    async def status(self) -> Mapping[str, Any]:
        """As `Bus.status`."""
        import anyio.to_thread

        busy = await anyio.to_thread.run_sync(facts.busy, self.url)
        return await self.store.run(upkeep.status(busy=busy))

    async def doctor(self, *, deep: bool = False) -> list[doctor.Finding]:
        """As `Bus.doctor`."""
        found = doctor.report(await self.store.call(lambda bus: bus.facts()), await self.store.run(doctor.inside()))
        return [*found, await self.store.run(doctor.deep())] if deep else found

    async def backup(self, path: str | PathLike[str]) -> None:
        """As `Bus.backup`."""
        await self.store.call(lambda connection: connection.backup(path))
