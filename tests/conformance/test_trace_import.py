"""What an agent_state.json knows, put on record."""

import json
import os
import time
from datetime import datetime, timezone
from typing import Any

import pytest

from bus import Bus, BusError, clock, liveness, trace_import
from bus.models import Lifecycle
from tests.conformance.refusal import refused
from tests.conftest import Process

ENDED = {
    "pid": 4001,
    "agent_type": "feature-implementation",
    "task_id": "bug-7",
    "task_type": "bug",
    "priority_number": "042",
    "command": "work --hard",
    "started_at": "2025-06-01T12:00:00.123456",
    "completed_at": "2025-06-01T12:00:10.999999",
    "status": "completed",
    "worktree_path": "/tree",
    "bug_number": 7,
    "bug_title": "It “broke”",
}
RUNNING = {
    "pid": 4002, "agent_type": "validation", "task_id": "bug-8", "command": "check",
    "started_at": "2025-06-01T13:00:00.000001", "status": "running",
}  # fmt: skip


def state(active: list[dict[str, Any]], ended: list[dict[str, Any]]) -> str:
    return json.dumps({"active_agents": {str(a["pid"]): a for a in active}, "completed_agents": ended})


def records(bus: Bus) -> list[Lifecycle]:
    bars = bus.trace_timeline(limit=1000).agents
    return [bus.trace_show(id) for id in sorted(bar.agent_id for bar in bars)]


def test_an_ended_agent_comes_with_what_is_known_of_it(bus: Bus) -> None:
    found = bus.trace_import(state([], [ENDED]), zone="America/New_York")
    assert (found.added, found.gone, found.updated, found.left) == (1, 0, 0, 0)
    (life,) = records(bus)
    assert (life.pid, life.agent_type, life.task_id, life.task_type) == (4001, "feature-implementation", "bug-7", "bug")
    assert (life.priority_number, life.command, life.worktree_path) == ("042", "work --hard", "/tree")
    assert life.started_at == datetime(2025, 6, 1, 16, 0, 0, 123000, timezone.utc)
    assert (life.spawned_at, life.duration_ms, life.idle_time_ms) == (life.started_at, 10877, None)
    assert (life.status, life.exit_code, life.origin) == ("completed", None, "imported")
    assert life.metadata == {"bug_number": 7, "bug_title": "It “broke”"}


def test_the_same_file_twice_adds_nothing(bus: Bus) -> None:
    text = state([RUNNING], [ENDED])
    bus.trace_import(text, zone="UTC")
    before = records(bus)
    found = bus.trace_import(text, zone="UTC")
    assert (found.added, found.updated, found.left, found.reasons) == (0, 0, 2, {"already on record": 2})
    assert records(bus) == before


def test_an_agent_whose_process_is_gone_is_not_active(bus: Bus) -> None:
    found = bus.trace_import(state([RUNNING], []), zone="UTC")
    assert (found.added, found.gone) == (1, 1)
    assert bus.trace_active() == []
    (life,) = records(bus)
    assert (life.status, life.unseen, life.completed_at, life.duration_ms) == ("killed", True, None, None)
    assert life.last_seen_at == life.started_at


def test_an_agent_whose_process_runs_is_active_until_it_ends(bus: Bus, process: Process) -> None:
    began = liveness.wall_clock_start(process.pid) or 0.0
    entry = {**RUNNING, "pid": process.pid, "started_at": clock.stamp(began + 0.5).replace(" ", "T")}
    with clock.moved(60):
        found = bus.trace_import(state([entry], []), zone="UTC")
    assert (found.added, found.gone) == (1, 0)
    assert [life.pid for life in bus.trace_active()] == [process.pid]
    process.kill()
    process.wait()
    assert bus.trace_active() == []


def test_the_start_of_a_process_is_told_to_a_second_or_two(bus: Bus, process: Process) -> None:
    began = liveness.wall_clock_start(process.pid)
    assert began
    for seconds, gone in ((1, 0), (5, 1)):
        entry = {**RUNNING, "pid": process.pid, "started_at": clock.rfc3339(began - seconds)}
        assert bus.trace_import(state([entry], [])).gone == gone


