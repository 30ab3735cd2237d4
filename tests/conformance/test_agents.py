"""Registry, sessions, types, settings, steps, the bus as a whole."""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bus import Bus, clock, messages, sessions, state, step
from bus.errors import BusError, InvalidPayload
from tests.conformance.refusal import refused
from tests.conftest import Process

TASK = "task_assignment"


def test_registering_makes_the_session(bus: Bus) -> None:
    agent = bus.register(
        "a", type="milestone-planner", session="s", milestone="m", operation="planning", capabilities=["x", "y"]
    )
    session = bus.session_show("s")
    assert (agent.status, agent.capabilities, agent.milestone_id) == ("active", ["x", "y"], "m")
    assert (session.operation_type, session.milestone_id, session.agent_count, session.status) == (
        "planning", "m", 1, "active",
    )  # fmt: skip
    assert session.created_at == session.last_activity == agent.spawn_time
    assert session.coordinator_id is None


def test_bad_registrations_are_refused(bus: Bus) -> None:
    with refused("unknown_type", 65):
        bus.register("a", type="plumber", session="s")
    with refused("unknown_type", 65):
        bus.register("a", type="validation", session="s", operation="party")
    with refused("invalid_json", 65):
        bus.register("a", type="validation", session="s", capabilities="[")
    with pytest.raises(InvalidPayload, match="capabilities are a JSON array"):
        bus.register("a", type="validation", session="s", capabilities="{}")
    with refused("usage", 64):
        bus.register("a", type="validation", session="s", pid=2**22 + 1)
    for bad in ("", "-a", ".a", "@a", "a b", "é", "a/b", "x" * 129, "a\n", "a\0"):
        with refused("invalid_id", 65):
            bus.register(bad, type="validation", session="s")
        with refused("invalid_id", 65):
            bus.register("a", type="validation", session=bad)
    assert bus.agents() == []
    assert bus.session_list() == []


@pytest.mark.parametrize("bad", ["\ud800", "a\0"])
def test_an_id_that_cannot_be_written_is_none_before_anything_is_looked_for(team: Bus, bad: str) -> None:
    with refused("invalid_id", 65):
        team.ack_and_receive(bad, "9.9")
    with refused("invalid_address", 65):
        team.send("nobody", bad, TASK, {})
    with refused("invalid_key", 65):
        team.state_save("nobody", bad, "")
    with pytest.raises(BusError) as caught:
        team.apply([state.save("one", "k", "v"), sessions.complete(bad)])
    assert (caught.value.code, caught.value.index) == ("invalid_id", 1)
    assert team.state_load("one", "k") is None


@pytest.mark.parametrize("name", ["milestone", "command"])
@pytest.mark.parametrize("words", ["a\0b", "\ud800", 7])
def test_what_is_no_text_is_not_registered(bus: Bus, name: str, words: object) -> None:
    with refused("invalid_value", 65):
        bus.register("one", type="validation", session="s", **{name: words})  # type: ignore[arg-type]  # a keyword that varies
    assert bus.agents() == []


def test_the_coordinator_is_the_sessions(team: Bus) -> None:
    assert team.session_show("s").coordinator_id == "boss"
    assert team.session_show("s").agent_count == 3


def test_an_agent_that_changes_session_is_counted_there(team: Bus) -> None:
    team.register("one", type="milestone-executor", session="t")
    assert (team.session_show("s").agent_count, team.session_show("t").agent_count) == (2, 1)


def test_registering_again_is_a_restart(team: Bus) -> None:
    team.state_save("one", "k", "v")
    team.checkpoint_create("one", {"a": 1})
    team.update("one", error_info={"what": "broke"}, command="run me")
    team.retire("one", status="failed")
    again = team.register("one", type="milestone-executor", session="s")
    assert (again.status, again.error_info, again.completion_time, again.command) == ("active", None, None, "run me")
    assert team.state_load("one", "k") == "v"
    assert team.checkpoint_restore("one")


def test_registering_again_keeps_what_it_does_not_tell(team: Bus) -> None:
    team.register("one", type="validation", session="s", milestone="m", capabilities=["x"], command="run me")
    with clock.moved(60):
        again = team.register("one", type="validation", session="s")
    assert (again.milestone_id, again.capabilities, again.command) == ("m", ["x"], "run me")
    assert again.spawn_time == again.last_heartbeat


def test_the_first_coordinator_stays_the_sessions(team: Bus) -> None:
    team.register("chief", type="milestone-coordinator", session="s")
    assert team.session_show("s").coordinator_id == "boss"


def test_an_update_leaves_what_it_does_not_tell(team: Bus) -> None:
    team.update("one", capabilities=["x"], resource_usage={"cpu": 1}, command="run me", error_info={"what": "broke"})
    found = team.update("one")
    assert (found.capabilities, found.resource_usage, found.command, found.error_info) == (
        ["x"], {"cpu": 1}, "run me", {"what": "broke"},
    )  # fmt: skip


