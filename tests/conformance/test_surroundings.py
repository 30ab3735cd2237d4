"""What may happen around the bus: reboots, reused pids, clocks that jump, processes that were stopped."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bus import Bus, clock, liveness
from tests.conformance.refusal import refused

TASK = "task_assignment"
HOUR, DAY = 3600, 86400


def lives(bus: Bus) -> dict[str, str]:
    found = bus.agents(session="s")
    return {agent.agent_id: life for agent, life in zip(found, bus.lives(found), strict=True)}


@pytest.fixture
def working(team: Bus) -> Bus:
    """An agent with a process, this one, has a message in hand."""
    team.register("worker", type="validation", session="s", pid=os.getpid())
    team.send("boss", "@validation", TASK, {})
    team.receive("worker", lease=600)
    team.register("heir", type="validation", session="s")
    return team


def test_nobody_survives_a_reboot(working: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "boot_id", lambda: "another boot")
    assert lives(working)["worker"] == "dead"
    assert [session.session_id for session in working.interrupted()] == ["s"]
    (message,) = working.receive("heir")
    assert message.receipt == "1.2"
    with refused("lease_lost", 76):
        working.ack("1.1")
    working.ack("1.2")


def test_a_reused_pid_is_another_process(working: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    now = liveness.started_at(os.getpid())
    assert now is not None
    monkeypatch.setattr(liveness, "started_at", lambda pid: now + 1)
    assert lives(working)["worker"] == "dead"
    assert working.recovery_apply("s", "resume", by="me").given_back == [1]


def test_a_process_in_another_namespace_is_told_by_its_heartbeat(working: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "pid_namespace", lambda: "pid:[1]")
    monkeypatch.setattr(liveness, "started_at", lambda pid: None)
    assert lives(working)["worker"] == "alive"
    with clock.moved(1801):
        assert lives(working)["worker"] == "dead"


@pytest.mark.parametrize("jump", [-DAY, -HOUR, HOUR, DAY])
def test_a_clock_that_jumps_loses_nothing_and_kills_nobody(working: Bus, jump: int) -> None:
    working.send("boss", "@validation", TASK, {})
    with clock.moved(jump):
        assert lives(working)["worker"] == "alive"
        working.monitor_check()
        working.extend("1.1", lease=600)  # a lease that ran out may be taken; until then it is its holder's
        assert [message.receipt for message in working.receive("heir", limit=9)] == ["2.1"]
        working.ack("1.1")
        working.ack("2.1")
        assert working.status()["messages"] == {"acknowledged": 2}
        assert working.receive("heir", limit=9) == []


@pytest.mark.parametrize("jump", [-DAY, -HOUR, HOUR, DAY])
def test_no_jump_of_the_clock_makes_a_lease_last(team: Bus, jump: int) -> None:
    team.send("boss", "@milestone-executor", TASK, {})
    team.receive("one", lease=60)
    with clock.moved(jump):
        team.heartbeat("boss")
        first = team.receive("two", lease=60)
        second = []
        if not first:
            with clock.moved(61):
                second = team.receive("two", lease=60)
        assert len(first + second) == 1
        with refused("lease_lost", 76):
            team.ack("1.1")
        team.ack("1.2")


def test_a_clock_that_is_set_back_stops_no_heartbeat(team: Bus) -> None:
    with clock.moved(86400):
        team.send("boss", "one", "task_assignment", {})
    team.register("boss", type="milestone-coordinator", session="s")
    with clock.moved(60):
        team.send("boss", "one", "task_assignment", {})
        (heard,) = [agent.last_heartbeat.timestamp() for agent in team.agents() if agent.agent_id == "boss"]
        assert clock.seconds() - heard < 5


def test_who_was_taken_for_dead_and_is_heard_of_again_is_active(team: Bus) -> None:
    with clock.moved(2 * HOUR):
        assert team.monitor_check().failed == ["boss", "one", "two"]
        team.send("boss", "one", TASK, {})
        team.receive("one")
        states = {agent.agent_id: (agent.status, agent.error_info) for agent in team.agents()}
        assert states["boss"] == states["one"] == ("active", None)
        assert states["two"][0] == "failed"
        team.recovery_apply("s", "resume", by="me")
        team.receive("two")
        assert team.interrupted() == []


@pytest.mark.parametrize("life", ["heard of", "retires", "says that it failed"])
def test_what_an_agent_told_of_its_error_stays_when_the_note_of_others_goes(team: Bus, life: str) -> None:
    error = {"warning": "disk 90 % full", "seen": 3}
    team.update("one", error_info=error)
    with clock.moved(2 * HOUR):
        team.monitor_check()
        (marked,) = [agent for agent in team.agents() if agent.agent_id == "one"]
        assert marked.status == "failed"
        assert isinstance(marked.error_info, dict)
        assert marked.error_info.keys() == {*error, "silent_since", "by", "at"}
    with clock.moved(2 * HOUR + 10):
        {
            "heard of": lambda: team.heartbeat("one"),
            "retires": lambda: team.retire("one", status="failed"),
            "says that it failed": lambda: team.heartbeat("one", status="failed"),
        }[life]()
        (found,) = [agent for agent in team.agents() if agent.agent_id == "one"]
        assert found.status == ("active" if life == "heard of" else "failed")
        assert found.error_info == error
        if life == "retires":
            assert found.completion_time == found.last_heartbeat


def test_what_an_agent_tells_of_its_recovery_is_no_note_of_others(team: Bus) -> None:
    error = {"error": "disk full", "recovery": "free 10 GB"}
    team.update("one", error_info=error)
    team.retire("one", status="failed")
    with clock.moved(60):
        team.receive("one")
        (found,) = [agent for agent in team.agents() if agent.agent_id == "one"]
        assert (found.status, found.error_info) == ("failed", error)


def test_who_said_that_it_failed_stays_so(team: Bus) -> None:
    team.retire("one", status="failed")
    with clock.moved(60):
        team.receive("one")
        assert {agent.agent_id: agent.status for agent in team.agents()}["one"] == "failed"


WORKER = """
import sys
from bus import Bus
from bus_client import Agent
with Bus.open() as bus, Agent("stopped", type="validation", session="s", bus=bus) as me:
    (message,) = me.receive(lease=0.2)
    print("has it", flush=True)
    sys.stdin.readline()
    try:
        with me.step(message) as step:
            step.state.save("by", "the stopped one")
        print("done")
    except Exception as problem:
        print(getattr(problem, "code", problem))
"""


@pytest.fixture
def stopped(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    """A worker that has a message in hand, and waits for a line before it makes its step."""
    monkeypatch.setenv("BUS_URL", url)
    with Bus.open(url) as bus:
        bus.register("boss", type="milestone-coordinator", session="s")
        bus.register("heir", type="validation", session="s")
        bus.send("boss", "@validation", TASK, {})
    arguments = [sys.executable, "-c", WORKER]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "has it\n"
        process.send_signal(signal.SIGSTOP)
        yield process
        process.kill()


def test_a_worker_stopped_for_longer_than_its_lease_can_do_nothing(stopped: "subprocess.Popen[str]", url: str) -> None:
    with Bus.open(url) as bus:
        (message,) = bus.receive("heir", wait=30)
        assert message.receipt is not None
        assert message.receipt != "1.1"
        bus.state_save("heir", "by", "the heir")
        bus.ack(message.receipt)
        stopped.send_signal(signal.SIGCONT)
        assert stopped.communicate("go on\n", timeout=30)[0] == "lease_lost\n"
        assert bus.message(1).status == "acknowledged"
        assert bus.state_load("stopped", "by") is None
        assert bus.state_load("heir", "by") == "the heir"
