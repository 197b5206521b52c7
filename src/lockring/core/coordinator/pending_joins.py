"""Joins that wait for the coordinator's term, and the cluster ids that nodes must not keep.

Nothing is decided before the term is in the store, and while it is being claimed again; a join that comes meanwhile
waits. A coordinator that started on an empty store may have chosen an id for its cluster before a node brought the
right one. A node that took such an id holds nothing under it and must begin a new life.
"""

from __future__ import annotations

from collections.abc import Iterable

from lockring.ids import ClusterId, ConnectionId
from lockring.protocol import Join


class PendingJoins:
    """The waiting joins by connection, in the order of their arrival. Not safe for use by several tasks."""

    def __init__(self) -> None:
        self._held: dict[ConnectionId, Join] = {}
        self._former_clusters: list[ClusterId] = []

    def hold(self, connection: ConnectionId, join: Join) -> None:
        """Keep a join until the term is in the store."""
        self._held[connection] = join

    def holds(self, connection: ConnectionId) -> bool:
        """Return whether a join waits on this connection."""
        return connection in self._held

    def join_on(self, connection: ConnectionId) -> Join | None:
        """Return the join that waits on this connection, None if there is none."""
        return self._held.get(connection)

    def connections(self) -> list[ConnectionId]:
        """Return the connections on which joins wait."""
        return list(self._held)

    def drop(self, connection: ConnectionId) -> None:
        """Forget the join of a connection that has ended, if there is one."""
        self._held.pop(connection, None)

    def pop_all(self) -> Iterable[tuple[ConnectionId, Join]]:
        """Remove all waiting joins, and return them with their connections."""
        held, self._held = self._held, {}
        return held.items()

    def give_up_cluster(self, cluster: ClusterId) -> None:
        """Remember an id that this process chose for the cluster before it learned the right one."""
        self._former_clusters.append(cluster)

    def is_given_up(self, cluster: ClusterId) -> bool:
        """Return whether this process has given up this id, so that a node bearing it must begin a new life."""
        return cluster in self._former_clusters
