"""The same random program on every door and on a plain Python model; all must answer alike and end alike.

A program is a list of calls, each at a moment of a virtual clock. The model below is the bus in eighty lines of Python
lists, written from the contract, not from the SQL. The doors: the blocking and the async client in memory, the command
line in this process, and, at every tenth seed, the shell functions in a bash, or the client on PostgreSQL. A program
that fails is shortened.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from bus_cli.main import cli

from bus import AsyncBus, Bus, clock
from bus.errors import CATALOG, BusError
from tests import servers
from tests.faults import planted, work
from tests.faults.invariants import Breach

UNIT = "programs"
SIZES = {"quick": 200, "nightly": 5_000, "release": 50_000}
BEGINNING = 1_800_000_000.0
SHELL_EVERY = 10  # programs of which one goes through the shell, which takes some 20 ms a call
SERVER_EVERY = 10  # programs of which one goes through PostgreSQL
LINE_EVERY = 2  # programs of which one goes through the command line, on a file
FUNCTIONS = Path(__file__).resolve().parents[2] / "clients" / "shell" / "bus.sh"

Answer = tuple[str, Any]  # "ok" and a value, or "error" and a code


class Call(NamedTuple):
    """One call: an operation, its arguments, and how many seconds pass before it."""

    name: str
    arguments: Mapping[str, Any]
    after: float


# --- programs

AGENTS = ("ann",) * 6 + ("ben",) * 5 + ("cat",)
SENDERS = (*AGENTS, "nobody")
SECONDS = (0.5, 1.0, 2.0, 5.0)
MAYBE = (None, None, None, None, *SECONDS)
BACK = (0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 11)  # which of the receipts that were given out, from the last one back
VERSIONS = (None, None, 0, 1, 2, 3)
PAYLOADS = ("{}", '{"task_id": "1"}', '{"task_id": "1", "weight": 2}', '{"task_id":"\\u0031"}')
Choices = dict[str, tuple[Any, ...]]
KEYED: Choices = {"agent": AGENTS, "key": ("x", "y/z")}

# What is likely stands several times: a program in which nearly everything is refused tells little.
SHELL_CALLS: dict[str, tuple[int, Choices]] = {
    "register": (1, {"agent": AGENTS, "type": ("milestone-executor", "validation"), "session": ("s", "s", "t")}),
    "send": (
        8,
        {
            "sender": SENDERS,
            "to": (*AGENTS, *["@milestone-executor"] * 7, "@validation", "@no-such-type"),
            "type": (*["task_assignment"] * 9, "error_report", "error_report", "no_such_type"),
            "payload": PAYLOADS,
            "priority": (1, 5, 5, 5, 10),
        },
    ),
    "broadcast": (1, {"sender": SENDERS, "type": ("task_assignment",), "payload": PAYLOADS}),
    "receive": (10, {"agent": SENDERS, "lease": SECONDS}),
    "take": (1, {"agent": AGENTS}),
    "ack": (4, {"delivery": BACK}),
    "release": (5, {"delivery": BACK, "delay": (0.0, 0.0, 2.0)}),
    "retire": (1, {"agent": SENDERS}),
    "save": (2, {**KEYED, "value": ("", "a\n", "“b”"), "ttl": MAYBE}),
    "load": (2, KEYED),
}
CALLS: dict[str, tuple[int, Choices]] = {
    **SHELL_CALLS,
    "send": (
        8,
        {
            **SHELL_CALLS["send"][1],
            "priority": (1, 5, 5, 5, 5, 10, 10, 11),
            "delay": MAYBE,
            "expires": MAYBE,
            "key": (*[None] * 6, "k", "l"),
        },
    ),
    "receive": (10, {**SHELL_CALLS["receive"][1], "limit": (1, 1, 2, 3), "type": (*[None] * 8, "error_report")}),
    "extend": (2, {"delivery": BACK, "lease": SECONDS}),
    "reject": (2, {"delivery": BACK}),
    "cancel": (2, {"id": tuple(range(1, 9))}),
    "redrive": (4, {"id": tuple(range(1, 9))}),
    "save": (3, {**SHELL_CALLS["save"][1], "if_version": VERSIONS}),
    "delete": (1, KEYED),
}
Calls = dict[str, tuple[int, Choices]]


def program(seed: int, calls: Calls) -> list[Call]:
    """The program of a seed."""
    chance = random.Random(seed)
    names = chance.choices(list(calls), [weight for weight, _ in calls.values()], k=chance.randint(10, 50))
    return [
        Call(name, {key: chance.choice(of) for key, of in calls[name][1].items()}, chance.choice((0, 0, 0.5, 1, 3)))
        for name in names
    ]


BEGIN = [
    Call("register", {"agent": "ann", "type": "milestone-executor", "session": "s"}, 0.0),
    Call("register", {"agent": "ben", "type": "milestone-executor", "session": "s"}, 0.0),
]


# --- the model


class Refusal(Exception):
    """What the bus would answer; its text is the code."""


class Model:
    """The bus, as a reader of the contract would write it."""

    LIMIT = 3

    def __init__(self) -> None:
        self.now = 0.0
        self.agents: dict[str, dict[str, str]] = {}
        self.messages: list[dict[str, Any]] = []
        self.states: dict[tuple[str, str], dict[str, Any]] = {}
        self.receipts: list[str] = []

    def answer(self, call: Call) -> Answer:
        self.now += call.after
        arguments = dict(call.arguments)
        if "delivery" in arguments:
            arguments["receipt"] = receipt(self.receipts, arguments.pop("delivery"))
        try:
            return "ok", getattr(self, call.name)(**arguments)
        except Refusal as refusal:
            return "error", str(refusal)

    def register(self, agent: str, type: str, session: str) -> None:
        self.agents[agent] = {"type": type, "session": session, "status": "active"}

    def retire(self, agent: str) -> None:
        self._known(agent)
        for message in self.messages:
            if message["status"] == "leased" and message["holder"] == agent:
                self._return(message)
        self.agents[agent]["status"] = "completed"

    def send(
        self, sender: str, to: str, type: str, payload: str, priority: int = 5, delay: float | None = None,
        expires: float | None = None, key: str | None = None,
    ) -> int:  # fmt: skip
        if priority > 10:
            raise Refusal("invalid_priority")
        if first := self._sent(sender, to, key):
            if (first["type"], json.loads(first["payload"])) != (type, json.loads(payload)):
                raise Refusal("key_reused")
            return int(first["id"])
        self._known(sender)
        if type == "no_such_type" or to == "@no-such-type":
            raise Refusal("unknown_type")
        due = None if expires is None else self.now + expires
        self.messages.append(
            {
                "id": len(self.messages) + 1, "session": self.agents[sender]["session"], "sender": sender, "to": to,
                "type": type, "payload": payload, "priority": priority, "status": "scheduled" if delay else "ready",
                "due": min(self.now + delay, due or 9e9) if delay else due, "expires": due, "delivery": 0, "retries": 0,
                "holder": None, "why": None, "key": key,
            }
        )  # fmt: skip
        return len(self.messages)

    def _sent(self, sender: str, to: str, key: str | None) -> dict[str, Any] | None:
        same = (m for m in self.messages if key and (m["sender"], m["to"], m["key"]) == (sender, to, key))
        return next(same, None)

    def broadcast(self, sender: str, type: str, payload: str) -> list[int]:
        self._known(sender)
        session = self.agents[sender]["session"]
        others = [
            name for name, agent in sorted(self.agents.items())
            if name != sender and agent["session"] == session and agent["status"] == "active"
        ]  # fmt: skip
        return [self.send(sender, to, type, payload) for to in others]

    def receive(self, agent: str, lease: float, limit: int = 1, type: str | None = None) -> list[list[Any]]:
        self._known(agent)
        queue = f"@{self.agents[agent]['type']}", self.agents[agent]["session"]
        mine = [m for m in self.messages if m["to"] == agent or (m["to"], m["session"]) == queue]
        for message in mine:
            if message["due"] is not None and message["due"] <= self.now:
                self._due(message)
        ready = [m for m in mine if m["status"] == "ready" and type in (None, m["type"]) and self._lasts(m)]
        chosen = sorted(ready, key=lambda m: (-m["priority"], m["id"]))[:limit]
        for message in chosen:
            message.update(status="leased", holder=agent, delivery=message["delivery"] + 1, due=self.now + lease)
            self.receipts.append(f"{message['id']}.{message['delivery']}")
        return [[m["id"], m["delivery"], m["payload"], m["retries"]] for m in chosen]

    def take(self, agent: str) -> list[list[Any]]:
        found = self.receive(agent, 1.0, limit=1000)
        for id, *_ in found:
            self.messages[id - 1].update(status="acknowledged", due=None)
        return found

    def _lasts(self, message: dict[str, Any]) -> bool:
        return message["expires"] is None or message["expires"] > self.now

    def _lapsed(self, message: dict[str, Any]) -> bool:
        """Whether it expired while nobody held it, and nobody has buried it yet."""
        waits = message["status"] in ("scheduled", "ready") and message["holder"] is None
        return waits and not self._lasts(message)

    def _due(self, message: dict[str, Any]) -> None:
        if message["status"] == "dead":
            message["due"] = None
        elif not self._lasts(message):
            message.update(status="dead", why="expired", due=None)
        elif message["status"] == "leased" and message["retries"] >= self.LIMIT:
            message.update(status="dead", why="retries_exhausted", due=message["expires"])
        else:
            message["retries"] += message["status"] == "leased"
            message.update(status="ready", due=message["expires"])

    def _held(self, receipt: str, over: bool = False) -> dict[str, Any]:
        id, delivery = map(int, receipt.split("."))
        if id > len(self.messages):
            raise Refusal("unknown_message")
        message = self.messages[id - 1]
        held = message["status"] in ("leased", "ready") and message["holder"] is not None
        if message["delivery"] != delivery or not (held or (over and message["status"] == "acknowledged")):
            raise Refusal("lease_lost")
        return message

    def _came_back(self, message: dict[str, Any]) -> bool:
        """Whether the lease of a held message ran out, which was counted when it did."""
        return bool(message["status"] == "ready")

    def ack(self, receipt: str) -> None:
        self._held(receipt, over=True).update(status="acknowledged", due=None)

    def extend(self, receipt: str, lease: float) -> None:
        message = self._held(receipt)
        message.update(status="leased", due=self.now + lease, retries=message["retries"] - self._came_back(message))

    def release(self, receipt: str, delay: float) -> None:
        message = self._held(receipt)
        message["retries"] -= self._came_back(message)
        self._return(message)
        if delay and message["status"] == "ready":
            due = min(self.now + delay, 9e9 if message["expires"] is None else message["expires"])
            message.update(status="scheduled", due=due)

    def _return(self, message: dict[str, Any]) -> None:
        dead = message["retries"] >= self.LIMIT
        message.update(
            status="dead" if dead else "ready", why="retries_exhausted" if dead else None,
            holder=message["holder"] if dead else None,
            due=None if dead else message["expires"], retries=message["retries"] + (not dead),
        )  # fmt: skip

    def reject(self, receipt: str) -> None:
        self._held(receipt).update(status="dead", why="rejected", due=None)

    def cancel(self, id: int) -> None:
        message = self._message(id)
        if message["status"] == "acknowledged" or message["why"] not in (None, "cancelled") or self._lapsed(message):
            raise Refusal("already_ended")
        message.update(status="dead", why="cancelled", due=None)

    def redrive(self, id: int) -> list[int]:
        message = self._message(id)
        if message["status"] != "dead" and not self._lapsed(message):
            raise Refusal("not_dead")
        if not self._lasts(message):
            message["expires"] = None
        message.update(status="ready", why=None, retries=0, holder=None, due=message["expires"])
        return [id]

    def _message(self, id: int) -> dict[str, Any]:
        if id > len(self.messages):
            raise Refusal("unknown_message")
        return self.messages[id - 1]

    def _known(self, agent: str) -> None:
        if agent not in self.agents:
            raise Refusal("unknown_agent")

    def save(self, agent: str, key: str, value: str, ttl: float | None, if_version: int | None = None) -> int:
        found = self.states.get((agent, key))
        live = found is not None and (found["until"] is None or found["until"] > self.now)
        if if_version is not None and if_version != (found["version"] if found and live else 0):
            raise Refusal("version_conflict")
        version = found["version"] + 1 if found else 1
        until = None if ttl is None else self.now + ttl
        self.states[agent, key] = {"value": value, "version": version, "until": until}
        return version

    def load(self, agent: str, key: str) -> str | None:
        found = self.states.get((agent, key))
        return found["value"] if found and (found["until"] is None or found["until"] > self.now) else None

    def delete(self, agent: str, key: str) -> bool:
        live = self.load(agent, key) is not None
        if live:
            self.states[agent, key].update(value="", until=self.now)
        return live

    def end(self) -> list[list[Any]]:
        """Where each message stands, as whoever looks is told."""
        return [
            [m["id"], m["status"], m["delivery"], m["retries"], m["holder"], m["why"], m["due"]]
            for m in map(self._told, self.messages)
        ]

    def _told(self, message: dict[str, Any]) -> dict[str, Any]:
        """As whoever receives next would make it."""
        if self._lapsed(message):
            return {**message, "status": "dead", "why": "expired", "due": None}
        if message["status"] == "scheduled" and message["due"] <= self.now:
            return {**message, "status": "ready"}
        return message


def receipt(given_out: list[str], back: int) -> str:
    """The receipt that a program means: one of those that were given out, from the last one back."""
    return given_out[-1 - back % len(given_out)] if given_out else "9999.1"


# --- doors


class Door:
    """A way to the bus. `call` makes one call, as the client's own method or otherwise."""

    name = "blocking"

    def __init__(self, url: str = ":memory:") -> None:
        self.url = url
        self.receipts: list[str] = []

    def run(self, program: list[Call]) -> tuple[list[Answer], list[list[Any]]]:
        with clock.moved(to=BEGINNING), self.open() as bus:
            now, answers = BEGINNING, []
            for call in program:
                now += call.after
                with clock.moved(to=now):
                    answers.append(self.answer(bus, call))
            with clock.moved(to=now):
                return answers, self.end(bus)

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with Bus.open(self.url, create=True) as bus:
            yield bus

    def answer(self, bus: Any, call: Call) -> Answer:
        arguments = dict(call.arguments)
        if "delivery" in arguments:
            arguments["receipt"] = receipt(self.receipts, arguments.pop("delivery"))
        try:
            value = self.call(bus, call.name, arguments)
        except BusError as problem:
            return "error", problem.code
        if call.name == "receive":
            self.receipts += [f"{id}.{delivery}" for id, delivery, *_ in value]
        if call.name == "take":
            self.receipts += [f"{id}.{delivery}" for id, delivery, *_ in value]
        return "ok", value

    def call(self, bus: Any, name: str, given: dict[str, Any]) -> Any:
        if name == "receive":
            return [self._seen(m) for m in bus.receive(given.pop("agent"), **given)]
        if name == "take":
            return [self._seen(m) for m in bus.receive(given["agent"], limit=1000, ack=True)]
        if name in ("ack", "release", "extend"):
            return getattr(bus, name)(given.pop("receipt"), **given)
        if name == "reject":
            return bus.reject(given["receipt"], reason="no")
        if name == "redrive":
            return bus.redrive([given["id"]])
        if name in ("save", "load", "delete"):
            return getattr(bus, f"state_{name}")(**given)
        value = getattr(bus, name)(**given)
        return None if name in ("register", "retire") else value

    @staticmethod
    def _seen(message: Any) -> list[Any]:
        delivery = int(message.receipt.partition(".")[2])
        return [message.id, delivery, bytes(message.raw).decode(), message.retry_count]

    def end(self, bus: Any) -> list[list[Any]]:
        found = sorted(bus.messages(limit=1000), key=lambda m: int(m.id))
        return [
            [m.id, str(m.status), int((m.receipt or ".0").partition(".")[2]), m.retry_count, m.leased_by, m.dead_reason,
             None if m.due_at is None else m.due_at.timestamp() - BEGINNING]
            for m in found
        ]  # fmt: skip


