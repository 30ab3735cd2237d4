"""The wheel carries all that it needs; an editable install uses the files of the tree."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

import bus.schemas

TREE = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
PLACES = {  # where what lies in the tree's folders is in the wheel
    "bus": "bus/",
    "schemas": "bus/schemas/",
    "clients/python/bus_client": "bus_client/",
    "clients/cli/bus_cli": "bus_cli/",
    "clients/shell": "bus_cli/",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    made = tmp_path_factory.mktemp("wheel")
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", made, TREE], check=True)
    (found,) = made.glob("agent_bus-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, and the libraries that it needs, but nothing of the tree."""
    environment = tmp_path_factory.mktemp("an environment")
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip = [*PIP, "--python", str(environment / "bin/python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    return environment


def run(*command: str | Path, folder: Path) -> str:
    """What a command prints that finds nothing of ours on its path, nor in its surroundings."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_what_is_installed_works(installed: Path, tmp_path: Path) -> None:
    command = installed / "bin/bus"
    assert run(command, "--version", folder=tmp_path).split()[-1] == bus.__version__
    run(command, "init", folder=tmp_path)
    script = """
        source "$("$0" shell)"
        register_agent a milestone-executor m s
        send_agent_message a a progress_update '{"progress": 1}'
        get_agent_messages a
        receive_agent_message a 5m 1s >/dev/null # waits by way of the command
        BUS_SHELL_VIA=bus ack_agent_message 1.1
    """
    printed = run("bash", "-ec", script, command, folder=tmp_path)
    assert '"progress":1' in printed.replace(" ", "")
    assert "acknowledged" in run(command, "message", "1", folder=tmp_path)
    python = "from bus_client import Agent\nwith Agent('b', type='validation', session='s') as b: print(b.id)"
    assert run(installed / "bin/python", "-c", python, folder=tmp_path) == "b\n"


def test_the_wheel_holds_what_the_tree_does(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        theirs = {name: opened.read(name) for name in opened.namelist() if ".dist-info/" not in name}
    ours = {
        place + path.relative_to(TREE / folder).as_posix(): path.read_bytes()
        for folder, place in PLACES.items()
        for path in (TREE / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert theirs == ours


def test_an_environment_that_was_copied_or_lost_its_python_is_made_anew(tmp_path: Path) -> None:
    tree, path = tmp_path / "tree", tmp_path / "path"
    (tree / "venv/bin").mkdir(parents=True)
    path.mkdir()
    (path / "cksum").symlink_to(shutil.which("cksum") or "")  # and no Python: to make it anew fails
    (tree / "pyproject.toml").write_text("x")
    (tree / "venv/bin/python").symlink_to(sys.executable)
    script = f'source "{TREE}/bin/python.sh"; bus_python "$1" venv "" 2>/dev/null; echo $?'

    def told(tree: Path) -> str:
        command = [shutil.which("bash") or "", "-c", script, "x", str(tree)]
        return subprocess.run(command, env={"PATH": str(path)}, capture_output=True, text=True, check=True).stdout

    sum_of = subprocess.run(["cksum"], input="x", capture_output=True, text=True, check=True).stdout.strip()
    (tree / "venv/stamp").write_text(f"{sum_of} {tree} \n")
    assert told(tree) == "0\n"
    shutil.copytree(tree, tmp_path / "copy", symlinks=True)
    assert told(tmp_path / "copy") == "70\n"
    (tree / "venv/bin/python").unlink()
    assert told(tree) == "70\n"


def test_an_editable_install_uses_the_files_of_the_tree() -> None:
    assert bus.schemas.root() == str(TREE / "schemas")
    assert not (TREE / "bus" / "schemas").exists()


@pytest.mark.parametrize(
    ("library", "bounds"),
    [
        ("aiosqlite", ">=0.22.1,<0.23"),
        ("anyio", ">=4.7"),
        ("msgspec", ">=0.21"),
        ("pyyaml", ">=6.0.1"),
        ("psycopg[binary]", ">=3.2.1"),
    ],
)
def test_no_library_is_allowed_with_which_the_bus_does_not_work(library: str, bounds: str) -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"{library}{bounds}" in project["dependencies"] + project["optional-dependencies"]["postgres"]


def test_the_command_of_a_checkout_takes_no_module_of_its_callers(tmp_path: Path) -> None:
    """A project with a package of that name in PYTHONPATH: a traceback, and 1, which is "no message"."""
    tree, theirs = tmp_path / "tree", tmp_path / "theirs"
    for place in ("bin", ".venv/bin"):
        (tree / place).mkdir(parents=True)
    for file in ("bin/bus", "bin/python.sh", "pyproject.toml"):
        shutil.copy(TREE / file, tree / file)
    script = f"#!{sys.executable}\nimport sys\nfrom bus_cli.__main__ import main\nsys.exit(main())\n"
    (tree / ".venv/bin/bus").write_text(script)
    (tree / ".venv/bin/bus").chmod(0o700)
    (tree / ".venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tree / ".venv/bin/python").chmod(0o700)
    wanted = subprocess.run(["bash", "-c", 'cksum <"$0"', TREE / "pyproject.toml"], capture_output=True, text=True)
    (tree / ".venv/stamp").write_text(f"{wanted.stdout.strip()} {tree} \n")
    (theirs / "bus").mkdir(parents=True)
    (theirs / "bus/__init__.py").write_text("")
    surroundings = {**os.environ, "PYTHONPATH": str(theirs), "PYTHONUTF8": "0"}
    for arguments in (["init"], ["monitor", "--detach"], ["monitor", "--stop"], ["receive", "one"]):
        done = subprocess.run(
            [tree / "bin/bus", *arguments], cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False
        )
        assert done.returncode == (66 if "one" in arguments else 0), done.stderr
    assert done.stderr == "bus: no such agent: one; register it with `bus register`\n"
