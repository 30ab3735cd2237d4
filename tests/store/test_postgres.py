"""The bus on PostgreSQL: whose rules hold for whom, what happens when connections break, what the address says."""

import asyncio
import contextlib
import functools
import json
import os
import re
import select
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from bus_client import Agent
from bus_client.agent import RESTING
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from psycopg.conninfo import conninfo_to_dict

from bus import AsyncBus, Bus, BusError, agents, clock, schemas, state
from bus.errors import error
from bus.models import Message
from bus.store import postgres as store
from bus.store import postgres_async, postgres_ear, postgres_facts, postgres_rendering
from bus.store.blocking import Store
from bus.store.postgres import SETTINGS, Connection
from bus.store.postgres_async import Pool
from bus.store.postgres_ear import Ear
from bus.store.postgres_listening import Line
from bus.store.postgres_wire import Ask, Wire
from bus.store.url import SECRET, Server, folder, parse
from tests import empty, servers
from tests.conformance.refusal import refused
from tests.conftest import Process, listening
from tests.store import test_payload_types as payload_types
from tests.store.test_by_hand import BAD_MESSAGES, BAD_ROWS, COLUMNS, LEGAL, STATUSES

TASK = "task_assignment"


class Hand(psycopg.Connection[tuple[object, ...]]):
    """A plain connection, for SQL that names the schema of a bus, and so is no literal."""

    def execute(self, query: Any, *arguments: Any, **options: Any) -> psycopg.Cursor[tuple[object, ...]]:
        return super().execute(query.encode(), *arguments, **options)


@pytest.fixture(params=["server", "older_server"])
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty bus on each version that is at hand: what their planners make of the same statements differs."""
    with empty.schema(request.getfixturevalue(request.param)) as address:
        yield address


@pytest.fixture(params=["server", "older_server"])
def vacant(request: pytest.FixtureRequest) -> Iterator[str]:
    """A schema that is not there yet."""
    with servers.schema(request.getfixturevalue(request.param)) as address:
        yield address


@pytest.fixture
def bus(postgres: str) -> Iterator[Bus]:
    """A bus on PostgreSQL with agents boss, a and b in session s."""
    with Bus.open(postgres, create=True) as opened:
        opened.register("boss", type="milestone-coordinator", session="s")
        for name in "ab":
            opened.register(name, type="milestone-executor", session="s")
        yield opened


@pytest.fixture
def hand(bus: Bus) -> Iterator[Hand]:
    """A plain connection, whose search path is not the bus's."""
    url = bus.url
    assert isinstance(url, Server)
    with Hand.connect(url.conninfo, autocommit=True) as connection:
        connection.execute("set search_path = public")
        yield connection


def table(bus: Bus, name: str = "agent_messages") -> str:
    assert isinstance(bus.url, Server)
    return f"{bus.url.schema}.{name}"


def insert(bus: Bus, hand: Hand, name: str = "agent_messages", **columns: object) -> int:
    row = {"session_id": "s", "from_agent": "me", "to_agent": "a", "message_type": TASK, "payload": "{}"}
    values = {**(row if name == "agent_messages" else {}), **columns}
    marks = ", ".join(["%s"] * len(values))
    key = "id" if name == "agent_messages" else "1"
    text = f"insert into {table(bus, name)} ({', '.join(values)}) values ({marks}) returning {key}"
    found = hand.execute(text, list(values.values())).fetchone()
    assert found
    return int(str(found[0]))


# --- the address


def test_an_address_hides_its_password_wherever_it_is_shown() -> None:
    url = parse("postgresql://me:s3cr%40t@db.example:6432/work?sslmode=require&schema=team&sslpassword=s3cr%40t")
    assert isinstance(url, Server)
    assert (url.schema, url.listen) == ("team", True)
    assert url.path == "postgresql://me:***@db.example:6432/work?sslmode=require&schema=team&sslpassword=***"
    assert "s3cr" not in f"{url!r} {url} {url.path}"
    assert url.conninfo == "postgresql://me:s3cr%40t@db.example:6432/work?sslmode=require&sslpassword=s3cr%40t"
    assert parse(url.address()).path.replace("&schema=team", "") == url.path.replace("&schema=team", "")


