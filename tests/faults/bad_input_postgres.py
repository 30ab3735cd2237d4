"""Bad input on PostgreSQL: the corpus at the blocking client, judged by the same oracles, with all tables compared."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg

from bus import Bus, copying
from bus.errors import BusError
from tests import servers
from tests.faults import corpus
from tests.faults.attempts import FIELDS, Field
from tests.faults.corpus import Value
from tests.faults.invariants import Breach

# What is judged by what is there, which here goes on growing.
STATEFUL = {"sender", "receiver", "receipt", "released", "reason", "id", "dead id", "lease"}
REFUSALS = (64, 65, 66, 76)


def run(furnish: Callable[[str], None], chance: random.Random, share: float) -> int:
    """A share of the corpus; how many inputs."""
    name, count = f"bus_{uuid.uuid4().hex[:12]}", 0
    with servers.any_server() as server, servers.schema(server, name) as url:
        furnish(url)
        with Bus.open(url) as bus, psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"set search_path to {name}")
            for field in FIELDS:
                for value in (*corpus.CORPUS[field.like], *corpus.OBJECTS):
                    if field.name not in STATEFUL and value != "*" and chance.random() < share:
                        _judge(bus, connection, field, value)
                        count += 1
    return count


def _judge(bus: Bus, connection: psycopg.Connection[Any], field: Field, value: Value) -> None:
    before = _dump(connection)
    readable = field.name in ("payload", "snapshot") or not isinstance(value, bytes)
    text = corpus.text_of(value)
    fits = (False if isinstance(value, str | bytes) else None) if text is None else field.fits(text)
    try:
        field.library(bus, value if readable else value.decode("utf-8", "surrogateescape"))
        told = "" if fits is not False else "it was accepted"
    except BusError as problem:
        told = _refusal(problem, fits)
        if not told and _dump(connection) != before:
            told = f"it was refused ({problem.code}), and changed something"
    except Exception as problem:
        told = f"it was answered by {problem!r}"
    if told:
        raise Breach([f"PostgreSQL, {field.name} = {value!r:.160}: {told[:300]}"])


def _refusal(problem: BusError, fits: bool | None) -> str:
    if problem.exit_status not in REFUSALS:
        return f"its exit status was {problem.exit_status}: {problem}"
    return f"it was refused: {problem}" if fits else ""


def _dump(connection: psycopg.Connection[Any]) -> dict[str, Counter[str]]:
    return {
        table: Counter(row for (row,) in connection.execute(f"select t::text from {table} t"))
        for table in copying.TABLES
    }
