"""Message servers, measured when they answer on loopback at their usual ports (or at BENCH_REDIS, BENCH_BEANSTALKD,
BENCH_NATS, BENCH_RABBITMQ). Their own protocols over one socket, so that no client library is in the way; RabbitMQ by
`pika`, when that is installed. What a server does for durability is its own configuration: see README.md here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from tests.benchmarks.contestant import Contestant, body, number

HOST = "127.0.0.1"
PORTS = {"redis": 6379, "beanstalkd": 11300, "nats": 4222, "rabbitmq": 5672}


def port(name: str) -> int:
    return int(os.environ.get(f"BENCH_{name.upper()}", PORTS[name]))


def name_of(folder: Path) -> str:
    """A name for the queue of a folder, which no earlier run used."""
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{folder.parent.name}-{folder.name}")


class Line:
    """A socket that is read by lines and by lengths."""

    def __init__(self, name: str) -> None:
        self.socket = socket.create_connection((HOST, port(name)), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        return self.input.readline().rstrip(b"\r\n")

    def read(self, length: int) -> bytes:
        data = self.input.read(length + 2)
        return data[:-2]

    def close(self) -> None:
        self.input.close()
        self.socket.close()


class Redis:
    """Redis streams with a consumer group: XADD, XREADGROUP, XACK and XDEL."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        self.line = Line("redis")
        self.stream = name_of(folder)
        self.worker = str(worker)
        with contextlib.suppress(RuntimeError):  # the group is there
            self._ask("XGROUP", "CREATE", self.stream, "g", "0", "MKSTREAM")

    def _ask(self, *words: str) -> Any:
        encoded = [word.encode() for word in words]
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded]
        self.line.send(b"*%d\r\n" % len(words) + b"".join(parts))
        return self._answer()

    def _answer(self) -> Any:
        line = self.line.line()
        kind, rest = line[:1], line[1:]
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b"$":
            return None if rest == b"-1" else self.line.read(int(rest))
        if kind == b"*":
            return None if rest == b"-1" else [self._answer() for _ in range(int(rest))]
        return rest

    def put(self, number: int) -> None:
        self._ask("XADD", self.stream, "*", "body", body(number))

    def take(self) -> int | None:
        found = self._ask("XREADGROUP", "GROUP", "g", self.worker, "COUNT", "1", "STREAMS", self.stream, ">")
        if not found:
            return None
        ((_, ((id, (_, payload)),)),) = found
        self._ask("XACK", self.stream, "g", id.decode())
        self._ask("XDEL", self.stream, id.decode())
        return number(payload)

    def close(self) -> None:
        self.line.close()


class Beanstalkd:
    """beanstalkd: put, reserve, delete in a tube of its own."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        self.line = Line("beanstalkd")
        tube = name_of(folder)
        self._ask(f"use {tube}")
        self._ask(f"watch {tube}")
        self._ask("ignore default")

    def _ask(self, line: str) -> bytes:
        self.line.send(line.encode() + b"\r\n")
        return self.line.line()

    def put(self, number: int) -> None:
        payload = body(number)
        self._ask(f"put 5 0 30 {len(payload)}\r\n{payload}")

    def take(self) -> int | None:
        answer = self._ask("reserve-with-timeout 0").split()
        if answer[0] != b"RESERVED":
            return None
        payload = self.line.read(int(answer[2]))
        self._ask(f"delete {answer[1].decode()}")
        return number(payload)

    def close(self) -> None:
        self.line.close()


class Nats:
    """NATS JetStream: a file stream (work queue), a durable pull consumer, confirmed publishing and acknowledging."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        self.line = Line("nats")
        self.line.line()  # INFO
        self.stream = name_of(folder)
        self.inbox = f"_INBOX.{os.getpid()}.{id(self)}"
        self.line.send(b'CONNECT {"verbose":false}\r\nSUB %s 1\r\n' % self.inbox.encode())
        stream = {"name": self.stream, "subjects": [self.stream], "storage": "file", "retention": "workqueue"}
        self._ask(f"$JS.API.STREAM.CREATE.{self.stream}", json.dumps(stream))
        consumer = {"stream_name": self.stream, "config": {"durable_name": "g", "ack_policy": "explicit"}}
        self._ask(f"$JS.API.CONSUMER.DURABLE.CREATE.{self.stream}.g", json.dumps(consumer))

    def _ask(self, subject: str, payload: str) -> tuple[bytes, bytes, bytes]:
        """Publish, and wait for the answer: the subject to answer to, headers, body."""
        self.line.send(f"PUB {subject} {self.inbox} {len(payload.encode())}\r\n{payload}\r\n".encode())
        while True:
            words = self.line.line().split()
            if words[0] == b"PING":
                self.line.send(b"PONG\r\n")
            elif words[0] == b"MSG":
                reply = words[3] if len(words) == 5 else b""
                return reply, b"", self.line.read(int(words[-1]))
            elif words[0] == b"HMSG":
                head, whole = int(words[-2]), self.line.read(int(words[-1]))
                return words[3] if len(words) == 6 else b"", whole[:head], whole[head:]

    def put(self, number: int) -> None:
        self._ask(self.stream, body(number))

    def take(self) -> int | None:
        reply, head, payload = self._ask(f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.g", '{"batch":1,"no_wait":true}')
        if head or not reply:
            return None
        self._ask(reply.decode(), "+ACK")
        return number(payload)

    def close(self) -> None:
        self.line.close()


class RabbitMQ:
    """RabbitMQ: a durable queue, persistent messages, publisher confirms, basic.get and ack."""

    def __init__(self, folder: Path, mode: str, worker: int) -> None:
        import pika  # type: ignore[import-untyped,unused-ignore]

        self.connection: Any = pika.BlockingConnection(pika.ConnectionParameters(HOST, port("rabbitmq")))
        self.channel: Any = self.connection.channel()
        self.queue = name_of(folder)
        self.channel.queue_declare(self.queue, durable=True)
        self.channel.confirm_delivery()
        self.persistent: Any = pika.BasicProperties(delivery_mode=2)

    def put(self, number: int) -> None:
        self.channel.basic_publish("", self.queue, body(number).encode(), self.persistent)

    def take(self) -> int | None:
        method, _, payload = self.channel.basic_get(self.queue)
        if method is None:
            return None
        self.channel.basic_ack(method.delivery_tag)
        return number(payload)

    def close(self) -> None:
        self.connection.close()


KNOWN = {
    "redis": Contestant("redis streams", "server", Redis, ("server",)),
    "beanstalkd": Contestant("beanstalkd", "server", Beanstalkd, ("server",)),
    "nats": Contestant("nats jetstream", "server", Nats, ("server",)),
    "rabbitmq": Contestant("rabbitmq", "server", RabbitMQ, ("server",)),
}


def answering() -> list[Contestant]:
    """Those that answer on loopback."""
    return [contestant for name, contestant in KNOWN.items() if _answers(name)]


def _answers(name: str) -> bool:
    if name == "rabbitmq" and not importlib.util.find_spec("pika"):
        return False
    with contextlib.suppress(OSError):
        socket.create_connection((HOST, port(name)), timeout=1).close()
        return True
    return False
