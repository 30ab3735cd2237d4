"""The coordinator of the demo: hands out the files, watches the work, and kills one of the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from bus_client import Agent

from bus.api import Bus
from bus.errors import BusError, error
from bus.models import Message
from bus_cli.demonstration.display import Screen
from bus_cli.demonstration.plan import Plan
from bus_cli.demonstration.team import COORDINATOR, KINDS, SESSION, TYPE, VICTIM, Team

PATIENCE = 60  # seconds without any news after which something must be wrong
PAUSES_AT = 5  # the task in whose middle the victim stops, to be killed there
AT_ONCE = 200  # tasks sent in one transaction


class Outcome(NamedTuple):
    """What came of it: agent → task id → what it saved, messages that went over the bus, the message that came back,
    who finished it, and what the bus says against it."""

    results: Mapping[str, Mapping[str, str]]
    messages: int
    redelivered: Message
    finisher: str | None
    wrong: list[str]


class Coordinator:
    """The agent `coordinator` on a new bus."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path = path
        self._plan = plan
        self._bus = Bus.open(str(path), create=True)
        self._agent = Agent(COORDINATOR, type="milestone-coordinator", session=SESSION, bus=self._bus, milestone="demo")
        self._reports: Counter[str] = Counter()
        self._in_hand: int | None = None  # the message that the victim holds, or held
        self._killed = False

    def __enter__(self) -> Self:
        self._agent.__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        self._agent.__exit__(*problem)
        self._bus.close()

    def work(self, team: Team, screen: Screen) -> Outcome:
        """Hand out the tasks, kill one executor, follow the others, and end them; what came of it."""
        self._assign()
        # First the victim alone: where there are few files, the others would leave it none to be killed in.
        self._start(VICTIM, team, screen, min(PAUSES_AT, len(self._plan.tasks)))
        while len(self._reports) < len(self._plan.tasks):
            for message in self._news(team):
                self._note(message, team, screen)
            if self._in_hand and not self._killed and len(self._reports) >= len(self._plan.tasks) // 4:
                self._kill(team, screen)
        self._finish(team, screen)
        return self._outcome(team)

    def _assign(self) -> None:
        tasks = self._plan.tasks
        for first in range(0, len(tasks), AT_ONCE):
            with self._agent.step() as step:
                for task in tasks[first : first + AT_ONCE]:
                    step.send(f"@{TYPE}", "task_assignment", task.assignment, priority=task.priority)

    def _start(self, agent: str, team: Team, screen: Screen, pause: int = 0) -> None:
        team.start(agent, pause)
        screen.becomes(agent, "working")

    def _news(self, team: Team) -> list[Message]:
        for _ in range(PATIENCE):
            if news := self._agent.receive(limit=100, wait=1, ack=True):
                return news
            if failures := team.failures():
                raise self._stuck(failures[0])
        raise self._stuck("nobody reports any progress")

    def _stuck(self, why: str) -> BusError:
        return error("fault", f"the demo can't go on: {why}", f"see the logs in {self.path.parent}")

    def _note(self, message: Message, team: Team, screen: Screen) -> None:
        """A file is done; or the victim says that it is in the middle of one, and the others begin."""
        report = message.payload
        if report.get("progress") == 100:
            self._reports[report["task_id"]] += 1
            screen.advance(message.from_agent)
            return
        self._in_hand = int(report["message"].partition(".")[0])
        screen.becomes(VICTIM, f"in the middle of message {self._in_hand}")
        for agent in KINDS:
            if agent != VICTIM:
                self._start(agent, team, screen)

    def _kill(self, team: Team, screen: Screen) -> None:
        team.kill(VICTIM)
        self._killed = True
        screen.becomes(VICTIM, f"killed (SIGKILL) in the middle of message {self._in_hand}", "red")

    def _finish(self, team: Team, screen: Screen) -> None:
        others = [agent for agent in KINDS if agent != VICTIM]
        for agent in others:
            self._agent.send(agent, "phase_transition", {"to_phase": "done"})
        for agent in others:
            if team.ended(agent, within=10):
                screen.becomes(agent, "finished")

    def _outcome(self, team: Team) -> Outcome:
        results = {agent: self._results(agent) for agent in KINDS}
        redelivered = self._bus.message(self._in_hand or 0)
        finisher = next((agent for agent in KINDS if redelivered.payload["task_id"] in results[agent]), None)
        tasks = self._bus.messages(to=f"@{TYPE}", limit=len(self._plan.tasks) + 1)
        wrong = team.failures() + unsettled(tasks, self._reports)
        return Outcome(results, sum(self._bus.status()["messages"].values()), redelivered, finisher, wrong)

    def _results(self, agent: str) -> dict[str, str]:
        saved = self._bus.state_list(agent, prefix="file/")
        return {value.state_key.removeprefix("file/"): value.state_value for value in saved}


def unsettled(tasks: Iterable[Message], reports: Mapping[str, int]) -> list[str]:
    """The tasks that were not acknowledged and reported exactly once; acknowledgement and report are one step."""
    wrong = []
    for message in tasks:
        times = reports.get(message.payload["task_id"], 0)
        if message.status != "acknowledged" or times != 1:
            wrong.append(f"message {message.id} is {message.status}, and was reported {times} times")
    return wrong
