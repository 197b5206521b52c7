"""The sessions of a client: one for each TTL, since a session is renewed as a whole."""

from __future__ import annotations

from collections.abc import Callable

from lockring.core.client.links import Node
from lockring.core.client.tickets import ClientSession, NodeShare


class ClientSessions:
    """All sessions of one client.

    Attributes:
        by_ttl_ms: the session for each TTL.
        by_id: the same by their ids.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self.by_ttl_ms: dict[int, ClientSession] = {}
        self.by_id: dict[str, ClientSession] = {}
        self._new_id = new_id

    def open(self, ttl_ms: int) -> ClientSession:
        """Open the session for a TTL."""
        session = ClientSession(self._new_id(), ttl_ms)
        self.by_ttl_ms[ttl_ms] = self.by_id[session.id] = session
        return session

    def ensure_share(self, session: ClientSession, node: Node | None) -> NodeShare:
        """Add a session's share at a node, or of what it holds without one, if there is none; return it."""
        replica = node.replica if node is not None else None
        share = session.shares.get(replica)
        if share is None:
            share = session.shares[replica] = NodeShare(session, replica)
            if node is not None:
                node.shares[session] = share
        return share

    def shares(self) -> list[NodeShare]:
        """Return all shares of all sessions."""
        return [share for session in self.by_id.values() for share in session.shares.values()]

    def has_tickets(self) -> bool:
        """Return whether anything is held, or waits at a node."""
        return any(share.tickets for share in self.shares())

    def has_homeless(self) -> bool:
        """Return whether a ticket is held in a slot that has no primary at present."""
        return any(None in session.shares and session.shares[None].tickets for session in self.by_id.values())
