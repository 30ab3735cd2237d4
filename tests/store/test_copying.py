"""A whole bus copied into another one, from every kind into every kind."""

import contextlib
import json
import math
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from bus import Bus, BusError, clock, copying, exports, lifecycle
from bus.store.url import Server
from tests import servers
from tests.conformance.refusal import refused

TASK = "task_assignment"
UNUSED = {"agent": "risk-assessor", "message": "error_report", "state": "temp_data", "operation": "cleanup"}
KINDS = ["sqlite", "postgres"]
RED = '{ "name" : "red", "n":1e2, "é":"\\u00e9" }'
Place = Callable[[str], str]


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """Where a bus of some kind can be made."""
    with servers.many() as schemas:

        def anywhere(kind: str) -> str:
            if kind == "sqlite":
                return str(tmp_path / f"{len(list(tmp_path.iterdir()))}.db")
            return schemas(request.getfixturevalue("server"))

        yield anywhere


@pytest.fixture(params=KINDS)
def full(request: pytest.FixtureRequest, place: Place) -> Iterator[Bus]:
    """A bus with something of everything in it."""
    with Bus.open(place(request.param), create=True) as bus:
        fill(bus)
        yield bus


def fill(bus: Bus) -> None:
    bus.types_add("message", "colour", schema={"properties": {"name": {"enum": ["red", "blue"]}}, "required": ["name"]})
    bus.types_add("agent", "painter", description="it's a “painter”")
    bus.config_set("lease_seconds", "7.5")
    bus.config_set("message_retry_limit", "1")
    bus.register("boss", type="milestone-coordinator", session="s", milestone="m", capabilities=["a", {"b": 1}])
    bus.register("p", type="painter", session="s", operation="planning", pid=os.getpid(), command="run me")
    bus.update("p", error_info={"what": "é\n"}, resource_usage=[1, 2.5])
    bus.session_progress("s", 12.5, phase="design")
    for number in range(5):
        bus.send("boss", "p", "colour", RED, key=f"k{number}", priority=number + 1)
    acknowledged, released, rejected = bus.receive("p", limit=3)
    bus.ack(acknowledged.receipt or "")
    bus.release(released.receipt or "", delay=60)
    bus.reject(rejected.receipt or "", reason="no\tthanks")
    bus.receive("p", lease=600)
    bus.send("boss", "@painter", TASK, {"a": "x" * 5000}, delay=5, expires=500, correlation="c", reply_to=1)
    late = bus.send("boss", "p", TASK, {}, expires=1)
    with clock.moved(2):
        bus.receive("p", type="progress_update")
    assert bus.message(late).dead_reason == "expired"
    bus.state_save("p", "a/b", "v'\"\\\r\n\U0001f600", ttl=1000)
    bus.state_save("p", "a/b", "w")
    bus.state_delete("p", "a/b")
    bus.state_save("never-registered", "k", "")
    for n in range(3):
        bus.checkpoint_create("p", {"n": n}, retention=3600)
    bus.store.run(lifecycle.spawn("painter", "t", pid=os.getpid(), priority="042", metadata={"x": [1]}))
    bus.retire("p", status="failed")
    with clock.moved(3600):
        bus.clean(stale=60)


def told(bus: Bus) -> list[dict[str, object]]:
    """The messages; SQLite shows payloads without spaces."""
    return [{**msgspec.structs.asdict(message), "raw": message.payload} for message in bus.messages(limit=100)]


def everything(bus: Bus) -> list[copying.Digest]:
    with copying.Spool() as spool:
        return bus.store.run(copying.take(spool))


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_is_the_same_bus_and_goes_on(full: Bus, place: Place, kind: str) -> None:
    before = everything(full)
    with Bus.open(place(kind), create=True) as new:
        copied = full.copy_to(new)
        assert copied.source == copied.target == before == everything(full) == everything(new)
        assert {digest.table for digest in copied.source if not digest.rows} <= {
            "trace_exports",
            "trace_exports_pending",
        } | {"milestones"}
        assert told(new) == told(full)
        assert new.agents() == full.agents()
        assert new.session_list() == full.session_list()
        assert new.checkpoint_list("p") == full.checkpoint_list("p")
        assert new.config_list() == full.config_list()
        newest = new.messages(limit=1)[0].id
        assert new.send("boss", "p", "colour", {"name": "blue"}) > newest
        with refused("invalid_payload", 65):
            new.send("boss", "p", "colour", {"name": "green"})
        assert new.send("boss", "p", "colour", RED, key="k0") == 1
        assert new.register("p", type="painter", session="s").status == "active"
        assert new.receive("p", type="colour")


