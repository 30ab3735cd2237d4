"""Which driver a URL asks for. PostgreSQL's is imported only when it does."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

from bus.errors import error
from bus.operation import Operation
from bus.store import sqlite
from bus.store.doorbell import Waiting
from bus.store.facts import Fact
from bus.store.url import Place, Server

if TYPE_CHECKING:
    from bus.store import postgres_async, sqlite_async

T = TypeVar("T")


class Connection(Protocol):
    """One connection to a bus, for one thread at a time."""

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction; repeat it whole while the bus is busy and time is left."""

    def listen(self, bells: Sequence[str]) -> Waiting:
        """Hear these doorbells from now on."""

    def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""

    def sizes(self) -> dict[str, int]:
        """Of what takes room on the disk, in bytes."""

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the bus, online, into a new file."""

    def tidy(self) -> None:
        """Do what is good to do now and then."""

    def close(self) -> None:
        """Close it. Idempotent."""


@contextmanager
def _psycopg() -> Iterator[None]:
    try:
        yield
    except ImportError as problem:
        hint = f"{sys.executable} -m pip install 'psycopg[binary]>=3.2.1'"
        raise error("usage", "PostgreSQL needs psycopg, which is not installed", hint) from problem


def connection(url: Place, create: bool = False, read_only: bool = False) -> Connection:
    """A connection to the bus at `url`; `create` makes the bus when it is missing, `read_only` can change nothing."""
    if not isinstance(url, Server):
        return sqlite.Connection(url, create, read_only)
    with _psycopg():
        from bus.store import postgres
    return postgres.Connection(url, create, read_only)


async def asynchronous(url: Place, create: bool = False) -> sqlite_async.Store | postgres_async.Store:
    """The async store of the bus at `url`."""
    if isinstance(url, Server):
        with _psycopg():
            from bus.store import postgres_async
        return await postgres_async.Store.open(url, create)
    from bus.store import sqlite_async

    return await sqlite_async.Store.open(url, create)
