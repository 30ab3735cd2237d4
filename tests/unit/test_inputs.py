"""What callers give: durations, receipts, ids, documents."""

import itertools
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import BusError, inputs, lifecycle
from tests.conformance.refusal import refused


@pytest.mark.parametrize(
    ("given_", "seconds"),
    [
        ("30s", 30), ("5m", 300), ("2h", 7200), ("7d", 604800), ("500ms", 0.5), ("90", 90), ("0", 0), ("0.5", 0.5),
        (".5s", 0.5), ("1.", 1), (" 5s ", 5), (0, 0), (1.5, 1.5), (100 * 366 * 86400, 100 * 366 * 86400),
        (timedelta(minutes=2), 120),
    ],
)  # fmt: skip
def test_a_duration_is_so_many_seconds(given_: inputs.Duration, seconds: float) -> None:
    assert inputs.duration(given_) == seconds
    assert inputs.duration(None) is None


@pytest.mark.parametrize(
    "given_",
    [
        "", " ", "s", ".", ".s", "-1s", "+1s", "1w", "1y", "1S", "1 s", "1s1s", "1h30m", "1e3", "1_000", "0x10", "nan",
        "inf", "٣s", "½", "1,5", "9" * 400, "36601d", -1, -0.001, float("nan"), float("inf"), 1e12, True, False,
    ],
)  # fmt: skip
def test_what_is_no_duration_is_usage(given_: str | float) -> None:
    with refused("usage", 64):
        inputs.duration(given_)


@pytest.mark.parametrize("given_", [[], {}, b"5s", object(), timedelta(days=-1), Decimal(3)])
def test_a_duration_of_another_kind_is_usage(given_: object) -> None:
    with refused("usage", 64):
        inputs.duration(given_)  # type: ignore[arg-type]


def test_a_lease_lasts_a_millisecond_at_least() -> None:
    assert inputs.lease(0.001) == 0.001
    assert inputs.lease(None) is None
    for short in (0, 0.0004, "0.9ms"):
        with refused("usage", 64):
            inputs.lease(short)


@given(st.text(max_size=12))
def test_any_text_is_a_duration_or_usage(text: str) -> None:
    try:
        found = inputs.duration(text)
    except BusError as problem:
        found = None if problem.code == "usage" else -1
    assert found is None or 0 <= found <= inputs.LONGEST


def test_receipts_are_one_or_several() -> None:
    assert json.loads(inputs.receipts("42.3")) == ["42.3"]
    assert json.loads(inputs.receipts(["1.1", "2.1"])) == ["1.1", "2.1"]
    assert json.loads(inputs.receipts(receipt for receipt in ("1.1",))) == ["1.1"]


@pytest.mark.parametrize(
    "given_", ["", "1", "1.", ".1", "1.1 ", "-1.1", "1.1\n", [], [""], [7], [None], ["1.1", 2], b"1.1"]
)
def test_what_is_no_receipt_is_usage(given_: object) -> None:
    with refused("usage", 64):
        inputs.receipts(given_)  # type: ignore[arg-type]


@pytest.mark.parametrize("given_", [5, None, 1.1, True])
def test_receipts_of_another_kind_are_usage(given_: object) -> None:
    with refused("usage", 64):
        inputs.receipts(given_)  # type: ignore[arg-type]


@pytest.mark.parametrize("given_", ["", "-1", "1.0", " 1", "1\n", "x", "٣", "9" * 19, None, 1.0, True, [1]])
def test_what_is_no_message_id_is_usage(given_: object) -> None:
    with refused("usage", 64):
        inputs.message_id(given_)  # type: ignore[arg-type]


def test_ids_are_one_or_several() -> None:
    assert inputs.message_ids("12") == inputs.message_ids(12) == inputs.message_ids(["12"]) == [12]
    assert inputs.message_ids(id for id in (1, "2")) == [1, 2]
    for given_ in (b"12", 1.5, True, None, [[1]], "1 2"):
        with refused("usage", 64):
            inputs.message_ids(given_)  # type: ignore[arg-type]


def test_ids_and_receipts_have_18_digits_at_most() -> None:
    longest = "9" * 18
    assert inputs.message_id(longest) == int(longest)
    assert inputs.receipt_list(f"{longest}.{longest}") == [f"{longest}.{longest}"]


def test_a_refused_id_is_said_to_be_of_what_was_asked_for() -> None:
    with pytest.raises(BusError, match="not a record id: 'seven'"):
        lifecycle.record_id("seven")


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def test_documents_are_64_deep_at_most() -> None:
    assert inputs.document(nested(64)) == nested(64)
    with refused("invalid_json", 65):
        inputs.document(nested(65))
    with refused("invalid_json", 65):
        inputs.document('{"a":' * 65 + "1" + "}" * 65)
    assert inputs.document('{"a": "' + nested(500) + '\\"' + nested(500) + '"}')
    assert inputs.document("[" + ",".join(["[]"] * 500) + "]")
    value: object = []
    for _ in range(64):
        value = [value]
    with refused("invalid_json", 65):
        inputs.document(value)
    for _ in range(100_000):
        value = [value]
    with refused("invalid_json", 65):
        inputs.document(value)
    while isinstance(value, list) and value:  # so that taking it apart needs no recursion either
        value = value[0]