def test_another_process_under_its_pid_does_not_make_it_active(bus: Bus) -> None:
    found = bus.trace_import(state([{**RUNNING, "pid": os.getpid()}], []), zone="UTC")
    assert (found.added, found.gone) == (1, 1)


def test_a_later_file_that_says_completed_updates_the_record(bus: Bus) -> None:
    bus.trace_import(state([RUNNING], [ENDED]), zone="UTC")
    ended = {**RUNNING, "status": "completed", "completed_at": "2025-06-01T13:00:05.000001", "note": "done"}
    found = bus.trace_import(state([], [ENDED, ended]), zone="UTC")
    assert (found.added, found.updated, found.left) == (0, 1, 1)
    life, _ = records(bus)
    assert (life.status, life.unseen, life.duration_ms, life.metadata) == ("completed", False, 5000, {"note": "done"})
    found = bus.trace_import(state([], [ENDED, ended]), zone="UTC")
    assert (found.added, found.updated, found.left) == (0, 0, 2)


def test_an_end_told_later_takes_the_error_away_and_leaves_the_metadata(bus: Bus) -> None:
    bus.trace_import(state([{**RUNNING, "note": "slow"}], []), zone="UTC")
    (gone,) = records(bus)
    assert gone.error_message
    ended = {**RUNNING, "status": "completed", "completed_at": "2025-06-01T13:00:05"}
    assert bus.trace_import(state([], [ended]), zone="UTC").updated == 1
    (life,) = records(bus)
    assert (life.status, life.error_message, life.metadata) == ("completed", None, {"note": "slow"})


def test_what_is_there_twice_in_one_file_is_one_agent(bus: Bus) -> None:
    ended = {**RUNNING, "status": "completed", "completed_at": "2025-06-01T13:00:05"}
    found = bus.trace_import(state([RUNNING], [ended, ended]), zone="UTC")
    assert (found.added, found.updated, found.left) == (1, 1, 1)


def test_an_import_that_has_to_be_run_again_counts_anew(bus: Bus) -> None:
    again = trace_import.import_(state([], [ENDED, {"pid": 1}]), zone="UTC", skip_invalid=True)
    (first,) = bus.apply([again])
    (second,) = bus.apply([again])
    reasons = {"it has no started_at": 1}
    assert (first.added, first.left, first.reasons) == (1, 1, reasons)
    assert (second.added, second.left, second.reasons) == (0, 2, {**reasons, "already on record": 1})


def test_an_end_is_stronger_than_the_word_running(bus: Bus) -> None:
    finished = {**ENDED, "status": "running"}
    bus.trace_import(state([finished], []), zone="UTC")
    assert [life.status for life in records(bus)] == ["completed"]


def test_who_stands_among_the_completed_does_not_run(bus: Bus, process: Process) -> None:
    began = liveness.wall_clock_start(process.pid)
    assert began
    entry = {**RUNNING, "pid": process.pid, "started_at": clock.rfc3339(began)}
    bus.trace_import(state([], [entry]))
    assert [(life.status, life.duration_ms) for life in records(bus)] == [("completed", None)]


