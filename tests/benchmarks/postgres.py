"""The bus on PostgreSQL beside a bare `skip locked` floor, procrastinate and pgqueuer.

    bin/bench --postgres

One by one: each message is stored, claimed and finished, a commit each. Crowd: four processes store while four others
claim and finish. Wake-up: from the return of a send to the return of a waiting receive. All on one server, in turns, so
that a busy machine is busy for all. BUS_TEST_POSTGRES names another server than the tests' own.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psycopg

from bus import Bus
from tests import servers
from tests.benchmarks import report
from tests.benchmarks.figures import Figure, named, percentile

TYPE = "milestone-executor"
CROWD = 4  # processes on each side
FORK = multiprocessing.get_context("fork")
TARGETS = {"one by one": 0.7, "crowd": 0.9}


def body(number: int) -> str:
    """The payload of every message: about a hundred bytes of JSON."""
    return f'{{"task_id":"{number}","phase":"design","title":"Sketch the first part of the work","weight":25}}'


class Queue(Protocol):
    """One process's connection to a queue."""

    def put(self, number: int) -> None: ...

    def take(self) -> bool: ...

    def close(self) -> None: ...


class Floor:
    """What PostgreSQL takes for a bare insert, a bare claim and a bare delete."""

    def __init__(self, url: str, worker: int) -> None:
        self._connection = psycopg.connect(url, autocommit=True, prepare_threshold=0)

    @staticmethod
    def prepare(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("drop table if exists bench_floor")
            connection.execute(
                "create table bench_floor (id bigint generated always as identity primary key, "
                "taken boolean not null default false, payload json not null)"
            )
            connection.execute("create index on bench_floor (id) where not taken")

    def put(self, number: int) -> None:
        self._connection.execute("insert into bench_floor (payload) values (%s)", [body(number)])

    def take(self) -> bool:
        found = self._connection.execute(
            "update bench_floor set taken = true where id = (select id from bench_floor where not taken order by id "
            "limit 1 for update skip locked) returning id, payload"
        ).fetchall()
        for id, _ in found:
            self._connection.execute("delete from bench_floor where id = %s", [id])
        return bool(found)

    def close(self) -> None:
        self._connection.close()


class Ours:
    """send, receive, ack, with every check on; all share the queue of their type."""

    def __init__(self, url: str, worker: int) -> None:
        self._bus = Bus.open(_ours(url), create=True)
        self._agent = f"worker-{worker}"
        self._bus.register(self._agent, type=TYPE, session="bench", pid=os.getpid())

    @staticmethod
    def prepare(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("drop schema if exists bench_bus cascade")

    def put(self, number: int) -> None:
        self._bus.send(self._agent, f"@{TYPE}", "task_assignment", body(number))

    def take(self) -> bool:
        found = self._bus.receive(self._agent)
        if found:
            self._bus.ack(found[0].receipt or "")
        return bool(found)

    def close(self) -> None:
        self._bus.close()


class OursInALoop(Ours):
    """As agents that work through a queue: one message is acknowledged with the claim of the next."""

    _receipt: str | None = None

    def take(self) -> bool:
        if self._receipt:
            found = self._bus.ack_and_receive(self._agent, self._receipt)
        else:
            found = self._bus.receive(self._agent)
        self._receipt = found[0].receipt if found else None
        return bool(found)

    def close(self) -> None:
        if self._receipt:
            self._bus.ack(self._receipt)
        super().close()


def _ours(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}schema=bench_bus"


class Coroutines:
    """A queue of a library that is async, on a loop of its own."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._runner.run(coroutine)


class Procrastinate(Coroutines):
    """procrastinate: a job is deferred, fetched, finished and deleted."""

    def __init__(self, url: str, worker: int) -> None:
        from procrastinate import App, PsycopgConnector

        super().__init__()
        self._app = App(connector=PsycopgConnector(conninfo=url, min_size=1, max_size=1))
        self.run(self._opened())
        self._worker = self.run(self._app.job_manager.register_worker())

    @staticmethod
    def prepare(url: str) -> None:
        from procrastinate import App, PsycopgConnector

        with psycopg.connect(url, autocommit=True) as connection:
            for kind, name in connection.execute(
                "select 'table', tablename from pg_tables where schemaname = 'public' and tablename ~ '^procrastinate'"
            ).fetchall():
                connection.execute(f"drop {kind} {name} cascade")
            for (name,) in connection.execute(
                "select oid::regprocedure::text from pg_proc where proname ~ '^procrastinate'"
            ):
                connection.execute(f"drop function {name} cascade")
            for (name,) in connection.execute(
                "select typname from pg_type where typname ~ '^procrastinate' and typtype in ('e', 'c')"
            ).fetchall():
                connection.execute(f"drop type if exists {name} cascade")

        async def install() -> None:
            async with App(connector=PsycopgConnector(conninfo=url)).open_async() as app:
                await app.schema_manager.apply_schema_async()

        asyncio.run(install())

    async def _opened(self) -> None:
        await self._app.open_async()

    def put(self, number: int) -> None:
        self.run(self._app.configure_task("bench", queue="bench", allow_unknown=True).defer_async(payload=body(number)))

    def take(self) -> bool:
        from procrastinate.jobs import Status

        manager = self._app.job_manager
        job = self.run(manager.fetch_job(["bench"], self._worker))
        if job is not None:
            self.run(manager.finish_job(job, Status.SUCCEEDED, delete_job=True))
        return job is not None

    def close(self) -> None:
        self.run(self._app.close_async())
        self._runner.close()


class Pgqueuer(Coroutines):
    """pgqueuer: a job is enqueued, dequeued and logged as successful."""

    def __init__(self, url: str, worker: int) -> None:
        from pgqueuer.db import PsycopgDriver
        from pgqueuer.queries import EntrypointExecutionParameter, Queries

        super().__init__()
        self._connection = self.run(psycopg.AsyncConnection.connect(url, autocommit=True))
        self._queries = Queries(PsycopgDriver(self._connection))
        self._entrypoints: Any = {"bench": EntrypointExecutionParameter(concurrency_limit=0)}
        self._manager: Any = uuid.uuid4()

    @staticmethod
    def prepare(url: str) -> None:
        from pgqueuer.db import PsycopgDriver
        from pgqueuer.queries import Queries

        async def install() -> None:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                queries = Queries(PsycopgDriver(connection))
                with contextlib.suppress(psycopg.Error):  # it was not there
                    await queries.uninstall()
                await queries.install()

        asyncio.run(install())

    def put(self, number: int) -> None:
        self.run(self._queries.enqueue(["bench"], [body(number).encode()], [0]))

    def take(self) -> bool:
        minute = timedelta(seconds=60)
        jobs = self.run(self._queries.dequeue(1, self._entrypoints, self._manager, None, minute))
        if jobs:
            self.run(self._queries.log_jobs([(job, "successful", None) for job in jobs]))
        return bool(jobs)

    def close(self) -> None:
        self.run(self._connection.close())
        self._runner.close()


SUBJECTS: dict[str, Any] = {
    "floor": Floor,
    "agent-bus": Ours,
    "agent-bus in a loop": OursInALoop,
    "procrastinate": Procrastinate,
    "pgqueuer": Pgqueuer,
}


def one_by_one(kind: Callable[[str, int], Queue], url: str, count: int) -> float:
    """Messages a second that are put and taken one by one."""
    queue = kind(url, 0)
    try:
        _cycle(queue, 20)
        begun = time.perf_counter()
        _cycle(queue, count)
        return count / (time.perf_counter() - begun)
    finally:
        queue.close()


def _cycle(queue: Queue, count: int) -> None:
    for number in range(count):
        queue.put(number)
        assert queue.take()


def crowd(kind: Callable[[str, int], Queue], url: str, count: int) -> float:
    """Messages a second through four processes that put and four that take, from the first put to the last taken."""
    gate = FORK.Barrier(2 * CROWD + 1)
    left = FORK.Value("i", count)
    each = count // CROWD
    putters = [FORK.Process(target=_put, args=(kind, url, n, each, gate)) for n in range(CROWD)]
    takers = [FORK.Process(target=_take, args=(kind, url, CROWD + n, gate, left)) for n in range(CROWD)]
    for process in (*putters, *takers):
        process.start()
    gate.wait()
    begun = time.perf_counter()
    for process in (*putters, *takers):
        process.join()
    assert not any(process.exitcode for process in (*putters, *takers))
    return count / (time.perf_counter() - begun)


def _warm(kind: Callable[[str, int], Queue], url: str, worker: int) -> Queue:
    """A connection whose statements are prepared."""
    queue = kind(url, worker)
    for number in range(5):
        queue.put(number)
        while not queue.take():
            pass
    return queue


def _put(kind: Callable[[str, int], Queue], url: str, worker: int, count: int, gate: Any) -> None:
    queue = _warm(kind, url, worker)
    gate.wait()
    for number in range(count):
        queue.put(number)
    queue.close()


def _take(kind: Callable[[str, int], Queue], url: str, worker: int, gate: Any, left: Any) -> None:
    queue = _warm(kind, url, worker)
    gate.wait()
    while left.value > 0:
        if queue.take():
            with left.get_lock():
                left.value -= 1
    queue.close()


def wake_ups(url: str, count: int) -> list[float]:
    """Seconds from the return of a send to the return of the receive that waited for it."""
    mine, theirs = FORK.Pipe()
    with Bus.open(_ours(url), create=True) as bus:
        for name in ("sender", "waiter"):
            bus.register(name, type="validation", session="bench")
    process = FORK.Process(target=_wait, args=(url, count, theirs))
    process.start()
    sent = []
    with Bus.open(_ours(url)) as bus:
        for number in range(count):
            mine.recv()
            time.sleep(0.02)  # by then it waits
            bus.send("sender", "waiter", "task_assignment", body(number))
            sent.append(time.time())
    received = mine.recv()
    process.join()
    return sorted(max(there - here, 0.0) for here, there in zip(sent, received, strict=True))


def _wait(url: str, count: int, pipe: Any) -> None:
    received = []
    with Bus.open(_ours(url)) as bus:
        for _ in range(count):
            pipe.send("waiting")
            (message,) = bus.receive("waiter", wait=30)
            received.append(time.time())
            bus.ack(message.receipt or "")
    pipe.send(received)


class Rate(NamedTuple):
    """Messages a second, and the share of what the first subject does in the same round: medians of rounds."""

    work: str
    name: str
    rate: float
    share: float


def measure(url: str, rounds: int, count: int, names: list[str]) -> list[Rate]:
    """The rates of all subjects in each work; they take turns, so that a busy machine is busy for all."""
    for name in names:
        SUBJECTS[name].prepare(url)
    found = []
    for work, run, messages in (("one by one", one_by_one, count), ("crowd", crowd, 2 * count)):
        rates: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                rates[name].append(run(SUBJECTS[name], url, messages))
                print(f"{work}: {name} {rates[name][-1]:,.0f}/s", file=sys.stderr, flush=True)
        for name in names:
            shares = [mine / floor for mine, floor in zip(rates[name], rates[names[0]], strict=True)]
            found.append(Rate(work, name, statistics.median(rates[name]), statistics.median(shares)))
    return found


def figures(rates: list[Rate], wakes: list[float]) -> list[Figure]:
    """The same as figures, each beside the floor of the same run."""
    found = [
        Figure(work, name, "server", rate, "messages/s", "floor", share, TARGETS[work] if name == "agent-bus" else None)
        for work, name, rate, share in rates
    ]
    for name, part, target in (("wake-up p50", 0.5, 2.0), ("wake-up p99", 0.99, None)):
        value = percentile(wakes, part) * 1000
        found.append(Figure(name, "agent-bus", "server", value, "ms", target=target, least=False, samples=wakes))
    return found


def chosen(against: str) -> list[str]:
    """The floor, the bus, and those of a list; all of none."""
    wanted = named(against, list(SUBJECTS))
    return [name for name, kind in SUBJECTS.items() if not wanted or name in wanted or issubclass(kind, Floor | Ours)]


def run(names: list[str], count: int, kept: Path | None = None, rounds: int = 5) -> None:
    """Measure and print; keep the figures in a file."""
    known = os.environ.get("BUS_TEST_POSTGRES")
    with servers.own(fsync="on", full_page_writes="on") if not known else _named(known) as server:
        rates = measure(server.url, rounds, count, names)
        found = figures(rates, wake_ups(server.url, max(count // 8, 10)))
    print(report.table(found))
    if kept:
        report.save(found, kept)


class _named:
    """A server that is there already."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> _named:
        return self

    def __exit__(self, *_: object) -> None:
        return None
