"""What a file is when it is opened: refused when it is no bus of ours, made or upgraded when it is old."""

from __future__ import annotations

import sqlite3
import time

from bus import schemas
from bus.errors import error
from bus.store.url import MEMORY, Url

APPLICATION_ID = 1098146163


def prepare(connection: sqlite3.Connection, url: Url, timeout: float, read_only: bool = False) -> None:
    """Refuse a file that is not a bus; make or upgrade the tables."""
    (found,) = connection.execute("pragma application_id").fetchone()
    (version,) = connection.execute("pragma user_version").fetchone()
    newest = schemas.newest("sqlite")
    if found not in (0, APPLICATION_ID) or (found == 0 and not _empty(connection)):
        if _was_made_meanwhile(connection):
            return prepare(connection, url, timeout, read_only)
        raise error("not_a_bus", f"{url.path} belongs to another application")
    if version > newest:
        raise error("newer_bus", f"{url.path} was made by a newer version ({version}, this one knows {newest})")
    if read_only:
        if version < newest:
            raise error("older_bus", f"{url.path} was made by an older version ({version}, this one knows {newest})")
        return None
    if found == 0:
        connection.execute("pragma page_size = 1024")  # a commit writes some seven pages, whatever changes in them
        connection.execute("pragma auto_vacuum = incremental")
    if url.path != MEMORY and connection.execute("pragma journal_mode").fetchone() != ("wal",):
        _switch_to_wal(connection, timeout)
    for number, text in schemas.migrations("sqlite") if version < newest else []:
        if number > version:
            _migrate(connection, number, text)
    return None


def _empty(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("select count(*) = 0 from sqlite_schema").fetchone()[0])


def _was_made_meanwhile(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("pragma application_id").fetchone()[0] == APPLICATION_ID)


def _switch_to_wal(connection: sqlite3.Connection, timeout: float) -> None:
    """Into WAL mode; the switch itself may be told "locked" at once, whatever the busy timeout."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            connection.execute("pragma journal_mode = wal").fetchall()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _migrate(connection: sqlite3.Connection, number: int, text: str) -> None:
    """One migration in one transaction; done already, by another process, is done."""
    connection.execute("begin immediate")
    try:
        if connection.execute("pragma user_version").fetchone()[0] < number:
            for statement in schemas.split(text):
                connection.execute(statement)
            connection.execute(f"pragma user_version = {number}")
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise
