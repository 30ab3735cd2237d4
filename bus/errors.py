"""Everything that can go wrong, as one tree.

    BusError                         whatever the bus reports
    ├── Fault                    70  fault · io_error · damaged · outcome_unknown
    ├── Invalid                  64  usage: an argument that can't be read
    ├── Refused                  65  a rule of the bus says no: invalid_… · illegal_transition · immutable · closed · …
    │   ├── UnknownType          65  unknown_type
    │   └── InvalidPayload       65  invalid_payload · invalid_json · payload_too_large
    ├── NotFound                 66  no_bus · not_a_bus · newer_bus · unsafe_file · unknown_agent · unknown_session · …
    ├── TryAgain                 75  busy · reentrant · disk_full · unreachable · not_acknowledged · …
    └── Conflict                 76  lease_lost · key_reused · version_conflict · already_ended · …

Each error carries a stable `code`, an `exit_status` for the command line, what happened (`message`) and what to do
about it (`hint`). The codes stand in `CATALOG`; the database raises them by name, and `schemas/errors.tsv`, made from
the same list, tells the shell functions.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import NamedTuple


class BusError(Exception):
    """Whatever the bus reports."""

    exit_status = 70
    index: int | None = None  # which operation of a step it was, from 0

    def __init__(self, code: str, message: str = "", hint: str = "") -> None:
        entry = CATALOG.get(code)
        self.code = code
        self.message = message or (entry.message if entry else self.__doc__ or code)
        self.hint = hint or (entry.hint if entry else "")
        super().__init__(self.message)

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[BusError], tuple[str, str, str], dict[str, object]]:
        return type(self), (self.code, self.message, self.hint), self.__dict__


class Fault(BusError):
    """Something broke that should not."""


class Invalid(BusError):
    """An argument can't be read."""

    exit_status = 64


class Refused(BusError):
    """A rule of the bus says no; nothing was stored."""

    exit_status = 65


class UnknownType(Refused):
    """The type is not among those the bus knows."""


class InvalidPayload(Refused):
    """The payload is not what its type promises."""


class NotFound(BusError):
    """What was named is not there, or can't be used."""

    exit_status = 66


class TryAgain(BusError):
    """Not now. Nothing was changed, except by a call that then waited for something (`not_acknowledged`)."""

    exit_status = 75


class Conflict(BusError):
    """Somebody else was first; nothing was changed."""

    exit_status = 76


class Entry(NamedTuple):
    """One line of the catalog: the class that is raised, what happened, what to do."""

    kind: type[BusError]
    message: str
    hint: str


