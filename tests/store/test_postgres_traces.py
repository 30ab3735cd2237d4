"""Agents' lives on PostgreSQL, by hand; and exports beside transactions that have not ended."""

from collections.abc import Iterator

import psycopg
import pytest

from bus import Bus
from bus.store.url import Server
from tests.store.test_lifecycle_by_hand import COLUMNS, ENDED, INDEXES, VIEWS

TARGET = "http://collector/v1/traces"
Hand = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def bus(postgres: str) -> Iterator[Bus]:
    """A bus on PostgreSQL with agents boss and one in session s."""
    with Bus.open(postgres, create=True) as opened:
        opened.register("boss", type="milestone-coordinator", session="s")
        opened.register("one", type="milestone-executor", session="s")
        yield opened


@pytest.fixture
def hand(bus: Bus) -> Iterator[Hand]:
    """A plain connection that looks into the schema of the bus."""
    assert isinstance(bus.url, Server)
    with psycopg.connect(bus.url.conninfo, autocommit=True) as connection:
        connection.execute(f"set search_path = {bus.url.schema}, public")
        yield connection


def test_the_table_and_the_views_have_the_columns_that_tools_know(bus: Bus, hand: Hand) -> None:
    described = hand.execute("select * from agent_lifecycle").description or []
    assert [column.name for column in described][: len(COLUMNS.split())] == COLUMNS.split()
    for view, columns in VIEWS.items():
        assert [column.name for column in hand.execute(f"select * from {view}").description or []] == columns.split()
    indexes = {row[0] for row in hand.execute("select indexname from pg_indexes where tablename = 'agent_lifecycle'")}
    assert indexes >= INDEXES


def test_durations_are_worked_out_whatever_a_writer_claims(bus: Bus, hand: Hand) -> None:
    row = {**ENDED, "duration_ms": 1, "idle_time_ms": 99, "priority_number": "1.5"}
    names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
    hand.execute(f"insert into agent_lifecycle ({names}) values ({marks})", [*row.values()])
    assert hand.execute("select duration_ms, idle_time_ms from agent_lifecycle").fetchall() == [(9500, 1000)]
    hand.execute("update agent_lifecycle set duration_ms = 5")
    assert hand.execute("select max_duration_ms, avg_idle_ms from agent_velocity").fetchall() == [(9500, 1000.0)]
    assert hand.execute("select priority_number, total_time_ms from priority_timeline").fetchall() == [("1.5", 9500)]


def test_what_is_no_trace_context_is_refused(bus: Bus, hand: Hand) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="invalid_traceparent"):
        hand.execute(
            "insert into agent_lifecycle (pid, agent_type, task_id, command, traceparent) "
            "values (1, 'x', 't', 'c', '00')"
        )


def test_what_is_not_committed_yet_is_not_passed_over(bus: Bus, hand: Hand) -> None:
    """A message gets its id before the commit, so that a later one may show first."""
    bus.export_claim(TARGET)
    sending = (
        "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload) "
        "values ('s', 'boss', 'one', 'task_assignment', '{}') returning id"
    )
    recording = (
        "insert into agent_lifecycle (pid, agent_type, task_id, command) values (1, 'x', 't', 'c') returning agent_id"
    )
    hand.execute("begin")
    slow = hand.execute(sending).fetchone()
    slow_life = hand.execute(recording).fetchone()
    assert isinstance(bus.url, Server)
    with psycopg.connect(bus.url.conninfo, autocommit=True) as other:
        other.execute(f"set search_path = {bus.url.schema}, public")
        quick, quick_life = other.execute(sending).fetchone(), other.execute(recording).fetchone()
    assert slow < quick
    assert slow_life < quick_life
    assert not bus.export_batch(TARGET).moves(), "the earlier one may still come"
    hand.execute("commit")
    batch = bus.export_batch(TARGET)
    assert [(sent.message.id,) for sent in batch.sent] == [slow, quick]
    assert [(id,) for kind, id, _ in batch.pending if kind == "life"] == [slow_life, quick_life]
