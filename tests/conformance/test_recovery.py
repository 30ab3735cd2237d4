"""Recovery: what was interrupted, what is left, what each option does, and that it does it once."""

import json
import os
from functools import partial
from pathlib import Path

import pytest

from bus import Bus, clock, liveness, milestones
from bus.models import Plan
from tests.conformance.refusal import refused
from tests.conftest import Process

TASK = "task_assignment"
EXECUTION = ("design-phase-results", "spec-phase-results", "task-phase-results", "execute-phase-results")


@pytest.fixture
def wreck(team: Bus, process: Process, tmp_path: Path) -> Bus:
    """Session s, in which one of two executors was killed in the middle of its second task."""
    team.register("lost", type="milestone-executor", session="s", pid=process.pid)
    (tmp_path / "kept").write_text("same")
    (tmp_path / "edited").write_text("before")
    (tmp_path / "gone").write_text("there")
    team.checkpoint_create("lost", {"at": 1}, files=[tmp_path / name for name in ("kept", "edited", "gone")])
    (tmp_path / "edited").write_text("after!")
    (tmp_path / "gone").unlink()
    team.state_save("lost", EXECUTION[0], "d")
    team.state_save("one", EXECUTION[1], "s")
    for _ in range(2):
        team.send("boss", "lost", TASK, {})
    team.receive("lost", limit=2, lease=600)
    process.kill()
    process.wait()
    return team


def options(plan: Plan) -> list[str]:
    return [option.name for option in plan.options]


def test_a_session_is_interrupted_when_an_agent_died(wreck: Bus) -> None:
    wreck.register("elsewhere", type="validation", session="t")
    (found,) = wreck.interrupted()
    assert (found.session_id, found.operation_type, found.agents, found.active, found.dead, found.in_flight) == (
        "s", "execution", 4, 3, 1, 2,
    )  # fmt: skip
    assert found.checkpoint_age is not None
    assert found.minutes_inactive < 1


def test_what_was_saved_before_a_session_was_opened_again_does_not_count(wreck: Bus) -> None:
    wreck.session_progress("s", 40)
    wreck.session_complete("s")
    with clock.moved(60):
        wreck.register("one", type="milestone-executor", session="s", milestone="m2")
        assert (wreck.session_show("s").progress, wreck.session_show("s").milestone_id) == (0, "m2")
        assert [artifact.saved_by for artifact in wreck.recovery_plan("s").artifacts] == [None] * 4
        wreck.state_save("one", EXECUTION[1], "again")
        found = wreck.recovery_plan("s")
        assert [artifact.saved_by for artifact in found.artifacts] == [None, "one", None, None]
        assert (found.progress, options(found)) == (25, ["resume", "restart", "abandon"])
        wreck.recovery_apply("s", "resume", by="me")
        assert wreck.session_show("s").progress == 25


def test_what_an_agent_saved_for_another_session_does_not_count(bus: Bus) -> None:
    bus.register("p", type="milestone-planner", session="monday")
    bus.state_save("p", "milestone-plan", '{"title": "Monday"}')
    bus.session_complete("monday")
    with clock.moved(86400):
        bus.register("p", type="milestone-planner", session="tuesday")
        assert "create-milestone" not in options(bus.recovery_plan("tuesday"))
        assert {artifact.saved_by for artifact in bus.recovery_plan("tuesday").artifacts} == {None}
        bus.state_save("p", "milestone-plan", '{"title": "Tuesday"}')
        assert "create-milestone" in options(bus.recovery_plan("tuesday"))


def test_who_died_before_a_session_was_opened_again_does_not_interrupt_it(wreck: Bus) -> None:
    wreck.register("failed", type="validation", session="s", command="true")
    wreck.retire("failed", status="failed")
    wreck.session_complete("s")
    with clock.moved(60):
        wreck.register("one", type="milestone-executor", session="s")
        assert wreck.interrupted() == []
        assert wreck.recovery_respawn("s") == []
        wreck.retire("one", status="failed")
        assert [session.dead for session in wreck.interrupted()] == [1]


def test_a_session_that_is_opened_again_makes_another_milestone(bus: Bus) -> None:
    def night(title: str) -> None:
        bus.register("p", type="milestone-planner", session="p", milestone="m")
        bus.state_save("p", "milestone-plan", json.dumps({"title": title}))

    night("one")
    assert bus.recovery_apply("p", "create-milestone", by="me").milestone_id == "m"
    with clock.moved(60):
        bus.register("p", type="milestone-planner", session="p")
        with refused("unfit_option", 65):
            bus.recovery_apply("p", "create-milestone", by="me")
    with clock.moved(120):
        night("two")
        with refused("milestone_exists", 76):
            bus.recovery_apply("p", "create-milestone", by="me")
        for _ in range(2):
            assert bus.recovery_apply("p", "create-milestone", by="me", milestone="m2").milestone_id == "m2"
    assert [(found.id, found.title) for found in bus.milestone_list()] == [("m2", "two"), ("m", "one")]


