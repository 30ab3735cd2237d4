"""The schema of a bus on PostgreSQL: found, made, brought to this version."""

from __future__ import annotations

from contextlib import nullcontext

import psycopg

from bus import schemas
from bus.errors import error
from bus.operation import Row
from bus.store.url import Server


def prepare(connection: psycopg.Connection[Row], url: Server, create: bool, read_only: bool = False) -> None:
    """Set the search path to the bus; make or upgrade its tables. Raises `no_bus`, `not_a_bus`, `newer_bus`,
    `not_allowed`.

    Behind a pooler it is one transaction, and the path is set for that alone.
    """
    with nullcontext() if url.listen else connection.transaction():
        connection.execute("select set_config('search_path', $1, $2)", [path(url), not url.listen])
        _bring(connection, url, create, read_only)


def path(url: Server) -> str:
    """The search path of a bus."""
    return f'"{url.schema}", pg_temp'


def _bring(connection: psycopg.Connection[Row], url: Server, create: bool, read_only: bool) -> None:
    quoted = f'"{url.schema}"'
    if (encoding := connection.info.parameter_status("server_encoding")) != "UTF8":
        words = f"the database {url.path} keeps text as {encoding}"
        raise error("not_a_bus", words, "make one with: create database … encoding 'UTF8' template template0")
    version = _version(connection, quoted)
    steps = schemas.migrations("postgres")
    if version is None and not create:
        raise error("no_bus", f"there is no bus in the schema {url.schema} of {url.path}")
    if version is not None and version > steps[-1][0]:
        raise error("newer_bus", f"{url.path} was made by a newer version ({version}, this one knows {steps[-1][0]})")
    if read_only and version is not None and version < steps[-1][0]:
        raise error("older_bus", f"{url.path} was made by an older version ({version}, this one knows {steps[-1][0]})")
    if version is None or version < steps[-1][0]:
        _migrate(connection, url, quoted, steps)


def _version(connection: psycopg.Connection[Row], quoted: str) -> int | None:
    """The number of its last migration, or None when there is no bus."""
    ((there,),) = connection.execute("select to_regclass($1) is not null", [f"{quoted}.bus_migrations"]).fetchall()
    if not there:
        return None
    ((number,),) = connection.execute("select max(number) from bus_migrations").fetchall()
    return int(number or 0)


def _migrate(connection: psycopg.Connection[Row], url: Server, quoted: str, steps: list[tuple[int, str]]) -> None:
    """What is missing, in one transaction; others who begin at the same time wait, and find it done."""
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 65))", [url.schema])
        ((there,),) = connection.execute("select to_regnamespace($1) is not null", [quoted]).fetchall()
        if not there:
            connection.execute(f"create schema {quoted}")
        version = _version(connection, quoted)
        if version is None:
            connection.execute(
                "create table bus_migrations ("
                "number integer primary key, applied_at timestamptz not null default clock_timestamp())"
            )
        for number, text in steps:
            if number > (version or 0):
                connection.execute(text)
                connection.execute("insert into bus_migrations (number) values ($1)", [number])
