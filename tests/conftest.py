"""What all tests share: a bus in every colour, behind one blocking face."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bus import AsyncBus, Bus
from bus.store import postgres as postgres_store
from bus.store import postgres_ear, sqlite
from bus.store.doorbell import Waiting
from tests import empty, servers

# Who starts the suite in the background has its shell ignore Ctrl-C, and what the suite starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as nohup does

PLACES = ["file", "memory", "postgres"]
COLOURS = [f"{place}-{colour}" for place in PLACES for colour in ("blocking", "async")]


class Facade:
    """An AsyncBus, or its store, that is called like a Bus, on an event loop of its own."""

    def __init__(self, runner: asyncio.Runner, bus: Any) -> None:
        self._runner = runner
        self._bus = bus

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._bus, name)
        if name == "store":
            return Facade(self._runner, found)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self._runner.run(found(*args, **kwargs))

    def together(self, waiting: Call, acting: Call) -> Any:
        """Begin one call, make another once the first one waits; what the first one returns."""

        async def both() -> Any:
            first = asyncio.create_task(getattr(self._bus, waiting[0])(*waiting[1:-1], **waiting[-1]))
            while not listens.is_set() and not first.done():
                await asyncio.sleep(0)
            await getattr(self._bus, acting[0])(*acting[1:-1], **acting[-1])
            return await asyncio.wait_for(first, 30)

        with listening() as listens:
            return self._runner.run(both())


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the bus, the identity or the clock of whoever runs it."""
    for name in (
        "BUS_URL",
        "BUS_AGENT",
        "BUS_NOW",
        "BUS_COMMAND",
        "BUS_SHELL_VIA",
        "BUS_DEBUG",
        "BUS_TRACE",
        "TRACEPARENT",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A bus file that is there, with nothing in it."""
    return empty.file(tmp_path / "coordination.db")


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a PostgreSQL server."""
    with servers.any_server() as address:
        yield address
        empty.drop(address)


@pytest.fixture(scope="session")
def older_server() -> Iterator[str]:
    """The address of a PostgreSQL server of an older version."""
    with servers.any_server(servers.OLDER) as address:
        yield address
        empty.drop(address)


@pytest.fixture
def postgres(server: str) -> Iterator[str]:
    """The address of an empty bus on PostgreSQL."""
    with empty.schema(server) as address:
        yield address


@pytest.fixture
def older_postgres(older_server: str) -> Iterator[str]:
    """As `postgres`, on the older version."""
    with empty.schema(older_server) as address:
        yield address


@pytest.fixture(params=COLOURS)
def bus(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bus]:
    """An empty bus: {file, memory, PostgreSQL} x {blocking, async}; coroutines speak to an older PostgreSQL."""
    place, colour = request.param.split("-")
    if place == "postgres":
        where = request.getfixturevalue("postgres" if colour == "blocking" else "older_postgres")
    else:
        where = empty.file(tmp_path / "coordination.db") if place == "file" else ":memory:"
    if colour == "blocking":
        with Bus.open(where, create=True) as opened:
            yield opened
        return
    with asyncio.Runner() as runner:
        opened = runner.run(AsyncBus.open(where, create=True))
        yield Facade(runner, opened)  # type: ignore[misc]
        runner.run(opened.close())


Call = tuple[Any, ...]  # a method's name, its arguments, and last a mapping of its keyword arguments
Meanwhile = Callable[[Call, Call], Any]


@pytest.fixture
def meanwhile(bus: Bus) -> Meanwhile:
    """Begin one call, which waits for something; make another once it waits; what the first one returns."""

    def together(waiting: Call, acting: Call) -> Any:
        if isinstance(bus, Facade):
            return bus.together(waiting, acting)
        with ThreadPoolExecutor(1) as thread, listening() as listens:
            first = thread.submit(getattr(bus, waiting[0]), *waiting[1:-1], **waiting[-1])
            assert listens.wait(20)
            getattr(bus, acting[0])(*acting[1:-1], **acting[-1])
            return first.result(30)

    return together


@contextmanager
def listening() -> Iterator[threading.Event]:
    """An event that is set when somebody begins to listen."""
    event = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        for kind in (sqlite.Connection, postgres_store.Connection, postgres_ear.Ear):
            patch.setattr(kind, "listen", _telling(kind.listen, event))
        yield event


def _telling(listen: Callable[..., Waiting], event: threading.Event) -> Callable[..., Waiting]:
    def listen_and_tell(*arguments: object) -> Waiting:
        found = listen(*arguments)
        event.set()
        return found

    return listen_and_tell


Process = subprocess.Popen[bytes]


@pytest.fixture
def process() -> Iterator[Process]:
    """A process that lives until a test, or its end, kills it."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def team(bus: Bus) -> Bus:
    """A bus with a coordinator and two executors in session s."""
    bus.register("boss", type="milestone-coordinator", session="s")
    bus.register("one", type="milestone-executor", session="s")
    bus.register("two", type="milestone-executor", session="s")
    return bus