def test_a_session_is_interrupted_when_an_agent_failed_or_nothing_happens(team: Bus) -> None:
    assert team.interrupted() == []
    team.register("p", type="milestone-planner", session="p", operation="planning", milestone="m")
    team.retire("one", status="failed")
    assert [found.session_id for found in team.interrupted()] == ["s"]
    with clock.moved(301):
        team.heartbeat("two")
        assert [found.session_id for found in team.interrupted()] == ["s", "p"]
        assert [found.minutes_inactive for found in team.interrupted()] == [0.0, 5.0]
    team.session_complete("s")
    assert team.interrupted() == []


def test_what_was_done_by_a_clock_that_is_ahead_is_of_no_age(team: Bus) -> None:
    with clock.moved(100):
        team.checkpoint_create("one", {})
        team.retire("one", status="failed")
    (found,) = team.interrupted()
    assert (found.checkpoint_age, found.minutes_inactive) == (0, 0)


def test_a_plan_says_what_is_left_and_changes_nothing(wreck: Bus) -> None:
    plan = wreck.recovery_plan("s")
    members = {member.agent_id: member for member in plan.agents}
    lost = members["lost"]
    assert (lost.status, lost.life, lost.lost, [held.id for held in lost.held]) == ("active", "dead", True, [1, 2])
    assert [(Path(file.path).name, file.status) for file in lost.files] == [
        ("kept", "ok"), ("edited", "changed"), ("gone", "missing"),
    ]  # fmt: skip
    assert [(a.key, a.weight, a.saved_by) for a in plan.artifacts] == [
        (EXECUTION[0], 15, "lost"), (EXECUTION[1], 25, "one"), (EXECUTION[2], 20, None), (EXECUTION[3], 40, None),
    ]  # fmt: skip
    assert plan.progress == 40
    assert options(plan) == ["resume", "restart", "abandon"]
    assert not members["one"].lost
    assert wreck.recovery_plan("s") == plan
    assert wreck.message(1).status == "leased"
    with refused("unknown_session", 66):
        wreck.recovery_plan("nowhere")


def test_a_plan_tells_of_the_checkpoints_of_the_dead_only(wreck: Bus) -> None:
    wreck.checkpoint_create("one", {"at": 2})
    members = {member.agent_id: member for member in wreck.recovery_plan("s").agents}
    assert members["lost"].checkpoint
    assert members["one"].checkpoint is None


def test_an_artifact_is_from_who_saved_it_last(team: Bus) -> None:
    for seconds, agent in enumerate(("two", "one", "boss", "one")):
        with clock.moved(seconds):
            team.state_save(agent, EXECUTION[0], "d")
    assert team.recovery_plan("s").artifacts[0].saved_by == "one"


@pytest.mark.parametrize("told", ['"recovery"', ["recovery"], 7])
def test_who_failed_of_whatever_is_lost(team: Bus, told: object) -> None:
    team.update("one", error_info=told)
    team.retire("one", status="failed")
    assert [found.dead for found in team.interrupted()] == [1]


def test_resume_takes_back_nothing_of_the_progress_that_was_told(wreck: Bus) -> None:
    wreck.session_progress("s", 70)
    wreck.recovery_apply("s", "resume", by="me")
    assert wreck.session_show("s").progress == 70


def test_resume_gives_back_marks_failed_and_goes_on(wreck: Bus) -> None:
    done = wreck.recovery_apply("s", "resume", by="me")
    assert (done.changed, done.status, done.failed, done.given_back) == (True, "active", ["lost"], [1, 2])
    agents = {agent.agent_id: agent for agent in wreck.agents(session="s")}
    assert (agents["lost"].status, agents["lost"].error_info["recovery"], agents["one"].status) == (
        "failed", "resume", "active",
    )  # fmt: skip
    assert (wreck.session_show("s").status, wreck.session_show("s").progress) == ("active", 40)
    assert [wreck.message(id).status for id in (1, 2)] == ["ready", "ready"]
    with refused("lease_lost", 76):
        wreck.ack("1.1")
    assert wreck.interrupted() == []


def test_resume_is_something_that_happened(team: Bus) -> None:
    with clock.moved(299):
        assert not team.recovery_apply("s", "resume", by="me").changed
    with clock.moved(300):
        assert [found.session_id for found in team.interrupted()] == ["s"]
        assert team.recovery_apply("s", "resume", by="me").changed
        assert not team.recovery_apply("s", "resume", by="me").changed
        assert team.interrupted() == []


