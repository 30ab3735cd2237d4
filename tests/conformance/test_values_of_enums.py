"""Members of enums that are text or numbers, where text and numbers belong."""

import os
from enum import Enum, IntEnum, StrEnum

import pytest

from bus import Bus, agents, messages, state
from bus.operation import Pause, Ring, Routine
from tests.conformance.test_messages import TASK
from tests.conftest import Meanwhile

Mixed = Enum("Mixed", {"BOSS": "boss", "ONE": "one", "TASK": TASK, "KEY": "key", "TYPE": "validation"}, type=str)
Modern = StrEnum("Modern", {member.name: member.value for member in Mixed})
Level = IntEnum("Level", {"FEW": 2, "HIGH": 8})
Weight = Enum("Weight", {"ONE": 1, "HIGH": 8}, type=int)
Part = Enum("Part", {"HALF": 0.5}, type=float)
Written = Enum("Written", {"PAYLOAD": '{"phase": "one"}', "ID": "1"}, type=str)


@pytest.mark.parametrize("names", [Mixed, Modern])
def test_what_an_enum_names_is_meant(team: Bus, names: type[Mixed]) -> None:
    id = team.send(names.BOSS, names.ONE, names.TASK, {"phase": names.KEY}, priority=Level.HIGH)
    (message,) = team.receive(names.ONE)
    assert (message.leased_by, message.priority, message.payload) == ("one", 8, {"phase": "key"})
    assert team.message(id).leased_by == "one"
    team.retire(names.ONE)
    assert team.message(id).status == "ready"
    assert [message.id for message in team.receive("two", limit=Level.FEW)] == []
    assert team.state_save(names.ONE, names.KEY, names.TASK) == 1
    assert team.state_load("one", "key") == TASK


@pytest.mark.parametrize(("waiting", "acting"), [("one", Mixed.ONE), (Mixed.ONE, "one")])
def test_who_is_named_by_an_enum_is_woken(team: Bus, meanwhile: Meanwhile, waiting: str, acting: str) -> None:
    sent = meanwhile(("receive", waiting, {"wait": 60}), ("send", "boss", acting, TASK, {}, {}))
    assert [message.leased_by for message in sent] == ["one"]
    saved = meanwhile(("state_watch", waiting, "key", {"wait": 60}), ("state_save", acting, "key", "value", {}))
    assert saved == ("value", 1)


def bells(team: Bus, waiting: Routine[object]) -> list[str]:
    """What one listens for who begins to wait."""
    answer: object = None
    while not isinstance(step := waiting.send(answer), Pause):
        (answer,) = team.apply([step])
    return [str(bell) for bell in step.bells]  # a member equals its text, and is written otherwise


def test_who_waits_listens_for_what_an_enum_means(team: Bus) -> None:
    team.send("boss", "one", TASK, {})
    (message,) = team.receive("one")
    assert bells(team, state.watch(Mixed.ONE, Mixed.KEY, wait=60)) == ["state=one"]
    both = ["one", "@milestone-executor"]
    assert bells(team, messages.ack_and_receive(Mixed.ONE, message.receipt or "", wait=60)) == both
    assert bells(team, messages.receive(Mixed.ONE, wait=60)) == both
    registering = agents.register(Mixed.ONE, type="milestone-executor", session="s").steps()
    next(registering)
    ring = registering.send([("one", None, None, None, None, None)])
    assert isinstance(ring, Ring)
    assert [str(bell) for bell in ring.bells] == ["one"]


def test_an_agent_is_named_after_its_type_by_what_an_enum_means(team: Bus) -> None:
    id, name = team.trace_launch(Mixed.TYPE, "t", pid=os.getpid(), session="s", command="work")
    assert name == f"validation-{id}"


@pytest.mark.parametrize(
    ("given", "written"), [(Weight.HIGH, "8"), (Level.HIGH, "8"), (Part.HALF, "0.5"), (Mixed.ONE, "one")]
)
def test_a_priority_on_record_is_what_an_enum_means(team: Bus, given: str | float, written: str) -> None:
    id = team.trace_spawn("validation", "t", pid=os.getpid(), priority=given)
    assert team.trace_show(id).priority_number == written


@pytest.mark.parametrize("id", [Weight.ONE, Written.ID])
def test_an_id_and_json_are_what_an_enum_means(team: Bus, id: int | str) -> None:
    assert team.send("boss", "one", TASK, Written.PAYLOAD) == 1
    assert team.message(id).payload == {"phase": "one"}
