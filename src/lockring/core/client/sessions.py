"""The sessions of a client.

A session is renewed as a whole, so there is one for each TTL; or, if the program wants it, one for each acquisition.
Then an acquisition ends with its session, and no other one is lost if it is not renewed: that is how a server acts for
clients that share nothing but the server.

An acquisition on behalf of a program is that program's, and so is its session: the client knows the session while the
program waits, and forgets it with the grant. The program may call twice, so two sessions here may have one id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from lockring.cluster_state import Replica
from lockring.core.client.links import Node
from lockring.core.client.tickets import ClientSession, NodeShare, OnBehalf
from lockring.ids import SessionId


class ClientSessions:
    """All sessions of one client.

    Attributes:
        by_ttl_ms: the session for each TTL; empty if each acquisition has its own.
        by_id: the client's own sessions by their ids.
        on_behalf: the sessions on behalf of programs, in the order in which they came.
        shortest_ttl_ms: the shortest TTL that was ever asked for, 0 before the first.
        per_acquisition: whether each acquisition has its own session.
    """

    def __init__(self, new_id: Callable[[], str], *, per_acquisition: bool = False) -> None:
        self.by_ttl_ms: dict[int, ClientSession] = {}
        self.by_id: dict[SessionId, ClientSession] = {}
        self.on_behalf: dict[ClientSession, None] = {}
        self.shortest_ttl_ms = 0
        self.per_acquisition = per_acquisition
        self._new_id = new_id

    def open(self, ttl_ms: int, on_behalf: OnBehalf | None = None) -> ClientSession:
        """Open a session, which later acquisitions with its TTL share unless each has its own."""
        if on_behalf is not None:
            assert self.per_acquisition
            session = ClientSession(on_behalf.session, ttl_ms, on_behalf=on_behalf)
            self.on_behalf[session] = None
        else:
            session = ClientSession(SessionId(self._new_id()), ttl_ms)
            self.by_id[session.id] = session
        if not self.per_acquisition:
            self.by_ttl_ms[ttl_ms] = session
        self.shortest_ttl_ms = min(self.shortest_ttl_ms or ttl_ms, ttl_ms)
        return session

    def retire(self, session: ClientSession, nodes: Mapping[Replica, Node]) -> None:
        """Forget the session of an acquisition that no node knows any more.

        Args:
            session: it belongs to that acquisition alone.
            nodes: all nodes at which it may have a share.
        """
        if session.on_behalf is None:
            self.by_id.pop(session.id, None)
        else:
            self.on_behalf.pop(session, None)
        for replica in session.shares:
            if replica is not None:
                del nodes[replica].shares[session]
        session.shares.clear()

    def ensure_share(self, session: ClientSession, node: Node | None) -> NodeShare:
        """Add a session's share at a node, or of what it holds without one, if there is none; return it."""
        replica = node.replica if node is not None else None
        share = session.shares.get(replica)
        if share is None:
            share = session.shares[replica] = NodeShare(session, replica)
            if node is not None:
                node.shares[session] = share
        return share

    def all(self) -> list[ClientSession]:
        """Return all sessions."""
        return [*self.by_id.values(), *self.on_behalf]

    def shares(self) -> list[NodeShare]:
        """Return all shares of all sessions."""
        sessions = (*self.by_id.values(), *self.on_behalf)
        return [share for session in sessions for share in session.shares.values()]

    def has_tickets(self) -> bool:
        """Return whether anything is held, or waits at a node."""
        return any(share.tickets for share in self.shares())

    def has_homeless(self) -> bool:
        """Return whether a ticket is held in a slot that has no primary at present."""
        return any(None in session.shares and session.shares[None].tickets for session in self.all())
