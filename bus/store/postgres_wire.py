"""Statements sent in one go, and their rows: libpq's pipeline, without the layers that a statement each would cost.

Every parameter has its type in the text, so that it travels as text; so do the rows. Statements are prepared when first
sent, unless a pooler stands between that would hand the next ones to another server process. One that is prepared and
goes alone, the usual case, needs no pipeline.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

from bus.operation import Row

Ask = tuple[str, Sequence[object]]
Loader = Callable[[bytes], Any]

_LOADERS: dict[int, Loader] = {
    **dict.fromkeys((20, 21, 23), int),
    **dict.fromkeys((700, 701, 1700), float),
    16: lambda value: value == b"t",
}
# As numbers: an enum's comparisons take their time, and this is on every operation's way.
_OK, _BAD, _IDLE, _UNKNOWN = (
    int(ConnStatus.OK),
    int(ConnStatus.BAD),
    int(TransactionStatus.IDLE),
    int(TransactionStatus.UNKNOWN),
)
_ROWS, _FAILED, _ABORTED, _SYNC = (
    int(ExecStatus.TUPLES_OK),
    int(ExecStatus.FATAL_ERROR),
    int(ExecStatus.PIPELINE_ABORTED),
    int(ExecStatus.PIPELINE_SYNC),
)


class Wire:
    """The statements of one connection."""

    def __init__(self, pgconn: PGconn, prepare: bool = True) -> None:
        self._pgconn = pgconn
        self._prepare = prepare
        self._names: dict[str, bytes] = {}
        self._loaders: dict[str, list[Loader]] = {}
        self._prepared = 0
        self._ended = False  # whether the server said so
        self._poll = select.poll()
        self._poll.register(pgconn.socket, select.POLLIN)

    def idle(self) -> bool:
        """Whether there is a connection, and no transaction on it."""
        return self._pgconn.transaction_status == _IDLE

    def closed(self) -> bool:
        """Whether there is no connection any more."""
        return self._pgconn.status == _BAD

    def gone(self) -> bool:
        """Whether the connection is closed, or the server has hung up. (What is sent only to find that out has an
        unknown outcome.)"""
        status = self._pgconn.transaction_status
        return self._ended or status == _UNKNOWN or (status == _IDLE and bool(self._poll.poll(0)) and self._broken())

    def _broken(self) -> bool:
        with suppress(psycopg.Error):
            while self._pgconn.status == _OK and self._poll.poll(0):
                self._pgconn.consume_input()
            self._pgconn.is_busy()  # which reads what came in
        return self._ended or self._pgconn.status == _BAD

    def noticed(self, notice: psycopg.errors.Diagnostic) -> None:
        """The server says why it ends a connection on which nothing is asked, some milliseconds before it does."""
        self._ended |= notice.severity_nonlocalized in ("FATAL", "PANIC")

    def ask(self, asks: Sequence[Ask]) -> list[Row] | None:
        """Run statements in one round trip; the rows of the last one that returns rows, None when none does.

        Raises the error of the first that fails; those after it were not run.
        """
        try:
            if len(asks) == 1 and (name := self._names.get(asks[0][0])):
                return self._one(asks[0][0], name, asks[0][1])
            return self._several(asks)
        except (psycopg.Error, UnicodeEncodeError):
            raise
        except BaseException:
            # Out of a signal handler, say. What is still to come would be taken for the answer to what is asked next.
            self._pgconn.finish()
            raise

    def _several(self, asks: Sequence[Ask]) -> list[Row] | None:
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

    def _one(self, sql: str, name: bytes, values: Sequence[object]) -> list[Row] | None:
        pgconn = self._pgconn
        # The usual kinds here: a function call less for each.
        given = [
            value.encode() if type(value) is str else None if value is None else _dumped(value) for value in values
        ]
        pgconn.send_query_prepared(name, given)
        last: PGresult | None = None
        while True:
            self._ready()
            result = pgconn.get_result()
            if result is None:
                break
            last = result
        if last is None:
            raise psycopg.OperationalError("the connection was lost")
        if last.status == _ROWS:
            loaders = self._loaders.get(sql)
            if loaders is None:
                loaders = self._loaders[sql] = _loaders(last)
            return _loaded(last, loaders)
        if last.status == _FAILED:
            raise error_from_result(last, "utf-8")
        return None

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
                if result.status == _SYNC:
                    return found
                found.append(result)
            elif self._pgconn.status == _BAD:
                raise psycopg.OperationalError("the connection was lost")

    def _answer(self, prepares: list[str | None], results: list[PGresult]) -> list[Row] | None:
        rows: list[Row] | None = None
        problem: psycopg.Error | None = None
        for prepared, result in zip(prepares, results, strict=False):
            if result.status in (_FAILED, _ABORTED):
                if prepared is not None:  # it was not after all
                    self._names.pop(prepared, None)
                if result.status == _FAILED and problem is None:
                    problem = error_from_result(result, "utf-8")
            elif result.status == _ROWS:
                rows = _loaded(result, _loaders(result))
        if problem:
            raise problem
        return rows

    def _ready(self) -> None:
        """Wait until a result can be had without waiting."""
        pgconn = self._pgconn
        while pgconn.flush():
            self._push()
        while pgconn.is_busy():
            self._poll.poll()
            pgconn.consume_input()

    def _push(self) -> None:
        """Wait until more can be sent, and take in what comes meanwhile: else both sides may wait for each other."""
        poll = select.poll()
        poll.register(self._pgconn.socket, select.POLLIN | select.POLLOUT)
        ((_, happened),) = poll.poll()
        if happened != select.POLLOUT:
            self._pgconn.consume_input()


def _dumped(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind.__repr__(value).encode()  # its own: that of an enum's member, or of numpy's, is no number
    raise psycopg.DataError("a value is of a kind that can't be stored here")


def _loaders(result: PGresult) -> list[Loader]:
    return [_LOADERS.get(result.ftype(column), bytes.decode) for column in range(result.nfields)]


def _loaded(result: PGresult, loaders: list[Loader]) -> list[Row]:
    get = result.get_value
    return [
        tuple([None if (value := get(row, column)) is None else load(value) for column, load in enumerate(loaders)])
        for row in range(result.ntuples)
    ]
