"""Agents' lives on record: spawned, started, ended, found dead; and what the records answer."""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bus import Bus, clock, lifecycle, liveness
from bus.liveness import Life
from bus.metrics import Sample
from bus.models import Agent, Lifecycle
from tests.conformance.refusal import refused
from tests.conftest import Process

TASK = "task_assignment"
NOON = clock.parse("2030-06-01 12:00:00.000")


@contextmanager
def at(seconds: float) -> Iterator[None]:
    """The clock stands so many seconds after noon."""
    with clock.moved(to=NOON + seconds):
        yield


def lived(bus: Bus, spawned: float, idle: float, ended: float, **options: object) -> Lifecycle:
    """An agent that was spawned so many seconds after noon, was idle for some, and ended so many after its spawn."""
    arguments = {"type": "design-phase", "task": "t", "pid": os.getpid(), "command": "work", "exit_code": 0, **options}
    ending = {name: arguments.pop(name) for name in ("exit_code", "status") if name in arguments}
    with at(spawned):
        id = bus.trace_spawn(arguments.pop("type"), arguments.pop("task"), **arguments)  # type: ignore[arg-type]
    with at(spawned + idle):
        bus.trace_start(id)
    with at(spawned + ended):
        return bus.trace_finish(id, **ending)  # type: ignore[arg-type]


def test_a_life_is_on_record_with_its_durations_to_the_millisecond(bus: Bus) -> None:
    with at(0):
        id = bus.trace_spawn(
            "design-phase", "t-1", pid=os.getpid(), command="work hard", task_type="bug", priority="042", session="s",
            agent="one", worktree="/tree", metadata={"bug": 7},
        )  # fmt: skip
    spawned = bus.trace_show(id)
    assert (spawned.status, spawned.started_at, spawned.duration_ms, spawned.idle_time_ms) == (
        "spawned",
        None,
        None,
        None,
    )
    with at(1.234):
        assert (bus.trace_start(id).status, bus.trace_show(id).idle_time_ms) == ("running", 1234)
        assert bus.trace_show(id).last_seen_at == bus.trace_show(id).started_at
    with at(100.001):
        ended = bus.trace_finish(id, exit_code=3, error="it broke", output="boom")
    assert (ended.status, ended.exit_code, ended.duration_ms, ended.idle_time_ms) == ("failed", 3, 100001, 1234)
    assert (ended.pid, ended.agent_type, ended.task_id, ended.task_type) == (os.getpid(), "design-phase", "t-1", "bug")
    assert (ended.priority_number, ended.session_id, ended.registry_id) == ("042", "s", "one")
    assert (ended.command, ended.worktree_path, ended.metadata) == ("work hard", "/tree", {"bug": 7})
    assert (ended.error_message, ended.output_tail, ended.unseen) == ("it broke", "boom", False)
    assert ended.last_seen_at == ended.completed_at


@pytest.mark.parametrize(
    ("given", "kept"), [(7, "7"), (1.5, "1.5"), ("042", "042"), ("1.50", "1.50"), (" 8 ", "8"), (None, None)]
)
def test_a_priority_number_stays_as_it_was_written(bus: Bus, given: object, kept: str | None) -> None:
    id = bus.trace_spawn("x", "t", pid=os.getpid(), priority=given)  # type: ignore[arg-type]
    assert bus.trace_show(id).priority_number == kept


@pytest.mark.parametrize(
    ("code", "status"),
    [
        *((code, "failed") for code in (1, 127, 128, 193, 255)),
        *((code, "killed") for code in (-9, 129, 137, 192)),
        (0, "completed"),
    ],
)
def test_an_exit_code_tells_how_it_ended(bus: Bus, code: int, status: str) -> None:
    assert lived(bus, 0, 1, 2, exit_code=code).status == status


def test_an_agent_that_never_ran_is_failed(bus: Bus) -> None:
    with at(0):
        id = bus.trace_spawn("x", "t", pid=os.getpid())
    with at(2):
        with refused("usage", 64):
            bus.trace_abort(id, error="no such command", exit_code="none")  # type: ignore[arg-type]
        ended = bus.trace_abort(id, error="no such command", exit_code=127)
    assert (ended.status, ended.started_at, ended.duration_ms) == ("failed", None, 2000)
    with refused("already_ended"):
        bus.trace_start(id)


def test_the_command_is_told_by_the_system_when_nobody_tells_it(bus: Bus, process: Process) -> None:
    assert bus.trace_show(bus.trace_spawn("x", "t", pid=process.pid)).command == "sleep 600"


# --- wrong input: a clear error, and nothing is written


