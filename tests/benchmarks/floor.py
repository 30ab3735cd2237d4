"""The floor: what SQLite itself takes for a bare insert, a bare claiming update and a bare delete, a commit each."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.benchmarks.contestant import Contestant, body, number

bytes(16 << 20)  # glibc keeps the heap that SQLite's temporary tables use, as for the bus: see bus/store/sqlite.py

TABLE = "create table if not exists queue (id integer primary key, taken integer not null default 0, payload text)"
PUT = "insert into queue (payload) values (?)"
CLAIM = """update queue set taken = 1 where id = (select id from queue where taken = 0 order by id limit 1)
returning id, payload"""
DONE = "delete from queue where id = ?"


def connect(folder: Path, mode: str) -> sqlite3.Connection:
    """A connection in autocommit and WAL mode, as bare as can be."""
    connection = sqlite3.connect(folder / "floor.db", timeout=30, isolation_level=None)
    connection.execute("pragma journal_mode = wal")
    connection.execute(f"pragma synchronous = {mode}")
    return connection


class Floor:
    """No checks, no order but the id, no index: three statements."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        self.connection = connect(folder, mode)
        self.connection.execute(TABLE)

    def put(self, number: int) -> None:
        self.connection.execute(PUT, (body(number),))

    def take(self) -> int | None:
        rows = self.connection.execute(CLAIM).fetchall()
        if not rows:
            return None
        ((id, payload),) = rows
        self.connection.execute(DONE, (id,))
        return number(payload)

    def close(self) -> None:
        self.connection.close()


FLOOR = Contestant("floor", "floor", Floor)
