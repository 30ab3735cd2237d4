"""What the bus returns: frozen structs, and the words that are fixed. Times are aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

_PAYLOAD = msgspec.json.Decoder(dict[str, Any])


class once(Generic[T]):
    """An attribute worked out when it is first asked for, as functools.cached_property; without the lock that one takes
    up to Python 3.11."""

    def __init__(self, work: Callable[[Any], T]) -> None:
        self._work = work
        self.__doc__ = work.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> T:
        value = instance.__dict__[self._name] = self._work(instance)
        return value


TERMINAL = frozenset({"completed", "failed", "terminated"})


class MessageStatus(StrEnum):
    """Where a message stands: scheduled → ready → leased → acknowledged, or dead."""

    SCHEDULED = "scheduled"
    READY = "ready"
    LEASED = "leased"
    ACKNOWLEDGED = "acknowledged"
    DEAD = "dead"


class Message(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A message as it stood when it was read.

    `receipt` names its last delivery, as in `42.3`; it is what `ack` and its like take. `due_at` is when something
    happens to it by itself: a scheduled message becomes ready, a lease runs out, a ready one expires (None: never).
    `retry_count` is how often it came back since it was sent or redriven, `priority` 1 to 10. `leased_by` has it, or
    had it when its lease ran out or it ended. `reason` is what was said as it was released or rejected, `raw` the
    payload as JSON.
    """

    id: int
    session_id: str
    from_agent: str
    to_agent: str
    message_type: str
    raw: msgspec.Raw = msgspec.field(name="payload")
    priority: int
    status: MessageStatus
    created_at: datetime
    delivered_at: datetime | None
    acknowledged_at: datetime | None
    retry_count: int
    due_at: datetime | None
    expires_at: datetime | None
    leased_by: str | None
    receipt: str | None
    idempotency_key: str | None
    correlation_id: str | None
    reply_to: int | None
    dead_reason: str | None
    reason: str | None
    traceparent: str | None = None
    digest: str | None = None

    @property
    def delivery(self) -> int:
        """How often it was handed out: the number behind the dot of its receipt; 0 for never."""
        return int(self.receipt.partition(".")[2]) if self.receipt else 0

    @once
    def payload(self) -> dict[str, Any]:
        """The payload, decoded when first asked for."""
        return _PAYLOAD.decode(self.raw)

    def payload_as(self, kind: type[T]) -> T:
        """The payload as an instance of `kind`, a msgspec Struct for instance; raises `msgspec.ValidationError`."""
        return msgspec.json.decode(self.raw, type=kind)


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent as the registry has it. Whether it lives is worked out when asked, not stored: see `liveness`."""

    agent_id: str
    agent_type: str
    milestone_id: str
    session_id: str
    status: str
    capabilities: list[Any]
    current_task: str | None
    current_phase: str | None
    resource_usage: Any
    spawn_time: datetime
    last_heartbeat: datetime
    completion_time: datetime | None
    error_info: Any
    host: str | None
    pid: int | None
    pid_namespace: str | None
    process_started_at: int | None
    boot_id: str | None
    command: str | None


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of coordinated work; `progress` is 0 to 100."""

    session_id: str
    milestone_id: str
    operation_type: str
    phase: str | None
    coordinator_id: str | None
    agent_count: int
    progress: float
    status: str
    configuration: Any
    created_at: datetime
    last_activity: datetime
    completed_at: datetime | None


class StateValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that an agent keeps under a key; `version` starts at 1 and grows with each save."""

    agent_id: str
    state_key: str
    state_value: str
    state_type: str
    version: int
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None


class FileReference(msgspec.Struct, frozen=True):
    """A file as it was when a checkpoint was made: absolute path, hex digest, bytes."""

    path: str
    sha256: str
    size: int


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of an agent's work, with the files it rests on."""

    checkpoint_id: str
    agent_id: str
    session_id: str
    checkpoint_type: str
    state_snapshot: Any
    file_references: list[FileReference]
    created_at: datetime
    retention_until: datetime | None
    parent_id: str | None


class FileCheck(msgspec.Struct, frozen=True):
    """What became of a checkpoint's file: ok, changed or missing."""

    path: str
    status: str


class Restored(msgspec.Struct, frozen=True):
    """A checkpoint to go on from, and whether its files are still what they were."""

    checkpoint: Checkpoint
    files: list[FileCheck]