def test_what_is_written_beside_a_server_is_in_the_nearest_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else each folder would have a monitor of its own."""
    url = parse("postgresql://h/d")
    (below := tmp_path / "work" / "below").mkdir(parents=True)
    monkeypatch.chdir(below)
    assert folder(url) == below / ".milestones"
    (tmp_path / "work" / ".milestones").mkdir()
    assert folder(url) == tmp_path / "work" / ".milestones"


@pytest.mark.parametrize("name", sorted(SECRET))
def test_an_address_shows_no_option_that_is_secret(name: str) -> None:
    url = parse(f"postgresql://h/d?{name}=s3cr3t&sslmode=require")
    assert isinstance(url, Server)
    assert url.path == f"postgresql://h/d?{name}=***&sslmode=require"
    assert url.conninfo == f"postgresql://h/d?{name}=s3cr3t&sslmode=require"


@pytest.mark.parametrize(
    "text", ["postgresql:///d?host=/run/postgresql", "postgresql://?host=/run/postgresql&dbname=d",
             "postgresql://me:s3cr3t@/d?host=/run/postgresql", "postgresql://me@?password=s3cr3t", "postgresql://"],
)  # fmt: skip
def test_an_address_may_name_its_host_among_its_options_or_none(text: str) -> None:
    url = parse(f"{text}{'&' if '?' in text else '?'}schema=team")
    assert isinstance(url, Server)
    assert url.conninfo == text
    assert url.path.startswith("postgresql://")
    assert "s3cr3t" not in url.path
    again = parse(url.address())
    assert isinstance(again, Server)
    assert again.conninfo == text


@pytest.mark.parametrize("path", ["", "/{dbname}"])
def test_a_server_is_found_by_the_options_of_its_address(path: str, server: str) -> None:
    options = conninfo_to_dict(server)
    with servers.schema(f"postgresql://{path.format(**options)}?{urlencode(options, quote_via=quote)}") as address:
        Bus.open(address, create=True).close()
        with Bus.open(address) as bus:
            assert bus.agents() == []


@pytest.mark.parametrize(
    "text", ["postgresql://h/d?schema=a b", "postgresql://h/d?schema=", "postgresql://h/d?listen=maybe",
             "postgresql://u:s3cr#3t@h/d", "postgresql://[::1/d", "postgresql://h/d?schema=" + "x" * 64, "postgresql://h/d?schema=pg_x",
             "postgresql://u:s3cr/3t@h:1/d", "postgresql://u:s3cr?3t@h/d", "postgresql://u:s3cr@3t@h/d",
             "postgresql://s3cr:1/3t@h/d", "postgresql://s3cr:1?3=t@h/d", "postgresql:u:s3cr3t@h/d",
             "host=h user=u password=s3cr3t"],
)  # fmt: skip
def test_an_address_that_can_not_be_read_is_usage_and_not_shown(text: str) -> None:
    with pytest.raises(BusError) as caught:
        parse(text)
    assert caught.value.code == "usage"
    assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize("folder", ["password=x", "a password = x"])
def test_a_file_may_lie_in_any_folder(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    file = tmp_path / folder / "b.db"
    with (
        Bus.open(file, create=True) as bus,
        Bus.open(bus.url.address()) as again,
        Bus.open(f"sqlite:///{file}") as third,
    ):
        assert bus.url.path == again.url.path == third.url.path == str(file)


@pytest.mark.parametrize(
    "url", ["postgresql://me:s3cr3t@127.0.0.1:1/d", "postgresql://me:s3cr3t@127.0.0.1:port/d",
            "postgresql://me:s3cr3t@127.0.0.1:1/d?nosuchoption=1", "postgresql://me@127.0.0.1:1/d?password=s3cr3t"],
)  # fmt: skip
def test_no_error_shows_the_password(url: str) -> None:
    with pytest.raises(BusError) as caught:
        Bus.open(url)
    assert caught.value.exit_status in (64, 75)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value)) + str(caught.value)


def test_where_there_is_no_bus_there_is_none(vacant: str, server: str) -> None:
    with refused("no_bus", 66):
        Bus.open(vacant)
    with refused("unreachable", 75):
        Bus.open(f"{server.rpartition('/')[0]}/no_such_database")


def test_schemas_of_one_database_are_apart(bus: Bus, server: str) -> None:
    with servers.schema(server) as address, Bus.open(address, create=True) as other:
        assert other.agents() == []
        other.register("a", type="validation", session="s")
        other.send("a", "a", TASK, {})
        assert bus.receive("a") == []


def test_a_bus_of_a_newer_version_is_refused(bus: Bus, hand: Hand, postgres: str) -> None:
    hand.execute(f"insert into {table(bus, 'bus_migrations')} (number) values (9999)")
    with refused("newer_bus", 66):
        Bus.open(postgres)


def test_many_may_make_the_same_bus(vacant: str) -> None:
    def make(_: int) -> int:
        with Bus.open(vacant, create=True) as bus:
            return len(bus.types_list())

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(make, range(4)))) == 1


def test_a_reader_can_change_nothing(bus: Bus, postgres: str) -> None:
    with Bus.open(postgres, read_only=True) as reader:
        assert len(reader.agents()) == 3
        with refused("not_allowed", 65):
            reader.state_save("a", "k", "v")


def test_the_doctor_and_the_place_are_told(bus: Bus) -> None:
    findings = {finding.subject: finding.details for finding in bus.doctor()}
    assert bus.url.path in findings["bus"]
    assert "PostgreSQL 1" in findings["library"]
    with refused("usage", 64):
        bus.backup("file")


def writers(bus: Bus) -> list[tuple[str, str]]:
    return [(found.verdict, found.details) for found in bus.doctor() if found.subject == "writer"]


def test_the_doctor_names_who_holds_the_tables(bus: Bus, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    assert writers(bus) == [("ok", "nobody holds tables or rows")]
    hand.execute("set application_name = 'a program by hand'")
    with hand.transaction():
        hand.execute(f"select 1 from {table(bus, 'agent_registry')} for update")
        ((verdict, words),) = writers(bus)
        assert (verdict, "end it" in words) == ("ok", False)
        assert f"process {hand.info.backend_pid} of the server (a program by hand, role " in words
        monkeypatch.setattr(postgres_facts, "PATIENCE", 0)
        ((verdict, words),) = writers(bus)
        assert (verdict, words.endswith(f"pg_terminate_backend({hand.info.backend_pid})")) == ("fault", True)
    assert writers(bus) == [("ok", "nobody holds tables or rows")]


def test_the_doctor_tells_how_many_wait(bus: Bus, hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_facts, "TURN", 0)
    with ThreadPoolExecutor(1) as pool:
        with hand.transaction():
            hand.execute(f"select 1 from {table(bus, 'agent_registry')} where agent_id = 'a' for update")
            acting = pool.submit(bus.retire, "a")
            until_they_wait_for_locks(bus, 1)
            (verdict, words), *_ = writers(bus)
            assert (verdict, "; 1 wait for it" in words) == ("fault", True)
        acting.result()


def test_the_doctor_comes_also_where_a_table_is_locked(bus: Bus, hand: Hand, postgres: str) -> None:
    bus.send("boss", "a", TASK, {})
    with hand.transaction(), Bus.open(postgres) as other:
        hand.execute(f"lock table {table(bus, 'agent_messages')} in access exclusive mode")
        connection = other.store.connection()
        assert isinstance(connection, Connection)
        connection.driver().execute("set lock_timeout = 10")
        found = {finding.subject: finding for finding in other.doctor(deep=True)}
        assert f"process {hand.info.backend_pid} " in found["writer"].details
        for subject in ("tables", "payloads"):
            assert (found[subject].verdict, found[subject].details) == ("fault", "they can't be read: the bus is busy")


# --- the rules hold for every writer


def test_a_good_row_put_in_by_hand_is_received_and_wakes_its_receiver(bus: Bus, hand: Hand) -> None:
    with ThreadPoolExecutor(1) as pool, listening() as listens:
        waiting = pool.submit(bus.receive, "a", wait=20)
        assert listens.wait(20)
        begun = time.monotonic()
        insert(bus, hand, payload='{"phase": "design"}')
        (message,) = waiting.result(30)
        assert time.monotonic() - begun < 10
    assert (message.payload, message.from_agent, message.priority) == ({"phase": "design"}, "me", 5)


def test_a_session_put_in_by_hand_counts_the_agents_that_came_first(bus: Bus, hand: Hand) -> None:
    agents, sessions = table(bus, "agent_registry"), table(bus, "coordination_sessions")
    hand.execute(f"insert into {agents} (agent_id, agent_type, session_id) values ('first', 'validation', 'late')")
    hand.execute(f"insert into {sessions} (session_id) values ('late')")
    assert bus.session_show("late").agent_count == 1


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        *BAD_MESSAGES,
        ({"from_agent": "x\n"}, "invalid_id"),
        ({"payload": "{broken"}, "invalid input syntax for type json"),
        ({"payload": '{"a": {"b": [{"c": 1, "c": 1}]}}'}, "invalid_json"),
        ({"payload": '{"a": "\\u0000"}'}, "Unicode"),
        ({"payload": '{"\\u0000": 1}'}, "Unicode"),
        ({"payload": '{"a": "\\ud800"}'}, "json"),
        ({"payload": '{"a": 1e99999}'}, "invalid_json"),
        ({"created_at": "infinity"}, "invalid_moment"),
        ({"expires_at": "20000-01-01"}, "invalid_moment"),
        ({"delivery": -5}, "invalid_value"),
        ({"id": 7}, "GENERATED ALWAYS"),
        ({"traceparent": "00-x"}, "invalid_traceparent"),
    ],
)
def test_a_bad_row_is_refused(bus: Bus, hand: Hand, columns: dict[str, object], code: str) -> None:
    with pytest.raises(psycopg.Error, match=code):
        insert(bus, hand, **columns)
    assert bus.messages() == []


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        *BAD_ROWS,
        ("agent_lifecycle", {"pid": 1, "agent_type": "a", "task_id": "t", "command": "", "status": "running"}),
    ],
)
def test_the_other_tables_refuse_bad_rows_too(bus: Bus, hand: Hand, name: str, columns: dict[str, object]) -> None:
    with pytest.raises(psycopg.Error):
        insert(bus, hand, name, **columns)


@pytest.mark.parametrize("moment", ["2026-02-30 00:00:00", "2026-04-31 12:00:00.500", "2026-01-01 25:00:00"])
def test_a_day_or_an_hour_that_there_is_not_is_refused_as_by_a_file(bus: Bus, hand: Hand, moment: str) -> None:
    with pytest.raises(psycopg.errors.DatetimeFieldOverflow):
        insert(bus, hand, created_at=moment)


def test_an_hour_that_ends_a_day_begins_the_next(bus: Bus, hand: Hand) -> None:
    id = insert(bus, hand, created_at="2026-01-01 24:00:00+00")
    assert bus.message(id).created_at.isoformat() == "2026-01-02T00:00:00+00:00"


def test_date_functions_of_a_file_read_its_moments_here_too(bus: Bus, hand: Hand) -> None:
    hand.execute(f"set search_path = {table(bus, 'x').partition('.')[0]}; set timezone = 'America/New_York'")
    bus.trace_spawn("validation", "t", pid=1)
    old = {"pid": 1, "agent_type": "a", "task_id": "t", "command": "", "spawned_at": "2020-01-01 01:30:00+00"}
    insert(bus, hand, "agent_lifecycle", **old)
    ask = "select strftime('%Y-%m-%d %H:00', spawned_at), count(*) from agent_lifecycle "
    recent = hand.execute(ask + "where spawned_at > datetime('now', '-24 hours') group by 1").fetchall()
    assert recent == hand.execute("select strftime('%Y-%m-%d %H:00', 'now'), 1").fetchall()
    assert hand.execute(ask + "where spawned_at < datetime('now', '-24 hours') group by 1").fetchall() == [
        ("2020-01-01 01:00", 1)
    ]


FORMATS = ["%Y", "%m", "%d", "%H", "%M", "%S", "%f", "%s", "%j", "%w", "%W", "100%%", "a %Y-%m-%dT%H:%M:%fZ 'b' \\ \n"]
CHANGES = [
    "+0 seconds",
    "-24 hours",
    "+1 day",
    "90 minutes",
    "-0.5 days",
    "start of month",
    "start of year",
    "+1.5 seconds",
]


@settings(deadline=None)
@given(
    st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1)).map(lambda at: at.isoformat(" ", "milliseconds")),
    st.lists(st.sampled_from(CHANGES), max_size=3),
    st.sampled_from(["", "Z", "+02:00", "-11:30"]),
)
def test_strftime_and_datetime_tell_what_those_of_a_file_tell(
    dates: Hand, at: str, changes: list[str], zone: str
) -> None:
    given, more = [at + zone, *changes], "".join([", %s"] * len(changes))
    file = sqlite3.connect(":memory:")
    for form in FORMATS:
        ((told,),) = file.execute(f"select strftime(?, ?{more.replace('%s', '?')})", [form, *given])
        for kind in ("text", "timestamptz"):
            found = dates.execute(f"select strftime(%s, (%s)::text::{kind}{more})", [form, *given])
            if kind == "text" or zone:
                assert found.fetchone() == (told,), (form, kind)
    ((told,),) = file.execute(f"select datetime(?{more.replace('%s', '?')})", given)
    found = dates.execute(f"select datetime(%s{more})::text", given)
    assert found.fetchone() == (f"{told}+00",)
    file.close()


@pytest.fixture(scope="module")
def dates(server: str) -> Iterator[Hand]:
    """A connection whose search path is a bus's."""
    with servers.schema(server) as address, Bus.open(address, create=True) as opened:
        assert isinstance(opened.url, Server)
        with Hand.connect(opened.url.conninfo, autocommit=True) as connection:
            connection.execute(f"set search_path = {opened.url.schema}; set timezone = 'UTC'")
            yield connection


@pytest.mark.parametrize("call", ["strftime('%Q', 'now')", "strftime('50%', 'now')", "datetime('now', '+1 fortnight')"])
def test_a_format_or_a_change_that_there_is_not_is_refused(dates: Hand, call: str) -> None:
    with pytest.raises(psycopg.Error, match="invalid_value: "):
        dates.execute(f"select {call}")
    assert dates.execute("select strftime('%Y', null::text), datetime(null::timestamptz, '1 day')").fetchone() == (
        None, None,
    )  # fmt: skip


def test_only_the_drawn_edges_can_be_walked(bus: Bus, hand: Hand) -> None:
    blank = {"due_at": None, "leased_by": None, "delivery": 1, "acknowledged_at": None, "dead_reason": None}
    for before in STATUSES:
        for after in set(STATUSES) - {before}:
            id = insert(bus, hand, status=before, **COLUMNS[before])
            values = {**blank, **COLUMNS[after], "status": after}
            text = f"update {table(bus)} set {', '.join(f'{key} = %s' for key in values)} where id = {id}"
            legal = (before, after) in LEGAL
            with contextlib.nullcontext() if legal else pytest.raises(psycopg.Error, match="illegal_transition"):
                hand.execute(text, list(values.values()))


@pytest.mark.parametrize(
    "change", ["id = id", "session_id = session_id", "payload = payload", "created_at = created_at", "delivery = -1"]
)
def test_what_was_sent_does_not_change(bus: Bus, hand: Hand, change: str) -> None:
    insert(bus, hand, status="leased", **COLUMNS["leased"])
    with pytest.raises(psycopg.Error, match=r"immutable|GENERATED ALWAYS|DEFAULT"):
        hand.execute(f"update {table(bus)} set {change}")
    with pytest.raises(psycopg.Error, match="never used again"):
        hand.execute(f"delete from {table(bus)}")


@pytest.fixture(scope="module")
def checked(server: str) -> Iterator[Bus]:
    from tests import servers

    with servers.many() as schema, Bus.open(schema(server), create=True) as opened:
        opened.register("a", type="validation", session="s")
        yield opened


@settings(max_examples=60, deadline=None)
@payload_types.any_schema
def test_the_database_accepts_what_a_validator_accepts(
    checked: Bus, schema: dict[str, object], payloads: list[dict[str, object]], ascii_only: bool
) -> None:
    payload_types.judges_as_a_validator(checked, schema, payloads, ascii_only)


@pytest.mark.parametrize("keyword", ["properties", "items"])
@pytest.mark.parametrize("depth", [1, 3, 12, 30])
def test_a_schema_may_describe_what_lies_deep(checked: Bus, keyword: str, depth: int) -> None:
    schema = payload_types.nested(keyword, depth)
    checked.types_add("message", "m", schema=schema)
    for leaf in ("good", 7):
        payload: object = leaf
        for _ in range(depth):
            payload = {"a": payload} if keyword == "properties" else [payload]
        whole = payload if keyword == "properties" else {"a": payload}
        assert payload_types.accepts(checked, json.dumps(whole)) == Draft202012Validator(schema).is_valid(whole)


def test_schemas_may_be_wide_and_types_may_have_long_names(checked: Bus) -> None:
    for schema in payload_types.LARGE.values():
        checked.types_add("message", "m", schema=schema)
        for payload in ({"a": "value 7"}, {"a": "no value"}, {f"key{n}": "x" for n in range(3000)}, {"key7": 7}):
            judged = Draft202012Validator(schema).is_valid(payload)
            assert payload_types.accepts(checked, json.dumps(payload)) == judged
    for name in ("x" * 127 + "a", "x" * 127 + "b"):
        checked.types_add("message", name, schema={"required": [name[-1]]})
    checked.send("a", "a", "x" * 127 + "a", {"a": 1})
    with refused("invalid_payload", 65):
        checked.send("a", "a", "x" * 127 + "b", {"a": 1})


# --- whom the role of an agent lets do what


