"""The Python executor of the demo: python -m bus_cli.demonstration.executor AGENT, with BUS_URL set."""

from __future__ import annotations

import sys
from pathlib import Path

from bus_client import Agent

from bus_cli.demonstration.plan import measure
from bus_cli.demonstration.team import COORDINATOR, SESSION, TYPE


def main(name: str) -> None:
    """Take tasks until the coordinator says that all is done; each file is one step."""
    with Agent(name, type=TYPE, session=SESSION, milestone="demo", capabilities=["python"]) as agent:
        for message in agent.messages(wait="5m"):
            if message.message_type == "phase_transition":
                return
            task = message.payload["task_id"]
            with agent.step(message) as step:
                step.state.save(f"file/{task}", measure(Path(message.payload["context"]["path"])))
                step.send(COORDINATOR, "progress_update", {"task_id": task, "progress": 100})


if __name__ == "__main__":
    main(sys.argv[1])
