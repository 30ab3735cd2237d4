"""A child process that is held back until it is released, whose output is passed on and whose last words are kept."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence

from bus.errors import error

PASSED_ON = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)  # what Python itself ignores
FROM_KERNEL = 128  # si_code of what a terminal sends: to the whole foreground group, the child too
TAIL = 4096  # bytes
CHUNK = 65536
MORE = "try again, or let this user have more of them: see ulimit -u"


class Child:
    """A forked process that waits to be told its environment before it becomes the command."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = [os.fsencode(word) for word in words]
        self._start, self._problem = os.pipe(), os.pipe()
        self._streams = [os.pipe(), os.pipe()]
        self._tail: deque[bytes] = deque()
        self._status: int | None = None
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, as some parents leave it, it would never be told
        self._watched = {*PASSED_ON, signal.SIGCHLD}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._watched)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        try:
            self.pid = os.fork()
        except OSError as problem:
            raise error("busy", f"no process can be started: {problem.strerror}", MORE) from problem
        if not self.pid:
            self._become()
        for descriptor in (self._start[0], self._problem[1], *(write for _, write in self._streams)):
            os.close(descriptor)

    def _become(self) -> None:
        """In the child: wait for the environment, then be the command. Never returns."""
        status = 127
        try:
            for descriptor in (self._start[1], self._problem[0]):
                os.close(descriptor)
            environment = b""
            while chunk := os.read(self._start[0], CHUNK):
                environment += chunk
            if environment.endswith(b"\0"):  # else the parent is gone, or does not want it any more
                for number in (*PASSED_ON, *PYTHONS):
                    if number in PYTHONS or signal.getsignal(number) is not signal.SIG_IGN:  # nohup's stays
                        signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
                for target, (_, write) in enumerate(self._streams, start=1):
                    os.dup2(write, target)
                pairs = (pair.partition(b"=") for pair in environment.split(b"\0") if pair)
                os.execvpe(self._words[0], self._words, {key: value for key, _, value in pairs})
        except OSError as problem:
            os.write(self._problem[1], str(problem.errno).encode())
        except ValueError:  # Python itself refuses the empty name
            os.write(self._problem[1], str(errno.ENOENT).encode())
        finally:
            os._exit(status)

    def release(self, environment: Mapping[str, str]) -> int | None:
        """Let it become the command, in this environment; the error number when it can't."""
        self._copying = [Copy(self, read, target) for target, (read, _) in enumerate(self._streams, start=1)]
        try:
            for copy in self._copying:
                copy.start()
        except RuntimeError as problem:
            raise error("busy", f"no thread can be started: {problem}", MORE) from problem
        with contextlib.suppress(BrokenPipeError), open(self._start[1], "wb", closefd=False) as pipe:
            pipe.write(b"".join(os.fsencode(f"{key}={value}") + b"\0" for key, value in environment.items()))
        os.close(self._start[1])
        self._start = (-1, -1)
        with open(self._problem[0], "rb") as pipe:
            told = pipe.read()
        if told:
            self.wait()
        return int(told) if told else None

    def wait(self) -> int:
        """Pass on signals until it ends, and all of its output; its exit status, or a signal's number below 0."""
        while self._status is None:
            told = signal.sigwaitinfo(self._watched)
            if told.si_signo == signal.SIGCHLD:
                self._reap(os.WNOHANG)
            elif told.si_code != FROM_KERNEL or _is_for_the_leader(told.si_signo):
                os.kill(self.pid, told.si_signo)
        for copy in self._copying:
            copy.drain()
        return self._status

    def _reap(self, options: int) -> None:
        pid, status = os.waitpid(self.pid, options)
        if pid:
            self._status = os.waitstatus_to_exitcode(status)
        elif os.getpid() == 1:
            self._reap_others()

    def _reap_others(self) -> None:
        """Process 1 of a container is left the children of those who ended: nobody else hears of them."""
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid != self.pid:
            os.waitpid(ended.si_pid, 0)

    def keep(self, data: bytes) -> None:
        """These are its last words so far."""
        self._tail.append(data[-TAIL:])
        while len(self._tail) > 1 and sum(map(len, self._tail)) - len(self._tail[0]) >= TAIL:
            self._tail.popleft()

    def unwritten(self) -> OSError | None:
        """Why not all that it printed could be passed on."""
        return next((copy.problem for copy in self._copying if copy.problem), None)

    def tail(self) -> str:
        """The end of what it printed, on both streams, as text without NUL."""
        return b"".join(self._tail)[-TAIL:].decode("utf-8", "replace").replace("\0", "\ufffd")

    def abandon(self) -> None:
        """End it, if it was never released."""
        if self._start[1] >= 0:
            os.close(self._start[1])
            self._reap(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)


def _is_for_the_leader(number: int) -> bool:
    """Whether a terminal sends this signal to us alone: when it hangs up, to the leader of its session."""
    return number == signal.SIGHUP and os.getsid(0) == os.getpid()


class Copy(threading.Thread):
    """Passes a stream of a child on, until it ends or nobody reads any more."""

    def __init__(self, child: Child, source: int, target: int) -> None:
        super().__init__(daemon=True)
        self._child = child
        self._source = source
        self._target = target
        self._idle = False
        self.problem: OSError | None = None  # why not all of it was passed on, unless nobody reads any more

    def run(self) -> None:
        try:
            while data := self._read():
                self._child.keep(data)
                while data:
                    data = data[self._written(data) :]
        except OSError as problem:  # the child is told, too, by its own next write
            self.problem = None if problem.errno == errno.EPIPE else problem
        finally:
            os.close(self._source)

    def _written(self, data: bytes) -> int:
        try:
            return os.write(self._target, data)
        except BlockingIOError:  # somebody made it so, perhaps another program at the same terminal
            select.select([], [self._target], [])
            return 0

    def _read(self) -> bytes:
        self._idle = True
        try:
            return os.read(self._source, CHUNK)
        finally:
            self._idle = False

    def drain(self) -> None:
        """Wait until all that the child wrote was passed on; not for what its own children may still write."""
        while self.is_alive():
            self.join(0.05)
            if self.is_alive() and self._idle and not select.select([self._source], [], [], 0)[0]:
                return
