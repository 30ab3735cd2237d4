"""How the tests say that something is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bus import BusError


@contextmanager
def refused(code: str, status: int | None = None) -> Iterator[None]:
    """The body must raise a BusError of this code, and exit status."""
    with pytest.raises(BusError) as caught:
        yield
    assert caught.value.code == code
    assert status is None or caught.value.exit_status == status
