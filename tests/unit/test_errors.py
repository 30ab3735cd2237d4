"""Errors as values."""

import copy
import pickle

import pytest

from bus.errors import BusError, error


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda problem: pickle.loads(pickle.dumps(problem))])
def test_a_copy_of_an_error_tells_all_that_it_told(again: object) -> None:
    problem = error("busy", "words", "advice")
    problem.index = 3
    found = again(problem)  # type: ignore[operator]
    assert type(found) is type(problem)
    assert isinstance(found, BusError)
    assert (found.code, found.message, found.hint, found.index) == ("busy", "words", "advice", 3)
