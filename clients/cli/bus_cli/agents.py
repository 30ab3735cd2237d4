"""The commands of agents."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from bus.errors import error
from bus_cli.arguments import me
from bus_cli.numbers import WHOLE
from bus_cli.output import Output, command


@click.command()
@click.argument("agent", required=False)
@click.option(
    "--type", envvar="BUS_AGENT_TYPE", required=True, help="Its type (else $BUS_AGENT_TYPE): `bus types list`."
)
@click.option(
    "--session", envvar="BUS_SESSION", required=True, help="Its session (else $BUS_SESSION), made when it is new."
)
@click.option("--milestone", envvar="BUS_MILESTONE", help="The milestone it works on (else $BUS_MILESTONE).")
@click.option("--capability", "listed", multiple=True, metavar="C", help="Something it can do; may be repeated.")
@click.option("--capabilities", metavar="JSON", help="All it can do, as a JSON array.")
@click.option(
    "--operation",
    help="The operation type of the session (else, of a new one: planning for those who plan, execution).",
)
@click.option(
    "--pid",
    type=WHOLE,
    help="A process that lives as long as the agent; when it ends, what the agent leased goes back.",
)
@click.option("--command", metavar="CMD", help="How to start it again.")
@command
def register(out: Output, agent: str | None, listed: tuple[str, ...], capabilities: str | None, **options: Any) -> None:
    """Enter AGENT into the registry. One that is there already is active again, in the session that is named now."""
    if listed and capabilities:
        raise error("usage", "--capability and --capabilities say the same", "give one of them")
    with out.open() as bus:
        found = bus.register(me(agent), capabilities=list(listed) or capabilities, **options)
    out.show(found, f"{found.agent_id} is {found.status} in session {found.session_id}")


@click.command()
@click.argument("agent", required=False)
@click.option("--status", help="spawning, active, paused, completed, failed or terminated.")
@click.option("--task", help="What it is doing.")
@click.option("--phase", help="The phase it is in.")
@command
def heartbeat(out: Output, agent: str | None, **options: Any) -> None:
    """Say that AGENT lives, and what it does."""
    with out.open() as bus:
        out.show(bus.heartbeat(me(agent), **options))


@click.command()
@click.argument("agent", required=False)
@click.option("--capabilities", metavar="JSON", help="All it can do, as a JSON array.")
@click.option("--resource-usage", metavar="JSON", help="What it uses.")
@click.option("--error-info", metavar="JSON", help="What went wrong.")
@click.option("--command", metavar="CMD", help="How to start it again.")
@command
def update(out: Output, agent: str | None, **options: Any) -> None:
    """Change what the registry knows of AGENT."""
    with out.open() as bus:
        out.show(bus.update(me(agent), **options))


@click.command()
@click.argument("agent", required=False)
@click.option("--status", default="completed", show_default=True, help="completed, failed or terminated.")
@command
def retire(out: Output, agent: str | None, status: str) -> None:
    """End AGENT; what it still had leased goes back."""
    with out.open() as bus:
        out.show(bus.retire(me(agent), status=status))


@click.command()
@click.option("--session", help="Of this session.")
@click.option("--living", is_flag=True, help="Only those that have neither ended nor died.")
@command
def agents(out: Output, session: str | None, living: bool) -> None:
    """The registered agents, and who lives (with --json: `life`). The last heard of come first."""
    with out.open() as bus:
        if session is not None:
            bus.session_show(session)
        found = bus.agents(session=session)
        known = [(a, life) for a, life in zip(found, bus.lives(found), strict=True) if not living or life != "dead"]
    columns = ("agent", "type", "session", "status", "life", "task", "last heard of")
    rows = [
        (a.agent_id, a.agent_type, a.session_id, a.status, life, a.current_task, a.last_heartbeat) for a, life in known
    ]
    out.table([{**msgspec.structs.asdict(a), "life": life} for a, life in known], columns, rows)
