"""What `help` and `inspect` tell of a function that passes its arguments to another: worked out when they ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import inspect

MADE = r"(?:Operation|Steps|Routine)\[(.*)\]"  # what a store makes its result of


class Told:
    """Stands behind a function, as its `__wrapped__`, for the one it passes its arguments to. `given` of these it gives
    by itself; a method has `self` instead. `result` is what it returns, when that is another thing."""

    __slots__ = ("_given", "_method", "_other", "_result")

    def __init__(
        self, other: Callable[[], Callable[..., Any]], given: int = 0, method: bool = False, result: str | None = None
    ) -> None:
        self._other = other
        self._given = given
        self._method = method
        self._result = result

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return self._other()

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect
        import re

        found = inspect.signature(self._other())
        itself = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)] if self._method else []
        made = re.fullmatch(MADE, str(found.return_annotation))
        return found.replace(
            parameters=[*itself, *list(found.parameters.values())[self._given :]],
            return_annotation=self._result or (made[1] if made else found.return_annotation),
        )


def tell(method: Callable[..., Any], other: Callable[..., Any], given: int = 0, result: str | None = None) -> None:
    """Let a method be told of as the function that it passes its arguments to: name, docstring and parameters."""
    method.__name__ = other.__name__
    method.__doc__ = other.__doc__
    method.__dict__["__wrapped__"] = Told(lambda: other, given, True, result)
