"""What a person at the sqlite3 prompt can and can't do to a bus."""

import json
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from itertools import count, product
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bus import Bus, BusError, clock, copying, monitor, payloads

STATUSES = ["scheduled", "ready", "leased", "acknowledged", "dead"]
LEGAL = {
    ("scheduled", "ready"), ("scheduled", "dead"), ("ready", "leased"), ("ready", "dead"), ("leased", "ready"),
    ("leased", "scheduled"), ("leased", "acknowledged"), ("leased", "dead"), ("dead", "ready"),
}  # fmt: skip
COLUMNS = {
    "scheduled": {"due_at": "2099-01-01 00:00:00.000"},
    "ready": {},
    "leased": {"due_at": "2099-01-01 00:00:00.000", "leased_by": "a", "delivery": 1},
    "acknowledged": {"acknowledged_at": "2026-01-01 00:00:00.000"},
    "dead": {"dead_reason": "cancelled"},
}


@pytest.fixture
def hand(url: str) -> Iterator[sqlite3.Connection]:
    """A plain connection to a bus in which agent `a` is registered."""
    with Bus.open(url) as bus:
        bus.register("a", type="milestone-executor", session="s")
    connection = sqlite3.connect(url, isolation_level=None)
    yield connection
    connection.close()


def insert(hand: sqlite3.Connection, table: str = "agent_messages", **columns: object) -> int:
    row = {"session_id": "s", "from_agent": "me", "to_agent": "a", "message_type": "task_assignment", "payload": "{}"}
    values = {**(row if table == "agent_messages" else {}), **columns}
    marks = ", ".join("?" * len(values))
    cursor = hand.execute(f"insert into {table} ({', '.join(values)}) values ({marks})", list(values.values()))
    return cursor.lastrowid or 0


def test_a_good_row_put_in_by_hand_is_received_like_any_other(hand: sqlite3.Connection, url: str) -> None:
    insert(hand, payload='{"phase": "design"}')
    insert(hand, to_agent="@milestone-executor", priority=7, payload='{"phase": "queue"}')
    with Bus.open(url) as bus:
        found = bus.receive("a", limit=5)
        assert [(m.payload["phase"], m.from_agent, m.priority) for m in found] == [
            ("queue", "me", 7),
            ("design", "me", 5),
        ]
        bus.ack([m.receipt or "" for m in found])


# What would make every later receive from the same mailbox fail must not get in.
POISON = {
    "a moment that is none": {"created_at": "yesterday"},
    "a moment that is no text": {"created_at": 5},
    "no moment at all": {"created_at": ""},
    "a day without a time": {"created_at": "2026-01-01"},
    "a day that there is not": {"created_at": "2026-13-45 00:00:00.000"},
    "a day that this month has not": {"created_at": "2026-02-30 00:00:00"},
    "an hour that no day has": {"expires_at": "2099-01-01 24:00:00.000"},
    "an expiry that is none": {"expires_at": "soon"},
    "an expiry written with T and Z": {"expires_at": "2099-01-01T00:00:00Z"},
    "a timer that is none": {"status": "scheduled", "due_at": "later"},
    "a delivery below zero": {"delivery": -5},
    "the last delivery there can be": {"delivery": 2**63 - 1},
    "an id below one": {"id": -5},
    "the last id there can be": {"id": 2**63 - 1},
    "more digits than a receipt has": {"id": 10**18},
    "deep nesting": {"payload": '{"a":' + "[" * 1900 + "]" * 1900 + "}"},
    "a lone surrogate": {"payload": '{"a": "\\ud800"}'},
}


@pytest.mark.parametrize("limit", [1, 5])
@pytest.mark.parametrize("columns", POISON.values(), ids=POISON)
def test_no_row_put_in_by_hand_blocks_a_mailbox(
    hand: sqlite3.Connection, url: str, columns: dict[str, object], limit: int
) -> None:
    with suppress(sqlite3.IntegrityError):
        insert(hand, **columns)
    good = insert(hand, payload='{"phase": "good"}')
    with Bus.open(url) as bus:
        seen: list[int] = []
        while found := bus.receive("a", limit=limit):
            bus.ack([message.receipt or "" for message in found])
            seen += [message.id for message in found]
        assert good in seen
        assert bus.message(good).status == "acknowledged"
        assert bus.messages()
        bus.status()


