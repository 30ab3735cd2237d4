"""Whether the process that an agent registered still runs. Worked out when asked, never stored.

A process is told by its pid, its start time, the boot and the pid namespace together: a pid alone is used again, and a
zombie answers to signals. Another host or another namespace counts as elsewhere, where only heartbeats tell. So does
everything where there is no /proc, or one that gives these numbers to other processes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

PROC = "/proc"
JITTER = 2.0  # seconds: the boot is told in whole ones, and a clock may have been set since
OWN_TIME = "time:[4026531834]"  # the time namespace that the system begins with


class Life(StrEnum):
    """What is known of a process: it runs, it is gone, or nobody here can tell."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


class Identity(NamedTuple):
    """A process on a host; `process_started_at` in clock ticks after the boot."""

    host: str | None = None
    pid: int | None = None
    pid_namespace: str | None = None
    process_started_at: int | None = None
    boot_id: str | None = None


@functools.cache
def boot_id() -> str | None:
    """This boot's id; None where the system has none, or shows the processes of another pid namespace."""
    try:
        mine = os.readlink(f"{PROC}/self") == str(os.getpid())
        return read("sys/kernel/random/boot_id").decode().strip() if mine else None
    except OSError:
        return None


@functools.cache
def pid_namespace() -> str | None:
    """This process's pid namespace, such as `pid:[4026531836]`; and the time namespace, where that is another than the
    system's own: start times are told by its clock."""
    try:
        namespace = os.readlink(f"{PROC}/self/ns/pid")
    except OSError:
        return None
    with contextlib.suppress(OSError):  # there are none before Linux 5.6
        if (time := os.readlink(f"{PROC}/self/ns/time")) != OWN_TIME:
            return namespace + time
    return namespace


def read(path: str) -> bytes:
    """A file of /proc."""
    with open(f"{PROC}/{path}", "rb") as file:
        return file.read()


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks after the boot; None when there is none or it is a zombie."""
    try:
        stat = read(f"{pid}/stat")
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def wall_clock_start(pid: int) -> float | None:
    """When a process started, in seconds since 1970, give or take `JITTER`; None when there is none."""
    ticks = started_at(pid)
    try:
        stat = read("stat").decode()
    except OSError:
        return None
    (booted,) = (line.split()[1] for line in stat.splitlines() if line.startswith("btime "))
    return None if ticks is None else float(booted) + ticks / os.sysconf("SC_CLK_TCK")


def identity(pid: int) -> Identity:
    """What tells this process from all others."""
    return Identity(os.uname().nodename, pid, pid_namespace(), started_at(pid), boot_id())


def life(agent: Identity) -> Life:
    """Whether that process runs, as far as can be told from here."""
    return _life(agent, _is_there)


def glance(agent: Identity) -> Life:
    """As `life`, for who asks again and again: a process that was seen to run is watched from then on."""
    return _life(agent, _runs)


def _life(agent: Identity, runs: Callable[[Identity], bool]) -> Life:
    if agent.pid is None or agent.host != os.uname().nodename or agent.boot_id is None or boot_id() is None:
        return Life.UNKNOWN
    if agent.boot_id != boot_id():
        return Life.DEAD
    if agent.pid_namespace != pid_namespace():
        return Life.UNKNOWN
    if runs(agent):
        return Life.ALIVE
    return Life.UNKNOWN if _is_hidden(agent.pid) else Life.DEAD


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process, and /proc does not show it to us (hidepid, see proc(5))."""
    if os.path.exists(f"{PROC}/{pid}/stat"):
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid > 0  # others are groups of processes, and only a hand can have written them


def _is_there(agent: Identity) -> bool:
    return started_at(agent.pid or 0) == agent.process_started_at is not None


def _runs(agent: Identity) -> bool:
    ended = _watched.get(agent)
    if ended is None:
        return _is_there(agent) and _watch(agent)
    if ended.has_come():
        _watched.pop(agent, None)
        return False
    return True


def seen() -> str:
    """This host, boot and pid namespace, and the processes that are watched and run, in words between spaces, for
    `messages/receive`: of holders like these it need not be asked."""
    alive = [agent for agent in list(_watched) if _runs(agent)]
    return " ".join(
        [
            os.uname().nodename,
            boot_id() or "-",
            pid_namespace() or "-",
            *(f"{a.pid}/{a.process_started_at}" for a in alive),
        ]
    )


class Ending:
    """Tells whether a process has ended, by its pidfd, in a tenth of the time that reading /proc takes."""

    def __init__(self, pid: int) -> None:
        self._descriptor = os.pidfd_open(pid)

    def has_come(self) -> bool:
        poll = select.poll()  # a new one each time: threads may ask at the same time
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)


_watched: dict[Identity, Ending] = {}
WATCHED = 16  # processes at most


def _watch(agent: Identity) -> bool:
    """Keep an eye on a process that ran just now; whether it still does."""
    with contextlib.suppress(OSError, AttributeError):  # none to be had: it is looked up each time
        ended = Ending(agent.pid or 0)
        if not _is_there(agent):
            return False
        for oldest in list(_watched)[: 1 - WATCHED]:
            _watched.pop(oldest, None)
        _watched[agent] = ended
    return True
