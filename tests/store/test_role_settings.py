"""What may be set on PostgreSQL, for a role or in an address, or be made anew there, without anybody noticing."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from bus import Bus
from bus.store import postgres as store
from bus.store.url import Server, parse
from tests import servers
from tests.conformance.refusal import refused

TASK = "task_assignment"


@pytest.fixture(params=["server", "older_server"])
def postgres(request: pytest.FixtureRequest) -> Iterator[str]:
    """A schema on each version that is at hand."""
    with servers.schema(request.getfixturevalue(request.param)) as address:
        yield address


@pytest.fixture
def hand(postgres: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A plain connection."""
    url = parse(postgres)
    assert isinstance(url, Server)
    with psycopg.connect(url.conninfo, autocommit=True) as connection:
        yield connection


def with_settings(address: str, *settings: str) -> str:
    """The address, with such settings as `alter role … set` makes."""
    return f"{address}&options={quote(' '.join(f'-c {setting}' for setting in settings))}"


def test_an_option_of_an_address_arrives_as_it_was_written() -> None:
    url = parse("postgresql://h/d?options=-c%20a%3Db%20-c%20c%3Dd&schema=team&application_name=x+y")
    assert isinstance(url, Server)
    assert url.schema == "team"
    assert conninfo_to_dict(url.conninfo)["options"] == "-c a=b -c c=d"
    assert conninfo_to_dict(url.conninfo)["application_name"] == "x+y"
    again = parse(url.address())
    assert isinstance(again, Server)
    assert again.conninfo == url.conninfo


@pytest.mark.parametrize("isolation", ["repeatable\\ read", "serializable"])
def test_many_may_make_the_same_bus_whatever_the_isolation(
    postgres: str, hand: psycopg.Connection[tuple[object, ...]], isolation: str
) -> None:
    address = with_settings(postgres, f"default_transaction_isolation={isolation}")
    url = parse(postgres)
    assert isinstance(url, Server)
    lock = "hashtextextended(%s, 65)"
    hand.execute(f"select pg_advisory_lock({lock})", [url.schema])
    with ThreadPoolExecutor(3) as pool:
        makers = [pool.submit(lambda: Bus.open(address, create=True).close()) for _ in range(3)]
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = "
        waiting += "(select oid from pg_database where datname = current_database())"
        while hand.execute(waiting).fetchone() != (3,) and not any(maker.done() for maker in makers):
            time.sleep(0.01)
        hand.execute(f"select pg_advisory_unlock({lock})", [url.schema])
        for maker in makers:
            maker.result(30)


def test_answers_do_not_depend_on_how_a_role_has_texts_moments_and_numbers_told(postgres: str) -> None:
    odd = with_settings(postgres, "client_encoding=LATIN1", "DateStyle=German", "extra_float_digits=-15")
    with Bus.open(postgres, create=True) as plain, Bus.open(odd) as bus:
        plain.register("a", type="milestone-executor", session="s")
        plain.session_progress("s", 33.333333)
        sent = bus.send("a", "a", TASK, {"title": "für Zoë …"}, delay="1d")
        bus.state_save("a", "k", "für Zoë …")
        assert bus.message(sent) == plain.message(sent)
        assert plain.message(sent).payload == {"title": "für Zoë …"}
        assert plain.state_load("a", "k") == bus.state_load("a", "k") == "für Zoë …"
        assert bus.session_list() == plain.session_list()


def test_who_waits_for_longer_than_a_statement_timeout_is_told_that_the_bus_is_busy(
    postgres: str, hand: psycopg.Connection[tuple[object, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "TIMEOUT", 0.0)
    with (
        Bus.open(postgres, create=True) as plain,
        Bus.open(with_settings(postgres, "statement_timeout=500")) as bus,
    ):
        plain.register("a", type="milestone-executor", session="s")
        assert isinstance(plain.url, Server)
        with hand.transaction():
            hand.execute(f"lock table {plain.url.schema}.agent_messages in access exclusive mode")  # type: ignore[arg-type]
            with refused("busy", 75):
                bus.send("a", "a", TASK, {})
        assert bus.send("a", "a", TASK, {}) == 1


def test_a_bus_that_was_made_anew_meanwhile_is_used_as_it_is_now(
    postgres: str, hand: psycopg.Connection[tuple[object, ...]]
) -> None:
    with Bus.open(postgres, create=True) as bus:
        for _ in range(2):
            bus.register("a", type="milestone-executor", session="s")
            assert bus.send("a", "a", TASK, {}) == 1
            assert len(bus.receive("a", ack=True)) == 1
            assert isinstance(bus.url, Server)
            hand.execute(f"drop schema {bus.url.schema} cascade")  # type: ignore[arg-type]
            Bus.open(postgres, create=True).close()


def test_a_schema_that_is_dropped_is_no_bus_any_more(
    postgres: str, hand: psycopg.Connection[tuple[object, ...]]
) -> None:
    with Bus.open(postgres, create=True) as bus:
        bus.register("a", type="milestone-executor", session="s")
        message = bus.send("a", "a", TASK, {})
        assert isinstance(bus.url, Server)
        hand.execute(f"drop schema {bus.url.schema} cascade")  # type: ignore[arg-type]  # no literal, but ours
        for call in (
            lambda: bus.send("a", "a", TASK, {}),
            lambda: bus.receive("a"),
            lambda: bus.message(message),
            lambda: bus.state_save("a", "k", "v"),
            bus.agents,
        ):
            with refused("no_bus", 66):
                call()


def test_a_database_that_keeps_no_unicode_is_refused(
    postgres: str, hand: psycopg.Connection[tuple[object, ...]]
) -> None:
    hand.execute("create database narrow encoding 'LATIN1' locale 'C' template template0")
    try:
        url = parse(postgres)
        assert isinstance(url, Server)
        narrow = url.address().replace(f"/{hand.info.dbname}?", "/narrow?")
        with refused("not_a_bus", 66):
            Bus.open(narrow, create=True)
    finally:
        hand.execute("drop database narrow with (force)")


def test_who_may_only_read_does_not_write(postgres: str) -> None:
    Bus.open(postgres, create=True).close()
    with Bus.open(with_settings(postgres, "default_transaction_read_only=on")) as reading:
        assert reading.agents() == []
        with refused("not_allowed", 65):
            reading.register("a", type="validation", session="s")
