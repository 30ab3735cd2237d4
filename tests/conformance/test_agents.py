"""Registry, sessions, types, settings, steps, the bus as a whole."""

import os
from collections.abc import Callable

import pytest

from bus import Bus, clock, messages, state, step
from bus.errors import InvalidPayload
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


@pytest.mark.parametrize("name", ["milestone", "command"])
@pytest.mark.parametrize("words", ["a\0b", "\ud800", 7])
def test_what_is_no_text_is_not_registered(bus: Bus, name: str, words: object) -> None:
    with refused("invalid_value", 65):
        bus.register("one", type="validation", session="s", **{name: words})  # type: ignore[arg-type]
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


def test_a_heartbeat_tells_status_task_and_phase(team: Bus) -> None:
    with clock.moved(60):
        agent = team.heartbeat("one", status="paused", task="t", phase="design")
        assert (agent.status, agent.current_task, agent.current_phase) == ("paused", "t", "design")
        assert agent.last_heartbeat.timestamp() == pytest.approx(clock.seconds(), abs=1)
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


@pytest.mark.parametrize(
    "act",
    [
        lambda bus: bus.state_save("one", "k", "v"),
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


def test_a_session_can_be_abandoned(team: Bus) -> None:
    assert team.session_abandon("s").status == "abandoned"
    assert team.session_abandon("s").status == "abandoned"
    with refused("already_ended", 76):
        team.session_complete("s")


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


@pytest.mark.parametrize("keyword", ["pattern", "$ref", "oneOf", "format", "patternProperties", "if"])
def test_a_keyword_the_database_cannot_enforce_is_refused_by_name(bus: Bus, keyword: str) -> None:
    with pytest.raises(Exception, match=keyword.replace("$", r"\$")):
        bus.types_add("message", "m", schema={"properties": {"a": {keyword: "x"}}})
    with refused("unknown_type", 65):
        bus.register("a", type="validation", session="s")
        bus.send("a", "a", "m", {})


def test_bad_types_are_refused(bus: Bus) -> None:
    for bad in ({"type": "array"}, {"additionalProperties": True}, {"required": "a"}, {"properties": {"a": 1}}, "[1]"):
        with refused("invalid_schema", 65):
            bus.types_add("message", "m", schema=bad)  # type: ignore[arg-type]
    with refused("invalid_id", 65):
        bus.types_add("agent", "a b")
    with refused("usage", 64):
        bus.types_add("colour", "red")


def test_settings_are_known_and_numbers_stay_numbers(bus: Bus) -> None:
    bus.config_set("lease_seconds", "7.5")
    assert {s.key: s.value for s in bus.config_list()}["lease_seconds"] == "7.5"
    with refused("unknown_setting", 66):
        bus.config_set("colour", "red")
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


def test_status_counts(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    found = team.status()
    assert (found["messages"], found["agents"], found["sessions"]) == ({"ready": 1}, {"active": 3}, {"active": 1})


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


def test_the_doctor_finds_a_healthy_bus_healthy(team: Bus) -> None:
    assert {f.verdict for f in team.doctor() if f.subject not in ("library", "bus")} == {"ok"}
