"""Members of enums that are text or numbers, where text and numbers belong."""

from enum import Enum, IntEnum, StrEnum

import pytest

from bus import Bus
from tests.conformance.test_messages import TASK
from tests.conftest import Meanwhile

Mixed = Enum("Mixed", {"BOSS": "boss", "ONE": "one", "TASK": TASK, "KEY": "key"}, type=str)
Modern = StrEnum("Modern", {member.name: member.value for member in Mixed})
Level = IntEnum("Level", {"FEW": 2, "HIGH": 8})


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
