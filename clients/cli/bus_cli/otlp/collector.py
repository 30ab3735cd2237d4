"""A collector, as OTLP over HTTP speaks to it: POST of protobuf, https://opentelemetry.io/docs/specs/otlp/#otlphttp."""

from __future__ import annotations

import base64
import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from email.message import Message as Headers
from http.client import HTTPException, HTTPResponse
from typing import IO
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from bus import clock
from bus.errors import BusError, error

TIMEOUT = 10.0  # seconds
LONGEST = 1 << 16  # bytes of an answer that are looked at
AGAIN = (408, 429, 502, 503, 504)  # what may be tried again
PATH = "/v1/traces"


class NotNow(Exception):
    """The collector can't take it now; `wait` is how many seconds it asked for, if it did."""

    def __init__(self, words: str, wait: float | None = None) -> None:
        super().__init__(words)
        self.wait = wait


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Headers, newurl: str
    ) -> None:
        return None  # a redirected POST would lose its body


class Collector:
    """Where spans go. `url` is the collector's base, such as http://localhost:4318, or the whole of its traces' path;
    a user and password in it become basic authentication, and OTEL_EXPORTER_OTLP_HEADERS are sent, too. `target` is
    what is kept and shown of it: neither these nor its query, which may hold a key."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = _parts(url)
        path = parts.path.rstrip("/").removesuffix(PATH) + PATH
        self.target = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))
        self._address = f"{self.target}?{parts.query}" if parts.query else self.target
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "User-Agent": "agent-bus",
            **_surrounding(),
            **headers,
        }
        if parts.username is not None:
            told = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode("utf-8", "surrogateescape")
            self._headers["Authorization"] = f"Basic {base64.b64encode(told).decode()}"
        for name, value in self._headers.items():
            _check_header(name, value)
        self._opener = urllib.request.build_opener(_Stay)

    def take(self, spans: ExportTraceServiceRequest) -> str | None:
        """Send spans; what the collector has to say about those it did not want, which are not to be sent again.

        Raises `NotNow` when it should be tried again later, and `collector_refused` when that is in vain.
        """
        request = urllib.request.Request(self._address, spans.SerializeToString(), self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return self._complaint(answer.headers.get_content_type(), _read(answer))
        except urllib.error.HTTPError as problem:
            with problem:
                raise self._refusal(problem) from problem
        except (OSError, HTTPException) as problem:
            raise NotNow(str(getattr(problem, "reason", problem))) from problem

    def _complaint(self, kind: str, answer: bytes) -> str | None:
        if kind == "text/html" and answer.strip():  # a proxy's page: what stands behind it has seen nothing
            raise error(
                "collector_refused", f"what is at {self.target} answers with a page (HTML), as no collector does"
            )
        response = ExportTraceServiceResponse()
        try:
            if kind == "application/json":
                json_format.Parse(answer, response, ignore_unknown_fields=True)
            else:
                response.ParseFromString(answer)
        except (DecodeError, json_format.ParseError, ValueError, RecursionError):
            return None  # it took them, and says so in words of its own
        partial = response.partial_success
        if not partial.rejected_spans and not partial.error_message:
            return None
        return f"{partial.rejected_spans} spans were rejected: {partial.error_message}"

    def _refusal(self, problem: urllib.error.HTTPError) -> NotNow | BusError:
        words = f"{problem.code} {problem.reason}"
        if problem.code not in AGAIN:
            return error("collector_refused", f"the collector at {self.target} answers {words}")
        asked = problem.headers.get("Retry-After", "")
        return NotNow(words, float(asked) if re.fullmatch("[0-9]{1,9}", asked) else None)


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        plain = all(re.fullmatch("[!-~]*", part) for part in (host, parts.path, parts.query))
        if parts.scheme in ("http", "https") and host and plain and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise error(
        "usage",
        "a collector is at http://… or https://…, with other signs than plain ASCII written as %C3%A4",
        "name one, such as http://localhost:4318",
    )


def _check_header(name: str, value: str) -> None:
    """As HTTP has it, https://www.rfc-editor.org/rfc/rfc9110#section-5; values in Latin-1."""
    if not re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII):
        raise error("usage", "the name of a header is of letters, digits and -")
    if not re.fullmatch(r"[\t -~\x80-\xff]*", value):
        raise error("usage", f"header {name}: a value is one line, in Latin-1", "encode it as the collector asks for")


def _read(answer: HTTPResponse) -> bytes:
    """As much of an answer as is worth reading: no collector fills the memory, or takes for ever."""
    end = clock.monotonic() + TIMEOUT
    found = b""
    while len(found) < LONGEST and clock.monotonic() < end and (chunk := answer.read1(LONGEST)):
        found += chunk
    return found


def _surrounding() -> dict[str, str]:
    """The headers of OTEL_EXPORTER_OTLP_HEADERS: `name=value,name=value`, percent-encoded."""
    given = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = (pair.partition("=") for pair in given.split(",") if "=" in pair)
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}