@pytest.mark.parametrize("option", ["resume", "restart", "abandon"])
def test_a_second_time_nothing_is_left_to_do(wreck: Bus, option: str) -> None:
    first = wreck.recovery_apply("s", option, by="me")
    before = (wreck.session_show("s"), wreck.agents(), wreck.messages())
    second = wreck.recovery_apply("s", option, by="you")
    assert (first.changed, second.changed) == (True, False)
    assert (second.failed, second.given_back, second.status) == ([], [], first.status)
    assert (wreck.session_show("s"), wreck.agents(), wreck.messages()) == before


def test_what_has_ended_is_recovered_no_more(team: Bus, process: Process) -> None:
    team.register("late", type="validation", session="s", pid=process.pid)
    team.session_abandon("s")
    process.kill()
    process.wait()
    before = (team.session_show("s"), team.agents())
    done = team.recovery_apply("s", "abandon", by="me")
    assert (done.changed, done.failed) == (False, [])
    assert (team.session_show("s"), team.agents()) == before


def test_who_is_marked_failed_keeps_what_is_known_of_its_error(wreck: Bus) -> None:
    wreck.heartbeat("one", task="t")
    wreck.update("lost", error_info={"disk": "full"})
    wreck.heartbeat("two", task="t")
    wreck.update("two", error_info='"words alone"')
    with clock.moved(1860):
        assert set(wreck.recovery_apply("s", "resume", by="me").failed) == {"boss", "lost", "one", "two"}
        agents = {agent.agent_id: agent for agent in wreck.agents()}
    assert (agents["lost"].error_info["disk"], agents["lost"].error_info["was"]) == ("full", "active")
    assert (agents["two"].error_info["error"], agents["two"].error_info["by"]) == ("words alone", "me")
    assert {agent.current_task for agent in agents.values()} == {None}
    assert all(agent.completion_time for agent in agents.values())


@pytest.mark.parametrize("option", ["resume", "restart"])
def test_a_session_that_goes_on_has_not_ended_and_is_active_now(wreck: Bus, option: str) -> None:
    with clock.moved(3600):
        assert wreck.clean(stale="30m").failed_sessions == ["s"]
        assert wreck.session_show("s").completed_at
        assert wreck.recovery_apply("s", option, by="me").status == "active"
        session = wreck.session_show("s")
        assert (session.status, session.completed_at) == ("active", None)
        assert wreck.interrupted() == []


def test_a_session_without_artifacts_goes_on_as_far_as_it_was(bus: Bus) -> None:
    bus.register("v", type="validation", session="v", operation="validation")
    bus.session_progress("v", 30)
    bus.retire("v", status="failed")
    assert bus.recovery_apply("v", "resume", by="me").changed
    assert bus.session_show("v").progress == 30


def test_the_latest_of_several_counts(wreck: Bus) -> None:
    for n, agent in enumerate(("two", "lost", "one")):
        with clock.moved(10 * (n + 1)):
            wreck.state_save(agent, EXECUTION[0], agent)
    with clock.moved(40):
        wreck.state_save("s", EXECUTION[2], "the session's own")
        wreck.checkpoint_create("lost", {"at": 2})
    with clock.moved(45):
        wreck.checkpoint_create("two", {"at": 1})
    with clock.moved(50):
        plan = wreck.recovery_plan("s")
        (found,) = wreck.interrupted()
    assert [artifact.saved_by for artifact in plan.artifacts] == ["one", "one", "s", None]
    (lost,) = [member for member in plan.agents if member.agent_id == "lost"]
    assert lost.checkpoint
    assert lost.checkpoint.state_snapshot == {"at": 2}
    assert found.checkpoint_age == pytest.approx(5, abs=1)


def test_restart_begins_from_nothing_and_keeps_artifacts(wreck: Bus) -> None:
    wreck.session_progress("s", 40, phase="spec")
    wreck.recovery_apply("s", "restart", by="me")
    session = wreck.session_show("s")
    assert (session.status, session.progress, session.phase) == ("active", 0, None)
    assert wreck.state_load("lost", EXECUTION[0]) == "d"
    wreck.register("lost", type="milestone-executor", session="s")
    assert wreck.checkpoint_restore("lost") is None
    (before,) = wreck.checkpoint_list("lost")
    assert wreck.checkpoint_restore("lost", checkpoint=before.checkpoint_id)
    with clock.moved(1):
        wreck.checkpoint_create("lost", {"at": 2})
    assert wreck.checkpoint_restore("lost").checkpoint.state_snapshot == {"at": 2}  # type: ignore[union-attr]


