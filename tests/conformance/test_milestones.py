"""Milestones."""

import os
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus import Bus, clock, milestones
from bus.models import Milestone
from tests.conformance.refusal import refused

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)


def test_there_are_none_at_first(bus: Bus) -> None:
    assert bus.milestone_list() == []
    with refused("unknown_milestone", 66):
        bus.milestone_show("m")


def test_the_newest_milestone_comes_first(bus: Bus) -> None:
    for n, name in enumerate(("b", "c", "a")):
        with clock.moved(60 * n):
            bus.register(name, type="milestone-planner", session=name, operation="planning", milestone=f"m-{name}")
            bus.state_save(name, "milestone-plan", "words")
            bus.recovery_apply(name, "create-milestone", by="me")
    assert [milestone.id for milestone in bus.milestone_list()] == ["m-a", "m-c", "m-b"]
    assert bus.status()["load"]["milestones"] == 3


def test_a_milestone_is_listed_shown_and_exported(url: str) -> None:
    import yaml

    with sqlite3.connect(url) as hand:
        hand.execute("""insert into milestones (id, title, data) values ('m', 'Éa', '{"tasks": [1, "x"]}')""")
        with pytest.raises(sqlite3.IntegrityError, match="invalid_json"):
            hand.execute("insert into milestones (id, data) values ('n', '[]')")
    hand.close()
    with Bus.open(url) as bus:
        (found,) = bus.milestone_list(status="planned")
        assert found == bus.milestone_show("m")
        assert bus.milestone_list(status="done") == []
    document = yaml.safe_load(milestones.to_yaml(found))
    assert (document["title"], document["tasks"]) == ("Éa", [1, "x"])
    for name in ("created_at", "updated_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document[name])
        assert datetime.fromisoformat(document[name]) == getattr(found, name)


def test_text_stays_text_for_readers_of_every_yaml() -> None:
    words = ["7e10", "12e5", "-1E+3", "1.e2", ".5", "0o17", "-0o17", "_", "y", "N", "yes", "017", "1:30", "~"]
    plain = ["7e", "e5", "0q17", "ny", "1.2.3", "some words"]
    data = {"words": words, "plain": plain, "12e5": 1, "numbers": [3, 1.5, 1e22, float(7), True, None]}
    times = {"created_at": NOON, "updated_at": NOON}
    milestone = Milestone(id="m", title="7e10", status="planned", priority=5, data=data, **times)
    lines = milestones.to_yaml(milestone).splitlines()
    assert "title: '7e10'" in lines
    assert "'12e5': 1" in lines
    assert [line for line in lines if line in [f"- {word}" for word in words]] == []
    assert [line for line in lines if line in [f"- '{word}'" for word in words]] == [f"- '{word}'" for word in words]
    assert [f"- {word}" for word in plain] == lines[lines.index("plain:") + 1 :][: len(plain)]
    assert lines[lines.index("numbers:") + 1 :][:6] == ["- 3", "- 1.5", "- 1.0e+22", "- 7.0", "- true", "- null"]


def test_an_export_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "active" / "m.yaml").mkdir(parents=True)
    milestone = Milestone(id="m", title="M", status="planned", priority=5, data={}, created_at=NOON, updated_at=NOON)
    with refused("fault", 70):
        milestones.export(milestone, tmp_path)
    assert os.listdir(tmp_path / "active") == ["m.yaml"]
