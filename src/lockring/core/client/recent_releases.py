"""Releases that a crash may undo, though they were confirmed.

A primary confirms a release before its copies have it. If it crashes then, its successor still lists the client as
the holder: until the session's next list there, or for a whole TTL if the session has nothing else there. So the
client repeats its latest releases where a slot gets a new primary, or where the link to the primary is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from lockring.core.client.links import Node
from lockring.core.client.tickets import Ticket
from lockring.units import NS_PER_S

UNDONE_NS: Final = 5 * NS_PER_S
"""For how long a crash may undo a confirmed release: a primary goes on for a backup lease (2 s) without its copy, and
it may take as long again until its successor is known."""

UNDONE_MAX: Final = 4096
"""How many releases are remembered for that."""


class RecentReleases:
    """The latest confirmed releases, with when and by which node, the oldest first."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[tuple[Ticket, int, Node]] = deque(maxlen=UNDONE_MAX)

    def add(self, ticket: Ticket, node: Node, now_ns: int) -> None:
        """Remember a release that a node has confirmed."""
        self._entries.append((ticket, now_ns, node))

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def take_unconfirmed(
        self, table: Sequence[Node | None], *, lost: Node | None = None, now_ns: int
    ) -> list[Ticket]:
        """Take out the releases that the slot's present primary has not confirmed, or only `lost` has.

        Args:
            table: each slot's primary.
            lost: a node that cannot be reached any more.
            now_ns: the time.
        """
        entries = self._entries
        while entries and now_ns - entries[0][1] >= UNDONE_NS:
            entries.popleft()
        unconfirmed: list[Ticket] = []
        for _ in range(len(entries)):
            ticket, _, node = entry = entries.popleft()
            if table[ticket.slot] is node and node is not lost:
                entries.append(entry)
            else:
                unconfirmed.append(ticket)
        return unconfirmed
