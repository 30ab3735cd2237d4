"""agent_lifecycle as other tools meet it, at the sqlite3 prompt: rows put in by hand, the four views, the plans."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from bus import Bus
from tests.benchmarks import reports

NOW = "strftime('%Y-%m-%d %H:%M:%f', 'now')"
NOON = "2030-06-01 12:00:00.000"
GOOD = {"pid": 7, "agent_type": "a", "task_id": "t", "command": "c", "spawned_at": NOON}
ENDED = {
    **GOOD,
    "started_at": "2030-06-01 12:00:01.000",
    "completed_at": "2030-06-01 12:00:09.500",
    "status": "completed",
}

VIEWS = {
    "agent_velocity": "agent_type total_agents completed failed avg_duration_ms avg_idle_ms max_duration_ms "
    "min_duration_ms",
    "agent_bottlenecks": "agent_id agent_type task_id priority_number duration_ms idle_time_ms spawned_at completed_at "
    "bottleneck_type",
    "priority_timeline": "priority_number agent_type first_spawn last_completion agent_count total_time_ms avg_time_ms",
    "active_agents": "agent_id pid agent_type task_id priority_number status spawned_at elapsed_ms",
}
COLUMNS = (
    "agent_id pid agent_type task_id task_type priority_number spawned_at started_at completed_at status exit_code "
    "duration_ms idle_time_ms command worktree_path error_message metadata"
)
INDEXES = {"idx_agent_type_status", "idx_priority_number", "idx_spawned_at", "idx_duration", "idx_task_id"}


@pytest.fixture
def hand(url: str) -> Iterator[sqlite3.Connection]:
    """The sqlite3 prompt."""
    with closing(sqlite3.connect(url, isolation_level=None)) as connection:
        yield connection


def insert(hand: sqlite3.Connection, **row: object) -> int:
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    cursor = hand.execute(f"insert into agent_lifecycle ({names}) values ({marks})", tuple(row.values()))
    return cursor.lastrowid or 0


def test_the_table_has_the_columns_and_indexes_that_tools_know(hand: sqlite3.Connection) -> None:
    columns = [row[1] for row in hand.execute("pragma table_info(agent_lifecycle)")]
    assert columns[: len(COLUMNS.split())] == COLUMNS.split()
    assert {row[1] for row in hand.execute("pragma index_list(agent_lifecycle)")} >= INDEXES


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_has_exactly_its_columns(hand: sqlite3.Connection, view: str) -> None:
    assert [column[0] for column in hand.execute(f"select * from {view}").description] == VIEWS[view].split()


def test_durations_are_worked_out_whatever_a_writer_claims(hand: sqlite3.Connection) -> None:
    id = insert(hand, **ENDED, duration_ms=1, idle_time_ms=99)
    ask = f"select duration_ms, idle_time_ms from agent_lifecycle where agent_id = {id}"
    assert hand.execute(ask).fetchone() == (9500, 1000)
    hand.execute("update agent_lifecycle set duration_ms = 5, idle_time_ms = -1")
    assert hand.execute(ask).fetchone() == (9500, 1000)
    insert(hand, **GOOD, duration_ms=5)
    assert hand.execute("select duration_ms from agent_lifecycle order by agent_id desc").fetchone() == (None,)


def test_a_life_by_hand_walks_its_edges(hand: sqlite3.Connection) -> None:
    id = insert(hand, pid=1, agent_type="a", task_id="t", command="c", priority_number="042")
    where = f"where agent_id = {id}"
    hand.execute(f"update agent_lifecycle set status = 'running', started_at = {NOW} {where}")
    assert [row[:6] for row in hand.execute("select * from active_agents")] == [(id, 1, "a", "t", "042", "running")]
    with pytest.raises(sqlite3.IntegrityError, match="illegal_transition"):
        hand.execute(f"update agent_lifecycle set status = 'spawned', started_at = null {where}")
    hand.execute(f"update agent_lifecycle set status = 'completed', exit_code = 0, completed_at = {NOW} {where}")
    with pytest.raises(sqlite3.IntegrityError, match="illegal_transition"):
        hand.execute(f"update agent_lifecycle set status = 'failed' {where}")
    with pytest.raises(sqlite3.IntegrityError, match="already_ended"):
        hand.execute(f"update agent_lifecycle set completed_at = '2031-01-01 00:00:00' {where}")
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        hand.execute(f"update agent_lifecycle set spawned_at = '2020-01-01 00:00:00' {where}")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"status": "sleeping"}, "invalid_status"),
        ({"status": "running"}, "invalid_status"),
        ({"status": "completed"}, "invalid_status"),
        ({"status": "failed"}, "invalid_status"),
        ({"started_at": NOON}, "invalid_status"),
        ({"pid": None}, "NOT NULL"),
        ({"pid": 0}, "invalid_value"),
        ({"pid": "x"}, "INTEGER"),
        ({"agent_type": None}, "NOT NULL"),
        ({"task_id": None}, "NOT NULL"),
        ({"task_id": ""}, "invalid_value"),
        ({"command": None}, "NOT NULL"),
        ({"spawned_at": "noon"}, "invalid_moment"),
        ({"spawned_at": "2030-06-01T12:00:00Z"}, "invalid_moment"),
        ({"metadata": "{"}, "invalid_json"),
        ({"traceparent": "00-xx"}, "invalid_traceparent"),
        ({"unseen": 1}, "invalid_status"),
        ({"status": "running", "started_at": "2030-06-01 11:59:59.999"}, "invalid_duration"),
        ({"status": "failed", "completed_at": "2030-06-01 11:59:59.999"}, "invalid_duration"),
        ({**ENDED, "completed_at": "2030-06-01 12:00:00.999"}, "invalid_duration"),
    ],
)
def test_a_bad_row_is_refused(hand: sqlite3.Connection, change: dict[str, object], code: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=code):
        insert(hand, **{**GOOD, **change})
    assert hand.execute("select count(*) from agent_lifecycle").fetchone() == (0,)


def test_the_views_answer_from_rows_put_in_by_hand(hand: sqlite3.Connection) -> None:
    insert(hand, **ENDED, priority_number=1.5)
    insert(hand, **{**ENDED, "completed_at": "2030-06-01 12:00:01.500", "priority_number": 1.5})
    insert(hand, **{**ENDED, "completed_at": "2030-06-01 12:30:00.001", "status": "failed", "priority_number": "042"})
    insert(hand, **{**ENDED, "completed_at": "2030-06-01 12:30:00.001"})
    assert hand.execute("select * from agent_velocity").fetchall() == [
        ("a", 4, 3, 1, (9500 + 1500 + 2 * 1800001) / 4, 1000.0, 1800001, 1500)
    ]
    assert hand.execute("select agent_id, duration_ms, bottleneck_type from agent_bottlenecks").fetchall() == [
        (4, 1800001, "Long Duration"),
        (1, 9500, "Normal"),
        (2, 1500, "High Idle Time"),
    ]
    assert hand.execute("select * from priority_timeline where priority_number = 1.5").fetchall() == [
        ("1.5", "a", NOON, "2030-06-01 12:00:09.500", 2, 11000, 5500.0)
    ]
    assert hand.execute("select total_time_ms from priority_timeline where priority_number = '042'").fetchall() == [
        (1800001,)
    ]


def test_the_views_at_their_edges(hand: sqlite3.Connection) -> None:
    insert(hand, **{**ENDED, "completed_at": "2030-06-01 12:30:00.000"}, priority_number="7")
    insert(hand, **{**ENDED, "status": "killed"})
    insert(hand, **GOOD)
    assert hand.execute("select bottleneck_type from agent_bottlenecks").fetchall() == [("Normal",)]
    assert hand.execute("select total_agents, completed, failed from agent_velocity").fetchall() == [(3, 1, 0)]
    assert hand.execute("select priority_number from priority_timeline").fetchall() == [("7",)]
    assert hand.execute("select status from active_agents").fetchall() == [("spawned",)]


def test_the_slowest_hundred_are_bottlenecks(hand: sqlite3.Connection) -> None:
    for second in range(10, 60):
        for millisecond in (0, 1, 2):
            insert(hand, **{**ENDED, "completed_at": f"2030-06-01 12:00:{second}.00{millisecond}"})
    found = [row[0] for row in hand.execute("select duration_ms from agent_bottlenecks")]
    assert len(found) == 100
    assert found == sorted(found, reverse=True)
    assert found[0] == 59002


def test_date_functions_of_the_database_read_its_moments(hand: sqlite3.Connection, url: str) -> None:
    with Bus.open(url) as bus:
        bus.trace_spawn("a", "t", pid=1)
    insert(hand, **{**GOOD, "spawned_at": "2020-01-01 00:00:00"})
    ask = "select strftime('%Y-%m-%d %H:00', spawned_at), count(*) from agent_lifecycle "
    recent = hand.execute(ask + "where spawned_at > datetime('now', '-24 hours') group by 1").fetchall()
    assert recent == hand.execute("select strftime('%Y-%m-%d %H:00', 'now'), 1").fetchall()
    assert hand.execute(
        "select elapsed_ms between 0 and 600000 from active_agents where spawned_at > '2021'"
    ).fetchall() == [(1,)]


def test_every_report_reads_by_an_index(url: str) -> None:
    reports.fill(url, 1000)
    steps = list(reports.plans(url))
    assert {name for name, _ in steps} >= {"velocity", "bottlenecks", "timeline", "throughput", "active", "priorities"}
    assert {name for name, _ in steps} >= {f"view {view}" for view in VIEWS}
    for name, step in steps:
        assert "USING" in step, (name, step)


def test_the_records_of_the_benchmark_are_what_it_says(url: str) -> None:
    reports.fill(url, 1000)
    with Bus.open(url) as bus:
        found = bus.trace_velocity()
    assert [v.agent_type for v in found] == sorted(reports.TYPES)
    assert sum(v.total_agents for v in found) == 1000
    assert sum(v.failed for v in found) == 50
