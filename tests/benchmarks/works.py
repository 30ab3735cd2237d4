"""The works by name, in the order they are run."""

from __future__ import annotations

from collections.abc import Callable

from tests.benchmarks import doors, mixed, reports, size, traffic, values, waiting
from tests.benchmarks.figures import Figure, Run

WORKS: dict[str, Callable[[Run], list[Figure]]] = {
    "W1": traffic.one_by_one,  # with W1', W5 and W7
    "W2": traffic.crowd,
    "W3": waiting.wake_up,
    "W4": size.claims,
    "W6": doors.processes,
    "W8": size.long_run,
    "W9": values.state_and_checkpoints,
    "mixed": mixed.beside_shells,
    "reports": reports.figures,  # of agents' lives; with recording
}
WITH = {"W1'": "W1", "W5": "W1", "W7": "W1", "recording": "reports"}


def chosen(names: str) -> list[str]:
    """The works of a list such as `W1,W4`; all of none."""
    wanted = {WITH.get(name.strip(), name.strip()) for name in names.split(",") if name.strip()}
    if unknown := wanted - set(WORKS):
        raise SystemExit(f"there is no work {', '.join(sorted(unknown))}; there are {', '.join([*WORKS, *WITH])}")
    return [name for name in WORKS if not wanted or name in wanted]
