"""Agent Bus: a coordination bus for independent agents, on one SQLite file or on PostgreSQL."""

from bus.api import AsyncBus, Bus
from bus.errors import BusError

__version__ = "0.1.0"
__all__ = ["AsyncBus", "Bus", "BusError"]
