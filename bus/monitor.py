"""The monitor: what has to be done now and then, whoever does it.

A check gives back what dead processes have leased, marks the long-silent failed, moves what is due and removes what is
old. Each part is a transaction that looks again before it changes anything, so several monitors have the effect of one,
and the bus goes on without any: receivers do the same for what they could take.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from bus import agents, bells, clock, config, inputs, lifecycle, liveness, recovery, salvage, sessions, upkeep
from bus.agents import Holder
from bus.inputs import Duration
from bus.liveness import Life
from bus.models import Agent, Check, Cleaned, Lifecycle, Session, SessionCounts
from bus.operation import Pause, Query, Ring, Routine, Steps, reading, writing

BATCH = 10_000  # messages moved in one transaction


def check(*, by: str = "monitor") -> Routine[Check]:
    """Do once what a monitor does, and log it for `by`. Raises `invalid_value`."""
    by, given_back, buried, due = inputs.text(by), 0, 0, 0
    failed: list[str]
    for holder in (yield _holders()):
        if liveness.life(holder.identity) is Life.DEAD:
            returned: agents.Returned = yield _relieve(holder, by)
            given_back += len(returned.ready)
            buried += len(returned.dead)
    failed, returned_too, buried_too = yield _fail_silent(None, by)
    moved = BATCH
    while moved == BATCH:
        moved = yield _move_due()
        due += moved
    pruned = yield from upkeep.prune()
    killed: list[Lifecycle] = yield from lifecycle.survey()
    dead: Mapping[str, int] = (yield _processes())[1]
    return Check(
        at=datetime.fromtimestamp(clock.seconds(), UTC),
        given_back=given_back + returned_too,
        buried=buried + buried_too,
        failed=failed,
        due=due,
        pruned=pruned,
        killed=len(killed),
        dead=dict(dead),
    )


def wait(seconds: Duration, *, since: Check) -> Routine[None]:
    """Sleep for so long, or until a process dies that was not dead at the check `since`."""
    end = clock.monotonic() + (inputs.duration(seconds) or 0)
    while True:
        alive, dead = yield _processes()
        left = end - clock.monotonic()
        if left <= 0 or dead.items() - since.dead.items():
            return
        yield Pause([], left, alive)


@reading
def _holders() -> Steps[list[Holder]]:
    return [Holder.of(row) for row in (yield Query("recovery/holders", {}))]


@reading
def _processes() -> Steps[tuple[list[int], dict[str, int]]]:
    """The processes of agents that have not ended: those that run, and, by agent, those that are gone."""
    holders = [Holder.of(row) for row in (yield Query("recovery/processes", {}))]
    lives = [(name, process.pid or 0, liveness.life(process)) for name, process in holders]
    alive = [pid for _, pid, life in lives if life is Life.ALIVE]
    return alive, {name: pid for name, pid, life in lives if life is Life.DEAD}


@writing
def _relieve(holder: Holder, by: str) -> Steps[agents.Returned]:
    """Give back what a dead process has leased, unless its agent was started again meanwhile."""
    returned = yield from agents.relieve(holder)
    if any(returned):
        details = {"given_back": returned.ready, "buried": returned.dead, "pid": holder.identity.pid, "by": by}
        yield from recovery.log(holder.agent_id, "unresponsive", details)
    return returned


@writing
def _fail_silent(silence: float | None, by: str) -> Steps[tuple[list[str], int, int]]:
    """Mark failed who was not heard of for so many seconds (None: stale_after) and has no process that is seen to run;
    what they had leased goes back. Their ids, and how many messages were given back and buried."""
    if silence is None:
        silence = yield from config.number("stale_after")
    found = salvage.records((yield Query("recovery/silent", {"silence": silence})), Agent)
    lives = yield from agents.lives(found, silence=silence).steps()
    failed, given_back, buried = [], 0, 0
    for agent, life in zip(found, lives, strict=True):
        if life is Life.DEAD:
            returned = yield from agents.give_back(agent.agent_id)
            mark = {"silent_since": agent.last_heartbeat.isoformat(), "by": by}
            held = {"given_back": returned.ready, "buried": returned.dead} if any(returned) else {}
            yield from recovery.fail(agent.agent_id, {**mark, **held})
            failed.append(agent.agent_id)
            given_back += len(returned.ready)
            buried += len(returned.dead)
    return failed, given_back, buried


@writing
def _move_due() -> Steps[int]:
    rows = yield Query("messages/due", {})
    yield Ring([bells.of_returned(*row) for row in rows])
    return len(rows)


@writing
def clean(*, stale: Duration | None = None, failed: Duration | None = None, by: str = "cleanup") -> Steps[Cleaned]:
    """Tidy the registry; nothing is deleted.

    `stale`: agents not heard of for so long, whose process is not seen to run, are marked failed and what they had
    leased goes back; active sessions in which nothing happened for so long, and nobody lives, have failed. `failed`:
    sessions that failed longer ago are abandoned. None leaves that part out. Raises `usage`, `invalid_value`.
    """
    by, done = inputs.text(by), Cleaned()
    if stale is not None:
        done = yield from _clean_stale(inputs.duration(stale) or 0.0, by)
    if failed is not None:
        rows = yield Query("sessions/abandon_failed", {"age": inputs.duration(failed)})
        done = msgspec.structs.replace(done, abandoned_sessions=sorted(name for (name,) in rows))
    if done != Cleaned():
        yield from recovery.log(by, "degraded", {"cleanup": msgspec.to_builtins(done)})
    return done


def _clean_stale(silence: float, by: str) -> Steps[Cleaned]:
    stale = yield from _stale(silence)
    for session in stale:  # before agents, as whoever recovers one does
        yield Query("recovery/hold", {"session": session.session_id, "agent": None})
    failed, given_back, buried = yield from _fail_silent(silence, by).steps()
    sessions_failed = []
    for session in stale:
        rows = yield Query("sessions/fail", {"session": session.session_id, "silence": silence})
        sessions_failed += [name for (name,) in rows]
    return Cleaned(failed_agents=failed, failed_sessions=sessions_failed, given_back=given_back, buried=buried)


def _stale(silence: float) -> Steps[list[Session]]:
    """The active sessions in which nothing happened for so many seconds and nobody lives."""
    found = salvage.records((yield Query("sessions/stale", {"silence": silence})), Session)
    stale = []
    for session in found:
        members = yield from agents.agents(session=session.session_id).steps()
        if Life.ALIVE not in (yield from agents.lives(members, silence=silence).steps()):
            stale.append(session)
    return stale


@reading
def session_counts(*, days: float = 7) -> Steps[SessionCounts]:
    """How many sessions were active within some days, by status; `stale` are those of the active in which nothing
    happened for the setting session_timeout and nobody lives. `days` is more than 0. Raises `usage`."""
    age = (inputs.days(days) or 0) * clock.DAY
    found: dict[str, int] = dict((yield Query("sessions/recent", {"age": age})))
    silence = yield from config.number("session_timeout")
    since = (yield from config.now()) - age
    stale = [session for session in (yield from _stale(silence)) if session.last_activity.timestamp() >= since]
    numbers = {status: found.get(status, 0) for status in sessions.STATUSES}
    return SessionCounts(days=days, total=sum(numbers.values()), stale=len(stale), **numbers)
