"""A line to PostgreSQL that is cut at the worst moment: by a proxy that forwards COMMIT, and keeps the answer."""

import re
import select
import socket
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from bus import Bus, messages, state
from tests.conformance.refusal import refused

TASK = "task_assignment"


class Proxy:
    """A loopback door to a server, which can be told to cut the line: `after` the bytes of a commit went through,
    `before` they do, or `now`, at whatever comes next."""

    def __init__(self, server: str) -> None:
        self._address = address(server)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = ""
        self.cuts = 0
        self._end = threading.Event()
        self._doorman = threading.Thread(target=self._accept, daemon=True)
        self._doorman.start()

    def close(self) -> None:
        self._end.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._doorman.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._end.is_set():
                return client.close()
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        server = socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)
        server.connect(self._address)
        line = Line(client, server)
        with client, server:
            while not self._end.is_set():
                for ready in select.select([client, server], [], [], 0.2)[0]:
                    data = ready.recv(65536)
                    if not data or not self._forward(data, ready is client, line):
                        return

    def _forward(self, data: bytes, up: bool, line: "Line") -> bool:
        if not up:
            line.heard(data)
        commits = up and self.cut if self.cut == "now" or line.commits(data) else ""
        if commits in ("before", "now"):
            return self._done()
        (line.server if up else line.client).sendall(data)
        if commits:
            line.server.recv(65536)  # the server has done it; nobody hears of it
            return self._done()
        return True

    def _done(self) -> bool:
        self.cut, self.cuts = "", self.cuts + 1
        return False


class Line:
    """A client and its server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self._names = {b"begin": b"begin", b"commit": b"commit"}
        self._idle = True

    def heard(self, data: bytes) -> None:
        """What the server says last tells whether a transaction is open."""
        if (found := data.rfind(b"Z\0\0\0\5")) >= 0:
            self._idle = data[found + 5 : found + 6] == b"I"

    def commits(self, data: bytes) -> bool:
        """Whether this commits: it says so, or is a transaction by itself."""
        words = {word: self._says(word, data) for word in self._names}
        return words[b"commit"] or (self._idle and b"\0bus_" in data and not words[b"begin"])

    def _says(self, word: bytes, data: bytes) -> bool:
        """In words where it is prepared, later by the name it was prepared under."""
        if found := re.search(rb"(bus_\d+)\0" + word + rb"[\0 ]", data):
            self._names[word] = b"\0%s\0" % found[1]
        return found is not None or self._names[word] in data


def address(server: str) -> str | tuple[str, int]:
    parts = urlsplit(server)
    host = unquote(parts.netloc.rpartition("@")[2]) or parse_qs(parts.query).get("host", [""])[0]
    name, _, port = host.partition(":")
    return f"{name}/.s.PGSQL.{port or 5432}" if name.startswith("/") else (name, int(port or 5432))


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def behind(proxy: Proxy, postgres: str) -> Iterator[Bus]:
    """A bus behind the proxy, with agent a."""
    parts = urlsplit(postgres)
    user = parts.netloc.rpartition("@")[0]
    with Bus.open(f"postgresql://{user}@127.0.0.1:{proxy.port}{parts.path}?{parts.query}", create=True) as bus:
        bus.register("a", type="validation", session="s")
        bus.send("a", "a", TASK, {"phase": "first"})
        yield bus


def test_a_commit_whose_answer_is_cut_off_says_so(behind: Bus, proxy: Proxy) -> None:
    for number in range(5):
        proxy.cut = "after"
        with refused("outcome_unknown", 70):
            behind.send("a", "a", TASK, {"n": number}, key=f"k{number}")
        assert proxy.cuts == number + 1
        id = behind.send("a", "a", TASK, {"n": number}, key=f"k{number}")  # the same key: done once
        assert [message.id for message in behind.messages() if message.payload.get("n") == number] == [id]


def test_a_step_whose_answer_is_cut_off_is_whole_and_not_done_twice(behind: Bus, proxy: Proxy) -> None:
    (message,) = behind.receive("a", lease=600)
    step = [
        messages.ack(message.receipt or "", once=True),
        state.save("a", "k", "v"),
        messages.send("a", "a", TASK, {}),
    ]
    proxy.cut = "after"
    with refused("outcome_unknown", 70):
        behind.apply(step)
    assert behind.message(message.id).status == "acknowledged"
    assert behind.state_load_versioned("a", "k") == ("v", 1)
    with refused("already_ended", 76):
        behind.apply(step)
    assert len(behind.messages()) == 2


def test_a_line_that_is_cut_before_the_commit_leaves_nothing(behind: Bus, proxy: Proxy) -> None:
    (message,) = behind.receive("a", lease=600)
    proxy.cut = "before"
    with refused("outcome_unknown", 70):
        behind.apply([messages.ack(message.receipt or "", once=True), state.save("a", "k", "v")])
    assert behind.message(message.id).status == "leased"
    assert behind.state_load("a", "k") is None


def test_looking_is_repeated_whenever_the_line_is_cut(behind: Bus, proxy: Proxy) -> None:
    behind.config_list()
    for number in range(3):
        proxy.cut = "now"
        assert len(behind.messages()) == 1
        assert proxy.cuts == number + 1
