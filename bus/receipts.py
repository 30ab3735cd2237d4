"""Operations on receipts, all or none: which of them a refusal means."""

from __future__ import annotations

from collections.abc import Mapping

from bus.errors import BusError, error
from bus.operation import Query, Row, Steps

NAMED = 5  # receipts; of more it is told how many


def judged(name: str, parameters: Mapping[str, object]) -> Steps[list[Row]]:
    """Run an operation on receipts; its refusal names those that are lost, which SQL can't."""
    try:
        rows: list[Row] = yield Query(name, parameters)
    except BusError as problem:
        if problem.code not in ("lease_lost", "unknown_message") or "receipts" not in parameters:
            raise
        beside = "acknowledged" if name == "messages/ack" else ""
        found = yield Query("messages/lost", {"receipts": parameters["receipts"], "beside": beside})
        lost = [receipt for receipt, code in found if code == problem.code]
        more = f" and {len(lost) - NAMED} more" if len(lost) > NAMED else ""
        raise error(problem.code, f"{problem.message}: {', '.join(lost[:NAMED])}{more}" if lost else "") from problem
    return rows
