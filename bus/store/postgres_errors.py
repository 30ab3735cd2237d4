"""PostgreSQL's errors as the bus's."""

from __future__ import annotations

import psycopg

from bus.errors import CATALOG, BusError, error
from bus.store.url import Server

RAISED = "AB000"  # the SQLSTATE of what the schema raises
# The server is going down, or coming up, or cut the connection.
LOST = {"57P01", "57P02", "57P03", "08000", "08003", "08006", "25P03"}
OUTDATED = "0A000"  # a statement was prepared for tables that were made anew, or changed, since
GONE = {"3F000", "42P01", "42704", "42883"}  # a schema, table, type or function that is not there
BY_STATE = {
    "40001": "busy",
    "40P01": "busy",
    "55P03": "busy",
    "53100": "disk_full",
    "53200": "busy",
    "53300": "unreachable",
    "22P02": "invalid_json",
    "22P05": "invalid_json",
    "XX001": "damaged",
    "XX002": "damaged",
    "58030": "io_error",
    "54000": "payload_too_large",
    "54001": "invalid_schema",
}


class Lost(Exception):
    """The connection went away before anything could be committed."""


def translate(problem: psycopg.Error | UnicodeEncodeError, url: Server) -> BusError:
    """The bus's error for the driver's."""
    if isinstance(problem, UnicodeEncodeError):
        return error("invalid_value", "the value can't be stored: it has a lone surrogate")
    state = problem.sqlstate or ""
    words = problem.diag.message_primary or str(problem)
    if state == RAISED:
        code, _, detail = words.partition(": ")
        return error(code, detail)
    if state == "23514" and problem.diag.constraint_name in CATALOG:
        return error(problem.diag.constraint_name or "")
    if state in ("42501", "25006"):
        return error("not_allowed", f"PostgreSQL says: {words}")
    if state == "57014":  # it was cancelled, or waited for others for longer than a statement_timeout lets it
        return error("busy", f"PostgreSQL says: {words}")
    if state == "22P02" and "json" not in words:
        return error("invalid_value", words)
    if state == "54000" and "index" in words:
        return error("invalid_value", f"a key or an id is too long to be found again: {words}", "make it shorter")
    if state in BY_STATE:
        return error(BY_STATE[state])
    if state in GONE:
        return error("no_bus", f"the schema {url.schema} of {url.path} is no whole bus any more: {words}")
    if state[:2] in ("22", "23") or (isinstance(problem, psycopg.DataError | psycopg.ProgrammingError) and not state):
        return error("invalid_value", words)
    return error("fault", f"PostgreSQL failed on {url.path}: {words}")
