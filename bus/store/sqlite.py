"""The bus on one SQLite file: a connection that runs operations, each in one transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from bus import databases
from bus.errors import BusError, TryAgain, error, of_system
from bus.operation import Operation
from bus.store import doorbell, facts, files, forks
from bus.store.facts import Fact
from bus.store.seldom import Lately
from bus.store.sqlite_errors import translate
from bus.store.sqlite_schema import prepare
from bus.store.sqlite_transaction import Transaction
from bus.store.turnstile import Turnstile
from bus.store.url import MEMORY, Url, file

T = TypeVar("T")

TIMEOUT = 5.0  # seconds to wait for others before "busy"
LOOK = 1.0  # seconds between two looks at whether the file is still the one that others find
OLDEST = (3, 38, 0)
WAL_LIMIT = 4 << 20
LARGE = 16 << 20  # bytes of WAL from which writers wait for readers, who keep it from being used anew
READERS = 0.1  # seconds: how long, for all to be copied, and then for those who still read in it
_DRIVER_ERRORS = (sqlite3.Error, OverflowError, ValueError, OSError, msgspec.MsgspecError)

# SQLite's temporary tables take and free 90 KB at a time. At the top of its heap glibc gives more than 128 KB back to
# the system at once, so that they may fault their pages in anew each time, 45 µs. That limit grows with the largest
# block that was ever freed (mallopt(3), M_MMAP_THRESHOLD).
bytes(16 << 20)


class Connection:
    """One connection to one bus, for one thread. `create` makes the file when it is missing; a `read_only` one can
    change nothing, and needs no upgrade to be made first."""

    def __init__(self, url: Url, create: bool = False, read_only: bool = False) -> None:
        self.url = url
        self._read_only = read_only
        self.wal = f"{url.path}-wal"
        if sqlite3.sqlite_version_info < OLDEST:
            raise error("fault", f"SQLite {sqlite3.sqlite_version} is too old", "the bus needs 3.38 or newer")
        if url.path != MEMORY:
            if create:
                files.make(url.path)
            files.check(url.path, read_only)
            databases.opened(url.path)
        self._process = os.getpid()
        self._looked = 0.0  # when it looked whether the file is still there
        self.in_use = threading.RLock()
        self._at_work = False
        with forks.turn:
            self._open()
            forks.opened(self)
        self._large = LARGE
        self._commits = os.getpid()  # not 0: of processes that commit only once some must look at the WAL, too
        self.lately = Lately()
        memory = url.path == MEMORY
        self.doorbells = doorbell.Room(self.in_use) if memory else doorbell.Porch(f"{url.path}.bells", self.wal)
        self._turnstile = None if memory or read_only else Turnstile(f"{url.path}.turn")

    def run(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction; repeat it whole while the bus is busy and time is left. Raises
        `reentrant` out of a signal handler, or what the garbage collector calls, in the middle of another."""
        with self.in_use:
            if self._at_work:
                raise error("reentrant")
            try:
                self._at_work = True
                return self._run(operation)
            except _UnreadableText:  # one row that somebody planted must not stop the others
                self.sqlite.text_factory = _text
                try:
                    return self._run(operation)
                finally:
                    self.sqlite.text_factory = str
            finally:
                self._at_work = False

    def _run(self, operation: Operation[T]) -> T:
        if self._broken:
            self._open()
        now = time.monotonic()
        if self._file and now > self._looked + LOOK:
            files.is_still(self.url.path, self._file)
            self._looked = now
        while True:
            try:
                return self._write(operation) if operation.writes else self._read(operation)
            except TryAgain as busy:
                if busy.code != "busy" or time.monotonic() > now + TIMEOUT:
                    raise

    def rest(self) -> None:
        """See `forks.Open`; the next operation opens the file again."""
        if not self._at_work and not self._broken and self.url.path != MEMORY:
            self._break()  # else it is this thread that is at work, and forks in a signal handler

    def _open(self) -> None:
        with border(self.url.path):
            connection = _bare(self.url, self._read_only)
            try:
                _configure(connection, self.url)
                prepare(connection, self.url, TIMEOUT, self._read_only)
                self._file = None if self.url.path == MEMORY else os.stat(self.url.path)
            except BaseException:
                connection.close()
                raise
        self.sqlite, self._broken = connection, False
        self._cursor = connection.cursor()
        self.execute = self._cursor.execute

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # closed already
            self._cursor.close()  # a statement that it still has would keep the files open
        self.sqlite.close()

    def close(self) -> None:
        """Close it, after what another thread is at. Idempotent."""
        with self.in_use, forks.turn:
            forks.closed(self)
            self._broken = False  # it is not to be opened again
            self._close()
        if self._turnstile:
            self._turnstile.close()
            self._turnstile = None
        self.doorbells.close()

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        # A thread that ends drops its connection, perhaps from another thread. A child never closes its parent's.
        if not hasattr(self, "_turnstile"):
            return
        if at_exit():  # what `close` needs may be gone
            self.sqlite.close()
        elif self._process == os.getpid():
            self.close()

    def listen(self, bells: Sequence[str]) -> doorbell.Waiting:
        """Hear these doorbells, and what other programs write, from now on. Who only reads makes no bell, which is a
        file, and hears of all writes in the same way."""
        try:
            return self.doorbells.listen(() if self._read_only else bells)
        except OSError as problem:
            raise of_system(problem, self.url.path) from problem

    def facts(self) -> list[Fact]:
        """What can be told of the bus from outside."""
        return facts.facts(self.url)

    def sizes(self) -> dict[str, int]:
        """Of what takes room on the disk, in bytes."""
        return facts.sizes(self.url)

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the bus, online, into a new file."""
        with self.in_use, border(self.url.path):
            if self._broken:
                self._open()
            back_up(self.sqlite, os.path.abspath(path))

    def _write(self, operation: Operation[T]) -> T:
        if self._read_only:
            raise error("not_allowed", "this bus was opened for reading only", "open it without read_only")
        transaction = Transaction(self, operation.brief)
        try:
            if not operation.brief:
                transaction.begin()
            result = transaction.carry_out(operation.steps())
            self._commit(transaction.begun)
        except _DRIVER_ERRORS as problem:
            raise translate(problem, self.url.path) from problem
        finally:
            try:
                self._let_go()
            except BaseException:  # one out of a signal handler may come before it has let go
                self._let_go()
                raise
        if transaction.seldom:
            self.lately.note(transaction.seldom)
        if transaction.bells:
            self.doorbells.ring(transaction.bells)
        self._commits += 1
        if self._commits % 8 == 0:
            self._guarded_checkpoint(WAL_LIMIT)
        return result

    def _read(self, operation: Operation[T]) -> T:
        try:
            if operation.single:
                return Transaction(self).carry_out(operation.steps())
            try:
                self.execute("begin")
                return Transaction(self).carry_out(operation.steps())
            finally:
                try:
                    self._let_go()
                except BaseException:  # as in `_write`
                    self._let_go()
                    raise
        except _DRIVER_ERRORS as problem:
            raise translate(problem, self.url.path) from problem

    def _let_go(self) -> None:
        """Leave no transaction open, and the turn to others."""
        self._rollback()
        self.leave()

    def enter(self) -> bool:
        """Take the turn to write; whether it was somebody else's before. Raises `busy`."""
        return self._turnstile is not None and self._turnstile.enter(TIMEOUT)

    def leave(self) -> None:
        """Let the next one write, if it is our turn."""
        if self._turnstile:
            self._turnstile.leave()

    def has_no_turn(self) -> bool:
        """Whether others may write now."""
        return self._turnstile is not None and not self._turnstile.inside

    def fail(self, problem: Exception) -> BusError:
        """The bus's error for one of the driver's in a transaction."""
        if "Could not decode to UTF-8" in str(problem):
            raise _UnreadableText from problem
        translated = translate(problem, self.url.path)
        if translated.code == "io_error":
            self._break()
        return translated

    def _rollback(self) -> None:
        try:
            if not self._broken and self.sqlite.in_transaction:
                self.execute("rollback")
        except sqlite3.ProgrammingError:
            pass  # it was closed meanwhile, by another thread
        except sqlite3.Error:
            self._break()

    def _commit(self, begun: bool) -> None:
        """End the transaction, if one was begun; else a lone statement has ended its own."""
        try:
            if begun:
                self.execute("commit")
        except sqlite3.Error as problem:
            translated = translate(problem, self.url.path)
            self._rollback()
            if translated.code in ("busy", "disk_full"):
                raise translated from problem
            self._break()
            raise error("outcome_unknown") from problem

    def _break(self) -> None:
        """After an I/O error nothing that this connection remembers can be trusted; the next operation opens anew."""
        self._broken = True
        self._close()

    def _guarded_checkpoint(self, limit: int) -> None:
        """Keep the WAL small: every eighth commit looks. Before SQLite 3.51.3 a checkpoint that races with a commit can
        lose it, so that one connection holds the write lock while another checkpoints
        (https://sqlite.org/wal.html#walresetbug)."""
        try:
            if not self._turnstile or os.stat(self.wal).st_size <= limit:
                return
        except OSError:
            return
        with contextlib.suppress(TryAgain, OSError):  # what was done is done: the next commit tries again
            try:
                self.enter()
                self.checkpoint()
            finally:
                self.leave()

    def tidy(self) -> None:
        """Copy the WAL into the file, whatever its size; take down doorbells that nobody needs any more."""
        if self._turnstile:
            doorbell.sweep(f"{self.url.path}.bells")
            with self.in_use:
                if self._broken:
                    self._open()
                self._guarded_checkpoint(0)

    def checkpoint(self) -> None:
        """Copy the WAL into the file, as far as readers allow; while nobody can commit, because a connection that reads
        no schema, which would take longer than the rest, holds the write lock. Who reads in a large one is waited for;
        where that did not help, again when it is twice as large."""
        try:
            size = os.stat(self.wal).st_size
            patience = READERS if size > self._large else 0.0
            self._large = LARGE if size <= LARGE else max(self._large, 2 * size if patience else 0)
            with contextlib.closing(_bare(self.url)) as guard:
                guard.execute("begin immediate")
                end = time.monotonic() + patience
                while not _is_copied(self.execute):
                    if time.monotonic() >= end:
                        break
                    time.sleep(0.002)  # SQLite tells nobody that a reader has ended
                else:
                    time.sleep(patience)  # nobody can write, so that who reads from now on needs no WAL
        except (sqlite3.Error, OSError):
            pass  # the next commit tries again; nothing depends on it but the size of the file


