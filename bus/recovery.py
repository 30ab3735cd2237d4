"""Recovery: which sessions were interrupted, what is left of them, and what can be done about it.

Nothing of this is stored: who lives is asked of the processes, what is done is told by the artifacts that the session's
operation type promises. An option is applied in one transaction, which looks again before it changes anything; so two
who apply it at once have one effect, and a second time nothing is left to do.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from functools import partial

import msgspec

from bus import agents, checkpoints, clock, config, inputs, liveness, milestones, salvage, sessions
from bus.errors import error
from bus.liveness import Life
from bus.models import (
    TERMINAL,
    Agent,
    Artifact,
    Checkpoint,
    FileCheck,
    HeldMessage,
    Interruption,
    Member,
    Milestone,
    Option,
    Plan,
    Recovered,
    Respawn,
    Session,
)
from bus.operation import Operation, Query, Row, Steps, reading, writing

PLAN_KEY = "milestone-plan"  # the artifact a milestone is made from
OUTCOMES = {"complete": "completed", "create-milestone": "completed", "abandon": "abandoned"}
OPTIONS = ("complete", "resume", "restart", "create-milestone", "abandon")


def lost(agent: Agent, life: Life, session: Session) -> bool:
    """Whether an agent of the session died or failed, since that was opened, and no recovery has dealt with it."""
    if agent.last_heartbeat.timestamp() < _moment(session, "reopened_at"):
        return False
    if agent.status == "failed":
        return not (isinstance(agent.error_info, dict) and {"recovery", "by"} <= agent.error_info.keys())
    return agent.status not in TERMINAL and life is Life.DEAD


@reading
def interrupted() -> Steps[list[Interruption]]:
    """The active sessions that do not go on by themselves, newest first: an agent died or failed, or nothing happened
    for the setting interrupted_after."""
    patience = yield from config.number("interrupted_after")
    found = yield from sessions.list_(status="active").steps()
    members = yield from agents.agents().steps()
    lives = yield from agents.lives(members).steps()
    held = Counter[str](holder for holder, _ in (yield Query("recovery/leases", {"session": None})))
    made = dict((yield Query("recovery/checkpointed", {})))
    now = yield from config.now()
    told = []
    crews = defaultdict[str, list[tuple[Agent, Life]]](list)
    for agent, life in zip(members, lives, strict=True):
        crews[agent.session_id].append((agent, life))
    for session in found:
        mine = crews[session.session_id]
        dead = {agent.agent_id for agent, life in mine if lost(agent, life, session)}
        idle = now - session.last_activity.timestamp()
        if not dead and idle < patience:
            continue
        last = made.get(session.session_id)
        told.append(
            Interruption(
                session_id=session.session_id,
                milestone_id=session.milestone_id,
                operation_type=session.operation_type,
                minutes_inactive=round(max(idle, 0) / 60, 1),
                agents=len(mine),
                active=sum(life is Life.ALIVE for _, life in mine),
                dead=len(dead),
                in_flight=sum(held[agent] for agent in dead),
                checkpoint_age=last and round(max(now - clock.parse(last), 0), 1),
                last_activity=session.last_activity,
            )
        )
    return told


@reading
def check() -> Steps[None]:
    """Read the whole file. Raises `damaged` when it is not whole."""
    ((verdict,),) = yield Query("recovery/check", {})
    if verdict != "ok":
        lines = [line for line in verdict.splitlines() if not line.startswith("***")]  # which tell the database
        first, *others = lines or [verdict]
        more = f", and {len(others)} more such" if others else ""
        raise error("damaged", f"the bus file is damaged: {first}{more}")


@reading
def plan(session: str) -> Steps[Plan]:
    """What is left of a session and what can be done: its agents, what the dead held, which artifacts are there, the
    progress that follows, the latest checkpoints of the dead, the options that fit. Changes nothing.

    Raises `unknown_session`.
    """
    whole = yield from sessions.show(session).steps()
    found = yield from agents.agents(session=session).steps()
    lives = yield from agents.lives(found).steps()
    leases = defaultdict[str, list[HeldMessage]](list)
    for holder, message in (yield Query("recovery/leases", {"session": session})):
        leases[holder].append(salvage.record(message, HeldMessage))
    rows = salvage.records((yield Query("recovery/checkpoints", {"session": session})), Checkpoint)
    latest = {checkpoint.agent_id: checkpoint for checkpoint in rows}
    artifacts = _artifacts((yield Query("recovery/artifacts", {"session": session})))
    planned = yield Query("recovery/planned", {"session": session, "key": PLAN_KEY})
    members = []
    for agent, life in zip(found, lives, strict=True):
        held = sorted(leases[agent.agent_id], key=lambda message: message.id)
        kept = {field: getattr(agent, field) for field in Member.__struct_fields__ if hasattr(agent, field)}
        gone = lost(agent, life, whole)
        checkpoint = latest.get(agent.agent_id) if life is Life.DEAD else None
        members.append(Member(**kept, life=life, lost=gone, held=held, checkpoint=checkpoint))
    there = Plan(
        session=whole,
        agents=members,
        artifacts=artifacts,
        progress=_progress(artifacts),
        planner=planned[0][0] if planned else None,
        options=[],
    )
    return msgspec.structs.replace(there, options=_options(there))


def verified(plan: Plan) -> Plan:
    """The plan with the fate of each file that a checkpoint of a dead agent rests on: ok, changed or missing. Reads the
    files, outside of any transaction."""
    return msgspec.structs.replace(
        plan, agents=[msgspec.structs.replace(member, files=_fates(member)) for member in plan.agents]
    )


def _fates(member: Member) -> list[FileCheck]:
    restored = checkpoints.verify(member.checkpoint)
    return restored.files if restored else []


def _artifacts(rows: list[Row]) -> list[Artifact]:
    found: dict[str, Artifact] = {}
    for artifact in (salvage.record(row[0], Artifact) for row in rows):
        found.setdefault(artifact.key, artifact)  # the latest comes first
    return list(found.values())


def _progress(artifacts: list[Artifact]) -> float | None:
    there = sum(artifact.weight for artifact in artifacts if artifact.saved_by)
    whole = sum(artifact.weight for artifact in artifacts)
    return round(100 * there / whole, 1) if whole else None


def _options(found: Plan) -> list[Option]:
    """The options that fit a session, each with what it would do to this one."""
    if found.session.status in OUTCOMES.values():
        return []
    missing = [artifact.key for artifact in found.artifacts if not artifact.saved_by]
    dead = [member.agent_id for member in found.agents if member.lost]
    messages = sum(len(member.held) for member in found.agents if member.life is Life.DEAD)
    relief = f"mark {_listed(dead, 'no agent')} failed, give back {messages} message{'s' * (messages != 1)}"
    options = {}
    if found.artifacts and not missing:
        options["complete"] = f"all {len(found.artifacts)} artifacts are there: {relief}, complete the session"
    if missing or dead or not found.artifacts:
        rest = f"; missing: {_listed(missing, 'nothing')}" if found.artifacts else ""
        options["resume"] = f"{relief}, the session stays active and goes on where it was{rest}"
    if found.artifacts:
        options["restart"] = f"{relief}, begin the session again from nothing; artifacts stay, checkpoints do not count"
    if found.planner and not _is_of_another_kind(found):
        options["create-milestone"] = f"make a milestone from {PLAN_KEY}, {relief}, complete the session"
    options["abandon"] = f"{relief}, give the session up; nothing is deleted"
    return [Option(*option) for option in options.items()]


def _listed(names: list[str], none: str) -> str:
    return ", ".join(names) if names else none


def _is_of_another_kind(found: Plan) -> bool:
    """Whether a session is not of planning: what its operation type promises, no plan, has begun to be there."""
    promised = {artifact.key: artifact.saved_by for artifact in found.artifacts}
    return PLAN_KEY not in promised and any(promised.values())


def apply(session: str, option: str, *, by: str, milestone: str | None = None) -> Operation[Recovered]:
    """Apply an option in one transaction, and log it for `by`; a second time nothing is left to do.

    complete, resume, restart, create-milestone (under the id `milestone`, else one that follows from the session) or
    abandon; see the options of `plan` for what each does. Raises `usage`, `unknown_session`, `unfit_option`,
    `already_ended` when the session ended otherwise, `milestone_exists`.
    """
    if option not in OPTIONS:
        raise error("usage", f"no option is called {str(option)[:40]!r}", f"the options are {', '.join(OPTIONS)}")
    steps = partial(_apply, inputs.name(session), option, inputs.text(by), inputs.chosen(milestone))
    return Operation(steps, writes=True)


def _apply(session: str, option: str, by: str, milestone: str | None) -> Steps[Recovered]:
    yield Query("recovery/hold", {"session": session, "agent": None})
    found = yield from plan(session).steps()
    _fits(found, option)
    made = None
    if option == "create-milestone":
        made = yield from _milestone(found, milestone)
    ended = found.session.status in OUTCOMES.values()  # and as the option wants it
    failed, given_back, buried = ([], [], []) if ended else (yield from _relieve(found, option, by))
    relieved = bool(failed or given_back or buried)
    moved = yield from _move(found, option, relieved)
    told = Recovered(
        session_id=session,
        option=option,
        by=by,
        changed=relieved or moved,
        status=OUTCOMES.get(option, "active"),
        failed=failed,
        given_back=given_back,
        buried=buried,
        milestone_id=made,
    )
    if told.changed:
        yield from log(found.session.coordinator_id or session, "degraded", {"recovery": msgspec.to_builtins(told)})
    return told


def _fits(found: Plan, option: str) -> None:
    status, name = found.session.status, found.session.session_id
    if status in OUTCOMES.values() and OUTCOMES.get(option) != status:
        raise error("already_ended", f"session {name} is {status}", "it begins anew when an agent registers in it")
    missing = [artifact.key for artifact in found.artifacts if not artifact.saved_by]
    if option in ("complete", "restart") and not found.artifacts:
        raise error("unfit_option", f"{option} does not fit: {found.session.operation_type} promises no artifacts")
    if option == "complete" and missing and status != "completed":
        words = f"session {name} is of {found.session.operation_type}, and not complete: {', '.join(missing)} missing"
        raise error("unfit_option", words)
    if option == "create-milestone" and not found.planner:
        raise error("unfit_option", f"session {name} has no {PLAN_KEY} to make a milestone from")
    if option == "create-milestone" and _is_of_another_kind(found):
        raise error("unfit_option", f"session {name} is of {found.session.operation_type}, and has begun with that")


def _relieve(found: Plan, option: str, by: str) -> Steps[tuple[list[str], list[int], list[int]]]:
    """Mark the lost failed, and give back what the dead have leased."""
    failed, given_back, buried = [], [], []
    for member in found.agents:
        if member.held and member.life is Life.DEAD:
            returned = yield from agents.give_back(member.agent_id)
            given_back += returned.ready
            buried += returned.dead
        if member.lost:
            failed.append(member.agent_id)
            yield from fail(member.agent_id, {"recovery": option, "by": by, "was": member.status})
    return failed, sorted(given_back), sorted(buried)


def fail(agent: str, mark: Mapping[str, object]) -> Steps[None]:
    """Mark an agent failed, with what did it and why, and log that."""
    at = clock.rfc3339((yield from config.now()))
    yield Query("recovery/fail", {"agent": agent, "mark": json.dumps({**mark, "at": at})})
    yield from log(agent, "unresponsive", mark)


def log(agent: str, health: str, details: Mapping[str, object]) -> Steps[None]:
    """Write a line into the health log."""
    yield Query("recovery/log", {"agent": agent, "health": health, "details": json.dumps(details)})


def _move(found: Plan, option: str, relieved: bool) -> Steps[bool]:
    """Bring the session to where the option wants it; whether it was elsewhere."""
    session = found.session
    parameters = {"session": session.session_id}
    if option in OUTCOMES and session.status != OUTCOMES[option]:
        yield Query("sessions/abandon" if option == "abandon" else "sessions/complete", parameters)
        return True
    if option == "resume" and (relieved or session.status != "active" or (yield from _is_idle(session))):
        yield Query("recovery/resume", {**parameters, "progress": found.progress})
        return True
    if option == "restart" and (relieved or not (yield from _begins(session))):
        yield Query("recovery/restart", parameters)
        return True
    return False


def _is_idle(session: Session) -> Steps[bool]:
    """Whether nothing happened in a session for so long that it counts as interrupted."""
    patience = yield from config.number("interrupted_after")
    return (yield from config.now()) - session.last_activity.timestamp() >= patience


def _begins(session: Session) -> Steps[bool]:
    """Whether a session was restarted and nothing has come of it yet."""
    restarted = _moment(session, "restarted_at")
    rows = yield Query("recovery/checkpoints", {"session": session.session_id})
    made = [checkpoint.created_at.timestamp() for checkpoint in salvage.records(rows, Checkpoint)]
    nothing = session.progress == 0 and session.phase is None and max(made, default=0.0) <= restarted
    return bool(restarted) and session.status == "active" and nothing


def startable(plan: Plan) -> list[Member]:
    """The agents that `respawn` would start again after the session has been resumed or restarted."""
    opened = _moment(plan.session, "reopened_at")
    return [
        agent
        for agent in plan.agents
        if agent.command and (agent.lost or (agent.status == "failed" and agent.last_heartbeat.timestamp() >= opened))
    ]


def _moment(session: Session, name: str) -> float:
    """A moment that a session's configuration tells, in seconds since 1970; 0 for one that was not, or by hand."""
    told = session.configuration.get(name) if isinstance(session.configuration, dict) else None
    try:
        return clock.parse(str(told))
    except ValueError:
        return 0.0


