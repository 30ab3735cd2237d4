"""Empty buses, which tests need by the thousand: to make one takes ten times as long as what most do with it.

A file is a copy of one that was made. A schema on PostgreSQL is used again without what a test has written, unless that
has changed more than the rows of tables that were empty: a type, a setting, a trigger by hand.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psycopg

from bus import Bus

Hand = psycopg.Connection[tuple[object, ...]]

# All that there is in a schema but the rows of the tables that were empty, each with the transaction that wrote it.
THERE = """
select string_agg(found, ' ' order by found) from (
  select concat('namespace', oid, '/', xmin, nspacl) from pg_namespace where oid = {0}
  union all select concat('function', oid, '/', xmin) from pg_proc where pronamespace = {0}
  union all select concat('type', oid, '/', xmin) from pg_type where typnamespace = {0}
  union all select concat('constraint', oid, '/', xmin) from pg_constraint where connamespace = {0}
  union all select concat('relation', oid, '/', relacl, reloptions) from pg_class where relnamespace = {0}
  union all select concat('trigger', t.oid, '/', t.xmin) from pg_trigger t join pg_class c on c.oid = tgrelid
    where relnamespace = {0}
  union all select concat('column', attrelid, '.', attnum, '/', a.xmin) from pg_attribute a
    join pg_class c on c.oid = attrelid where relnamespace = {0}
  {1}) present (found)"""
FILLED = """
select oid::regclass::text from pg_class where relnamespace = {0} and relkind = 'r' and pg_relation_size(oid) > 0"""
COUNT_ANEW = """
select setval(seqrelid::regclass, seqstart, false) from pg_sequence join pg_class c on c.oid = seqrelid
where relnamespace = {0}"""


def file(path: str | Path) -> str:
    """Make an empty bus there; its path."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as made:
        made.write(_file())
    return str(path)


@cache
def _file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "coordination.db")
        Bus.open(path, create=True).close()
        return path.read_bytes()


@dataclass
class Schema:
    """An empty bus on a server, with what was in it when it was made."""

    name: str
    address: str
    filled: list[str]  # the tables that have rows
    there: str

    def emptied(self, hand: Hand) -> bool:
        """Take out what was written since; false when something else was changed."""
        if _there(hand, self.name, self.filled) != self.there:
            return False
        if written := set(_filled(hand, self.name)) - set(self.filled):
            hand.execute(f"truncate {', '.join(written)}".encode())
        _ask(hand, COUNT_ANEW, self.name)
        return True


_free: dict[str, list[Schema]] = defaultdict(list)  # by server


@contextmanager
def schema(server: str) -> Iterator[str]:
    """The address of an empty bus on a server."""
    found = _free[server].pop() if _free[server] else _made(server)
    yield found.address
    with psycopg.connect(server, autocommit=True) as hand:
        if found.emptied(hand):
            _free[server].append(found)
        else:
            _drop(hand, found.name)


def drop(server: str) -> None:
    """Drop all that were made on a server."""
    with psycopg.connect(server, autocommit=True) as hand:
        for free in _free.pop(server, []):
            _drop(hand, free.name)


def _made(server: str) -> Schema:
    name = f"bus_{uuid.uuid4().hex[:12]}"
    address = f"{server}{'&' if '?' in server else '?'}schema={name}"
    Bus.open(address, create=True).close()
    with psycopg.connect(server, autocommit=True) as hand:
        filled = _filled(hand, name)
        return Schema(name, address, filled, _there(hand, name, filled))


def _there(hand: Hand, name: str, filled: list[str]) -> str:
    rows = [f"union all select concat('{table}', ctid, '/', xmin) from {table}" for table in filled]
    return str(_ask(hand, THERE.replace("{1}", "\n".join(rows)), name)[0][0])


def _filled(hand: Hand, name: str) -> list[str]:
    return [str(table) for (table,) in _ask(hand, FILLED, name)]


def _ask(hand: Hand, query: str, name: str) -> list[tuple[object, ...]]:
    return hand.execute(query.replace("{0}", f"'{name}'::regnamespace").encode()).fetchall()


def _drop(hand: Hand, name: str) -> None:
    hand.execute("set client_min_messages = warning")
    hand.execute(f"drop schema if exists {name} cascade".encode())