def test_an_agent_needs_a_role_that_owns_nothing(bus: Bus, hand: Hand, postgres: str) -> None:
    schema, role = table(bus, "x").partition(".")[0], f"agent_{os.urandom(4).hex()}"
    grants = re.search(r"```sql\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text("utf-8"), re.S)
    assert grants
    hand.execute(grants[1].replace("agent_bus", schema).replace("some_agent", role))
    try:
        with Bus.open(postgres.replace("//postgres@", f"//{role}@").replace("//postgres:", f"//{role}:")) as agent:
            agent.register("c", type="validation", session="s")
            agent.send("c", "c", TASK, {"phase": "x"}, key="k")
            (message,) = agent.receive("c", wait=0.01)
            agent.ack(message.receipt or "")
            agent.state_save("c", "k", "v")
            agent.checkpoint_create("c", {})
            agent.monitor_check()
            agent.prune()
            agent.config_set("lease_seconds", "7")
            with refused("not_allowed", 65):
                agent.types_add("message", "own", schema={})
            assert "own" not in {kind.name for kind in agent.types_list()}
            with hand.transaction():
                hand.execute(f"select 1 from {table(bus, 'agent_registry')} for update")
                assert f"process {hand.info.backend_pid} of the server" in writers(agent)[0][1]
    finally:
        hand.execute(f"drop owned by {role}; drop role {role}")


# --- time is the server's


def test_hosts_whose_clocks_differ_share_leases(bus: Bus, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with Bus.open(postgres) as other:
        for hour in (-3600, 3600):
            monkeypatch.setattr(time, "time", lambda hour=hour: real() + hour)
            id = bus.send("boss", "@milestone-executor", TASK, {})
            (message,) = bus.receive("a", lease=60)
            monkeypatch.setattr(time, "time", lambda hour=hour: real() - hour)
            assert other.receive("b") == []
            assert set(other.lives(other.agents())) == {"alive"}
            assert other.interrupted() == []
            assert other.monitor_check().given_back == 0
            found = other.message(id)
            assert found.due_at
            assert abs(found.due_at.timestamp() - real() - 60) < 20
            bus.ack(message.receipt or "")


def test_a_milestone_was_recovered_at_the_time_of_the_server(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    bus.register("planner", type="milestone-planner", session="p", operation="planning")
    bus.state_save("planner", "milestone-plan", "{}")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86400)
    bus.recovery_apply("p", "create-milestone", by="me", milestone="m")
    assert clock.parse(bus.milestone_show("m").data["recovered_at"]) < real() + 60


# --- at the same time


def until_they_wait_for_locks(bus: Bus, number: int) -> None:
    """Wait until so many of the server's processes wait for somebody's lock."""
    assert isinstance(bus.url, Server)
    text = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    deadline = time.monotonic() + 20
    with psycopg.connect(bus.url.conninfo, autocommit=True) as watching:
        while (watching.execute(text).fetchone() or (0,))[0] < number:
            assert time.monotonic() < deadline


def test_two_who_recover_at_once_have_one_effect(bus: Bus, hand: Hand, process: Process) -> None:
    bus.register("dead", type="milestone-executor", session="s", pid=process.pid)
    bus.send("boss", "dead", TASK, {})
    bus.receive("dead")
    process.kill()
    process.wait()
    with ThreadPoolExecutor(2) as pool, hand.transaction():
        hand.execute(f"select 1 from {table(bus, 'agent_registry')} for update")
        told = [pool.submit(bus.recovery_apply, "s", "resume", by=name) for name in ("me", "you")]
        until_they_wait_for_locks(bus, 2)
    assert sorted(one.result().changed for one in told) == [False, True]
    assert sorted(one.result().failed for one in told) == [[], ["dead"]]


def test_agents_that_move_between_sessions_do_not_wait_in_a_circle(bus: Bus, hand: Hand) -> None:
    """Neither for each other nor for who recovers one: sessions first, in the order of their ids."""
    bus.register("a", type="milestone-executor", session="t")
    agents, sessions = table(bus, "agent_registry"), table(bus, "coordination_sessions")
    with ThreadPoolExecutor(1) as pool:
        with hand.transaction():
            hand.execute(f"select 1 from {sessions} where session_id = 's' for update")
            moving = pool.submit(bus.register, "a", type="milestone-executor", session="s")
            until_they_wait_for_locks(bus, 1)
            hand.execute(f"select 1 from {sessions} where session_id = 't' for update nowait")
            hand.execute(f"select 1 from {agents} where agent_id = 'a' for update nowait")
        assert moving.result().session_id == "s"
    assert [bus.session_show(name).agent_count for name in "st"] == [3, 0]


def hold_up(bus: Bus, hand: Hand, act: Callable[[], object], locked: str, free: str) -> None:
    """Let one act who has to wait for what is locked; what is to be locked after that is free then."""
    with ThreadPoolExecutor(1) as pool:
        with hand.transaction():
            hand.execute(f"select 1 from {table(bus, locked)} for update")
            acting = pool.submit(act)
            until_they_wait_for_locks(bus, 1)
            found = hand.execute(f"select 1 from {table(bus, free)} for update nowait")
            assert found.fetchone()
        acting.result()


AGENT, RECORD, MESSAGE = "agent_registry where agent_id = 'a'", "agent_lifecycle", "agent_messages where id = 1"


@pytest.mark.parametrize("act", ["register", "enter", "leave", "respawn"])
def test_an_agent_is_locked_before_its_record(bus: Bus, hand: Hand, act: str) -> None:
    """By all, or who starts it again and who ends it would wait in a circle."""
    life = bus.trace_enter("a", type="milestone-executor", session="s")
    if act == "respawn":
        hand.execute(f"update {table(bus, 'agent_registry')} set status = 'failed', command = 'true'")
    acts: dict[str, Callable[[], object]] = {
        "register": lambda: bus.register("a", type="milestone-executor", session="s", pid=os.getpid()),
        "enter": lambda: bus.trace_enter("a", type="milestone-executor", session="s"),
        "leave": lambda: bus.trace_leave("a", life),
        "respawn": lambda: bus.recovery_respawn("s"),
    }
    hold_up(bus, hand, acts[act], AGENT, RECORD)


def test_bus_run_too_locks_its_agent_before_its_record(bus: Bus, hand: Hand) -> None:
    script = 'until "$0" -m bus_cli trace show "$BUS_TRACE" --json | grep -q running; do :; done; echo; read line'
    command = [sys.executable, "-m", "bus_cli", "run", "--type", "milestone-executor", "--task", "t", "--session", "s"]
    with subprocess.Popen(
        [*command, "--agent", "a", "--", "sh", "-c", script, sys.executable],
        env={**os.environ, "BUS_URL": bus.url.address()},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline()
        hold_up(bus, hand, lambda: process.communicate(timeout=20), AGENT, RECORD)
    assert process.returncode == 1  # that of `read` at the end of its input
    assert bus.trace_show(1).status == "failed"


@pytest.mark.parametrize("act", ["retire", "heartbeat", "leave", "abandon", "release", "reject", "extend"])
def test_an_agent_is_locked_before_its_messages(bus: Bus, hand: Hand, act: str) -> None:
    life = bus.trace_enter("a", type="milestone-executor", session="s")
    bus.send("boss", "a", TASK, {})
    (message,) = bus.receive("a")
    receipt = message.receipt or ""
    hand.execute(f"update {table(bus, 'agent_registry')} set last_heartbeat = now() - interval '10 s'")
    acts: dict[str, Callable[[], object]] = {
        "retire": lambda: bus.retire("a"),
        "heartbeat": lambda: bus.heartbeat("a", status="failed"),
        "leave": lambda: bus.trace_leave("a", life),
        "abandon": lambda: bus.recovery_apply("s", "abandon", by="me"),
        "release": lambda: bus.release(receipt),
        "reject": lambda: bus.reject(receipt, reason="bad"),
        "extend": lambda: bus.extend(receipt),
    }
    hold_up(bus, hand, acts[act], AGENT, MESSAGE)


def test_a_session_is_locked_before_its_agents_also_by_who_cleans_up(bus: Bus, hand: Hand) -> None:
    hand.execute(f"update {table(bus, 'agent_registry')} set last_heartbeat = now() - interval '1 hour'")
    hand.execute(f"update {table(bus, 'coordination_sessions')} set last_activity = now() - interval '1 hour'")
    hold_up(bus, hand, lambda: bus.clean(stale=60), "coordination_sessions", AGENT)
    assert bus.session_show("s").status == "failed"


def test_what_is_given_back_is_locked_in_the_order_of_its_ids(bus: Bus, hand: Hand) -> None:
    """As what is acknowledged."""
    for _ in range(2):
        bus.send("boss", "a", TASK, {})
    first, _ = bus.receive("a", limit=2, lease=30)
    bus.extend(first.receipt or "", lease=60)  # it comes later now, in its table and by its timer
    hold_up(bus, hand, lambda: bus.retire("a"), MESSAGE, "agent_messages where id = 2")


def test_who_is_heard_of_while_a_monitor_looks_is_not_marked_failed(bus: Bus, hand: Hand) -> None:
    bus.send("boss", "a", TASK, {})
    bus.receive("a", lease=3600)
    beat = f"update {table(bus, 'agent_registry')} set last_heartbeat = now() - interval"
    hand.execute(f"{beat} '1 hour' where agent_id = 'a'")
    with ThreadPoolExecutor(1) as pool:
        with hand.transaction():
            hand.execute(f"{beat} '1 second' where agent_id = 'a'")
            check = pool.submit(bus.monitor_check)
            until_they_wait_for_locks(bus, 1)
        assert check.result().failed == []
    assert bus.message(1).status == "leased"


def test_a_session_in_which_something_happens_while_one_cleans_up_has_not_failed(bus: Bus, hand: Hand) -> None:
    silent = f"update {table(bus, 'agent_registry')} set last_heartbeat = now() - interval '1 hour'"
    active = f"update {table(bus, 'coordination_sessions')} set last_activity = now() - interval"
    hand.execute(silent)
    hand.execute(f"{active} '1 hour'")
    with ThreadPoolExecutor(1) as pool:
        with hand.transaction():
            hand.execute(f"{active} '1 second'")
            cleaning = pool.submit(bus.clean, stale=60)
            until_they_wait_for_locks(bus, 1)
        assert cleaning.result().failed_sessions == []


def test_to_acknowledge_and_receive_takes_one_round_trip(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [bus.send("boss", "a", TASK, {"n": n}) for n in range(3)]
    (first,) = bus.receive("a")
    (second,) = bus.ack_and_receive("a", first.receipt or "")
    asked: list[object] = []
    ask = Wire.ask
    monkeypatch.setattr(Wire, "ask", lambda wire, asks: asked.append(asks) or ask(wire, asks))
    (third,) = bus.ack_and_receive("a", second.receipt or "")
    assert len(asked) == 1
    monkeypatch.undo()
    assert [first.id, second.id, third.id] == ids
    assert [bus.message(id).status for id in ids] == ["acknowledged", "acknowledged", "leased"]


def test_the_same_key_at_the_same_time_is_one_message(bus: Bus, postgres: str) -> None:
    def send(n: int) -> object:
        with Bus.open(postgres) as mine:
            try:
                return mine.send("boss", "a", TASK, {"phase": "even" if n % 2 else "odd"}, key="k")
            except BusError as problem:
                return problem.code

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(send, range(8)))
    (message,) = bus.messages()
    assert sorted(found, key=str) == [message.id] * 4 + ["key_reused"] * 4


def test_sessions_count_agents_that_register_at_the_same_time(bus: Bus, postgres: str) -> None:
    def register(n: int) -> None:
        with Bus.open(postgres) as mine:
            mine.register(f"r{n}", type="validation", session="crowd")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(register, range(16)))
    assert bus.session_show("crowd").agent_count == 16


def test_a_deadlock_is_repeated(bus: Bus, postgres: str) -> None:
    def both(keys: str) -> None:
        with Bus.open(postgres) as mine:
            for _ in range(3):
                mine.apply([state.save("x", key, "v") for key in keys * 3])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(both, ["pq", "qp"]))
    assert bus.state_load_versioned("x", "p") == ("v", 18)


def test_a_serialization_failure_is_repeated(bus: Bus, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bus.store.postgres_transaction.WRITE", "begin isolation level serializable")
    monkeypatch.setitem(SETTINGS, "default_transaction_isolation", "serializable")

    def both(_: int) -> None:
        with Bus.open(postgres) as mine:
            for _ in range(10):
                mine.state_save("x", "k", "v")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(both, range(3)))
    assert bus.state_load_versioned("x", "k") == ("v", 30)


# --- connections


def test_where_notifications_do_not_get_through_one_looks(bus: Bus, postgres: str) -> None:
    with Bus.open(f"{postgres}&listen=no") as deaf, ThreadPoolExecutor(1) as pool, listening() as listens:
        waiting = pool.submit(deaf.receive, "a", wait=20)
        assert listens.wait(20)
        bus.send("boss", "a", TASK, {"phase": "x"})
        assert waiting.result(10)[0].payload == {"phase": "x"}


def backend(bus: Bus) -> int:
    connection = bus.store.connection()
    assert isinstance(connection, Connection)
    return connection.driver().info.backend_pid


@pytest.mark.parametrize(("option", "seconds"), [("", 5), ("&connect_timeout=60", None)])
def test_how_long_one_waits_for_a_server_is_for_the_address_to_say(
    bus: Bus, postgres: str, monkeypatch: pytest.MonkeyPatch, option: str, seconds: int | None
) -> None:
    connect, told = psycopg.Connection.connect, []

    def connecting(conninfo: str, **options: Any) -> object:
        told.append((options.get("connect_timeout"), options["tcp_user_timeout"], options["keepalives_idle"]))
        return connect(conninfo, **options)

    monkeypatch.setattr(psycopg.Connection, "connect", connecting)
    Bus.open(f"{postgres}{option}").close()
    assert told == [(seconds, 20_000, 30)]


def test_who_is_stopped_in_the_middle_is_in_nobodys_way_for_long(bus: Bus) -> None:
    connection = bus.store.connection()
    assert isinstance(connection, Connection)
    names = ["idle_in_transaction_session_timeout", "lock_timeout"]
    found = connection.driver().execute("select setting from pg_settings where name = any($1) order by name", [names])
    assert found.fetchall() == [("10000",), ("5000",)]


def test_who_has_waited_is_no_longer_rung(bus: Bus, hand: Hand) -> None:
    assert bus.receive("a", wait=0.01) == []
    held = hand.execute("select count(*) from pg_locks where locktype = 'advisory' and pid = %s", [backend(bus)])
    assert held.fetchall() == [(0,)]


def test_a_connection_that_comes_back_to_a_closed_pool_is_closed(bus: Bus) -> None:
    assert isinstance(bus.url, Server)
    pool = Pool(Connection(bus.url), bus.url)
    kept, back = pool.take(), pool.take()
    pool.give(back)
    pool.close()
    pool.give(kept)
    assert isinstance(kept, Connection)
    assert isinstance(back, Connection)
    assert not kept.sound()
    assert not back.sound()


def test_a_connection_that_broke_is_replaced(bus: Bus, hand: Hand) -> None:
    for _ in range(3):
        hand.execute("select pg_terminate_backend(%s, 5000)", [backend(bus)])
        bus.send("boss", "a", TASK, {})
    assert len(bus.messages()) == 3


def test_a_transaction_that_stays_open_holds_up_neither_who_waits_nor_who_sends(bus: Bus, hand: Hand) -> None:
    with ThreadPoolExecutor(1) as pool:
        with hand.transaction():
            late = insert(bus, hand)  # who begins to wait must see it, and nobody else has to wait for that
            begun = time.monotonic()
            waiting = pool.submit(bus.receive, "a", wait=60, ack=True)
            others = [bus.send("boss", "a", TASK, {}) for _ in range(3)]
            (message,) = waiting.result(30)
            assert message.id in others
            bus.receive("a", limit=5, ack=True)
            with listening() as listens:
                waiting = pool.submit(bus.receive, "a", wait=60)
                assert listens.wait(20)
            assert time.monotonic() - begun < 4, "others were waited for until lock_timeout"
        begun = time.monotonic()
        assert [message.id for message in waiting.result(30)] == [late]
        assert time.monotonic() - begun < 4, "it was found by a heartbeat"


def test_who_waits_is_woken_also_after_the_connection_broke(bus: Bus, hand: Hand, postgres: str) -> None:
    with ThreadPoolExecutor(1) as pool, listening() as listens, Bus.open(postgres) as other:
        waiting = pool.submit(lambda: (backend(bus), bus.receive("a", wait=30)))
        assert listens.wait(20)
        while not bus.store.asleep:  # before that it may be in the middle of a commit, whose outcome would be unknown
            time.sleep(0)
        text = (
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
            "where query ~ 'bell_' and pid not in (%s, pg_backend_pid())"
        )
        hand.execute(text, [backend(other)])
        other.send("boss", "a", TASK, {"phase": "x"})
        assert waiting.result(40)[1][0].payload == {"phase": "x"}


WAITERS = "from pg_stat_activity where application_name = 'waiter'"


@pytest.mark.parametrize("call", [lambda bus: bus.agents(), lambda bus: bus.receive("a", wait=1)])
def test_who_can_not_connect_anew_is_told_what_the_server_says(
    bus: Bus, hand: Hand, postgres: str, monkeypatch: pytest.MonkeyPatch, call: Callable[[Bus], object]
) -> None:
    """A password that was changed, or a server without a connection to spare, is not a network that is down."""
    monkeypatch.setattr(store, "TIMEOUT", 0.0)
    schema, role = table(bus, "x").partition(".")[0], f"agent_{os.getpid()}"
    hand.execute(f"create role {role} login; grant all on schema {schema} to {role}")
    hand.execute(f"grant all on all tables in schema {schema} to {role}")
    try:
        with Bus.open(f"{postgres}&user={role}") as mine:
            mine.agents()
            hand.execute(f"alter role {role} nologin")
            hand.execute("select pg_terminate_backend(%s, 5000)", [backend(mine)])
            with pytest.raises(BusError, match="not permitted to log in") as caught:
                call(mine)
            assert caught.value.code == "unreachable"
    finally:
        hand.execute(f"drop owned by {role}; drop role {role}")


def test_a_connection_that_the_server_ends_is_not_asked(bus: Bus, hand: Hand) -> None:
    """It says so some milliseconds before it closes the line: what was sent meanwhile would have an unknown outcome."""
    connection = bus.store.connection()
    assert isinstance(connection, Connection)
    for _ in range(20):
        driver = connection.driver()
        hand.execute("select pg_terminate_backend(%s)", [driver.info.backend_pid])
        select.select([driver.fileno()], [], [])
        bus.send("boss", "a", TASK, {})
    assert len(bus.messages()) == 20


def test_tasks_that_wait_connect_anew_on_a_thread(
    bus: Bus, hand: Hand, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes its time must not keep the other tasks waiting."""
    threads: list[threading.Thread] = []
    connect = store._connect

    def watched(url: Server) -> psycopg.Connection[tuple[object, ...]]:
        threads.append(threading.current_thread())
        return connect(url)

    async def main() -> list[int]:
        async with await AsyncBus.open(f"{postgres}&application_name=waiter") as waiting:
            tasks = [asyncio.create_task(waiting.receive(agent, wait="1m")) for agent in ("a", "b")]
            await until_heard(waiting, 2)
            monkeypatch.setattr(store, "_connect", watched)
            hand.execute(f"select pg_terminate_backend(pid, 5000) {WAITERS}")
            while not threads:
                await asyncio.sleep(0)  # it is a thread of the store
            for agent in ("a", "b"):
                bus.send("boss", agent, TASK, {})
            return [message.id for found in await asyncio.gather(*tasks) for message in found]

    assert asyncio.run(main()) == [1, 2]
    assert threading.main_thread() not in threads


async def until_heard(bus: AsyncBus, number: int, which: Callable[[Iterable[int]], bool] = all) -> Ear:
    """Return once so many tasks sleep, all (or any) of them until they are rung for."""
    assert isinstance(bus.store, postgres_async.Store)
    async with asyncio.timeout(20):
        while True:
            ear = bus.store._ear
            if ear and len(bus.store._calls._asleep) >= number and which(guest.heard_on for guest in ear._guests):
                return ear
            await asyncio.sleep(0)


def test_all_tasks_that_wait_share_one_connection(bus: Bus, hand: Hand, postgres: str) -> None:
    """A server has only so many, for everybody."""

    async def main() -> tuple[int, list[int]]:
        async with await AsyncBus.open(f"{postgres}&application_name=waiter") as waiting:
            before, names = len(os.listdir("/proc/self/fd")), [f"w{n}" for n in range(60)]
            for name in names:
                await waiting.register(name, type="validation", session="s")
            tasks = [asyncio.create_task(waiting.receive(name, wait="1m")) for name in names]
            await until_heard(waiting, len(names))
            ((connections,),) = hand.execute(f"select count(*) {WAITERS}").fetchall()
            assert len(os.listdir("/proc/self/fd")) <= before + len(names) + 15, "a descriptor for each, not two"
            for name in names:
                bus.send("boss", name, TASK, {})
            return int(str(connections)), [message.id for found in await asyncio.gather(*tasks) for message in found]

    connections, received = asyncio.run(main())
    assert connections <= postgres_async.WORKERS + 1
    assert received == list(range(1, 61))


def test_a_task_that_begins_to_wait_while_a_commit_is_on_its_way_hears_it(bus: Bus, hand: Hand, postgres: str) -> None:
    """Whoever wrote before it listened has nobody to notify: until these have committed it looks now and then."""
    url = bus.url
    assert isinstance(url, Server)

    async def main() -> list[Message]:
        async with await AsyncBus.open(postgres) as waiting:
            with hand.transaction():
                hand.execute(f"set local search_path = {url.schema}")
                hand.execute(
                    "insert into agent_messages (session_id, from_agent, to_agent, message_type, payload)"
                    " values ('s', 'boss', 'a', 'task_assignment', '{}')"
                )
                task = asyncio.create_task(waiting.receive("a", wait="1m"))
                other = asyncio.create_task(waiting.receive("b", wait="1m"))
                ear = await until_heard(waiting, 2, any)
                assert [guest.heard_on for guest in ear._guests if "a" in guest.bells] == [0]
            found = await task
            other.cancel()
            return found

    assert [message.id for message in asyncio.run(main())] == [1]


def test_a_line_that_is_lost_while_it_changes_hears_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked last was asked of another connection than what was asked first."""
    assert isinstance(bus.url, Server)
    connection, ask = Connection(bus.url), Connection.ask
    line = Line(connection)
    line.listen({"a", "b"})
    assert line.heard == {"a", "b"}

    def lost(connection: Connection, asks: Sequence[Ask]) -> object:
        found = ask(connection, asks)
        if "bell_leave" in asks[0][0]:
            connection._drop()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "ask", lost)
        line.listen({"b", "c"})
    assert not line.heard
    line.listen({"b", "c"})
    assert line.heard == {"b", "c"}

    def broken(connection: Connection, asks: Sequence[Ask]) -> object:
        connection._drop()
        raise psycopg.OperationalError

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "ask", broken)
        waiting = connection.listen(["d"])  # by a socket that is closed already
    assert list(waiting.rounds(0.01, [])) == []  # it has connected anew, and looks
    assert list(waiting.rounds(0.01, [])) == [0.01]
    waiting.close()
    connection.close()