def test_a_checkpoint_of_the_very_moment_of_a_restart_was_made_before(wreck: Bus) -> None:
    with clock.moved(to=clock.seconds() + 60):
        wreck.checkpoint_create("one", {"at": 1})
        wreck.recovery_apply("s", "restart", by="me")
        assert wreck.checkpoint_restore("one") is None


def test_what_was_restarted_and_went_on_is_restarted_again(wreck: Bus) -> None:
    wreck.recovery_apply("s", "restart", by="me")
    for progress, phase in ((10, None), (0, "design")):
        wreck.session_progress("s", progress, phase=phase)
        assert wreck.recovery_apply("s", "restart", by="me").changed
        assert (wreck.session_show("s").progress, wreck.session_show("s").phase) == (0, None)
        assert not wreck.recovery_apply("s", "restart", by="me").changed


def test_what_was_restarted_and_has_a_checkpoint_since_is_restarted_again(wreck: Bus) -> None:
    wreck.recovery_apply("s", "restart", by="me")
    with clock.moved(1):
        wreck.checkpoint_create("one", {"at": 3})
    with clock.moved(2):
        assert wreck.recovery_apply("s", "restart", by="me").changed
        assert wreck.checkpoint_restore("one") is None
        assert not wreck.recovery_apply("s", "restart", by="me").changed
    wreck.session_complete("s")
    with clock.moved(60):
        wreck.register("one", type="milestone-executor", session="s")
        assert wreck.recovery_apply("s", "restart", by="me").changed


def test_complete_needs_all_artifacts(wreck: Bus) -> None:
    with refused("unfit_option", 65):
        wreck.recovery_apply("s", "complete", by="me")
    assert wreck.message(1).status == "leased"
    for key in EXECUTION[2:]:
        wreck.state_save("two", key, "x")
    assert options(wreck.recovery_plan("s")) == ["complete", "resume", "restart", "abandon"]
    done = wreck.recovery_apply("s", "complete", by="me")
    assert (done.status, done.failed, wreck.session_show("s").status) == ("completed", ["lost"], "completed")
    assert not wreck.recovery_apply("s", "complete", by="me").changed
    assert wreck.recovery_plan("s").options == []
    for option in ("resume", "restart", "abandon"):
        with refused("already_ended", 76):
            wreck.recovery_apply("s", option, by="me")


def test_what_is_complete_stays_so_when_an_artifact_goes(team: Bus) -> None:
    for key in EXECUTION:
        team.state_save("one", key, "x")
    assert team.recovery_apply("s", "complete", by="me").changed
    team.state_delete("one", EXECUTION[0])
    assert not team.recovery_apply("s", "complete", by="me").changed


def test_a_type_without_artifacts_gets_resume_and_abandon(bus: Bus) -> None:
    bus.register("v", type="validation", session="v", operation="validation")
    plan = bus.recovery_plan("v")
    assert (options(plan), plan.progress) == (["resume", "abandon"], None)
    for option in ("complete", "restart", "create-milestone"):
        with refused("unfit_option", 65):
            bus.recovery_apply("v", option, by="me")
    with refused("usage", 64):
        bus.recovery_apply("v", "pray", by="me")


def test_a_projects_own_operation_type_is_recovered_by_its_artifacts(bus: Bus) -> None:
    bus.types_add("operation", "release", artifacts={"notes": 1, "tag": 3})
    bus.register("r", type="git-operations", session="r", operation="release")
    bus.state_save("r", "tag", "v1")
    bus.state_save("stranger", "notes", "not of this session")
    assert bus.recovery_plan("r").progress == 75
    bus.state_save("r", "notes", "soon over", ttl=5)
    assert options(bus.recovery_plan("r")) == ["complete", "restart", "abandon"]
    with clock.moved(6):
        assert bus.recovery_plan("r").progress == 75
    bus.state_save("r", "notes", "kept under the session's own name")
    bus.state_delete("r", "notes")
    bus.state_save("r", "tag", "v2")
    assert bus.recovery_apply("r", "abandon", by="me").status == "abandoned"


def test_past_the_retry_limit_what_the_dead_held_is_buried(team: Bus, process: Process) -> None:
    team.config_set("message_retry_limit", "0")
    team.register("lost", type="validation", session="s", pid=process.pid)
    team.send("boss", "lost", TASK, {})
    team.receive("lost")
    process.kill()
    process.wait()
    done = team.recovery_apply("s", "resume", by="me")
    assert (done.given_back, done.buried, team.message(1).dead_reason) == ([], [1], "retries_exhausted")


# --- milestones


@pytest.fixture
def planned(bus: Bus) -> Bus:
    """A planning session with a plan."""
    bus.register("planner", type="milestone-planner", session="p", operation="planning", milestone="m7")
    plan = {
        "title": "Ship it",
        "tasks": [{"name": "build"}],
        "timeline": {"weeks": 2},
        "dependencies": ["m6"],
        "priority": 8,
        "owner": "ann",
    }
    bus.state_save("planner", "milestone-plan", json.dumps(plan))
    return bus


