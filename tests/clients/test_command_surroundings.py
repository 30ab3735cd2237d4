"""The command line in odd surroundings: names of folders, users without a name, readers that leave, small terminals."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
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


THERE = "name a command that is there"


def test_a_command_that_is_not_there_is_named_in_whole() -> None:
    for words, named in (("", "''"), ("/tmp/no such/command", "'/tmp/no such/command'")):
        assert told_of_not_starting(words) == f"bus: {named} can't be run: No such file or directory; {THERE}\n"
        problem = json.loads(told_of_not_starting(words, "--json"))["error"]
        assert (problem["code"], problem["hint"]) == ("usage", THERE)


def told_of_not_starting(name: str, *options: str) -> str:
    bus("init")
    done = subprocess.run([*BUS, *options, *RUN, "--", name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (127, "")
    return done.stderr


# --- users


UNNAMED = ["unshare", "--user", "--map-user=12345"]
NO_USERS = subprocess.run([*UNNAMED, "true"], capture_output=True, check=False).returncode != 0


@pytest.mark.skipif(NO_USERS, reason="no user namespaces here")
def test_a_user_without_a_name_goes_by_the_number(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with Bus.open(url) as opened:
        opened.register("a", type="validation", session="s")
    for arguments in (["monitor", "--once"], ["cleanup", "--stale", "0"], ["recover", "s", "--apply", "abandon"]):
        done = subprocess.run([*UNNAMED, *BUS, "--bus", url, *arguments], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
    with closing(sqlite3.connect(url)) as hand:
        rows = hand.execute("select agent_id from agent_health_log").fetchall()
    assert (f"uid-12345@{os.uname().nodename}",) in rows
