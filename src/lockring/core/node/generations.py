"""The source of a primary's fencing tokens: ranges that the coordinator reserves for each slot."""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import GENERATION_MAX
from lockring.core.node.context import NodeContext
from lockring.core.node.slot import NodeSlot
from lockring.ids import Generation, SlotNumber
from lockring.protocol import SlotRequest, SlotRequestKind

GENERATIONS_MARGIN: Final = 100_000
"""More are asked for when fewer than this are left: at 5,000 grants a second, 20 s before the end."""


class Generations:
    """The generations that a node may use, and the slots that have run out of them."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._exhausted: dict[SlotNumber, None] = {}

    def reserve(self, slot: NodeSlot) -> Generation | None:
        """Choose a generation that the slot has not used, and ask for more in time.

        Returns:
            A number for the next grant or view; None while the coordinator has reserved no more.
        """
        state = self._context.state.slots[slot.number]
        generation: Generation = slot.table.highest + 1  # type: ignore[assignment]  # born here
        if generation < state.generation_from:
            generation = state.generation_from
        if generation + GENERATIONS_MARGIN >= state.generation_below:
            self._ask(slot.number)
            if generation >= min(state.generation_below, GENERATION_MAX):
                return None
        return generation

    def exhausted(self, number: SlotNumber) -> None:
        """Keep asking for a slot in which a grant waits for a generation."""
        self._exhausted[number] = None

    def extended(self, number: SlotNumber) -> None:
        """Stop asking for a slot, which has got more or is not served here any more."""
        self._exhausted.pop(number, None)

    def ask_again(self) -> None:
        """Ask once more for every exhausted slot: the last request may have been lost."""
        for number in self._exhausted:
            self._ask(number)

    def _ask(self, number: SlotNumber) -> None:
        state = self._context.state.slots[number]
        item = SlotRequest(number, state.epoch, below=state.generation_below)
        self._context.outbox.ask(SlotRequestKind.EXTEND, item)
