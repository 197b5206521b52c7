"""The cluster state as it is sent to nodes: encoded once per version, and sent again to nodes that seem to lack it.

Every node is sent every version on its one ordered connection, so sending it again is a safety net: a node
that fell behind catches up after a moment rather than at its next connection.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState, encode_state
from lockring.ids import ConnectionId, Version
from lockring.protocol import State
from lockring.units import NS_PER_S

RESEND_NS: Final = 2 * NS_PER_S
"""How long a node's heartbeats may bear an old version before the state is sent again: two of its heartbeats."""


class StateBroadcast:
    """The encoded state, and the times at which it was sent. Not safe for use by several tasks."""

    def __init__(self, *, now_ns: int) -> None:
        self._published_at_ns = now_ns
        self._resent_at_ns: dict[ConnectionId, int] = {}
        self._encoded: tuple[Version, State] | None = None

    def message(self, state: ClusterState) -> State:
        """Return the state as a message, encoded once per version."""
        if self._encoded is None or self._encoded[0] != state.version:
            self._encoded = (state.version, State(encode_state(state)))
        return self._encoded[1]

    def published(self, *, now_ns: int) -> None:
        """Note that a new version is being sent to every node."""
        self._published_at_ns = now_ns

    def is_resend_due(self, connection: ConnectionId, *, now_ns: int) -> bool:
        """Return whether a node that still has an old version should get the state again."""
        last_ns = max(self._published_at_ns, self._resent_at_ns.get(connection, self._published_at_ns))
        return now_ns - last_ns >= RESEND_NS

    def resent(self, connection: ConnectionId, *, now_ns: int) -> None:
        """Note that the state is being sent to a node again."""
        self._resent_at_ns[connection] = now_ns

    def drop(self, connection: ConnectionId) -> None:
        """Forget a connection that has ended."""
        self._resent_at_ns.pop(connection, None)
