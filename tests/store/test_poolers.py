"""A transaction pooler between the bus and PostgreSQL, as PgBouncer is one: each transaction gets another process."""

import socket
import struct
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from bus import Bus, BusError
from tests import servers
from tests.conformance.refusal import refused
from tests.conftest import listening
from tests.store.test_cut_lines import address

TASK = "task_assignment"
READY, SYNC, QUERY, TERMINATE = b"Z", b"S", b"Q", b"X"


def messages(line: socket.socket) -> Generator[tuple[bytes, bytes], None, None]:
    """The messages of one side: each one's kind, and all its bytes. Ends with the line."""
    with suppress(OSError), line.makefile("rb") as stream:
        while head := stream.read(5):
            yield head[:1], head + stream.read(struct.unpack("!I", head[1:])[0] - 4)


class Process:
    """A server process, and what it says at first."""

    def __init__(self, server: str, startup: bytes) -> None:
        place = address(server)
        self.line = socket.socket(socket.AF_UNIX if isinstance(place, str) else socket.AF_INET)
        self.line.connect(place)
        self.line.sendall(startup)
        self.says = messages(self.line)
        key = b"K" + struct.pack("!III", 12, 7, 7)  # a pooler makes up the process and the key that cancel
        self.greeting = b"".join(key if said[:1] == b"K" else said for said in self.answer(1))
        self.transactions = 0

    def answer(self, rounds: int) -> Iterator[bytes]:
        """What it says until it was ready so often; the last byte tells whether a transaction is open."""
        for kind, data in self.says:
            yield data
            rounds -= kind == READY
            if not rounds:
                return


class Pooler:
    """A loopback door to a server behind which two processes take turns, a transaction each."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._processes: list[Process] = []
        self.free: list[Process] = []
        self._free = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._lines: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for line in [*self._lines, *(process.line for process in self._processes)]:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for process in self._processes:
            process.says.close()
            process.line.close()
        for line in [self._listener, *self._lines]:
            line.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._lines.append(client)
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            startup = client.recv(65536)
            while len(startup) == 8:  # whether we speak TLS, or GSS
                client.sendall(b"N")
                startup = client.recv(65536)
            with self._free:
                while len(self._processes) < 2:
                    self._processes.append(Process(self._server, startup))
                    self.free.append(self._processes[-1])
                client.sendall(self._processes[0].greeting)
            process: Process | None = None
            asked, rounds = b"", 0
            for kind, data in messages(client):
                if kind == TERMINATE:
                    return
                asked, rounds = asked + data, rounds + (kind in (SYNC, QUERY))
                if not rounds:
                    continue
                process = process or self._take()
                process.line.sendall(asked)
                answer = b"".join(process.answer(rounds))
                asked, rounds = b"", 0
                if answer.endswith(b"I"):  # before the client can go on: the next transaction is another's
                    self._give(process)
                    process = None
                client.sendall(answer)

    def _take(self) -> Process:
        with self._free:
            assert self._free.wait_for(lambda: self.free, 20)
            process = self.free.pop(0)
            process.transactions += 1
            return process

    def _give(self, process: Process) -> None:
        with self._free:
            self.free.append(process)
            self._free.notify()

    @property
    def turns(self) -> list[int]:
        """How many transactions each process has had."""
        return [process.transactions for process in self._processes]


@pytest.fixture
def pooler(server: str) -> Iterator[Pooler]:
    pooler = Pooler(server)
    yield pooler
    pooler.close()


def through(pooler: Pooler, url: str) -> str:
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    return f"postgresql://{user}@127.0.0.1:{pooler.port}{parts.path}?{parts.query}&listen=no"


def test_behind_a_pooler_each_transaction_brings_what_it_needs(pooler: Pooler, postgres: str, server: str) -> None:
    with (
        servers.many() as schema,
        Bus.open(through(pooler, postgres), create=True) as bus,
        Bus.open(through(pooler, schema(server)), create=True) as other,
    ):
        for number in range(5):
            for one in (bus, other):
                one.register("a", type="validation", session="s")
                id = one.send("a", "a", TASK, {"weight": number}, key=f"k{number}")
                assert id == number + 1
                (message,) = one.receive("a")
                one.state_save("a", "k", str(number))
                one.ack(message.receipt or "")
                with refused("lease_lost", 76):
                    one.ack(f"{id}.9")
                assert one.message(id).status == "acknowledged"
        bus.types_add("message", "own", schema={"required": ["x"]})
        with refused("invalid_payload", 65):
            bus.send("a", "a", "own", {})
        assert (bus.state_load("a", "k"), other.state_load("a", "k")) == ("4", "4")
        assert min(pooler.turns) > 20, "both were used"


def test_behind_a_pooler_a_waiting_receiver_looks(pooler: Pooler, postgres: str) -> None:
    with Bus.open(through(pooler, postgres), create=True) as bus, ThreadPoolExecutor(1) as pool, listening() as listens:
        bus.register("a", type="validation", session="s")
        waiting = pool.submit(bus.receive, "a", wait=20)
        assert listens.wait(20)
        bus.send("a", "a", TASK, {"phase": "x"})
        assert waiting.result(10)[0].payload == {"phase": "x"}
        with Bus.open(through(pooler, postgres), read_only=True) as reader:
            assert len(reader.messages()) == 1
            with refused("not_allowed", 65):
                reader.state_save("a", "k", "v")


def test_a_pooler_that_the_address_says_nothing_of_is_noticed(pooler: Pooler, postgres: str) -> None:
    """What one bus sets for its connection would hold for another."""
    address = through(pooler, postgres)
    Bus.open(address, create=True).close()
    silent = address.replace("&listen=no", "")
    with pytest.raises(BusError, match=r"a pooler stands before the server; add \?listen=no"):
        Bus.open(silent)
    Bus.open(f"{silent}&listen=yes").close()