def test_there_and_back_again_nothing_has_changed(full: Bus, place: Place) -> None:
    with Bus.open(place("postgres"), create=True) as there, Bus.open(place("sqlite"), create=True) as back:
        full.copy_to(there)
        there.copy_to(back)
        assert everything(back) == everything(full)


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_empty_bus_gets_a_copy(full: Bus, place: Place, kind: str) -> None:
    with Bus.open(place(kind), create=True) as other:
        other.state_save("a", "k", "mine")
        before = everything(other)
        with refused("not_empty", 76):
            full.copy_to(other)
        assert everything(other) == before


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_there_is_a_bus_with_it_is_not_empty(place: Place, kind: str) -> None:
    for text in (
        "milestones (id) values ('m')",
        "agent_registry (agent_id, agent_type, session_id) values ('a', 'validation', 's')",
        "agent_messages (session_id, from_agent, to_agent, message_type, payload) "
        "values ('s', 'a', 'b', 'task_assignment', '{}')",
        "agent_state (agent_id, state_key, state_value) values ('a', 'k', 'v')",
        "agent_checkpoints (agent_id, session_id) values ('a', 's')",
        "agent_health_log (agent_id, health_status) values ('a', 'healthy')",
        "agent_lifecycle (pid, agent_type, task_id, command) values (1, 'a', 't', '')",
        "coordination_sessions (session_id) values ('s')",
        "trace_exports (target) values ('t')",
        "trace_exports_pending (target, kind, id) values ('t', 'life', 1)",
    ):
        with Bus.open(place("sqlite"), create=True) as old, Bus.open(place(kind), create=True) as new:
            by_hand(new, f"insert into {text}")
            with refused("not_empty", 76):
                old.copy_to(new)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_that_fails_leaves_nothing(full: Bus, place: Place, kind: str) -> None:
    with Bus.open(place(kind), create=True) as new, copying.Spool() as spool:
        taken = full.store.run(copying.take(spool))
        wrong = [*taken[:-1], copying.Digest(taken[-1].table, taken[-1].rows, "0" * 64)]
        before = everything(new)
        with pytest.raises(BusError, match="did not arrive"):
            new.store.run(copying.put(spool, wrong))
        assert everything(new) == before
        assert full.copy_to(new).target == taken


def test_what_arrives_otherwise_than_it_was_read_is_not_kept(full: Bus, place: Place) -> None:
    with Bus.open(place("sqlite"), create=True) as new:
        with copying.Spool() as spool:
            *others, last = full.store.run(copying.take(spool))
            with refused("fault", 70):
                new.store.run(copying.put(spool, [*others, msgspec.structs.replace(last, sha256="0" * 64)]))
        full.copy_to(new)  # which is empty still
        assert everything(new) == everything(full)


def test_a_type_that_was_changed_does_not_stop_older_messages(place: Place) -> None:
    with Bus.open(place("sqlite"), create=True) as old, Bus.open(place("postgres"), create=True) as new:
        old.register("a", type="validation", session="s")
        old.send("a", "a", TASK, {"phase": "x"})
        old.types_add("message", TASK, schema={"properties": {"phase": {"type": "number"}}})
        old.config_set("max_payload_bytes", "5")
        old.copy_to(new)
        assert new.receive("a")[0].payload == {"phase": "x"}
        with refused("payload_too_large", 65):
            new.send("a", "a", TASK, {"phase": 7})
        new.config_set("max_payload_bytes", "500")
        new.send("a", "a", TASK, {"phase": 7})
        with refused("invalid_payload", 65):
            new.send("a", "a", TASK, {"phase": "x"})


def test_what_postgresql_can_not_hold_is_said_and_nothing_is_copied(place: Place) -> None:
    path = place("sqlite")
    with Bus.open(path, create=True) as old, Bus.open(place("postgres"), create=True) as new:
        old.register("a", type="validation", session="s")
        by_hand(old, "update agent_registry set current_task = cast(x'ff' as text)")
        with refused("damaged", 70):
            old.copy_to(new)
        assert new.agents() == []


def by_hand(bus: Bus, *texts: str) -> None:
    """Run statements as a person at a prompt does."""
    if isinstance(bus.url, Server):
        with psycopg.connect(bus.url.conninfo, autocommit=True) as server:
            server.execute("select set_config('search_path', %s, false)", [bus.url.schema])
            for text in texts:
                server.execute(text)  # type: ignore[arg-type]
    else:
        with contextlib.closing(sqlite3.connect(bus.url.path, isolation_level=None)) as file:
            for text in texts:
                file.execute(text)