def test_agents_are_listed_by_when_they_were_last_heard_of(team: Bus) -> None:
    team.register("far", type="validation", session="other")
    for n, agent in enumerate(["two", "far", "boss", "one"]):
        with clock.moved(60 * (n + 1)):
            team.heartbeat(agent)
    assert [agent.agent_id for agent in team.agents()] == ["one", "boss", "far", "two"]
    assert [agent.agent_id for agent in team.agents(session="s")] == ["one", "boss", "two"]


def test_an_agent_ended_when_it_first_said_so_and_has_no_task_then(team: Bus) -> None:
    team.heartbeat("one", task="t")
    ended = team.retire("one")
    assert ended.completion_time
    assert ended.current_task is None
    with clock.moved(60):
        assert team.retire("one", status="failed").completion_time == ended.completion_time
        assert team.heartbeat("one", status="terminated").completion_time == ended.completion_time
        assert team.heartbeat("one", status="active").completion_time is None


@pytest.mark.parametrize("status", ["completed", "failed", "terminated"])
def test_who_says_in_a_heartbeat_that_it_has_ended_holds_nothing(team: Bus, status: str) -> None:
    id = team.send("boss", "@milestone-executor", TASK, {})
    team.receive("one", lease="1h")
    team.heartbeat("one", status="paused")
    assert team.message(id).status == "leased"
    team.heartbeat("one", status=status)
    assert [message.id for message in team.receive("two")] == [id]


def test_an_acknowledgement_after_the_lease_ran_out_is_a_heartbeat_too(team: Bus) -> None:
    team.send("boss", "@milestone-executor", TASK, {})
    (message,) = team.receive("one", lease=5)
    with clock.moved(10):
        assert team.receive("two", type="progress_update") == []  # it comes back, and stays
        assert team.message(message.id).status == "ready"
        team.ack(message.receipt or "")
    heard = {agent.agent_id: agent.last_heartbeat for agent in team.agents()}
    assert message.delivered_at
    assert (heard["one"] - message.delivered_at).total_seconds() > 9


@pytest.mark.parametrize("acked", ["alone", "and received", "in a step"])
def test_an_acknowledgement_soon_after_the_hand_over_is_no_heartbeat(team: Bus, acked: str) -> None:
    team.send("boss", "one", TASK, {})
    with clock.moved(4):
        (message,) = team.receive("one", lease=60)
    receipt = message.receipt or ""
    with clock.moved(8):
        if acked == "alone":
            team.ack(receipt)
        elif acked == "and received":
            team.ack_and_receive("two", receipt)
        else:
            team.apply([state.save("two", "k", "v"), messages.ack(receipt)])
    heard = {agent.agent_id: agent.last_heartbeat for agent in team.agents()}
    assert message.delivered_at
    assert (heard["one"] - message.delivered_at).total_seconds() < 1


WORK = ["extend", "release", "reject", "save", "checkpoint", "broadcast", "update", "ack again"]


@pytest.mark.parametrize("work", WORK)
def test_work_is_a_heartbeat(team: Bus, work: str) -> None:
    team.send("boss", "one", TASK, {})
    (message,) = team.receive("one", lease=60)
    receipt = message.receipt or ""
    if work == "ack again":
        team.ack(receipt)
    with clock.moved(10):
        {
            "extend": lambda: team.extend(receipt),
            "release": lambda: team.release(receipt),
            "reject": lambda: team.reject(receipt, reason="no"),
            "save": lambda: team.state_save("one", "k", "v"),
            "checkpoint": lambda: team.checkpoint_create("one", {}),
            "broadcast": lambda: team.broadcast("one", TASK, {}),
            "update": lambda: team.update("one"),
            "ack again": lambda: team.ack(receipt),
        }[work]()
    (heard,) = [agent.last_heartbeat for agent in team.agents() if agent.agent_id == "one"]
    assert message.delivered_at
    assert (heard - message.delivered_at).total_seconds() > 9


def test_a_heartbeat_tells_status_task_and_phase(team: Bus) -> None:
    with clock.moved(60):
        agent = team.heartbeat("one", status="paused", task="t", phase="design")
        assert (agent.status, agent.current_task, agent.current_phase) == ("paused", "t", "design")
        assert agent.last_heartbeat.timestamp() == pytest.approx(clock.seconds(), abs=1)
        again = team.heartbeat("one")
        assert (again.status, again.current_task, again.current_phase) == ("paused", "t", "design")
    with refused("unknown_agent", 66):
        team.heartbeat("nobody")
    with refused("invalid_status", 65):
        team.heartbeat("one", status="asleep")


