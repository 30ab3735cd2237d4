"""What can be told of a bus on PostgreSQL from outside: its server, and who holds its tables and rows."""

from __future__ import annotations

import psycopg

from bus.operation import Row
from bus.store.facts import Fact
from bus.store.url import Server

PATIENCE = 5  # seconds that the others wait before they are told `busy`
TURN = 1  # seconds that somebody waits when it is no longer the usual turn
SHOWN = 5  # holders that are told
# Who only reads is in nobody's way, nor is a vacuum. Everybody may see who has which lock, and the name of the program;
# the rest of what another role does is for roles that may read statistics. What is prepared has no process, but 0.
HOLDERS = """
select held.pid,
  concat_ws(', ', coalesce(nullif(a.application_name, ''), 'a program'), 'role ' || a.usename,
    'at ' || host(a.client_addr)),
  a.state like 'idle in transaction%' as rests,
  extract(epoch from clock_timestamp() - a.xact_start)::int as seconds,
  waiting.number,
  coalesce(waiting.seconds, 0)
from (
    select distinct coalesce(pid, 0) as pid from pg_locks
    where granted and locktype = 'relation'
      and database = (select oid from pg_database where datname = current_database())
      and relation in (select oid from pg_class where relnamespace = to_regnamespace($1))
      and mode not in ('AccessShareLock', 'ShareUpdateExclusiveLock')
      and pid is distinct from pg_backend_pid()
  ) held
  left join pg_stat_activity a on a.pid = held.pid
  cross join lateral (
    select count(distinct pid) as number, extract(epoch from clock_timestamp() - min(waitstart))::int as seconds
    from pg_locks where not granted and held.pid = any(pg_blocking_pids(pid))
  ) waiting
order by waiting.number desc, seconds desc nulls last"""


def facts(driver: psycopg.Connection[Row], url: Server) -> list[Fact]:
    """Server and size; the library; who holds tables or rows of the bus."""
    version = driver.info.parameter_status("server_version") or ""
    holders = driver.execute(HOLDERS, [f'"{url.schema}"']).fetchall()
    return [
        ("bus", "ok", f"{url.path}, {sizes(driver)['database']} bytes in its database"),
        ("library", "ok", f"PostgreSQL {version.partition(' ')[0]}, psycopg {psycopg.__version__}"),
        *(_writer(*holder) for holder in holders[:SHOWN]),
        *([] if holders else [("writer", "ok", "nobody holds tables or rows")]),
    ]


def sizes(driver: psycopg.Connection[Row]) -> dict[str, int]:
    """Of what takes room on the disk, in bytes."""
    ((size,),) = driver.execute("select pg_database_size(current_database())").fetchall()
    return {"database": size}


def _writer(pid: int, whose: str, rests: bool | None, seconds: int | None, waiting: int, waited: int) -> Fact:
    """Who is in a transaction that changes the bus: at most some milliseconds, if it is the bus's own."""
    long = (seconds or 0) >= PATIENCE
    verdict = "fault" if waited >= TURN or (long and rests) else "warning" if long else "ok"
    who = f"process {pid} of the server ({whose})" if pid else "a prepared transaction (see pg_prepared_xacts)"
    words = f"{who} holds tables or rows"
    if seconds is not None:
        words += f", since {seconds} s"
    if waiting:
        words += f"; {waiting} wait for it"
    if pid and verdict != "ok":
        words += f"; let it end, or end it: select pg_terminate_backend({pid})"
    return ("writer", verdict, words)
