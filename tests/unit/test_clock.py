"""The clock that tests move."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import clock


def test_a_moment_is_utc_text_with_milliseconds() -> None:
    assert clock.stamp(0) == "1970-01-01 00:00:00.000"
    assert clock.stamp(1.9996) == "1970-01-01 00:00:02.000"
    assert clock.stamp(1767225599.9994) == "2025-12-31 23:59:59.999"


@given(st.integers(0, 4102444800_000))
def test_a_moment_that_was_written_can_be_read(millis: int) -> None:
    text = clock.stamp(millis / 1000)
    assert round(clock.parse(text) * 1000) == millis
    assert clock.parse(text.replace(" ", "T") + "Z") == clock.parse(text)


@given(st.lists(st.integers(0, 4102444800_000), min_size=2))
def test_written_moments_sort_as_the_moments_do(millis: list[int]) -> None:
    assert [clock.stamp(ms / 1000) for ms in sorted(millis)] == sorted(clock.stamp(ms / 1000) for ms in millis)


@given(st.integers(0, 4102444800_000), st.integers(-5000, 100 * 366 * 86400_000))
def test_a_later_moment_is_so_many_seconds_later(millis: int, after: int) -> None:
    moment = clock.stamp(millis / 1000)
    for milliseconds in (after, after // 1000 * 1000):
        found = clock.later(moment, milliseconds / 1000)
        assert round((clock.parse(found) - clock.parse(moment)) * 1000) == milliseconds
        assert len(found) == 23


def test_the_clock_is_moved_for_a_block_and_back() -> None:
    before = clock.seconds()
    with clock.moved(3600):
        with clock.moved(60):
            assert clock.seconds() == pytest.approx(before + 3660, abs=5)
        assert clock.seconds() == pytest.approx(before + 3600, abs=5)
    with pytest.raises(ZeroDivisionError), clock.moved(-3600):
        raise ZeroDivisionError
    assert clock.seconds() == pytest.approx(time.time(), abs=5)


def test_the_clock_can_stand_still() -> None:
    with clock.moved(to=86400.25):
        assert clock.now() == clock.now() == "1970-01-02 00:00:00.250"
        with clock.moved(1):
            assert clock.now() == "1970-01-02 00:00:01.250"


@pytest.mark.parametrize(
    ("given_", "seconds"), [("2026-01-01 00:00:00.000", 1767225600), ("2026-01-01T00:00:00Z", 1767225600)]
)
def test_other_processes_have_the_time_in_their_environment(
    monkeypatch: pytest.MonkeyPatch, given_: str, seconds: float
) -> None:
    def told(given: str) -> float:
        monkeypatch.setenv("BUS_NOW", given)
        code = "from bus import clock; print(clock.seconds())"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    assert told(given_) == seconds
    for shift in ("+90", "-3600"):
        assert told(shift) == pytest.approx(time.time() + float(shift), abs=30)