@pytest.mark.parametrize(
    "plan",
    ["[" * 5000 + "]" * 5000, "[" * 64 + "]" * 64, f'{{"tasks": {2**63}}}', r'{"title": "Ship\u0000it"}', "{,}"],
    ids=["deep", "deep-for-a-bus", "large", "nul", "no-json"],
)  # fmt: skip
def test_any_text_is_a_plan(planned: Bus, plan: str) -> None:
    planned.state_save("p", "milestone-plan", plan)
    made = planned.recovery_apply("p", "create-milestone", by="me").milestone_id
    assert planned.milestone_show(made or "").data["plan"] == plan


def test_a_plan_keeps_what_it_calls_data(planned: Bus) -> None:
    planned.state_save("p", "milestone-plan", '{"title": "Ship it", "data": {"budget": 7}}')
    planned.recovery_apply("p", "create-milestone", by="me", milestone="m7")
    made = planned.milestone_show("m7")
    assert (made.title, made.data["data"], milestones.document(made)["data"]) == (
        "Ship it", {"budget": 7}, {"budget": 7},
    )  # fmt: skip


def test_a_milestone_is_made_from_a_plan(planned: Bus, tmp_path: Path) -> None:
    assert "create-milestone" in options(planned.recovery_plan("p"))
    done = planned.recovery_apply("p", "create-milestone", by="me")
    assert (done.milestone_id, done.status, planned.session_show("p").status) == ("m7", "completed", "completed")
    made = planned.milestone_show("m7")
    assert (made.title, made.status, made.priority) == ("Ship it", "planned", 8)
    assert made.data["phase_weights"] == {"design": 15, "spec": 25, "task": 20, "execute": 40}
    assert (made.data["tasks"], made.data["timeline"], made.data["dependencies"], made.data["owner"]) == (
        [{"name": "build"}], {"weeks": 2}, ["m6"], "ann",
    )  # fmt: skip
    assert (made.data["planning_session"], made.data["recovered"]) == ("p", True)
    assert not [key for key in made.data if key.startswith("planned_")]
    path, written = milestones.export(made, tmp_path / ".milestones")
    assert written
    assert path == tmp_path / ".milestones" / "active" / "m7.yaml"
    assert "title: Ship it\nstatus: planned\n" in path.read_text()
    assert os.listdir(path.parent) == ["m7.yaml"]
    assert milestones.export(made, tmp_path / ".milestones") == (path, True)
    path.write_text("mine\n")
    assert milestones.export(made, tmp_path / ".milestones") == (path, False)
    assert path.read_text() == "mine\n"


def test_a_milestone_is_made_once_and_never_over_another(planned: Bus) -> None:
    assert planned.recovery_apply("p", "create-milestone", by="me", milestone="mine").milestone_id == "mine"
    again = planned.recovery_apply("p", "create-milestone", by="me", milestone="mine")
    assert (again.changed, again.milestone_id, len(planned.milestone_list())) == (False, "mine", 1)
    assert planned.recovery_apply("p", "create-milestone", by="me").milestone_id == "mine"
    with refused("milestone_exists", 76):
        planned.recovery_apply("p", "create-milestone", by="me", milestone="another")
    assert [milestone.id for milestone in planned.milestone_list()] == ["mine"]
    planned.register("q", type="milestone-planner", session="q", operation="planning")
    planned.state_save("q", "milestone-plan", "just words")
    with refused("milestone_exists", 76):
        planned.recovery_apply("q", "create-milestone", by="me", milestone="mine")
    with refused("invalid_id", 65):
        planned.recovery_apply("q", "create-milestone", by="me", milestone="not an id")
    assert planned.session_show("q").status == "active"
    assert planned.recovery_apply("q", "create-milestone", by="me").milestone_id == "milestone-q"
    assert planned.milestone_show("milestone-q").data["plan"] == "just words"


@pytest.mark.parametrize("priority", [0, 11, 99, True, 7.5, "8", None])
def test_a_plan_of_which_little_can_be_used_makes_a_milestone_all_the_same(bus: Bus, priority: object) -> None:
    bus.register("planner", type="milestone-planner", session="p", operation="planning")
    plan = {"id": "no id!", "milestone_id": 7, "title": ["none"], "priority": priority, "status": "done", "data": 1}
    bus.state_save("planner", "milestone-plan", json.dumps(plan))
    bus.recovery_apply("p", "create-milestone", by="me")
    (made,) = bus.milestone_list()
    assert (made.id, made.title, made.status, made.priority) == (
        "milestone-p", "Milestone of session p", "planned", 5,
    )  # fmt: skip
    assert not {"id", "title", "status", "priority"} & set(made.data)
    kept = {key.removeprefix("planned_"): value for key, value in made.data.items() if key.startswith("planned_")}
    assert kept == {key: plan[key] for key in ("id", "title", "priority", "status") if plan[key] is not None}
    assert made.data["data"] == 1


