"""W3C trace context: where a span stands in a trace.

The ids of what the bus tells are worked out from what it is about, so that they are the same whenever they are told.
A session is a trace; the life of an agent outside of all sessions is one of its own.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

_CONTEXT = r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"


class Context(NamedTuple):
    """A span: the hexadecimal ids of its trace and of itself."""

    trace_id: str
    span_id: str

    def header(self) -> str:
        """As a `traceparent`, sampled."""
        return f"00-{self.trace_id}-{self.span_id}-01"


def parse(header: str | None) -> Context | None:
    """The context of a `traceparent`; None for none, and for a context of another version or form."""
    match = header and re.fullmatch(_CONTEXT, header)
    return Context(match[1], match[2]) if match else None


def surrounding() -> str | None:
    """The W3C trace context that the environment tells; what is none counts as not there, as the standard says."""
    told = os.environ.get("TRACEPARENT")
    return told if parse(told) else None


def life(bus_id: str, id: int, session: str | None, parent: Context | None) -> Context:
    """The span of an agent's life: in the trace it was started in, else in its session's."""
    return Context(parent.trace_id if parent else _trace(bus_id, session, id), _id(bus_id, "life", id)[:16])


def sending(bus_id: str, id: int, session: str, parent: Context | None) -> Context:
    """The span of a message being sent."""
    return Context(parent.trace_id if parent else _trace(bus_id, session, 0), _id(bus_id, "message", id)[:16])


def processing(sent: Context, bus_id: str, id: int, delivery: int) -> Context:
    """The span of a message's delivery being worked on, in the trace of its being sent."""
    return Context(sent.trace_id, _id(bus_id, "delivery", f"{id}.{delivery}")[:16])


def _trace(bus_id: str, session: str | None, life: int) -> str:
    return _id(bus_id, "session", session) if session else _id(bus_id, "alone", life)


def _id(bus_id: str, kind: str, name: object) -> str:
    import hashlib  # not by everyone who sends

    return hashlib.sha256(f"{bus_id}/{kind}/{name}".encode()).hexdigest()[:32]
