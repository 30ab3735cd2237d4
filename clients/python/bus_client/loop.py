"""A loop over messages, as its iterator sees it: which message is in hand, and how the loop was left."""

from __future__ import annotations

import dis
from types import FrameType

from bus.models import Message
from bus_client.held import Held

_ASKING = ("FOR_ITER", "GET_ANEXT")
_DROPPING = ("POP_TOP", "POP_ITER")
_ANSWERING = ("CALL", "CALL_KW", "CALL_FUNCTION_EX", "END_SEND", "JUMP_BACKWARD_NO_INTERRUPT")


class Loop:
    """The message that a loop has in hand, and what is known of its body.

    An iterator is not told why it is dropped. CPython drops it with POP_TOP (3.14: POP_ITER) for break and return, and
    while unwinding (at the instruction that raised) for an exception. Anybody else who drops it, later and elsewhere,
    may do so with POP_TOP too. So the loop was left in order only if the frame that runs it is the one that runs now
    and the instruction does not end a statement that is a call or an await. In doubt it was not: that is safe.
    """

    def __init__(self) -> None:
        self.message: Message | None = None
        self.ended = False  # whether the body of the message has ended: then it is acknowledged, whatever comes
        self._frame: int | None = None  # a reference to the frame itself would keep alive what it refers to

    def asks(self, frame: FrameType, held: Held) -> str | None:
        """The next message is asked for: the receipt of the one before, where that is still to be acknowledged.

        Nobody extends it from now on: if acknowledging it fails, and fails again, its lease runs out.
        """
        self._frame = id(frame) if _opname(frame, frame.f_lasti) in _ASKING else None
        if receipt := self._unsettled(held):
            self.ended = True
            held.drop(receipt)
        return receipt

    def hands_out(self, message: Message, held: Held) -> Message:
        """This message is in hand now."""
        self.message, self.ended = message, False
        held.take(message)
        return message

    def is_dropped(self, frame: FrameType | None, held: Held) -> Message | None:
        """The iterator is dropped while this frame runs: the message that is still to be settled, as `ended` says."""
        if not self._unsettled(held):
            return None
        self.ended = self.ended or (frame is not None and id(frame) == self._frame and _is_left_in_order(frame))
        return self.message

    def _unsettled(self, held: Held) -> str | None:
        receipt = self.message.receipt if self.message else None
        return receipt if self.ended or receipt in held else None


def _is_left_in_order(frame: FrameType) -> bool:
    if _opname(frame, frame.f_lasti) not in _DROPPING:
        return False
    before = frame.f_lasti - 2
    while _opname(frame, before) == "CACHE":
        before -= 2
    return _opname(frame, before) not in _ANSWERING


def _opname(frame: FrameType, place: int) -> str:
    return dis.opname[frame.f_code.co_code[place]]
