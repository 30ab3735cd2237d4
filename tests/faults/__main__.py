"""`bin/faults`: lists the fault programmes, and runs them.

bin/faults                        the programmes, their sizes, their negative controls
bin/faults quick|nightly|release  all of them, at that size
bin/faults kill [SIZE] [--seed N] one of them, at quick size or with a count; a seed replays what it printed
bin/faults kill --controls        plant its defects; each must be found
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Callable

from tests.faults.invariants import Breach
from tests.faults.programmes import NAMES, SIZE_NAMES, Programme, programme

CHANCES = 5  # seeds at which a planted defect may show


def main(arguments: list[str]) -> int:
    """Run what the arguments name; 0 when every invariant held, 1 when one did not."""
    parser = argparse.ArgumentParser(
        "bin/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=[*NAMES, *SIZE_NAMES])
    parser.add_argument("size", nargs="?", type=_size, help="quick, nightly, release or a count")
    parser.add_argument("--seed", type=int, help="replay a run")
    parser.add_argument("--controls", action="store_true", help="plant the defects that must be found")
    given = parser.parse_args(arguments)
    if given.name is None:
        return _list()
    names, size = (NAMES, given.name) if given.name in SIZE_NAMES else ((given.name,), given.size or "quick")
    run = _control if given.controls else _run
    return max(run(programme(name), size, given.seed) for name in names)


def _size(given: str) -> str:
    if given in SIZE_NAMES or (given.isascii() and given.isdigit() and int(given) > 0):
        return given
    raise argparse.ArgumentTypeError(f"{given!r} is none of {', '.join(SIZE_NAMES)}, and no count")


def _list() -> int:
    for name in NAMES:
        found = programme(name)
        sizes = " / ".join(f"{size:,}" for size in found.SIZES.values())
        print(f"{name:14} {sizes} {found.UNIT}\n{'':14} {(found.__doc__ or '').splitlines()[0]}")
        for control in found.CONTROLS:
            print(f"{'':16} must find: {(control.__doc__ or '').splitlines()[0].removeprefix('Planted: ')}")
    return 0


def _run(found: Programme, size: str, seed: int | None) -> int:
    name, begun = found.__name__.rpartition(".")[2], time.monotonic()
    count = found.SIZES[size] if size in found.SIZES else int(size)
    seed = secrets.randbits(31) if seed is None else seed
    print(f"{name}: {count:,} {found.UNIT}, bin/faults {name} {count} --seed {seed}", flush=True)
    try:
        result = found.run(count, seed)
    except Breach as breach:
        print(f"{name}: BROKEN after {time.monotonic() - begun:.1f} s: {breach}", flush=True)
        return 1
    print(f"{name}: held, {time.monotonic() - begun:.1f} s: {result}", flush=True)
    return 0


def _control(found: Programme, size: str, seed: int | None) -> int:
    """Plant each defect; one that fate spared at a seed gets a few more, unless the seed was given."""
    name, missed = found.__name__.rpartition(".")[2], 0
    for control in found.CONTROLS:
        title = control.__name__.replace("_", " ")
        seeds = [secrets.randbits(31) for _ in range(CHANCES)] if seed is None else [seed]
        if not any(_finds(name, control, title, number) for number in seeds):
            print(f"{name}: NOT FOUND: {title}", flush=True)
            missed = 1
    return missed


def _finds(name: str, control: Callable[[int], None], title: str, seed: int) -> bool:
    print(f"{name}: {title}, --seed {seed}", flush=True)
    try:
        control(seed)
    except Breach as breach:
        print(f"{name}: found: {breach.lines[0][:200]}", flush=True)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