class Postgres(Door):
    """The client on PostgreSQL, where what is refused leaves a gap in the ids: the programs count without gaps."""

    name = "PostgreSQL"
    server = ""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with servers.schema(self.server) as self.url, super().open() as bus:
            yield bus

    def call(self, bus: Any, name: str, given: dict[str, Any]) -> Any:
        if "id" in given:
            given["id"] = self._real(given["id"])
        if "receipt" in given:
            id, _, delivery = given["receipt"].partition(".")
            given["receipt"] = f"{self._real(int(id))}.{delivery}"
        value = super().call(bus, name, given)
        if name == "send":
            return self._counted(value)
        if name in ("broadcast", "redrive"):
            return [self._counted(id) for id in value]
        return [[self._counted(id), *rest] for id, *rest in value] if name in ("receive", "take") else value

    def _real(self, number: int) -> int:
        return self.ids[number - 1] if number <= len(self.ids) else 10**9 + number

    def _counted(self, id: int) -> int:
        if id not in self.ids:
            self.ids.append(id)
        return self.ids.index(id) + 1

    def end(self, bus: Any) -> list[list[Any]]:
        return [[self._counted(id), *rest] for id, *rest in super().end(bus)]


class Waited:
    """An AsyncBus, called as if it were a Bus."""

    def __init__(self, runner: asyncio.Runner, bus: AsyncBus) -> None:
        self._runner, self._bus = runner, bus

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self._runner.run(getattr(self._bus, name)(*args, **kwargs))


