"""The cluster state on its way to the nodes: a difference to each that has the version before, and all of it else.

Every node is sent every version on its one ordered connection, so a connected node that takes differences has the
version before, or will have it by the time that the next one arrives. Exceptions:

- A node that joins says which version it has. It gets the differences since, if they are still known, or all.
- A node for which one did not fit says so, and gets all at once.
- A node whose heartbeats bear an old version gets all after a moment: a safety net.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lockring.cluster_state import ClusterState, Member
from lockring.core.effects import Broadcast, Effect, Send
from lockring.core.state_history import StateHistory
from lockring.ids import NO_VERSION, ConnectionId, Version
from lockring.protocol import Heartbeat, Message, State
from lockring.units import NS_PER_S

RESEND_NS: Final = 2 * NS_PER_S
"""How long a node's heartbeats may bear an old version before the state is sent again: two of its heartbeats."""


class StateBroadcast:
    """The newest state as nodes get it, and the times at which it was sent. Not safe for use by several tasks."""

    def __init__(self, *, now_ns: int) -> None:
        self._history = StateHistory()
        self._published_at_ns = now_ns
        self._resent_at_ns: dict[ConnectionId, int] = {}

    def whole(self) -> State:
        """Return all of the newest state as a message."""
        return self._history.whole()

    def start_at(self, state: ClusterState) -> None:
        """Begin with the state that the store had: nodes may have it too."""
        self._history.start_at(state)

    def publish(
        self, state: ClusterState, nodes: Iterable[tuple[ConnectionId, Member]], *, now_ns: int
    ) -> list[Effect]:
        """Go on to a state that is in force from now on, and return what sends it to all nodes.

        Args:
            state: the state.
            nodes: the connected nodes, which have been sent the version before.
            now_ns: the monotonic clock, in nanoseconds.
        """
        self._published_at_ns = now_ns
        before = self._history.state.version
        self._history.advance_to(state)
        differences = self._history.differences_since(before)
        following: list[ConnectionId] = []
        others: list[ConnectionId] = []
        for connection, member in nodes:
            (following if member.differences and differences else others).append(connection)
        effects: list[Effect] = [Broadcast(tuple(following), step) for step in differences or () if following]
        return [*effects, Broadcast(tuple(others), self.whole())] if others else effects

    def greet(self, connection: ConnectionId, version: Version) -> list[Effect]:
        """Return what brings a node that joins to the newest state.

        Args:
            connection: its own.
            version: of the state that it has, 0 for none, if it understands differences; else `NO_DIFFERENCES`.
        """
        # One that has no state yet gets one, rather than all that has ever happened in a young cluster.
        differences = self._history.differences_since(version) if version > NO_VERSION else None
        messages: list[Message] = [self.whole()] if differences is None else [*differences]
        return [Send(connection, message) for message in messages]

    def catch_up(self, connection: ConnectionId, heartbeat: Heartbeat, *, now_ns: int) -> list[Effect]:
        """Send the state again, by effects returned, to a node that needs it: one astray at once, a late one later."""
        if heartbeat.version >= self._history.state.version:
            return []
        last_ns = max(self._published_at_ns, self._resent_at_ns.get(connection, self._published_at_ns))
        if not heartbeat.is_astray and now_ns - last_ns < RESEND_NS:
            return []
        self._resent_at_ns[connection] = now_ns
        return [Send(connection, self.whole())]

    def drop(self, connection: ConnectionId) -> None:
        """Forget a connection that has ended."""
        self._resent_at_ns.pop(connection, None)
