"""Numbers as the command line takes them: in plain digits. Python itself would read 1_0, ٣ and nan as well."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import click
from click.types import IntParamType

from bus import inputs

_WHOLE = r"-?[0-9]+"
_NUMBER = r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_NEGATIVE = r"-\.?[0-9]"  # how it begins


class Whole(IntParamType):
    """A whole number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch(_WHOLE, value):
            self.fail(f"{value!r} is not a whole number.", param, ctx)
        return super().convert(value, param, ctx)


class Number(click.FloatRange):
    """A number within bounds."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, str) and not re.fullmatch(_NUMBER, value):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return super().convert(value, param, ctx)


class NumberLast(click.Command):
    """A command whose last argument may be a negative number, which click takes for an option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        taking = {name for option in self.params for name in option.opts if not getattr(option, "is_flag", True)}
        given = [
            place
            for place, (before, word) in enumerate(pairwise(["", *args]))
            if before not in taking and (not word.startswith("-") or word == "-" or re.match(_NEGATIVE, word))
        ]
        if given and re.match(_NEGATIVE, args[given[-1]]) and "--" not in args:
            args = [*args[: given[-1]], *args[given[-1] + 1 :], "--", args[given[-1]]]
        return super().parse_args(ctx, args)


def plain(text: str) -> float:
    """A number in plain digits. Raises `ValueError`."""
    if not re.fullmatch(_NUMBER, text):
        raise ValueError(f"{text!r} is not a number")
    return float(text)


WHOLE = Whole()
NUMBER = Number()
NUMBER_OF_DAYS = Number(0, inputs.MOST_DAYS, min_open=True)
