"""Payload schemas: compiled into checks of the database, and explained when a payload breaks one.

The keywords that a database can enforce are a subset of JSON Schema 2020-12: type, enum, const, required, properties,
additionalProperties (false), minimum, maximum, minLength, maxLength, items, minItems, maxItems; title, description,
$schema and $comment say nothing. Any other is refused by name. This is the one place where Python writes SQL text.

The check walks `json_each`, whose `key` column is decoded: a path such as `$.phase` would miss {"\\u0070hase": 7}.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

from bus.errors import error

SILENT = {"title", "description", "$schema", "$comment"}
LIMITS = {
    "minimum": ("in ('integer', 'real')", "atom < {}"),
    "maximum": ("in ('integer', 'real')", "atom > {}"),
    "minLength": ("= 'text'", "length(atom) < {}"),
    "maxLength": ("= 'text'", "length(atom) > {}"),
}
TYPES = {
    "string": "type = 'text'",
    "number": "type in ('integer', 'real')",
    "integer": "(type = 'integer' or (type = 'real' and atom = cast(atom as integer)))",
    "boolean": "type in ('true', 'false')",
    "null": "type = 'null'",
    "array": "type = 'array'",
    "object": "type = 'object'",
}


def trigger(name: str, schema: Mapping[str, Any]) -> str:
    """The statement that makes the database refuse payloads of message type `name` against `schema`.

    Raises `invalid_schema` for a keyword outside the subset or a value that is none for its keyword.
    """
    if schema.get("type", "object") != "object":
        raise error("invalid_schema", "a payload schema describes an object")
    wrong = _wrong(schema, "iif(json_valid(new.payload), new.payload, '{}')", count(1))
    return (
        f"create trigger {_identifier('payload_' + name)} before insert on agent_messages\n"
        f"when new.message_type = {_literal(name)} and json_valid(new.payload)\n"
        f"  and exists (select 1 from (select 'object' as type, null as atom) where {wrong})\n"
        f"begin\n  select raise(abort, {_literal('invalid_payload: ' + name)});\nend"
    )


def drop(name: str) -> str:
    """The statement that lifts the check of a message type."""
    return f"drop trigger if exists {_identifier('payload_' + name)}"


def explain(schema: Mapping[str, Any], payload: str) -> str:
    """What is wrong with a payload, in one line; empty when a validator finds nothing."""
    from jsonschema import Draft202012Validator

    found = sorted(Draft202012Validator(schema).iter_errors(json.loads(payload)), key=lambda e: list(map(str, e.path)))
    return "; ".join(f"{'.'.join(map(str, e.path)) or 'payload'}: {e.message:.200}" for e in found[:3])


def _wrong(schema: object, value: str, names: count[int]) -> str:
    """SQL that is true of a json_each row (columns key, type, atom; `value` its JSON) against the schema."""
    if not isinstance(schema, Mapping):
        raise error("invalid_schema", "a schema is an object")
    parts = [_keyword(key, schema, value, names) for key in schema if key not in SILENT]
    return " or ".join(part for part in parts if part) or "0"


def _keyword(key: str, schema: Mapping[str, Any], value: str, names: count[int]) -> str:
    given = schema[key]
    match key:
        case "type":
            return f"not ({_types(given)})"
        case "enum" | "const":
            choices = given if key == "enum" else [given]
            if not isinstance(choices, list):
                raise error("invalid_schema", "enum is an array")
            return f"not ({' or '.join(_equals(choice) for choice in choices) or '0'})"
        case "minimum" | "maximum" | "minLength" | "maxLength":
            kind, test = LIMITS[key]
            return f"(type {kind} and {test.format(_number(key, given))})"
        case "minItems" | "maxItems":
            sign = "<" if key == "minItems" else ">"
            return f"(type = 'array' and (select count(*) from json_each({value})) {sign} {_number(key, given)})"
        case "items":
            row = f"item{next(names)}"
            inner = _wrong(given, _document(row), names)
            return f"(type = 'array' and exists (select 1 from json_each({value}) {row} where {inner}))"
        case "required":
            return _required(given, value)
        case "properties":
            return _properties(given, value, names)
        case "additionalProperties":
            return _closed(given, schema, value)
    raise error("invalid_schema", f"the database can't enforce the keyword {key!r}")


def _document(row: str) -> str:
    """The JSON of a json_each row to walk on in; of a scalar there is nothing, and its text need not be JSON."""
    return f"iif({row}.type in ('array', 'object'), {row}.value, '[]')"


def _types(given: object) -> str:
    kinds: list[Any] = given if isinstance(given, list) else [given]
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        raise error("invalid_schema", f"type is one of {', '.join(TYPES)}, or a list of them")
    return " or ".join(TYPES[kind] for kind in kinds)


def _required(given: object, value: str) -> str:
    if not isinstance(given, list) or not all(isinstance(key, str) for key in given):
        raise error("invalid_schema", "required is a list of keys")
    missing = (f"not exists (select 1 from json_each({value}) where key = {_literal(key)})" for key in given)
    return f"(type = 'object' and ({' or '.join(missing) or '0'}))"


def _properties(given: object, value: str, names: count[int]) -> str:
    if not isinstance(given, Mapping):
        raise error("invalid_schema", "properties is an object")
    row = f"property{next(names)}"
    cases = [f"when {_literal(key)} then {_wrong(inner, _document(row), names)}" for key, inner in given.items()]
    if not cases:
        return ""
    test = " ".join(cases)
    return f"(type = 'object' and exists (select 1 from json_each({value}) {row} where case key {test} else 0 end))"


def _closed(given: object, schema: Mapping[str, Any], value: str) -> str:
    if given is not False:
        raise error("invalid_schema", "additionalProperties can only be false")
    known = ", ".join(_literal(key) for key in schema.get("properties", {})) or "null"
    return f"(type = 'object' and exists (select 1 from json_each({value}) where coalesce(key not in ({known}), 1)))"


def _equals(choice: object) -> str:
    if choice is None or isinstance(choice, bool):
        return f"type = {_literal(json.dumps(choice))}"
    if isinstance(choice, str):
        return f"(type = 'text' and atom = {_literal(choice)})"
    if isinstance(choice, int | float):
        return f"(type in ('integer', 'real') and atom = {choice!r})"
    raise error("invalid_schema", "enum and const hold strings, numbers, true, false and null")


def _number(key: str, given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, int | float) or given != given or abs(given) > 2**62:
        raise error("invalid_schema", f"{key} is a number")
    return repr(given)


def _literal(text: str) -> str:
    if "\0" in text:
        raise error("invalid_schema", "text with a NUL")
    return _quoted(text, "'")


def _identifier(name: str) -> str:
    return _quoted(name, '"')


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark
