"""`bus trace export`: to a real receiver of OTLP on loopback, which decodes with the official library."""

import base64
import json
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bus_cli.otlp import exporter
from bus_cli.otlp.collector import Collector
from bus_cli.otlp.exporter import LOOK, Exporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from bus import Bus, clock, trace_context
from bus.errors import error
from tests.clients.test_command_line import BUS, bus
from tests.clients.test_recovery import meets
from tests.conformance.refusal import refused
from tests.conformance.test_lifecycle import CONTEXT

SECRET = "the body of the message"


class Receiver:
    """A collector of OTLP over HTTP: what it received, and how it answers next."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answers: list[int] = []
        self.complaint = ""
        self.again = "later"  # what it says of when
        self.endless = False
        self.page: tuple[str, str] | None = None  # what it answers instead, and of which type
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = receiver.take(self.path, dict(self.headers), body)
                self.send_response(status)
                if receiver.page:
                    self.send_header("Content-Type", receiver.page[0])
                    answer = receiver.page[1].encode()
                if status in (301, 302):
                    self.send_header("Location", "/elsewhere")
                if status == 503:
                    self.send_header("Retry-After", receiver.again)
                if not receiver.endless:
                    self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)
                with suppress(OSError):  # until nobody reads any more
                    while receiver.endless:
                        self.wfile.write(bytes(1 << 16))

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        request = ExportTraceServiceRequest.FromString(body)
        with self.arrived:
            self.paths.append(path)
            self.headers.append(headers)
            self.requests.append(request)
            status = self.answers.pop(0) if self.answers else 200
            if status == 200:
                self.spans += [
                    span for of in request.resource_spans for scope in of.scope_spans for span in scope.spans
                ]
            self.arrived.notify_all()
        answer = ExportTraceServiceResponse()
        if self.complaint:
            answer.partial_success.rejected_spans = 1
            answer.partial_success.error_message = self.complaint
        return status, answer.SerializeToString()

    def wait_for(self, spans: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.spans) >= spans, 30), self.spans

    def named(self, name: str) -> Span:
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A collector that listens on loopback."""
    found = Receiver()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def team(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bus]:
    """A bus, named by BUS_URL, with agents boss and one."""
    monkeypatch.setenv("BUS_URL", url)
    monkeypatch.setenv("no_proxy", "*")
    for name in ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    with Bus.open(url) as opened:
        opened.register("boss", type="milestone-coordinator", session="s")
        opened.register("one", type="milestone-executor", session="s")
        yield opened


def export(receiver: Receiver, *options: str, status: int = 0) -> str:
    return bus("trace", "export", "--otlp", receiver.url, *options, status=status)


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in span.attributes}


def exchange(team: Bus, **options: Any) -> int:
    id = team.send("boss", "one", "task_assignment", {"title": SECRET}, **options)
    (message,) = team.receive("one")
    team.ack(message.receipt or "")
    return id


def test_a_message_is_a_producer_and_a_consumer_span_in_the_trace_it_was_sent_in(team: Bus, receiver: Receiver) -> None:
    exchange(team, traceparent=CONTEXT, correlation="talk-1", priority=8)
    assert export(receiver) == "2 spans exported\n"
    assert receiver.paths == ["/v1/traces"]
    assert receiver.headers[0]["Content-Type"] == "application/x-protobuf"
    sent, processed = receiver.named("send one"), receiver.named("process one")
    assert (sent.kind, processed.kind) == (Span.SPAN_KIND_PRODUCER, Span.SPAN_KIND_CONSUMER)
    assert sent.trace_id.hex() == processed.trace_id.hex() == CONTEXT[3:35]
    assert sent.parent_span_id.hex() == CONTEXT[36:52]
    assert processed.parent_span_id == sent.span_id
    assert [(link.trace_id, link.span_id) for link in processed.links] == [(sent.trace_id, sent.span_id)]
    assert sent.start_time_unix_nano <= processed.start_time_unix_nano <= processed.end_time_unix_nano
    told = attributes(processed)
    assert told["messaging.system"] == "agent_bus"
    assert told["messaging.destination.name"] == "one"
    assert (told["messaging.operation.name"], told["messaging.operation.type"]) == ("process", "process")
    assert (told["messaging.message.id"], told["messaging.message.conversation_id"]) == ("1", "talk-1")
    assert (told["bus.message.type"], told["bus.message.priority"]) == ("task_assignment", 8)
    assert attributes(sent)["messaging.operation.type"] == "send"
    (of,) = receiver.requests[0].resource_spans
    assert {pair.key: pair.value.string_value for pair in of.resource.attributes}["service.name"] == "agent-bus"