CATALOG: dict[str, Entry] = {
    "fault": Entry(Fault, "the bus failed", "run `bus doctor`"),
    "io_error": Entry(Fault, "the disk failed", "check the disk, then run `bus doctor`; nothing was stored"),
    "damaged": Entry(
        Fault,
        "the bus file is damaged",
        "go back to a copy made by `bus backup`: `bus restore COPY`; or export what can be read: `sqlite3 FILE "
        ".recover`, or .dump where sqlite3 was built without it",
    ),
    "outcome_unknown": Entry(
        Fault,
        "the commit failed half-way and may or may not have happened",
        "look before you repeat it, or repeat it with the same idempotency key",
    ),
    "illegal_transition": Entry(Refused, "a message can't change its status that way", "see the life cycle in README"),
    "immutable": Entry(Refused, "this never changes once it is written", "write a new one"),
    "refused": Entry(Refused, "the bus refused it", "run `bus doctor`"),
    "closed": Entry(Refused, "the bus was closed", "open it again, and close it when nobody uses it any more"),
    "not_allowed": Entry(
        Refused, "the role of this bus address may not do that", "ask the owner of the bus to do it, as their own role"
    ),
    "usage": Entry(Invalid, "an argument can't be read", "see `bus --help`"),
    "invalid_id": Entry(
        Refused,
        "not a legal id",
        "ids are 1 to 128 characters of A-Z a-z 0-9 . _ : @ - and don't begin with - . @",
    ),
    "invalid_key": Entry(
        Refused,
        "not a legal state key",
        "keys are 1 to 128 characters of A-Z a-z 0-9 . _ : @ / - and don't begin with - . @",
    ),
    "invalid_address": Entry(Refused, "not a legal address", "send to an agent's id, to @TYPE, or to '*'"),
    "invalid_priority": Entry(
        Refused, "not a legal priority", "priorities are whole numbers from 1 to 10, 10 the most urgent"
    ),
    "invalid_progress": Entry(Refused, "not a legal progress", "progress is a number from 0 to 100"),
    "invalid_status": Entry(
        Refused,
        "not a legal status",
        "agents are spawning, active, paused, completed, failed or terminated (retired: one of the last three), "
        "records of their lives completed, failed or killed",
    ),
    "invalid_moment": Entry(Refused, "not a moment", "write UTC as YYYY-MM-DD HH:MM:SS.SSS"),
    "future_time": Entry(Refused, "that is in the future", "give a time that has come"),
    "invalid_duration": Entry(
        Refused, "it would have ended before it began", "give the times in their order: spawned, started, completed"
    ),
    "invalid_traceparent": Entry(
        Refused, "not a trace context", "write 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in small letters"
    ),
    "not_started": Entry(Refused, "it was never started", "start it first, with `bus trace start ID`"),
    "invalid_idempotency_key": Entry(Refused, "an idempotency key is not empty", "give one, or none"),
    "invalid_dead_reason": Entry(Refused, "not a legal reason to be dead", "see the life cycle in README"),
    "invalid_value": Entry(Refused, "not a legal value", "give text without NUL, and numbers where numbers belong"),
    "invalid_json": Entry(
        InvalidPayload,
        "not legal JSON",
        "give UTF-8 JSON without NaN, duplicate keys, lone surrogates, NULs or numbers beyond 64 bits",
    ),
    "invalid_payload": Entry(
        InvalidPayload, "the payload is not what its type promises", "see the type's schema with `bus types list`"
    ),
    "payload_too_large": Entry(
        InvalidPayload,
        "the payload is too large",
        "send a path, or raise the limit: `bus config set max_payload_bytes N`",
    ),
    "invalid_schema": Entry(Refused, "not a schema the database can enforce", "see the list of keywords in README"),
    "unfit_option": Entry(Refused, "the option does not fit the session", "see `bus recover SESSION`"),
    "unknown_type": Entry(
        UnknownType, "no such type", "see `bus types list`; a project adds its own with `bus types add`"
    ),
    "unknown_setting": Entry(NotFound, "no such setting", "see `bus config list`"),
    "no_bus": Entry(NotFound, "there is no bus here", "make one with `bus init`, or name one with --bus or BUS_URL"),
    "not_a_bus": Entry(NotFound, "that file is not a bus", "name another with --bus or BUS_URL"),
    "newer_bus": Entry(NotFound, "the bus was made by a newer version", "upgrade agent-bus on this machine"),
    "older_bus": Entry(NotFound, "the bus was made by an older version", "bring it to this one with `bus init`"),
    "unsafe_file": Entry(NotFound, "the bus file can't be used safely", "give it one name, one owner, a local disk"),
    "unknown_agent": Entry(NotFound, "no such agent", "register it with `bus register`"),
    "unknown_session": Entry(NotFound, "no such session", "see `bus session list`"),
    "unknown_message": Entry(NotFound, "no such message", "see `bus messages`"),
    "unknown_milestone": Entry(NotFound, "no such milestone", "see `bus milestone list`"),
    "unknown_checkpoint": Entry(NotFound, "no such checkpoint", "see `bus checkpoint list AGENT`"),
    "unknown_trace": Entry(NotFound, "no such record of an agent's life", "see `bus trace timeline`"),
    "unreachable": Entry(
        TryAgain, "the server of the bus can't be reached", "try again; check the address and the server"
    ),
    "busy": Entry(TryAgain, "the bus is busy", "try again; `bus doctor` names who holds it"),
    "reentrant": Entry(
        TryAgain,
        "this thread is in the middle of another call of the bus",
        "in a signal handler only note what has come, and act on it when that call has returned; nothing was changed",
    ),
    "not_acknowledged": Entry(TryAgain, "it is not acknowledged yet", "look again with `bus message ID`"),
    "interrupted": Entry(TryAgain, "interrupted", "nothing is half done; start it again when you like"),
    "disk_full": Entry(TryAgain, "the disk is full", "make room and try again; nothing was stored"),
    "no_descriptors": Entry(
        TryAgain,
        "this process can open no more files",
        "close some, or raise its limit: see ulimit -n; nothing was stored",
    ),
    "lease_lost": Entry(
        Conflict, "the lease was lost", "drop the work: the message is over, or went back, or to another agent"
    ),
    "key_reused": Entry(
        Conflict, "the idempotency key was used for another message", "use a new key for a new message"
    ),
    "version_conflict": Entry(Conflict, "the state has another version", "load it again and decide anew"),
    "already_ended": Entry(Conflict, "it has ended already", "look at it before you go on"),
    "milestone_exists": Entry(Conflict, "there is a milestone of that id", "name another with --milestone"),
    "already_running": Entry(Conflict, "a monitor of this bus runs already", "end it with `bus monitor --stop`"),
    "collector_down": Entry(
        TryAgain, "the collector can't be reached", "nothing is lost: run it again, or use --follow"
    ),
    "already_exporting": Entry(TryAgain, "another process exports there already", "let it, or end it first"),
    "collector_refused": Entry(
        Refused, "the collector refuses it", "check the address and the credentials; nothing is lost"
    ),
    "already_started": Entry(Conflict, "it was started already", "look at it with `bus trace show ID`"),
    "not_empty": Entry(Conflict, "the bus that is to get the copy has something in it", "name a new one"),
    "not_dead": Entry(Conflict, "the message is not dead", "only dead messages are redriven; see `bus dead`"),
}


