"""Rows that somebody planted past the clients: what can be read of them is read."""

from datetime import datetime, timezone

import msgspec

from bus import inputs, salvage


class Record(msgspec.Struct):
    name: str
    at: datetime
    ended: datetime | None
    things: list[str]
    any: object = None


GOOD = '{"name":"a","at":"2026-01-01T00:00:00Z","ended":null,"things":["x"],"any":{"b":1}}'


def test_a_good_record_is_read_as_it_is() -> None:
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert salvage.record(GOOD, Record) == Record("a", moment, None, ["x"], {"b": 1})


def test_what_does_not_fit_is_left_out() -> None:
    found = salvage.record('{"name":5,"at":"yesterday","ended":"soon","things":[[1]],"any":[2]}', Record)
    assert found == Record("", datetime(1, 1, 1, tzinfo=timezone.utc), None, [], [2])


def test_lone_surrogates_and_bytes_that_are_no_utf8_are_shown_as_such() -> None:
    assert salvage.record(GOOD.replace('"a"', '"\\ud800"'), Record).name == "\ufffd"
    assert salvage.record(GOOD.replace('"a"', '"\udcff"'), Record).name == "\ufffd"
    assert salvage.record(GOOD.replace('"a"', '"\\ud83d\\ude00 \\udc00"'), Record).name == "\U0001f600 \ufffd"


def test_what_lies_too_deep_is_null() -> None:
    found = salvage.record(GOOD.replace('{"b":1}', "[" * 200_000 + "]" * 200_000), Record).any
    depth = 0
    while found:
        found, depth = found[0], depth + 1  # type: ignore[index]
    assert found is None
    assert 50 < depth < 70


def test_an_object_that_lies_too_deep_is_null() -> None:
    found = salvage.document('{"a":' * 100 + "1" + "}" * 100)
    depth = 0
    while found:
        found, depth = found["a"], depth + 1
    assert (found, depth) == (None, inputs.DEPTH)


def test_what_is_no_json_at_all_is_nothing() -> None:
    assert salvage.document("{") is None
    assert salvage.document('{"a":1e999}') == {"a": None}