class Asynchronous(Door):
    name = "async"

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with asyncio.Runner() as runner:
            bus = runner.run(AsyncBus.open(self.url, create=True))
            try:
                yield Waited(runner, bus)
            finally:
                runner.run(bus.close())


class CommandLine(Door):
    """The `bus` command, without its process."""

    name = "command line"

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with contextlib.ExitStack() as stack:
            if self.url == ":memory:":
                self.url = f"{stack.enter_context(work.folder())}/coordination.db?synchronous=normal"
            yield stack.enter_context(Bus.open(self.url, create=True))

    def call(self, bus: Any, name: str, given: dict[str, Any]) -> Any:
        status, out = self._run(*self._words(name, given))
        shown = json.loads(out) if out else None
        if name in ("receive", "take"):
            found = [[m["id"], int(m["receipt"].partition(".")[2]), m["payload"], m["retry_count"]] for m in shown]
            assert status == (0 if found else 1), (status, out)
            return [[id, delivery, json.dumps(payload), retries] for id, delivery, payload, retries in found]
        keys = {"send": "id", "broadcast": "ids", "redrive": "redriven", "save": "version", "delete": "deleted"}
        if name == "load":
            assert status == (0 if shown else 1), (status, out)
            return shown["value"] if shown else None
        return shown[keys[name]] if name in keys else None

    def _words(self, name: str, given: dict[str, Any]) -> list[str]:
        if name == "broadcast":
            return ["send", "--from", given["sender"], "--", "*", given["type"], given["payload"]]
        if name == "take":
            return ["receive", "--limit", "1000", "--ack", "--", given["agent"]]
        first = {"send": ("to", "type", "payload"), "save": ("agent", "key", "value")}.get(
            name, ("agent", "key", "receipt", "id")
        )
        words = [str(given[key]) for key in first if key in given]
        options = {key: value for key, value in given.items() if key not in first and value is not None}
        if name == "reject":
            options["reason"] = "no"
        spelt = [word for key, value in options.items() for word in (f"--{_dashed(key)}", str(value))]
        command = ["state", name] if name in ("save", "load", "delete") else [name]
        return [*command, *spelt, "--", *words]

    def _run(self, *words: str) -> tuple[int, str]:
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        with mock.patch.object(sys, "stdout", out):
            status = cli.main(["--bus", self.url, "--json", *words], prog_name="bus", standalone_mode=False)
            out.flush()
        data = out.buffer.getvalue()  # type: ignore[attr-defined]
        return (status if isinstance(status, int) else 0), data.decode()


