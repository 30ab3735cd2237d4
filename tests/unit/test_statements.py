"""Statements with numbered parameters."""

import pytest

from bus import schemas
from bus.store import sqlite_statements


def test_words_in_quotes_are_no_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "select :b, ':a', 'it''s :c', :a, :b"
    monkeypatch.setattr(schemas, "parts", lambda name: (schemas.Part(text),))
    (prepared,) = sqlite_statements.operation("of a test")
    assert prepared.sql == "select ?1, ':a', 'it''s :c', ?2, ?1"
    assert prepared.values({"a": 1, "b": 2, "c": 3}) == (2, 1)
