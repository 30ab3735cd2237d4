"""The wheel carries all that it needs; an editable install uses the files of the tree."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import bus.schemas

TREE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of this tree in it, and nothing of the tree itself."""
    made, target = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", made, TREE], check=True)
    (wheel,) = made.glob("agent_bus-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", target, wheel], check=True)
    return target


def run(site: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "BUS_URL": ""}
    command = [sys.executable, "-m", "bus_cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def test_the_wheel_brings_schemas_and_shell_functions(installed: Path, tmp_path: Path) -> None:
    assert run(installed, tmp_path, "shell").strip() == str(installed / "bus_cli" / "bus.sh")
    run(installed, tmp_path, "init")
    run(installed, tmp_path, "register", "a", "--type", "milestone-executor", "--session", "s")
    assert run(installed, tmp_path, "send", "a", "progress_update", '{"progress": 1}', "--from", "a") == "1\n"
    script = f"source {installed}/bus_cli/bus.sh; get_agent_messages a"
    shell = subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert '"progress":1' in shell.stdout.replace(" ", "")


def test_the_wheel_holds_the_same_files_as_the_tree(installed: Path) -> None:
    ours = {path.relative_to(TREE / "schemas"): path.read_bytes() for path in (TREE / "schemas").rglob("*.*")}
    theirs = {
        path.relative_to(installed / "bus/schemas"): path.read_bytes() for path in installed.rglob("schemas/**/*.*")
    }
    assert ours == theirs
    assert (installed / "bus_cli/bus.sh").read_bytes() == (TREE / "clients/shell/bus.sh").read_bytes()


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
