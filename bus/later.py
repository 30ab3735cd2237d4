"""The nouns that most callers never touch: each is imported when an operation of it is first called."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bus.errors import of_system
from bus.signatures import Told


class _Later:
    """A module that is not there yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        def operation(*args: object, **kwargs: object) -> Any:
            return getattr(self._module(), verb)(*args, **kwargs)

        operation.__name__ = verb
        operation.__doc__ = f"See `help('{self._name}.{verb}')`."
        operation.__dict__["__wrapped__"] = Told(lambda: getattr(self._module(), verb))
        return operation

    def _module(self) -> Any:
        try:
            return importlib.import_module(self._name)
        except OSError as problem:
            raise of_system(problem, self._name) from problem


_AT_ONCE = False
if _AT_ONCE:  # as a type checker sees it; under TYPE_CHECKING it would read them too late to know their types
    from bus import copying as copying
    from bus import doctor as doctor
    from bus import exports as exports
    from bus import lifecycle as lifecycle
    from bus import metrics as metrics
    from bus import milestones as milestones
    from bus import monitor as monitor
    from bus import overview as overview
    from bus import recovery as recovery
    from bus import reports as reports
    from bus import trace_import as trace_import
    from bus import types as types
else:
    LATER = (
        "copying",
        "doctor",
        "exports",
        "lifecycle",
        "metrics",
        "milestones",
        "monitor",
        "overview",
        "recovery",
        "reports",
        "trace_import",
        "types",
    )
    globals().update({name: _Later(f"bus.{name}") for name in LATER})
