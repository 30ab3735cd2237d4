"""The coordinator of the demo: hands out the files, watches the work, and kills one of the workers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from bus_client import Agent

from bus.api import Bus
from bus.errors import BusError, error
from bus_cli.demonstration.display import Screen
from bus_cli.demonstration.plan import Plan
from bus_cli.demonstration.team import COORDINATOR, HOLDING, KINDS, PAUSES_AT, SESSION, TYPE, VICTIM, Team

PATIENCE = 20  # seconds without any news after which something must be wrong


class Outcome(NamedTuple):
    """What came of it: agent → task id → result; messages that went over the bus; who was killed at which message."""

    results: Mapping[str, Mapping[str, str]]
    kinds: Mapping[str, str]
    messages: int
    killed: str
    redelivered: int
    finisher: str | None


class Coordinator:
    """The agent `coordinator` on a new bus."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self._plan = plan
        self._bus = Bus.open(str(path), create=True)
        self._agent = Agent(COORDINATOR, type="milestone-coordinator", session=SESSION, bus=self._bus, milestone="demo")
        self._in_hand = 0

    def __enter__(self) -> Self:
        self._agent.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._agent.__exit__(*problem)
        self._bus.close()

    def work(self, team: Team, screen: Screen) -> Outcome:
        """Hand out the tasks, kill one executor, follow the others, and end them; what came of it."""
        for task in self._plan.tasks:
            assignment = {"task_id": task.id, "title": task.path.name, "context": {"path": str(task.path)}}
            self._agent.send(f"@{TYPE}", "task_assignment", assignment, priority=task.priority)
        self._start(team, screen)
        self._follow(team, screen)
        for agent in KINDS:
            if agent != VICTIM:
                self._agent.send(agent, "phase_transition", {"to_phase": "done"})
        team.wait(10)
        return self._outcome()

    def _start(self, team: Team, screen: Screen) -> None:
        """Start the victim; when it says that it is in the middle of a file, start the others and kill it."""
        team.start(VICTIM, min(PAUSES_AT, len(self._plan.tasks)))
        holding = self._bus.state_watch(VICTIM, HOLDING, after=0, wait=PATIENCE)
        if not holding:
            raise self._stuck(team.failed() or f"{VICTIM} does not begin")
        self._in_hand = int(holding[0].partition(".")[0])
        for agent in KINDS:
            if agent != VICTIM:
                team.start(agent)
        team.kill(VICTIM)
        screen.killed(VICTIM, self._in_hand)

    def _follow(self, team: Team, screen: Screen) -> None:
        done: set[str] = set()
        while len(done) < len(self._plan.tasks):
            news = self._agent.receive(limit=100, wait=PATIENCE)
            if not news:
                raise self._stuck(team.failed() or "nobody reports any progress")
            self._agent.ack([message.receipt or "" for message in news])
            for message in news:
                done.add(str(message.payload["task_id"]))
                screen.advance(message.from_agent)

    def _stuck(self, why: str) -> BusError:
        return error("fault", f"the demo can't go on: {why}", f"see the logs in {self.path.parent}")

    def _outcome(self) -> Outcome:
        results = {agent: self._results(agent) for agent in KINDS}
        task = str(self._bus.message(self._in_hand).payload["task_id"])
        finisher = next((agent for agent, done in results.items() if task in done), None)
        count = sum(self._bus.status()["messages"].values())
        return Outcome(results, KINDS, count, VICTIM, self._in_hand, finisher)

    def _results(self, agent: str) -> dict[str, str]:
        saved = self._bus.state_list(agent, prefix="file/")
        return {value.state_key.removeprefix("file/"): value.state_value for value in saved}
