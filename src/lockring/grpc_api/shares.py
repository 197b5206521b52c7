"""The shares of connections in the calls and the memory of a node, so that a few clients cannot take all of it.

A connection may have as much as is still free, and no more than its own limit. So the more of them want much, the less
each one gets. A reserve is left for those that have little.

Health checks and reflection have small shares of their own: they prove no identity, and anyone may ask.
"""

from __future__ import annotations

from typing import Final

from lockring.core.access import GRPC_REQUIREMENTS

CALLS_MAX: Final = 4_000
"""Calls that are open at a node, streams and waits among them; more are refused with RESOURCE_EXHAUSTED."""

CALLS_PER_CONNECTION_MAX: Final = 1_000
"""Calls that are open on one connection; the client learns of it, and keeps further ones back."""

CALLS_RESERVED: Final = 1_000
FEW_CALLS: Final = 4
"""The reserve, and how many calls a connection may have by it."""

SIDE_CALLS_MAX: Final = 256
"""Calls of health and reflection at a node. Beyond, a connection may have one."""

SIDE_CALLS_PER_CONNECTION_MAX: Final = 8

SIDE_METHODS: Final = frozenset(each for each in GRPC_REQUIREMENTS if not each.startswith("lockring."))
"""The methods of health and reflection."""


class Share:
    """A part of what a node has, such as its calls, and how much of it is taken. Not thread-safe.

    Args:
        total: all of it.
        each: how much of it one connection may take.
        reserved: how much of it is for connections that take little.
        few: how much that is.

    Attributes:
        total: all of it.
        each: how much of it one connection may take.
        taken: by all connections.
    """

    def __init__(self, total: int, each: int, *, reserved: int = 0, few: int = 0) -> None:
        self.total = total
        self.each = each
        self._reserved = reserved
        self._few = few
        self.taken = 0

    def has_room(self, taken: int, size: int) -> bool:
        """Return whether a connection may take more.

        Args:
            taken: its part so far.
            size: how much more it would take.
        """
        free = self.total - self.taken
        wanted = taken + size
        return size <= free and (wanted <= self._few or wanted <= min(self.each, free - self._reserved))


class Taken:
    """The part that one connection has taken.

    Attributes:
        calls: open calls that are not of health and reflection.
        side_calls: those that are.
    """

    __slots__ = ("calls", "side_calls")

    def __init__(self) -> None:
        self.calls = 0
        self.side_calls = 0


class Shares:
    """The shares of all connections of a node. Not thread-safe."""

    def __init__(self) -> None:
        self._calls = Share(CALLS_MAX, CALLS_PER_CONNECTION_MAX, reserved=CALLS_RESERVED, few=FEW_CALLS)
        self._side_calls = Share(SIDE_CALLS_MAX, SIDE_CALLS_PER_CONNECTION_MAX)

    def begin(self, taken: Taken, path: str) -> str:
        """Count a call, if there is room for it.

        Args:
            taken: the part of its connection.
            path: its method.

        Returns:
            Why there is no room, "" if the call was counted.
        """
        calls, side_calls = self._calls, self._side_calls
        if calls.taken >= calls.total:
            return f"this node has {calls.total} open calls, which is its limit: try again later"
        if path in SIDE_METHODS:
            if taken.side_calls and not side_calls.has_room(taken.side_calls, 1):
                return (
                    f"this connection has {taken.side_calls} open calls of health and reflection, and all have "
                    f"{side_calls.taken}: it may have {side_calls.each}, and all {side_calls.total}"
                )
            side_calls.taken += 1
            taken.side_calls += 1
        else:
            if not calls.has_room(taken.calls, 1):
                return (
                    f"this connection has {taken.calls} open calls, and this node has {calls.taken} of at most "
                    f"{calls.total}: a connection may have {calls.each}, and no more than are free. "
                    "Try again later, or close other calls"
                )
            taken.calls += 1
        calls.taken += 1
        return ""

    def end(self, taken: Taken, path: str) -> None:
        """Uncount a call that was counted."""
        self._calls.taken -= 1
        if path in SIDE_METHODS:
            self._side_calls.taken -= 1
            taken.side_calls -= 1
        else:
            taken.calls -= 1
