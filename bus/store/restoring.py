"""Going back to a copy of a bus."""

from __future__ import annotations

import os
from contextlib import closing, suppress

from bus import folders
from bus.errors import error
from bus.store import files, sqlite
from bus.store.sqlite_schema import prepare
from bus.store.turnstile import Turnstile
from bus.store.url import MEMORY, Place, Url


def restore(copy: Place, place: Place) -> str | None:
    """See `Bus.restore`."""
    if not isinstance(place, Url) or not isinstance(copy, Url) or MEMORY in (place.path, copy.path):
        raise error("usage", "only a bus in a file is restored, from a file", "see `bus copy`, and pg_restore")
    if os.path.lexists(place.path):
        files.check(place.path)
    files.check(copy.path, read_only=True)
    folders.make(os.path.dirname(place.path))
    with closing(Turnstile(f"{place.path}.turn")) as turnstile:  # one at a time, and no writer meanwhile
        turnstile.enter(sqlite.TIMEOUT)
        fresh = f"{place.path}.restored"
        with suppress(FileNotFoundError):
            os.unlink(fresh)  # of one that was killed
        with sqlite.border(copy.path), closing(sqlite.still(copy.path)) as source:
            prepare(source, copy, sqlite.TIMEOUT, read_only=True)
            (found,) = source.execute("pragma quick_check(1)").fetchone()
            if found != "ok":
                raise error("damaged", f"{copy.path} is damaged, too: {found}")
            sqlite.back_up(source, fresh)
        return files.exchange(place.path, fresh)
