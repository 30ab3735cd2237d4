"""Operations on several messages, all or none: which of them a refusal means."""

from __future__ import annotations

from collections.abc import Mapping

from bus.errors import BusError, error
from bus.operation import Query, Row, Steps

NAMED = 5  # receipts or ids; of more it is told how many


def judged(name: str, parameters: Mapping[str, object]) -> Steps[list[Row]]:
    """Run an operation on receipts or ids; its refusal names those that it means, which SQL can't."""
    try:
        rows: list[Row] = yield Query(name, parameters)
    except BusError as problem:
        if problem.code not in ("lease_lost", "unknown_message", "not_dead"):
            raise
        if parameters.get("receipts"):
            beside = "acknowledged" if name == "messages/ack" else ""
            found = yield Query("messages/lost", {"receipts": parameters["receipts"], "beside": beside})
        elif parameters.get("ids"):
            found = yield Query("messages/undead", {"ids": parameters["ids"]})
        else:
            raise
        meant = [str(one) for one, code in found if code == problem.code]
        more = f" and {len(meant) - NAMED} more" if len(meant) > NAMED else ""
        raise error(problem.code, f"{problem.message}: {', '.join(meant[:NAMED])}{more}" if meant else "") from problem
    return rows
