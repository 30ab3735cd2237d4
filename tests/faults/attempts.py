"""Every field that takes input, at every door: how an input is given there, and where it must then stand.

In the words of a command and of a shell function VALUE is where the input goes; a command without it reads it from
standard input.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from bus_cli import main as command_line
from bus_cli.output import Output

from bus import Bus, step
from bus.errors import CATALOG, BusError
from tests.faults import corpus, work
from tests.faults.corpus import Oracle, Value
from tests.faults.invariants import Breach
from tests.faults.model import FUNCTIONS, Asynchronous

VALUE = "\0"
NEWEST = "select {} from agent_messages order by id desc limit 1"


class Field(NamedTuple):
    """A place for input. `stored` is where what was accepted must stand, byte for byte; `changes` are the tables that
    may change then, a row each, beside heartbeats."""

    name: str
    like: str
    fits: Oracle
    library: Callable[[Any, Any], Any]
    words: tuple[str, ...]
    function: tuple[str, ...] = ()
    stored: str = ""
    changes: tuple[str, ...] = ()
    default: bool = False  # whether the shell function takes "" for "none given"


def number(value: Value) -> Value:
    """What a library is given for a number in a text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,4000}", value, re.ASCII) else value


MESSAGES, STATE, REGISTRY, SESSIONS = "agent_messages", "agent_state", "agent_registry", "coordination_sessions"
REGISTER = ("register", "--type", "validation", "--session", "s")
NEW: dict[str, Any] = {"type": "validation", "session": "s"}
JOINED = (REGISTRY, SESSIONS)


def _sent(option: str, like: str, fits: Oracle, column: str = "") -> Field:
    name = option.replace("-", "_")
    given = number if like == "number" else lambda value: value
    return Field(
        option, like, fits, lambda bus, v: bus.send("boss", "one", "note", "{}", **{name: given(v)}),
        ("send", "--from", "boss", f"--{option}={VALUE}", "--", "one", "note", "{}"),
        ("send_agent_message", "boss", "one", "note", "{}", VALUE) if option == "priority" else (),
        NEWEST.format(column) if column else "", (MESSAGES,), True,
    )  # fmt: skip


def _traced(option: str, like: str, fits: Oracle, column: str = "") -> Field:
    def library(bus: Any, value: Any) -> Any:
        given = {"type": "t", "task": "x", "command": "c", option: value}
        return bus.trace_spawn(given.pop("type"), given.pop("task"), pid=os.getpid(), **given)

    words = {"type": "t", "task": "x", "command": "c", option: VALUE}
    options = tuple(f"--{key}={text}" for key, text in words.items())
    return Field(
        f"trace {option}", like, fits, library, ("trace", "spawn", "--pid", str(os.getpid()), *options), (),
        f"select {column} from agent_lifecycle order by agent_id desc limit 1" if column else "", ("agent_lifecycle",
        "sqlite_sequence"),
    )  # fmt: skip


