"""The newest cluster state with the last differences to it: what a receiver needs that has an older version.

The coordinator makes them. Nodes take them, and pass them on to peers that the coordinator does not reach. Rules:

- A difference is kept as the message that it is, made once for all receivers. So is the whole state.
- Only the last ones are kept. For a receiver whose version is none of theirs, there is the whole state.
- One that came from elsewhere is taken only if it leads from the present version, and leads where it says.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from lockring.cluster_state import ClusterState, encode_state
from lockring.core.state_differences import LaterState, apply_difference, content_of, difference_of
from lockring.ids import Version
from lockring.protocol import State, StateDifference

DIFFERENCES_MAX: Final = 64
"""Differences that are kept: those of some minutes without much movement."""

DIFFERENCE_BYTES_MAX: Final = 256 * 1024
"""Size of all differences that are kept. More would not be shorter than a whole state."""


class StateHistory:
    """The newest state and the last differences to it. Not safe for use by several tasks.

    Attributes:
        state: the newest state.
    """

    def __init__(self) -> None:
        self.state = ClusterState()
        self._content: int | None = None
        self._differences: deque[StateDifference] = deque()
        self._bytes = 0
        self._whole: State | None = None

    def advance_to(self, state: ClusterState) -> None:
        """Go on to a state that this process has made, or learned of as a whole."""
        made = difference_of(self.state, state, self.content())
        self._keep(made.message)
        self.state, self._content, self._whole = state, made.content, None

    def start_at(self, state: ClusterState) -> None:
        """Begin at a state, with no differences to it."""
        self._differences.clear()
        self._bytes = 0
        self.state, self._content, self._whole = state, None, None

    def applied(self, step: StateDifference) -> LaterState:
        """Return where a step leads that came from elsewhere.

        Raises:
            ProtocolError: it leads from another version, or is damaged.
        """
        return apply_difference(self.state, self.content(), step)

    def take(self, step: StateDifference, applied: LaterState) -> None:
        """Go on by a step, to where `applied` has shown that it leads."""
        self._keep(step)
        self.state, self._content, self._whole = applied.state, applied.content, None

    def differences_since(self, version: Version) -> list[StateDifference] | None:
        """Return the differences from a version to the newest, in order; None if they are not known."""
        if version == self.state.version:
            return []
        differences = list(self._differences)
        for place, step in enumerate(differences):
            if step.base == version:
                return differences[place:]
        return None

    def whole(self) -> State:
        """Return the newest state as a message; it is encoded once."""
        if self._whole is None:
            self._whole = State(encode_state(self.state))
        return self._whole

    def content(self) -> int:
        """Return the digest of the newest state's content; it is computed once after a whole state."""
        if self._content is None:
            self._content = content_of(self.state)
        return self._content

    def _keep(self, step: StateDifference) -> None:
        self._differences.append(step)
        self._bytes += len(step.change)
        while self._differences and (
            len(self._differences) > DIFFERENCES_MAX or self._bytes > DIFFERENCE_BYTES_MAX
        ):
            self._bytes -= len(self._differences.popleft().change)