def _milestone(found: Plan, id: str | None) -> Steps[str]:
    name = found.session.session_id
    already = salvage.records((yield Query("milestones/of_session", {"session": name})), Milestone)
    if already:
        if id not in (None, already[0].id):
            raise error("milestone_exists", f"session {name} has made milestone {already[0].id}", "it makes one")
        return already[0].id
    rows = yield Query("state/load", {"agent": found.planner, "key": PLAN_KEY})
    phases = yield Query("types/artifacts", {"name": "execution"})
    at = clock.rfc3339((yield from config.now()))
    parameters = milestones.from_plan(found.session, rows[0][0], phases[0][0], id, at)
    made = salvage.records((yield Query("milestones/create", parameters)), Milestone)[0]
    if made.data.get("planning_session") != name or made.data.get("recovered_at") != at:
        raise error("milestone_exists", f"milestone {made.id} is there already, and was not made of this plan")
    return made.id


@writing
def respawn(session: str) -> Steps[list[Respawn]]:
    """Take the failed agents of a session that have a command, to start them again; nobody else gets the same ones.
    They are `spawning` until they register. Raises `unknown_session`."""
    yield from sessions.show(session).steps()
    rows = yield Query("recovery/respawn", {"session": session})
    return sorted((salvage.record(row[0], Respawn) for row in rows), key=lambda agent: agent.agent_id)


def spawned(agent: str, *, pid: int) -> Operation[None]:
    """The process that an agent was started as; what it registers by itself comes first."""
    process = liveness.identity(inputs.whole("pid", pid))
    return Operation(partial(_spawned, {"agent": inputs.name(agent), **process._asdict()}), writes=True)


def _spawned(parameters: Mapping[str, object]) -> Steps[None]:
    yield Query("recovery/spawned", parameters)