def test_what_can_not_be_is_refused_and_changes_nothing(bus: Bus) -> None:
    with at(0):
        id = bus.trace_spawn("x", "t", pid=os.getpid())
        before = bus.trace_show(id)
        for code, call in (
            ("future_time", lambda: bus.trace_spawn("x", "t", pid=1, at="2030-06-01T12:00:01Z")),
            ("invalid_moment", lambda: bus.trace_spawn("x", "t", pid=1, at="soon")),
            ("invalid_value", lambda: bus.trace_spawn("", "t", pid=1)),
            ("invalid_value", lambda: bus.trace_spawn("x" * 129, "t", pid=1)),
            ("invalid_value", lambda: bus.trace_spawn("x", "t" * 1025, pid=1)),
            ("invalid_value", lambda: bus.trace_spawn("x", "a\0b", pid=1)),
            ("invalid_value", lambda: bus.trace_spawn("x", "t", pid=1, priority="")),
            ("invalid_value", lambda: bus.trace_spawn("x", "t", pid=1, priority=True)),
            ("invalid_json", lambda: bus.trace_spawn("x", "t", pid=1, metadata="{")),
            ("invalid_traceparent", lambda: bus.trace_spawn("x", "t", pid=1, traceparent="00-1-2-3")),
            ("usage", lambda: bus.trace_spawn("x", "t", pid=0)),
            ("not_started", lambda: bus.trace_finish(id)),
            ("future_time", lambda: bus.trace_start(id, at="2030-06-01 12:00:00.001")),
            ("invalid_duration", lambda: bus.trace_start(id, at="2030-06-01T11:59:59.999Z")),
            ("unknown_trace", lambda: bus.trace_start(id + 1)),
            ("unknown_trace", lambda: bus.trace_finish(id + 1)),
            ("unknown_trace", lambda: bus.trace_show(id + 1)),
        ):
            with refused(code):
                call()
        assert [life.agent_id for life in bus.trace_active()] == [id]
        assert bus.trace_show(id) == before
    with at(5):
        started = bus.trace_start(id)
        with refused("already_started"):
            bus.trace_start(id)
        with refused("invalid_duration"):
            bus.trace_finish(id, at="2030-06-01T12:00:04Z")
        with refused("future_time"):
            bus.trace_finish(id, at="2030-06-01T13:00:00+00:00")
        with refused("invalid_status"):
            bus.trace_finish(id, status="tired")
        assert bus.trace_show(id) == started
    with at(9):
        ended = bus.trace_finish(id, at="2030-06-01T14:00:08+02:00")
        assert ended.duration_ms == 8000
        for again in ("completed", "failed"):
            with refused("already_ended", 76):
                bus.trace_finish(id, status=again)
        assert bus.trace_show(id) == ended


def test_a_clock_that_is_set_back_does_not_stop_the_record(bus: Bus) -> None:
    with at(100):
        id = bus.trace_spawn("x", "t", pid=os.getpid())
    with at(50):
        assert bus.trace_start(id).idle_time_ms == 0
        assert bus.trace_finish(id).duration_ms == 0
    with at(100):
        id = bus.trace_spawn("x", "t", pid=os.getpid())
    with at(50):
        assert bus.trace_abort(id, error="no").duration_ms == 0


# --- the dead


def test_who_died_unseen_is_killed_and_ended_when_last_seen(bus: Bus, process: Process) -> None:
    with at(0):
        id = bus.trace_spawn("x", "t", pid=process.pid)
    with at(1):
        bus.trace_start(id)
    with at(60):
        assert bus.monitor_check().killed == 0
        (active,) = bus.trace_active()
        assert (active.agent_id, active.life, active.elapsed_ms) == (id, Life.ALIVE, 60000)
    process.kill()
    process.wait()
    with at(600):
        assert bus.trace_active() == []
    found = bus.trace_show(id)
    assert (found.status, found.unseen, found.exit_code, found.duration_ms) == ("killed", True, None, 60000)
    assert "gone" in (found.error_message or "")


def test_who_was_spawned_before_it_was_told_was_last_seen_then(bus: Bus, process: Process) -> None:
    with at(100):
        id = bus.trace_spawn("x", "t", pid=process.pid, at="2030-06-01T12:00:10Z")
        process.kill()
        process.wait()
        bus.trace_close_the_dead()
    assert bus.trace_show(id).duration_ms == 0


def test_every_report_finds_the_dead(bus: Bus, process: Process) -> None:
    ids = [bus.trace_spawn("x", f"t{n}", pid=process.pid) for n in range(6)]
    process.kill()
    process.wait()
    assert bus.trace_close_the_dead() == [bus.trace_show(id) for id in ids]
    assert bus.trace_close_the_dead() == []
    assert [(v.killed, v.active) for v in bus.trace_velocity()] == [(6, 0)]
    assert [(w.on, w.owner) for w in bus.trace_waiting()] == []


def test_whoever_waited_for_it_may_still_say_how_it_ended(bus: Bus, process: Process) -> None:
    id = bus.trace_spawn("x", "t", pid=process.pid)
    bus.trace_start(id)
    process.kill()
    process.wait()
    bus.trace_close_the_dead()
    ended = bus.trace_finish(id, exit_code=0)
    assert (ended.status, ended.unseen, ended.exit_code, ended.error_message) == ("completed", False, 0, None)
    with refused("already_ended"):
        bus.trace_finish(id, exit_code=1)


def test_a_record_that_has_another_process_by_now_is_not_closed(bus: Bus) -> None:
    id = bus.trace_spawn("x", "t", pid=os.getpid())
    bus.apply([lifecycle.close([lifecycle.Seen(id, os.getpid() + 1, Life.DEAD)])])
    assert bus.trace_show(id).status == "spawned"
    bus.apply([lifecycle.close([lifecycle.Seen(id, os.getpid(), Life.DEAD)])])
    assert bus.trace_show(id).status == "killed"


