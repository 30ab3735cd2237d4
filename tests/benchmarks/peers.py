"""Embedded queues on SQLite from PyPI, each used as its documentation says. Extra `bench` of pyproject.toml."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path
from typing import Any

from tests.benchmarks.contestant import Contestant, body, number


class Litequeue:
    """litequeue: put, pop, done."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        from litequeue import LiteQueue

        self.queue: Any = LiteQueue(folder / "litequeue.db", timeout=30)
        self.queue.conn.execute(f"pragma synchronous = {mode}")

    def put(self, number: int) -> None:
        self.queue.put(body(number))

    def take(self) -> int | None:
        message = self.queue.pop()
        if message is None:
            return None
        self.queue.done(message.message_id)
        return number(message.data)

    def close(self) -> None:
        self.queue.close()


class PersistQueue:
    """persist-queue: put, get, ack of SQLiteAckQueue."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        from persistqueue import Empty, SQLiteAckQueue

        self.empty = Empty
        # auto_resume would hand out again what other processes have in hand.
        self.queue: Any = SQLiteAckQueue(
            str(folder / "persist-queue"), auto_resume=False, multithreading=True, timeout=30
        )
        for connection in {self.queue._putter, self.queue._getter}:
            connection.execute(f"pragma synchronous = {mode}")

    def put(self, number: int) -> None:
        self.queue.put(body(number))

    def take(self) -> int | None:
        with contextlib.suppress(self.empty):
            payload = self.queue.get(block=False)
            self.queue.ack(payload)
            return number(payload)
        return None

    def close(self) -> None:
        self.queue.close()


class Huey:
    """huey's SqliteStorage: enqueue, dequeue."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        from huey.storage import SqliteStorage

        self.storage: Any = SqliteStorage(filename=str(folder / "huey.db"), timeout=30)
        self.storage.conn.execute(f"pragma synchronous = {mode}")

    def put(self, number: int) -> None:
        self.storage.enqueue(body(number).encode())

    def take(self) -> int | None:
        payload = self.storage.dequeue()
        return None if payload is None else number(bytes(payload))

    def close(self) -> None:
        self.storage.close()


KNOWN = {
    "litequeue": Contestant("litequeue", "peer", Litequeue),
    "persistqueue": Contestant("persist-queue", "peer", PersistQueue, note="hands a message to two processes at times"),
    "huey": Contestant("huey", "peer", Huey, note="deletes when it hands out: two commits, no acknowledgement"),
}


def installed() -> list[Contestant]:
    """Those that can be imported here."""
    return [contestant for module, contestant in KNOWN.items() if importlib.util.find_spec(module)]
