"""State, checkpoints."""

import asyncio
import threading
from io import BufferedReader
from pathlib import Path

import pytest

from bus import AsyncBus, Bus, checkpoints, clock
from tests.conformance.refusal import refused


def test_a_value_is_saved_and_loaded_as_it_is(bus: Bus) -> None:
    for value in ("", "plain", "'\"\\\r\n\r $(x) `y` 007 é\U0001f600\u202e", "x" * 1_000_000):
        bus.state_save("never-registered", "a/key", value)
        assert bus.state_load("never-registered", "a/key") == value


def test_what_was_never_saved_is_none(bus: Bus) -> None:
    assert bus.state_load("a", "k") is None
    assert bus.state_load_versioned("a", "k") is None
    assert bus.state_list("a") == []
    assert bus.state_delete("a", "k") is False


def test_versions_start_at_one_and_grow(bus: Bus) -> None:
    assert [bus.state_save("a", "k", str(n)) for n in range(3)] == [1, 2, 3]
    assert bus.state_load_versioned("a", "k") == ("2", 3)
    assert bus.state_save("a", "other", "x") == 1


def test_compare_and_set(bus: Bus) -> None:
    assert bus.state_save("a", "k", "1", if_version=0) == 1
    with refused("version_conflict", 76):
        bus.state_save("a", "k", "2", if_version=0)
    with refused("version_conflict", 76):
        bus.state_save("a", "k", "2", if_version=2)
    assert bus.state_save("a", "k", "2", if_version=1) == 2
    with refused("version_conflict", 76):
        bus.state_save("a", "other", "x", if_version=1)
    assert bus.state_load("a", "k") == "2"


def test_an_expired_value_is_not_there(bus: Bus) -> None:
    bus.state_save("a", "k", "old", ttl="10s")
    with clock.moved(9):
        assert bus.state_load("a", "k") == "old"
    with clock.moved(11):
        assert bus.state_load("a", "k") is None
        assert bus.state_list("a") == []
        assert bus.state_delete("a", "k") is False
        assert bus.state_save("a", "k", "new", if_version=0) == 2
        assert bus.state_list("a")[0].expires_at is None


def test_a_list_is_by_key_and_prefix(bus: Bus) -> None:
    for key in ("b", "a/1", "a/2", "a_3"):
        bus.state_save("x", key, key, type="progress")
    assert [value.state_key for value in bus.state_list("x")] == ["a/1", "a/2", "a_3", "b"]
    assert [value.state_key for value in bus.state_list("x", prefix="a/")] == ["a/1", "a/2"]
    assert bus.state_list("x")[0].state_type == "progress"


def test_what_was_deleted_is_gone_for_a_clock_that_is_behind(bus: Bus) -> None:
    bus.state_save("a", "k", "v")
    assert bus.state_delete("a", "k") is True
    with clock.moved(by=-1.0):
        assert bus.state_load_versioned("a", "k") is None
        assert bus.state_list("a") == []
        assert bus.state_save("a", "k", "w", if_version=0) == 2


def test_versions_go_on_growing_for_a_day_after_a_deletion(bus: Bus) -> None:
    bus.state_save("a", "k", "v")
    bus.state_delete("a", "k")
    bus.prune()
    assert bus.state_save("a", "k", "w") == 2
    bus.state_delete("a", "k")
    with clock.moved(by=90_000.0):
        bus.prune()
        assert bus.state_save("a", "k", "w") == 1


def test_a_deletion_is_remembered_for_a_day_however_old_the_value_was(bus: Bus) -> None:
    bus.state_save("a", "k", "v")
    with clock.moved(by=200_000.0):
        bus.state_delete("a", "k")
        bus.prune()
        assert bus.state_save("a", "k", "w", if_version=0) == 2


def test_a_value_whose_time_is_over_is_remembered_for_a_day(bus: Bus) -> None:
    bus.state_save("a", "k", "v", ttl="3d")
    with clock.moved(3 * 86400 + 1.0):
        bus.prune()
        assert bus.state_save("a", "k", "w", ttl=1) == 2
    with clock.moved(5 * 86400.0):
        bus.prune()
        assert bus.state_save("a", "k", "x") == 1


def test_a_value_is_as_old_as_the_key_has_had_one(bus: Bus) -> None:
    def made() -> float:
        return bus.state_list("a")[0].created_at.timestamp()

    bus.state_save("a", "k", "v")
    first = made()
    with clock.moved(60):
        bus.state_save("a", "k", "w", ttl=10)
        assert made() == first
        updated = bus.state_list("a")[0].updated_at.timestamp()
        assert updated - first > 59
    with clock.moved(120):
        bus.state_save("a", "k", "x")
        assert made() - first > 119


def test_delete_forgets(bus: Bus) -> None:
    bus.state_save("a", "k", "v")
    assert bus.state_delete("a", "k") is True
    assert bus.state_load("a", "k") is None


def test_the_type_must_be_known_and_stays(bus: Bus) -> None:
    with refused("unknown_type", 65):
        bus.state_save("a", "k", "v", type="gossip")
    bus.state_save("a", "k", "v", type="progress")
    bus.state_save("a", "k", "w")
    assert bus.state_list("a")[0].state_type == "progress"


@pytest.mark.parametrize("key", ["", "-x", ".x", "@x", "a b", "é", "x" * 129, "a\n"])
def test_an_illegal_key_is_refused(bus: Bus, key: str) -> None:
    with refused("invalid_key", 65):
        bus.state_save("a", key, "v")
    assert bus.state_list("a") == []


