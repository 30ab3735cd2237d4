"""A whole bus copied into another one, of whatever kind: every table, every column, ids and moments as they were.

The reader sees one snapshot, and goes on being used meanwhile; what it read goes through a file. The target gets all of
it in one transaction, which reads it back before it commits: the digest of every table must be that of the source.

The texts, `copying/take_TABLE` and `copying/put_TABLE`, are made by bin/generate from `TABLES`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple, Self

import msgspec

from bus import payloads
from bus.errors import Refused, error
from bus.operation import Load, Query, Row, Statement, Steps, reading, writing

CHUNK = 1000  # rows at a time
KEYS = "abc"
LEAST = -(1 << 63)  # of the whole numbers
FORMAT = "%Y-%m-%d %H:%M:%f"


class Table(NamedTuple):
    """A table's columns, kind before them: `n` whole numbers, `f` numbers, `m` moments, `t` text and JSON. The first
    `keys` of them say which row it is. `owned`: the database gives the first one's numbers, unless it is told."""

    columns: str
    keys: int = 1
    owned: bool = False

    def pairs(self) -> list[tuple[str, str]]:
        """Kind and name of each column."""
        return [(word[0], word[2:]) for word in self.columns.split()]


# In the order in which they are put: types before what is of a type; sessions after what would touch their counts and
# times; the configuration last, since its limits are not those under which the rows came to be.
TABLES = {
    "agent_types": Table("t:name t:description"),
    "message_types": Table("t:name t:description t:schema"),
    "state_types": Table("t:name t:description"),
    "operation_types": Table("t:name t:description t:artifacts"),
    "milestones": Table("t:id t:title t:status n:priority t:data m:created_at m:updated_at"),
    "agent_registry": Table(
        "t:agent_id t:agent_type t:milestone_id t:session_id t:status t:capabilities t:current_task t:current_phase"
        " t:resource_usage m:spawn_time m:last_heartbeat m:completion_time t:error_info t:host n:pid t:pid_namespace"
        " n:process_started_at t:boot_id t:command"
    ),
    "agent_messages": Table(
        "n:id t:session_id t:from_agent t:to_agent t:message_type n:priority t:status m:created_at m:delivered_at"
        " m:acknowledged_at n:retry_count m:due_at m:expires_at t:leased_by n:delivery t:idempotency_key"
        " t:correlation_id n:reply_to t:dead_reason t:reason t:digest t:payload t:traceparent",
        owned=True,
    ),
    "agent_state": Table(
        "t:agent_id t:state_key t:state_type n:version m:created_at m:updated_at m:expires_at t:state_value", keys=2
    ),
    "agent_checkpoints": Table(
        "n:rowid t:checkpoint_id t:agent_id t:session_id t:checkpoint_type t:parent_id m:created_at m:retention_until"
        " t:file_references t:state_snapshot",
        owned=True,
    ),
    "agent_health_log": Table(
        "n:id t:agent_id t:health_status f:cpu_usage f:memory_usage f:response_time n:error_count n:warning_count"
        " m:timestamp t:details",
        owned=True,
    ),
    "agent_lifecycle": Table(
        "n:agent_id n:pid t:agent_type t:task_id t:task_type t:priority_number m:spawned_at m:started_at m:completed_at"
        " t:status n:exit_code n:duration_ms n:idle_time_ms t:command t:worktree_path t:error_message t:metadata"
        " t:registry_id t:session_id t:host t:pid_namespace n:process_started_at t:boot_id m:last_seen_at n:unseen"
        " t:origin t:output_tail t:traceparent",
        owned=True,
    ),
    "trace_exports": Table("t:target n:message_id n:life_id t:holder n:exported m:updated_at"),
    "trace_exports_pending": Table("t:target t:kind n:id n:delivery", keys=3),
    "coordination_sessions": Table(
        "t:session_id t:milestone_id t:operation_type t:phase t:coordinator_id n:agent_count f:progress t:status"
        " t:configuration m:created_at m:last_activity m:completed_at"
    ),
    "agent_coordination_config": Table("t:key t:value t:description m:updated_at"),
}


class Digest(msgspec.Struct, frozen=True):
    """A table: how many rows it has, and the SHA-256 of them all in the order of their keys."""

    table: str
    rows: int
    sha256: str


class Copied(msgspec.Struct, frozen=True):
    """What was copied: the tables as they were read, and as they stand in the target."""

    source: list[Digest]
    target: list[Digest]


class Spool:
    """What was read, on the disk: a line for each row, under the table's name. And the last ids that were given."""

    def __init__(self) -> None:
        self.given: dict[str, int] = {}
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by __exit__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def begin(self) -> None:
        """Forget what is in it."""
        self._file.seek(0)
        self._file.truncate()

    def add(self, table: str, lines: list[bytes]) -> None:
        """Add rows of a table."""
        self._file.writelines(b"%s %s\n" % (table.encode(), line) for line in lines)

    def chunks(self) -> Iterator[tuple[str, list[Row]]]:
        """The rows, some of one table at a time."""
        self._file.seek(0)
        table, rows = "", list[Row]()
        for line in self._file:
            name, _, row = line.partition(b" ")
            if rows and (name.decode() != table or len(rows) == CHUNK):
                yield table, rows
                rows = []
            table = name.decode()
            rows.append(tuple(json.loads(row)))
        if rows:
            yield table, rows


