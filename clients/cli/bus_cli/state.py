"""The commands of state."""

from __future__ import annotations

import os
from typing import Any

import click

from bus.errors import error
from bus_cli.arguments import given, me, who
from bus_cli.numbers import WHOLE, NumberLast
from bus_cli.output import Output, command


@click.group()
@command
def state(out: Output) -> None:
    """Keyed values that an agent keeps and every agent may read."""


@state.command(cls=NumberLast)
@click.argument("agent", required=False)
@click.argument("key", required=False, metavar="KEY")
@click.argument("value", required=False)
@click.option("--type", help="The state type (else user_data).")
@click.option("--ttl", metavar="DURATION", help="It is gone after this time.")
@click.option(
    "--if-version", type=WHOLE, metavar="N", help="Only when it has this version; 0: only when there is none."
)
@command
def save(out: Output, agent: str | None, key: str | None, value: str | None, **options: Any) -> None:
    """Keep VALUE under KEY; `-`, or leaving it out, reads it from stdin. Prints its version.

    With $BUS_AGENT set, AGENT may be left out where the value is read from stdin: KEY, or KEY -. Another agent's value
    then needs its place: AGENT KEY VALUE, or AGENT KEY -.
    """
    agent, key = who(agent, key) if value is not None else _who_reads(agent, key)
    text = given(value)
    with out.open() as bus:
        version = bus.state_save(agent, key, text, **options)
    out.show({"version": version}, str(version))


def _who_reads(agent: str | None, key: str | None) -> tuple[str, str]:
    """The agent and the key of a value that is read from stdin. Two words may be AGENT KEY, or KEY VALUE of $BUS_AGENT:
    raises `usage` where the first is not the agent that $BUS_AGENT names, since a guess would store some in the wrong
    place."""
    if key == "-":
        return who(agent)
    if key is not None and os.environ.get("BUS_AGENT") not in (None, "", agent):
        raise error(
            "usage",
            "with BUS_AGENT set, two arguments may be AGENT KEY or KEY VALUE",
            "give AGENT KEY VALUE; the value `-` is read from stdin",
        )
    return who(agent, key)


@state.command()
@click.argument("agent", required=False)
@click.argument("key", required=False, metavar="KEY")
@command
def load(out: Output, agent: str | None, key: str | None) -> int:
    """Print the value under KEY, and a newline. Exit status 1 when there is none."""
    agent, key = who(agent, key)
    with out.open() as bus:
        found = bus.state_load_versioned(agent, key)
    if found:
        out.show({"value": found[0], "version": found[1]}, found[0])
    return 0 if found else 1


@state.command("list")
@click.argument("agent", required=False)
@click.option("--prefix", help="Only keys that begin so.")
@command
def list_(out: Output, agent: str | None, prefix: str | None) -> None:
    """The values of AGENT, by key."""
    with out.open() as bus:
        found = bus.state_list(me(agent), prefix=prefix)
    rows = [(v.state_key, v.state_type, v.version, v.updated_at, v.expires_at, _short(v.state_value)) for v in found]
    out.table(found, ("key", "type", "version", "saved", "expires", "value"), rows)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


@state.command()
@click.argument("agent", required=False)
@click.argument("key", required=False, metavar="KEY")
@command
def delete(out: Output, agent: str | None, key: str | None) -> int:
    """Forget the value under KEY; exit status 1 when there was none."""
    agent, key = who(agent, key)
    with out.open() as bus:
        gone = bus.state_delete(agent, key)
    out.show({"deleted": gone})
    return 0 if gone else 1


@state.command()
@click.argument("agent", required=False)
@click.argument("key", required=False, metavar="KEY")
@click.option("--after", type=WHOLE, metavar="VERSION", help="Until it has another version than this (else than now).")
@click.option("--wait", metavar="DURATION", default="1d", show_default=True, help="So long at most.")
@command
def watch(out: Output, agent: str | None, key: str | None, after: int | None, wait: str) -> int:
    """Wait until the value under KEY changes, and print it. Exit status 1 when it did not in time, or was deleted."""
    agent, key = who(agent, key)
    with out.open() as bus:
        found = bus.state_watch(agent, key, after=after, wait=wait)
    if found:
        out.show({"value": found[0], "version": found[1]}, found[0])
    return 0 if found else 1