@pytest.mark.parametrize(
    "given_",
    [
        {"a": float("nan")}, {"a": float("inf")}, {"a": [-float("inf")]}, {"a": None, "b": float("nan")},
        {"a": "\ud800"}, {"\ud800": 1}, '{"a": "\\ud800"}', '{"a": "\\uDC00"}', '{"a": "\\uD800\\u0041"}', "\ud800",
        b"\xff", b"\xed\xa0\x80", "{}\0", {"a": object()}, {object(): 1}, object(), {"a": {1, object()}},
    ],
    ids=itertools.count(),  # the same in every process, as what tells of addresses and of sets is not
)  # fmt: skip
def test_what_is_no_document_is_refused(given_: object) -> None:
    with refused("invalid_json", 65):
        inputs.document(given_)


class Point(msgspec.Struct):
    x: int
    when: datetime | None = None


def test_documents_may_be_mappings_structs_and_text() -> None:
    assert json.loads(inputs.document({"a": [1, 2.5, None, True, "é\U0001f600"]})) == {
        "a": [1, 2.5, None, True, "é\U0001f600"]
    }
    assert json.loads(inputs.document(Point(1))) == {"x": 1, "when": None}
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)
    assert json.loads(inputs.document(Point(1, moment))) == {"x": 1, "when": "2026-01-01T00:00:00Z"}
    assert json.loads(inputs.document({"a": Decimal("1.5"), "b": None, "c": moment})) == {
        "a": "1.5", "b": None, "c": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    for text in ('{ "a" :1.0}', '{"a": "\\\\ud800"}', '{"a": "\\ud83d\\ude00"}'):
        assert inputs.document(text) == inputs.document(text.encode()) == text


leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
documents = st.recursive(
    leaves | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=20,
)


@given(documents)
def test_a_document_comes_back_as_it_was(value: object) -> None:
    text = value if isinstance(value, str) else inputs.document(value)
    assert json.loads(json.dumps(value) if isinstance(value, str) else text) == value


@given(documents)
def test_documents_as_text_stay_as_they_are(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert inputs.document(text) == text


def test_objects_in_arrays_are_64_deep_at_most_too() -> None:
    for opening, closing in (('{"a":[', "]}"), ('[{"a":', "}]")):
        inside = "1" if opening.endswith(":") else ""
        assert inputs.document(opening * 32 + inside + closing * 32)
        with refused("invalid_json", 65):
            inputs.document("[" + opening * 32 + inside + closing * 32 + "]")


def test_days_are_at_most_100_years() -> None:
    assert (inputs.days(36600), inputs.days(0.001), inputs.days(None)) == (36600, 0.001, None)
    for given_ in (36600.001, 0, True, "1"):
        with refused("usage", 64):
            inputs.days(given_)  # type: ignore[arg-type]  # what no caller should pass


def test_a_list_of_names_is_a_document_and_so_is_one_name() -> None:
    assert inputs.document(["x"]) == '["x"]'


@pytest.mark.parametrize("given_", [0, 11, -1, True, "5", 5.0, None])
def test_a_priority_is_a_whole_number_from_1_to_10(given_: object) -> None:
    with refused("invalid_priority", 65):
        inputs.priority(given_)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given_",
    [
        '{"a":1,"a":2}',
        '{"a":9223372036854775808}',
        '{"a":-1e999}',
        "[NaN]",
        '["\\u0000"]',
        '["\\\\\\u0000"]',
        "{",
        "[" * 65 + "]" * 65,
    ],
)
def test_notes_are_judged_as_payloads_are(given_: str) -> None:
    with refused("invalid_json", 65):
        inputs.notes(given_)


def test_notes_stay_as_they_are() -> None:
    for text in ('{ "a": 1.50, "b": "\\\\u0000" }', "[]", "-9223372036854775808"):
        assert inputs.notes(text) == text
    assert json.loads(inputs.notes({"a": [None]})) == {"a": [None]}
    with refused("payload_too_large", 65):
        inputs.notes("x" * (1 << 20) + "x")
    with refused("payload_too_large", 65):
        inputs.notes('"' + "é" * (1 << 19) + '"')
    assert inputs.notes('"' + "é" * ((1 << 19) - 1) + '"')


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize(
    "given_",
    [
        "2030-01-01 12:00:00.5",
        "2030-01-01T12:00:00.500Z",
        " 2030-01-01T14:00:00.5+02:00 ",
        datetime(2030, 1, 1, 12, 0, 0, 500_000),
        datetime(2030, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC),
    ],
)
def test_a_moment_that_names_no_zone_is_utc_wherever_one_is(
    monkeypatch: pytest.MonkeyPatch, given_: str | datetime, zone: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        found = inputs.moment(given_)
    time.tzset()
    assert found == "2030-01-01 12:00:00.500"