@reading
def take(spool: Spool) -> Steps[list[Digest]]:
    """Read a whole bus into a spool; the digest of each table."""
    spool.begin()
    spool.given = dict((yield Query("copying/given", {})))
    found = []
    for name in TABLES:
        found.append((yield from _digest(name, spool)))
    return found


def _digest(name: str, spool: Spool | None) -> Steps[Digest]:
    digest, rows = hashlib.sha256(), 0
    keys = TABLES[name].keys
    start: Row = tuple("" if kind == "t" else LEAST for kind, _ in TABLES[name].pairs()[:keys])
    while True:
        parameters = {f"from_{letter}": value for letter, value in zip(KEYS, start, strict=False)}
        # One more than a chunk: the next one begins with it. So the first can begin with the least key that there is.
        found = yield Query(f"copying/take_{name}", {**parameters, "limit": CHUNK + 1})
        lines = [_line(name, row) for row in found][:CHUNK]
        digest.update(b"".join(line + b"\n" for line in lines))
        rows += len(lines)
        if spool:
            spool.add(name, lines)
        if len(found) <= CHUNK:
            return Digest(name, rows, digest.hexdigest())
        start = found[CHUNK][:keys]


def _line(name: str, row: Row) -> bytes:
    if not any("\0" in value for value in row if isinstance(value, str)):
        with suppress(UnicodeEncodeError):
            return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()
    key = ", ".join(map(repr, row[: TABLES[name].keys]))
    raise error("damaged", f"the row {key} of {name} is not UTF-8 text without NUL", "put it right, or remove it")


@writing
def put(spool: Spool, taken: list[Digest]) -> Steps[Copied]:
    """Write what was taken into a bus that has nothing in it yet, all or none. Raises `not_empty`."""
    ((rows,),) = yield Query("copying/rows", {})
    if rows:
        raise error("not_empty")
    for name, *_ in (yield from _rows("message_types")):
        yield Statement(payloads.drop(name))
    yield Query("copying/empty", {})
    for name, chunk in spool.chunks():
        columns = [column for _, column in TABLES[name].pairs()]
        with _naming(name):
            yield Load(f"copying/put_{name}", [dict(zip(columns, row, strict=True)) for row in chunk])
    for name, _, schema in (yield from _rows("message_types")):
        with _naming(f"the message type {name}"):
            yield Statement(payloads.triggers(name, json.loads(schema)))
    yield Query("copying/finish", spool.given)
    return Copied(taken, (yield from _verified(taken)))


def _rows(name: str) -> Steps[list[Row]]:
    found: list[Row] = yield Query(f"copying/take_{name}", {"from_a": "", "limit": 1_000_000})
    return found


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say of what is refused what it is."""
    try:
        yield
    except Refused as problem:
        raise error(problem.code, f"{what} can't be copied: {problem.message}", problem.hint) from problem


def _verified(taken: list[Digest]) -> Steps[list[Digest]]:
    found = []
    for digest in taken:
        found.append((yield from _digest(digest.table, None)))
        if found[-1] != digest:
            raise error("fault", f"{digest.table} did not arrive as it was read; nothing was copied", "report it")
    return found


# --- the texts


def texts() -> dict[str, str]:
    """Path below schemas/ and text of each operation that takes or puts a table."""
    made = {}
    for name, table in TABLES.items():
        made[f"operations/copying/take_{name}.sql"] = _taking(name, table)
        made[f"operations/copying/put_{name}.sql"] = _putting(name, table)
    return made


def _taking(name: str, table: Table) -> str:
    columns = ",\n  ".join(_taken(kind, column) for kind, column in table.pairs())
    keys = [column for _, column in table.pairs()[: table.keys]]
    start = [_put_value(kind, f"from_{KEYS[n]}") for n, (kind, _) in enumerate(table.pairs()[: table.keys])]
    behind = f"({', '.join(keys)}) >= ({', '.join(start)})" if table.keys > 1 else f"{keys[0]} >= {start[0]}"
    return (
        f"-- Made by bin/generate: the rows of {name} from a key on, by their keys; see bus/copying.py.\n"
        f"select\n  {columns}\nfrom {name}\nwhere {behind}\norder by {', '.join(keys)} limit :limit;\n"
    )


def _putting(name: str, table: Table) -> str:
    columns = ", ".join(column for _, column in table.pairs())
    values = ",\n  ".join(_put_value(kind, column) for kind, column in table.pairs())
    told = " /*postgres overriding system value */" if table.owned else ""
    return (
        f"-- Made by bin/generate: puts a row into {name}, as it was taken; see bus/copying.py.\n"
        f"insert into {name} ({columns}){told} values (\n  {values});\n"
    )


def _taken(kind: str, column: str) -> str:
    if kind == "f":
        return f"{column} + 0.0"  # of the two zeros, SQLite keeps one
    return f"replace(strftime('{FORMAT}', {column}), ' ', 'T') || 'Z'" if kind == "m" else column


def _put_value(kind: str, name: str) -> str:
    casts = {"n": "cast(:{} as bigint)", "f": "cast(:{} as double precision)", "m": f"strftime('{FORMAT}', :{{}})"}
    return casts.get(kind, ":{}").format(name)
