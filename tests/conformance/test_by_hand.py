"""What holds whoever writes, in every store: statements by hand."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from bus import Bus, clock
from bus.store.url import MEMORY, Server
from tests.conformance.test_digests import own

LATER = "2099-01-01 00:00:00.000"
CLAIM = f"status = 'leased', leased_by = 'one', delivery = 1, delivered_at = created_at, due_at = '{LATER}'"
ACKNOWLEDGED = "status = 'acknowledged', acknowledged_at = created_at, due_at = null"
CONTEXT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def prompt(bus: Bus) -> Iterator[Callable[[str], Any]]:
    """Runs statements on a connection of its own, where there can be another."""
    if isinstance(bus.url, Server):
        with psycopg.connect(bus.url.conninfo, autocommit=True) as connection:
            # The driver's types want a literal, lest a stranger's words become SQL; these are ours.
            connection.execute(f"set search_path to {bus.url.schema}; set timezone to 'UTC'")  # type: ignore[arg-type]
            yield connection.execute
    elif bus.url.path == MEMORY:
        yield own(bus).execute
    else:
        with closing(sqlite3.connect(bus.url.path, isolation_level=None)) as hand:
            yield hand.execute


@contextmanager
def denied(code: str) -> Iterator[None]:
    """Expects a refusal by the database."""
    with pytest.raises((sqlite3.Error, psycopg.Error), match=code):
        yield


@pytest.fixture
def used(team: Bus) -> Bus:
    """A bus with a row in each table that rules are about."""
    team.send("boss", "one", "task_assignment", {}, traceparent=CONTEXT)
    team.state_save("one", "k", "v")
    team.checkpoint_create("one", {"a": 1})
    id = team.trace_spawn("validation", "t", pid=os.getpid())
    team.trace_start(id)
    team.trace_finish(id, exit_code=3)
    return team


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("coordination_sessions set operation_type = 'party'", "unknown_type"),
        ("agent_registry set agent_type = 'plumber'", "unknown_type"),
        ("agent_state set state_type = 'gossip'", "unknown_type"),
        ("agent_checkpoints set state_snapshot = '{}'", "immutable"),
        ("agent_checkpoints set file_references = '[1]'", "immutable"),
        ("agent_lifecycle set exit_code = 0", "already_ended"),
        (f"agent_lifecycle set completed_at = '{LATER}'", "already_ended"),
        ("agent_lifecycle set spawned_at = '2020-01-01 00:00:00'", "immutable"),
        ("agent_lifecycle set origin = 'imported'", "immutable"),
        ("agent_lifecycle set task_id = 'other'", "immutable"),
        ("agent_lifecycle set unseen = 1", "invalid_status"),
        (f"agent_messages set traceparent = '{CONTEXT[:-1]}0'", "immutable"),
        ("agent_messages set mailbox = 'two'", "immutable|generated"),
        ("agent_messages set idempotency_key = 'other'", "immutable"),
        ("agent_messages set priority = 11", "invalid_priority"),
        (f"agent_messages set {CLAIM}, priority = 11", "invalid_priority"),
        (f"agent_messages set {CLAIM}, leased_by = null", "leased_by|invalid_status"),
        (f"agent_messages set {CLAIM.replace('delivery = 1', 'delivery = 0')}", "invalid_status"),
        (f"agent_messages set {CLAIM.replace('delivery = 1', 'delivery = 1000000000001')}", "invalid_value"),
        (f"agent_messages set {CLAIM.replace(LATER, '12000-01-01')}", "invalid_moment"),
        ("agent_messages set status = 'leased', leased_by = 'one', delivery = 1", "invalid_status"),
        ("agent_messages set status = 'dead', dead_reason = 'bored'", "invalid_dead_reason"),
        ("agent_messages set status = 'dead'", "invalid_status"),
        ("agent_messages set expires_at = '12000-01-01'", "invalid_moment"),
        ("agent_messages set acknowledged_at = created_at", "invalid_status"),
        ("agent_messages set retry_count = -1", "invalid_value"),
        (f"agent_messages set {CLAIM}, retry_count = -1", "invalid_value"),
        ("agent_registry set session_id = 'a b'", "invalid_id"),
    ],
)
def test_no_row_is_made_bad(used: Bus, change: str, code: str) -> None:
    with prompt(used) as run, denied(code):
        run(f"update {change}")


@pytest.mark.parametrize(
    ("settled", "code"),
    [
        ("priority = 0", "invalid_priority"),
        ("expires_at = '12000-01-01'", "invalid_moment"),
        ("delivered_at = '12000-01-01'", "invalid_moment"),
        ("delivery = 0", "immutable"),
        ("dead_reason = 'expired'", "invalid_status"),
        ("delivery = 1000000000001", "invalid_value"),
        ("retry_count = -1", "invalid_value"),
    ],
)
def test_no_acknowledgement_makes_a_row_bad(used: Bus, settled: str, code: str) -> None:
    (message,) = used.receive("one")
    with prompt(used) as run:
        with denied(code):
            run(f"update agent_messages set {ACKNOWLEDGED}, {settled}")
        run(f"update agent_messages set {ACKNOWLEDGED}")
    assert used.message(message.id).status == "acknowledged"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("trace_exports_pending (target, kind, id) values ('t', 'other', 1)", "invalid_value"),
        ("trace_exports_pending (target, kind, id) values ('', 'life', 1)", "invalid_value"),
        ("trace_exports (target) values ('')", "invalid_value"),
        ("trace_exports (target, message_id) values ('t', -1)", "invalid_value"),
        ("agent_coordination_config (key, value) values ('', '1')", "invalid_key"),
        ("operation_types (name, artifacts) values ('x', '{}')", "invalid_json"),
        ("message_types (name, schema) values ('x', '[]')", "invalid_json"),
        ("agent_types (name) values ('a b')", "invalid_id"),
    ],
)
def test_no_bad_row_is_put_in(used: Bus, row: str, code: str) -> None:
    with prompt(used) as run, denied(code):
        run(f"insert into {row}")


def test_a_setting_of_ones_own_may_be_any_text(used: Bus) -> None:
    with prompt(used) as run:
        run("insert into agent_coordination_config (key, value) values ('mine', '')")
    used.config_set("mine", "words")
    assert {setting.key: setting.value for setting in used.config_list()}["mine"] == "words"


def test_no_setting_is_removed(used: Bus) -> None:
    with prompt(used) as run:
        run("insert into agent_coordination_config (key, value) values ('mine', '1')")
        before = used.config_list()
        for key in [setting.key for setting in before]:
            with denied("immutable"):
                run(f"delete from agent_coordination_config where key = '{key}'")
            with denied("immutable"):
                run(f"update agent_coordination_config set key = 'other' where key = '{key}'")
    assert used.config_list() == before


def test_a_setting_tells_when_it_was_changed(used: Bus) -> None:
    ask = "select updated_at > '{}' from agent_coordination_config where key = 'lease_seconds'"
    later = clock.stamp(clock.seconds() + 50)
    with clock.moved(60):
        used.config_set("lease_seconds", "7")
    with prompt(used) as run:
        assert [bool(row[0]) for row in run(ask.format(later)).fetchall()] == [True]


def test_what_recovery_did_is_in_the_health_log(used: Bus) -> None:
    used.retire("two", status="failed")
    with clock.moved(60):
        used.recovery_apply("s", "resume", by="me")
    with prompt(used) as run:
        ask = "select agent_id, health_status, timestamp > '{}' from agent_health_log order by id"
        found = run(ask.format(clock.stamp(clock.seconds() + 50))).fetchall()
    assert [(agent, health, bool(later)) for agent, health, later in found] == [
        ("two", "unresponsive", True), ("boss", "degraded", True),
    ]  # fmt: skip


def test_a_session_that_failed_by_hand_is_abandoned_by_its_last_activity(used: Bus) -> None:
    with prompt(used) as run:
        run("update coordination_sessions set status = 'failed'")
    with clock.moved(86000):
        assert used.clean(failed="24h").abandoned_sessions == []
    with clock.moved(87000):
        assert used.clean(failed="24h").abandoned_sessions == ["s"]


# Table, column, and the rest of a row; and how a document stands in the column.
NOTES = [
    ("coordination_sessions", "configuration", {"session_id": "'{}'"}, "{}"),
    ("agent_registry", "capabilities", {"agent_id": "'{}'", "agent_type": "'validation'", "session_id": "'s'"}, "[{}]"),
    ("agent_registry", "resource_usage", {"agent_id": "'{}'", "agent_type": "'validation'", "session_id": "'s'"}, "{}"),
    ("agent_registry", "error_info", {"agent_id": "'{}'", "agent_type": "'validation'", "session_id": "'s'"}, "{}"),
    ("milestones", "data", {"id": "'{}'"}, "{}"),
    ("agent_lifecycle", "metadata", {"task_id": "'{}'", "agent_type": "'t'", "pid": "1", "command": "'c'"}, "{}"),
    ("agent_health_log", "details", {"agent_id": "'{}'", "health_status": "'healthy'"}, "{}"),
    ("operation_types", "artifacts", {"name": "'{}'"}, '[{{"key": "k", "weight": 1, "more": {}}}]'),
    ("agent_checkpoints", "state_snapshot", {"checkpoint_id": "'{}'", "agent_id": "'one'", "session_id": "'s'"}, "{}"),
    (
        "agent_checkpoints", "file_references", {"checkpoint_id": "'{}'", "agent_id": "'one'", "session_id": "'s'"},
        '[{{"path": "/x", "sha256": "y", "size": 1, "more": {}}}]',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column", "row", "shape"), NOTES)
@pytest.mark.parametrize(
    ("note", "code"),
    [
        ('{"a": "\\u0000"}', "invalid_json|Unicode"),
        ('{"a": 1e999}', "invalid_json"),
        ('{"a": -12345678901234567890}', "invalid_json"),
        ('{"a": {"b": 1, "b": 1}}', "invalid_json"),
        ("{", "invalid"),
    ],
)
def test_no_note_is_what_no_payload_may_be(
    used: Bus, table: str, column: str, row: dict[str, str], shape: str, note: str, code: str
) -> None:
    put = f"insert into {table} ({', '.join(row)}, {column}) values ({', '.join(row.values())}, '{{}}')"
    with prompt(used) as run:
        run(put.format("good", shape.format('{"a": {"b": 1, "c": 1}}')))
        before = run(f"select count(*) from {table}").fetchall()
        with denied(code):
            run(put.format("bad", shape.format(note)))
        with denied(f"immutable|{code}" if table == "agent_checkpoints" else code):
            run(f"update {table} set {column} = '{shape.format(note)}'")
        assert run(f"select count(*) from {table}").fetchall() == before


@pytest.mark.parametrize(
    "artifacts",
    [
        '["notes"]', '[{"key": "notes"}]', '[{"key": "notes", "weight": 0}]', '[{"key": "notes", "weight": -1}]',
        '[{"key": "notes", "weight": "heavy"}]', '[{"key": "notes", "weight": null}]', '[{"key": 1, "weight": 1}]',
        '[{"key": "notes", "weight": true}]', '[{"weight": 1}]', '[{"key": "notes", "weight": 1}, 2]',
        '[{"key": "notes", "weight": 1e7}]',
    ],
)  # fmt: skip
def test_artifacts_can_be_added_up(used: Bus, artifacts: str) -> None:
    with prompt(used) as run:
        run("""insert into operation_types (name, artifacts) values ('mine', '[{"key": "notes", "weight": 1.5}]')""")
        with denied("invalid_value"):
            run(f"insert into operation_types (name, artifacts) values ('yours', '{artifacts}')")
        with denied("invalid_value"):
            run(f"update operation_types set artifacts = '{artifacts}' where name = 'mine'")
    used.register("x", type="validation", session="y", operation="mine")
    assert used.recovery_plan("y").progress == 0


@pytest.mark.parametrize(
    "files",
    ["[1]", "[{}]", '[{"path": 5, "sha256": "a", "size": 1}]', '[{"path": "/x", "size": 1}]',
     '[{"path": "/x", "sha256": "a", "size": "1"}]', '[{"path": "/x", "sha256": "a", "size": 1.5}]'],
)  # fmt: skip
def test_a_checkpoint_refers_to_files_alone(used: Bus, files: str) -> None:
    row = "agent_checkpoints (agent_id, session_id, file_references) values ('one', 's', '{}')"
    with prompt(used) as run:
        with denied("invalid_json"):
            run(f"insert into {row.format(files)}")
        run("insert into " + row.format('[{"path": "/x", "sha256": "a", "size": 1}]'))
    restored = used.checkpoint_restore("one")
    assert restored
    assert [(file.path, file.status) for file in restored.files] == [("/x", "missing")]


def test_a_value_changed_by_hand_has_another_version(used: Bus) -> None:
    with prompt(used) as run:
        run("update agent_state set state_value = 'w'")
        assert used.state_save("one", "k", "x", if_version=2) == 3
        run("insert into agent_state (agent_id, state_key, state_value) values ('one', 'k', 'y') "
            "on conflict (agent_id, state_key) do update set state_value = excluded.state_value")  # fmt: skip
        run("update agent_state set state_value = 'z', version = 9")
        run("update agent_state set state_type = 'temp_data'")
        assert used.state_load_versioned("one", "k") == ("z", 9)
        for earlier in (
            "version = 8",
            "version = 1, state_value = 'a'",
        ):  # whoever knows that one would take it for its own
            run(f"update agent_state set {earlier}")
    assert used.state_load_versioned("one", "k") == ("a", 11)
    assert used.state_delete("one", "k")
    assert used.state_save("one", "k", "x") == 12


def test_no_idempotency_key_is_empty(used: Bus) -> None:
    with prompt(used) as run, denied("invalid_idempotency_key"):
        run("insert into agent_messages (session_id, from_agent, to_agent, message_type, payload, idempotency_key) "
            "values ('s', 'me', 'one', 'task_assignment', '{}', '')")  # fmt: skip


@pytest.mark.parametrize("expires", [None, 2.0, 100.0])
@pytest.mark.parametrize(
    ("end", "status", "why"),
    [
        ("status = 'acknowledged', acknowledged_at = created_at", "acknowledged", None),
        ("status = 'dead', dead_reason = 'cancelled'", "dead", "cancelled"),
    ],
)
@pytest.mark.parametrize("by_monitor", [False, True])
def test_what_was_ended_by_hand_stays_so(
    team: Bus, end: str, status: str, why: str | None, expires: float | None, by_monitor: bool
) -> None:
    first = team.send("boss", "one", "task_assignment", {}, expires=expires)
    team.receive("one", lease=1)
    with prompt(team) as run:
        run(f"update agent_messages set {end} where id = {first}")
    second = team.send("boss", "one", "task_assignment", {})
    with clock.moved(5):
        if by_monitor:
            team.monitor_check(by="me")
        assert [message.id for message in team.receive("one")] == [second]
        found = team.message(first)
        assert (found.status, found.dead_reason, found.due_at) == (status, why, None)
        assert team.receive("one") == []


@pytest.mark.parametrize(("before", "kept"), [('{"mine": 1}', {"mine": 1}), ("[1]", {})])
def test_a_session_that_begins_again_keeps_its_configuration(used: Bus, before: str, kept: dict[str, int]) -> None:
    with prompt(used) as run:
        run(f"update coordination_sessions set configuration = '{before}'")
    used.recovery_apply("s", "restart", by="me")
    configuration = used.session_show("s").configuration
    assert isinstance(configuration, dict)
    assert {key: value for key, value in configuration.items() if key != "restarted_at"} == kept
    assert configuration.keys() - kept.keys() == {"restarted_at"}


def test_an_expiry_given_later_by_hand_holds(used: Bus) -> None:
    with prompt(used) as run:
        run("update agent_messages set expires_at = '2020-01-01 00:00:00.000' where id = 1")
    assert (used.message(1).status, used.message(1).dead_reason) == ("dead", "expired")
    assert used.receive("one") == []


@pytest.mark.parametrize("act", ["extend", "release"])
def test_a_lease_taken_back_by_hand_is_extended_and_given_back(used: Bus, act: str) -> None:
    (message,) = used.receive("one")
    with prompt(used) as run:
        run("update agent_messages set status = 'ready' where id = 1")
    getattr(used, act)(message.receipt)
    assert used.message(1).status == {"extend": "leased", "release": "ready"}[act]


def test_an_agent_without_a_session_receives(used: Bus) -> None:
    with prompt(used) as run:
        run("insert into agent_registry (agent_id, agent_type, session_id) values ('h', 'validation', 'nosession')")
    ids = [used.send("boss", "h", "task_assignment", {}) for _ in range(3)]
    assert [message.id for _ in ids for message in used.receive("h")] == ids


def test_the_health_log_is_kept_for_its_days(used: Bus) -> None:
    with prompt(used) as run:
        for days in (29, 31):
            at = clock.stamp(clock.seconds() - days * 86400)
            columns = "agent_health_log (agent_id, health_status, timestamp)"
            run(f"insert into {columns} values ('{days}', 'healthy', '{at}')")
        used.prune()
        assert run("select agent_id from agent_health_log").fetchall() == [("29",)]


def test_a_session_is_as_active_as_what_comes_to_it_by_hand(used: Bus) -> None:
    for hours, text in (
        (1, "agent_registry (agent_id, agent_type, session_id, last_heartbeat) values ('x', 'validation', 's'"),
        (2, "agent_messages (session_id, from_agent, to_agent, message_type, payload, created_at) "
            "values ('s', 'me', 'one', 'task_assignment', '{}'"),
    ):  # fmt: skip
        at = clock.seconds() + hours * 3600
        with prompt(used) as run:
            run(f"insert into {text}, '{clock.stamp(at)}')")
        assert used.session_show("s").last_activity.timestamp() == pytest.approx(at, abs=0.01)
