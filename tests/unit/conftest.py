"""What the tests of modules share."""

import sqlite3
from collections.abc import Iterator

import pytest

from bus import schemas


@pytest.fixture(scope="module")
def empty() -> Iterator[sqlite3.Connection]:
    """A database with the tables of a bus, and nothing in them but what they are made with."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for _, text in schemas.migrations("sqlite"):
        connection.executescript(text)
    yield connection
    connection.close()