def test_a_life_is_a_span_and_what_it_sent_stands_below_it(team: Bus, receiver: Receiver) -> None:
    id = team.trace_enter("worker", type="validation", session="s", task="t-1", priority="042")
    team.send("worker", "one", "task_assignment", {})
    team.trace_leave("worker", id, status="failed", error="ValueError: no")
    export(receiver)
    life, sent = receiver.named("invoke_agent worker"), receiver.named("send one")
    assert (life.trace_id, life.span_id) == (sent.trace_id, sent.parent_span_id)
    assert (life.kind, life.parent_span_id) == (Span.SPAN_KIND_INTERNAL, b"")
    assert (life.status.code, life.status.message) == (Status.STATUS_CODE_ERROR, "ValueError: no")
    found = team.trace_show(id)
    assert life.end_time_unix_nano - life.start_time_unix_nano == (found.duration_ms or 0) * 1_000_000
    told = attributes(life)
    assert (told["gen_ai.operation.name"], told["gen_ai.agent.id"]) == ("invoke_agent", "worker")
    assert (told["gen_ai.conversation.id"], told["bus.task.id"]) == ("s", "t-1")
    assert (told["bus.task.priority_number"], told["process.pid"]) == ("042", os.getpid())


def test_a_life_that_was_started_in_a_trace_stays_in_it(team: Bus, receiver: Receiver) -> None:
    id = team.trace_spawn("x", "t", pid=os.getpid(), traceparent=CONTEXT)
    team.trace_start(id)
    team.trace_finish(id, exit_code=0)
    export(receiver)
    life = receiver.named("invoke_agent x")
    assert (life.trace_id.hex(), life.parent_span_id.hex()) == (CONTEXT[3:35], CONTEXT[36:52])
    assert life.status.code == Status.STATUS_CODE_UNSET
    assert [event.name for event in life.events] == ["bus.agent.started"]


