"""Every work runs, at a tiny size, and loses nothing. No time is judged here: that is bin/bench."""

import sqlite3
from pathlib import Path

import pytest

from tests.benchmarks import postgres, report, traffic
from tests.benchmarks.__main__ import NOT_ON_POSTGRES, main
from tests.benchmarks.contestant import MODES
from tests.benchmarks.figures import TINY, Figure, Run
from tests.benchmarks.filled import SHAPES, fill
from tests.benchmarks.floor import FLOOR
from tests.benchmarks.ours import OURS, open_bus
from tests.benchmarks.works import WITH, WORKS, chosen

EXPECTED = {
    "W1": {"W1", "W1'", "W5", "W7"},
    "W2": {"W2", "W2 worst"},
    "W3": {"W3 p50", "W3 p99", "W3 idle"},
    "W4": {"W4", "W4 --type"},
    "W6": {"W6"},
    "W8": {"W8 file + WAL", "W8 rate", "W8 memory"},
    "W9": {"W9"},
    "mixed": {"mixed", "mixed p99"},
    "reports": {"reports", "recording"},
}


@pytest.mark.parametrize("name", WORKS)
def test_a_work_finds_its_figures(name: str, tmp_path: Path) -> None:
    figures = WORKS[name](Run(tmp_path, TINY, MODES, [FLOOR, OURS]))
    assert {figure.work for figure in figures} == EXPECTED[name]
    assert [figure for figure in figures if figure.value < 0 or (figure.ratio is not None and figure.ratio <= 0)] == []
    assert "| " + name in report.table(figures)


@pytest.mark.parametrize("contestant", [FLOOR, OURS], ids=lambda one: one.name)
def test_an_exchange_loses_nothing_and_delivers_nothing_twice(contestant: traffic.Contestant, tmp_path: Path) -> None:
    found = traffic.exchange(contestant, tmp_path, "normal", 2, 2, 50)
    assert (found["lost"], found["twice"]) == (0, 0)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_filled_bus_is_a_bus(shape: str, tmp_path: Path) -> None:
    bus = open_bus(tmp_path, "normal")
    bus.register("claimer", type="milestone-executor", session="bench")
    fill(tmp_path / "bus.db", shape, 50, 0)
    assert sum(count for _, count in _counts(tmp_path / "bus.db")) == 50
    bus.send("claimer", "claimer", "progress_update", {"progress": 1}, priority=10)
    (message,) = bus.receive("claimer", type="progress_update")
    bus.ack(message.receipt or "")
    bus.close()


def _counts(path: Path) -> list[tuple[str, int]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("select status, count(*) from agent_messages group by status").fetchall()
    connection.close()
    return rows


def test_figures_are_kept_and_read_again(tmp_path: Path) -> None:
    figures = [Figure("W1", "agent-bus", "full", 1234.5, "cycles/s", "floor", 0.71, 0.7, samples=[1.0])]
    report.save(figures, tmp_path / "figures.json")
    machine, kept = report.load(tmp_path / "figures.json")
    assert kept == figures
    assert kept[0].met
    assert machine["sqlite"] == sqlite3.sqlite_version


def test_works_are_chosen_by_name() -> None:
    assert chosen("") == list(WORKS)
    assert chosen("W4, W7") == ["W1", "W4"]
    assert set(WITH.values()) <= set(WORKS)
    with pytest.raises(SystemExit, match="there is no work W99"):
        chosen("W99")


@pytest.mark.parametrize("name", NOT_ON_POSTGRES)
def test_what_does_not_go_with_postgres_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = {"full": [], "synchronous": ["full"]}.get(name, ["W4"])
    with pytest.raises(SystemExit):
        main(["--postgres", f"--{name}", *value])
    assert f"--{name} does not go with --postgres" in capsys.readouterr().err
    assert not Path("W4").exists()


@pytest.mark.parametrize("options", [["--json"], ["--plot"], ["--folder"], ["--postgres", "--json"]])
def test_what_can_not_be_written_is_said_before_anything_is_measured(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        main([*options, str(tmp_path / "file" / "below")])
    assert f"{tmp_path}/file/below can't be written: Not a directory" in capsys.readouterr().err


@pytest.mark.parametrize("where", [[], ["--postgres"]])
def test_only_who_is_known_is_measured(where: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"there is no nosuch here; there are floor, .*agent-bus"):
        main([*where, "--against", "nosuch, floor"])


def test_postgres_has_figures_that_can_be_kept(tmp_path: Path) -> None:
    rates = [postgres.Rate("crowd", "floor", 100.0, 1.0), postgres.Rate("crowd", "agent-bus", 95.0, 0.95)]
    found = postgres.figures(rates, [0.001, 0.0015, 0.003])
    report.save(found, tmp_path / "figures.json")
    assert report.load(tmp_path / "figures.json")[1] == found
    assert [figure.met for figure in found] == [None, True, True, None]
    assert postgres.chosen("pgqueuer") == ["floor", "agent-bus", "agent-bus in a loop", "pgqueuer"]
    assert postgres.chosen("") == list(postgres.SUBJECTS)