def test_however_many_are_due_a_check_moves_them_all(hand: sqlite3.Connection, url: str) -> None:
    number = monitor.BATCH + 1
    hand.execute(
        "with recursive n (i) as (select 1 union all select i + 1 from n where i < ?)"
        "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload, status, due_at)"
        "select 's', 'me', 'nobody-yet', 'task_assignment', '{}', 'scheduled', '2020-01-01 00:00:00.000' from n",
        [number],
    )
    with Bus.open(url) as bus:
        assert bus.monitor_check().due == number


def test_the_doctor_names_what_is_not_of_the_bus(hand: sqlite3.Connection, url: str) -> None:
    hand.execute("create view notes as select 1")
    with Bus.open(url) as bus:
        (found,) = [finding for finding in bus.doctor() if finding.subject == "schema"]
    assert (found.verdict, found.details) == ("warning", "triggers and views that are not the bus's: notes")


def test_a_row_can_not_be_replaced_by_hand(hand: sqlite3.Connection) -> None:
    first = insert(hand, payload='{"phase": "first"}')
    for newest in (True, False):
        if not newest:
            insert(hand)
        values = {"session_id": "s", "from_agent": "me", "to_agent": "a", "message_type": "task_assignment"}
        values |= {"payload": '{"phase": "second"}', "id": str(first)}
        marks = ", ".join("?" * len(values))
        with suppress(sqlite3.IntegrityError):
            hand.execute(
                f"insert or replace into agent_messages ({', '.join(values)}) values ({marks})", list(values.values())
            )
        found = hand.execute("select payload from agent_messages where id = ?", [first]).fetchone()
        assert found == ('{"phase": "first"}',)


def test_an_id_far_ahead_leaves_none_for_the_next_and_is_refused(hand: sqlite3.Connection, url: str) -> None:
    for table, column in (("agent_messages", "id"), ("agent_lifecycle", "agent_id")):
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            hand.execute(f"insert into {table} ({column}) values ({10**15})")
    with Bus.open(url) as bus:
        assert bus.send("a", "a", "task_assignment", {}) == 1
        assert bus.trace_spawn("validation", "t", pid=os.getpid()) == 1


def test_a_life_on_record_can_not_be_replaced_by_hand(hand: sqlite3.Connection, url: str) -> None:
    with Bus.open(url) as bus:
        bus.trace_spawn("validation", "t", pid=os.getpid())
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            hand.execute(
                "insert or replace into agent_lifecycle (agent_id, pid, agent_type, task_id, command)"
                " values (1, 1, 'another', 't', 'c')"
            )
        assert bus.trace_show(1).agent_type == "validation"


def test_ids_are_never_used_again_also_by_hand(hand: sqlite3.Connection, url: str) -> None:
    first, _ = insert(hand, status="acknowledged", **COLUMNS["acknowledged"]), insert(hand)
    hand.execute("delete from agent_messages where id = ?", [first])
    with pytest.raises(sqlite3.IntegrityError):
        insert(hand, id=first)


@pytest.mark.parametrize("name", ["id", "rowid", "OID", "_rowid_", '"RowId"'])
def test_an_id_is_not_changed_under_any_of_its_names(hand: sqlite3.Connection, url: str, name: str) -> None:
    insert(hand)
    with Bus.open(url) as bus:
        bus.trace_spawn("validation", "t", pid=os.getpid())
    for table, column in (("agent_messages", name), ("agent_lifecycle", name if name != "id" else "agent_id")):
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            hand.execute(f"update {table} set {column} = 7")


def test_a_checkpoint_can_not_be_replaced_by_hand(hand: sqlite3.Connection, url: str) -> None:
    with Bus.open(url) as bus:
        made = bus.checkpoint_create("a", {"n": 1})
        with suppress(sqlite3.IntegrityError):
            hand.execute(
                "insert or replace into agent_checkpoints (checkpoint_id, agent_id, session_id) values (?, 'a', 's')",
                [made.checkpoint_id],
            )
        assert bus.checkpoint_show(made.checkpoint_id) == made


def test_an_agent_written_again_by_hand_is_counted_once(hand: sqlite3.Connection, url: str) -> None:
    text = "insert or replace into agent_registry (agent_id, agent_type, session_id) values ('a', 'validation', ?)"
    for session in ("s", "s"):
        hand.execute(text, [session])
    with Bus.open(url) as bus:
        assert bus.session_show("s").agent_count == 1


def test_a_session_put_in_by_hand_counts_the_agents_that_came_first(hand: sqlite3.Connection, url: str) -> None:
    insert(hand, "agent_registry", agent_id="b", agent_type="validation", session_id="late")
    insert(hand, "coordination_sessions", session_id="late")
    hand.execute("insert or replace into coordination_sessions (session_id) values ('s')")
    with Bus.open(url) as bus:
        assert [session.agent_count for session in bus.session_list()] == [1, 1]