def test_who_listens_for_many_waits_for_nobodys_commit(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meanwhile all others who wait would hear nothing."""
    assert isinstance(bus.url, Server)
    patient: list[object] = []
    connection, ask = Connection(bus.url), Connection.ask
    monkeypatch.setattr(Connection, "ask", lambda one, asks: patient.append(asks[-1][1][1:]) or ask(one, asks))
    line = Line(connection)
    line.listen({"a", "b"})
    line.listen({*"abcdef"})
    assert patient == [[True], [False]]
    assert line.heard == {*"abcdef"}
    connection.close()


def test_nobody_is_listened_for_who_has_gone(
    bus: Bus, hand: Hand, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locks for one go first, and with the last one the connection."""
    monkeypatch.setattr(postgres_ear, "LINGER", 0.01)
    held = f"select count(*) from pg_locks where locktype = 'advisory' and pid in (select pid {WAITERS})"
    asked = f"select count(*) {WAITERS} and query ~ 'bell_'"

    def count(text: str) -> int:
        return int(str(hand.execute(text).fetchall()[0][0]))

    async def main() -> None:
        async with await AsyncBus.open(f"{postgres}&application_name=waiter") as waiting:
            for _ in range(2):
                tasks = [asyncio.create_task(waiting.receive(agent, wait="1m")) for agent in "ab"]
                ear = await until_heard(waiting, 2)
                both = count(held)
                tasks[0].cancel()
                async with asyncio.timeout(20):
                    while count(held) != both - 1:  # the queue of their type is still listened to
                        await asyncio.sleep(0)
                bus.send("boss", "b", TASK, {})
                assert len(await tasks[1]) == 1
                async with asyncio.timeout(20):
                    while count(asked) or ear._thread:
                        await asyncio.sleep(0)

    asyncio.run(main())


def test_who_waits_often_does_not_connect_each_time(bus: Bus, postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = store._connect
    made: list[Server] = []

    def counted(url: Server) -> psycopg.Connection[tuple[object, ...]]:
        made.append(url)
        return connect(url)

    async def main() -> None:
        monkeypatch.setattr(store, "_connect", counted)
        async with await AsyncBus.open(postgres) as waiting:
            for _ in range(9):
                assert await waiting.receive("a", wait=0.01) == []

    asyncio.run(main())
    assert len(made) <= postgres_async.WORKERS, "those that are given back are used again, and one listens for all"


@pytest.mark.parametrize("back", [False, True])
def test_a_message_that_was_redriven_and_taken_meanwhile_is_not_redriven_again(
    bus: Bus, hand: Hand, back: bool
) -> None:
    url = bus.url
    assert isinstance(url, Server)
    bus.send("boss", "a", TASK, {})
    (message,) = bus.receive("a")
    bus.reject(message.receipt or "", reason="no")
    with ThreadPoolExecutor(1) as pool:
        hand.execute(f"set search_path = {url.schema}")
        with hand.transaction():
            hand.execute("update agent_messages set status = 'ready', dead_reason = null, leased_by = null")
            hand.execute(
                "update agent_messages set status = 'leased', leased_by = 'b', delivery = delivery + 1,"
                " due_at = now() + interval '1 hour'"
            )
            if back:
                hand.execute("update agent_messages set status = 'scheduled', leased_by = null, retry_count = 1")
            redriven = pool.submit(bus.redrive)
            until_they_wait_for_locks(bus, 1)
        assert redriven.result(20) == []
    stands = bus.message(1)
    assert (stands.status, stands.leased_by) == (("scheduled", None) if back else ("leased", "b"))


def test_no_settings_are_truncated(bus: Bus, hand: Hand) -> None:
    with pytest.raises(psycopg.Error, match="immutable"):
        hand.execute(f"truncate {table(bus, 'agent_coordination_config')}")


def test_the_keeper_of_an_agent_holds_no_connection_while_it_rests(
    bus: Bus, hand: Hand, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a server would have room for half as many agents, and the leases of the others would run out."""
    rested, rest = threading.Event(), Store.rest
    monkeypatch.setattr(Store, "rest", lambda store: (rest(store), rested.set()))
    bus.config_set("heartbeat_interval", str(2 * RESTING))
    with Agent("worker", type="validation", session="s", bus=f"{postgres}&application_name=waiter") as worker:
        bus.send("boss", "worker", TASK, {})
        worker.held.take(worker.receive(lease=0.2)[0])  # now the keeper has something to do
        worker.held.drop("1.1")
        assert rested.wait(20)
        while hand.execute(f"select count(*) {WAITERS}").fetchone() != (1,):
            time.sleep(0.01)
        assert worker.state.list() == []


def test_tasks_wait_also_where_the_server_has_no_connection_to_listen_on(
    bus: Bus, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = store._connect

    def refused_to_listen(url: Server) -> psycopg.Connection[tuple[object, ...]]:
        if threading.current_thread().name == "bus listens":
            raise error("unreachable", "sorry, too many clients already")
        return connect(url)

    async def main() -> list[int]:
        monkeypatch.setattr(store, "_connect", refused_to_listen)
        async with await AsyncBus.open(postgres) as waiting:
            for n in range(12):
                await waiting.register(f"w{n}", type="validation", session="s")
            tasks = [asyncio.create_task(waiting.receive(f"w{n}", wait="1m")) for n in range(12)]
            for n in range(12):
                await waiting.send("boss", f"w{n}", TASK, {})
            return [message.id for found in await asyncio.gather(*tasks) for message in found]

    assert asyncio.run(main()) == list(range(1, 13))


def test_of_several_who_add_types_at_once_none_is_refused_and_each_schema_holds(bus: Bus, postgres: str) -> None:
    def add(name: str) -> None:
        with Bus.open(postgres) as mine:
            for number in range(5):
                mine.types_add("message", f"{name}{number}", schema={"properties": {"at": {"type": "string"}}})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, "abcd"))
    for name in [f"{name}{number}" for name in "abcd" for number in range(5)]:
        with refused("invalid_payload", 65):
            bus.send("boss", "a", name, {"at": 7})


def test_a_connection_that_waited_may_change_types(bus: Bus) -> None:
    for _ in range(2):
        assert bus.receive("a", wait=0.01) == []
        bus.types_add("message", "own", schema={"required": ["x"]})
        bus.send("boss", "b", "own", {"x": 1})
    assert len(bus.receive("b", limit=2)) == 2


def test_a_receiver_in_a_coroutine_holds_no_thread(postgres: str, bus: Bus) -> None:
    async def crowd() -> int:
        async with await AsyncBus.open(postgres) as other:
            waiting = [asyncio.create_task(other.receive(name, wait=20)) for name in "abababab"]
            while isinstance(other.store, postgres_async.Store) and not all(task.done() for task in waiting):
                await other.send("boss", "@milestone-executor", TASK, {})
                await asyncio.sleep(0)
            return len([task.result() for task in waiting])

    assert asyncio.run(crowd()) == 8


def test_a_cancelled_receive_loses_nothing(bus: Bus, postgres: str) -> None:
    bus.config_set("message_retry_limit", "100")

    async def cancel() -> None:
        async with await AsyncBus.open(postgres) as other:
            for number in range(10):
                await other.send("boss", "a", TASK, {})
                task = asyncio.create_task(other.receive("a", lease=600))
                for _ in range(number * 3):
                    await asyncio.sleep(0)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    for message in await task:
                        await other.ack(message.receipt or "")

    asyncio.run(cancel())
    for message in bus.receive("a", limit=20):
        bus.ack(message.receipt or "")
    assert bus.status()["messages"] == {"acknowledged": 10}


# --- the texts


def test_texts_that_differ_are_few_and_say_why() -> None:
    own = sorted((Path(schemas.root()) / "postgres" / "operations").rglob("*.sql"))
    assert len(own) <= 7
    for path in own:
        assert path.read_text("utf-8").startswith("-- Differs: "), path
        name = f"{path.parent.name}/{path.stem}"
        assert (Path(schemas.root()) / "operations" / f"{name}.sql").exists(), name


def test_a_rendered_text_has_numbered_and_typed_parameters() -> None:
    (only,) = postgres_rendering.operation("state/load", False)
    assert only.names == ("agent", "key")
    assert "$1::text" in only.sql
    assert "now()::timestamptz(3)" in only.sql
    assert postgres_rendering.operation("state/load", True)[0].names == ("agent", "key", "now")


def test_subqueries_are_named_as_postgresql_15_wants_them() -> None:
    names = [f"{path.parent.name}/{path.stem}" for path in (Path(schemas.root()) / "operations").rglob("*.sql")]
    for name in names:
        for sql, _, _ in postgres_rendering.operation(name, False):
            for opened in re.finditer(r"\b(?:from|join)\s*\(", sql):
                depth, at = 1, opened.end()
                while depth:
                    depth += {"(": 1, ")": -1}.get(sql[at], 0)
                    at += 1
                after = re.match(r"\s*(?:as\s+)?([a-z_]*)", sql[at:])
                assert after
                assert after[1] not in ("", "where", "order", "group", "union", "cross", "join", "limit"), (name, sql)


def test_the_migrations_of_both_databases_march_in_step() -> None:
    sqlite, postgres = (
        sorted(path.name for path in (Path(schemas.root()) / kind).glob("[0-9]*.sql"))
        for kind in ("sqlite", "postgres")
    )
    assert sqlite == postgres


def test_both_databases_have_the_same_tables_and_columns(bus: Bus, hand: Hand) -> None:
    import sqlite3

    theirs: dict[str, set[str]] = {}
    rows = hand.execute(
        "select table_name, column_name from information_schema.columns where table_schema = %s",
        [table(bus, "x").partition(".")[0]],
    )
    for name, column in rows:
        theirs.setdefault(str(name), set()).add(str(column))
    with contextlib.closing(sqlite3.connect(":memory:")) as lite:
        for _, text in schemas.migrations("sqlite"):
            lite.executescript(text)
        # (What checks JSON is a view with a trigger here, and a domain and a function there.)
        text = """select name from sqlite_schema where type in ('table', 'view') and name not like 'sqlite_%'
            and name not in ('agent_notes', 'agent_artifacts')"""
        found = lite.execute(text)
        for (name,) in found.fetchall():
            ours = {row[1] for row in lite.execute(f"pragma table_xinfo('{name}')")}
            assert theirs[name] - {"rowid"} == ours, name


# --- a hot table


def looked_at(bus: Bus, hand: Hand) -> int:
    """How many pages of messages and their indexes were looked at so far, by whomever."""
    connection = bus.store.connection()
    assert isinstance(connection, Connection)
    for session in (connection.driver(), hand):  # each tells what it looked at, else it would within a second
        session.execute("select pg_stat_force_next_flush()")
    text = (
        "select heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read from pg_statio_user_tables "
        "where schemaname = %s and relname = 'agent_messages'"
    )
    found = hand.execute(text, [table(bus).partition(".")[0]]).fetchone()
    assert found
    return int(str(found[0]))


def cost(bus: Bus, hand: Hand, call: Callable[[], object]) -> int:
    """How many of these pages a call looks at."""
    before = looked_at(bus, hand)
    call()
    return looked_at(bus, hand) - before


def costs(bus: Bus, hand: Hand) -> dict[str, int]:
    """What each operation of a message's life costs, each with one message."""
    found: dict[str, int] = {}
    for ending in ("ack", "release", "reject"):
        found["send"] = cost(bus, hand, functools.partial(bus.send, "boss", "a", TASK, {}, priority=10))
        taken: list[Message] = []
        found["receive"] = cost(bus, hand, functools.partial(receive, bus, taken, 1))
        found["extend"] = cost(bus, hand, functools.partial(bus.extend, taken[0].receipt or ""))
        more = {"reason": "no"} if ending == "reject" else {}
        found[ending] = cost(bus, hand, functools.partial(getattr(bus, ending), taken[0].receipt, **more))
    many: list[Message] = []
    found["receive many"] = cost(bus, hand, lambda: receive(bus, many, 5))
    found["ack many"] = cost(bus, hand, lambda: bus.ack([message.receipt or "" for message in many]))
    found["look before waiting"] = cost(bus, hand, lambda: bus.store.run(agents.outlook("a")))
    found["cancel"] = cost(bus, hand, functools.partial(bus.cancel, bus.send("boss", "a", TASK, {})))
    return found


def receive(bus: Bus, taken: list[Message], limit: int) -> None:
    taken += bus.receive("a", limit=limit, lease=600)


def quiet(bus: Bus, hand: Hand) -> None:
    """Leave what vacuums and analyzes to the test."""
    hand.execute(f"alter table {table(bus)} set (autovacuum_enabled = off)")


def fill(hand: Hand, rows: str) -> None:
    """Write many rows at once, without the rules (which would take long) and without a sign to make plans anew."""
    hand.execute("set session_replication_role = replica")
    hand.execute(rows)
    hand.execute("reset session_replication_role")


def crowd(bus: Bus, hand: Hand, count: int) -> None:
    """So many messages in each state that what an agent does could stumble over."""
    for status, to, columns, values in (
        ("ready", "a", "", ""),
        ("ready", "elsewhere", "", ""),
        ("ready", "@milestone-executor", "", ""),
        ("scheduled", "a", ", due_at", ", now() + interval '1 day'"),
        ("leased", "a", ", due_at, leased_by, delivery", ", now() + interval '1 day', 'b', 1"),
        ("leased", "a", ", due_at, leased_by, delivery", ", now() + interval '1 day', 'a', 1"),
        ("acknowledged", "a", ", acknowledged_at", ", now()"),
        ("dead", "a", ", dead_reason", ", 'rejected'"),
    ):
        box = f"{to}/s" if to.startswith("@") else to
        rows = (
            f"insert into {table(bus)} "
            f"(session_id, from_agent, to_agent, mailbox, message_type, payload, status{columns}) "
            f"select 's', 'boss', '{to}', '{box}', '{TASK}', '{{}}', '{status}'{values} "
            f"from generate_series(1, {count})"
        )
        fill(hand, rows)
    bus.send("boss", "a", TASK, {}, priority=10)


def test_what_an_operation_looks_at_does_not_grow_with_what_waits(bus: Bus, hand: Hand) -> None:
    """Not by plans that were made while there was nothing, and not by those that statistics make."""
    quiet(bus, hand)
    bus.config_set("message_retry_limit", "1000")
    costs(bus, hand)
    crowd(bus, hand, 100)
    few = costs(bus, hand)
    crowd(bus, hand, 5000)
    many = costs(bus, hand)
    hand.execute(f"analyze {table(bus)}")
    costs(bus, hand)
    known = costs(bus, hand)
    for name, pages in few.items():
        assert max(many[name], known[name]) <= 1.5 * pages + 20, (name, pages, many[name], known[name])


def until_nobody_looks_back(hand: Hand) -> None:
    """Wait until no snapshot of the server's own, an analyze for instance, keeps a vacuum from clearing away."""
    text = "select count(*) from pg_stat_activity where backend_xmin is not null and pid <> pg_backend_pid()"
    deadline = time.monotonic() + 20
    while hand.execute(text).fetchone() != (0,):
        assert time.monotonic() < deadline


def test_after_many_messages_a_claim_is_as_fast_as_on_an_empty_table(bus: Bus, hand: Hand) -> None:
    """Counted in pages, since time depends on what else the machine does; the test vacuums as the server would."""
    quiet(bus, hand)
    costs(bus, hand)
    before = costs(bus, hand)
    name = table(bus)
    insert_many = (
        f"insert into {name} (session_id, from_agent, to_agent, mailbox, message_type, payload) "
        f"select 's', 'boss', 'a', 'a', '{TASK}', '{{}}' from generate_series(1, 50000)"
    )
    for _ in range(4):
        fill(hand, insert_many)
        for change in (
            "status = 'leased', leased_by = 'a', delivery = 1, due_at = now() where status = 'ready'",
            "status = 'acknowledged', acknowledged_at = now(), due_at = null where status = 'leased'",
        ):
            fill(hand, f"update {name} set {change}")
        until_nobody_looks_back(hand)
        hand.execute(f"vacuum {name}")
    after = costs(bus, hand)
    for call, pages in before.items():
        assert after[call] <= pages + 40, (call, pages, after[call])


def test_one_by_one_a_claim_stays_as_fast_without_any_vacuum(bus: Bus, hand: Hand) -> None:
    quiet(bus, hand)
    costs(bus, hand)
    before = costs(bus, hand)
    for _ in range(1000):
        bus.send("boss", "a", TASK, {})
        (message,) = bus.receive("a")
        bus.ack(message.receipt or "")
    after = costs(bus, hand)
    for call, pages in before.items():
        assert after[call] <= pages + 40, (call, pages, after[call])
