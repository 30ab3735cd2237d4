"""Payload schemas that a project adds: how large they may be, what is refused, and by which words."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bus import Bus, BusError
from tests.conformance.refusal import refused


@pytest.fixture
def painter(url: str) -> Iterator[Bus]:
    """A bus with agent a, for messages of type m."""
    with Bus.open(url) as opened:
        opened.register("a", type="validation", session="s")
        yield opened


def nested(keyword: str, depth: int) -> dict[str, object]:
    """A schema that says something `depth` levels down."""
    schema: dict[str, object] = {"type": "string"}
    for _ in range(depth):
        schema = {"properties": {"a": schema}} if keyword == "properties" else {"items": schema}
    return schema if keyword == "properties" else {"properties": {"a": schema}}


@pytest.mark.parametrize("keyword", ["properties", "items"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_a_schema_may_describe_what_lies_deep(painter: Bus, keyword: str, depth: int) -> None:
    schema = nested(keyword, depth)
    painter.types_add("message", "m", schema=schema)
    for leaf in ("good", 7):
        payload: object = leaf
        for _ in range(depth):
            payload = {"a": payload} if keyword == "properties" else [payload]
        payload = payload if keyword == "properties" else {"a": payload}
        if Draft202012Validator(schema).is_valid(payload):
            painter.send("a", "a", "m", json.dumps(payload))
        else:
            with refused("invalid_payload", 65):
                painter.send("a", "a", "m", json.dumps(payload))


@pytest.mark.parametrize("depth", [8, 12, 30, 60, 90, 400, 2000])
def test_a_schema_too_deep_for_the_database_is_refused_as_a_schema(painter: Bus, depth: int) -> None:
    with statuses(0, 65):
        painter.types_add("message", "m", schema=nested("items", depth))
    painter.send("a", "a", "task_assignment", {})


@contextmanager
def statuses(*legal: int) -> Iterator[list[BusError]]:
    """The body may raise BusErrors of these exit statuses; the one it raised."""
    found: list[BusError] = []
    try:
        yield found
    except BusError as problem:
        found.append(problem)
    assert (found[0].exit_status if found else 0) in legal, found


LARGE = {
    "enum": {"properties": {"a": {"enum": [f"value {n}" for n in range(3000)]}}},
    "required": {"required": [f"key{n}" for n in range(3000)]},
    "properties": {"properties": {f"key{n}": {"type": "string"} for n in range(3000)}},
    "closed": {"properties": {f"key{n}": {} for n in range(3000)}, "additionalProperties": False},
}


@pytest.mark.parametrize("schema", LARGE.values(), ids=LARGE)
def test_a_schema_may_be_wide(painter: Bus, schema: dict[str, object]) -> None:
    painter.types_add("message", "m", schema=schema)
    for payload in ({"a": "value 7"}, {"a": "no value"}, {f"key{n}": "x" for n in range(3000)}, {"key7": 7}):
        if Draft202012Validator(schema).is_valid(payload):
            painter.send("a", "a", "m", payload)
        else:
            with refused("invalid_payload", 65):
                painter.send("a", "a", "m", payload)


@pytest.mark.parametrize("number", [1e300, 1e19, -1e19, 2.0**63, -(2.0**63), 1.5, 1e18, -0.0])
def test_a_whole_number_is_an_integer_however_it_is_written(painter: Bus, number: float) -> None:
    painter.types_add("message", "m", schema={"properties": {"a": {"type": "integer"}}})
    if number.is_integer():
        painter.send("a", "a", "m", {"a": number})
    else:
        with refused("invalid_payload", 65):
            painter.send("a", "a", "m", {"a": number})


def test_types_that_differ_in_case_keep_their_own_checks(painter: Bus) -> None:
    painter.types_add("message", "Ping", schema={"required": ["n"]})
    painter.types_add("message", "ping", schema={})
    (ping,) = [kind.definition for kind in painter.types_list(kind="message") if kind.name == "ping"]
    assert ping == {"type": "object"}
    painter.send("a", "a", "ping", {})
    with refused("invalid_payload", 65):
        painter.send("a", "a", "Ping", {})
    assert [found.details for found in painter.doctor() if found.subject == "schema"] == [
        "triggers and views that are not the bus's: none"
    ]


@pytest.mark.parametrize(
    "schema",
    [
        "{",
        "",
        "null",
        "[]",
        "7",
        '{"properties": {"a": {"const": 1e999}}}',
        '{"properties": {"a": {"const": NaN}}}',
        '{"properties": {"a": {"enum": [{}]}}}',
        '{"properties": {"a": {"enum": "x"}}}',
        '{"properties": {"a": {"const": [1]}}}',
        '{"properties": {"a": {"minimum": "5"}}}',
        '{"properties": {"a": {"minimum": true}}}',
        '{"properties": {"a": {"maxItems": null}}}',
        '{"properties": {"a": {"minLength": -1}}}',
        '{"properties": {"a": {"minLength": 1.5}}}',
        '{"properties": {"a": {"type": []}}}',
        '{"properties": {"a": {"type": "float"}}}',
        '{"properties": {"a": true}}',
        '{"properties": {"a": null}}',
        '{"properties": []}',
        '{"required": [7]}',
        '{"required": ["a\\u0000"]}',
        '{"required": ["\\ud800"]}',
        '{"type": ["object", "null"]}',
        '{"additionalProperties": {}}',
        '{"properties": {"a": {"type": "string"}, "a": {}}}',
    ],
)
def test_what_is_no_schema_is_refused(painter: Bus, schema: str) -> None:
    with pytest.raises(BusError) as caught:
        painter.types_add("message", "m", schema=schema)
    assert caught.value.exit_status == 65
    with refused("unknown_type", 65):
        painter.send("a", "a", "m", {})
    painter.send("a", "a", "task_assignment", {})


KEYWORDS = [
    "allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependentRequired", "prefixItems",
    "contains", "minContains", "maxContains", "patternProperties", "propertyNames", "unevaluatedItems",
    "unevaluatedProperties", "pattern", "format", "multipleOf", "exclusiveMinimum", "exclusiveMaximum", "uniqueItems",
    "minProperties", "maxProperties", "$ref", "$dynamicRef", "$defs", "$id", "$anchor", "definitions", "nullable",
]  # fmt: skip


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_every_other_keyword_is_refused_by_name(painter: Bus, keyword: str) -> None:
    for schema in ({keyword: {}}, {"properties": {"a": {keyword: 1}}}, {"properties": {"a": {"items": {keyword: 1}}}}):
        with pytest.raises(BusError) as caught:
            painter.types_add("message", "m", schema=schema)
        assert caught.value.code == "invalid_schema"
        assert f"'{keyword}'" in caught.value.message


def test_a_keyword_is_only_one_where_a_schema_stands(painter: Bus) -> None:
    painter.types_add("message", "m", schema={"properties": {"pattern": {}, "type": {"const": "format"}}})
    painter.send("a", "a", "m", {"pattern": 7, "type": "format"})
    with refused("invalid_payload", 65):
        painter.send("a", "a", "m", {"type": "pattern"})


@pytest.mark.parametrize(
    "key", ["", "'", '"', "a'b", "é", "\U0001f600", "a.b", "$", "\\", "\n", "new.payload", "--", "/*"]
)
def test_any_key_can_be_described(painter: Bus, key: str) -> None:
    schema = {
        "properties": {key: {"type": "string", "enum": [key, "x"]}},
        "required": [key],
        "additionalProperties": False,
    }
    painter.types_add("message", "m", schema=schema)
    for ascii_only in (True, False):
        painter.send("a", "a", "m", json.dumps({key: key}, ensure_ascii=ascii_only))
        for bad in ({key: 7}, {key: "y"}, {}, {key: "x", "more": 1}):
            with refused("invalid_payload", 65):
                painter.send("a", "a", "m", json.dumps(bad, ensure_ascii=ascii_only))


def test_a_type_that_is_changed_is_changed_for_open_connections_too(painter: Bus, url: str) -> None:
    painter.types_add("message", "m", schema={})
    hand = sqlite3.connect(url, isolation_level=None)
    columns = "session_id, from_agent, to_agent, message_type, payload"
    text = f"insert into agent_messages ({columns}) values ('s', 'a', 'a', 'm', ?)"
    hand.execute(text, ["{}"])
    painter.types_add("message", "m", schema={"required": ["n"]})
    with pytest.raises(sqlite3.IntegrityError, match="invalid_payload"):
        hand.execute(text, ["{}"])
    hand.close()


def test_a_type_that_is_refused_leaves_the_one_before_as_it_was(painter: Bus) -> None:
    painter.types_add("message", "m", schema={"required": ["n"]})
    with pytest.raises(BusError):
        painter.types_add("message", "m", schema={"properties": {"a": {"pattern": "x"}}})
    with refused("invalid_payload", 65):
        painter.send("a", "a", "m", {})


def test_the_words_of_a_refusal_are_never_empty(painter: Bus) -> None:
    painter.types_add("message", "m", schema={"properties": {"a": {"type": "integer"}}})
    for payload in ({"a": 1.5}, {"a": 1e300}, {"a": "x" * 5000}):
        with statuses(0, 65) as found:
            painter.send("a", "a", "m", payload)
        for problem in found:
            assert problem.message.partition(": ")[2]
            assert "\n" not in problem.message
            assert len(problem.message) < 500


def test_artifacts_are_state_keys_with_weights(painter: Bus) -> None:
    for artifacts in (["bad key"], {"k": -5}, {"k": 0}, {"k": 1e7}, {"k": float("nan")}, ["k", "k"], [""]):
        with pytest.raises(BusError) as caught:
            painter.types_add("operation", "o", artifacts=artifacts)  # type: ignore[arg-type]
        assert caught.value.exit_status in (64, 65)
    painter.types_add("operation", "o", artifacts=["a/b", "c"])
    (found,) = [kind.definition for kind in painter.types_list(kind="operation") if kind.name == "o"]
    assert found == [{"key": "a/b", "weight": 50}, {"key": "c", "weight": 50}]


# --- the compiled checks judge as a validator does, also deep, wide and odd

KEYS = ["", "a", "A", "é", "a'b", 'a"b', "key", "type", "0", "{row}"]
numbers = st.integers(-3, 3) | st.sampled_from(
    [2**63 - 1, -(2**63), 1e19, -1e300, 5e-324, 0.1, -0.0, 1.0, 2.5, 2.0**53]
)
scalars = (
    st.none() | st.booleans() | numbers | st.sampled_from(["", "a", "A", "0", "1", "é\U0001f600", "a'b", "null", "[]"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)
choices = scalars.filter(lambda value: not isinstance(value, int | float) or abs(value) < 2**62)
kinds = st.sampled_from(["string", "number", "integer", "boolean", "null", "array", "object"])


def schemas(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    keywords = {
        "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
        "enum": st.lists(choices, max_size=4),
        "const": choices,
        "required": st.lists(st.sampled_from(KEYS), max_size=2, unique=True),
        "properties": st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
        "additionalProperties": st.just(False),
        "minimum": st.sampled_from([-1, 0, 0.5, 2, 2**60]),
        "maximum": st.sampled_from([-1, 0, 0.5, 2, 2**60]),
        "minLength": st.integers(0, 3),
        "maxLength": st.integers(0, 3),
        "items": inner,
        "minItems": st.integers(0, 3),
        "maxItems": st.integers(0, 3),
        "description": st.just("nothing"),
    }
    some = st.sets(st.sampled_from(sorted(keywords)), max_size=3)
    return some.flatmap(lambda names: st.fixed_dictionaries({name: keywords[name] for name in sorted(names)}))


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """A bus with agent a, for many schemas, one after the other."""
    path = tmp_path_factory.mktemp("checked") / "coordination.db"
    with Bus.open(f"{path}?synchronous=normal", create=True) as opened:
        opened.register("a", type="validation", session="s")
        yield opened


def accepts(bus: Bus, payload: str) -> bool:
    try:
        bus.send("a", "a", "m", payload)
    except BusError as problem:
        if problem.code != "invalid_payload":
            raise
        return False
    return True


any_schema = given(
    schema=st.recursive(schemas(st.just({})), schemas, max_leaves=8),
    payloads=st.lists(st.dictionaries(st.sampled_from(KEYS), values, max_size=4), min_size=1, max_size=5),
    ascii_only=st.booleans(),
)


def judges_as_a_validator(bus: Bus, schema: dict[str, object], payloads: list[dict[str, object]], ascii: bool) -> None:
    schema = {**schema, "type": "object"}
    bus.types_add("message", "m", schema=schema)
    for payload in payloads:
        text = json.dumps(payload, ensure_ascii=ascii)
        assert accepts(bus, text) == Draft202012Validator(schema).is_valid(json.loads(text)), (schema, text)


@settings(max_examples=200, deadline=None)
@any_schema
def test_the_database_accepts_what_a_validator_accepts(
    checked: Bus, schema: dict[str, object], payloads: list[dict[str, object]], ascii_only: bool
) -> None:
    judges_as_a_validator(checked, schema, payloads, ascii_only)