class _UnreadableText(Exception):
    """Text that is not UTF-8 came up in a transaction."""


def _is_copied(execute: Callable[[str], sqlite3.Cursor]) -> bool:
    ((_, frames, copied),) = execute("pragma wal_checkpoint(passive)").fetchall()
    return bool(frames == copied)


def still(path: str) -> sqlite3.Connection:
    """A copy that nobody writes to, for reading: where it has no WAL, nothing is made beside it."""
    with contextlib.suppress(FileNotFoundError):
        if os.stat(f"{path}-wal").st_size:
            return sqlite3.connect(file(path, "ro"), uri=True)
    return sqlite3.connect(f"{file(path, 'ro')}&immutable=1", uri=True)


def back_up(source: sqlite3.Connection, path: str) -> None:
    """Copy a database into a new file."""
    if os.path.lexists(path):
        raise error("usage", f"{path} is there already", "name a new file")
    files.make(path)
    try:
        with contextlib.closing(_target(path)) as copy:
            source.backup(copy)
    except BaseException:  # a signal, too, leaves no half of a copy
        os.unlink(path)
        raise


@contextlib.contextmanager
def border(path: str) -> Iterator[None]:
    """Where the driver's errors become the bus's, while nothing is written into a bus. SQLite calls it a failure of the
    disk when that has no room for the -shm file."""
    try:
        yield
    except _DRIVER_ERRORS as problem:
        translated = translate(problem, path)
        full = translated.code == "io_error" and not files.has_room(path)
        raise (error("disk_full") if full else translated) from problem


def _target(path: str) -> sqlite3.Connection:
    # The class itself: what traces calls puts a proxy in the place of `connect`, and SQLite takes none for a target.
    return sqlite3.Connection(file(path, "rw"), uri=True, isolation_level=None)


def _bare(url: Url, read_only: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        MEMORY if url.path == MEMORY else file(url.path, "ro" if read_only else "rw"),
        timeout=TIMEOUT,
        isolation_level=None,
        uri=True,
        cached_statements=256,
        check_same_thread=False,  # each has one thread (in memory they take turns), but may be closed by another
    )


def _configure(connection: sqlite3.Connection, url: Url) -> None:
    connection.execute("pragma wal_autocheckpoint = 0")
    connection.execute(f"pragma journal_size_limit = {WAL_LIMIT}")  # it is overwritten, not made anew
    connection.execute(f"pragma synchronous = {url.synchronous}")
    connection.execute("pragma temp_store = memory")  # there may be no place where it could write files
    if sqlite3.sqlite_version_info >= (3, 41, 0):
        connection.execute("pragma trusted_schema = off")


def _text(data: bytes) -> str:
    """Text as it is, also where somebody planted what is not UTF-8: one bad row must not stop the others."""
    return data.decode("utf-8", "surrogateescape")