# By what is said: the parameters of operations that may name what is not there.
NAMED_BY = {
    "no such agent": ("from", "agent"),
    "no such session": ("session",),
    "no such message": ("id",),
    "no such checkpoint": ("checkpoint",),
    "no such milestone": ("milestone",),
    "no such record of an agent's life": ("id",),
    "no such type": ("operation", "type"),
    "there is no such message type": ("type",),
    "there is no such agent type": ("to", "type"),
    "there is no such state type": ("type",),
    "no such setting": ("key",),
}


def error(code: str, message: str = "", hint: str = "") -> BusError:
    """The error of that code; an unknown code is a `Fault`."""
    entry = CATALOG.get(code)
    return (entry.kind if entry else Fault)(code, message, hint)


def about(problem: BusError, parameters: Mapping[str, object]) -> BusError:
    """A refusal with the name of what is not there, which is one of the parameters; SQL can't tell it."""
    for name in NAMED_BY.get(problem.message, ()):
        if (given := parameters.get(name)) is not None:
            return error(problem.code, f"{problem.message}: {str(given)[:128]}")
    return problem


def of_system(problem: OSError, path: str) -> BusError:
    """The error for what the operating system refused about a file of the bus."""
    if problem.errno in (errno.EMFILE, errno.ENFILE):
        return error("no_descriptors")
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return error("disk_full")
    return error("unsafe_file", f"{path} can't be used: {problem.strerror}", "check the permissions of file and folder")


def catalog_tsv() -> str:
    """The catalog as `code <tab> exit status <tab> message <tab> hint` lines, for clients in other languages."""
    return "".join(f"{code}\t{e.kind.exit_status}\t{e.message}\t{e.hint}\n" for code, e in CATALOG.items())