def live(bus: Bus) -> int:
    """A life that is over; its id."""
    id = bus.store.run(lifecycle.spawn("painter", "t", pid=os.getpid()))
    bus.store.run(lifecycle.abort(id, error="it could not be started"))
    return id


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_ids_whose_rows_are_gone_are_not_given_again(place: Place, source: str, kind: str) -> None:
    logged = "insert into agent_health_log (agent_id, health_status) values ('a', 'healthy') returning id"
    with Bus.open(place(source), create=True) as old, Bus.open(place(kind), create=True) as new:
        last = [live(old) for _ in range(3)][-1]
        by_hand(old, logged, logged)
        old.store.run(exports.claim("there"))
        old.store.run(exports.advance("there", old.store.run(exports.batch("there"))))
        by_hand(old, "delete from agent_lifecycle", "delete from agent_health_log")
        old.copy_to(new)
        assert live(new) == last + 1
        assert len(new.store.run(exports.batch("there")).lived) == 1
        by_hand(new, logged)
        with copying.Spool() as spool:
            new.store.run(copying.take(spool))
            assert spool.given["last_health"] == 3


def test_a_cursor_alone_tells_which_ids_were_given(place: Place) -> None:
    with Bus.open(place("postgres"), create=True) as old, Bus.open(place("sqlite"), create=True) as new:
        by_hand(old, "insert into trace_exports (target, life_id) values ('there', 7)")
        old.copy_to(new)
        assert live(new) == 8


def test_no_row_is_left_out_whatever_its_key(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "CHUNK", 2)
    with Bus.open(place("sqlite"), create=True) as bus:
        by_hand(
            bus,
            "pragma ignore_check_constraints = on",
            "delete from agent_types",
            "delete from agent_coordination_config",
            "insert into agent_coordination_config (key, value) values ('', ''), ('a', ''), ('b', ''), ('c', '')",
            "insert into agent_health_log (id, agent_id, health_status) select value, 'a', 'healthy'"
            " from json_each('[-9223372036854775808, -7, 0, 1, 9223372036854775807]')",
            "insert into trace_exports_pending (target, kind, id) values ('', 'life', -1), ('', 'life', 0),"
            " ('x', 'life', 1)",
        )
        rows = {digest.table: digest.rows for digest in everything(bus)}
    assert rows["agent_coordination_config"] == 4
    assert rows["agent_health_log"] == 5
    assert rows["trace_exports_pending"] == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_settings_are_those_of_the_source_more_or_fewer(place: Place, source: str, kind: str) -> None:
    with Bus.open(place(source), create=True) as old, Bus.open(place(kind), create=True) as new:
        by_hand(
            old,
            "drop trigger agent_coordination_config_kept" + (" on agent_coordination_config" * (source == "postgres")),
            "delete from agent_coordination_config where key = 'advise_agents'",
            "insert into agent_coordination_config (key, value) values ('mine', '1')",
        )
        old.copy_to(new)
        assert new.config_list() == old.config_list()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", KINDS)
def test_of_the_two_zeros_one_arrives(place: Place, source: str, kind: str) -> None:
    with Bus.open(place(source), create=True) as old, Bus.open(place(kind), create=True) as new:
        old.register("a", type="validation", session="s")
        old.session_progress("s", -0.0)
        by_hand(
            old, "insert into agent_health_log (agent_id, health_status, cpu_usage) values ('a', 'healthy', '-0.0')"
        )
        old.copy_to(new)
        assert math.copysign(1, new.session_show("s").progress) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_nul_is_said_with_its_row(place: Place, kind: str) -> None:
    with Bus.open(place("sqlite"), create=True) as old, Bus.open(place(kind), create=True) as new:
        old.register("a", type="validation", session="here")
        by_hand(old, "update coordination_sessions set phase = 'a' || char(0)")
        with pytest.raises(BusError, match="'here' of coordination_sessions is not UTF-8 text without NUL"):
            old.copy_to(new)
        assert new.agents() == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_new_bus_refuses_is_said_with_its_table(place: Place, kind: str) -> None:
    with Bus.open(place("sqlite"), create=True) as old, Bus.open(place(kind), create=True) as new:
        old.register("a", type="validation", session="s")
        by_hand(old, "drop trigger agent_registry_type_used", "delete from agent_types where name = 'validation'")
        with pytest.raises(BusError, match="agent_registry can't be copied: there is no such agent type"):
            old.copy_to(new)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_that_no_database_enforces_is_said_with_its_type(place: Place, kind: str) -> None:
    with Bus.open(place(kind), create=True) as old, Bus.open(place("sqlite"), create=True) as new:
        by_hand(old, "insert into message_types (name, schema) values ('odd', '{\"$ref\": \"#\"}')")
        with pytest.raises(BusError, match="the message type odd can't be copied"):
            old.copy_to(new)


