"""The Python executor of the demo: python -m bus_cli.demonstration.executor AGENT COORDINATOR_PID, with BUS_URL set."""

from __future__ import annotations

import os
import sys

from bus_client import Agent

from bus_cli.demonstration.plan import measure, path_of
from bus_cli.demonstration.team import COORDINATOR, SESSION, TYPE


def main(name: str, coordinator: int) -> None:
    """Take tasks until the coordinator says that all is done, or is gone; each file is one step."""
    with Agent(name, type=TYPE, session=SESSION, milestone="demo", capabilities=["python"]) as agent:
        while os.getppid() == coordinator:
            for message in agent.messages(wait="2s"):
                if message.message_type == "phase_transition":
                    return
                if os.getppid() != coordinator:
                    raise SystemExit("the coordinator is gone")
                task = message.payload["task_id"]
                with agent.step(message) as step:
                    step.state.save(f"file/{task}", str(measure(path_of(message.payload["context"]["uri"]))))
                    step.send(COORDINATOR, "progress_update", {"task_id": task, "progress": 100})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