class Type(msgspec.Struct, frozen=True, omit_defaults=True):
    """A type that the bus knows; `definition` is a message type's schema or an operation type's artifacts."""

    kind: str
    name: str
    description: str
    definition: Any = None


class Milestone(msgspec.Struct, frozen=True, kw_only=True):
    """What sessions work on; `data` is whatever its plan holds: tasks, timeline, dependencies."""

    id: str
    title: str
    status: str
    priority: int
    data: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class Interruption(msgspec.Struct, frozen=True, kw_only=True):
    """An active session that does not go on by itself. `minutes_inactive` since its last activity; of its `agents`,
    `active` live and `dead` died or failed; `in_flight` messages are leased to those; `checkpoint_age` in seconds."""

    session_id: str
    milestone_id: str
    operation_type: str
    minutes_inactive: float
    agents: int
    active: int
    dead: int
    in_flight: int
    checkpoint_age: float | None
    last_activity: datetime


class HeldMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message that an agent has leased."""

    id: int
    from_agent: str
    message_type: str
    priority: int
    delivered_at: datetime


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A state key that a session's operation type promises; `saved_by` an agent, or missing (None)."""

    key: str
    weight: float
    saved_by: str | None
    updated_at: datetime | None


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """An agent of a session to be recovered: whether it lives, what it holds, and, when it is dead, its latest
    checkpoint with the fate of its files."""

    agent_id: str
    agent_type: str
    status: str
    life: str
    last_heartbeat: datetime
    current_task: str | None
    current_phase: str | None
    command: str | None
    lost: bool  # it died or failed, and no recovery has dealt with it
    held: list[HeldMessage]
    checkpoint: Checkpoint | None
    files: list[FileCheck] = []


class Option(msgspec.Struct, frozen=True):
    """A way to recover a session, and what it would do."""

    name: str
    does: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a session to be recovered. `progress` follows from the artifacts that are there, 0 to 100; None
    where the operation type promises none. `planner` has its milestone plan, whatever its operation type promises."""

    session: Session
    agents: list[Member]
    artifacts: list[Artifact]
    progress: float | None
    planner: str | None
    options: list[Option]


class Recovered(msgspec.Struct, frozen=True, kw_only=True):
    """What an option did: the agents it marked failed, the messages it gave back and buried (past the retry limit), the
    status it gave the session, the milestone it made. `changed` tells whether anything was left to do."""

    session_id: str
    option: str
    by: str
    changed: bool
    status: str
    failed: list[str] = []
    given_back: list[int] = []
    buried: list[int] = []
    milestone_id: str | None = None


class Respawn(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that is started again by its command."""

    agent_id: str
    agent_type: str
    milestone_id: str
    session_id: str
    command: str


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What one check of the monitor did. `given_back` and `buried` count messages of the dead, `due` those whose time
    had come; `failed` were silent for too long; of `killed` lives on record it closed the books; `dead` processes, by
    agent, were seen and dealt with."""

    at: datetime
    given_back: int
    buried: int
    failed: list[str]
    due: int
    pruned: int
    killed: int
    dead: dict[str, int]


class Cleaned(msgspec.Struct, frozen=True, kw_only=True):
    """What a cleanup did: agents and sessions marked failed, messages given back and buried, sessions abandoned."""

    failed_agents: list[str] = []
    failed_sessions: list[str] = []
    abandoned_sessions: list[str] = []
    given_back: int = 0
    buried: int = 0


class SessionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions that were active within some days, by status; `stale` ones of the active do not go on."""

    days: float
    total: int
    active: int
    paused: int
    completed: int
    failed: int
    abandoned: int
    stale: int


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True):
    """An agent's life on record: spawned → running → completed, failed or killed.

    `agent_id` is the number of the record; the agent's id in the registry is `registry_id`. `duration_ms` is from
    spawn to completion, `idle_time_ms` from spawn to start, both in milliseconds. `unseen`: it was found gone, and
    ended when it was last seen.
    """

    agent_id: int
    pid: int
    agent_type: str
    task_id: str
    task_type: str | None
    priority_number: str | None
    spawned_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    status: str
    exit_code: int | None
    duration_ms: int | None
    idle_time_ms: int | None
    command: str
    worktree_path: str | None
    error_message: str | None
    metadata: Any
    registry_id: str | None
    session_id: str | None
    host: str | None
    last_seen_at: datetime | None
    unseen: bool
    origin: str
    output_tail: str | None
    traceparent: str | None


class Setting(msgspec.Struct, frozen=True):
    """A line of the configuration."""

    key: str
    value: str
    description: str
