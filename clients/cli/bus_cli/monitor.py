"""The monitor: a process that does now and then what any peer could."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import IO, NoReturn

import click

from bus import clock, folders, inputs, liveness
from bus.api import Bus
from bus.errors import BusError, TryAgain, error, of_system
from bus.models import Check
from bus.store.url import Place, Server, Url, folder, locate, logs
from bus_cli.arguments import on_whose_word
from bus_cli.interpreter import PYTHON
from bus_cli.output import Output, command, fail, note
from bus_cli.text import counted, moment, safe

LOG = "session-monitor.log"
PATIENCE = 10_000  # milliseconds that a monitor gets to end
MOMENT = 1.0  # second that a monitor gets to tell who it is


@click.command()
@click.option("--interval", metavar="DURATION", default="300s", show_default=True, help="Between two checks.")
@click.option("--once", is_flag=True, help="Check once; also while a monitor runs.")
@click.option("--detach", is_flag=True, help="Go on in the background, after the first check.")
@click.option("--stop", is_flag=True, help="End the monitor of this bus; status 1 when none runs.")
@click.option("--awaited", is_flag=True, hidden=True)  # what --detach tells the process that it starts
@command
def monitor(out: Output, interval: str, once: bool, detach: bool, stop: bool, awaited: bool) -> int:
    """Watch for the dead, give back what they held, and tidy up.

    Checks at once, every --interval, and when a process dies: what the dead leased goes back, the long-silent are
    marked failed, what is due moves, what is old goes. Each check is a line, also in
    .milestones/logs/session-monitor.log. One that can't be done now, because the bus is busy, is told on stderr, and
    done after the interval.
    """
    if once + detach + stop > 1:
        raise error("usage", "--once, --detach and --stop are three things", "give one of them")
    if not inputs.duration(interval):
        raise error("usage", "an interval of no time is none", "give more than 0 seconds")
    if stop:
        return _stop(out, locate(out.url))
    if detach:
        return _detach(out, interval)
    with out.open() as bus:
        if once:
            _check(out, bus, _log(bus.url))
            return 0
        with _only(bus.url):
            return _go_on(out, bus, interval, awaited)


def _log(url: Place) -> Path:
    return logs(url) / LOG


def _go_on(out: Output, bus: Bus, interval: str, awaited: bool) -> NoReturn:
    """Check now and then. What can't be done now is done after the interval; but while somebody waits for the first
    check, they are to be told."""
    log = _log(bus.url)  # which goes by the working directory, and that may go
    while True:
        try:
            done = _check(out, bus, log)
            awaited = False
            _wait(bus, interval, done, log)
        except TryAgain as problem:
            if awaited:
                raise
            fail(problem, out.as_json)
            time.sleep(inputs.duration(interval) or 0)


def _wait(bus: Bus, interval: str, done: Check, log: Path) -> None:
    """Sleep until there may be something to do. What keeps it from that is in the log, unless that is gone, too: it may
    be the monitor's last word."""
    try:
        bus.monitor_wait(interval, since=done)
    except BusError as problem:
        if log.parent.exists():
            with folders.log(log) as file:
                _write(file, f"{_moment_now()} stopped waiting: {safe(problem)}")
        raise


def _check(out: Output, bus: Bus, log: Path) -> Check:
    """Check once, and log it; nothing is done where there can be no log. Raises `disk_full` for a log that is full."""
    with folders.log(log) as file:
        try:
            done = bus.monitor_check(by=on_whose_word())
        except BusError as problem:
            _write(file, f"{_moment_now()} nothing was done: {safe(problem)}")
            raise
        line = _words(done)
        _write(file, line)
    with suppress(BusError):  # a monitor goes on when nobody listens
        out.show(done, line)
        out.flush()
    return done


def _moment_now() -> str:
    return moment(datetime.fromtimestamp(clock.seconds(), UTC))


def _write(file: FileIO, line: str) -> None:
    try:
        file.write(f"{line}\n".encode("ascii", "backslashreplace"))
    except OSError as problem:
        raise of_system(problem, str(file.name)) from problem


def _words(done: Check) -> str:
    failed = f" ({', '.join(done.failed)})" if done.failed else ""
    return safe(
        f"{moment(done.at)} gave back {done.given_back}, buried {done.buried}, "
        f"marked failed {len(done.failed)}{failed}, moved {done.due} that were due, "
        f"removed {counted(done.pruned, 'message')}"
    )


