"""Who is connected to the coordinator, and what the next state is to say about members because of it.

A node is one connection per life, and one life per id: a newer connection ends the older ones. What joined, and what
is to be drained, is kept until a state that says so is in the store; the operators and nodes that asked for
a drain are answered then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lockring.core.effects import Connection
from lockring.core.membership import Membership
from lockring.errors import LastNode
from lockring.messages import Drain, Refused
from lockring.ring.state import ClusterState, Member, Replica


class Roster:
    """Connections, arrivals and drains. Not safe for use by several tasks.

    Attributes:
        is_stopping: the last node that could serve has asked to leave, so nothing can be moved any more.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self._nodes: dict[Connection, Member] = {}
        self._connections: dict[Replica, Connection] = {}
        self._arrived: dict[str, Member] = {}
        self._drains: dict[Replica, list[tuple[Connection, int]]] = {}
        self._leaving: dict[Replica, None] = {}

    # ----------------------------------------------------------------------- connections

    def node_of(self, connection: Connection) -> Member | None:
        """The node that joined on this connection, as it described itself."""
        return self._nodes.get(connection)

    def is_connected(self, replica: Replica) -> bool:
        """Whether this life has a connection."""
        return replica in self._connections

    def lives(self) -> list[Replica]:
        """All lives that are connected."""
        return list(self._connections)

    def connections(self) -> list[Connection]:
        """All connections of nodes."""
        return list(self._nodes)

    def nodes(self) -> list[tuple[Connection, Member]]:
        """All connections of nodes, each with the node as it described itself."""
        return list(self._nodes.items())

    def connections_of(self, node: str) -> list[Connection]:
        """The connections of all lives of a node."""
        return [each for each, member in self._nodes.items() if member.replica.node == node]

    def connect(self, connection: Connection, node: Member) -> None:
        """A node has joined on this connection; older ones of the same id are gone by now."""
        self._nodes[connection] = node
        self._connections[node.replica] = connection

    def disconnect(self, connection: Connection) -> None:
        """A connection has ended; one on which no node joined is ignored."""
        node = self._nodes.pop(connection, None)
        if node is not None:
            del self._connections[node.replica]

    # ----------------------------------------------------------------------- members

    def arrive(self, node: Member, state: ClusterState) -> None:
        """See to it that the next state knows this node as it describes itself."""
        if not _is_known(node, state):
            self._arrived[node.replica.node] = node

    def newest_life(self, node: str, state: ClusterState) -> Replica | None:
        """The newest life of a node, in the state or on its way there."""
        member = self._arrived.get(node) or state.members.get(node)
        return None if member is None else member.replica

    def ask_drain(
        self,
        sender: Connection,
        drain: Drain,
        state: ClusterState,
        membership: Membership,
        now_ns: int,
    ) -> Refused | None:
        """Mark a node as draining in the next state, and answer the request once that is in force.

        Args:
            sender: who asks: an operator, or the node itself, which may leave even as the last one.
            drain: what it asks.
            state: the present state.
            membership: knows who has failed.
            now_ns: the clock.

        Returns:
            The answer if the drain cannot be.
        """
        life = self.newest_life(drain.node, state)
        if life is None:
            return Refused(
                drain.request, "unknown-node", f"the cluster has no node {drain.node!r}", drain.node
            )
        others = list(self.others(drain.node, state))
        asker = self._nodes.get(sender)
        if asker is not None and asker.replica == life:
            self._leaving[life] = None
            self.is_stopping = self.is_stopping or not others
        elif all(membership.is_failed(other.replica, now_ns=now_ns) for other in others):
            text = (
                f"node {drain.node} is the last one that can serve: draining it would lose its locks;"
                " let another node join first"
            )
            return Refused(drain.request, LastNode.code, text, drain.node)
        self._drains.setdefault(life, []).append((sender, drain.request))
        return None

    def leaving(self) -> frozenset[Replica]:
        """Lives whose slots may be released: those that want to stop, while nobody can take over."""
        return frozenset(self._leaving) if self.is_stopping else frozenset()

    def others(self, node: str, state: ClusterState) -> Iterator[Member]:
        """Members besides this one that are not draining, nor to be drained."""
        for other, member in {**state.members, **self._arrived}.items():
            if other != node and member.condition != "draining" and member.replica not in self._drains:
                yield member

    def next_members(self, state: ClusterState) -> dict[str, Member]:
        """The members as the next state is to have them; the state's own if nothing is new."""
        if not self._arrived and not self._drains:
            return state.members
        members = dict(state.members)
        for node, arrived in self._arrived.items():
            members[node] = _with_condition(arrived, members.get(node))
        for life in self._drains:
            member = members.get(life.node)
            if member is not None and member.replica == life:
                members[life.node] = msgspec.structs.replace(member, condition="draining")
        return state.members if members == state.members else members

    def without_departed(
        self,
        members: dict[str, Member],
        named: Iterable[Replica],
        membership: Membership,
        now_ns: int,
    ) -> dict[str, Member]:
        """The members without those that have left, or are gone for good, and that no slot names in any life.

        Args:
            members: as they are.
            named: the lives that slots name.
            membership: knows who has failed, and forgets those that are dropped here.
            now_ns: the clock.

        Returns:
            The rest; the same object if all stay.
        """
        departed = [node for node, each in members.items() if self._has_departed(each, membership, now_ns)]
        if not departed:
            return members
        lives = [*named, *self._connections]
        nodes = frozenset(replica.node for replica in named)
        kept = {node: each for node, each in members.items() if node in nodes or node not in departed}
        if len(kept) == len(members):
            return members
        membership.forget([*lives, *(member.replica for member in kept.values())])
        return kept

    def _has_departed(self, member: Member, membership: Membership, now_ns: int) -> bool:
        if member.replica.node in self._arrived:
            return False
        if member.replica in self._leaving and member.replica not in self._connections:
            return True
        return (
            membership.is_failed(member.replica, now_ns=now_ns) and member.replica not in membership.settled
        )

    def settle(self, state: ClusterState) -> list[tuple[Connection, int, str]]:
        """A state is in the store: keep what it does not say yet. Returns the drains to answer, as connection, request, node."""
        self._arrived = {
            node: member for node, member in self._arrived.items() if not _is_known(member, state)
        }
        self._leaving = {each: None for each in self._leaving if state.is_current(each)}
        if next(self.others("", state), None) is not None:
            self.is_stopping = False
        answers = []
        for life in list(self._drains):
            member = state.members.get(life.node)
            is_pending = member is not None and member.replica == life and member.condition != "draining"
            if not is_pending and not (member is None and life.node in self._arrived):
                answers += [
                    (connection, request, life.node) for connection, request in self._drains.pop(life)
                ]
        return answers

    def unanswered_drains(self) -> list[tuple[Connection, int]]:
        """Take the drains that were not carried out, as connection, request."""
        unanswered = [each for replies in self._drains.values() for each in replies]
        self._drains.clear()
        return unanswered

    def check_invariants(self) -> None:
        """Assert what must hold after every input.

        Raises:
            AssertionError: a bug.
        """
        assert len(self._connections) == len(self._nodes)
        for connection, node in self._nodes.items():
            assert self._connections.get(node.replica) == connection, node
        ids = [node.replica.node for node in self._nodes.values()]
        assert len(set(ids)) == len(ids), f"two lives of one node are connected: {ids}"


def _is_known(node: Member, state: ClusterState) -> bool:
    known = state.members.get(node.replica.node)
    return _with_condition(node, known) == known


def _with_condition(node: Member, known: Member | None) -> Member:
    """The node as it joined, in the condition that this life of it has."""
    if known is None or known.replica != node.replica:
        return node
    return msgspec.structs.replace(node, condition=known.condition)