def test_a_session_with_the_longest_id_gives_its_milestone_a_name(bus: Bus) -> None:
    longest = "p" * 128
    bus.register("planner", type="milestone-planner", session=longest, operation="planning")
    bus.state_save("planner", "milestone-plan", "just words")
    assert bus.recovery_apply(longest, "create-milestone", by="me").milestone_id == longest


def test_a_milestone_is_made_in_any_session_that_has_come_to_a_plan_alone(bus: Bus) -> None:
    bus.register("boss", type="milestone-coordinator", session="p")
    bus.register("planner", type="milestone-planner", session="p")
    assert "create-milestone" not in options(bus.recovery_plan("p"))
    bus.state_save("planner", "milestone-plan", "just words")
    bus.state_save("stranger", "milestone-plan", "other words")
    assert bus.recovery_plan("p").planner == "planner"
    bus.state_save("boss", "design-phase-results", "x")
    assert "create-milestone" not in options(bus.recovery_plan("p"))
    with refused("unfit_option", 65):
        bus.recovery_apply("p", "create-milestone", by="me")
    bus.state_delete("boss", "design-phase-results")
    assert "create-milestone" in options(bus.recovery_plan("p"))
    made = [bus.recovery_apply("p", "create-milestone", by="me") for _ in range(2)]
    assert [(done.milestone_id, done.changed) for done in made] == [("milestone-p", True), ("milestone-p", False)]
    assert bus.milestone_show("milestone-p").data["plan"] == "just words"


def test_without_a_plan_there_is_no_milestone(bus: Bus) -> None:
    bus.register("planner", type="milestone-planner", session="p", operation="planning")
    with refused("unfit_option", 65):
        bus.recovery_apply("p", "create-milestone", by="me")
    assert bus.milestone_list() == []


# --- the monitor


def test_a_check_gives_back_what_the_dead_hold(wreck: Bus) -> None:
    done = wreck.monitor_check()
    assert (done.given_back, done.buried, done.failed, list(done.dead)) == (2, 0, [], ["lost"])
    again = wreck.monitor_check()
    assert (again.given_back, again.buried, again.due, again.pruned) == (0, 0, 0, 0)
    assert [message.id for message in wreck.pending("lost")] == [1, 2]


@pytest.mark.parametrize("way", ["retire", "heartbeat"])
def test_an_agent_taken_for_dead_can_say_itself_that_it_failed(team: Bus, way: str) -> None:
    with clock.moved(1860):
        assert "one" in team.monitor_check().failed
        said = team.retire("one", status="failed") if way == "retire" else team.heartbeat("one", status="failed")
        assert (said.status, said.error_info) == ("failed", None)
        assert said.completion_time
    with clock.moved(1900):
        assert [team.heartbeat(name).status for name in ("boss", "one", "two")] == ["active", "failed", "active"]
        (found,) = team.interrupted()
        assert (found.active, found.dead) == (2, 1)


def test_nothing_is_left_of_the_note_when_an_agent_taken_for_dead_lives(team: Bus) -> None:
    team.send("boss", "one", "task_assignment", {})
    team.receive("one")
    team.update("two", error_info={"disk": "full"})
    with clock.moved(1860):
        assert {"one", "two"} <= set(team.monitor_check().failed)
        assert [team.heartbeat(name).error_info for name in ("one", "two")] == [None, {"disk": "full"}]
    with clock.moved(3900):
        team.recovery_apply("s", "resume", by="me")
        assert [team.heartbeat(name).error_info for name in ("one", "two")] == [None, {"disk": "full"}]


def test_an_agent_taken_for_dead_that_tells_of_an_error_lives_and_may_fail_of_it(team: Bus) -> None:
    with clock.moved(1860):
        assert "one" in team.monitor_check().failed
        assert team.update("one", error_info={"disk": "full"}).status == "active"
    with clock.moved(1870):
        assert team.retire("one", status="failed").error_info == {"disk": "full"}
        assert team.heartbeat("one").status == "failed"


def test_who_checks_or_cleans_has_a_name_that_can_be_written(bus: Bus) -> None:
    for by in ("\ud800", "a\0b", None):
        for call in (bus.monitor_check, partial(bus.clean, stale=0), partial(bus.recovery_apply, "s", "resume")):
            with refused("invalid_value", 65):
                call(by=by)


