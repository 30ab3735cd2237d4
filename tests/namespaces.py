"""Commands in namespaces of their own, as containers run them."""

import subprocess

import pytest


def unshared(*how: str) -> list[str]:
    """The beginning of a command that runs in such namespaces, as unshare(1) names them; where nobody may have them the
    test is skipped."""
    command = ["unshare", "-Ur", *how]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"there are no such namespaces here: {tried.stderr.strip()}")
    return command
