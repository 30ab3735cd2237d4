"""Steps: several operations in one transaction, all or none."""

from __future__ import annotations

import functools
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
SPELLINGS = {"from": "sender", "receipt": "receipts", "file": "files", "capability": "capabilities"}
TEXT = (str, str | None)
LISTS = ("receipts", "files", "ids")  # one value stands for a list of one
KEYS = "the keys are the long options of the command"


@writing
def apply(operations: Sequence[Operation[Any]]) -> Steps[list[Any]]:
    """Run operations in one transaction; the result of each. The error of one carries its place as `index`. Raises
    `usage` for what is none."""
    results = []
    for index, operation in enumerate(operations):
        try:
            if not isinstance(operation, Operation):
                raise error("usage", f"not an operation: {str(operation)[:40]!r}", "make one by bus.step.named")
            results.append((yield from operation.steps()))
        except BusError as problem:
            problem.index = index
            raise
    return results


def named(line: Mapping[str, Any], *, agent: str | None = None) -> Operation[Any]:
    """The operation that a mapping names: `op`, and the long options of the command as keys; null stands for none.
    `agent` does it where the line names nobody. What is sent is sent in the trace context around, as the command does.

    `{"op": "messages.ack", "receipt": "42.3"}`. Raises `usage` for an unknown operation or a missing argument, and
    `invalid_value` for one of the wrong kind.
    """
    if not isinstance(line, Mapping) or not isinstance(line.get("op"), str):
        raise error("usage", "a line of a step is an object with an op", f"the operations are {', '.join(OPERATIONS)}")
    name, given = _name(line), {key: value for key, value in line.items() if key != "op" and value is not None}
    if name == "messages.redrive":
        _choose(given)
    if name == "messages.broadcast" and given.get("to") == messages.EVERYBODY:
        del given["to"]
    around = {"sender": agent, "agent": agent, "traceparent": trace_context.surrounding()}
    known = {key: value for key, value in around.items() if value and key in _parameters(name)}
    arguments = {**known, **_arguments(name, given)}
    _check_complete(name, arguments)
    try:
        return OPERATIONS[name](**arguments)
    except TypeError as problem:
        raise error(
            "usage", f"{name}: a value is of the wrong kind: {problem}", "see the help of the command"
        ) from problem


def _name(line: Mapping[str, Any]) -> str:
    given: str = line["op"]
    name = given if given in OPERATIONS else given.replace(".", "s.", 1)
    if name not in OPERATIONS:
        raise error("usage", f"a step has no operation {given[:60]!r}", f"the operations are {', '.join(OPERATIONS)}")
    return "messages.broadcast" if name == "messages.send" and line.get("to") == messages.EVERYBODY else name


@functools.cache
def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(OPERATIONS[name], eval_str=True).parameters


def _choose(given: dict[str, Any]) -> None:
    """Of dead messages some are named, by id or ids, or all are meant."""
    everything = given.pop("all", False)
    if "id" in given and "ids" not in given:
        given["ids"] = given.pop("id")
    if not isinstance(everything, bool) or everything == ("ids" in given):
        raise error("usage", "name ids, or all", '{"op": "messages.redrive", "all": true}')


def _arguments(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        parameter = SPELLINGS.get(key, key.replace("-", "_"))
        if parameter not in _parameters(name):
            raise error("usage", f"{name} has no {key[:60]!r}", KEYS)
        if parameter in found:
            raise error("usage", "an argument stands twice, by two names", "give it once")
        listed = (parameter in LISTS or key == "capability") and not isinstance(value, list | tuple)
        found[parameter] = [value] if listed else value
        _check_kind(key, found[parameter], _parameters(name)[parameter])
    return found


def _check_kind(key: str, value: Any, parameter: inspect.Parameter) -> None:
    texts = value if key in ("file", "files", "capability") else [value] if parameter.annotation in TEXT else []
    if not all(isinstance(text, str) for text in texts):
        raise error("invalid_value", f"{key} is text", "write it in quotes; encode it first if it is more than that")
    if parameter.annotation is bool and not isinstance(value, bool):
        raise error("invalid_value", f"{key} is true or false", "write it without quotes")


def _check_complete(name: str, arguments: Mapping[str, Any]) -> None:
    options = {parameter: key for key, parameter in SPELLINGS.items()}
    for key, parameter in _parameters(name).items():
        if parameter.default is parameter.empty and key not in arguments:
            hint = "name it, or set BUS_AGENT" if key in ("sender", "agent") else KEYS
            raise error("usage", f"{name} lacks {options.get(key, key)}", hint)
