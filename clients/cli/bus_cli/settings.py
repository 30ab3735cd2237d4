"""The commands of types and of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from bus.errors import error
from bus_cli.arguments import given
from bus_cli.numbers import NumberLast, plain
from bus_cli.output import Output, command
from bus_cli.text import ascii_json

KINDS = click.Choice(["agent", "message", "state", "operation"])


@click.group()
@command
def types(out: Output) -> None:
    """The types of agents, messages, state and operations."""


@types.command("list")
@click.argument("kind", required=False, type=KINDS)
@command
def list_types(out: Output, kind: str | None) -> None:
    """The types, of one KIND or of all."""
    with out.open() as bus:
        found = bus.types_list(kind=kind)
    rows = [(t.kind, t.name, t.description, ascii_json(t.definition) if t.definition else None) for t in found]
    out.table(found, ("kind", "name", "description", "schema or artifacts"), rows)


@types.command()
@click.argument("kind", type=KINDS)
@click.argument("name")
@click.option("--description", help="What it is.")
@click.option("--schema", type=click.Path(), metavar="FILE|-", help="message: the JSON Schema of its payload.")
@click.option(
    "--artifact", "artifacts", multiple=True, metavar="KEY[=WEIGHT]", help="operation: a state key it promises."
)
@command
def add(
    out: Output, kind: str, name: str, description: str | None, schema: str | None, artifacts: tuple[str, ...]
) -> None:
    """Add a type, or change one: what you don't give stays as it is. The database refuses types that are not listed."""
    options: dict[str, Any] = {
        "schema": None if schema is None else _text(schema),
        "artifacts": _weights(artifacts) if artifacts else None,
    }
    with out.open() as bus:
        bus.types_add(kind, name, description=description, **options)
    out.show({"added": name})


def _text(schema: str) -> str:
    if schema == "-" or schema.lstrip().startswith("{"):
        return given(schema)
    try:
        return Path(schema).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise error("usage", f"the schema {schema} can't be read: {problem}", "name a file of JSON") from problem


def _weights(artifacts: tuple[str, ...]) -> list[str] | dict[str, float]:
    if not any("=" in artifact for artifact in artifacts):
        return list(artifacts)
    try:
        weights = {key: plain(weight) for key, weight in (artifact.split("=") for artifact in artifacts)}
    except ValueError as problem:
        raise error("usage", "an artifact is KEY=WEIGHT", "give a weight to each, or to none") from problem
    if len(weights) < len(artifacts):
        raise error("usage", "an artifact is named twice", "name each once")
    return weights


@click.group()
@command
def config(out: Output) -> None:
    """The settings that every agent of the bus shares."""


@config.command("list")
@command
def list_settings(out: Output) -> None:
    """The settings."""
    with out.open() as bus:
        found = bus.config_list()
    out.table(found, ("key", "value", "what it is"), [(s.key, s.value, s.description) for s in found])


@config.command("set", cls=NumberLast)
@click.argument("key")
@click.argument("value")
@command
def set_(out: Output, key: str, value: str) -> None:
    """Change a setting."""
    with out.open() as bus:
        bus.config_set(key, value)
    out.show({"key": key, "value": value})
