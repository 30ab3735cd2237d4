"""A payload schema as PostgreSQL checks it: expressions over `jsonb`, where keys are decoded and stand once.

The schema has been read already by `payloads.triggers`, which refuses what is none. An expression is true of a value
that breaks the schema, false or null of others; a value that is not there is null. Most of what schemas say, types and
bounds of numbers, is told in one SQL/JSON path (strict: what is not there is neither true nor false), which costs a
tenth of as many comparisons in SQL; so the usual payload costs a single call. What else an array holds is searched only
when there is an array.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

INTEGER = (  # which a path can't tell from other numbers
    "(jsonb_typeof({v}) = 'number' and case when jsonb_typeof({v}) = 'number' then"
    " ({v} #>> '{{}}')::numeric = trunc(({v} #>> '{{}}')::numeric) end)"
)
LIMITS = {"minimum": "<", "maximum": ">"}
KEYWORDS = {
    "minLength": "case when jsonb_typeof({v}) = 'string' then length({v} #>> '{{}}') < {n} end",
    "maxLength": "case when jsonb_typeof({v}) = 'string' then length({v} #>> '{{}}') > {n} end",
    "minItems": "case when jsonb_typeof({v}) = 'array' then jsonb_array_length({v}) < {n} end",
    "maxItems": "case when jsonb_typeof({v}) = 'array' then jsonb_array_length({v}) > {n} end",
}


def statements(function: str, schema: Schema) -> str:
    """The statements that make the database refuse payloads of a message type against `schema`: a function that tells
    whether a document breaks it, and its place among those of the other types."""
    told = list(_told(schema, "@"))
    own = [f"document @? {_literal(f'strict $ ? ({_either(told)})')}"] if told else []
    own = [*own, *_own(schema, "document")] or ["false"]
    arrays = list(_inside(schema, "document", 1))
    language, body = ("plpgsql", _body(own, arrays)) if arrays else ("sql", f"select {' or '.join(own)}")
    mark = "$check$"
    while mark in body:
        mark = f"$x{mark[1:]}"
    return (
        f"create or replace function {function}(document jsonb) returns boolean language {language} immutable as\n"
        f"{mark}{body}{mark};\nselect payload_checks()"
    )


def _body(own: list[str], arrays: list[tuple[str, str]]) -> str:
    lines = f"  if ({' or '.join(own)}) then return true; end if;\n"
    lines += "".join(
        f"  if jsonb_typeof({array}) = 'array' then if ({wrong}) then return true; end if; end if;\n"
        for array, wrong in arrays
    )
    return f"\nbegin\n{lines}  return false;\nend "


def _told(schema: Schema, path: str) -> Iterator[str]:
    """What can be wrong with what lies at a path, as far as paths can tell it."""
    for keyword, given in schema.items():
        if keyword in LIMITS:
            yield f"{path} {LIMITS[keyword]} {given!r}"
        if keyword == "type" and _is_plain(given):
            yield "(" + " && ".join(f'{path}.type() != "{kind}"' for kind in _kinds(given)) + ")"
    for key, inner in schema.get("properties", {}).items():
        yield from _told(inner, f"{path}.{json.dumps(key)}")
    if (items := schema.get("items")) and (inside := list(_told(items, "@"))):
        yield f"exists({path}[*] ? ({_either(inside)}))"


def _either(tests: list[str]) -> str:
    """Whether any holds; as a balanced tree, since there may be thousands."""
    if len(tests) < 3:
        return " || ".join(tests)
    half = len(tests) // 2
    return f"({_either(tests[:half])}) || ({_either(tests[half:])})"


def _kinds(given: Any) -> list[str]:
    return given if isinstance(given, list) else [given]


def _is_plain(given: Any) -> bool:
    """Whether a path can tell these types."""
    return "integer" not in _kinds(given)


def _own(schema: Schema, value: str) -> Iterator[str]:
    """What can be wrong with a value itself, and with the members of objects in it."""
    for keyword, given in schema.items():
        if test := _test(keyword, given, schema, value):
            yield test
    for key, inner in schema.get("properties", {}).items():
        yield from _own(inner, f"({value} -> {_literal(key)})")


def _inside(schema: Schema, value: str, depth: int) -> Iterator[tuple[str, str]]:
    """The arrays in a value whose elements the schema describes, each with the search for a wrong one."""
    if items := schema.get("items"):
        row = f"e{depth}"
        wrong = [*_own(items, row), *(search for _, search in _inside(items, row, depth + 1))]
        if wrong:
            elements = f"jsonb_array_elements(case jsonb_typeof({value}) when 'array' then {value} else '[]' end)"
            yield value, f"exists (select 1 from {elements} {row} where {_any(wrong)})"
    for key, inner in schema.get("properties", {}).items():
        yield from _inside(inner, f"({value} -> {_literal(key)})", depth)


def _test(keyword: str, given: Any, schema: Schema, v: str) -> str:
    match keyword:
        case "type":
            return _type(given, v)
        case "enum":
            return _enum(given, v)
        case "const":
            return _enum([given], v)
        case "required":
            return _required(given, v)
        case "additionalProperties":
            return _closed(schema, v)
    return KEYWORDS[keyword].format(v=v, n=repr(given)) if keyword in KEYWORDS else ""


def _type(given: Any, v: str) -> str:
    if _is_plain(given):
        return ""
    plain = ", ".join(_literal(kind) for kind in _kinds(given) if kind != "integer")
    others = f"jsonb_typeof({v}) in ({plain}) or " if plain else ""
    return f"not ({others}{INTEGER.format(v=v)})"


def _enum(given: Any, v: str) -> str:
    choices = ", ".join(f"{_literal(json.dumps(choice))}::jsonb" for choice in given)
    return f"({v} is not null and {v} <> all (array[{choices}]::jsonb[]))"


def _required(given: Any, v: str) -> str:
    return f"case when jsonb_typeof({v}) = 'object' then not {v} ?& {_texts(given)} end" if given else ""


def _closed(schema: Schema, v: str) -> str:
    return f"case when jsonb_typeof({v}) = 'object' then {v} - {_texts(schema.get('properties', {}))} <> '{{}}' end"


def _texts(keys: Any) -> str:
    return f"array[{', '.join(map(_literal, keys))}]::text[]"


def _any(tests: list[str]) -> str:
    return " or ".join(f"coalesce({test}, false)" for test in tests)


def _literal(text: str) -> str:
    quoted = "'" + text.replace("'", "''") + "'"
    return f"E{quoted.replace(chr(92), chr(92) * 2)}" if "\\" in text else quoted