def test_one_that_nobody_here_can_see_is_given_up_after_its_time(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(liveness, "identity", lambda pid: liveness.Identity("elsewhere", pid, "pid:[1]", 5, "boot"))
        with at(0):
            id = bus.trace_spawn("x", "t", pid=77)
    with at(86400):
        assert [(a.agent_id, a.life) for a in bus.trace_active()] == [(id, Life.UNKNOWN)]
    with at(86401):
        assert bus.trace_active() == []
    assert (bus.trace_show(id).status, bus.trace_show(id).duration_ms) == ("killed", 0)


def test_another_process_under_the_same_pid_is_not_taken_for_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    id = bus.trace_spawn("x", "t", pid=os.getpid())
    bus.trace_start(id)
    started_at = liveness.started_at
    monkeypatch.setattr(liveness, "started_at", lambda pid: (started_at(pid) or 0) + 1)
    assert [life.agent_id for life in bus.trace_close_the_dead()] == [id]


def test_one_that_never_ran_and_was_found_gone_may_still_be_told_to_have_failed(bus: Bus, process: Process) -> None:
    id = bus.trace_spawn("x", "t", pid=process.pid)
    process.kill()
    process.wait()
    bus.trace_close_the_dead()
    assert bus.trace_show(id).unseen
    ended = bus.trace_abort(id, error="no such command")
    assert (ended.status, ended.unseen, ended.error_message) == ("failed", False, "no such command")


def test_one_that_was_found_gone_may_begin_after_all(bus: Bus, process: Process) -> None:
    id = bus.trace_spawn("x", "t", pid=process.pid)
    process.kill()
    process.wait()
    bus.trace_close_the_dead()
    started = bus.trace_start(id, pid=os.getpid(), agent="one")
    assert (started.status, started.unseen, started.error_message, started.completed_at) == (
        "running", False, None, None,
    )  # fmt: skip
    assert (started.pid, started.registry_id) == (os.getpid(), "one")
    assert [active.agent_id for active in bus.trace_active()] == [id]


def test_a_heartbeat_of_its_own_process_tells_that_it_was_alive(bus: Bus, process: Process) -> None:
    with at(0):
        id = bus.trace_spawn("x", "t", pid=process.pid, agent="one")
        bus.trace_start(id)
        bus.register("one", type="validation", session="s", pid=process.pid)
    with at(60):
        bus.heartbeat("one")
    process.kill()
    process.wait()
    with at(90):
        other = bus.trace_spawn("x", "t", pid=process.pid, agent="two")
        bus.register("two", type="validation", session="s", pid=os.getpid())
    with at(100):
        bus.heartbeat("two")
        bus.trace_close_the_dead()
    assert [bus.trace_show(dead).duration_ms for dead in (id, other)] == [60000, 0]


def test_whoever_heartbeats_elsewhere_is_not_given_up(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(liveness, "identity", lambda pid: liveness.Identity("elsewhere", pid, "pid:[1]", 5, "boot"))
        with at(0):
            id = bus.trace_enter("one", type="validation", session="s")
    with at(1700):
        bus.heartbeat("one")
    with at(3400):
        assert [active.agent_id for active in bus.trace_active()] == [id]
    with at(3600):
        assert bus.trace_active() == []
    assert bus.trace_show(id).duration_ms == 1700000


def test_the_active_are_told_the_longest_first(bus: Bus) -> None:
    ids = []
    for spawned in (20, 0, 10):
        with at(spawned):
            ids.append(bus.trace_spawn("x", "t", pid=os.getpid()))
    with at(30):
        assert [(a.agent_id, a.elapsed_ms) for a in bus.trace_active()] == [
            (ids[1], 30000), (ids[2], 20000), (ids[0], 10000),
        ]  # fmt: skip


# --- registered agents


def test_an_agent_enters_and_leaves_the_registry_and_the_record_together(bus: Bus) -> None:
    id = bus.trace_enter("one", type="validation", session="s", task="t", priority=1.5)
    found = bus.trace_show(id)
    assert (found.status, found.registry_id, found.session_id, found.priority_number) == ("running", "one", "s", "1.5")
    assert (found.idle_time_ms, found.pid) == (0, os.getpid())
    bus.trace_leave("one", id, status="failed", error="ValueError: no")
    found = bus.trace_show(id)
    assert (found.status, found.error_message, found.last_seen_at) == ("failed", "ValueError: no", found.completed_at)
    (agent,) = bus.agents()
    assert agent.status == "failed"


def test_an_agent_lives_in_the_trace_context_around_it(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", CONTEXT)
    assert bus.trace_show(bus.trace_enter("one", type="validation", session="s")).traceparent == CONTEXT
    monkeypatch.setenv("TRACEPARENT", "elsewhere")
    assert bus.trace_show(bus.trace_enter("two", type="validation", session="s")).traceparent is None


def test_how_an_agent_was_started_is_on_record(bus: Bus) -> None:
    told = bus.trace_enter("one", type="validation", session="s", command="work --hard")
    itself = bus.trace_enter("two", type="validation", session="s")
    assert [bus.trace_show(id).command for id in (told, itself)] == ["work --hard", shlex.join(sys.orig_argv)]


def test_a_refused_agent_leaves_no_record(bus: Bus) -> None:
    with refused("unknown_type"):
        bus.trace_enter("one", type="plumber", session="s")
    assert bus.trace_active() == []


def test_started_again_under_its_id_the_earlier_record_ends(bus: Bus) -> None:
    first = bus.trace_enter("one", type="validation", session="s")
    second = bus.trace_enter("one", type="validation", session="s")
    assert (bus.trace_show(first).status, bus.trace_show(first).unseen) == ("killed", True)
    assert [a.agent_id for a in bus.trace_active()] == [second]


def test_an_agent_whose_type_has_the_longest_name_is_given_an_id(bus: Bus, process: Process) -> None:
    longest = "t" * 128
    bus.types_add("agent", longest)
    id, agent = bus.trace_launch(longest, "t", pid=process.pid, session="s", command="work")
    assert agent == f"{longest[:108]}-{id}"
    assert bus.agents()[0].agent_type == longest


def test_started_again_the_earlier_record_ends_when_it_was_last_seen(bus: Bus) -> None:
    with at(0):
        first = bus.trace_enter("one", type="validation", session="s")
    with at(60):
        bus.monitor_check()
    with at(100):
        bus.trace_enter("one", type="validation", session="s")
    assert bus.trace_show(first).duration_ms == 60000


def test_started_again_the_earlier_record_ends_when_it_was_last_heard_of(bus: Bus) -> None:
    with at(0):
        first = bus.trace_enter("one", type="validation", session="s")
    with at(3600):
        bus.heartbeat("one")
    with at(3700):
        bus.trace_enter("one", type="validation", session="s")
    assert bus.trace_show(first).duration_ms == 3600000


def test_respawned_the_earlier_record_ends_when_it_was_last_heard_of(bus: Bus, process: Process) -> None:
    with at(0):
        first, _ = bus.trace_launch("validation", "t", pid=process.pid, session="s", command="work", agent="one")
        bus.trace_start(first)
    with at(3600):
        bus.heartbeat("one")
    process.kill()
    process.wait()
    with at(3700):
        bus.recovery_apply("s", "resume", by="me")
        assert [agent.agent_id for agent in bus.recovery_respawn("s")] == ["one"]
        assert [life.duration_ms for life in bus.trace_close_the_dead()] == [3600000]


def worker_of(team: Bus) -> Agent:
    return next(agent for agent in team.agents() if agent.agent_id == "worker")


@pytest.mark.parametrize("named", [True, False])
def test_who_was_replaced_ends_its_own_record_alone(team: Bus, process: Process, named: bool) -> None:
    """By another process, or by a script that gives no pid."""
    first = team.trace_enter("worker", type="validation", session="s")
    team.register("worker", type="validation", session="s", pid=process.pid if named else None)
    team.send("boss", "worker", "task_assignment", {})
    (message,) = team.receive("worker")
    team.trace_leave("worker", first)
    assert team.trace_show(first).status == "completed"
    assert (worker_of(team).status, team.message(message.id).status) == ("active", "leased")
    process.kill()
    process.wait()
    team.trace_leave("worker", first)
    ended = ("completed", "ready") if named else ("active", "leased")
    assert (worker_of(team).status, team.message(message.id).status) == ended


def test_what_a_successor_said_of_its_end_stands(team: Bus, process: Process) -> None:
    first = team.trace_enter("worker", type="validation", session="s")
    team.register("worker", type="validation", session="s", pid=process.pid)
    team.retire("worker")
    process.kill()
    process.wait()
    team.trace_leave("worker", first, status="failed", error="it was replaced")
    assert team.trace_show(first).status == "failed"
    assert worker_of(team).status == "completed"


def test_one_that_leaves_after_it_was_found_gone_has_ended_as_it_says(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at(50):
        id = bus.trace_enter("one", type="validation", session="s")
        with monkeypatch.context() as gone:
            gone.setattr(liveness, "started_at", lambda pid: None)
            assert [life.agent_id for life in bus.trace_close_the_dead()] == [id]
    with at(40):  # by a clock that was set back
        bus.trace_leave("one", id)
    found = bus.trace_show(id)
    assert (found.status, found.unseen, found.error_message, found.duration_ms) == ("completed", False, None, 0)


def test_what_bus_run_has_on_record_is_not_recorded_twice(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    id = bus.trace_spawn("validation", "t", pid=os.getpid())
    monkeypatch.setenv("BUS_TRACE", str(id))
    assert bus.trace_enter("one", type="validation", session="s") == id
    assert (bus.trace_show(id).registry_id, bus.trace_show(id).session_id) == ("one", "s")
    bus.trace_start(id)
    bus.trace_leave("one", id)
    assert bus.trace_show(id).status == "running", "bus run ends it"
    monkeypatch.setenv("BUS_TRACE", "12345")
    other = bus.trace_enter("two", type="validation", session="s")
    assert other != id
    bus.trace_leave("two", other)
    assert bus.trace_show(other).status == "completed"


@pytest.mark.parametrize("told", ["", "x", "-1", "1.0", "²", "٣", "9" * 20, "9" * 5000])
def test_what_is_no_record_in_the_environment_is_none(bus: Bus, monkeypatch: pytest.MonkeyPatch, told: str) -> None:
    monkeypatch.setenv("BUS_TRACE", told)
    assert bus.trace_show(bus.trace_enter("one", type="validation", session="s")).status == "running"


# --- reports


def test_a_pid_is_judged_before_its_command_is_looked_for(bus: Bus) -> None:
    for pid in ("a\0b", "self", "../etc", -1, 0, True, None):
        with refused("usage", 64):
            bus.trace_spawn("x", "t", pid=pid)  # type: ignore[arg-type]


def test_velocity_counts_and_takes_percentiles_as_defined(bus: Bus) -> None:
    for n in range(20):
        lived(bus, n * 60, 1, 10 + n, exit_code=int(n >= 15))
    (found,) = bus.trace_velocity()
    durations = [1000 * (10 + n) for n in range(20)]
    assert (found.total_agents, found.completed, found.failed, found.killed) == (20, 15, 5, 0)
    assert (found.p50_duration_ms, found.p95_duration_ms, found.p99_duration_ms) == (
        durations[10],
        durations[19],
        durations[19],
    )
    assert found.avg_duration_ms == sum(durations) / 20
    assert (found.avg_idle_ms, found.success_rate) == (1000, 0.75)
    assert found.completed_per_hour == round(15 / ((19 * 60 + 29) / 3600), 3)


def test_velocity_of_two_milliseconds_is_exact(bus: Bus) -> None:
    lived(bus, 0, 0, 0.002)
    assert bus.trace_velocity()[0].completed_per_hour == 1_800_000


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100, 101])
def test_a_percentile_is_the_element_at_its_floor(bus: Bus, n: int) -> None:
    for place in reversed(range(n)):
        lived(bus, 0, 0, place + 1)
    (found,) = bus.trace_velocity()
    values = [1000 * (place + 1) for place in range(n)]
    for percent, value in ((50, found.p50_duration_ms), (95, found.p95_duration_ms), (99, found.p99_duration_ms)):
        assert value == values[min(n * percent // 100, n - 1)]


def test_velocity_of_a_type_and_of_the_last_days(bus: Bus) -> None:
    lived(bus, 0, 0, 5, type="a")
    lived(bus, 86400, 0, 7, type="a")
    lived(bus, 86400, 0, 7, type="b")
    with at(2 * 86400 - 1):
        assert [(v.agent_type, v.total_agents) for v in bus.trace_velocity()] == [("a", 2), ("b", 1)]
        assert [(v.agent_type, v.total_agents) for v in bus.trace_velocity(type="a")] == [("a", 2)]
        assert [(v.agent_type, v.total_agents) for v in bus.trace_velocity(days=1, type="a")] == [("a", 1)]
        assert bus.trace_velocity(type="c") == []
        for days in (0, -1, 40000, float("nan"), True):
            with refused("usage"):
                bus.trace_velocity(days=days)


def test_the_percentiles_of_the_last_days_are_of_the_last_days(bus: Bus) -> None:
    for duration in (1, 2, 3):
        lived(bus, 0, 0, duration)
    for duration in (100, 200, 300):
        lived(bus, 2 * 86400, 0, duration)
    with at(2 * 86400 + 400):
        (found,) = bus.trace_velocity(days=1)
    assert (found.total_agents, found.p50_duration_ms, found.p99_duration_ms) == (3, 200000, 300000)


def test_velocity_knows_no_durations_of_those_that_run(bus: Bus) -> None:
    bus.trace_spawn("x", "t", pid=os.getpid())
    (found,) = bus.trace_velocity()
    assert (found.total_agents, found.active, found.success_rate, found.p50_duration_ms) == (1, 1, None, None)
    assert (found.completed_per_hour, found.avg_duration_ms) == (None, None)


def test_bottlenecks_are_the_slowest_completed_and_say_why(bus: Bus) -> None:
    lived(bus, 0, 6, 10, task="idle")
    lived(bus, 0, 5, 10, task="just not")
    lived(bus, 0, 0, 1800.001, task="long")
    lived(bus, 0, 0, 1800, task="not long")
    lived(bus, 0, 1000, 1900, task="both", type="spec-phase")
    lived(bus, 0, 0, 9999, task="failed", exit_code=1)
    found = bus.trace_bottlenecks()
    assert [(b.task_id, b.bottleneck_type) for b in found] == [
        ("both", "High Idle Time"),
        ("long", "Long Duration"),
        ("not long", "Normal"),
        ("idle", "High Idle Time"),
        ("just not", "Normal"),
    ]
    assert [b.task_id for b in bus.trace_bottlenecks(limit=2)] == ["both", "long"]
    assert [b.task_id for b in bus.trace_bottlenecks(limit=2, type="design-phase")] == ["long", "not long"]
    with refused("usage"):
        bus.trace_bottlenecks(limit=0)


def test_bottlenecks_tell_who_is_over_the_95th_percentile_of_its_type(bus: Bus) -> None:
    for n in range(40):
        lived(bus, 0, 0, n + 1, task=str(n), type="ab"[n % 2])
    over = {b.task_id for b in bus.trace_bottlenecks(limit=100) if b.over_p95}
    assert over == set(), "of 20 values the 95th percentile is the one at 19, the last"
    for n in range(40, 42):
        lived(bus, 0, 0, n + 1, task=str(n), type="ab"[n % 2])
    assert {b.task_id for b in bus.trace_bottlenecks(limit=100) if b.over_p95} == {"40", "41"}


def test_the_timeline_shows_who_ran_when_by_priority(bus: Bus) -> None:
    first = lived(bus, 0, 2, 10, priority="10")
    second = lived(bus, 5, 0, 10, priority="9")
    lived(bus, 6, 0, 10, priority="9", type="spec-phase")
    with at(20):
        bus.trace_spawn("x", "t", pid=os.getpid())
        found = bus.trace_timeline()
        assert found.now == NOON + 20
        assert [(p.priority_number, p.agent_type, p.agent_count, p.total_time_ms) for p in found.priorities] == [
            ("9", "design-phase", 1, 10000),
            ("9", "spec-phase", 1, 10000),
            ("10", "design-phase", 1, 10000),
            (None, "x", 1, None),
        ]
        assert [bar.agent_id for bar in found.agents][:2] == [first.agent_id, second.agent_id]
        bar = found.agents[0]
        assert [round(moment - NOON, 3) for moment in (bar.spawned, bar.started or 0, bar.ended or 0)] == [0, 2, 10]
        assert [b.agent_id for b in bus.trace_timeline(priority=10).agents] == [first.agent_id]
        assert len(bus.trace_timeline(limit=2).agents) == 2


def test_priorities_stand_numbers_first_by_what_they_count_then_words(bus: Bus) -> None:
    ordered = ["-5", ".5", "1.", "7", "12 of 20", "042", "1e3", "high", "low", None]
    for priority in sorted(ordered, key=str, reverse=True):
        bus.trace_spawn("x", "t", pid=os.getpid(), priority=priority)
    assert [group.priority_number for group in bus.trace_timeline().priorities] == ordered


def test_what_is_of_one_moment_stands_in_one_order(team: Bus) -> None:
    with clock.moved(to=4e9):
        for n in range(4):
            team.trace_spawn(f"x{n * 3 % 4}", "t", pid=os.getpid())
        team.heartbeat("one", status="paused")
        assert [found.waiter for found in team.trace_waiting()] == ["one", "x0 1", "x1 4", "x2 3", "x3 2"]
        assert [bar.agent_id for bar in team.trace_timeline(limit=2).agents] == [3, 4]


def test_a_timeline_that_is_cut_short_has_the_last_spawned(bus: Bus) -> None:
    ids = [lived(bus, spawned, 0, 10, priority="1").agent_id for spawned in (20, 0, 10)]
    assert [bar.agent_id for bar in bus.trace_timeline(limit=2).agents] == [ids[2], ids[0]]
    assert [bar.agent_id for bar in bus.trace_timeline(limit=2, priority=1).agents] == [ids[2], ids[0]]


def test_throughput_counts_by_hour_and_by_day(bus: Bus) -> None:
    lived(bus, 0, 0, 10)
    lived(bus, 3590, 0, 20, exit_code=1)
    lived(bus, 86400, 0, 5, exit_code=137)
    with at(86500):
        assert [(p.period, p.spawned, p.completed, p.failed, p.killed) for p in bus.trace_throughput()] == [
            ("2030-06-02T12:00:00Z", 1, 0, 0, 1),
            ("2030-06-01T13:00:00Z", 0, 0, 1, 0),
            ("2030-06-01T12:00:00Z", 1, 0, 0, 0),
        ]
        assert [(p.period, p.spawned, p.completed) for p in bus.trace_throughput(by="day")] == [
            ("2030-06-02", 1, 0),
            ("2030-06-01", 2, 1),
        ]
        with refused("usage"):
            bus.trace_throughput(by="week")


def test_waiting_says_who_waits_on_whom_the_longest_first(team: Bus, process: Process) -> None:
    bus = team
    with clock.moved(1):
        bus.register("gone", type="validation", session="s", pid=process.pid)
        bus.send("boss", "gone", "task_assignment", {})
        bus.receive("gone", lease="1h")
    with clock.moved(2):
        bus.send("boss", "one", "task_assignment", {})
        bus.receive("one", lease="1h")
    with clock.moved(3):
        bus.send("boss", "two", "task_assignment", {})
        bus.send("boss", "two", "task_assignment", {})
    with clock.moved(4):
        bus.send("one", "@milestone-executor", "task_assignment", {})
    with clock.moved(5):
        bus.send("one", "maria", "coordination_request", {})
    with clock.moved(6):
        bus.heartbeat("two", status="paused", task="review")
    with clock.moved(7):
        bus.trace_spawn("x", "build", pid=os.getpid())
    process.kill()
    process.wait()
    with clock.moved(10):
        found = bus.trace_waiting()
    assert [(w.waiter, w.on, w.owner, w.number, w.subject) for w in found] == [
        ("boss", "dead owner", "gone", 1, "message 1"),
        ("boss", "agent", "one", 1, "message 2"),
        ("boss", "agent", "two", 2, "message 3"),
        ("one", "full queue", "@milestone-executor", 1, "message 5"),
        ("one", "person", "maria", 1, "message 6"),
        ("two", "person", None, 1, "review"),
        ("x 1", "agent", None, 1, "build"),
    ]
    assert [round(w.seconds) for w in found] == [9, 8, 7, 6, 5, 4, 3]
    assert len(bus.trace_waiting(limit=2)) == 2


def test_waiting_at_a_queue_says_how_many_are_free(team: Bus) -> None:
    def why() -> list[str]:
        return [found.why for found in team.trace_waiting() if found.owner == "@milestone-executor"]

    for agent, session in (("three", "s"), ("far", "other")):
        team.register(agent, type="milestone-executor", session=session)
    team.send("boss", "@milestone-executor", TASK, {}, expires=60)
    assert why() == ["3 of that type are free"]
    team.retire("three")
    team.send("boss", "one", TASK, {})
    team.receive("one", type="progress_update")
    assert why() == ["2 of that type are free"]
    team.send("boss", "one", TASK, {}, priority=10)
    team.receive("one")
    assert why() == ["1 of that type is free"]
    with clock.moved(20):
        team.send("boss", "two", TASK, {}, priority=10)
        team.receive("two", lease="1h")
        assert why() == ["nobody of that type is free"]
    with clock.moved(61):
        assert why() == [], "it has expired"


def test_a_lease_is_waited_on_since_it_was_taken(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    with clock.moved(60):
        team.receive("one")
        assert [found.seconds < 10 for found in team.trace_waiting()] == [True]


def test_a_lease_that_ran_out_is_told_as_what_it_is(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    team.receive("one", lease=5)
    with clock.moved(6):
        (found,) = team.trace_waiting()
        assert (found.on, found.owner, found.why.startswith("the lease of one ran out")) == ("agent", "one", True)


def test_who_runs_is_no_dead_owner_and_who_has_ended_is(team: Bus, process: Process) -> None:
    team.register("busy", type="validation", session="s", pid=process.pid)
    team.send("boss", "busy", "task_assignment", {})
    team.receive("busy", lease="3h")
    team.send("boss", "two", "task_assignment", {})
    team.retire("two")
    for seconds in (60, 3600):
        with clock.moved(seconds):
            found = [(w.owner, w.on, w.why) for w in team.trace_waiting()]
        assert found == [("busy", "agent", "busy works on it"), ("two", "dead owner", "two has ended")]


# --- upkeep


def test_retention_removes_old_records_and_never_an_open_one(bus: Bus) -> None:
    old = lived(bus, 0, 0, 10)
    with at(0):
        still = bus.trace_spawn("x", "t", pid=os.getpid())
    young = lived(bus, 86400, 0, 10)
    with at(90 * 86400 + 100):
        bus.prune()
    assert [bus.trace_show(kept).agent_id for kept in (still, young.agent_id)] == [still, young.agent_id]
    with refused("unknown_trace"):
        bus.trace_show(old.agent_id)
    bus.config_set("lifecycle_retention_days", "1")
    with at(90 * 86400 + 100):
        bus.prune()
    with refused("unknown_trace"):
        bus.trace_show(young.agent_id)


def test_retention_counts_from_the_end(bus: Bus) -> None:
    long = lived(bus, 0, 0, 10 * 86400)
    with at(95 * 86400):
        bus.prune()
        assert bus.trace_show(long.agent_id) == long
    with at(101 * 86400):
        bus.prune()
    with refused("unknown_trace"):
        bus.trace_show(long.agent_id)


def test_an_id_is_not_used_again_after_retention(bus: Bus) -> None:
    old = lived(bus, 0, 0, 10)
    with at(91 * 86400):
        bus.prune()
    assert bus.trace_spawn("x", "t", pid=os.getpid()) > old.agent_id


# --- trace context

CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_message_carries_its_trace_context(team: Bus) -> None:
    with_context = team.send("boss", "one", "task_assignment", {}, traceparent=CONTEXT)
    without = team.send("boss", "one", "task_assignment", {})
    assert [m.traceparent for m in team.receive("one", limit=2)] == [CONTEXT, None]
    assert team.message(with_context).traceparent == CONTEXT
    assert team.message(without).traceparent is None
    team.broadcast("boss", "task_assignment", {}, traceparent=CONTEXT)
    assert [m.traceparent for m in team.receive("two")] == [CONTEXT]


def test_a_record_keeps_the_trace_context_around(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    spawned = bus.trace_spawn("x", "t", pid=os.getpid(), traceparent=CONTEXT)
    monkeypatch.setenv("TRACEPARENT", CONTEXT)
    entered = bus.trace_enter("one", type="validation", session="s")
    assert [bus.trace_show(id).traceparent for id in (spawned, entered)] == [CONTEXT, CONTEXT]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "00",
        CONTEXT.upper(),
        CONTEXT + "0",
        "01" + CONTEXT[2:],
        CONTEXT.replace("-", "_"),
        CONTEXT[:3] + "0" * 32 + CONTEXT[35:],
        CONTEXT[:36] + "0" * 16 + CONTEXT[52:],
        CONTEXT[:10] + "-" + CONTEXT[11:],
        CONTEXT[:10] + "g" + CONTEXT[11:],
    ],
)
def test_what_is_no_trace_context_is_refused(team: Bus, bad: str) -> None:
    with refused("invalid_traceparent", 65):
        team.send("boss", "one", "task_assignment", {}, traceparent=bad)
    assert team.messages() == []


def test_overview_and_metrics_tell_what_is_there(team: Bus) -> None:
    team.send("boss", "one", "task_assignment", {})
    team.send("boss", "one", "task_assignment", {})
    team.receive("one")
    lived(team, 0, 1, 61)
    found = team.overview()
    assert (found.in_flight, found.sent, found.dead, found.running) == (1, 2, 0, 0)
    assert [(queue.mailbox, queue.ready) for queue in found.queues] == [("one", 1)]
    assert {agent.agent_id for agent in found.agents} == {"boss", "one", "two"}
    assert found.slowest[0].duration_ms == 61000
    families = {family.name: family for family in team.metrics()}
    assert [(s.labels, s.value) for s in families["agent_bus_queue_depth"].samples] == [({"mailbox": "one"}, 1)]
    assert families["agent_bus_sent_messages"].samples[0].value == 2


def test_an_overview_is_of_the_present_the_latest_and_the_fullest_first(team: Bus) -> None:
    team.retire("two")
    for n, name in enumerate(("old", "young", "over")):
        with clock.moved(2 + n):
            team.register(name, type="validation", session=name)
    team.session_complete("over")
    team.retire("over")
    for to, number in (("one", 1), ("many", 3), ("some", 2)):
        for _ in range(number):
            team.send("boss", to, TASK, {})
    for n, lease in enumerate((600, 300)):
        team.send("boss", "old", TASK, {}, priority=10)
        with clock.moved(n):
            team.ack(team.receive("old", lease=lease)[0].receipt or "")
            team.send("boss", "old", TASK, {}, priority=10)
            team.receive("old", lease=lease)
    team.cancel(1)
    with clock.moved(30):
        found = team.overview()
        assert (found.in_flight, found.sent, found.acknowledged, found.dead) == (2, 10, 2, 1)
    assert [session.session_id for session in found.sessions] == ["young", "old", "s"]
    assert [agent.agent_id for agent in found.agents if agent.agent_type == "validation"] == ["young", "old"]
    assert {agent.agent_id for agent in found.agents} == {"boss", "one", "old", "young"}
    assert [(queue.mailbox, queue.ready) for queue in found.queues] == [("many", 3), ("some", 2)]
    assert [message.id for message in found.leased] == [10, 8]
    with clock.moved(61):
        team.send("boss", "one", TASK, {})
    with clock.moved(62):
        found = team.overview()
        assert (found.sent, found.acknowledged) == (1, 0)


def test_metrics_tell_the_dead_by_their_reason_and_count_what_is_gone(team: Bus) -> None:
    for _ in range(4):
        team.send("boss", "one", TASK, {})
    receipts = [message.receipt or "" for message in team.receive("one", limit=3)]
    team.reject(receipts[0], reason="no")
    team.cancel(2)
    team.ack(receipts[2])
    lived(team, 0, 0, 5)
    for _ in range(2):
        team.trace_spawn("design-phase", "t", pid=os.getpid())
    assert team.overview().running == 2
    with clock.moved(8 * 86400):
        assert team.prune() == 1
        families = {family.name: family.samples for family in team.metrics()}
    assert {sample.labels["reason"]: sample.value for sample in families["agent_bus_dead_messages"]} == {
        "rejected": 1, "cancelled": 1,
    }  # fmt: skip
    assert families["agent_bus_sent_messages"][0].value == 4
    lives = {sample.labels["status"]: sample.value for sample in families["agent_bus_traced_agents"]}
    assert lives == {"completed": 1, "spawned": 2}
    durations = families["agent_bus_traced_agent_duration_seconds"]
    assert [sample.value for sample in durations if sample.suffix == "_count"] == [1]


def samples(bus: Bus, name: str) -> list[Sample]:
    (found,) = [family.samples for family in bus.metrics() if family.name == f"agent_bus_{name}"]
    return list(found)


def test_metrics_find_the_dead(bus: Bus, process: Process) -> None:
    id = bus.trace_spawn("x", "t", pid=process.pid)
    process.kill()
    process.wait()
    assert [sample.labels["status"] for sample in samples(bus, "traced_agents")] == ["killed"]
    assert bus.trace_show(id).status == "killed"


def test_metrics_keep_what_is_of_a_type_together(bus: Bus) -> None:
    for type in ("b", "a", "c"):
        lived(bus, 0, 1, 61, type=type)
    types = [sample.labels["agent_type"] for sample in samples(bus, "traced_agent_duration_seconds")]
    assert types == [*"aaaaa", *"bbbbb", *"ccccc"]


def test_nothing_waits_for_less_than_no_time(team: Bus) -> None:
    with clock.moved(100):
        team.send("boss", "one", "task_assignment", {})
    assert [sample.value for sample in samples(team, "queue_oldest_age_seconds")] == [0]


def test_a_version_tells_that_others_have_written(tmp_path: Path) -> None:
    with Bus.open(str(tmp_path / "b.db"), create=True) as one, Bus.open(str(tmp_path / "b.db")) as other:
        before = one.data_version()
        assert one.data_version() == before
        other.register("x", type="validation", session="s")
        assert one.data_version() != before