def test_a_check_marks_the_long_silent_failed(team: Bus, process: Process) -> None:
    team.register("quiet", type="validation", session="s", pid=process.pid)
    team.send("boss", "one", TASK, {})
    team.receive("one", lease=7200)
    with clock.moved(1799):
        assert team.monitor_check().failed == []
    with clock.moved(1801):
        done = team.monitor_check()
        assert (done.failed, done.given_back, done.buried) == (["boss", "one", "two"], 1, 0)
        assert team.message(1).status == "ready"
        assert team.monitor_check().failed == []
    states = {agent.agent_id: agent.status for agent in team.agents()}
    assert states == {"boss": "failed", "one": "failed", "two": "failed", "quiet": "active"}
    told = {agent.agent_id: agent.error_info for agent in team.agents()}
    assert (told["one"]["given_back"], told["one"]["buried"]) == ([1], [])
    assert "given_back" not in told["two"]


def test_a_check_tells_what_died_with_the_long_silent(team: Bus) -> None:
    team.config_set("message_retry_limit", "0")
    team.send("boss", "one", TASK, {})
    team.receive("one", lease=7200)
    with clock.moved(1801):
        done = team.monitor_check()
    assert (done.given_back, done.buried, team.message(1).dead_reason) == (0, 1, "retries_exhausted")
    assert [agent.error_info["buried"] for agent in team.agents() if agent.agent_id == "one"] == [[1]]


def test_a_check_moves_what_is_due_in_any_mailbox(team: Bus) -> None:
    team.send("boss", "one", TASK, {}, delay=5)
    team.send("boss", "nobody-yet", TASK, {}, delay=5)
    team.send("boss", "@validation", TASK, {}, expires=5)
    team.send("boss", "two", TASK, {})
    team.receive("two", lease=5)
    assert team.monitor_check().due == 0
    with clock.moved(6):
        assert team.monitor_check().due == 4
        assert [team.message(id).status for id in (1, 2, 3, 4)] == ["ready", "ready", "dead", "ready"]
        team.ack("4.1")  # nobody has taken it yet


def test_the_monitor_sleeps_until_a_process_dies(team: Bus, process: Process) -> None:
    team.register("lost", type="validation", session="s", pid=process.pid)
    done = team.monitor_check()
    process.kill()
    process.wait()
    team.monitor_wait(600, since=done)
    assert list(team.monitor_check().dead) == ["lost"]


def test_a_check_leaves_who_has_ended(team: Bus, process: Process) -> None:
    team.register("done", type="validation", session="s", pid=process.pid)
    for agent, status in (("one", "completed"), ("two", "terminated"), ("done", "completed")):
        team.retire(agent, status=status)
    process.kill()
    process.wait()
    with clock.moved(1801):
        done = team.monitor_check()
    assert (done.failed, dict(done.dead)) == (["boss"], {})
    assert sorted(agent.status for agent in team.agents()) == ["completed", "completed", "failed", "terminated"]


# --- cleanup


def test_cleanup_marks_the_stale_failed_and_abandons_what_failed_long_ago(team: Bus, process: Process) -> None:
    team.register("alive", type="validation", session="living", pid=process.pid)
    team.send("boss", "one", TASK, {})
    team.receive("one", lease=7200)
    with clock.moved(1000):
        assert team.clean(stale="30m", failed="24h").failed_agents == []
        team.register("late", type="validation", session="late")
    with clock.moved(1900):
        done = team.clean(stale="30m", failed="24h")
        assert (done.failed_agents, done.failed_sessions, done.given_back) == (["boss", "one", "two"], ["s"], 1)
        again = team.clean(stale="30m", failed="24h")
        assert (again.failed_agents, again.failed_sessions, again.given_back) == ([], [], 0)
    counts = team.session_counts()
    assert (counts.total, counts.active, counts.failed, counts.abandoned) == (3, 2, 1, 0)
    with clock.moved(1900 + 86401):
        assert team.clean(failed="24h").abandoned_sessions == ["s"]
        assert team.clean(failed="24h").abandoned_sessions == []
        assert team.session_counts().abandoned == 1


def test_a_session_is_abandoned_a_day_after_it_was_found_failed(team: Bus) -> None:
    with clock.moved(3600):
        assert team.clean(stale="30m", failed="24h").failed_sessions == ["s"]
    found = team.session_show("s")
    assert found.completed_at
    assert (found.completed_at - found.last_activity).total_seconds() > 3590
    with clock.moved(86400):
        assert team.clean(failed="24h").abandoned_sessions == []
    with clock.moved(3600 + 86401):
        assert team.clean(failed="24h").abandoned_sessions == ["s"]