def test_an_agent_removed_by_hand_is_not_counted(hand: sqlite3.Connection, url: str) -> None:
    hand.execute("delete from agent_registry")
    with Bus.open(url) as bus:
        assert bus.session_show("s").agent_count == 0


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("agent_registry", "last_heartbeat"),
        ("agent_registry", "spawn_time"),
        ("coordination_sessions", "last_activity"),
        ("agent_state", "updated_at"),
        ("agent_state", "expires_at"),
        ("agent_checkpoints", "created_at"),
    ],
)
def test_a_moment_that_is_none_breaks_no_list(hand: sqlite3.Connection, url: str, table: str, column: str) -> None:
    with Bus.open(url) as bus:
        bus.state_save("a", "k", "v")
        bus.checkpoint_create("a", {})
        with suppress(sqlite3.IntegrityError):
            hand.execute(f"update {table} set {column} = 'yesterday'")
        assert bus.agents()
        assert bus.lives(bus.agents())
        assert bus.session_list()
        assert bus.checkpoint_list("a")
        bus.state_list("a")


@pytest.mark.parametrize(
    ("table", "column"),
    [(name, column) for name, table in copying.TABLES.items() for kind, column in table.pairs() if kind == "m"],
)
def test_no_moment_may_be_none(hand: sqlite3.Connection, url: str, table: str, column: str) -> None:
    insert(hand)
    with Bus.open(url) as bus:
        bus.state_save("a", "k", "v")
        bus.checkpoint_create("a", {})
    insert(hand, "agent_health_log", agent_id="a", health_status="healthy")
    insert(hand, "agent_lifecycle", pid=1, agent_type="a", task_id="t", command="")
    insert(hand, "milestones", id="m")
    insert(hand, "trace_exports", target="x")
    for text in ("nonsense", "", "2026-01-01"):
        with pytest.raises(sqlite3.IntegrityError, match=r"invalid_|immutable"):
            hand.execute(f"update {table} set {column} = ?", [text])


def test_no_table_takes_a_day_or_an_hour_that_there_is_not(hand: sqlite3.Connection) -> None:
    checks = hand.execute("select sql from sqlite_master where sql like '%invalid_moment%'").fetchall()
    moments = {found for (sql,) in checks for found in re.findall(r"invalid_moment check .*?datetime\((.*?)\) =", sql)}
    assert len(moments) > 10
    for moment in ("2026-02-30 00:00:00", "2026-02-29 00:00:00.000", "2026-04-31 23:59:59.999", "2026-01-01 24:00:00"):
        for read in moments:
            column = read.strip(")").split("(")[-1]
            ((taken,),) = hand.execute(
                f"select datetime({read}) = ? from (select ? as {column})", [moment[:19], moment]
            )
            assert not taken, (read, moment)


LATE = datetime(9999, 12, 31, 23, 59, 59, 999000)


@settings(deadline=None)
@given(
    st.datetimes(datetime(1, 1, 1), LATE).filter(lambda at: at.year != 300),  # 300-03-01: SQLite before 3.47 errs
    st.sampled_from([19, 21, 22, 23]),
)
def test_every_moment_that_there_is_is_taken(at: datetime, length: int) -> None:
    text = at.isoformat(" ", "milliseconds")[:length]
    assert _moments().execute("update agent_messages set created_at = ?", [text]).rowcount == 1


