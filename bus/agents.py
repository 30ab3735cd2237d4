"""Agents: who is registered, who lives, and what the dead held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from bus import bells, config, inputs, liveness, salvage
from bus.errors import error
from bus.inputs import Duration
from bus.liveness import Identity, Life
from bus.models import TERMINAL, Agent, MessageStatus
from bus.operation import Operation, Query, Ring, Row, Seldom, Shortcut, Steps, looking, reading

BEAT = 25.0  # seconds that a waiting agent sleeps at most: its looking again is its heartbeat


def register(
    agent: str,
    *,
    type: str,
    session: str,
    milestone: str | None = None,
    capabilities: Sequence[str] | str | None = None,
    operation: str | None = None,
    pid: int | None = None,
    command: str | None = None,
) -> Operation[Agent]:
    """Enter an agent; the session is created when it is new, and becomes one of the `operation` type (default: planning
    where an agent that plans opens it, else execution). One that was completed is active again.

    Under an id that is there it is a restart: active again, in the session it names now; state and checkpoints stay,
    and when the former process is known to be dead what it had leased goes back at once. `pid` is a process that lives
    as long as the agent does; short-lived callers give none. `command` is how to start it again. Raises `unknown_type`,
    `invalid_id`, `invalid_json` for capabilities that are not an array, and `usage` for a pid nobody has.
    """
    process = Identity() if pid is None else liveness.identity(inputs.whole("pid", pid))
    if pid is not None and process.process_started_at is None and liveness.boot_id():
        raise error("usage", f"there is no process {pid}", "give the pid of the agent itself, or none")
    parameters = {
        "agent": inputs.name(agent),
        "type": inputs.text(type),
        "session": inputs.name(session),
        "milestone": inputs.words(milestone),
        "capabilities": _listed(capabilities),
        "operation": inputs.words(operation),
        "command": inputs.words(command),
        **process._asdict(),
    }
    return Operation(partial(_register, inputs.name(agent), parameters), writes=True)


def _listed(capabilities: Sequence[str] | str | None) -> str | None:
    """Capabilities as JSON; the database refuses JSON that is no array as if it were none."""
    written = None if capabilities is None else inputs.notes(capabilities)
    if written is not None and not written.lstrip().startswith("["):
        raise error("invalid_json", "capabilities are a JSON array", """write '["bash", "python"]'""")
    return written


def _register(agent: str, parameters: Mapping[str, object]) -> Steps[Agent]:
    rows = yield Query("agents/identity", {"agent": agent})
    if rows and liveness.life((former := Holder.of(rows[0])).identity) is Life.DEAD:
        yield from relieve(former)
    if rows:
        yield Ring([agent])  # another of its processes may wait for what it no longer is
    return salvage.records((yield Query("agents/register", parameters)), Agent)[0]


def heartbeat(
    agent: str, *, status: str | None = None, task: str | None = None, phase: str | None = None
) -> Operation[Agent]:
    """Say that an agent lives; and its status, task and phase, when given. Of one that says that it has ended what it
    still had leased goes back. Raises `unknown_agent`, `invalid_status`."""
    words = {"status": inputs.words(status), "task": inputs.words(task), "phase": inputs.words(phase)}
    return Operation(partial(_changed, "agents/heartbeat", {"agent": inputs.name(agent), **words}), writes=True)


def update(
    agent: str,
    *,
    capabilities: Sequence[str] | None = None,
    resource_usage: object = None,
    error_info: object = None,
    command: str | None = None,
) -> Operation[Agent]:
    """Change what the registry knows of an agent; what is None stays. Raises `unknown_agent`, `invalid_json`,
    `payload_too_large`."""
    parameters = {
        "agent": inputs.name(agent),
        "capabilities": _listed(capabilities),
        "resource_usage": None if resource_usage is None else inputs.notes(resource_usage),
        "error_info": None if error_info is None else inputs.notes(error_info),
        "command": inputs.words(command),
    }
    return Operation(partial(_changed, "agents/update", parameters), writes=True)


def retire(agent: str, *, status: str = "completed") -> Operation[Agent]:
    """End an agent: completed, failed or terminated. What it still had leased goes back at once.

    Raises `unknown_agent`, `invalid_status`.
    """
    parameters = {"agent": inputs.name(agent), "status": inputs.text(status)}
    return Operation(partial(_changed, "agents/retire", parameters), writes=True)


def retire_process(agent: str, *, process: Identity, status: str) -> Operation[None]:
    """End an agent that was this process, as `retire`, unless it was `replaced`. One that was started again without a
    pid is its own script's, that registered itself."""
    return Operation(partial(_retire_process, agent, process, retire(agent, status=status)), writes=True)


def _retire_process(agent: str, process: Identity, retired: Operation[Agent]) -> Steps[None]:
    if not (yield from replaced(agent, process, unnamed=False)):
        yield from retired.steps()


def replaced(agent: str, process: Identity, unnamed: bool = True) -> Steps[bool]:
    """Whether an agent that was this process was started again as another, which is not known to have died: it runs,
    has ended by its own word, or nobody here can tell. `unnamed` is the answer for one without a pid, as of scripts."""
    yield Query("recovery/hold", {"session": None, "agent": agent})
    rows = yield Query("agents/process", {"agent": agent})
    if not rows:
        return False
    found, ended = Identity(*rows[0][:-1]), rows[0][-1]
    if found.pid is None:
        return unnamed
    if found[1:] == process[1:]:  # a host may be renamed
        return False
    return bool(ended) or liveness.life(found) is not Life.DEAD


