"""How the command line starts itself again."""

from __future__ import annotations

import sys

# A bus.py in the working directory is not ours, nor is one of PYTHONPATH where bin/bus left that out.
PYTHON = (sys.executable, "-EP" if sys.flags.ignore_environment else "-P")