FIELDS: tuple[Field, ...] = (
    Field("payload", "json", corpus.is_payload, lambda bus, v: bus.send("boss", "one", "note", v),
          ("send", "--from", "boss", "--", "one", "note", "-"), ("send_agent_message", "boss", "one", "note", VALUE),
          NEWEST.format("payload"), (MESSAGES,)),
    Field("value", "word", corpus.is_text, lambda bus, v: bus.state_save("one", "k", v), ("state", "save", "--",
    "one", "k", "-"),
          ("save_agent_state", "one", "k", VALUE), "select state_value from agent_state where state_key = 'k'",
          (STATE,)),
    Field("snapshot", "json", corpus.is_document, lambda bus, v: bus.checkpoint_create("one", v),
          ("checkpoint", "create", "--snapshot", "-", "--", "one"), ("create_agent_checkpoint", "one", "manual", VALUE),
          "select state_snapshot from agent_checkpoints order by rowid desc limit 1", ("agent_checkpoints",), True),
    Field("capabilities", "json", corpus.is_array, lambda bus, v: bus.register("one", **NEW, capabilities=v),
          (*REGISTER, f"--capabilities={VALUE}", "--", "one"), ("register_agent", "one", "validation", "", "s", VALUE),
          "select capabilities from agent_registry where agent_id = 'one'", JOINED, True),
    Field("error info", "json", corpus.is_document, lambda bus, v: bus.update("one", error_info=v),
          ("update", f"--error-info={VALUE}", "--", "one"), (),
          "select error_info from agent_registry where agent_id = 'one'", JOINED),
    Field("agent", "id", corpus.is_id, lambda bus, v: bus.register(v, **NEW), (*REGISTER, "--", VALUE),
          ("register_agent", VALUE, "validation", "", "s"),
          "select agent_id from agent_registry where agent_id = :value", JOINED),
    Field("session", "id", corpus.is_id, lambda bus, v: bus.register("new", type="validation", session=v),
          ("register", "--type", "validation", f"--session={VALUE}", "--", "new"), ("register_agent", "new",
          "validation", "", VALUE),
          "select session_id from agent_registry where agent_id = 'new'", JOINED),
    Field("milestone", "word", corpus.is_text, lambda bus, v: bus.register("new", **NEW, milestone=v),
          (*REGISTER, f"--milestone={VALUE}", "--", "new"), ("register_agent", "new", "validation", VALUE, "s"),
          "select milestone_id from agent_registry where agent_id = 'new'", JOINED),
    Field("command", "word", corpus.is_text, lambda bus, v: bus.register("new", **NEW, command=v),
          (*REGISTER, f"--command={VALUE}", "--", "new"), (),
          "select command from agent_registry where agent_id = 'new'", JOINED),
    Field("agent type", "id", corpus.is_one_of("validation"), lambda bus, v: bus.register("new", type=v, session="s"),
          ("register", f"--type={VALUE}", "--session", "s", "--", "new"), ("register_agent", "new", VALUE, "", "s"),
          "select agent_type from agent_registry where agent_id = 'new'", JOINED),
    Field("recipient", "id", lambda v: corpus.is_id(v) or v == "@milestone-executor", lambda bus, v: bus.send("boss",
    v, "note", "{}"),
          ("send", "--from", "boss", "--", VALUE, "note", "{}"), ("send_agent_message", "boss", VALUE, "note", "{}"),
          NEWEST.format("to_agent"), (MESSAGES,)),
    Field("sender", "id", corpus.is_one_of("boss", "one"), lambda bus, v: bus.send(v, "one", "note", "{}"),
          ("send", f"--from={VALUE}", "--", "one", "note", "{}"), ("send_agent_message", VALUE, "one", "note", "{}"),
          NEWEST.format("from_agent"), (MESSAGES,)),
    Field("message type", "id", corpus.is_one_of("note"), lambda bus, v: bus.send("boss", "one", v, "{}"),
          ("send", "--from", "boss", "--", "one", VALUE, "{}"), ("send_agent_message", "boss", "one", VALUE, "{}"),
          NEWEST.format("message_type"), (MESSAGES,)),
    Field("key", "id", corpus.is_key, lambda bus, v: bus.state_save("one", v, "w"), ("state", "save", "--", "one",
    VALUE, "w"),
          ("save_agent_state", "one", VALUE, "w"), "select state_key from agent_state where state_value = 'w'",
          (STATE,)),
    Field("keeper", "id", corpus.is_id, lambda bus, v: bus.state_save(v, "k", "w"), ("state", "save", "--", VALUE,
    "k", "w"),
          ("save_agent_state", VALUE, "k", "w"), "select agent_id from agent_state where state_value = 'w'", (STATE,)),
    Field("state type", "id", corpus.is_one_of("user_data"), lambda bus, v: bus.state_save("one", "k", "w", type=v),
          ("state", "save", f"--type={VALUE}", "--", "one", "k", "w"), ("save_agent_state", "one", "k", "w", VALUE),
          "select state_type from agent_state where state_value = 'w'", (STATE,), True),
    Field("ttl", "duration", corpus.is_duration, lambda bus, v: bus.state_save("one", "k", "w", ttl=v),
          ("state", "save", f"--ttl={VALUE}", "--", "one", "k", "w"), ("save_agent_state", "one", "k", "w", "", VALUE),
          "", (STATE,), True),
    Field("version", "number", corpus.unknown, lambda bus, v: bus.state_save("one", "k", "w", if_version=number(v)),
          ("state", "save", f"--if-version={VALUE}", "--", "one", "k", "w"), (), "", (STATE,)),
    _sent("priority", "number", corpus.is_priority, "priority"),
    _sent("delay", "duration", corpus.is_duration),
    _sent("expires", "duration", corpus.is_duration),
    _sent("key", "word", corpus.is_word, "idempotency_key"),
    _sent("correlation", "word", corpus.is_text, "correlation_id"),
    _sent("traceparent", "word", lambda v: False if v else None, "traceparent"),
    _sent("reply-to", "number", corpus.unknown),
    Field("lease", "duration", lambda v: False if corpus.is_duration(v) is False else None, lambda bus,
    v: bus.receive("one", lease=v),
          ("receive", f"--lease={VALUE}", "--", "one"), ("receive_agent_message", "one", VALUE), "", (MESSAGES,), True),
    Field("limit", "number", corpus.unknown, lambda bus, v: bus.receive("nobody", limit=number(v)),
          ("receive", f"--limit={VALUE}", "--", "nobody")),
    Field("receiver", "id", corpus.is_one_of("boss", "one"), lambda bus, v: bus.receive(v), ("receive", "--", VALUE),
          ("receive_agent_message", VALUE), "", (MESSAGES,)),
    Field("receipt", "receipt", lambda v: True if v == "1.1" else None if re.fullmatch(r"0*1\.0*1", v) else False,
          lambda bus, v: bus.ack(v), ("ack", "--", VALUE), ("ack_agent_message", VALUE), "", (MESSAGES,)),
    Field("released", "receipt", lambda v: True if v == "1.1" else None if re.fullmatch(r"0*1\.0*1", v) else False,
          lambda bus, v: bus.release([v]), ("release", "--", VALUE), ("release_agent_message", VALUE), "", (MESSAGES,)),
    Field("reason", "word", corpus.is_text, lambda bus, v: bus.reject("1.1", reason=v), ("reject",
    f"--reason={VALUE}", "1.1"), (),
          "select reason from agent_messages where id = 1", (MESSAGES,)),
    Field("id", "number", lambda v: True if v in ("1", "2") else None, lambda bus, v: bus.cancel(v), ("cancel", "--",
    VALUE), (),
          "", (MESSAGES,)),
    Field("dead id", "number", lambda v: True if v == "3" else None, lambda bus, v: bus.redrive([v]), ("redrive",
    "--", VALUE), (),
          "", (MESSAGES,)),
    Field("status", "word", corpus.is_one_of("active", "paused", "spawning"), lambda bus, v: bus.heartbeat("one",
    status=v),
          ("heartbeat", f"--status={VALUE}", "--", "one"), ("update_agent_status", "one", VALUE),
          "select status from agent_registry where agent_id = 'one'", JOINED),
    Field("task", "word", corpus.is_text, lambda bus, v: bus.heartbeat("one", task=v), ("heartbeat",
    f"--task={VALUE}", "--", "one"), (),
          "select current_task from agent_registry where agent_id = 'one'", JOINED),
    Field("phase", "word", corpus.is_text, lambda bus, v: bus.heartbeat("one", phase=v), ("heartbeat",
    f"--phase={VALUE}", "--", "one"),
          (), "select current_phase from agent_registry where agent_id = 'one'", JOINED),
    Field("session phase", "word", corpus.is_text, lambda bus, v: bus.session_progress("s", 5, phase=v),
          ("session", "progress", f"--phase={VALUE}", "--", "s", "5"), (), "select phase from coordination_sessions",
          (SESSIONS,)),
    Field("progress", "number", corpus.unknown, lambda bus, v: bus.session_progress("s", number(v)),
          ("session", "progress", "--", "s", VALUE), (), "", (SESSIONS,)),
    Field("setting", "id", lambda v: None, lambda bus, v: bus.config_set(v, "7"), ("config", "set", "--", VALUE, "7"),
    (),
          "", ("agent_coordination_config",)),
    Field("setting's value", "number", lambda v: False if "\0" in v else None, lambda bus,
    v: bus.config_set("lease_seconds", v),
          ("config", "set", "--", "lease_seconds", VALUE), (),
          "select value from agent_coordination_config where key = 'lease_seconds'", ("agent_coordination_config",)),
    Field("type", "id", corpus.is_id, lambda bus, v: bus.types_add("state", v), ("types", "add", "--", "state",
    VALUE), (),
          "select name from state_types where name = :value", ("state_types",)),
    Field("description", "word", corpus.is_text, lambda bus, v: bus.types_add("state", "new", description=v),
          ("types", "add", f"--description={VALUE}", "--", "state", "new"), (),
          "select description from state_types where name = 'new'", ("state_types",)),
    Field("schema", "schema", lambda v: None if corpus.is_payload(v) else False, lambda bus,
    v: bus.types_add("message", "new", schema=v),
          ("types", "add", "--schema=-", "--", "message", "new"), (), "", ("message_types", "sqlite_schema")),
    Field("step", "line", corpus.unknown, lambda bus, v: bus.apply([step.named(FIRST), step.named(_line(v))]),
          ("apply", "-"), (), "",
          (MESSAGES, STATE, REGISTRY, SESSIONS, "agent_checkpoints")),
    Field("state file", "state file", corpus.unknown, lambda bus, v: bus.trace_import(v), ("trace", "import", "-"),
    (), "",
          ("agent_lifecycle", "sqlite_sequence")),
    _traced("type", "word", corpus.unknown, "agent_type"),
    _traced("task", "word", corpus.unknown, "task_id"),
    _traced("command", "word", corpus.is_text, "command"),
    _traced("priority", "number", corpus.unknown),
    _traced("metadata", "json", corpus.is_document, "metadata"),
    _traced("at", "duration", corpus.unknown),
)  # fmt: skip


