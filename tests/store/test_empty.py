"""That the buses which the tests share are empty, each time."""

from collections.abc import Callable

import psycopg
import pytest

from bus import Bus
from bus.store.url import Server
from tests import empty


def used(server: str, act: Callable[[Bus], object]) -> str:
    """The name of the schema in which somebody acts."""
    with empty.schema(server) as address, Bus.open(address) as bus:
        assert (bus.agents(), bus.messages(), len(bus.config_list()) > 0) == ([], [], True)
        bus.register("a", type="validation", session="s")
        assert bus.send("a", "a", "task_assignment", {}) == 1
        act(bus)
        assert isinstance(bus.url, Server)
        return bus.url.schema


def test_a_schema_is_used_again_without_what_was_written(server: str) -> None:
    assert len({used(server, lambda bus: bus.state_save("a", "k", "v")) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    "act",
    [
        lambda bus: bus.config_set("lease_seconds", "7"),
        lambda bus: bus.types_add("agent", "painter"),
        lambda bus: bus.types_add("message", "own", schema={}),
        "create table notes (id integer)",
        "drop trigger agent_messages_newest on agent_messages",
        "alter table agent_messages disable trigger all",
        "alter table agent_messages set (fillfactor = 50)",
        "grant select on agent_messages to public",
        "alter table agent_state drop constraint invalid_value",
    ],
)
def test_a_schema_that_was_changed_is_not_used_again(server: str, act: Callable[[Bus], object] | str) -> None:
    def change(bus: Bus) -> None:
        if callable(act):
            act(bus)
            return
        assert isinstance(bus.url, Server)
        with psycopg.connect(bus.url.conninfo, autocommit=True) as hand:
            hand.execute(f"set search_path to {bus.url.schema}".encode())
            hand.execute(act.encode())

    changed = used(server, change)
    assert used(server, lambda bus: bus.heartbeat("a")) != changed
