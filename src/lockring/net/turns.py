"""Shares the event loop's time among clients, and leaves enough of it for everything else.

Reading goes on for as long as a connection has data, many times in a row. Without turns, a client that sends faster
than it can be answered would keep the server from its peers for seconds, and cost it its leases. Two bounds prevent
that:

1. A client whose one read takes longer than `TURN_NS_MAX` lets the other connections go first.
2. All clients together get `TURNS_NS_MAX`; then the loop looks at timers and members first. Without this bound, many
   cheap clients would starve the peers as effectively as one expensive client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from lockring.units import NS_PER_MS

TURN_NS_MAX: Final = 5 * NS_PER_MS
"""How long one read of a client may take until the others go first."""

TURNS_NS_MAX: Final = 50 * NS_PER_MS
"""How long all clients together are handled before timers and members."""


class TurnTaker(Protocol):
    """A connection that has paused until its next turn."""

    def resume(self) -> None:
        """Go on with the messages that were held back, and read again."""


class TurnScheduler:
    """The turns of one port's clients. Lives in one event loop.

    Attributes:
        are_over: whether the clients have used up their time until the loop has looked at everything else.
    """

    def __init__(self) -> None:
        self.are_over = False
        self._waiting: deque[TurnTaker] = deque()
        self._used_ns = 0
        self._is_scheduled = False

    def count(self, took_ns: int) -> None:
        """Count the time that a client's messages took."""
        self._used_ns += took_ns
        # A smaller sum may include time from earlier turns of the loop, but it is too small to need a reset.
        if self._used_ns > TURN_NS_MAX:
            self.are_over = self._used_ns > TURNS_NS_MAX
            self._schedule()

    def enqueue(self, client: TurnTaker) -> None:
        """Resume a client after those that are waiting already."""
        self._waiting.append(client)
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._begin_round)

    def _begin_round(self) -> None:
        self._is_scheduled = False
        self._used_ns = 0
        self.are_over = False
        for _ in range(len(self._waiting)):
            if self.are_over:
                break
            self._waiting.popleft().resume()
        if self._waiting:
            self._schedule()