def _dashed(key: str) -> str:
    return {"sender": "from"}.get(key, key.replace("_", "-"))


class Shell(CommandLine):
    """The functions of bus.sh, in a bash that lives as long as the program; errors are told by their exit status."""

    name = "shell functions"
    setting = ""  # further variables of one call's environment

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        with super().open() as bus:
            environment = {**os.environ, "BUS_URL": self.url, "BUS_COMMAND": "false", "BUS_SHELL_VIA": "sqlite3"}
            with subprocess.Popen(
                ["bash", "-c", f"source '{FUNCTIONS}'; while read -r line; do eval \"$line\"; done"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            ) as self.bash:  # fmt: skip
                yield bus
                assert self.bash.stdin
                self.bash.stdin.close()

    def call(self, bus: Any, name: str, given: dict[str, Any]) -> Any:
        function, *arguments = self._function(name, given)
        status, out = self._ask(f"BUS_NOW='{clock.now()}' {self.setting}", function, arguments)
        if status > 1:
            raise BusError(f"exit {status}")
        if name in ("receive", "take"):
            found = json.loads(out or "[]")
            return [[m["id"], int(m["receipt"].partition(".")[2]), json.dumps(m["payload"]), m["retry_count"]]
                    for m in (found if isinstance(found, list) else [found])]  # fmt: skip
        if name == "load":
            return out[:-1] if status == 0 else None
        ids = [int(line) for line in out.splitlines()]
        return {"send": ids[0] if ids else None, "broadcast": ids}.get(name)

    def _function(self, name: str, given: dict[str, Any]) -> list[str]:
        g = given
        return {
            "register": lambda: ["register_agent", g["agent"], g["type"], "", g["session"]],
            "send": lambda: ["send_agent_message", g["sender"], g["to"], g["type"], g["payload"], str(g["priority"])],
            "broadcast": lambda: ["send_agent_message", g["sender"], "*", g["type"], g["payload"]],
            "receive": lambda: ["receive_agent_message", g["agent"], str(g["lease"])],
            "take": lambda: ["get_agent_messages", g["agent"], "true"],
            "ack": lambda: ["ack_agent_message", g["receipt"]],
            "release": lambda: ["release_agent_message", g["receipt"], str(g["delay"])],
            "retire": lambda: ["update_agent_status", g["agent"], "completed"],
            "save": lambda: ["save_agent_state", g["agent"], g["key"], g["value"], "", str(g["ttl"] or "")],
            "load": lambda: ["load_agent_state", g["agent"], g["key"]],
        }[name]()

    def _ask(self, setting: str, function: str, arguments: list[str]) -> tuple[int, str]:
        assert self.bash.stdin
        assert self.bash.stdout
        words = " ".join("$'" + "".join(f"\\x{byte:02x}" for byte in word.encode()) + "'" for word in arguments)
        self.bash.stdin.write(f"{setting}; {function} {words}; printf '\\0%s\\0' $?\n".encode())
        self.bash.stdin.flush()
        parts = b""
        while parts.count(b"\0") < 2:
            data = os.read(self.bash.stdout.fileno(), 65536)
            if not data:
                raise Breach([f"the shell died at {function} {arguments}"])
            parts += data
        out, status, _ = parts.split(b"\0")
        return int(status), out.decode()


# --- comparing


def compare(calls: list[Call], doors: tuple[type[Door], ...]) -> None:
    """Run a program everywhere; raises `Breach` at the first answer that differs from the model's."""
    model = Model()
    expected = [model.answer(call) for call in calls]
    for kind in doors:
        answers, end = kind().run(calls)
        for call, wanted, got in zip(calls, expected, answers, strict=True):
            silent = call.name == "save" and issubclass(kind, Shell)  # it prints no version
            if _comparable(wanted, kind) != _comparable(got, kind) and not (silent and got == ("ok", None)):
                raise Breach([f"{kind.name}: {call.name} {call.arguments} answered {got}, the model {wanted}"])
        if end != model.end():
            raise Breach([f"{kind.name} ended with {end}, the model with {model.end()}"])


def differs(calls: list[Call], doors: tuple[type[Door], ...]) -> Breach | None:
    """What `compare` raises."""
    try:
        compare(calls, doors)
    except Breach as breach:
        return breach
    return None


def judge(calls: list[Call], differs: Callable[[list[Call]], Breach | None]) -> None:
    """Raises what differs, for a program that is as short as it can be by leaving calls out, one after the other."""
    breach, number = differs(calls), 0
    while breach and number < len(calls):
        shorter = [*calls[:number], *calls[number + 1 :]]
        if again := differs(shorter):
            calls, breach = shorter, again
        else:
            number += 1
    if breach:
        told = "".join(f"\n    {call.name} {call.arguments} after {call.after} s" for call in calls)
        raise Breach([f"{breach.lines[0]}; the program was{told}"])


def _comparable(answer: Answer, door: type[Door]) -> Answer:
    kind, value = answer
    if kind == "error" and issubclass(door, Shell):
        known = CATALOG.get(value)
        return kind, f"exit {known.kind.exit_status}" if known else value
    if kind == "ok" and isinstance(value, list) and value and isinstance(value[0], list):
        return kind, [[id, delivery, json.loads(payload), retries] for id, delivery, payload, retries in value]
    return answer


def _check(size: int, seed: int, calls: Calls, *doors: type[Door]) -> None:
    for number in range(seed, seed + size):
        try:
            with work.made_at_once():
                judge([*BEGIN, *program(number, calls)], partial(differs, doors=doors))
        except Breach as breach:
            raise Breach([f"model 1 --seed {number}: {breach.lines[0]}"]) from breach


def run(size: int, seed: int) -> str:
    """So many programs. Which doors each goes through follows from its seed."""
    with servers.any_server() as Postgres.server:
        for number in range(seed, seed + size):
            line = [CommandLine] if number % LINE_EVERY == 0 else []
            server = [Postgres] if number % SERVER_EVERY == 1 else []
            _check(1, number, CALLS, Door, Asynchronous, *line, *server)
            if number % SHELL_EVERY == 0:
                _check(1, number, SHELL_CALLS, Door, Shell)
    doors = f"every {LINE_EVERY}nd through the command line, every {SHELL_EVERY}th through the shell functions"
    return f"{size} programs, blocking and async, {doors}, every {SERVER_EVERY}th on PostgreSQL"


# --- planted defects


def a_redriven_message_that_keeps_its_count(seed: int) -> None:
    """Planted: redriving does not give a new life."""
    with planted.planted({"operations/messages/redrive.sql": ("reason = null, retry_count = 0,", "reason = null,")}):
        _check(2000, seed, CALLS, Door)


def a_released_message_whose_receipt_still_works(seed: int) -> None:
    """Planted: what was given back can be acknowledged by who gave it back."""
    edit = (">= retry_limit then leased_by end,", ">= retry_limit then leased_by else leased_by end,")
    with planted.planted({"operations/messages/release.sql": edit}):
        _check(2000, seed, CALLS, Door)


CONTROLS = (a_redriven_message_that_keeps_its_count, a_released_message_whose_receipt_still_works)