def test_a_session_that_was_taken_for_dead_lives_when_an_agent_of_it_is_heard_of(team: Bus) -> None:
    team.register("single", type="validation", session="other")
    with clock.moved(1900):
        assert team.clean(stale="30m").failed_sessions == ["other", "s"]
    with clock.moved(2000):
        team.heartbeat("one")
        team.register("new", type="validation", session="other")
        found = [team.session_show(session) for session in ("s", "other")]
        assert [(session.status, session.completed_at) for session in found] == [("active", None)] * 2
    with clock.moved(1900 + 86401):
        assert team.clean(failed="24h").abandoned_sessions == []
        assert {session.session_id for session in team.interrupted()} == {"s", "other"}


def test_a_session_lives_again_though_something_else_was_heard_of_it_first(team: Bus) -> None:
    """A shell function stores its message first, and is a heartbeat then: at the same moment."""
    with clock.moved(1900):
        assert team.clean(stale="30m").failed_sessions == ["s"]
    with clock.moved(to=clock.seconds() + 2000):
        team.session_progress("s", 50)
        team.heartbeat("one")
        assert team.session_show("s").status == "active"


def test_cleanup_and_counts_go_by_the_silence_they_are_told(team: Bus) -> None:
    with clock.moved(700):
        assert team.clean(stale="20m").failed_agents == []
        assert team.session_counts().stale == 0
        team.config_set("session_timeout", "600")
        assert team.session_counts().stale == 1
        done = team.clean(stale="10m")
        assert (done.failed_agents, done.failed_sessions) == (["boss", "one", "two"], ["s"])


def test_counts_are_of_the_last_days(team: Bus) -> None:
    team.register("p", type="milestone-planner", session="p")
    team.session_complete("p")
    with clock.moved(1801):
        counts = team.session_counts()
        assert (counts.total, counts.active, counts.completed, counts.stale) == (2, 1, 1, 1)
    with clock.moved(8 * 86400):
        assert (team.session_counts().total, team.session_counts().stale) == (0, 0)
        assert team.session_counts(days=9).stale == 1


@pytest.mark.parametrize("days", [float("nan"), float("inf"), -5, 0, 1e300])
def test_sessions_are_counted_over_some_days(team: Bus, days: float) -> None:
    with refused("usage", 64):
        team.session_counts(days=days)


# --- starting again


def test_failed_agents_are_taken_to_be_started_again_once(wreck: Bus) -> None:
    wreck.update("lost", command="work")
    wreck.recovery_apply("s", "resume", by="me")
    (found,) = wreck.recovery_respawn("s")
    assert (found.agent_id, found.command, found.session_id) == ("lost", "work", "s")
    assert wreck.recovery_respawn("s") == []
    wreck.recovery_spawned("lost", pid=os.getpid())
    (agent,) = [agent for agent in wreck.agents() if agent.agent_id == "lost"]
    assert (agent.status, agent.pid, agent.process_started_at) == (
        "spawning", os.getpid(), liveness.started_at(os.getpid()),
    )  # fmt: skip
    with refused("unknown_session", 66):
        wreck.recovery_respawn("nowhere")


def test_who_is_started_again_is_another_process_and_comes_by_a_command(wreck: Bus) -> None:
    wreck.retire("one", status="failed")
    wreck.update("lost", command="work")
    wreck.recovery_apply("s", "resume", by="me")
    with clock.moved(60):
        assert [found.agent_id for found in wreck.recovery_respawn("s")] == ["lost"]
        agents = {agent.agent_id: agent for agent in wreck.agents()}
    found = agents["lost"]
    assert (found.status, found.completion_time, found.host, found.pid, found.boot_id) == (
        "spawning", None, None, None, None,
    )  # fmt: skip
    assert found.spawn_time == found.last_heartbeat
    assert (found.spawn_time - agents["two"].spawn_time).total_seconds() > 59
    assert agents["one"].status == "failed"


def test_what_an_agent_registers_itself_comes_before_what_it_was_started_as(wreck: Bus, process: Process) -> None:
    wreck.update("lost", command="work")
    wreck.recovery_apply("s", "resume", by="me")
    wreck.recovery_respawn("s")
    wreck.register("lost", type="milestone-executor", session="s", pid=os.getpid())
    wreck.recovery_spawned("lost", pid=process.pid)
    assert {agent.agent_id: agent.pid for agent in wreck.agents()}["lost"] == os.getpid()


def test_agents_are_started_again_in_the_order_of_their_ids(team: Bus) -> None:
    for agent, command in (("two", "a"), ("boss", "c"), ("one", "b")):
        team.update(agent, command=command)
        team.retire(agent, status="failed")
    assert [found.agent_id for found in team.recovery_respawn("s")] == ["boss", "one", "two"]