def test_bodies_are_told_only_when_asked(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    id = team.trace_spawn("x", "t", pid=os.getpid(), command="run --password hunter2")
    team.trace_start(id)
    team.trace_finish(id, output="printed")
    export(receiver)
    text = str(receiver.requests)
    assert SECRET not in text
    assert "hunter2" not in text
    assert "printed" not in text
    assert attributes(receiver.named("send one"))["messaging.message.body.size"] > len(SECRET)
    receiver.spans.clear()
    exchange(team)
    export(receiver, "--bodies")
    assert json.loads(attributes(receiver.named("process one"))["bus.message.body"]) == {"title": SECRET}


def test_it_goes_on_where_it_stopped_and_tells_nothing_twice(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    waits = team.send("boss", "one", "task_assignment", {})
    life = team.trace_spawn("x", "t", pid=os.getpid())
    assert export(receiver) == "3 spans exported\n"
    assert export(receiver) == "0 spans exported\n"
    team.ack([message.receipt or "" for message in team.receive("one")])
    team.trace_start(life)
    exchange(team)
    assert export(receiver) == "3 spans exported\n"
    team.trace_finish(life)
    assert export(receiver) == "1 span exported\n"
    assert export(receiver) == "0 spans exported\n"
    names = Counter(span.name for span in receiver.spans)
    assert names == {"send one": 3, "process one": 3, "invoke_agent x": 1}
    assert len({(span.trace_id, span.span_id) for span in receiver.spans}) == 7
    assert {attributes(span)["messaging.message.id"] for span in receiver.spans if span.name == "process one"} == {
        "1", str(waits), "3",
    }  # fmt: skip


def test_many_spans_go_in_several_requests_and_none_is_lost(team: Bus, receiver: Receiver) -> None:
    team.apply([_sending(n) for n in range(1203)])
    assert export(receiver) == "1203 spans exported\n"
    assert len(receiver.requests) == 3
    ids = sorted(int(attributes(span)["messaging.message.id"]) for span in receiver.spans)
    assert ids == list(range(1, 1204))


def _sending(n: int) -> Any:
    from bus import messages

    return messages.send("boss", "one", "task_assignment", {"weight": n})


def test_large_bodies_go_in_several_requests(team: Bus, receiver: Receiver) -> None:
    for _ in range(6):
        team.send("boss", "one", "task_assignment", {"title": "x" * 900_000})
    assert export(receiver, "--bodies") == "6 spans exported\n"
    assert max(request.ByteSize() for request in receiver.requests) < 4_000_000


def test_a_collector_that_is_down_loses_nothing(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    receiver.answers = [503]
    export(receiver, status=75)
    exchange(team)
    receiver.answers = [429]
    export(receiver, status=75)
    assert receiver.spans == []
    assert bus("trace", "export", "--otlp", "http://127.0.0.1:9", status=75) == ""
    assert export(receiver) == "4 spans exported\n"


def test_following_waits_for_a_collector_that_is_down(
    team: Bus, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time that passes is the test's: each wait is the next line of what happens meanwhile."""
    told: list[int] = []
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        told.append(len(receiver.spans))
        if len(waits) == 3:  # all is told: nobody was lost while the collector was down
            exchange(team)
            receiver.answers = [503]
        if len(waits) == 5:
            raise KeyboardInterrupt

    exchange(team)
    receiver.answers = [503, 429]
    with Bus.open(team.url.path) as own, pytest.raises(KeyboardInterrupt):
        Exporter(own, Collector(receiver.url, {}), follow=True, bodies=False, wait=wait).carry_out()
    assert waits == [1, 2, LOOK, 1, LOOK], "longer each time, and from the start again when it had answered"
    assert told == [0, 0, 2, 2, 4]
    assert len({span.span_id for span in receiver.spans}) == 4
    assert capsys.readouterr().err.count("trying on") == 2
    assert export(receiver) == "0 spans exported\n", "what was told is told, and the next may begin at once"


@pytest.mark.parametrize(
    ("again", "expected"), [("7", [7, 7, LOOK]), ("\u00b2", [1, 2, LOOK]), ("9" * 400, [1, 2, LOOK])]
)
def test_a_collector_that_says_when_is_asked_again_then(
    team: Bus, receiver: Receiver, again: str, expected: list[float]
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    exchange(team)
    receiver.answers, receiver.again = [503, 503], again
    with Bus.open(team.url.path) as own, pytest.raises(KeyboardInterrupt):
        Exporter(own, Collector(receiver.url, {}), follow=True, bodies=False, wait=wait).carry_out()
    assert waits == expected


def test_an_answer_without_end_is_not_read_to_its_end(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    receiver.endless = True
    with Bus.open(team.url.path) as own:
        assert Exporter(own, Collector(receiver.url, {}), follow=False, bodies=False).carry_out() > 0


def test_who_follows_looks_each_minute_also_when_nobody_writes(
    team: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was found gone is told a minute later: then there is news, and nothing was written."""
    passed, looks = [0.0], []
    monkeypatch.setattr(exporter, "time", SimpleNamespace(monotonic=lambda: passed[0]))

    def wait(seconds: float) -> None:
        passed[0] += 31
        if passed[0] > 31 * 4:
            raise KeyboardInterrupt

    with Bus.open(team.url.path) as own, pytest.raises(KeyboardInterrupt):
        batch = own.export_batch
        monkeypatch.setattr(own, "export_batch", lambda target: looks.append(passed[0]) or batch(target))
        Exporter(own, Collector(receiver.url, {}), follow=True, bodies=False, wait=wait).carry_out()
    assert looks == [0, 62, 124]


def test_who_follows_goes_on_when_the_bus_was_busy(
    team: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 5:
            monkeypatch.setattr(own, "export_release", busy_once(own.export_release))
            raise KeyboardInterrupt

    exchange(team)
    with Bus.open(team.url.path) as own, pytest.raises(KeyboardInterrupt):
        for name in ("export_claim", "data_version", "export_batch", "export_advance"):
            monkeypatch.setattr(own, name, busy_once(getattr(own, name)))
        Exporter(own, Collector(receiver.url, {}), follow=True, bodies=False, wait=wait).carry_out()
    assert waits == [LOOK] * 5
    assert len(receiver.spans) == 2, "each once"
    told = capsys.readouterr().err.splitlines()
    assert told == [f"bus: {error('busy')}"] * 4


def test_who_does_not_follow_ends_when_the_bus_is_busy_and_says_so(
    team: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange(team)
    with Bus.open(team.url.path) as own, refused("busy", 75):
        monkeypatch.setattr(own, "export_advance", busy_once(own.export_advance))
        monkeypatch.setattr(own, "export_release", lambda target: meets(error("io_error")))
        Exporter(own, Collector(receiver.url, {}), follow=False, bodies=False).carry_out()


def never(seconds: float) -> None:
    pytest.fail("it waits")


def test_who_follows_does_not_wait_for_another_who_does(
    team: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Bus.open(team.url.path) as own, refused("already_exporting", 75):
        monkeypatch.setattr(own, "export_claim", lambda target: meets(error("already_exporting")))
        Exporter(own, Collector(receiver.url, {}), follow=True, bodies=False, wait=never).carry_out()


def busy_once(ask: Callable[..., Any]) -> Callable[..., Any]:
    """The same, which answers "busy" the first time."""
    answers = iter([True])

    def asked(*given: Any) -> Any:
        if next(answers, False):
            raise error("busy")
        return ask(*given)

    return asked


def test_who_follows_is_alone_until_it_is_ended(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    command = [*BUS, "trace", "export", "--otlp", receiver.url, "--follow"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            receiver.wait_for(2)
            assert bus("trace", "export", "--otlp", receiver.url, status=75) == "", "one at a time"
        finally:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode == 143
    exchange(team)
    export(receiver)
    assert len({span.span_id for span in receiver.spans}) == 4


def test_killed_between_telling_and_noting_the_same_spans_are_told_again(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    target = f"{receiver.url}/v1/traces"
    team.export_claim(target)
    batch = team.export_batch(target)
    again = team.export_batch(target)
    assert [sent.context for sent in batch.sent] == [sent.context for sent in again.sent]
    team.export_advance(target, batch)
    assert not team.export_batch(target).moves()
    team.export_release(target)
    assert export(receiver) == "0 spans exported\n"


def test_a_dead_exporter_does_not_stop_the_next(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    command = [*BUS, "trace", "export", "--otlp", receiver.url, "--follow"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        receiver.wait_for(2)
        process.kill()
        process.communicate()
    exchange(team)
    export(receiver)
    assert len({span.span_id for span in receiver.spans}) == 4


def test_a_collector_that_refuses_is_told_and_nothing_is_lost(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    for refusal in (400, 401, 404, 302):
        receiver.answers = [refusal]
        export(receiver, status=65)
        assert receiver.answers == []
    assert receiver.paths == ["/v1/traces"] * 4
    assert export(receiver) == "2 spans exported\n"


def test_spans_that_a_collector_did_not_want_are_said_and_not_sent_again(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    receiver.complaint = "too old"
    done = subprocess.run([*BUS, "trace", "export", "--otlp", receiver.url], capture_output=True, check=True)
    assert b"1 spans were rejected: too old" in done.stderr
    assert export(receiver) == "0 spans exported\n"


def test_what_a_collector_did_not_want_may_be_said_in_json(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    receiver.page = (
        "application/json; charset=utf-8",
        '{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "old"}}',
    )
    done = subprocess.run([*BUS, "trace", "export", "--otlp", receiver.url], capture_output=True, check=True)
    assert b"2 spans were rejected: old" in done.stderr
    assert export(receiver) == "0 spans exported\n"


def test_the_page_of_a_proxy_is_not_taken_for_a_collector(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    receiver.page = "text/html; charset=utf-8", "<html>please log in</html>"
    with refused("collector_refused", 65):
        Collector(receiver.url, {}).take(ExportTraceServiceRequest())
    export(receiver, status=65)
    receiver.page = None
    assert export(receiver) == "2 spans exported\n"


@pytest.mark.parametrize(
    "page",
    [
        ("text/html", ""), ("text/plain", "OK"), ("application/json", ""), ("application/json", "[" * 50_000),
        ("application/json", '{"partialSuccess": {}, "own": 1}'), ("application/json", '{"partialSuccess": 7}'),
    ],
)  # fmt: skip
def test_what_a_collector_says_in_words_of_its_own_is_a_yes(
    page: tuple[str, str], team: Bus, receiver: Receiver
) -> None:
    exchange(team)
    receiver.page = page
    assert export(receiver) == "2 spans exported\n"
    assert export(receiver) == "0 spans exported\n"


def test_paths_and_credentials_are_those_that_collectors_ask_for(
    team: Bus, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange(team)
    address = receiver.url.removeprefix("http://")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b,empty=")
    bus("trace", "export", "--otlp", f"http://pk:s%40k@{address}/api/public/otel/", "--header", "X-Own=1=2")
    assert receiver.paths == ["/api/public/otel/v1/traces"]
    told = receiver.headers[0]
    assert base64.b64decode(told["Authorization"].removeprefix("Basic ")) == b"pk:s@k"
    assert {name.lower(): value for name, value in told.items()}["x-tenant"] == "a b"
    assert {name.lower(): value for name, value in told.items()}["x-own"] == "1=2"
    bus("trace", "export", "--otlp", f"http://{address}/v1/traces")
    assert receiver.paths[1] == "/v1/traces"
    bus("trace", "export", "--otlp", f"http://{address}/v1/traces/")  # the same collector, which has it all
    assert len(receiver.paths) == 2
    stored = Path(team.url.path).read_bytes() + Path(f"{team.url.path}-wal").read_bytes()
    assert b"s%40k" not in stored
    assert b"s@k" not in stored


def test_headers_for_traces_come_before_those_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-own=all")
    assert Collector("http://there", {})._headers["x-own"] == "all"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-own=traces")
    assert Collector("http://there", {})._headers["x-own"] == "traces"


def test_a_secret_in_the_query_is_sent_and_neither_kept_nor_shown(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    url = f"{receiver.url}/x?api_key=hunter2"
    receiver.answers = [503, 400]
    for status in (75, 65):
        done = subprocess.run([*BUS, "trace", "export", "--otlp", url], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1)
        assert f"{receiver.url}/x/v1/traces" in done.stderr
        assert "hunter2" not in done.stderr
    assert bus("trace", "export", "--otlp", url) == "2 spans exported\n"
    assert receiver.paths == ["/x/v1/traces?api_key=hunter2"] * 3
    assert "hunter2" not in bus("metrics")
    assert b"hunter2" not in Path(team.url.path).read_bytes() + Path(f"{team.url.path}-wal").read_bytes()


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:9/ä",
        "http://127.0.0.1:9/a b",
        "http://127.0.0.1:9/x?key=ä",
        "http://127.0.0.1:9/\x7f",
        "http://a b/",
        "http://a..b/",
        f"http://{'a' * 70}.example/",
        "http://127.0.0.1:99999/",
        "localhost:4318",
    ],
)
def test_an_address_that_can_not_be_posted_to_is_usage(team: Bus, address: str) -> None:
    done = subprocess.run([*BUS, "trace", "export", "--otlp", address], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (64, "", 1)
    assert done.stderr.startswith("bus: a collector is at http://")


@pytest.mark.parametrize("header", ["X=€", "X=\ud800", "X=a\0b", "X=a\x7fb", "ä=x", "a b=x", "a:=x"])
def test_a_header_that_can_not_be_sent_is_usage(header: str) -> None:
    with refused("usage", 64):
        Collector("http://there", dict([header.split("=")]))


def test_what_can_be_sent_is(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    address = receiver.url.removeprefix("http://")
    bus("trace", "export", "--otlp", f"http://u:ä\udcff@{address}/%C3%A4?b=%20", "--header", "X-Own=é\t~")
    assert receiver.paths == ["/%C3%A4/v1/traces?b=%20"]
    assert base64.b64decode(receiver.headers[0]["Authorization"].removeprefix("Basic ")) == "u:ä".encode() + b"\xff"
    assert {name.lower(): value for name, value in receiver.headers[0].items()}["x-own"] == "é\t~"


@pytest.mark.parametrize("line_end", ["\n", "\r", "\r\n"])
def test_a_header_has_one_line(line_end: str) -> None:
    with refused("usage", 64):
        Collector("http://there", {"x-own": f"a{line_end}x-other: b"})


def test_a_life_before_all_clocks_is_told(team: Bus, receiver: Receiver) -> None:
    id = team.trace_spawn("x", "t", pid=os.getpid(), at="1960-01-01T00:00:00Z")
    team.trace_finish(team.trace_start(id).agent_id)
    export(receiver)
    (span,) = receiver.spans
    assert span.start_time_unix_nano == 0
    assert span.end_time_unix_nano > 0


def test_no_span_ends_before_it_begins(team: Bus, receiver: Receiver) -> None:
    with clock.moved(60):
        team.send("boss", "one", "task_assignment", {})
        (message,) = team.receive("one")
    team.ack(message.receipt or "")
    export(receiver)
    assert len(receiver.spans) == 2
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in receiver.spans)


def test_a_message_that_dies_is_told_as_often_as_it_dies_of_a_delivery(team: Bus, receiver: Receiver) -> None:
    id = team.send("boss", "one", "task_assignment", {})
    (message,) = team.receive("one")
    team.reject(message.receipt or "", reason="nonsense")
    export(receiver)
    (first,) = [span for span in receiver.spans if span.name == "process one"]
    assert (first.status.code, first.status.message) == (Status.STATUS_CODE_ERROR, "rejected")
    assert attributes(first)["error.type"] == "rejected"
    assert export(receiver) == "0 spans exported\n"
    team.redrive([id])
    team.ack([message.receipt or "" for message in team.receive("one")])
    assert export(receiver) == "1 span exported\n"
    assert len({span.span_id for span in receiver.spans}) == 3
    assert export(receiver) == "0 spans exported\n"


def test_what_nobody_took_has_no_consumer_span(team: Bus, receiver: Receiver) -> None:
    team.cancel(team.send("boss", "one", "task_assignment", {}))
    assert export(receiver) == "1 span exported\n"
    assert export(receiver) == "0 spans exported\n"


def test_one_found_dead_is_told_when_nobody_has_said_more_for_a_minute(team: Bus, receiver: Receiver) -> None:
    with subprocess.Popen(["true"]) as ended:
        pid = ended.pid
    id = team.trace_spawn("x", "t", pid=pid)
    team.trace_start(id)
    assert [life.agent_id for life in team.trace_close_the_dead()] == [id]
    assert export(receiver) == "0 spans exported\n"
    with clock.moved(61):
        team.export_claim("other")
        (lived,) = team.export_batch("other").lived
    assert (lived.life.agent_id, lived.life.status) == (id, "killed")
    team.trace_finish(id, exit_code=0)
    assert export(receiver) == "1 span exported\n"
    assert receiver.named("invoke_agent x").status.code == Status.STATUS_CODE_UNSET


def test_messages_that_were_removed_meanwhile_are_not_waited_for(team: Bus, receiver: Receiver) -> None:
    exchange(team)
    team.send("boss", "one", "task_assignment", {})
    export(receiver)
    team.ack([message.receipt or "" for message in team.receive("one")])
    team.send("boss", "one", "task_assignment", {})
    with clock.moved(8 * 86400):
        assert team.prune() == 2
    assert export(receiver) == "1 span exported\n"
    assert export(receiver) == "0 spans exported\n"


def test_span_ids_are_the_same_whenever_they_are_worked_out() -> None:
    parent = trace_context.parse(CONTEXT)
    assert trace_context.sending("bus", 1, "s", parent) == trace_context.sending("bus", 1, "s", parent)
    ids = {trace_context.sending("bus", n, "s", None) for n in range(100)}
    ids |= {trace_context.life("bus", n, "s", None) for n in range(100)}
    assert len({context.span_id for context in ids}) == 200
    assert len({context.trace_id for context in ids}) == 1
    assert len({trace_context.life("bus", n, None, None).trace_id for n in range(9)}) == 9
    assert trace_context.parse(ids.pop().header())


def test_without_the_extra_it_is_said_what_is_missing(team: Bus, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "opentelemetry"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('not installed', name='opentelemetry')")
    done = subprocess.run(
        [*BUS, "trace", "export", "--otlp", "http://localhost"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(hidden.parent)},
    )
    assert (done.returncode, b"pip install opentelemetry-proto" in done.stderr) == (64, True)