FIRST = {"op": "state.save", "agent": "one", "key": "first", "value": "v"}  # done before what may be refused


def _line(value: Value) -> Any:
    """A line of a step as a library is given it: the mapping that the line tells, else the input itself."""
    try:
        return json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return value


class Answer(NamedTuple):
    """How a door answered: an exit status, what it printed, and its words when it refused."""

    status: int
    out: bytes = b""
    words: str = ""


class Library:
    """The blocking client."""

    name = "blocking"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack = contextlib.ExitStack()
        self.bus: Any = None

    def close(self) -> None:
        """Hold nothing of the bus any more."""
        self.stack.close()
        self.bus = None

    def end(self) -> None:
        self.close()

    def takes(self, field: Field, value: Value) -> bool:
        """Whether an input can be given here at all."""
        return True

    def attempt(self, field: Field, value: Value) -> Answer:
        if self.bus is None:
            self.bus = self.open()
        if isinstance(value, bytes) and field.name not in ("payload", "snapshot"):
            value = value.decode("utf-8", "surrogateescape")
        try:
            field.library(self.bus, value)
        except BusError as problem:
            if problem.code not in CATALOG:
                raise Breach([f"a code that nobody knows: {problem.code}"]) from problem
            return Answer(problem.exit_status, b"", str(problem))
        except Exception as problem:
            raise Breach([f"it was answered by {problem!r}"[:300]]) from problem
        return Answer(0)

    def open(self) -> Any:
        return self.stack.enter_context(Bus.open(str(self.path)))


