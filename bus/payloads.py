"""Payload schemas: compiled into checks of the database, and explained when a payload breaks one.

The keywords that a database can enforce are a subset of JSON Schema 2020-12: type, enum, const, required, properties,
additionalProperties (false), minimum, maximum, minLength, maxLength, items, minItems, maxItems; title, description,
$schema and $comment say nothing. Any other is refused by name. This is where Python writes the SQL of checks.

A check is a list of searches for something wrong: one for each object or array that the schema describes. A search
walks down to it by a chain of `json_each`, whose `key` column is decoded (a path such as `$.phase` would miss
{"\\u0070hase": 7}), and looks at all that lies in it in one pass. So SQL is never nested, however deep a schema is;
with one exception: what lies in the payload's own members is looked at in the same pass as these.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from bus import jsonb_checks
from bus.errors import BusError, error

DEEPEST = 32
SILENT = {"title", "description", "$schema", "$comment"}
DEEPER = {"properties", "items"}
TYPES = {
    "string": "{row}.type = 'text'",
    "number": "{row}.type in ('integer', 'real')",
    "integer": "({row}.type = 'integer' or ({row}.type = 'real' and {row}.atom = round({row}.atom)))",
    "boolean": "{row}.type in ('true', 'false')",
    "null": "{row}.type = 'null'",
    "array": "{row}.type = 'array'",
    "object": "{row}.type = 'object'",
}
BOUNDS = {
    "minimum": "({row}.type in ('integer', 'real') and {row}.atom < {bound})",
    "maximum": "({row}.type in ('integer', 'real') and {row}.atom > {bound})",
    "minLength": "({row}.type = 'text' and length({row}.atom) < {bound})",
    "maxLength": "({row}.type = 'text' and length({row}.atom) > {bound})",
    "minItems": "({row}.type = 'array' and (select count(*) from json_each({inside})) < {bound})",
    "maxItems": "({row}.type = 'array' and (select count(*) from json_each({inside})) > {bound})",
}
ROOT = "(select 'object' as type, null as atom, iif(json_valid(new.payload), new.payload, '{}') as value) r0"
MEMBERS = "json_each(iif(json_valid(new.payload), new.payload, '{}')) r1"


class Place(NamedTuple):
    """Where in a payload a schema applies: the tables that lead there (the first `outer` ones belong to a search around
    it), the conditions on the way, the last row."""

    tables: tuple[str, ...] = (ROOT,)
    conditions: tuple[str, ...] = ()
    outer: int = 0

    @property
    def row(self) -> str:
        return f"r{len(self.tables) - 1}"

    def below(self, kind: str, key: str | None = None) -> Place:
        """What lies in this object or array; under this key of it."""
        if len(self.tables) > DEEPEST:
            raise error("invalid_schema", f"the schema is deeper than {DEEPEST} levels")
        deeper = self._replace(tables=(*self.tables, f"json_each({_inside(self.row)}) r{len(self.tables)}"))
        named = [] if key is None else [f"{deeper.row}.key = {_literal(key)}"]
        return deeper._replace(conditions=(*self.conditions, f"{self.row}.type = '{kind}'", *named))

    def search(self, wrong: str) -> str:
        """Whether there is something wrong here."""
        tables = ", ".join(self.tables[self.outer :])
        return f"exists (select 1 from {tables} where {' and '.join((*self.conditions, wrong))})"


def triggers(name: str, schema: Mapping[str, Any]) -> dict[str, str]:
    """What makes the database refuse payloads of message type `name` against `schema`, in each dialect.

    Raises `invalid_schema` for a keyword outside the subset or a value that is not legal for its keyword.
    """
    if schema.get("type", "object") != "object":
        raise error("invalid_schema", "a payload schema describes an object")
    itself = _wrong({key: value for key, value in schema.items() if key != "type"}, "r0")
    wrong = [Place().search(itself)] if itself != "0" else []
    wrong += _members(schema)
    sqlite = (
        f"create trigger {_trigger(name)} before insert on agent_messages\n"
        f"when new.message_type = {_literal(name)} and ({_any(wrong)})\n"
        f"begin\n  select raise(abort, {_literal('invalid_payload: ' + name)});\nend"
    )
    return {"sqlite": sqlite, "postgres": jsonb_checks.statements(_short(name), schema)}


def drop(name: str) -> dict[str, str]:
    """What lifts the check of a message type, in each dialect."""
    postgres = f"drop function if exists {_short(name)}(jsonb); select payload_checks()"
    return {"sqlite": f"drop trigger if exists {_trigger(name)}", "postgres": postgres}


def explained(name: str, schema: Mapping[str, Any], payload: str) -> BusError:
    """The refusal of a payload that breaks the schema of its type, with what is wrong in one line."""
    from jsonschema import Draft202012Validator

    try:
        document = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return error("invalid_json")
    found = sorted(Draft202012Validator(schema).iter_errors(document), key=lambda e: list(map(str, e.path)))
    words = (f"{'.'.join(map(str, e.path))[:80] or 'payload'}: {' '.join(e.message.split())[:120]}" for e in found[:3])
    return error("invalid_payload", f"the payload is no {name}: {'; '.join(words) or 'it breaks the schema'}")


def _members(schema: Mapping[str, Any]) -> Iterator[str]:
    """The searches of what lies in the payload: one pass over its members and what lies in them, then those below."""
    list(_level(schema, Place()))  # a payload is an object, but `items` of its schema must be sound, too
    cases = []
    for key, inner in _properties(schema).items():
        wrong = [_wrong(inner, "r1")]
        if not DEEPER.isdisjoint(inner):
            wrong += _level(inner, Place((ROOT, MEMBERS), outer=2))
        cases.append((key, _any([part for part in wrong if part != "0"])))
    if telling := _telling(cases):
        yield f"exists (select 1 from {MEMBERS} where case r1.key{telling} else 0 end)"
    for key, inner in _properties(schema).items():
        yield from _below(inner, Place().below("object", key))
    yield from _below(schema.get("items", {}), Place().below("array"))


def _below(schema: Mapping[str, Any], place: Place) -> Iterator[str]:
    """The searches of what lies in the members and elements of a place, and below."""
    for key, inner in _properties(schema).items():
        if not DEEPER.isdisjoint(inner):
            deeper = place.below("object", key)
            yield from _level(inner, deeper)
            yield from _below(inner, deeper)
    if not DEEPER.isdisjoint(items := schema.get("items", {})):
        yield from _level(items, place.below("array"))
        yield from _below(items, place.below("array"))


def _level(schema: Mapping[str, Any], place: Place) -> Iterator[str]:
    """The searches of what lies in an object or array itself."""
    members, elements = place.below("object"), place.below("array")
    if telling := _telling([(key, _wrong(inner, members.row)) for key, inner in _properties(schema).items()]):
        yield members.search(f"case {members.row}.key{telling} else 0 end")
    if (wrong := _wrong(schema.get("items", {}), elements.row)) != "0":
        yield elements.search(wrong)


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise error("invalid_schema", "properties is an object")
    return properties


def _telling(cases: list[tuple[str, str]]) -> str:
    return "".join(f" when {_literal(key)} then {wrong}" for key, wrong in cases if wrong != "0")


def _wrong(schema: object, row: str) -> str:
    """SQL that is true of a json_each row that breaks what the schema says of it itself; `0` when it says nothing."""
    if not isinstance(schema, Mapping):
        raise error("invalid_schema", "a schema is an object")
    parts = [_keyword(key, schema, row) for key in schema if key not in SILENT | DEEPER]
    return _any([part for part in parts if part])


def _keyword(key: str, schema: Mapping[str, Any], row: str) -> str:
    given = schema[key]
    if key in BOUNDS:
        return BOUNDS[key].format(row=row, inside=_inside(row), bound=_bound(key, given))
    match key:
        case "type":
            return f"not ({_types(given, row)})"
        case "const":
            return f"not ({_equals([given], row)})"
        case "enum":
            return f"not ({_equals(given, row)})"
        case "required":
            return _required(given, row)
        case "additionalProperties":
            return _closed(given, schema, row)
    raise error("invalid_schema", f"the database can't enforce the keyword {key!r}")


def _types(given: object, row: str) -> str:
    kinds: list[Any] = given if isinstance(given, list) else [given]
    if not kinds or not all(isinstance(kind, str) and kind in TYPES for kind in kinds):
        raise error("invalid_schema", f"type is one of {', '.join(TYPES)}, or a list of them")
    return " or ".join(TYPES[kind].format(row=row) for kind in kinds)


def _required(given: object, row: str) -> str:
    if not isinstance(given, list) or not all(isinstance(key, str) for key in given):
        raise error("invalid_schema", "required is a list of keys")
    if not given:
        return ""
    keys = set(given)
    known = f"select count(*) from json_each({_inside(row)}) where key in ({', '.join(map(_literal, sorted(keys)))})"
    return f"({row}.type = 'object' and ({known}) < {len(keys)})"


def _closed(given: object, schema: Mapping[str, Any], row: str) -> str:
    if given is not False:
        raise error("invalid_schema", "additionalProperties can only be false")
    known = ", ".join(map(_literal, _properties(schema))) or "null"
    others = f"select 1 from json_each({_inside(row)}) where coalesce(key not in ({known}), 1)"
    return f"({row}.type = 'object' and exists ({others}))"


def _equals(choices: object, row: str) -> str:
    """Whether the row is one of these scalars."""
    if not isinstance(choices, list) or not all(choice is None or isinstance(choice, SCALARS) for choice in choices):
        raise error("invalid_schema", "enum is a list, and it and const hold strings, numbers, true, false and null")
    names = [_literal(json.dumps(choice)) for choice in choices if choice is None or isinstance(choice, bool)]
    texts = [_literal(choice) for choice in choices if isinstance(choice, str)]
    numbers = [_number("enum", c) for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
    tests = [f"{row}.type in ({', '.join(names) or 'null'})"]
    tests += [f"({row}.type = 'text' and {row}.atom in ({', '.join(texts)}))"] if texts else []
    tests += [f"({row}.type in ('integer', 'real') and {row}.atom in ({', '.join(numbers)}))"] if numbers else []
    return "coalesce(" + " or ".join(tests) + ", 0)"


SCALARS = (str, bool, int, float)


def _bound(key: str, given: object) -> str:
    if key not in ("minimum", "maximum") and (not isinstance(given, int) or given < 0):
        raise error("invalid_schema", f"{key} is a whole number, 0 or more")
    return _number(key, given)


def _number(key: str, given: object) -> str:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given) or abs(given) > 2**62:
        raise error("invalid_schema", f"{key} must be a number, and not too large")
    return repr(given)


def _inside(row: str) -> str:
    """The JSON that lies in a row; of a scalar there is nothing, and its text need not be JSON."""
    return f"iif({row}.type in ('array', 'object'), {row}.value, '[]')"


def _any(tests: list[str]) -> str:
    """Whether any holds; as a balanced tree, since SQLite bounds the depth of an expression."""
    if len(tests) < 2:
        return tests[0] if tests else "0"
    half = len(tests) // 2
    return f"({_any(tests[:half])} or {_any(tests[half:])})"


def _trigger(name: str) -> str:
    """The name of a type's trigger; SQLite takes upper and lower case for the same there."""
    own = f"payload_{name}" if name == name.lower() else f"payload {name.encode().hex()}"
    return _quoted(own, '"')


def _short(name: str) -> str:
    """The name of a type's check on PostgreSQL, which cuts off what is longer than 63 bytes."""
    digest = hashlib.sha256(name.encode()).hexdigest()[:40]
    return _quoted(f"payload_{name}" if len(name) <= 50 else f"payload {digest}", '"')


def _literal(text: str) -> str:
    if "\0" in text:
        raise error("invalid_schema", "text with a NUL")
    return _quoted(text, "'")


def _quoted(text: str, mark: str) -> str:
    return mark + text.replace(mark, mark * 2) + mark
