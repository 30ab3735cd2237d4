"""The library of Python agents: an `Agent` (or `AsyncAgent`) is one identity on the bus."""

from bus.errors import BusError, Conflict, Invalid, NotFound, Refused, TryAgain
from bus.models import Message
from bus_client.agent import Agent
from bus_client.async_agent import AsyncAgent
from bus_client.step import Step

__all__ = [
    "Agent",
    "AsyncAgent",
    "BusError",
    "Conflict",
    "Invalid",
    "Message",
    "NotFound",
    "Refused",
    "Step",
    "TryAgain",
]
