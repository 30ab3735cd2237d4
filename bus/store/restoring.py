"""Going back to a copy of a bus."""

from __future__ import annotations

import os
from contextlib import closing, suppress

from bus.errors import error
from bus.store import files, sqlite
from bus.store.url import MEMORY, Place, Url


def restore(copy: Place, place: Place) -> str | None:
    """See `Bus.restore`."""
    if not isinstance(place, Url) or not isinstance(copy, Url) or MEMORY in (place.path, copy.path):
        raise error("usage", "only a bus in a file is restored, from a file", "see `bus copy`, and pg_restore")
    fresh = f"{place.path}.restored"
    with suppress(FileNotFoundError):
        os.unlink(fresh)  # of one that was killed
    with closing(sqlite.Connection(copy, read_only=True)) as source:
        (found,) = source.execute("pragma quick_check(1)").fetchone()
        if found != "ok":
            raise error("damaged", f"{copy.path} is damaged, too: {found}")
        source.backup(fresh)
    return files.exchange(place.path, fresh)
