"""The bus in numbers for a monitoring system: OpenMetrics text (https://prometheus.io/docs/specs/om)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bus import clock, lifecycle, overview, reports
from bus.operation import Query, Routine, Steps, reading
from bus.overview import Queue
from bus.reports import Velocity

QUANTILES = (("0.5", "p50_duration_ms"), ("0.95", "p95_duration_ms"), ("0.99", "p99_duration_ms"))

MAILBOXES = 1000  # of which the depths are told, at most

_UNSOUND = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_SHOWN = re.compile(r"\\u[0-9a-f]{4}")


class Sample(NamedTuple):
    """One line: what follows the family's name, the labels and the number."""

    suffix: str
    labels: Mapping[str, str]
    value: float


class Family(NamedTuple):
    """A metric with all its samples."""

    name: str
    kind: str
    unit: str
    help: str
    samples: Sequence[Sample]

    def lines(self) -> Iterable[str]:
        """As OpenMetrics text."""
        yield f"# TYPE {self.name} {self.kind}"
        if self.unit:
            yield f"# UNIT {self.name} {self.unit}"
        yield f"# HELP {self.name} {_escaped(self.help)}"
        for sample in self.samples:
            labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
            yield f"{self.name}{sample.suffix}{'{' + labels + '}' if labels else ''} {sample.value:.15g}"


def metrics() -> Routine[list[Family]]:
    """The numbers of the bus, after the records of those that died unseen were closed, if they may be."""
    yield from lifecycle.close_the_dead(optional=True)
    found: Mapping[str, Any]
    queues: list[Queue]
    found, queues = yield _numbers()
    speeds: list[Velocity] = yield reports.by_type()
    return [
        *_counted(found),
        *_queues(queues, clock.parse(found["now"])),
        *_durations(found["durations"], speeds),
    ]


@reading
def _numbers() -> Steps[tuple[Mapping[str, Any], list[Queue]]]:
    found: Mapping[str, Any] = json.loads((yield Query("metrics/numbers", {}))[0][0])
    return found, (yield from overview.queues(limit=MAILBOXES))


def room(sizes: Mapping[str, int]) -> list[Family]:
    """How large the files of the bus are."""
    return [
        Family(f"agent_bus_{name}_bytes", "gauge", "bytes", f"Size of the {name}.", [Sample("", {}, size)])
        for name, size in sizes.items()
    ]


def text(families: Iterable[Family]) -> str:
    """OpenMetrics text."""
    return "\n".join([line for family in families for line in family.lines()] + ["# EOF", ""])


def _counted(found: Mapping[str, Any]) -> list[Family]:
    return [
        _gauge("sessions", "Sessions by status.", ("status",), found["sessions"]),
        _gauge("agents", "Registered agents by type and status.", ("agent_type", "status"), found["agents"]),
        _gauge("messages", "Messages by status.", ("status",), found["messages"]),
        _gauge("dead_messages", "Dead messages by the reason.", ("reason",), found["dead"]),
        _counter("sent_messages", "Messages that were ever sent: the newest id.", (), [[found["sent"]]]),
        _gauge("traced_agents", "Agents on record by type and status.", ("agent_type", "status"), found["lives"]),
        _counter("exported_spans", "Spans that were exported, by collector.", ("target",), found["exported"]),
    ]


def _queues(queues: Sequence[Queue], now: float) -> list[Family]:
    name = "agent_bus_queue_oldest_age_seconds"
    depths = [(queue.mailbox, queue.ready) for queue in queues]
    age = [Sample("", {"mailbox": queue.mailbox}, max(now - clock.parse(queue.oldest), 0)) for queue in queues]
    return [
        _gauge("queue_depth", "Ready messages by mailbox.", ("mailbox",), depths),
        Family(name, "gauge", "seconds", "How long the oldest ready message waits, by mailbox.", age),
    ]


def _durations(rows: Sequence[Sequence[Any]], speeds: Sequence[Velocity]) -> list[Family]:
    samples = []
    for speed in speeds:
        for quantile, field in QUANTILES:
            if (value := getattr(speed, field)) is not None:
                labels = {"agent_type": speed.agent_type, "quantile": quantile}
                samples.append(Sample("", labels, value / 1000))
    for type, number, milliseconds in rows:
        samples.append(Sample("_count", {"agent_type": type}, number))
        samples.append(Sample("_sum", {"agent_type": type}, (milliseconds or 0) / 1000))
    samples.sort(key=lambda sample: sample.labels["agent_type"])
    name = "agent_bus_traced_agent_duration_seconds"
    return [Family(name, "summary", "seconds", "From spawn to completion of the agents on record, by type.", samples)]


def _gauge(name: str, help: str, labels: Sequence[str], rows: Iterable[Sequence[Any]]) -> Family:
    return Family(f"agent_bus_{name}", "gauge", "", help, _samples("", labels, rows))


def _counter(name: str, help: str, labels: Sequence[str], rows: Iterable[Sequence[Any]]) -> Family:
    return Family(f"agent_bus_{name}", "counter", "", help, _samples("_total", labels, rows))


def _samples(suffix: str, labels: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[Sample]:
    return [Sample(suffix, dict(zip(labels, map(str, names), strict=True)), value) for *names, value in rows]


def _escaped(value: str) -> str:
    return _sound(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _sound(value: str) -> str:
    """With \\u001b for what parsers and terminals take ill. Two values stay two: two equal series would be refused."""
    if not _UNSOUND.search(value) and not _SHOWN.search(value):
        return value
    return _UNSOUND.sub(lambda match: f"\\u{ord(match[0]):04x}", value.replace("\\", "\\\\"))
