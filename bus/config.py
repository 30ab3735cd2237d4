"""The configuration: settings that every agent of the bus shares."""

from __future__ import annotations

from bus import clock, inputs
from bus.models import Setting
from bus.operation import Query, Steps, looking, writing


@looking
def list_() -> Steps[list[Setting]]:
    """The settings, by key."""
    return [Setting(*row) for row in (yield Query("config/list", {}))]


@writing
def set_(key: str, value: str) -> Steps[None]:
    """Change a setting. Raises `unknown_setting`, and `invalid_value` for words where a number belongs."""
    yield Query("config/set", {"key": inputs.text(key), "value": inputs.text(value)})


def now() -> Steps[float]:
    """This moment in seconds since 1970, by the clock of the bus: that of its server, where it has one."""
    ((moment,),) = yield Query("bus/now", {})
    return clock.parse(moment)


def number(key: str) -> Steps[float]:
    """A setting that is a number."""
    ((value,),) = yield Query("config/get", {"key": key})
    return float(value)
