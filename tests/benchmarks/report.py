"""The table, the JSON file, and the machine they were taken on."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tests.benchmarks.figures import Figure

HEAD = ("work", "subject", "synchronous", "value", "ratio to", "ratio", "target", "")


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    cpu = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": cpu[0] if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "taken": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%MZ"),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    rows = [HEAD, tuple("---" for _ in HEAD), *map(_row, figures)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _row(figure: Figure) -> tuple[str, ...]:
    sign = "≥" if figure.least else "≤"
    return (
        figure.work,
        figure.subject,
        figure.mode,
        f"{_short(figure.value)} {figure.unit}",
        figure.reference,
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.target is None else f"{sign} {_short(figure.target)}",
        " ".join(filter(None, ({True: "met", False: "missed", None: ""}[figure.met], figure.note))),
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def save(figures: Sequence[Figure], path: Path) -> None:
    """All figures with their samples, as JSON."""
    path.write_text(json.dumps({"machine": machine(), "figures": [asdict(figure) for figure in figures]}, indent=1))


def load(path: Path) -> tuple[dict[str, Any], list[Figure]]:
    """What `save` wrote."""
    kept = json.loads(path.read_text())
    return kept["machine"], [Figure(**figure) for figure in kept["figures"]]
