"""Commands in namespaces of their own, as containers run them."""

import subprocess
from pathlib import Path

import pytest


def unshared(*how: str) -> list[str]:
    """The beginning of a command that runs in such namespaces, as unshare(1) names them; where nobody may have them the
    test is skipped."""
    command = ["unshare", "-Ur", *how]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"there are no such namespaces here: {tried.stderr.strip()}")
    return command


def after(script: str, *how: str) -> list[str]:
    """The beginning of a command that runs in such namespaces, when a shell script has prepared them."""
    return unshared(*how, "sh", "-c", f'{script} && exec "$@"', "sh")


def read_only_but_for(folder: Path) -> list[str]:
    """The beginning of a command that runs where nothing but a folder can be written to: there is no /tmp, either."""
    return after(f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro / && cd /', "-m")