@pytest.mark.parametrize("value", ["a\0b", "\ud800", 7, None, b"x"])
def test_a_value_is_text_without_nul(bus: Bus, value: object) -> None:
    with refused("invalid_value", 65):
        bus.state_save("a", "k", value)  # type: ignore[arg-type]
    assert bus.state_load("a", "k") is None


def test_watch_tells_what_changed(bus: Bus) -> None:
    assert bus.state_watch("a", "k", wait=0) is None
    bus.state_save("a", "k", "v")
    assert bus.state_watch("a", "k", after=0, wait=5) == ("v", 1)
    assert bus.state_watch("a", "k", wait=0) is None


# --- checkpoints


def test_a_checkpoint_comes_back_with_its_files_verified(team: Bus, tmp_path: Path) -> None:
    names = ["same", "changed", "resized", "gone", "odd 'name\" é\n"]
    for name in names:
        (tmp_path / name).write_text("before")
    team.checkpoint_create("one", {"at": 1, "text": "é"}, files=[tmp_path / name for name in names])
    (tmp_path / "changed").write_text("after!")
    (tmp_path / "resized").write_text("more than before")
    (tmp_path / "gone").unlink()
    restored = team.checkpoint_restore("one")
    assert restored
    assert restored.checkpoint.state_snapshot == {"at": 1, "text": "é"}
    assert [file.status for file in restored.files] == ["ok", "changed", "changed", "missing", "ok"]


def test_a_checkpoint_rests_on_one_file_or_several_by_their_paths(team: Bus, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("a")
    for files in (path, str(path), iter([path])):
        assert [file.path for file in team.checkpoint_create("one", files=files).file_references] == [str(path)]
    for wrong in (None, [None], 5, b"a.py"):
        with refused("usage"):
            team.checkpoint_create("one", files=wrong)  # type: ignore[arg-type]


def test_files_are_never_read_on_an_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def digest(file: BufferedReader) -> str:
        threads.append(threading.get_ident())
        return "0" * 64

    async def run() -> None:
        async with await AsyncBus.open(":memory:", create=True) as bus:
            await bus.register("a", type="validation", session="s")
            await bus.checkpoint_create("a", files=[tmp_path / "empty"])
            restored = await bus.checkpoint_restore("a")
            assert restored
            assert [file.status for file in restored.files] == ["ok"]

    (tmp_path / "empty").touch()
    monkeypatch.setattr(checkpoints, "_digest", digest)
    asyncio.run(run())
    assert len(threads) == 2
    assert threading.get_ident() not in threads


def test_the_latest_checkpoint_is_restored_unless_another_is_named(team: Bus) -> None:
    first = team.checkpoint_create("one", {"n": 1})
    second = team.checkpoint_create("one", {"n": 2}, type="automatic")
    assert second.parent_id == first.checkpoint_id
    latest = team.checkpoint_restore("one")
    assert latest
    assert latest.checkpoint == second
    named = team.checkpoint_restore("one", checkpoint=first.checkpoint_id)
    assert named
    assert named.checkpoint == first
    assert [c.checkpoint_id for c in team.checkpoint_list("one")] == [second.checkpoint_id, first.checkpoint_id]
    assert team.checkpoint_show(first.checkpoint_id) == first


def test_there_may_be_no_checkpoint(team: Bus) -> None:
    assert team.checkpoint_restore("one") is None
    with refused("unknown_checkpoint", 66):
        team.checkpoint_restore("one", checkpoint="0")
    with refused("unknown_checkpoint", 66):
        team.checkpoint_show("0")


def test_a_bad_checkpoint_is_refused(team: Bus, tmp_path: Path) -> None:
    for nobody in ("nobody", "", "-a", "a b", "x" * 129):
        with refused("unknown_agent", 66):
            team.checkpoint_create(nobody, {})
    with refused("unknown_type", 65):
        team.checkpoint_create("one", {}, type="weekly")
    with refused("invalid_json", 65):
        team.checkpoint_create("one", '{"a": 1, "a": 2}')
    with refused("payload_too_large", 65):
        team.checkpoint_create("one", {"a": "x" * 1048576})
    with refused("usage", 64):
        team.checkpoint_create("one", {}, files=[tmp_path / "missing"])
    with refused("usage", 64):
        team.checkpoint_create("one", {}, files=[tmp_path])
    assert team.checkpoint_list("one") == []


def test_prune_keeps_the_newest_and_what_is_in_time(team: Bus) -> None:
    old = team.checkpoint_create("one", {}, retention="1h")
    kept = team.checkpoint_create("one", {})
    newest = team.checkpoint_create("one", {}, retention="1h")
    with clock.moved(3601):
        assert team.checkpoint_prune("one") == [old.checkpoint_id]
    assert team.checkpoint_prune(keep=1) == [kept.checkpoint_id]
    assert [c.checkpoint_id for c in team.checkpoint_list("one")] == [newest.checkpoint_id]


def test_prune_keeps_the_newest_of_each_agent_and_what_is_anothers(team: Bus) -> None:
    made = {agent: [team.checkpoint_create(agent, {}).checkpoint_id for _ in range(3)] for agent in ("one", "two")}
    assert set(team.checkpoint_prune("one", keep=2)) == set(made["one"][:1])
    assert set(team.checkpoint_prune(keep=1)) == {made["one"][1], *made["two"][:2]}
    assert [c.checkpoint_id for agent in made for c in team.checkpoint_list(agent)] == [made["one"][2], made["two"][2]]


def test_checkpoints_are_listed_the_newest_first_up_to_a_limit(team: Bus) -> None:
    made = [team.checkpoint_create("one", {}).checkpoint_id for _ in range(3)]
    team.checkpoint_create("two", {})
    assert [c.checkpoint_id for c in team.checkpoint_list("one", limit=2)] == [made[2], made[1]]
