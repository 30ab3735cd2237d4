"""bin/bench: measure everything side by side, print a table."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.contestant import MODES
from tests.benchmarks.figures import FULL, QUICK, USUAL, Figure, Run, everybody, named
from tests.benchmarks.works import WORKS, chosen

NOT_ON_POSTGRES = ("only", "full", "synchronous", "plot", "folder")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__)
    parser.add_argument(
        "--only",
        default="",
        metavar="W1,W4",
        help=f"these works: {', '.join(WORKS)} (W1 brings W1', W5 and W7)",
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="small sizes: one minute instead of three")
    sizes.add_argument("--full", action="store_true", help="a million messages through W8, not 200,000")
    parser.add_argument("--synchronous", choices=MODES, help="one value of it (default: both)")
    parser.add_argument("--against", default="", metavar="NAMES", help="these others (default: all that are here)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="draw pictures")
    parser.add_argument("--folder", type=Path, help="where the databases are made (default: a temporary folder)")
    parser.add_argument("--postgres", action="store_true", help="on PostgreSQL, beside procrastinate and pgqueuer")
    options = parser.parse_args(arguments)
    for name in NOT_ON_POSTGRES:
        if options.postgres and getattr(options, name):
            parser.error(f"--{name} does not go with --postgres")
    for path in filter(None, (options.json, options.plot, options.folder)):
        try:
            _make(path, folder=path is not options.json)
        except OSError as problem:
            parser.error(f"{path} can't be written: {problem.strerror}")
    if options.postgres:
        from tests.benchmarks import postgres

        postgres.run(postgres.chosen(options.against), count=200 if options.quick else 1000, kept=options.json)
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.folder) as folder:
        measure(options, Path(folder))


def _make(path: Path, folder: bool) -> None:
    """See that something can be written there, before it is measured."""
    if folder:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    else:
        path.open("a").close()


def measure(options: argparse.Namespace, folder: Path) -> None:
    here = everybody()
    wanted = named(options.against, [one.name for one in here])
    contestants = [one for one in here if not wanted or one.kind in ("floor", "ours") or one.name in wanted]
    modes = [options.synchronous] if options.synchronous else list(MODES)
    run = Run(folder, QUICK if options.quick else FULL if options.full else USUAL, modes, contestants)
    print(" · ".join(f"{key} {value}" for key, value in report.machine().items()), file=sys.stderr)
    figures: list[Figure] = []
    for name in chosen(options.only):
        print(f"{name} …", file=sys.stderr, flush=True, end=" ")
        begin = time.monotonic()
        figures += WORKS[name](run)
        print(f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    print(report.table(figures))
    print("\n".join(f"{one.name}: {one.note}" for one in contestants if one.note))
    if options.json:
        report.save(figures, options.json)
    if options.plot:
        from tests.benchmarks import plot

        print("\n".join(map(str, plot.draw(run, figures, options.plot))), file=sys.stderr)


if __name__ == "__main__":
    main()
