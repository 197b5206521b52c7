"""Releases that a crash may undo, though they were confirmed.

A primary confirms a release before its copies have it. If it is lost then, its successor keeps the lock for who has given it
back: until the session's next list there, or for a whole TTL if it has nothing else there. So the client repeats its
latest releases where there is a new primary, or where its link to the primary is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from lockring.core.client.links import Node
from lockring.core.client.tickets import Ticket
from lockring.units import NS_PER_S

UNDONE_NS: Final = 5 * NS_PER_S
"""For how long a confirmed release may be undone by a crash: a primary goes on for a backup lease (2 s) without its
copy, and it may take as long again until its successor is known."""

UNDONE_MAX: Final = 4096
"""How many releases are remembered for that."""


class RecentReleases:
    """The latest releases that were confirmed, with when and by whom, the oldest first. Not safe for use by several tasks."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: deque[tuple[Ticket, int, Node]] = deque(maxlen=UNDONE_MAX)

    def add(self, ticket: Ticket, node: Node, now_ns: int) -> None:
        """A node has confirmed the release of a ticket."""
        self._entries.append((ticket, now_ns, node))

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def take_doubtful(
        self, table: Sequence[Node | None], *, lost: Node | None = None, now_ns: int
    ) -> list[Ticket]:
        """Take out, and give, what another than the present primary has confirmed, or `lost` has."""
        entries = self._entries
        while entries and now_ns - entries[0][1] >= UNDONE_NS:
            entries.popleft()
        doubtful: list[Ticket] = []
        for _ in range(len(entries)):
            ticket, _, node = entry = entries.popleft()
            if table[ticket.slot] is node and node is not lost:
                entries.append(entry)
            else:
                doubtful.append(ticket)
        return doubtful