def test_every_operation_is_a_heartbeat_now_and_then(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    with clock.moved(3):
        team.receive("one")
    before = {a.agent_id: a.last_heartbeat for a in team.agents()}
    with clock.moved(10):
        team.send("boss", "one", TASK, {})
        team.receive("two")
        team.ack("1.1")
    after = {a.agent_id: a.last_heartbeat for a in team.agents()}
    assert all((after[agent] - before[agent]).total_seconds() >= 9 for agent in ("boss", "one", "two"))
    assert team.session_show("s").last_activity == max(after.values())


def test_a_message_makes_its_session_active_once_in_ten_seconds(bus: Bus) -> None:
    begun = clock.seconds() // 10 * 10
    seen = []
    for seconds in (8, 8.5, 10.5):
        with clock.moved(to=begun + seconds):
            if not seen:
                bus.register("a", type="validation", session="s")
            bus.send("a", "a", TASK, {})
            seen.append(bus.session_show("s").last_activity.timestamp() - begun)
    assert seen == [8, 8, 10.5]


@pytest.mark.parametrize(
    "act",
    [
        lambda bus: bus.state_save("one", "k", "v"),
        lambda bus: bus.state_delete("one", "k"),
        lambda bus: bus.apply([state.delete("one", "k")]),
        lambda bus: bus.checkpoint_create("one", {}),
        lambda bus: bus.broadcast("one", TASK, {}),
        lambda bus: bus.receive("one", limit=5),
    ],
)
def test_whatever_an_agent_does_is_a_heartbeat(team: Bus, act: Callable[[Bus], object]) -> None:
    with clock.moved(60):
        act(team)
        (heard,) = [agent.last_heartbeat.timestamp() for agent in team.agents() if agent.agent_id == "one"]
        assert clock.seconds() - heard < 5


def test_who_lives_is_worked_out(team: Bus, process: Process) -> None:
    team.register("mortal", type="validation", session="s", pid=process.pid)
    team.register("here", type="validation", session="s", pid=os.getpid())
    team.retire("two")

    def lives() -> dict[str, str]:
        found = team.agents(session="s")
        return {agent.agent_id: life for agent, life in zip(found, team.lives(found), strict=True)}

    assert lives() == {"boss": "alive", "one": "alive", "two": "dead", "mortal": "alive", "here": "alive"}
    with clock.moved(86400):
        assert lives() == {"boss": "dead", "one": "dead", "two": "dead", "mortal": "alive", "here": "alive"}
    process.kill()
    process.wait()
    assert lives()["mortal"] == "dead"


def test_who_lives_is_asked_of_agents(team: Bus) -> None:
    found = team.agents(session="s")
    with clock.moved(31):
        assert set(team.lives(found, silence="30s")) == {"dead"}
        assert set(team.lives(found, silence=timedelta(seconds=60))) == {"alive"}
    with refused("usage"):
        team.lives(["one"])  # type: ignore[list-item]
    with refused("usage"):
        team.lives(found, silence="soon")


def test_retiring_needs_a_status_that_ends(team: Bus) -> None:
    with refused("invalid_status", 65):
        team.retire("one", status="active")
    with refused("unknown_agent", 66):
        team.retire("nobody")


# --- sessions


def test_a_session_progresses_and_ends(team: Bus) -> None:
    assert team.session_progress("s", 40, phase="spec").progress == 40
    for bad in (-1, 101, float("nan")):
        with refused("invalid_progress", 65):
            team.session_progress("s", bad)
    done = team.session_complete("s")
    assert (done.status, done.progress) == ("completed", 100)
    assert team.session_complete("s") == done
    with refused("already_ended", 76):
        team.session_abandon("s")
    assert [s.session_id for s in team.session_list(status="completed")] == ["s"]


@pytest.mark.parametrize("agent", ["one", "three"])
def test_a_session_that_was_completed_goes_on_when_somebody_begins_in_it(
    team: Bus, agent: str, process: Process
) -> None:
    """The same id the next night: who dies then is found."""
    team.session_complete("s")
    team.heartbeat("one")
    assert team.session_show("s").status == "completed"
    team.register(agent, type="milestone-executor", session="s", pid=process.pid)
    found = team.session_show("s")
    assert (found.status, found.completed_at, found.progress) == ("active", None, 0)
    assert team.interrupted() == []
    process.kill()
    process.wait()
    assert [session.session_id for session in team.interrupted()] == ["s"]
    team.session_complete("s")
    team.session_complete("s")
    assert team.session_show("s").status == "completed"


def test_an_abandoned_session_goes_on_when_somebody_begins_in_it(team: Bus) -> None:
    team.session_abandon("s")
    team.heartbeat("one")
    assert team.session_show("s").status == "abandoned"
    team.register("one", type="milestone-executor", session="s")
    assert (team.session_show("s").status, team.session_show("s").completed_at) == ("active", None)


def test_a_session_can_be_abandoned(team: Bus) -> None:
    assert team.session_abandon("s").status == "abandoned"
    assert team.session_abandon("s").status == "abandoned"
    with refused("already_ended", 76):
        team.session_complete("s")


def test_a_session_tells_when_it_was_active_and_when_it_ended(team: Bus) -> None:
    team.register("p", type="milestone-planner", session="p")
    with clock.moved(60):
        going = team.session_progress("s", 40, phase="spec")
    assert (going.last_activity - going.created_at).total_seconds() > 59
    with clock.moved(120):
        assert team.session_progress("s", 50).phase == "spec"
        for ended in (team.session_complete("s"), team.session_abandon("p")):
            assert ended.completed_at == ended.last_activity
            assert (ended.completed_at - ended.created_at).total_seconds() > 119
    with clock.moved(240):
        assert team.session_complete("s").completed_at == team.session_show("s").last_activity
        team.register("q", type="milestone-planner", session="q")
    with clock.moved(180):
        team.register("r", type="milestone-planner", session="r")
    assert [session.session_id for session in team.session_list()][:2] == ["q", "r"]


def test_an_unknown_session_is_an_error(bus: Bus) -> None:
    for act in (bus.session_show, bus.session_complete, bus.session_abandon, lambda s: bus.session_progress(s, 1)):
        with refused("unknown_session", 66):
            act("nowhere")
    with refused("invalid_status", 65):
        bus.session_list(status="lost")


# --- types and settings


def test_a_project_adds_types_of_its_own(team: Bus) -> None:
    team.types_add("agent", "painter", description="paints")
    team.types_add("state", "sketch")
    team.types_add("operation", "painting", artifacts={"draft": 30, "picture": 70})
    team.types_add(
        "message", "colour", schema={"properties": {"name": {"enum": ["red", "blue"]}}, "required": ["name"]}
    )
    team.register("p", type="painter", session="gallery", operation="painting")
    team.state_save("p", "k", "v", type="sketch")
    team.send("p", "@painter", "colour", {"name": "red"})
    for bad in ({"name": "green"}, {}):
        with refused("invalid_payload", 65):
            team.send("p", "@painter", "colour", bad)
    team.types_add("message", "colour", schema={})
    team.send("p", "@painter", "colour", {"name": "green"})
    (painting,) = [t for t in team.types_list(kind="operation") if t.name == "painting"]
    assert painting.definition == [{"key": "draft", "weight": 30}, {"key": "picture", "weight": 70}]


def test_what_is_not_given_of_a_type_stays(team: Bus) -> None:
    team.types_add("message", "task_assignment", description="mine")
    with refused("invalid_payload", 65):
        team.send("boss", "one", "task_assignment", {"phase": 7})
    team.types_add("operation", "execution", description="mine")
    team.types_add("agent", "validation")
    team.types_add("state", "system_data")
    found = {(kind.kind, kind.name): kind for kind in team.types_list()}
    assert found["message", "task_assignment"].description == found["operation", "execution"].description == "mine"
    assert [artifact["weight"] for artifact in found["operation", "execution"].definition or []] == [15, 25, 20, 40]
    assert found["agent", "validation"].description == "checks results"
    assert found["state", "system_data"].description == "kept by tools"
    team.types_add("operation", "execution", artifacts=[])
    team.types_add("message", "task_assignment", schema={})
    assert team.send("boss", "one", "task_assignment", {"phase": 7})


@pytest.mark.parametrize("keyword", ["pattern", "$ref", "oneOf", "format", "patternProperties", "if"])
def test_a_keyword_the_database_cannot_enforce_is_refused_by_name(bus: Bus, keyword: str) -> None:
    with pytest.raises(Exception, match=keyword.replace("$", r"\$")):
        bus.types_add("message", "m", schema={"properties": {"a": {keyword: "x"}}})
    with refused("unknown_type", 65):
        bus.register("a", type="validation", session="s")
        bus.send("a", "a", "m", {})


def test_a_key_is_its_letters_however_deep(bus: Bus) -> None:
    bus.register("a", type="validation", session="s")
    for key in ("{row}", "%s", ":now", "r1", "'"):
        within: dict[str, Any] = {"type": "string"}
        for name in ("b", "a", key):
            within = {"properties": {name: within}}
        bus.types_add("message", "m", schema=within)
        bus.send("a", "a", "m", {key: {"a": {"b": "5"}}})
        with refused("invalid_payload", 65):
            bus.send("a", "a", "m", {key: {"a": {"b": 5}}})


def test_bad_types_are_refused(bus: Bus) -> None:
    for bad in (
        {"type": "array"}, {"additionalProperties": True}, {"required": "a"}, {"properties": {"a": 1}}, "[1]",
        {"additionalProperties": False, "properties": 5},
    ):  # fmt: skip
        with refused("invalid_schema", 65):
            bus.types_add("message", "m", schema=bad)  # type: ignore[arg-type]
    with refused("invalid_id", 65):
        bus.types_add("agent", "a b")
    with refused("usage", 64):
        bus.types_add("colour", "red")
    with refused("usage", 64):
        bus.types_add("agent", "painter", schema={})
    with refused("usage", 64):
        bus.types_add("message", "colour", artifacts=["k"])


@pytest.mark.parametrize(
    ("artifacts", "code"),
    [
        ({"k": "9"}, "invalid_value"), ({"k": None}, "invalid_value"), ({"k": True}, "invalid_value"),
        ({"k": 0}, "invalid_value"), ({"k": 1e7}, "invalid_value"), ({"k": float("nan")}, "invalid_value"),
        ([5], "invalid_key"), ([["k"]], "invalid_key"), (["k", "k"], "invalid_key"), ({5: 1}, "invalid_key"),
        (["a b"], "invalid_key"), (5, "invalid_key"), ("key", "invalid_key"),
    ],
)  # fmt: skip
def test_artifacts_are_keys_with_weights(bus: Bus, artifacts: Any, code: str) -> None:
    before = bus.types_list(kind="operation")
    with refused(code, 65):
        bus.types_add("operation", "x", artifacts=artifacts)
    assert bus.types_list(kind="operation") == before


@pytest.mark.parametrize("given", [1.5, {"k": 1}])
@pytest.mark.parametrize(
    ("code", "act"),
    [
        ("invalid_status", lambda bus, given: bus.messages(status=given)),
        ("invalid_status", lambda bus, given: bus.session_list(status=given)),
        ("usage", lambda bus, given: bus.types_list(kind=given)),
        ("usage", lambda bus, given: bus.types_add(given, "x")),
        ("usage", lambda bus, given: bus.recovery_apply("s", given, by="me")),
        ("usage", lambda bus, given: bus.trace_throughput(by=given)),
        ("usage", lambda bus, given: bus.export_batch("t", limit=given)),
    ],
)
def test_what_is_no_word_is_refused_as_a_wrong_one_is(
    team: Bus, code: str, act: Callable[[Bus, Any], object], given: object
) -> None:
    with refused(code):
        act(team, given)


@pytest.mark.parametrize("given", [float("nan"), 2**63, b"x", "a\0b"])
def test_a_word_that_the_database_knows_is_text(team: Bus, given: Any) -> None:
    words: list[Callable[[], object]] = [
        lambda: team.register("new", type=given, session="s"),
        lambda: team.register("new", type="validation", session="s", operation=given),
        lambda: team.heartbeat("one", status=given), lambda: team.retire("one", status=given),
        lambda: team.send("one", "one", given, {}), lambda: team.broadcast("one", given, {}),
        lambda: team.send("one", "one", TASK, {}, traceparent=given), lambda: team.receive("one", type=given),
        lambda: team.ack_and_receive("one", "1.1", type=given), lambda: team.state_save("one", "k", "v", type=given),
        lambda: team.config_set(given, "5"), lambda: team.milestone_list(status=given),
        lambda: team.trace_spawn("x", "t", pid=1, traceparent=given),
        lambda: team.trace_velocity(type=given), lambda: team.trace_bottlenecks(type=given),
    ]  # fmt: skip
    for act in words:
        with refused("invalid_value", 65):
            act()
    assert team.messages() == team.state_list("one") == []


@pytest.mark.parametrize("given", [None, 7, b"one", "a\0b"])
def test_an_id_is_text(team: Bus, given: Any) -> None:
    team.register("7", type="validation", session="7")
    before = [team.agents(), team.session_list()]
    filters: list[Callable[[Any], object]] = [
        lambda id: team.agents(session=id), lambda id: team.messages(to=id), lambda id: team.messages(sender=id),
        lambda id: team.messages(session=id), lambda id: team.dead(session=id), lambda id: team.redrive(session=id),
        lambda id: team.checkpoint_latest("one", checkpoint=id), lambda id: team.checkpoint_prune(id),
        lambda id: team.recovery_apply("s", "abandon", by="me", milestone=id),
    ]  # fmt: skip
    names: list[Callable[[Any], object]] = [
        lambda id: team.register(id, type="validation", session="s"),
        lambda id: team.register("new", type="validation", session=id),
        team.heartbeat, lambda id: team.update(id, command="x"), team.retire,
        lambda id: team.send(id, "one", TASK, {}),
        lambda id: team.broadcast(id, TASK, {}), team.pending,
        team.receive, lambda id: team.receive(id, limit=2, wait=600), lambda id: team.ack_and_receive(id, "1.1"),
        lambda id: team.state_save(id, "k", "v"), lambda id: team.state_load(id, "k"),
        lambda id: team.state_load_versioned(id, "k"), team.state_list, lambda id: team.state_delete(id, "k"),
        lambda id: team.state_watch(id, "k", wait=600),
        lambda id: team.checkpoint_create(id, {}), team.checkpoint_list, team.checkpoint_show,
        team.checkpoint_latest, team.checkpoint_restore,
        team.session_show, lambda id: team.session_progress(id, 5), team.session_complete, team.session_abandon,
        team.recovery_plan, lambda id: team.recovery_apply(id, "abandon", by="me"), team.recovery_respawn,
        lambda id: team.recovery_spawned(id, pid=os.getpid()),
        lambda id: team.types_add("agent", id), lambda id: team.types_add("message", id, schema={}),
    ]  # fmt: skip
    for act in names if given is None else names + filters:
        with refused("invalid_id", 65):
            act(given)
    with refused("invalid_address", 65):
        team.send("one", given, TASK, {})
    keys: list[Callable[[Any], object]] = [
        lambda key: team.state_save("one", key, "v"), lambda key: team.state_load("one", key),
        lambda key: team.state_delete("one", key), lambda key: team.state_watch("one", key, wait=600),
    ]  # fmt: skip
    for act in keys:
        with refused("invalid_key", 65):
            act(given)
    assert [team.agents(), team.session_list()] == before
    assert team.messages() == team.state_list("one") == []


def test_settings_are_known_and_numbers_stay_numbers(bus: Bus) -> None:
    bus.config_set("lease_seconds", "7.5")
    assert {s.key: s.value for s in bus.config_list()}["lease_seconds"] == bus.config_get("lease_seconds") == "7.5"
    for asked in (bus.config_get, lambda key: bus.config_set(key, "red")):
        with refused("unknown_setting", 66):
            asked("colour")
    for bad in ("soon", "", "-1", "1.2.3", "."):
        with refused("invalid_value", 65):
            bus.config_set("lease_seconds", bad)
    for key in ("lease_seconds", "bus_id"):
        for bad in ("5\0s", "\ud800"):
            with refused("invalid_value", 65):
                bus.config_set(key, bad)


@pytest.mark.parametrize(
    ("key", "most"),
    [("failed_session_hours", "878400"), ("cleanup_retention_days", "36600"), ("stale_after", "3162240000")],
)
def test_a_setting_is_100_years_at_most_in_its_own_unit(bus: Bus, key: str, most: str) -> None:
    bus.config_set(key, most)
    for more in (f"{int(most) + 1}", f"{most}.5"):
        with refused("invalid_value", 65):
            bus.config_set(key, more)
    bus.clean(failed=f"{settings(bus)['failed_session_hours']}h")
    bus.prune()


@pytest.mark.parametrize("key", ["message_retry_limit", "max_payload_bytes", "advise_agents"])
def test_a_setting_that_counts_is_whole(bus: Bus, key: str) -> None:
    bus.config_set(key, "17")
    for part in ("1.5", "2.", ".5"):
        with refused("invalid_value", 65):
            bus.config_set(key, part)
    assert settings(bus)[key] == "17"


def settings(bus: Bus) -> dict[str, str]:
    return {setting.key: setting.value for setting in bus.config_list()}


# --- steps


def test_a_step_is_all_or_nothing(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    (message,) = team.receive("one")
    lines = [
        {"op": "messages.ack", "receipt": message.receipt},
        {"op": "state.save", "agent": "one", "key": "k", "value": "v"},
        {"op": "messages.send", "from": "one", "to": "boss", "type": "progress_update", "payload": {"progress": 5}},
        {"op": "checkpoint.create", "agent": "one", "snapshot": {"a": 1}},
        {"op": "messages.send", "from": "one", "to": "*", "type": "progress_update", "payload": {}, "reply-to": 1},
    ]
    bad = {"op": "messages.send", "from": "one", "to": "boss", "type": "progress_update", "payload": {"progress": 500}}
    with pytest.raises(Exception, match="500") as caught:
        team.apply([step.named(line) for line in [*lines, bad]])
    assert caught.value.index == 5  # type: ignore[attr-defined]
    assert team.message(1).status == "leased"
    assert team.state_load("one", "k") is None
    assert len(team.messages()) == 1
    with refused("usage"):
        team.apply([step.named(lines[0]), lines[1]])  # type: ignore[list-item]
    results = team.apply([step.named(line) for line in lines])
    assert results[:2] == [None, 1]
    assert 1 < results[2] < results[4][0] < results[4][1]
    assert team.message(1).status == "acknowledged"


def test_a_step_that_is_repeated_happens_once(team: Bus) -> None:
    team.send("boss", "one", "task_assignment", {})
    (message,) = team.receive("one")
    repeated = [messages.ack(message.receipt, once=True), state.save("one", "k", "v")]
    assert team.apply(repeated) == [None, 1]
    with refused("already_ended", 76):
        team.apply(repeated)
    assert team.state_load_versioned("one", "k") == ("v", 1)
    team.ack(message.receipt)  # by itself an acknowledgement may be repeated


def test_a_receipt_that_stands_twice_in_a_step_is_acknowledged_once(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    (message,) = team.receive("one")
    twice = messages.ack([message.receipt or ""] * 2, once=True)
    team.apply([twice])
    assert team.message(1).status == "acknowledged"
    with refused("already_ended", 76):
        team.apply([twice])


def test_a_step_redrives_all_when_it_is_told_so(team: Bus) -> None:
    ids = [team.send("boss", "one", TASK, {}) for _ in range(2)]
    for id in ids:
        team.cancel(id)
    assert team.apply([step.named({"op": "messages.redrive", "ids": ids[:1]})]) == [ids[:1]]
    assert team.apply([step.named({"op": "messages.redrive", "all": True})]) == [ids[1:]]


def test_a_step_sends_in_the_trace_context_around(team: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    around, given = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
    monkeypatch.setenv("TRACEPARENT", around)
    line = {"op": "messages.send", "from": "boss", "to": "one", "type": TASK, "payload": {}}
    ids = team.apply([step.named(line), step.named({**line, "traceparent": given})])
    assert [team.message(id).traceparent for id in ids] == [around, given]


def test_a_step_whose_lease_was_lost_changes_nothing(team: Bus) -> None:
    team.send("boss", "@milestone-executor", TASK, {})
    (mine,) = team.receive("one", lease=10)
    with clock.moved(11):
        team.receive("two")
        with refused("lease_lost", 76):
            team.apply(
                [
                    step.named({"op": "state.save", "agent": "one", "key": "k", "value": "v"}),
                    step.named({"op": "messages.ack", "receipt": mine.receipt}),
                ]
            )
    assert team.state_load("one", "k") is None


@pytest.mark.parametrize(
    "line", [{}, {"op": "fly"}, {"op": 7}, {"op": "messages.ack"}, {"op": "state.save", "x": 1}, []]
)
def test_what_is_no_operation_is_usage(line: object) -> None:
    with refused("usage", 64):
        step.named(line)  # type: ignore[arg-type]


# --- the bus as a whole


def test_prune_removes_what_is_old_and_never_the_newest(team: Bus) -> None:
    for _ in range(3):
        team.send("boss", "one", TASK, {})
    for message in team.receive("one", limit=3):
        team.ack(message.receipt or "")
    team.state_save("one", "k", "v", ttl=1)
    assert team.prune() == 0
    with clock.moved(8 * 86400):
        assert team.prune() == 2
        assert team.send("boss", "one", TASK, {}) == 4
        assert team.status()["messages"] == {"acknowledged": 1, "ready": 1}


def test_prune_goes_by_the_days_that_are_set(team: Bus) -> None:
    team.config_set("cleanup_retention_days", "2")
    for _ in range(2):
        team.send("boss", "one", TASK, {})
    team.ack([message.receipt or "" for message in team.receive("one", limit=2)])
    with clock.moved(1.9 * 86400):
        assert team.prune() == 0
    with clock.moved(2.1 * 86400):
        assert team.prune() == 1


def test_status_counts(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    found = team.status()
    assert (found["messages"], found["agents"], found["sessions"]) == ({"ready": 1}, {"active": 3}, {"active": 1})


def test_status_tells_the_oldest_what_is_kept_and_what_was_written_lately(team: Bus) -> None:
    for _ in range(30):
        team.send("boss", "one", TASK, {})
    team.ack([message.receipt or "" for message in team.receive("one", limit=28)])
    team.state_save("one", "kept", "v")
    team.state_save("one", "soon-over", "v", ttl=5)
    team.checkpoint_create("one", {})
    team.register("p", type="milestone-planner", session="p", milestone="m")
    team.register("q", type="milestone-planner", session="q", milestone="n")
    team.session_complete("q")
    with clock.moved(59):
        assert team.status()["load"]["writes_per_second"] == round(58 / 60, 1)
    with clock.moved(100):
        for _ in range(4):
            team.send("boss", "two", TASK, {})
        team.ack([message.receipt or "" for message in team.receive("one", limit=2)])
        found = team.status()
        assert found["oldest_ready"] == clock.rfc3339(team.message(31).created_at.timestamp())
    assert (found["state_keys"], found["checkpoints"]) == (1, 1)
    assert found["load"] == {**found["load"], "milestones": 1, "writes_per_second": round(6 / 60, 1)}


def test_status_says_when_a_bus_has_outgrown_its_file_and_why(team: Bus) -> None:
    assert team.status()["advice"] == []
    assert team.status()["load"]["agents"] == 3
    team.config_set("advise_agents", "3")
    team.config_set("advise_milestones_strongly", "1")
    team.register("a", type="validation", session="t", milestone="m")
    advice = team.status()["advice"]
    if team.url.path.endswith(".db"):
        assert [line.partition(":")[0] for line in advice] == ["move to PostgreSQL", "PostgreSQL is worth a thought"]
        assert "1 milestones, from 1 (advise_milestones_strongly)" in advice[0]
        assert "4 agents, from 3 (advise_agents)" in advice[1]
    else:
        assert advice == []  # in memory and on PostgreSQL there is no file


def test_a_threshold_counts_from_its_number_on(team: Bus) -> None:
    if team.url.path.endswith(".db"):
        for number, words in (("4", []), ("3", ["move to PostgreSQL"])):
            team.config_set("advise_agents_strongly", number)
            assert [line.partition(":")[0] for line in team.status()["advice"]] == words
    team.retire("one")
    assert team.status()["load"]["agents"] == 2


def test_the_doctor_warns_of_leases_that_are_over(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    team.receive("one", lease=5)
    for seconds, verdict, overdue in ((0, "ok", 0), (6, "warning", 1)):
        with clock.moved(seconds):
            (found,) = [finding for finding in team.doctor() if finding.subject == "leases"]
            assert (found.verdict, f"1 leased, {overdue} of them overdue" in found.details) == (verdict, True)


def test_an_operation_type_is_known_also_where_the_session_is_there(team: Bus) -> None:
    for session in ("s", "new"):
        with refused("unknown_type", 65):
            team.register("three", type="validation", session=session, operation="party")
    assert team.session_show("s").operation_type == "execution"


def test_the_operation_of_a_session_is_what_was_said_last_of_it(bus: Bus) -> None:
    bus.register("boss", type="milestone-coordinator", session="s")
    bus.register("one", type="milestone-planner", session="s")
    assert bus.session_show("s").operation_type == "execution"
    bus.register("one", type="milestone-planner", session="s", operation="planning")
    bus.register("boss", type="milestone-coordinator", session="s")
    assert bus.session_show("s").operation_type == "planning"


@pytest.mark.parametrize(
    ("type", "operation"),
    [("planning-aggregator", "planning"), ("milestone-planner", "planning"), ("validation", "execution")],
)
def test_a_session_that_one_who_plans_opens_is_of_planning(bus: Bus, type: str, operation: str) -> None:
    bus.register("one", type=type, session="s")
    bus.register("two", type=type, session="t", operation="cleanup")
    assert [bus.session_show(name).operation_type for name in "st"] == [operation, "cleanup"]


def test_the_doctor_finds_a_healthy_bus_healthy(team: Bus) -> None:
    assert {f.verdict for f in team.doctor() if f.subject not in ("library", "bus")} == {"ok"}


def test_the_doctor_tells_of_leases_that_ran_out_and_of_the_dead(team: Bus) -> None:
    def told() -> list[tuple[str, str]]:
        found = {finding.subject: finding for finding in team.doctor()}
        return [(found[name].verdict, found[name].details.split(" ")[0]) for name in ("leases", "dead letters")]

    for expires in (None, None, None, 5):
        team.send("boss", "one", TASK, {}, expires=expires)
    held = [message.receipt for message in team.receive("one", lease=10, limit=2)]
    team.cancel(3)
    assert told() == [("ok", "2"), ("ok", "0,")]
    team.reject(held[0], reason="nonsense")
    with clock.moved(11):
        team.monitor_check()
        team.receive("one", lease=10)
    with clock.moved(22):
        assert told() == [("warning", "1"), ("warning", "1,")]
        assert [message.dead_reason for message in team.dead()] == ["rejected", "cancelled", "expired"]


def test_a_type_that_is_added_again_is_changed(bus: Bus) -> None:
    for words in ("first", "second"):
        bus.types_add("agent", "painter", description=words)
        bus.types_add("state", "sketch", description=words)
        bus.types_add("operation", "painting", description=words, artifacts={words: 1})
        bus.types_add("message", "colour", description=words, schema={"required": [words]})
    listed = bus.types_list()
    assert [(type.kind, type.name) for type in listed] == sorted((type.kind, type.name) for type in listed)
    found = {type.name: type for type in listed}
    assert {found[name].description for name in ("painter", "sketch", "painting", "colour")} == {"second"}
    assert found["painting"].definition == [{"key": "second", "weight": 1}]
    assert found["colour"].definition["required"] == ["second"]
