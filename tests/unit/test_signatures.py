"""Methods that are made from operations are told of as if they had been written."""

import inspect
import pydoc
import re

import pytest
from bus_client import Agent, AsyncAgent, Step

from bus import AsyncBus, Bus, messages


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (Bus.state_load, "(self, /, agent: 'str', key: 'str') -> 'str | None'"),
        (AsyncBus.state_load, "(self, /, agent: 'str', key: 'str') -> 'str | None'"),
        (Bus.session_show, "(self, /, session: 'str') -> 'Session'"),
        (Bus.trace_show, "(self, /, id: 'int') -> 'Lifecycle'"),  # of a module that is imported later
        (Bus.trace_active, "(self, /) -> 'list[Active]'"),
        (Agent.pending, "(self, /, *, limit: 'int' = 10000) -> 'list[Message]'"),
        (AsyncAgent.pending, "(self, /, *, limit: 'int' = 10000) -> 'list[Message]'"),
    ],
)
def test_a_method_has_the_parameters_of_its_operation(method: object, told: str) -> None:
    assert callable(method)
    assert str(inspect.signature(method)) == told


def test_a_step_gives_the_agent_by_itself() -> None:
    of_step, of_operation = (list(inspect.signature(of).parameters) for of in (Step.broadcast, messages.broadcast))
    assert (of_step[0], of_operation[0], of_step[1:]) == ("self", "sender", of_operation[1:])
    assert inspect.signature(Step.send).return_annotation == "None"  # whatever the operation returns


def test_what_is_bound_has_no_self_and_help_shows_it() -> None:
    with Bus.open(":memory:", create=True) as bus:
        assert "self" not in inspect.signature(bus.send).parameters
        told = " ".join(pydoc.plain(pydoc.render_doc(bus.send)).replace("'", "").split())  # 3.14 breaks lines
        assert re.search(r"\bsend\( ?sender: str, to: str, type: str", told)
    assert "def send(" in inspect.getsource(Bus.send)
