"""Lives and messages as OpenTelemetry spans.

Attributes are named by the semantic conventions of messaging and of generative AI where these have a name for exactly
that, and `bus.*` otherwise.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from importlib.metadata import version

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

from bus import trace_context
from bus.exports import Batch, Lived, Sent
from bus.models import Message
from bus.trace_context import Context

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
Value = str | int | None


def request(batch: Batch, bodies: bool = False) -> ExportTraceServiceRequest:
    """A batch as what a collector takes. `bodies` adds payloads, commands and the ends of outputs."""
    spans = [
        *(_life(lived, bodies) for lived in batch.lived),
        *(_producer(sent, bodies) for sent in batch.sent),
        *(_consumer(sent, batch.bus_id, bodies) for sent in batch.processed),
    ]
    scope = ScopeSpans(scope=InstrumentationScope(name="agent-bus", version=version("agent-bus")), spans=spans)
    about = {
        "service.name": "agent-bus",
        "service.version": version("agent-bus"),
        "service.instance.id": batch.bus_id,
        "host.name": socket.gethostname(),
    }
    resource = ResourceSpans(resource=Resource(attributes=_attributes(about)), scope_spans=[scope])
    return ExportTraceServiceRequest(resource_spans=[resource])


def _life(lived: Lived, bodies: bool) -> Span:
    life = lived.life
    name = life.registry_id or life.agent_type
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.id": life.registry_id or str(life.agent_id),
        "gen_ai.agent.name": name,
        "gen_ai.conversation.id": life.session_id,
        "session.id": life.session_id,
        "process.pid": life.pid,
        "process.exit.code": life.exit_code,
        "host.name": life.host,
        "bus.record.id": life.agent_id,
        "bus.agent.type": life.agent_type,
        "bus.task.id": life.task_id,
        "bus.task.type": life.task_type,
        "bus.task.priority_number": life.priority_number,
        "bus.agent.status": life.status,
        "bus.agent.idle_time_ms": life.idle_time_ms,
        "bus.agent.worktree_path": life.worktree_path,
        "bus.agent.command": life.command if bodies else None,
        "bus.agent.output_tail": life.output_tail if bodies else None,
        "error.type": None if life.status == "completed" else life.status,
    }
    end = life.completed_at or life.started_at or life.spawned_at
    span = _span(f"invoke_agent {name}", Span.SPAN_KIND_INTERNAL, lived.context, lived.parent, attributes)
    _times(span, life.spawned_at, end)
    if life.started_at:
        span.events.add(name="bus.agent.started", time_unix_nano=_nanoseconds(life.started_at))
    if life.status != "completed":
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=life.error_message or life.status))
    return span


def _producer(sent: Sent, bodies: bool) -> Span:
    message = sent.message
    attributes = {**_message(message, bodies), "messaging.client.id": message.from_agent}
    attributes |= {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    span = _span(f"send {message.to_agent}", Span.SPAN_KIND_PRODUCER, sent.context, sent.parent, attributes)
    _times(span, message.created_at, message.created_at)
    return span


def _consumer(sent: Sent, bus_id: str, bodies: bool) -> Span:
    message = sent.message
    context = trace_context.processing(sent.context, bus_id, message.id, message.delivery)
    attributes = {**_message(message, bodies), "messaging.client.id": message.leased_by}
    attributes |= {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    attributes |= {"bus.message.receipt": message.receipt, "bus.message.redeliveries": message.retry_count}
    span = _span(f"process {message.to_agent}", Span.SPAN_KIND_CONSUMER, context, sent.context, attributes)
    begin = message.delivered_at or message.created_at
    _times(span, begin, message.acknowledged_at or begin)
    span.links.add(trace_id=bytes.fromhex(sent.context.trace_id), span_id=bytes.fromhex(sent.context.span_id))
    if message.dead_reason:
        span.attributes.extend(_attributes({"error.type": message.dead_reason}))
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message=message.dead_reason))
    return span


def _message(message: Message, bodies: bool) -> dict[str, Value]:
    body = bytes(message.raw)
    return {
        "messaging.system": "agent_bus",
        "messaging.destination.name": message.to_agent,
        "messaging.message.id": str(message.id),
        "messaging.message.conversation_id": message.correlation_id,
        "messaging.message.body.size": len(body),
        "gen_ai.conversation.id": message.session_id,
        "session.id": message.session_id,
        "bus.message.type": message.message_type,
        "bus.message.priority": message.priority,
        "bus.message.reply_to": message.reply_to,
        "bus.message.body": body.decode("utf-8", "replace") if bodies else None,
    }


def _span(
    name: str, kind: Span.SpanKind.ValueType, own: Context, parent: Context | None, given: Mapping[str, Value]
) -> Span:
    return Span(
        name=name,
        kind=kind,
        trace_id=bytes.fromhex(own.trace_id),
        span_id=bytes.fromhex(own.span_id),
        parent_span_id=bytes.fromhex(parent.span_id) if parent else b"",
        attributes=_attributes(given),
    )


def _attributes(given: Mapping[str, Value]) -> Iterable[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in given.items() if value is not None]


def _value(value: str | int) -> AnyValue:
    if isinstance(value, str):
        return AnyValue(string_value=value.encode("utf-8", "replace").decode())
    return AnyValue(int_value=value)


def _times(span: Span, begin: datetime, end: datetime) -> None:
    span.start_time_unix_nano = _nanoseconds(begin)
    span.end_time_unix_nano = max(_nanoseconds(end), span.start_time_unix_nano)


def _nanoseconds(moment: datetime) -> int:
    """Of the time since 1970, as OTLP counts it: what came before, or after 2554, is told as near as can be."""
    past = moment - EPOCH
    return min(max(0, ((past.days * 86400 + past.seconds) * 1_000_000 + past.microseconds) * 1000), 2**64 - 1)
