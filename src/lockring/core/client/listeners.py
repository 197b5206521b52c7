"""The listeners of losses and of changes in groups: objects above the shell, to which a ticket or a query refers.

The core only carries the references. They are weak, so that a grant that the program has dropped can be noticed: what
renews a lease must not keep its holder alive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class LossListener(Protocol):
    """A grant or a membership, as the object that hears of its loss."""

    def _on_ticket_lost(self) -> None:
        """Handle the loss of the ticket; called where the shell carries out effects, so it must not block."""


class RegroupingListener(Protocol):
    """A membership, as the object that hears of changes in its group."""

    def _on_regrouped(self, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        """Handle a `GroupChange`; if it is `awaited`, `told` must be called once the program knows."""


HolderReference = Callable[[], LossListener | None]
"""Refers to a ticket's holder, weakly: None once the holder is gone."""

MemberReference = Callable[[], RegroupingListener | None]
"""Refers to the member that follows a group, in the same way."""
