"""Statements sent in one go, and their rows: libpq's pipeline, without the layers that a statement each would cost.

Every parameter has its type in the text, so that it travels as text; so do the rows. Statements are prepared when first
sent, unless a pooler stands between that would hand the next ones to another server process.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from bus.operation import Row

Ask = tuple[str, Sequence[object]]

_LOADERS: dict[int, Any] = {
    **dict.fromkeys((20, 21, 23), int),
    **dict.fromkeys((700, 701, 1700), float),
    16: lambda value: value == b"t",
}


class Wire:
    """The pipeline of one connection."""

    def __init__(self, pgconn: PGconn, prepare: bool = True) -> None:
        self._pgconn = pgconn
        self._prepare = prepare
        self._names: dict[str, bytes] = {}
        self._prepared = 0
        self._poll = select.poll()

    def broken(self) -> bool:
        """Whether the server has hung up already. What is sent only to find that out has an unknown outcome."""
        self._poll.register(self._pgconn.socket, select.POLLIN)
        with suppress(psycopg.Error):
            while self._pgconn.status == ConnStatus.OK and self._poll.poll(0):
                self._pgconn.consume_input()
        return self._pgconn.status == ConnStatus.BAD

    def ask(self, asks: Sequence[Ask]) -> list[Row] | None:
        """Run statements in one round trip; the rows of the last one that returns rows, None when none does.

        Raises the error of the first that fails; those after it were not run.
        """
        given = [[_dumped(value) for value in values] for _, values in asks]
        pgconn = self._pgconn
        pgconn.enter_pipeline_mode()
        try:
            sent = [self._send(sql, values) for (sql, _), values in zip(asks, given, strict=True)]
            pgconn.pipeline_sync()
            return self._answer([name for names in sent for name in names], self._results())
        finally:
            with suppress(psycopg.Error):
                pgconn.exit_pipeline_mode()

    def _send(self, sql: str, values: list[bytes | None]) -> list[str | None]:
        """Queue a statement; for each result to come, the statement it prepares, if any."""
        if not self._prepare:
            self._pgconn.send_query_params(sql.encode(), values)
            return [None]
        prepares: list[str | None] = []
        if sql not in self._names:
            self._names[sql] = b"bus_%d" % self._prepared
            self._prepared += 1
            self._pgconn.send_prepare(self._names[sql], sql.encode())
            prepares.append(sql)
        self._pgconn.send_query_prepared(self._names[sql], values)
        return [*prepares, None]

    def _results(self) -> list[PGresult]:
        found: list[PGresult] = []
        while True:
            self._ready()
            result = self._pgconn.get_result()
            if result is not None:
                if result.status == ExecStatus.PIPELINE_SYNC:
                    return found
                found.append(result)
            elif self._pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection was lost")

    def _answer(self, prepares: list[str | None], results: list[PGresult]) -> list[Row] | None:
        rows: list[Row] | None = None
        problem: psycopg.Error | None = None
        for prepared, result in zip(prepares, results, strict=False):
            if result.status in (ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED):
                if prepared is not None:  # it was not after all
                    self._names.pop(prepared, None)
                if result.status == ExecStatus.FATAL_ERROR and problem is None:
                    problem = error_from_result(result, "utf-8")
            elif result.status == ExecStatus.TUPLES_OK:
                rows = _loaded(result)
        if problem:
            raise problem
        return rows

    def _ready(self) -> None:
        """Wait until a result can be had without waiting."""
        pgconn = self._pgconn
        while pgconn.flush():
            self._wait(select.POLLIN | select.POLLOUT)
        while pgconn.is_busy():
            self._wait(select.POLLIN)

    def _wait(self, events: int) -> None:
        self._poll.register(self._pgconn.socket, events)
        ((_, happened),) = self._poll.poll()
        if happened != select.POLLOUT:
            self._pgconn.consume_input()


def _dumped(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bool | int | float):
        return repr(value).encode()
    raise psycopg.DataError("a value is of a kind that can't be stored here")


def _loaded(result: PGresult) -> list[Row]:
    columns = range(result.nfields)
    loaders = [_LOADERS.get(result.ftype(column), bytes.decode) for column in columns]
    return [
        tuple(_value(result.get_value(row, column), loaders[column]) for column in columns)
        for row in range(result.ntuples)
    ]


def _value(found: bytes | None, loader: Any) -> Any:
    return None if found is None else loader(found)
