"""Steps: several operations in one transaction, all or none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bus import agents, checkpoints, messages, sessions, state, trace_context
from bus.errors import BusError, error
from bus.operation import Operation, Steps, writing

OPERATIONS: dict[str, Callable[..., Operation[Any]]] = {
    "messages.send": messages.send,
    "messages.broadcast": messages.broadcast,
    "messages.ack": messages.ack,
    "messages.release": messages.release,
    "messages.extend": messages.extend,
    "messages.reject": messages.reject,
    "messages.cancel": messages.cancel,
    "messages.redrive": messages.redrive,
    "state.save": state.save,
    "state.delete": state.delete,
    "checkpoints.create": checkpoints.create,
    "agents.register": agents.register,
    "agents.heartbeat": agents.heartbeat,
    "agents.retire": agents.retire,
    "sessions.progress": sessions.progress,
    "sessions.complete": sessions.complete,
    "sessions.abandon": sessions.abandon,
}
REPEATED = ("file", "capability", "ids")  # options that may be repeated: one value stands for a list of one
SPELLINGS = {"from": "sender", "receipt": "receipts", "file": "files", "capability": "capabilities"}


@writing
def apply(operations: Sequence[Operation[Any]]) -> Steps[list[Any]]:
    """Run operations in one transaction; the result of each. The error of one carries its place as `index`."""
    results = []
    for index, operation in enumerate(operations):
        try:
            results.append((yield from operation.steps()))
        except BusError as problem:
            problem.index = index
            raise
    return results


def named(line: Mapping[str, Any]) -> Operation[Any]:
    """The operation that a mapping names: `op`, and the long options of the command as keys. What is sent is sent in
    the trace context around, as the command does.

    `{"op": "messages.ack", "receipt": "42.3"}`. Raises `usage` for what is no operation or lacks an argument.
    """
    if not isinstance(line, Mapping) or not isinstance(line.get("op"), str):
        raise error("usage", "a line of a step is an object with an op", f"the operations are {', '.join(OPERATIONS)}")
    listed = {key: [line[key]] for key in REPEATED if isinstance(line.get(key), str)}
    arguments = {SPELLINGS.get(key, key.replace("-", "_")): value for key, value in {**line, **listed}.items()}
    if len(arguments) < len(line):
        raise error("usage", "an argument stands twice, by two names", "give it once")
    del arguments["op"]
    name = line["op"] if line["op"] in OPERATIONS else line["op"].replace(".", "s.", 1)
    if name == "messages.redrive" and bool(arguments.pop("all", False)) == (arguments.get("ids") is not None):
        raise error("usage", "name ids, or all", '{"op": "messages.redrive", "all": true}')
    if name == "messages.send" and arguments.get("to") == messages.EVERYBODY:
        name, _ = "messages.broadcast", arguments.pop("to")
    if name in ("messages.send", "messages.broadcast") and arguments.get("traceparent") is None:
        arguments["traceparent"] = trace_context.surrounding()
    function = OPERATIONS.get(name)
    if not function:
        raise error(
            "usage", f"a step has no operation {line['op'][:60]!r}", f"the operations are {', '.join(OPERATIONS)}"
        )
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as problem:
        raise error("usage", f"{name}: {problem}", "the keys are the long options of the command") from problem
    try:
        return function(**arguments)
    except TypeError as problem:
        raise error(
            "usage", f"{name}: a value is of the wrong kind: {problem}", "see the help of the command"
        ) from problem