# --- one monitor a bus


def _pid_file(url: Place) -> str:
    if isinstance(url, Server):  # one monitor for each `.milestones`: processes are watched where they run
        name = hashlib.sha256(url.path.encode()).hexdigest()[:16]
        return str(folder(url) / f"{name}.monitor")
    return f"{url.path}.monitor"


@contextmanager
def _only(url: Place) -> Iterator[None]:
    """Be the only monitor of a bus: a lock that ends with the process, on a file that tells its pid, in which namespace
    that is its pid, and when it started. Raises `already_running`."""
    path = _pid_file(url)
    folders.make(os.path.dirname(path))
    with os.fdopen(folders.own(path, os.O_RDWR | os.O_CREAT), "r+") as file:
        if taken := _taken(file):
            pid, elsewhere = taken
            hint = "end it where it runs" if elsewhere else ""
            raise error("already_running", f"a monitor of this bus runs already, as process {pid}{elsewhere}", hint)
        file.seek(0)
        file.truncate()
        file.write(f"{os.getpid()} {liveness.pid_namespace() or ''} {liveness.started_at(os.getpid())}")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _taken(file: IO[str]) -> tuple[int, str] | None:
    """Whose lock it is: a pid, and words for where it runs, if that is another namespace: there is another process of
    that pid here, or none. None: from now on it is the caller's. Raises `busy` for one who begins, or asks who runs,
    when that takes more than the moment in which the file tells nobody, or one who is dead."""
    end = time.monotonic() + MOMENT
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            told = re.fullmatch(r"(\d{1,9}) (\S*) (\w+)", file.read(), re.ASCII)
            if told and told[2] not in ("", liveness.pid_namespace() or ""):
                return int(told[1]), " of another pid namespace, a container's say"
            if told and told[3] == str(liveness.started_at(int(told[1]))):
                return int(told[1]), ""
            if time.monotonic() > end:
                raise error("busy", "a monitor of this bus is about to begin, or to end") from None
            time.sleep(0.01)
        else:
            return None


def _running(url: Place) -> int | None:
    """The process of the monitor that holds the lock, if any; what a dead one left in the file does not count. Raises
    `not_allowed` when it is none of this pid namespace."""
    path = _pid_file(url)
    if not os.path.lexists(path):
        return None
    with os.fdopen(folders.own(path, os.O_RDWR), "r+") as file:
        if taken := _taken(file):
            pid, elsewhere = taken
            if elsewhere:
                raise error("not_allowed", f"the monitor is process {pid}{elsewhere}", "end it where it runs")
            return pid
    return None


def _stop(out: Output, url: Place) -> int:
    pid = _running(url)
    if pid is None:
        if isinstance(url, Url) and not os.path.lexists(url.path):
            raise error("no_bus", f"there is no bus at {url.path}")
        out.show({"stopped": None}, "no monitor runs")
        return 1
    with suppress(ProcessLookupError):  # it has ended meanwhile
        process = os.pidfd_open(pid)
        signal.pidfd_send_signal(process, signal.SIGTERM)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        if not poll.poll(PATIENCE):
            raise error("busy", f"the monitor, process {pid}, does not end", f"end it with `kill -9 {pid}`")
    out.show({"stopped": pid}, f"monitor {pid} has ended")
    return 0


# --- in the background


def _detach(out: Output, interval: str) -> int:
    """Start a monitor in a session of its own; its status, if it ends before its first check is done."""
    out.stdout()  # else nobody could be told of it
    arguments = [*(["--json"] if out.as_json else []), "monitor", "--awaited", "--interval", interval]
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:  # which the monitor would inherit, and --stop needs
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    child = subprocess.Popen(
        [*PYTHON, "-m", "bus_cli", *arguments],
        env={**os.environ, **({"BUS_URL": out.url} if out.url else {})},  # everybody can read its arguments
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdout
    assert child.stderr
    try:
        if not child.stdout.readline():
            note(child.stderr.read().decode().rstrip("\n"))
            return child.wait()
    except BaseException:  # somebody broke it off
        child.terminate()
        raise
    child.returncode = 0  # it goes on without us: nobody waits for it here
    log = _log(locate(out.url))
    out.show({"started": child.pid, "log": str(log)}, safe(f"monitor {child.pid} is running; its log is {log}"))
    return 0