def test_forms_that_are_met(bus: Bus) -> None:
    entries = [
        {**ENDED, "pid": "4003", "priority_number": 7, "task_id": 33},
        {**{k: v for k, v in ENDED.items() if k not in ("status", "completed_at", "command")}, "pid": 4004},
        {**ENDED, "pid": 4005, "started_at": "2025-06-01T12:00:00Z", "completed_at": "2025-06-01T14:00:00+02:00"},
        {**ENDED, "pid": 4006, "command": ["run", "a b"], "priority_number": 1.5},
    ]
    assert bus.trace_import(state([], entries), zone="UTC").added == 4
    first, second, third, fourth = records(bus)
    assert (first.priority_number, first.task_id) == ("7", "33")
    assert (second.status, second.duration_ms, second.command) == ("completed", None, "")
    assert third.duration_ms == 0
    assert (fourth.command, fourth.priority_number) == ("run 'a b'", "1.5")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ("[]", "invalid_value"),
        ("{}", "invalid_value"),
        ('{"agents": []}', "invalid_value"),
        ('{"active_agents": []}', "invalid_value"),
        ('{"completed_agents": {}}', "invalid_value"),
        ('{"completed_agents": ["x"]}', "invalid_value"),
        ('{"active_agents": {"x": {}}}', "invalid_value"),
    ],
)
def test_a_file_of_another_kind_is_refused(bus: Bus, text: str, code: str) -> None:
    with refused(code, 65):
        bus.trace_import(text)
    assert records(bus) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"pid": 0}, "invalid_value"),
        ({"pid": True}, "invalid_value"),
        ({"pid": "1" * 5000}, "invalid_value"),
        ({"pid": "0" * 31 + "123456789abc"}, "invalid_value"),
        ({"pid": -5}, "invalid_value"),
        ({"agent_type": None}, "invalid_value"),
        ({"task_id": ""}, "invalid_value"),
        ({"task_id": "t" * 1025}, "invalid_value"),
        ({"task_id": "a\0b"}, "invalid_value"),
        ({"priority_number": [1]}, "invalid_value"),
        ({"started_at": None}, "invalid_value"),
        ({"started_at": "yesterday"}, "invalid_moment"),
        ({"started_at": 1700000000}, "invalid_moment"),
        ({"started_at": "2999-01-01T00:00:00"}, "future_time"),
        ({"completed_at": "2999-01-01T00:00:00"}, "future_time"),
        ({"completed_at": "2025-06-01T11:59:59"}, "invalid_duration"),
        ({"status": "sleeping"}, "invalid_status"),
        ({"status": {}}, "invalid_status"),
        ({"started_at": "0001-01-01T00:00:00+09:00"}, "invalid_moment"),
        ({"note": float("nan")}, "invalid_json"),
    ],
)
def test_an_entry_that_can_not_be_right_refuses_the_file_and_is_named(
    bus: Bus, change: dict[str, Any], code: str
) -> None:
    text = state([], [ENDED, {**ENDED, "pid": 9, **change}])
    with pytest.raises(BusError, match=r"completed_agents\[1\]: ") as caught:
        bus.trace_import(text, zone="UTC")
    assert (caught.value.code, caught.value.exit_status) == (code, 65)
    assert records(bus) == []
    found = bus.trace_import(text, zone="UTC", skip_invalid=True)
    assert (found.added, found.left) == (1, 1)
    assert len(records(bus)) == 1


def test_what_is_empty_is_not_told(bus: Bus) -> None:
    bus.trace_import(state([], [{**ENDED, "worktree_path": "", "priority_number": "", "task_type": ""}]), zone="UTC")
    (life,) = records(bus)
    assert (life.worktree_path, life.priority_number, life.task_type) == (None, None, None)


def test_an_hour_that_came_twice_ends_after_it_began(bus: Bus) -> None:
    autumn = {**ENDED, "started_at": "2025-10-26T02:50:00", "completed_at": "2025-10-26T02:10:00"}
    bus.trace_import(state([], [autumn]), zone="Europe/Berlin")
    assert records(bus)[0].duration_ms == 20 * 60 * 1000


def test_an_unknown_time_zone_is_refused(bus: Bus) -> None:
    for zone in ("Mars/Olympus", "../../etc/passwd", 5):
        with refused("usage", 64):
            bus.trace_import(state([], [ENDED]), zone=zone)  # type: ignore[arg-type]


def test_times_without_a_zone_are_this_machine_s_own(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        bus.trace_import(state([], [ENDED]))
    finally:
        monkeypatch.undo()
        time.tzset()
    (life,) = records(bus)
    assert life.started_at == datetime(2025, 6, 1, 3, 0, 0, 123000, timezone.utc)
