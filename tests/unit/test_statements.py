"""Statements with numbered parameters."""

import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bus import Bus, schemas
from bus.store import sqlite, sqlite_statements


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as connection:
        yield connection


@pytest.mark.parametrize(
    ("warned_of", "sql"),
    [(False, "select ?1, ':a', 'it''s :c', ?2, ?1"), (True, "select ?, ':a', 'it''s :c', ?, ?")],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_words_in_quotes_are_no_parameters(
    monkeypatch: pytest.MonkeyPatch, connection: sqlite3.Connection, warned_of: bool, sql: str
) -> None:
    monkeypatch.setattr(sqlite_statements, "_WARNED_OF", warned_of)
    prepared = sqlite_statements._prepared(schemas.Part("select :b, ':a', 'it''s :c', :a, :b"))
    assert prepared.sql == sql
    values = prepared.values({"a": 1, "b": 2, "c": 3})
    assert connection.execute(sql, values).fetchall() == [(2, ":a", "it's :c", 1, 2)]


def test_no_python_warns_of_the_parameters_that_it_gets(connection: sqlite3.Connection) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        connection.execute("select ?1", (1,))
    assert bool(warned) == sqlite_statements._WARNED_OF


def test_no_pragma_is_asked_like_a_table_with_a_number() -> None:
    """In SQLite 3.53 `pragma_quick_check(3)` looks at a table named 3."""
    files = Path(schemas.root(), "operations").rglob("*.sql")
    asked = [file.name for file in files if re.search(r"pragma_\w+\(", file.read_text())]
    assert asked == []


def test_one_statement_of_an_operation_returns_rows_at_most() -> None:
    """SQLite's stores put the rows of all together, PostgreSQL's take those of the last that has some."""

    class Any(dict[str, object]):
        def __missing__(self, name: str) -> None:
            return None

    with Bus.open(":memory:", create=True) as bus:
        connection = bus.store.connection()
        assert isinstance(connection, sqlite.Connection)
        execute = connection.sqlite.execute
        for path in sorted(Path(schemas.root(), "operations").glob("*/*.sql")):
            name = f"{path.parent.name}/{path.stem}"
            plans = [execute(f"explain {part.statement}", Any()).fetchall() for part in schemas.parts(name)]
            assert sum(any(row[1] == "ResultRow" for row in plan) for plan in plans) <= 1, name
