"""The cluster state as it is sent to single nodes: encoded once per version, and again to those that seem to have missed it.

Every node is sent every version on its one ordered connection, so a second sending is a safety net: it ends
whatever left a node behind, after a moment rather than at its next connection.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState, encode_state
from lockring.core.effects import Connection
from lockring.protocol import State
from lockring.units import NS_PER_S

RESEND_NS: Final = 2 * NS_PER_S
"""How long a node's heartbeats may bear an old version before it is sent the state again: two of its heartbeats."""


class StateBroadcast:
    """What was sent when. Not safe for use by several tasks."""

    def __init__(self, *, now_ns: int) -> None:
        self._published_at_ns = now_ns
        self._resent_at_ns: dict[Connection, int] = {}
        self._encoded: tuple[int, State] | None = None

    def message(self, state: ClusterState) -> State:
        """The state as a message."""
        if self._encoded is None or self._encoded[0] != state.version:
            self._encoded = (state.version, State(encode_state(state)))
        return self._encoded[1]

    def published(self, *, now_ns: int) -> None:
        """A new version is being sent to everyone."""
        self._published_at_ns = now_ns

    def resends(self, connection: Connection, *, now_ns: int) -> bool:
        """Whether a node that still has an old version is to be sent the state again; if so, it counts as sent."""
        last_ns = max(self._published_at_ns, self._resent_at_ns.get(connection, self._published_at_ns))
        if now_ns - last_ns < RESEND_NS:
            return False
        self._resent_at_ns[connection] = now_ns
        return True

    def drop(self, connection: Connection) -> None:
        """The connection has ended."""
        self._resent_at_ns.pop(connection, None)
