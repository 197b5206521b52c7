"""The effects of the present turn, and the time of the next one."""

from __future__ import annotations

from lockring.core.client.effects import ClientEffect
from lockring.core.timing import DISTANT_FUTURE_NS


class Agenda:
    """The work that the parts of one client core leave for its shell. Every part writes to it; only the core reads it.

    Attributes:
        effects: what the shell must do, in order.
        wake_at_ns: when the shell must call `on_timer`, `DISTANT_FUTURE_NS` for never. Early does no harm, late does.
    """

    __slots__ = ("effects", "wake_at_ns")

    def __init__(self) -> None:
        self.effects: list[ClientEffect] = []
        self.wake_at_ns = DISTANT_FUTURE_NS

    def wake(self, at_ns: int) -> None:
        """Have the core called at this time, if not before."""
        if at_ns < self.wake_at_ns:
            self.wake_at_ns = at_ns
