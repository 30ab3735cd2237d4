"""What an operation is, and how it is driven.

An operation's logic is a generator that says what it needs and never does it: it yields `Query` (a file under
schemas/operations, with its parameters) and is sent the rows; it yields `Ring` to wake whoever waits. What it returns
is the operation's result. A store runs it in one transaction, and runs it again from the start after "busy".

Other requests are a `Query` that one store runs and the other need not, since a statement costs little on a file, and
a round trip to a server much:

                 on SQLite                               on PostgreSQL
    Query        run                                     run
    Shortcut     run                                     not run
    Leap         not run                                 run
    Change       run, at best without a transaction      run where it begins a `brief` operation, else not
    Tell         run                                     sent along with the next query
    Seldom       run, once in a second                   not run: the texts say it (`-- unless :beaten`)
    Ring         after the commit                        not run: triggers ring

A `Shortcut`, a `Leap` or a `Change` that is not run is answered with no rows: the operation takes the long way.

A routine is a generator one level up: it yields whole operations and `Pause`s, for what takes more than one
transaction (waiting for a message). Blocking and async drivers carry out the same generators (as psycopg's
`generators.py`/`waiting.py` and httpx's `auth_flow` do).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Generic, ParamSpec, TypeVar

import msgspec

T = TypeVar("T")
P = ParamSpec("P")

Row = tuple[Any, ...]


class Query(msgspec.Struct, frozen=True, gc=False):
    """Run schemas/operations/`name`.sql; answered with the rows of the one of its statements that returns some."""

    name: str
    parameters: Mapping[str, object]


class Statement(msgspec.Struct, frozen=True, gc=False):
    """Run SQL that is no file, told for each dialect that needs it (`sqlite`, `postgres`); answered with no rows."""

    texts: Mapping[str, str]


class Tell(msgspec.Struct, frozen=True, gc=False):
    """As a `Query` whose rows nobody needs, and which another one follows: a store may send both at once, and raise its
    error there."""

    name: str
    parameters: Mapping[str, object]


class Seldom(msgspec.Struct, frozen=True, gc=False):
    """As a `Query` whose rows nobody needs; left out when this connection ran the same one less than a second ago."""

    name: str
    parameters: Mapping[str, object]


class Shortcut(msgspec.Struct, frozen=True, gc=False):
    """As a `Query`, for stores on which one more statement costs little; others answer with no rows, and the operation
    takes the long way."""

    name: str
    parameters: Mapping[str, object]


class Change(msgspec.Struct, frozen=True, gc=False):
    """As a `Shortcut`, for one that changes rows with a single statement: answered with an id (of the row that was
    inserted) and the number of rows. Where it comes first in a `brief` operation it is a transaction by itself: when it
    changed something, nothing but `Ring` may follow. None changed: what was looked at before holds no more."""

    name: str
    parameters: Mapping[str, object]


class Leap(msgspec.Struct, frozen=True, gc=False):
    """As a `Query`, for stores on which a round trip costs much; others answer with no rows, and the operation takes
    the long way."""

    name: str
    parameters: Mapping[str, object]


class Load(msgspec.Struct, frozen=True, gc=False):
    """Run schemas/operations/`name`.sql once for each set of parameters; answered with no rows."""

    name: str
    rows: Sequence[Mapping[str, object]]


class Ring(msgspec.Struct, frozen=True, gc=False):
    """After the commit, ring these doorbells."""

    bells: Sequence[str]


class Pause(msgspec.Struct, frozen=True, gc=False):
    """Sleep until one of the doorbells rings, a watched process ends, or `seconds` are over (None: no limit).

    Answered with true when all that is known is that somebody wrote something, perhaps for others."""

    bells: Sequence[str]
    seconds: float | None
    pids: Sequence[int] = ()


Request = Query | Shortcut | Change | Leap | Tell | Statement | Seldom | Load | Ring
Steps = Generator[Request, Any, T]


class Operation(msgspec.Struct, Generic[T], frozen=True):
    """Something a store can run: `steps()` makes its generator anew, `writes` tells whether it changes anything, and
    `undo` makes, of its result, the operation that takes it back when nobody is left to have the result. `closing` is
    the query with which it usually ends, so that a store may send the commit along with it. A `single` one reads with
    one statement, which is a transaction by itself; a `brief` one mostly writes with a single `Change`, and its
    transaction begins when it asks for more. An `optional` one is left out of a routine, answered with None, where the
    bus may only be read."""

    steps: Callable[[], Steps[T]]
    writes: bool
    undo: Callable[[T], Operation[Any] | None] | None = None
    closing: str | None = None
    single: bool = False
    brief: bool = False
    optional: bool = False


Routine = Generator[Operation[Any] | Pause, Any, T]


def writing(function: Callable[P, Steps[T]]) -> Callable[P, Operation[T]]:
    """Make a generator function an operation that changes the bus."""
    return _making(function, True)


def reading(function: Callable[P, Steps[T]]) -> Callable[P, Operation[T]]:
    """Make a generator function an operation that only looks."""
    return _making(function, False)


def looking(function: Callable[P, Steps[T]]) -> Callable[P, Operation[T]]:
    """As `reading`, for one that asks a single query, of one statement."""
    return _making(function, False, single=True)


def _making(function: Callable[P, Steps[T]], writes: bool, single: bool = False) -> Callable[P, Operation[T]]:
    @functools.wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> Operation[T]:
        return Operation(functools.partial(function, *args, **kwargs), writes, single=single)

    return make
