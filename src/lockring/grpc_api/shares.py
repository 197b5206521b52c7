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

HELD_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of all messages that wait: requests that are incomplete or unread, and responses.

Beyond, calls are refused with RESOURCE_EXHAUSTED.
"""

HELD_BYTES_PER_CONNECTION_MAX: Final = 4 * 1024 * 1024
HELD_BYTES_FEW: Final = 64 * 1024
"""How many bytes a connection may have by the reserve, which is a quarter of all."""

SIDE_BYTES_MAX: Final = 8 * 1024 * 1024
SIDE_BYTES_PER_CONNECTION_MAX: Final = 256 * 1024
SIDE_BYTES_FEW: Final = 1024
"""The same, of calls of health and reflection."""

SIDE_METHODS: Final = frozenset(each for each in GRPC_REQUIREMENTS if not each.startswith("lockring."))
"""The methods of health and reflection."""


class FairShare:
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
        wanted = taken + size
        most = min(self.each, self.total - self.taken - self._reserved)
        return self.has_free(size) and (wanted <= self._few or wanted <= most)

    def has_free(self, size: int) -> bool:
        """Return whether so much is free at all."""
        return size <= self.total - self.taken


class Taken:
    """The part that one connection has taken.

    Attributes:
        calls: open calls that are not of health and reflection.
        side_calls: those that are.
        held_bytes: bytes of messages that wait, of the former calls.
        side_bytes: those of the latter.
    """

    __slots__ = ("calls", "held_bytes", "side_bytes", "side_calls")

    def __init__(self) -> None:
        self.calls = 0
        self.side_calls = 0
        self.held_bytes = 0
        self.side_bytes = 0


class Shares:
    """The shares of all connections of a node. Not thread-safe."""

    def __init__(self) -> None:
        self._calls = FairShare(CALLS_MAX, CALLS_PER_CONNECTION_MAX, reserved=CALLS_RESERVED, few=FEW_CALLS)
        self._side_calls = FairShare(SIDE_CALLS_MAX, SIDE_CALLS_PER_CONNECTION_MAX)

        self._held = FairShare(
            HELD_BYTES_MAX, HELD_BYTES_PER_CONNECTION_MAX, reserved=HELD_BYTES_MAX // 4, few=HELD_BYTES_FEW
        )
        self._side_held = FairShare(
            SIDE_BYTES_MAX, SIDE_BYTES_PER_CONNECTION_MAX, reserved=SIDE_BYTES_MAX // 4, few=SIDE_BYTES_FEW
        )

    @property
    def held_bytes(self) -> int:
        """Bytes of all messages that wait."""
        return self._held.taken

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

    def hold(self, taken: Taken, path: str, size: int) -> bool:
        """Count bytes of messages that wait.

        Args:
            taken: the part of the connection.
            path: the method of the call.
            size: how many bytes more, fewer if negative.

        Returns:
            Whether there is room for them. They are counted in any case, until the call gives them back.
        """
        if path in SIDE_METHODS:
            has_room = self._side_held.has_room(taken.side_bytes, size) and self._held.has_free(size)
            self._side_held.taken += size
            taken.side_bytes += size
        else:
            has_room = self._held.has_room(taken.held_bytes, size)
            taken.held_bytes += size
        self._held.taken += size
        return has_room or size <= 0
