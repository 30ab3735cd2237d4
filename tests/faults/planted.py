"""Planted defects: a copy of the schemas with one thing broken, which a checker must find. The bus has no hooks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bus import schemas
from bus.store import postgres_rendering, sqlite_statements

Edits = dict[str, tuple[str, str]]  # file under schemas/, what stands there once, what shall stand there

ACK_WITHOUT_RECEIPT_CHECK: Edits = {
    "operations/messages/ack.sql": ("or m.delivery <> cast(", "or 0 and m.delivery <> cast("),
    "operations/messages/finish.sql": (" and delivery = :delivery", " and :delivery"),
}
DUE_AT_ONCE: Edits = {
    "operations/messages/sources.sql": ("cast(value as real) > 0 from", "1 from"),
    "operations/messages/receive.sql": ("    and due_at <= :now\n", "    and due_at is not null\n"),
}
SAME_DELIVERY: Edits = {
    "operations/messages/receive.sql": ("delivery = delivery + 1", "delivery = 1"),
    "operations/messages/take.sql": ("delivery = delivery + 1", "delivery = 1"),
}


def _forget() -> None:
    schemas.parts.cache_clear()
    sqlite_statements.operation.cache_clear()
    postgres_rendering.operation.cache_clear()


@contextmanager
def planted(edits: Edits) -> Iterator[None]:
    """Let the bus of this process, and of those it forks, run on broken schemas."""
    original = schemas.root
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "schemas"
        shutil.copytree(original(), copy)
        for name, (old, new) in edits.items():
            text = (copy / name).read_text("utf-8")
            if text.count(old) != 1:
                raise LookupError(f"{name} has changed: plant the defect anew")
            (copy / name).write_text(text.replace(old, new), "utf-8")
        schemas.root = lambda: str(copy)
        _forget()
        try:
            yield
        finally:
            schemas.root = original
            _forget()