@lru_cache
def _moments() -> sqlite3.Connection:
    """The table of messages alone, without its triggers, in memory."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    text = (Path(__file__).parents[2] / "schemas/sqlite/0001_core.sql").read_text("utf-8")
    connection.execute(
        text[text.index("create table agent_messages") : text.index("create index agent_messages_ready")]
    )
    insert(connection)
    return connection


def test_an_expiry_given_by_hand_is_kept(hand: sqlite3.Connection, url: str) -> None:
    id = insert(hand, expires_at="2026-01-01 00:00:00")
    with Bus.open(url) as bus:
        assert bus.receive("a") == []
        assert bus.message(id).dead_reason == "expired"


# Messages that every store refuses, and the code.
BAD_MESSAGES = [
    ({"message_type": "gossip"}, "unknown_type"),
    ({"to_agent": "@plumber"}, "unknown_type"),
    ({"to_agent": "*"}, "invalid_address"),
    ({"to_agent": "a b"}, "invalid_address"),
    ({"from_agent": "-x"}, "invalid_id"),
    ({"priority": 0}, "invalid_priority"),
    ({"priority": 11}, "invalid_priority"),
    ({"payload": "[]"}, "invalid_payload"),
    ({"payload": '{"phase": 7}'}, "invalid_payload"),
    ({"payload": '{"\\u0070hase": 7}'}, "invalid_payload"),
    ({"payload": '{"requirements": ["a", 1]}'}, "invalid_payload"),
    ({"payload": '{"weight": -0.5}'}, "invalid_payload"),
    ({"payload": '{"a": 1, "\\u0061": 1}'}, "invalid_json"),
    ({"payload": '{"a": 99999999999999999999}'}, "invalid_json"),
    ({"payload": '{"a": -1e999}'}, "invalid_json"),
    ({"payload": '{"a": "' + "x" * 1048576 + '"}'}, "payload_too_large"),
    ({"session_id": None}, "unknown_agent"),
    ({"session_id": ""}, "invalid_id"),
    ({"session_id": "a b"}, "invalid_id"),
    ({"session_id": "s" * 129}, "invalid_id"),
    ({"retry_count": -1}, "invalid_value"),
    ({"status": "lost"}, "invalid_status"),
    ({"status": "leased"}, "invalid_status"),
    ({"status": "dead"}, "invalid_status"),
    ({"dead_reason": "bored", "status": "dead"}, "invalid_dead_reason"),
]


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        *BAD_MESSAGES,
        ({"priority": "high"}, "TEXT value in INTEGER"),
        ({"priority": 1.5}, "REAL value in INTEGER"),
        ({"payload": "{broken"}, "invalid_json"),
        ({"payload": '{"a": "\\u0000"}'}, "invalid_json"),
        ({"payload": "{}\0"}, "invalid_json"),
        ({"payload": None}, "NOT NULL|invalid_json"),
        ({"payload": '{"a/": 1, "a\\/": 1}'}, "invalid_json"),
        ({"payload": '{"\U0001f600": 1, "\\ud83d\\ude00": 1}'}, "invalid_json"),
        ({"payload": '{"\\u0000": 1}'}, "invalid_json"),
        ({"payload": '{"a": -9223372036854775809}'}, "invalid_json"),
        ({"payload": '{"a": 01}'}, "invalid_json"),
        ({"payload": "{'a': 1}"}, "invalid_json"),
        ({"payload": '{"a": 1,}'}, "invalid_json"),
        ({"payload": '{"a": "\t"}'}, "invalid_json"),
        ({"payload": '{"a": 1} {}'}, "invalid_json"),
        ({"payload": "\ufeff{}"}, "invalid_json"),
        ({"message_type": None}, "NOT NULL|unknown_type"),
        ({"to_agent": None}, "NOT NULL"),
    ],
)
def test_a_bad_row_is_refused(hand: sqlite3.Connection, columns: dict[str, object], code: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match=code):
        insert(hand, **columns)
    assert hand.execute("select count(*) from agent_messages").fetchone() == (0,)


# Rows of other tables that every store refuses.
BAD_ROWS = [
    ("agent_registry", {"agent_id": "x", "agent_type": "plumber", "session_id": "s"}),
    ("agent_registry", {"agent_id": "x", "agent_type": "validation", "session_id": "s", "status": "asleep"}),
    ("agent_registry", {"agent_id": "x y", "agent_type": "validation", "session_id": "s"}),
    ("agent_registry", {"agent_id": "x", "agent_type": "validation", "session_id": "s", "capabilities": "{}"}),
    ("agent_registry", {"agent_id": "x", "agent_type": "validation", "session_id": "s y"}),
    ("agent_checkpoints", {"agent_id": "x", "session_id": ""}),
    ("agent_state", {"agent_id": "x", "state_key": "a b", "state_value": ""}),
    ("agent_state", {"agent_id": "x", "state_key": "k", "state_value": "", "state_type": "gossip"}),
    ("coordination_sessions", {"session_id": "x", "operation_type": "party"}),
    ("coordination_sessions", {"session_id": "x", "progress": 101}),
    ("agent_checkpoints", {"agent_id": "x", "session_id": "s", "state_snapshot": '{"a":1,"a":2}'}),
    ("agent_health_log", {"agent_id": "x", "health_status": "fine"}),
    ("milestones", {"id": "x", "priority": 11}),
]


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        *BAD_ROWS,
        ("agent_state", {"agent_id": "x", "state_key": "k", "state_value": "a\0b"}),
    ],
)
def test_the_other_tables_refuse_bad_rows_too(hand: sqlite3.Connection, table: str, columns: dict[str, object]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert(hand, table, **columns)


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
def test_only_the_drawn_edges_can_be_walked(hand: sqlite3.Connection, before: str, after: str) -> None:
    if before == after:
        return
    id = insert(hand, status=before, **COLUMNS[before])
    blank = {"due_at": None, "leased_by": None, "delivery": 1, "acknowledged_at": None, "dead_reason": None}
    values = {**blank, **COLUMNS[after], "status": after}
    text = f"update agent_messages set {', '.join(f'{key} = ?' for key in values)} where id = {id}"
    if (before, after) in LEGAL:
        hand.execute(text, list(values.values()))
    else:
        with pytest.raises(sqlite3.IntegrityError, match="illegal_transition"):
            hand.execute(text, list(values.values()))


@pytest.mark.parametrize(
    "column", ["id", "session_id", "from_agent", "to_agent", "message_type", "payload", "created_at"]
)
def test_what_was_sent_does_not_change(hand: sqlite3.Connection, column: str) -> None:
    insert(hand)
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        hand.execute(f"update agent_messages set {column} = {column}")


def test_the_fencing_token_only_grows_and_the_newest_row_stays(hand: sqlite3.Connection) -> None:
    insert(hand, status="leased", **COLUMNS["leased"])
    with pytest.raises(sqlite3.IntegrityError, match="immutable"):
        hand.execute("update agent_messages set delivery = 0")
    with pytest.raises(sqlite3.IntegrityError, match="never used again"):
        hand.execute("delete from agent_messages")


@pytest.mark.parametrize("limit", [1, 5])
def test_text_that_is_not_utf8_blocks_nobody(hand: sqlite3.Connection, url: str, limit: int) -> None:
    hand.execute(
        "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload) "
        "values ('s', 'me', 'a', 'task_assignment', cast(x'7b2261223a22ff227d' as text))"
    )
    insert(hand, payload='{"phase": "good"}')
    with Bus.open(url) as bus:
        assert bus.messages()[1].payload == {"a": "\ufffd"}
        assert [m.payload["phase"] for m in bus.receive("a", limit=limit)] == ["good"]
        assert bus.message(1).dead_reason == "damaged"


@pytest.mark.parametrize("priority", [-3, 0, 11, 1000])
def test_a_priority_that_there_is_not_blocks_nobody(hand: sqlite3.Connection, url: str, priority: int) -> None:
    hand.execute("pragma ignore_check_constraints = on")
    odd, good = insert(hand, priority=priority), insert(hand, priority=5)
    with Bus.open(url) as bus:
        seen = [bus.receive("a")[0].id, bus.receive("a")[0].id]
    assert seen == ([good, odd] if priority < 5 else [odd, good])


def test_what_is_sent_by_hand_keeps_a_session_active(hand: sqlite3.Connection, url: str) -> None:
    with Bus.open(url) as bus:
        before = bus.session_show("s").last_activity
        insert(hand, created_at=clock.stamp(clock.seconds() + 3600))
        assert (bus.session_show("s").last_activity - before).total_seconds() > 3500


def test_settings_that_are_numbers_stay_numbers_by_hand(hand: sqlite3.Connection) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="invalid_value"):
        hand.execute("update agent_coordination_config set value = 'many' where key = 'message_retry_limit'")
    with pytest.raises(sqlite3.IntegrityError, match="invalid_value"):
        hand.execute("update agent_coordination_config set value = '5' || char(0) || 's' where key = 'lease_seconds'")
    for value in ("many", "-5", "60"):
        with pytest.raises(sqlite3.IntegrityError, match="immutable"):
            hand.execute(
                "insert or replace into agent_coordination_config (key, value) values ('lease_seconds', ?)", [value]
            )


def test_a_setting_that_was_removed_by_hand_is_missed(hand: sqlite3.Connection, url: str) -> None:
    hand.execute("drop trigger agent_coordination_config_kept")  # as in a bus that was made before there was one
    hand.execute("delete from agent_coordination_config where key = 'stale_after'")
    hand.commit()
    with Bus.open(url) as bus, pytest.raises(BusError, match="the setting stale_after is gone"):
        bus.interrupted()
    hand.execute("insert into agent_coordination_config (key, value) values ('stale_after', '60')")
    hand.commit()
    with Bus.open(url) as bus:
        assert bus.interrupted() == []


# --- the compiled checks judge as a validator does

KEYS = ["a", "b", "phase"]
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.sampled_from([0.5, 1.0, -2.5])
    | st.sampled_from(["", "a", "éé", "a'b"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=6,
)
types = st.sampled_from(list(payloads.TYPES))


def schemas(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": types | st.lists(types, min_size=1, max_size=3, unique=True),
            "enum": st.lists(scalars, min_size=1, max_size=3),
            "const": scalars,
            "required": st.lists(st.sampled_from(KEYS), max_size=2, unique=True),
            "properties": st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
            "additionalProperties": st.just(False),
            "minimum": st.integers(-3, 3), "maximum": st.sampled_from([0.5, 2]),
            "minLength": st.integers(0, 3), "maxLength": st.integers(0, 3),
            "items": inner, "minItems": st.integers(0, 2), "maxItems": st.integers(0, 2),
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def checker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path: Path = tmp_path_factory.mktemp("checks") / "coordination.db"
    Bus.open(str(path), create=True).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("pragma synchronous = off")
    yield connection
    connection.close()


def accepts(checker: sqlite3.Connection, kind: str, payload: object) -> bool:
    try:
        insert(checker, message_type=kind, payload=json.dumps(payload))
    except sqlite3.IntegrityError as refusal:
        if not str(refusal).startswith("invalid_payload"):
            raise
        return False
    return True


@contextmanager
def undone(checker: sqlite3.Connection) -> Iterator[None]:
    checker.execute("begin")
    try:
        yield
    finally:
        checker.execute("rollback")


numbers = count()


@settings(max_examples=150, deadline=None)
@given(
    schema=st.recursive(schemas(st.just({})), schemas, max_leaves=4),
    given_=st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=3), min_size=1, max_size=6),
)
def test_a_compiled_schema_accepts_what_a_validator_accepts(
    checker: sqlite3.Connection, schema: dict[str, object], given_: list[dict[str, object]]
) -> None:
    schema = {**schema, "type": "object"}
    kind = f"kind{next(numbers)}"
    validator = Draft202012Validator(schema)
    with undone(checker):
        insert(checker, "message_types", name=kind, schema=json.dumps(schema))
        checker.execute(payloads.triggers(kind, schema)["sqlite"])
        for payload in given_:
            assert accepts(checker, kind, payload) == validator.is_valid(payload), (schema, payload)


SEEDED = sorted(path for path in (Path(__file__).parents[2] / "schemas" / "messages").glob("*.json"))


@pytest.mark.parametrize("path", SEEDED, ids=lambda path: path.stem)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_seeded_types_accept_what_their_schemas_accept(
    checker: sqlite3.Connection, path: Path, data: st.DataObject
) -> None:
    schema = json.loads(path.read_text("utf-8"))
    keys = st.sampled_from([*schema["properties"], "other"])
    payload = data.draw(st.dictionaries(keys, values | st.sampled_from([0, 100, 101, -1, 1.5]), max_size=4))
    with undone(checker):
        assert accepts(checker, path.stem, payload) == Draft202012Validator(schema).is_valid(payload), payload


def test_a_trigger_that_a_project_made_refuses_with_a_code_of_its_own(url: str) -> None:
    with Bus.open(url, create=True) as bus:
        bus.register("a", type="validation", session="s")
        with closing(sqlite3.connect(url)) as hand:
            hand.execute(
                "create trigger ours before insert on agent_messages when new.priority = 7"
                " begin select raise(abort, 'not_on_sundays: come back tomorrow'); end"
            )
        with pytest.raises(BusError, match="come back tomorrow") as caught:
            bus.send("a", "a", "task_assignment", {}, priority=7)
        assert (caught.value.code, caught.value.exit_status) == ("not_on_sundays", 70)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        *((f"{kind}_types", lambda bus: bus.types_list()) for kind in ("agent", "message", "state", "operation")),
        ("agent_coordination_config", lambda bus: bus.config_list()),
    ],
)
def test_a_description_that_is_no_text_hides_nothing(url: str, table: str, told: Callable[[Bus], Any]) -> None:
    with Bus.open(url) as bus:
        number = len(told(bus))
        with closing(sqlite3.connect(url)) as hand, hand:
            hand.execute(f"update {table} set description = cast(x'61ff' as text)")
        found = msgspec.json.decode(msgspec.json.encode(told(bus)))
    assert len(found) == number
    assert "a\ufffd" in {row["description"] for row in found}
