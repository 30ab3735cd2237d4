"""Who may only read a bus: a file that was opened for reading, a role of PostgreSQL that may look at the tables."""

import asyncio
import os
from collections.abc import Callable, Iterator

import psycopg
import pytest

from bus import AsyncBus, Bus
from bus.store.url import Server, parse
from tests.conformance.refusal import refused
from tests.conftest import Process

REPORTS: list[Callable[[Bus], object]] = [
    lambda bus: [(found.agent_id, found.life.value) for found in bus.trace_active()],
    lambda bus: [(found.killed, found.active) for found in bus.trace_velocity()],
    lambda bus: bus.trace_bottlenecks(),
    lambda bus: [(found.spawned, found.killed) for found in bus.trace_throughput()],
    lambda bus: len(bus.trace_timeline().agents),
    lambda bus: bus.trace_waiting(),
    lambda bus: [s.labels for family in bus.metrics() for s in family.samples if "status" in s.labels],
    lambda bus: bus.trace_close_the_dead(optional=True),
]
AS_ON_RECORD = [[(1, "dead")], [(0, 1)], [], [(1, 0)], 1, [], [{"agent_type": "x", "status": "running"}], []]


def die(bus: Bus, process: Process) -> None:
    """A process on record, which nobody sees die."""
    bus.trace_start(bus.trace_spawn("x", "t", pid=process.pid))
    process.kill()
    process.wait()


@pytest.fixture
def role(postgres: str) -> Iterator[str]:
    """The address of a bus on PostgreSQL for a role that may only look."""
    url, name = parse(postgres), f"reader_{os.getpid()}"
    assert isinstance(url, Server)
    Bus.open(postgres, create=True).close()
    with psycopg.connect(url.conninfo, autocommit=True) as hand:
        hand.execute(f"create role {name} login; grant usage on schema {url.schema} to {name}")
        hand.execute(f"grant select on all tables in schema {url.schema} to {name}")
        yield f"{postgres}&user={name}"
        hand.execute(f"drop owned by {name}; drop role {name}")


def test_a_file_that_is_only_read_reports_what_is_on_record(url: str, process: Process) -> None:
    with Bus.open(url) as bus:
        die(bus, process)
    with Bus.open(url, read_only=True) as reader:
        assert [report(reader) for report in REPORTS] == AS_ON_RECORD
        with refused("not_allowed", 65):
            reader.trace_close_the_dead()


def test_a_role_that_may_only_read_reports_what_is_on_record(postgres: str, role: str, process: Process) -> None:
    with Bus.open(postgres) as bus:
        die(bus, process)
    with Bus.open(role) as reader:
        assert [report(reader) for report in REPORTS] == AS_ON_RECORD
        with refused("not_allowed", 65):
            reader.trace_close_the_dead()

    async def look() -> int:
        async with await AsyncBus.open(role) as reader:
            return len(await reader.trace_active())

    assert asyncio.run(look()) == 1
    with Bus.open(postgres) as bus:
        assert [(found.killed, found.active) for found in bus.trace_velocity()] == [(1, 0)]
