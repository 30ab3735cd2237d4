"""Types: the enums of the bus, as rows, so that a project can add its own and all else is still refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bus import inputs, payloads, salvage
from bus.errors import error
from bus.models import Type
from bus.operation import Operation, Query, Statement, Steps, reading, writing

_KEY = re.compile(r"[A-Za-z0-9_:/][A-Za-z0-9._:@/-]{0,127}")
KINDS = ("agent", "message", "operation", "state")


@reading
def list_(*, kind: str | None = None) -> Steps[list[Type]]:
    """The types, by kind and name: agent, message, operation, state."""
    if kind is not None:
        _check_kind(kind)
    rows = yield Query("types/list", {})
    return [
        Type(row[0], row[1], salvage.text(row[2]), salvage.document(row[3]) if row[3] else None)
        for row in rows
        if kind in (None, row[0])
    ]


def add(
    kind: str,
    name: str,
    *,
    description: str | None = None,
    schema: Mapping[str, Any] | str | None = None,
    artifacts: Sequence[str] | Mapping[str, float] | None = None,
) -> Operation[None]:
    """Add a type, or change one: what is None stays as it is.

    A message type takes a payload `schema`, compiled into the database's checks: raises `invalid_schema` for keywords
    that can't be. An operation type takes the `artifacts` it promises: state keys, with their weights (above 0, to a
    million) or all alike: raises `invalid_key`, `invalid_value`. On PostgreSQL only the owner of the tables may add a
    message type: raises `not_allowed`. Raises `usage` for what is of another kind.
    """
    _check_kind(kind)
    if (schema is not None and kind != "message") or (artifacts is not None and kind != "operation"):
        raise error("usage", "a schema is for message types, artifacts are for operation types")
    given = {"name": inputs.name(name), "description": inputs.words(description)}
    if kind == "message":
        return _add_message(given, None if schema is None else _schema(schema))
    weighed = None if artifacts is None else _weighed(artifacts)
    return _add(kind, {**given, "artifacts": weighed} if kind == "operation" else given)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise error("usage", f"no kind of type is called {str(kind)[:40]!r}", f"the kinds are {', '.join(KINDS)}")


@writing
def _add(kind: str, parameters: Mapping[str, object]) -> Steps[None]:
    yield Query(f"types/add_{kind}", parameters)


@writing
def _add_message(given: Mapping[str, object], schema: Mapping[str, Any] | None) -> Steps[None]:
    yield Query("types/add_message", {**given, "schema": None if schema is None else json.dumps(schema)})
    if schema is not None:
        name = str(given["name"])
        checks = payloads.triggers(name, schema)
        yield Statement(payloads.drop(name))
        yield Statement(checks)


def _schema(given: Mapping[str, Any] | str) -> Mapping[str, Any]:
    text = inputs.document(given)
    try:
        found = json.loads(text, object_pairs_hook=inputs.distinct)
    except ValueError as problem:
        raise error("invalid_json", f"the schema is not JSON: {problem}") from problem
    if not isinstance(found, dict):
        raise error("invalid_schema", "a payload schema is a JSON object")
    return {"type": "object", **found}


def _weighed(artifacts: Sequence[str] | Mapping[str, float]) -> str:
    if isinstance(artifacts, str) or not isinstance(artifacts, Iterable):
        raise error("invalid_key", "artifacts are a list of state keys, or such keys with their weights")
    keys = list(artifacts)
    if not all(isinstance(key, str) and _KEY.fullmatch(key) for key in keys) or len(set(keys)) < len(keys):
        raise error("invalid_key", "artifacts are different state keys")
    weights = [artifacts[key] if isinstance(artifacts, Mapping) else 100 / len(keys) for key in keys]
    if not all(inputs.is_number(weight) and 0 < weight <= 1e6 for weight in weights):
        raise error("invalid_value", "the weight of an artifact is a number above 0, at most a million")
    return json.dumps([{"key": key, "weight": weight} for key, weight in zip(keys, weights, strict=True)])
