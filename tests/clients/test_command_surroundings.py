"""The command line in odd surroundings: names of folders, users without a name, readers that leave, small terminals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bus import Bus
from bus.store.url import Server, Url, parse
from tests.clients.test_command_line import BUS, bus

ECHO = [sys.executable, "-c", "import os; print(os.environ['BUS_URL'])"]
RUN = ["run", "--type", "validation", "--task", "t"]


# --- addresses


@pytest.mark.parametrize("name", ["what?", "100%", "a#b", "a%3Fb", "a b?synchronous=normal", os.fsdecode(b"\xff?")])
@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_an_address_made_of_a_path_is_read_back_as_that_path(name: str, synchronous: str) -> None:
    url = Url(f"/tmp/{name}/coordination.db", synchronous)
    assert parse(url.address()) == url


@pytest.mark.parametrize("name", ["what?", "100%", "a#b"])
def test_a_command_that_is_run_finds_the_bus_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    made = bus("init")
    assert bus(*RUN, "--", *BUS, "where") == made


def test_a_command_that_is_run_is_told_the_password_too(postgres: str) -> None:
    given = postgres.replace("postgres@", "postgres:s%2Fcret@", 1)
    bus("--bus", given, "init")
    told = parse(bus("--bus", given, *RUN, "--", *ECHO).strip())
    meant = parse(given)
    assert isinstance(told, Server)
    assert isinstance(meant, Server)
    assert (told.conninfo, told.schema) == (meant.conninfo, meant.schema)
    assert "s%2Fcret" in told.conninfo
