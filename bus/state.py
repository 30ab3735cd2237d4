"""State: an agent's keyed values, readable by every agent. Any text is a value; an agent need not be registered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bus import agents, bells, clock, inputs, salvage
from bus.inputs import Duration
from bus.models import StateValue
from bus.operation import Operation, Pause, Query, Ring, Routine, Steps, looking

Versioned = tuple[str, int]


def save(
    agent: str,
    key: str,
    value: str,
    *,
    type: str | None = None,
    ttl: Duration | None = None,
    if_version: int | None = None,
) -> Operation[int]:
    """Keep a value; its version, which starts at 1 and grows.

    `ttl` is how long it lasts (None: for ever). With `if_version` only when that is the present version, 0 for none:
    compare-and-set. Raises `version_conflict`, `unknown_type`, `invalid_id`, `invalid_key`, `invalid_value`.
    """
    parameters: dict[str, object] = {
        "agent": inputs.name(agent),
        "key": inputs.key(key),
        "value": inputs.text(value),
        "type": inputs.words(type),
        "ttl": inputs.duration(ttl),
        "beaten": True,
        "if_version": None if if_version is None else inputs.whole("if_version", if_version, 0),
    }
    if if_version is None:
        parameters["anyhow"] = True
    return Operation(partial(_save, parameters), writes=True, closing="state/save")


def _save(parameters: Mapping[str, object]) -> Steps[int]:
    ((version,),) = yield Query("state/save", parameters)
    yield agents.at_work(str(parameters["agent"]))
    yield Ring([bells.of_state(str(parameters["agent"]))])
    return int(version)


@looking
def load(agent: str, key: str) -> Steps[str | None]:
    """The value under a key; None when there is none or its time is over."""
    rows = yield Query("state/load", {"agent": inputs.name(agent), "key": inputs.key(key)})
    return str(rows[0][0]) if rows else None


@looking
def load_versioned(agent: str, key: str) -> Steps[Versioned | None]:
    """The value under a key and its version, as a pair, for `save(…, if_version=…)`; None when there is none."""
    rows = yield Query("state/load", {"agent": inputs.name(agent), "key": inputs.key(key)})
    return (str(rows[0][0]), int(rows[0][1])) if rows else None


@looking
def list_(agent: str, *, prefix: str | None = None) -> Steps[list[StateValue]]:
    """The values of an agent, by key; those whose key begins with `prefix`."""
    rows = yield Query("state/list", {"agent": inputs.name(agent), "prefix": inputs.words(prefix)})
    return [salvage.record(row[0], StateValue) for row in rows]


def delete(agent: str, key: str) -> Operation[bool]:
    """Forget a value; whether there was one."""
    parameters = {"agent": inputs.name(agent), "key": inputs.key(key), "beaten": True}
    return Operation(partial(_delete, parameters), writes=True)


def _delete(parameters: Mapping[str, object]) -> Steps[bool]:
    rows = yield Query("state/delete", parameters)
    yield agents.at_work(str(parameters["agent"]))
    yield Ring([bells.of_state(str(parameters["agent"]))])
    return bool(rows)


def watch(agent: str, key: str, *, after: int | None = None, wait: Duration) -> Routine[Versioned | None]:
    """Wait until a key has another version than `after` (None: than now; 0: than none), at most so long.

    The value and its version, or None when nothing changed in time or the value is gone.
    """
    end = clock.monotonic() + (inputs.duration(wait) or 0)
    seen = after
    while True:
        found: Versioned | None = yield load_versioned(agent, key)
        version = found[1] if found else 0
        seen = version if seen is None else seen
        left = end - clock.monotonic()
        if version != seen or left <= 0:
            return found if version != seen else None
        yield Pause([bells.of_state(inputs.name(agent))], min(left, 1.0))