def _changed(name: str, parameters: Mapping[str, object]) -> Steps[Agent]:
    if parameters.get("status") in TERMINAL:
        yield Query("recovery/hold", {"session": None, "agent": parameters["agent"]})
        yield from give_back(str(parameters["agent"]))
    return salvage.records((yield Query(name, parameters)), Agent)[0]


@looking
def agents(*, session: str | None = None) -> Steps[list[Agent]]:
    """The agents of a session, or all, the last heard of first."""
    return salvage.records((yield Query("agents/agents", {"session": inputs.chosen(session)})), Agent)


@reading
def lives(members: Sequence[Agent], *, silence: Duration | None = None) -> Steps[list[Life]]:
    """Whether each agent lives: told by its process on this host, elsewhere by the age of its heartbeat, which counts
    for `silence` (default: the setting stale_after); one that has ended does not. Raises `usage`."""
    if not all(isinstance(agent, Agent) for agent in members):
        raise error("usage", "these are no agents", "give them as `agents` returns them")
    seconds = inputs.duration(silence)
    if seconds is None:
        seconds = yield from config.number("stale_after")
    oldest = (yield from config.now()) - seconds
    return [life_of(agent.status, process(agent), agent.last_heartbeat.timestamp(), oldest) for agent in members]


def process(agent: Agent) -> Identity:
    """The process that an agent gave."""
    return Identity(agent.host, agent.pid, agent.pid_namespace, agent.process_started_at, agent.boot_id)


def life_of(status: str, identity: Identity, heard: float, oldest: float) -> Life:
    """Whether an agent lives that was last `heard` of then: told by its status and its process, else by whether that is
    no longer ago than `oldest`."""
    if status in TERMINAL:
        return Life.DEAD
    told = liveness.life(identity)
    if told is not Life.UNKNOWN:
        return told
    return Life.ALIVE if heard >= oldest else Life.DEAD


class Holder(NamedTuple):
    """An agent that holds leases, or may, with its process."""

    agent_id: str
    identity: Identity

    @classmethod
    def of(cls, row: Row) -> Holder:
        """The holder of a row as agents/identity.sql tells it."""
        return cls(row[0], Identity(*row[1:]))


class _Sight(NamedTuple):
    bells: list[str]
    due: tuple[object, ...]
    ready: bool
    pids: list[int]
    dead: bool


class Outlook(_Sight):
    """What an agent with nothing to do waits for: its doorbells, when something of its mailbox and of its queue is due,
    and the processes of those who hold what it could take. `ready`: there is something to take; `dead`: a holder is
    gone already. Two are equal when nothing has come to pass between them."""

    seconds = BEAT  # until something is due, at the latest


@reading
def outlook(agent: str) -> Steps[Outlook]:
    """What an agent with nothing to do waits for."""
    ((type, *due, ready),) = yield Query("messages/glance", {"agent": agent})
    heard, due = [agent, f"@{type}"], tuple(due)
    if due == (None, None):
        return Outlook(heard, due, bool(ready), [], False)
    lives = yield from _holders(agent)  # who holds something has a timer
    pids = [holder.identity.pid or 0 for holder, life in lives.items() if life is Life.ALIVE]
    found = Outlook(heard, due, bool(ready), pids, Life.DEAD in lives.values())
    ((seconds,),) = yield Query("messages/next_due", {"agent": agent})
    found.seconds = BEAT if seconds is None else min(BEAT, max(seconds, 0.001))
    return found


def _holders(agent: str) -> Steps[dict[Holder, Life]]:
    """Who else holds leases that an agent could take, and whether they live."""
    return _glanced_at((yield Query("messages/holders", {"agent": agent})))


def _glanced_at(rows: list[Row]) -> dict[Holder, Life]:
    return {holder: liveness.glance(holder.identity) for holder in map(Holder.of, rows)}


def holder_has_died(agent: str, ends: Sequence[str]) -> Steps[bool]:
    """Whether one who has leased what an agent could take is known to be dead. `ends` are, for each mailbox in which
    something is leased, the first and the last holder by name: mostly the same, since there is only one."""
    if ends[::2] == ends[1::2]:
        rows = []
        for holder in set(ends):
            rows += yield Shortcut("agents/identity", {"agent": holder})
    else:
        rows = yield Shortcut("messages/holders", {"agent": agent})
    return Life.DEAD in _glanced_at(rows).values()


def relieve_the_dead(agent: str) -> Steps[None]:
    """Give back what holders that are known to be dead have leased of what an agent could take."""
    for holder, life in (yield from _holders(agent)).items():
        if life is Life.DEAD:
            yield from relieve(holder)


def relieve(holder: Holder) -> Steps[Returned]:
    """Give back what a dead process has leased, unless its agent was started again meanwhile."""
    yield Query("recovery/hold", {"session": None, "agent": holder.agent_id})
    rows = yield Query("agents/identity", {"agent": holder.agent_id})
    if not rows or Holder.of(rows[0]) != holder or liveness.life(holder.identity) is not Life.DEAD:
        return Returned([], [])
    return (yield from give_back(holder.agent_id))


def at_work(agent: str) -> Seldom:
    """The heartbeat that every operation of an agent is."""
    return Seldom("agents/beat", {"agent": agent})


class Returned(NamedTuple):
    """Messages that were given back, and those that are dead instead, past the retry limit: their ids."""

    ready: list[int]
    dead: list[int]


def give_back(agent: str) -> Steps[Returned]:
    """Give back at once all that an agent has leased."""
    rows = yield Query("messages/give_back", {"agent": agent})
    yield Ring([bells.of_returned(*row) for row in rows])
    dead = sorted(id for id, _, status in rows if status == MessageStatus.DEAD)
    return Returned(sorted({row[0] for row in rows} - set(dead)), dead)
