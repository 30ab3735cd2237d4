"""The configuration: settings that every agent of the bus shares."""

from __future__ import annotations

from bus import clock, inputs, salvage
from bus.errors import about, error
from bus.models import Setting
from bus.operation import Query, Steps, looking, writing


@looking
def list_() -> Steps[list[Setting]]:
    """The settings, by key."""
    rows = yield Query("config/list", {})
    return [Setting(key, value, salvage.text(description)) for key, value, description in rows]


@looking
def get(key: str) -> Steps[str]:
    """The value of a setting. Raises `unknown_setting`."""
    found = yield Query("config/get", {"key": inputs.text(key)})
    if not found:
        raise about(error("unknown_setting"), {"key": key})
    return str(found[0][0])


@writing
def set_(key: str, value: str) -> Steps[None]:
    """Change a setting. Raises `unknown_setting`, and `invalid_value` for words where a number belongs."""
    yield Query("config/set", {"key": inputs.text(key), "value": inputs.text(value)})


def now() -> Steps[float]:
    """This moment in seconds since 1970, by the clock of the bus: that of its server, where it has one."""
    ((moment,),) = yield Query("bus/now", {})
    return clock.parse(moment)


def text(key: str) -> Steps[str]:
    """A setting. Raises `damaged` when somebody has removed it by hand."""
    for (value,) in (yield Query("config/get", {"key": key})):
        return str(value)
    raise error("damaged", f"the setting {key} is gone", "insert it into agent_coordination_config again")


def number(key: str) -> Steps[float]:
    """A setting that is a number; raises as `text`."""
    return float((yield from text(key)))