class AsyncLibrary(Library):
    """The async client."""

    name = "async"

    def open(self) -> Any:
        return self.stack.enter_context(Asynchronous(str(self.path)).open())


class _Left(BaseException):
    def __init__(self, status: int) -> None:
        self.status = status


def _leave(status: int) -> None:
    raise _Left(status)


def _words(told: bytes) -> str:
    try:
        return told.decode()
    except UnicodeDecodeError as problem:
        raise Breach([f"it was refused in words that are no UTF-8: {told[:300]!r}"]) from problem


def data_of(value: Value) -> bytes:
    """The input as another process is given it."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


class CommandLine(Library):
    """The `bus` command, without its process."""

    name = "command line"

    def takes(self, field: Field, value: Value) -> bool:
        if not isinstance(value, str | bytes):
            return False
        reads = not any(VALUE in word for word in field.words)
        return reads or (b"\0" not in data_of(value) and len(data_of(value)) < 100_000)

    def attempt(self, field: Field, value: Value) -> Answer:
        words = [word.replace(VALUE, os.fsdecode(data_of(value))) for word in field.words]
        status, out, told = self.run(["--bus", str(self.path), *words], data_of(value))
        if status > 1 and (out or not told.startswith(b"bus: ") or told.count(b"\n") != 1):
            raise Breach([f"it was refused by {told[:300]!r} on stderr and {out[:100]!r} on stdout"])
        if status <= 1 and told:
            raise Breach([f"it was done, and said {told[:300]!r} on stderr"])
        return Answer(status, out, _words(told))

    def run(self, words: list[str], given: bytes) -> tuple[int, bytes, bytes]:
        """Exit status, stdout and stderr of a command."""
        streams = [io.TextIOWrapper(io.BytesIO(data), "utf-8", "surrogateescape") for data in (given, b"", b"")]
        with contextlib.ExitStack() as stack:
            for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
                stack.enter_context(mock.patch.object(sys, name, stream))
            stack.enter_context(mock.patch.object(Output, "leave", _leave))
            stack.enter_context(mock.patch("signal.signal"))
            try:
                command_line.main(words)
            except _Left as left:
                status = left.status
            except Exception as problem:
                raise Breach([f"the command was left by {problem!r}"[:300]]) from problem
            for stream in streams[1:]:
                stream.flush()
        return status, *(stream.buffer.getvalue() for stream in streams[1:])  # type: ignore[attr-defined]


class Process(CommandLine):
    """The `bus` command, as a process."""

    name = "process"

    def run(self, words: list[str], given: bytes) -> tuple[int, bytes, bytes]:
        command = [sys.executable, "-m", "bus_cli", *words]
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=60)
        return done.returncode, done.stdout, done.stderr


class Shell(Library):
    """The functions of bus.sh, in a bash that lives long."""

    name, via = "shell by sqlite3", "sqlite3"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        command, self.errors = path.with_name("bus-command"), path.with_name(f"errors-{self.via}")
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bus_cli "$@"\n', "utf-8")
        command.chmod(0o700)
        environment = {**os.environ, "BUS_URL": str(path), "BUS_COMMAND": str(command), "BUS_SHELL_VIA": self.via}
        loop = f"source '{FUNCTIONS}'; while read -r line; do eval \"$line\"; done"
        pipe = subprocess.PIPE
        self.bash = subprocess.Popen(["bash", "-c", loop], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)

    def end(self) -> None:
        self.bash.communicate(timeout=20)

    def takes(self, field: Field, value: Value) -> bool:
        if not field.function or not isinstance(value, str | bytes) or (field.default and not value):
            return False
        return b"\0" not in data_of(value) and len(data_of(value)) < 30_000

    def attempt(self, field: Field, value: Value) -> Answer:
        status, out, told = self.call(field.function, data_of(value))
        if status > 1 and (out or not told.startswith(b"bus: ") or told.count(b"\n") != 1):
            raise Breach([f"it was refused by {told[:300]!r} on stderr and {out[:100]!r} on stdout"])
        if status <= 1 and told:
            raise Breach([f"it was done, and said {told[:300]!r} on stderr"])
        return Answer(status, out, _words(told))

    def call(self, function: tuple[str, ...], given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit status, stdout and stderr of a function."""
        assert self.bash.stdin
        assert self.bash.stdout
        words = " ".join(_quoted(given if word == VALUE else word.encode()) for word in function[1:])
        line = f"{function[0]} {words} 2>'{self.errors}'; printf '\\0%s\\0' $?\n"
        self.bash.stdin.write(line.encode())
        self.bash.stdin.flush()
        parts = b""
        while parts.count(b"\0") < 2:
            data = os.read(self.bash.stdout.fileno(), 65536)
            if not data:
                raise Breach([f"the shell died at {line[:200]}"])
            parts += data
        out, status, _ = parts.split(b"\0")
        return int(status), out, self.errors.read_bytes()


class ShellByBus(Shell):
    """The functions of bus.sh where there is no sqlite3."""

    name, via = "shell by bus", "bus"


def _quoted(word: bytes) -> str:
    return "$'" + "".join(f"\\x{byte:02x}" for byte in word) + "'"


FAST: tuple[type[Library], ...] = (Library, AsyncLibrary, CommandLine)
SLOW: tuple[type[Library], ...] = (Shell, ShellByBus, Process)


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder for the bus under attack, with nothing of the caller's environment."""
    with work.folder() as found, mock.patch.dict(os.environ):
        for name in ("BUS_URL", "BUS_AGENT", "BUS_SESSION", "TRACEPARENT", "BUS_ERRORS", "BUS_DEBUG"):
            os.environ.pop(name, None)
        yield found
