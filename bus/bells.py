"""The names of doorbells: an agent's id and `@TYPE`, where one waits for messages, and these."""

from __future__ import annotations

from bus.models import MessageStatus

PASSING = "message="  # the beginning of those that are waited at only once, and then taken down


def of_message(id: int) -> str:
    """Where one waits for a message's end."""
    return f"{PASSING}{id}"


def of_state(agent: str) -> str:
    """Where one watches an agent's state."""
    return f"state={agent}"


def of_returned(id: int, address: str, status: str) -> str:
    """Who is to hear of a message that was given back: its receivers, or, when it died of it, who wait for its end."""
    return of_message(id) if status == MessageStatus.DEAD else address
