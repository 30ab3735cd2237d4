"""Sleeping so that no signal is slept through."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from bus.store.nap import Nap


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def comes_a_signal() -> None:
    """What the system does of a signal, before Python's handler comes."""
    writer = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(writer)
    os.write(writer, bytes([signal.SIGUSR1]))


class Roused(Exception):
    """What the handler raises."""


def rouse(number: int, frame: FrameType | None) -> None:
    raise Roused


def test_a_signal_that_the_sleeping_thread_does_not_get_itself_wakes_it(pipe: tuple[int, int]) -> None:
    """Another thread gets it: then no system call is interrupted, as none is that begins just after the signal."""
    former = signal.signal(signal.SIGUSR1, rouse)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    another = threading.Thread(target=signal_once_asleep, args=(threading.main_thread().native_id,))
    begun = time.monotonic()
    try:
        with pytest.raises(Roused), Nap(pipe[0]) as nap:
            another.start()
            nap.sleep(60)
    finally:
        another.join()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, former)
    assert time.monotonic() < begun + 55
    assert signal.set_wakeup_fd(-1) == -1


def signal_once_asleep(thread: int) -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    looks = 0
    while looks < 100:  # in a row, each of which lets the others go on
        os.sched_yield()
        asleep = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()[0] == "S"
        looks = looks + 1 if asleep else 0
    signal.raise_signal(signal.SIGUSR1)


def test_who_was_woken_by_a_signal_that_means_nothing_to_it_sleeps_on(pipe: tuple[int, int]) -> None:
    with Nap(pipe[0]) as nap:
        comes_a_signal()
        os.write(pipe[1], b"x")
        assert nap.sleep(None)
        os.read(pipe[0], 1)
        comes_a_signal()
        assert not nap.sleep(0.001)


def test_whoever_listens_for_signals_already_goes_on_to(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    signal.set_wakeup_fd(pipe[1])
    with Nap(pipe[0]) as nap:
        comes_a_signal()
        assert nap.sleep(None)
    assert signal.set_wakeup_fd(-1) == pipe[1]


def test_a_thread_that_runs_no_handlers_sleeps_as_well(pipe: tuple[int, int]) -> None:
    slept = []

    def sleep() -> None:
        with Nap(pipe[0]) as nap:
            slept.append(nap.sleep(0.001))

    thread = threading.Thread(target=sleep)
    thread.start()
    thread.join()
    assert slept == [False]


@pytest.mark.parametrize("place", ["url", "memory", "postgres"])
def test_who_has_no_descriptor_left_waits_or_is_told_so(request: pytest.FixtureRequest, place: str) -> None:
    code = """
import os, resource, sys
from bus import Bus, BusError

def receive():
    try:
        print(bus.receive("a", wait=0.001))
    except BusError as problem:
        print(problem.code)

bus = Bus.open(sys.argv[1], create=True)
bus.register("a", type="validation", session="s")
receive()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    receive()
while taken:
    os.close(taken.pop())
receive()
"""
    address = ":memory:" if place == "memory" else request.getfixturevalue(place)
    command = [sys.executable, "-c", code, address]
    first, without, last = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert (first, last) == ("[]", "[]")
    assert without in ("[]", "no_descriptors")
