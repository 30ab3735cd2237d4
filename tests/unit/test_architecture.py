"""Who imports whom, how large things are, that made files are fresh."""

import ast
import re
import sqlite3
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus import copying, errors, generated, schemas

TREE = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path for folder in ("bus", "clients/python", "clients/cli") for path in (TREE / folder).rglob("*.py"))
FORBIDDEN_NAMES = {"utils", "common", "core", "base", "helpers", "manager", "service"}
# What stands above may import what stands below it, never the other way round.
LAYERS = [
    {"bus_cli"},
    {"bus_client"},
    {"bus.api"},
    {"bus.store"},
    {"noun"},
    {"bus.operation"},
    {"bus.models"},
    {"bus.errors"},
]
BELOW_ALL = {"bus.bells", "bus.clock", "bus.schemas", "bus.databases", "bus.folders"}  # names, time and files, for all
LIBRARIES = {
    "sqlite3": {
        "bus.store.sqlite",
        "bus.store.sqlite_transaction",
        "bus.store.sqlite_schema",
        "bus.store.sqlite_async",
        "bus.store.facts",
    },
    "psycopg": {"bus.store"},
    "aiosqlite": {"bus.store.sqlite_async"},
    "click": {"bus_cli"},
    "jsonschema": {"bus.payloads"},
    "rich": {"bus_cli.columns", "bus_cli.tables", "bus_cli.top", "bus_cli.demonstration.display"},
    "opentelemetry": {"bus_cli.otlp"},
    "google": {"bus_cli.otlp"},
    "yaml": {"bus.milestones"},
}


def module(path: Path) -> str:
    for root in ("clients/python", "clients/cli", ""):
        if path.is_relative_to(TREE / root):
            return ".".join(path.relative_to(TREE / root).with_suffix("").parts).removesuffix(".__init__")
    raise AssertionError(path)


def imports(path: Path) -> Iterator[str]:
    known = {module(other) for other in SHIPPED}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in known else node.module for name in whole)


def layer(name: str) -> int | None:
    for number, members in enumerate(LAYERS):
        if any(name == member or name.startswith(f"{member}.") for member in members):
            return number
    if name in BELOW_ALL or name == "bus" or not name.startswith("bus."):
        return None
    return next(number for number, members in enumerate(LAYERS) if "noun" in members)


@pytest.mark.parametrize("path", SHIPPED, ids=module)
def test_imports_run_one_way(path: Path) -> None:
    mine = layer(module(path))
    for name in imports(path):
        theirs = layer(name)
        if mine is not None and theirs is not None and name not in BELOW_ALL:
            assert theirs >= mine, f"{module(path)} imports {name}"
        if module(path).startswith("bus.store"):
            assert theirs is None or LAYERS[theirs] != {"noun"}, f"the store imports the noun {name}"
        if name == "bus" and module(path).startswith("bus."):
            raise AssertionError(f"{module(path)} imports the whole package")


@pytest.mark.parametrize("path", SHIPPED, ids=module)
def test_libraries_are_imported_where_they_belong(path: Path) -> None:
    for name in imports(path):
        allowed = LIBRARIES.get(name.partition(".")[0])
        assert allowed is None or any(module(path) == a or module(path).startswith(f"{a}.") for a in allowed), name


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert not [path for path in SHIPPED if path.stem in FORBIDDEN_NAMES]


def lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body, its docstring not counted."""
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_sizes() -> None:
    functions: dict[str, int] = {}
    for path in SHIPPED:
        text = path.read_text("utf-8")
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[f"{module(path)}.{node.name}:{node.lineno}"] = lines(node)
            if isinstance(node, ast.ClassDef) and node.name not in ("Bus", "AsyncBus"):
                assert sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body) <= 25, (
                    node.name
                )
    sizes = sorted(functions.values())
    assert statistics.median(sizes) <= 8
    assert sizes[len(sizes) * 9 // 10] <= 25
    assert sizes[-1] <= 60, max(functions, key=lambda name: functions[name])


def test_made_files_are_those_of_their_sources() -> None:
    for name, text in generated.files(TREE / "schemas").items():
        assert (TREE / "schemas" / name).read_text("utf-8") == text, f"run bin/generate: {name}"


# --- the SQL files

OPERATIONS = sorted((TREE / "schemas" / "operations").rglob("*.sql"))


@pytest.mark.parametrize("path", OPERATIONS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_operation_is_plain_sql_that_says_what_it_does(path: Path, empty: sqlite3.Connection) -> None:
    assert path.read_text("utf-8").startswith("-- ")
    name = f"{path.parent.name}/{path.stem}"
    for statement, _ in schemas.parts(name):
        assert not re.match(r"(begin|commit|rollback|savepoint|pragma)\b", statement)
        parameters = dict.fromkeys(re.findall(r":([a-z_]+)", statement))
        empty.execute(f"explain {statement}", parameters)


def test_every_operation_is_used_and_every_query_is_there() -> None:
    text = "".join(path.read_text("utf-8") for path in SHIPPED if path.is_relative_to(TREE / "bus"))
    named = set(re.findall(r'"([a-z]+/[a-z_]+)"', text))
    named |= {f"copying/{verb}_{table}" for verb in ("take", "put") for table in copying.TABLES}
    named |= {f"types/add_{kind}" for kind in ("agent", "message", "operation", "state")}
    assert named == {f"{path.parent.name}/{path.stem}" for path in OPERATIONS}


LOOKS = [
    pytest.param(function, id=f"{path.stem}.{function.name}")
    for path in SHIPPED
    for function in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(function, ast.FunctionDef)
    and any(isinstance(decorator, ast.Name) and decorator.id == "looking" for decorator in function.decorator_list)
]


@pytest.mark.parametrize("function", LOOKS)
def test_what_looks_without_a_transaction_asks_one_statement(function: ast.FunctionDef) -> None:
    asked = [node for node in ast.walk(function) if isinstance(node, ast.Yield | ast.YieldFrom)]
    (name,) = re.findall(r"Query\('([a-z]+/[a-z_]+)'", ast.unparse(function))
    assert len(asked) == 1
    assert not any(isinstance(node, ast.For | ast.While) for node in ast.walk(function))
    (part,) = schemas.parts(name)
    assert re.match(r"(select|with)\b", part.statement)


def test_no_check_or_trigger_of_messages_makes_a_temporary_table(empty: sqlite3.Connection) -> None:
    """`in (…)` of more than two words does, and `returning`; each costs as much as a bare insert."""
    for name in ("messages/send", "messages/sources", "messages/take", "messages/finish", "state/save"):
        for statement, unless in schemas.parts(name):
            parameters = dict.fromkeys(re.findall(r":([a-z_]+)", statement))
            made = [row for row in empty.execute(f"explain {statement}", parameters) if row[1] == "OpenEphemeral"]
            assert unless or not made, (name, statement)


def test_every_code_that_sql_raises_is_in_the_catalog() -> None:
    schema = "".join(text for _, text in schemas.migrations("sqlite"))
    raised = set(re.findall(r"raise\(abort, '([a-z_]+)", schema)) | set(
        re.findall(r"constraint ([a-z_]+) check", schema)
    )
    assert raised <= set(errors.CATALOG)
    told = set(re.findall(r"when '([a-z_]+)' then raise", schema))
    refusing = "".join(path.read_text("utf-8") for path in OPERATIONS)
    used = set(re.findall(r"insert into refusals\s+select '([a-z_]+)'", refusing))
    used |= {code for pair in re.findall(r"select iif\([^,]+, '([a-z_]+)', '([a-z_]+)'\)", refusing) for code in pair}
    assert used <= told


def test_statements_are_split_at_their_semicolons() -> None:
    text = "-- a; b\nselect ';' ; /* ; */ create trigger t begin select case when 1 then 2 end; end; select 1"
    assert schemas.split(text) == [
        "select ';'", "create trigger t begin select case when 1 then 2 end; end", "select 1",
    ]  # fmt: skip
