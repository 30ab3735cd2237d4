"""`bus run`: a command as a traced agent.

The process is forked before the bus is opened and held back until its record is written; so nothing it does comes
before its record, and a record that can't be written stops it before it does anything.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import click

from bus import Bus, agents, lifecycle, liveness, trace_context
from bus.errors import BusError, error
from bus.operation import Operation
from bus_cli.child import Child
from bus_cli.interpreter import PYTHON
from bus_cli.output import Output, command, fail, note

KEPT = ("type", "task", "task_type", "priority", "worktree", "metadata")  # options of a command that is run again
ASKED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)  # who ends of another signal has failed, and can be recovered


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("--type", required=True, help="The agent's type.")
@click.option("--task", required=True, help="The id of what it works on.")
@click.option("--task-type", help="What kind of task that is.")
@click.option("--priority", help="The task's priority, as it is written: 7, 1.5, 042, or a word.")
@click.option("--session", envvar="BUS_SESSION", help="Registers it in this session (else $BUS_SESSION), too.")
@click.option("--agent", help="Its id (else, in a session, its type and the number of its record).")
@click.option("--worktree", help="Where it works (else the working directory).")
@click.option("--metadata", metavar="JSON", help="Anything else to be kept on record.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
@command
def run(out: Output, words: tuple[str, ...], **options: Any) -> int:
    """Run COMMAND, and keep its life on record.

    Kept are its start, its end, the last part of its output, and its exit status, which is also that of `bus run`;
    126: it can't be run, 127: there is no such command. Signals are passed on to it. Nobody reads what processes print
    that it leaves in the background: send that to a file. It finds the bus in $BUS_URL, its
    record in $BUS_TRACE, and in $BUS_AGENT, $BUS_AGENT_TYPE and $BUS_SESSION who it is: never who runs it.
    """
    child = Child(words)
    try:
        with out.open() as bus:
            return Run(bus, child, words, options).carry_out(out)
    finally:
        child.abandon()


class Run:
    """One command and its record."""

    def __init__(self, bus: Bus, child: Child, words: Sequence[str], options: dict[str, Any]) -> None:
        self.bus = bus
        self.child = child
        self.process = liveness.identity(child.pid)
        self.session, self.type = options["session"], options["type"]
        self.name, self.words = lifecycle.shown(words[:1]), lifecycle.shown(words)
        self.parent = trace_context.parse(trace_context.surrounding())
        worktree = lifecycle.readable(options["worktree"] or os.getcwd())
        told = {**options, "worktree": worktree, "traceparent": trace_context.surrounding()}
        launch = _alone(bus) if self.session is None else partial(bus.trace_launch, again=_again(words, options))
        self.id, self.agent = launch(told.pop("type"), told.pop("task"), pid=child.pid, command=self.words, **told)

    def carry_out(self, out: Output) -> int:
        """Let the command run to its end; its exit status."""
        try:
            problem = self.child.release(self._environment())
        except BaseException as unforeseen:
            self._abort(str(unforeseen) or type(unforeseen).__name__)
            raise
        if problem:
            return self._not_started(out, problem)
        self._record(out, [lifecycle.start(self.id, agent=self.agent or None)])
        status = self.child.wait()
        if unwritten := self.child.unwritten():
            note(f"bus: not all that {self.name} printed could be passed on: {unwritten.strerror}")
        self._record(out, self._ending(status))
        return lifecycle.KILLED - status if status < 0 else status

    def _environment(self) -> dict[str, str]:
        """Ours, but for who it is: not the agent that runs it."""
        context = trace_context.life(self.bus.config_get("bus_id"), self.id, self.session, self.parent)
        own = {
            "BUS_URL": self.bus.url.address(),
            "BUS_TRACE": str(self.id),
            "TRACEPARENT": context.header(),
            "BUS_AGENT": self.agent or None,
            "BUS_AGENT_TYPE": self.type,
            "BUS_SESSION": self.session,
        }
        return {key: value for key, value in {**os.environ, **own}.items() if value is not None}

    def _not_started(self, out: Output, number: int) -> int:
        missing = number in (errno.ENOENT, errno.ENOTDIR)
        words = f"{self.name} can't be run: {os.strerror(number)}"
        self._abort(words, exit_code=127 if missing else 126)
        fail(error("usage", words, "name a command that is there"), out.as_json)
        return 127 if missing else 126

    def _abort(self, words: str, exit_code: int | None = None) -> None:
        """Record that the command never ran."""
        self.bus.trace_abort(self.id, error=words, exit_code=exit_code)
        if self.session:
            self.bus.retire(self.agent, status="failed")

    def _ending(self, status: int) -> list[Operation[Any]]:
        killed, exit_code = status < 0, lifecycle.KILLED - status if status < 0 else status
        words = f"killed by {_signal_name(-status)}" if killed else f"exit status {status}" if status else None
        state = "killed" if killed else "failed" if status else "completed"
        ended = lifecycle.finish(
            self.id, exit_code=exit_code, status=state, error=words, output=self.child.tail() or None
        )
        if not self.session:
            return [ended]
        asked = killed and -status in ASKED
        status_then = "terminated" if asked else "failed" if status else "completed"
        # In this order, as everybody takes their locks: the registry's row before the record's.
        return [agents.retire_process(self.agent, process=self.process, status=status_then), ended]

    def _record(self, out: Output, operations: list[Operation[Any]]) -> None:
        """Write to the bus while the command runs, or after it: what fails then is told, and stops nothing."""
        try:
            self.bus.apply(operations)
        except BusError as problem:
            fail(problem, out.as_json)


def _again(words: Sequence[str], options: Mapping[str, Any]) -> str:
    """How `recover --respawn` runs it again: on record, here, as the agent that BUS_AGENT and BUS_SESSION tell."""
    given = [f"--{name.replace('_', '-')}={options[name]}" for name in KEPT if options[name] is not None]
    bus = lifecycle.shown([*PYTHON, "-m", "bus_cli", "run", *given])
    return f'cd {lifecycle.shown([os.getcwd()])} && exec {bus} --agent "$BUS_AGENT" -- {lifecycle.shown(words)}'


def _alone(bus: Bus) -> Callable[..., tuple[int, str]]:
    """Outside of all sessions there is a record, and no entry in the registry."""

    def launch(type: str, task: str, *, agent: str | None, **told: Any) -> tuple[int, str]:
        return bus.trace_spawn(type, task, agent=agent, **told), agent or ""

    return launch


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