@pytest.mark.parametrize(
    "text",
    [
        "insert into message_types (name, schema) values ('odd', '[]')",
        "insert into message_types (name, schema) values ('odd', 'null')",
        "insert into agent_coordination_config (key, value) values ('', '')",
        "insert into trace_exports (target) values ('')",
        "insert into trace_exports (target, life_id) values ('x', -1)",
        "insert into trace_exports (target, message_id) values ('x', 9223372036854775807)",
        "insert into trace_exports_pending (target, kind, id) values ('', 'life', 1)",
        "insert into agent_health_log (id, agent_id, health_status) {given} values (0, 'a', 'healthy')",
        "insert into agent_health_log (id, agent_id, health_status) {given} values (-7, 'a', 'healthy')",
        "insert into agent_health_log (agent_id, health_status, cpu_usage) values ('a', 'healthy', {infinite})",
        "insert into agent_health_log (agent_id, health_status, memory_usage) values ('a', 'healthy', -{infinite})",
        "insert into agent_health_log (agent_id, health_status, response_time) values ('a', 'healthy', {infinite})",
        "insert into agent_checkpoints (rowid, agent_id, session_id) {given} values (-2, 'a', 's')",
        "insert into agent_lifecycle (agent_id, pid, agent_type, task_id, command) {given}"
        " values (-3, 1, 'a', 't', '')",
        "delete from agent_types where name = 'validation'",
        "delete from agent_types where name = 'retry-handler'",
        "delete from message_types where name = 'task_assignment'",
        "delete from state_types where name = 'user_data'",
        "delete from operation_types where name = 'execution'",
        *(f"update {kind}_types set name = 'other' where name = (select min(name) from {kind}_types)"
          for kind in ("agent", "message", "state", "operation")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_what_no_copy_could_hold_is_refused_by_hand(place: Place, kind: str, text: str) -> None:
    given, infinite = ("", "9e999") if kind == "sqlite" else ("overriding system value", "'infinity'::float8")
    with Bus.open(place(kind), create=True) as bus:
        bus.register("a", type="validation", session="s")
        bus.send("a", "@retry-handler", TASK, {})
        bus.state_save("a", "k", "v")
        before = everything(bus)
        with pytest.raises((sqlite3.IntegrityError, psycopg.Error), match=r"invalid_|immutable"):
            by_hand(bus, text.format(given=given, infinite=infinite))
        assert everything(bus) == before


def test_no_number_that_is_none_gets_into_postgresql_by_hand(place: Place) -> None:
    with Bus.open(place("postgres"), create=True) as bus, pytest.raises(psycopg.Error, match="invalid_value"):
        by_hand(bus, "insert into agent_health_log (agent_id, health_status, cpu_usage) values ('a', 'healthy', 'NaN')")


def test_a_type_of_which_nothing_is_can_go(full: Bus) -> None:
    by_hand(full, *(f"delete from {kind}_types where name = '{name}'" for kind, name in UNUSED.items()))


def test_the_command_prints_what_was_copied(full: Bus, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    target = place("postgres")
    command = [sys.executable, "-P", "-m", "bus_cli", "copy", full.url.address(), target]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    copied = json.loads(told.stdout)
    assert copied["source"] == copied["target"]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 76
    assert "has something in it" in again.stderr


def test_the_command_does_not_upgrade_what_it_copies(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as old:
        old.executescript("pragma application_id = 1098146163; pragma user_version = 1; create table t (x)")
    (tmp_path / "old.db").chmod(0o600)
    before = (tmp_path / "old.db").read_bytes()
    command = [sys.executable, "-P", "-m", "bus_cli", "copy", str(tmp_path / "old.db"), str(tmp_path / "new.db")]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (told.returncode, "bus init" in told.stderr) == (66, True)
    assert (tmp_path / "old.db").read_bytes() == before
    assert not (tmp_path / "new.db").exists()
