"""Who is connected to the coordinator, and what the next state is to say about members because of it.

A node is one connection per life, and one life per id: a newer connection ends the older ones. What joined, and which
node is to be drained or to have slots again, is kept until a state that says so is in the store; the operators and nodes
that asked are answered then.

Two kinds of request must not be taken for each other. A *node* may leave, also as the last one: that is about the life
that sends it. An *operator's* drain names a node, and is judged the same whether the operator's own connection
brought it or that of a node which passed it on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lockring.cluster_state import ClusterState, Member, Replica
from lockring.core.coordinator.joins import PendingJoins
from lockring.core.coordinator.membership import MemberLeases
from lockring.core.effects import Connection
from lockring.errors import LastNode, NodeLeaving, Unavailable, UnknownNode
from lockring.ids import NO_NODE, NodeId, RequestNumber
from lockring.protocol import Drain, DrainReply, Leave, Refusal, Undrain, UndrainReply

Answer = DrainReply | UndrainReply


class _MemberChange(msgspec.Struct):
    """What a node is to be, and the answers that are due once the state says so."""

    draining: bool
    answers: list[tuple[Connection, Answer]] = []


class Roster:
    """Connections, arrivals and drains. Not safe for use by several tasks.

    Attributes:
        is_stopping: nodes have asked to leave and no other is there, so nothing can be moved any more.
        stranded: ids of nodes that operators have drained, where no other is there to take their slots.
        pending: joins that wait for the coordinator's term.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.stranded: tuple[str, ...] = ()
        self.pending = PendingJoins()
        self._nodes: dict[Connection, Member] = {}
        self._connections: dict[Replica, Connection] = {}
        self._arrived: dict[str, Member] = {}
        self._wishes: dict[Replica, _MemberChange] = {}
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

    def connections_of(self, node: NodeId) -> list[Connection]:
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

    def newest_life(self, node: NodeId, state: ClusterState) -> Replica | None:
        """The newest life of a node, in the state or on its way there."""
        member = self._arrived.get(node) or state.members.get(node)
        return None if member is None else member.replica

    def ask(
        self,
        sender: Connection,
        order: Leave | Drain | Undrain,
        state: ClusterState,
        membership: MemberLeases,
        now_ns: int,
    ) -> Refusal | None:
        """Let the next state say that a node is draining, or is not any more, and answer once it is in force.

        Args:
            sender: the connection that brought the request; for a `Leave`, the node's own.
            order: what is asked.
            state: the present state.
            membership: knows who has failed.
            now_ns: the clock.

        Returns:
            The answer if it cannot be.
        """
        if isinstance(order, Leave):
            asker = self._nodes.get(sender)
            if asker is None:
                return Refusal(order.request, "protocol", "a node joins before it leaves")
            self._leaving[asker.replica] = None
            self._wish(asker.replica, True, sender, DrainReply(order.request, asker.replica.node))
            return None
        life = self.newest_life(order.node, state)
        if life is None:
            text = f"the cluster has no node {order.node!r}"
            return Refusal(order.request, UnknownNode.code, text, order.node)
        if isinstance(order, Undrain):
            refusal = self._why_not_undrain(life, state, membership)
            answer: Answer = UndrainReply(order.request, order.node)
        else:
            refusal = self._why_not_drain(order.node, state, membership, now_ns)
            answer = DrainReply(order.request, order.node)
        if refusal is not None:
            return Refusal(order.request, *refusal, order.node)
        self._wish(life, isinstance(order, Drain), sender, answer)
        return None

    def _wish(self, life: Replica, draining: bool, sender: Connection, answer: Answer) -> None:
        wish = self._wishes.setdefault(life, _MemberChange(draining))
        wish.draining = draining
        wish.answers.append((sender, answer))

    def _why_not_drain(
        self, node: NodeId, state: ClusterState, membership: MemberLeases, now_ns: int
    ) -> tuple[str, str] | None:
        """Code and text against an operator's drain of a node."""
        others = [each.replica for each in self.others(node, state)]
        alive = [each for each in others if not membership.is_failed(each, now_ns=now_ns)]
        if not alive:
            return LastNode.code, self._last_one(node, [each.node for each in others], state)
        if not any(map(self.is_connected, alive)):
            names = ", ".join(sorted(each.node for each in alive))
            return Unavailable.code, (
                f"node {node} is not drained now, since no other node is connected to the coordinator ({names} was"
                " lately); try again in some seconds"
            )
        return None

    def _last_one(self, node: NodeId, failed: list[str], state: ClusterState) -> str:
        drained = sorted({*state.members, *self._arrived} - {node, *failed})
        why = [f"{', '.join(sorted(failed))} failed"] if failed else []
        advice = "let another node join first"
        if drained:
            why.append(f"{' and '.join(drained)} {'is' if len(drained) == 1 else 'are'} draining")
            advice += f", or make one active again: lockring undrain {drained[0]}"
        because = f" ({'; '.join(why)})" if why else ""
        life = self.newest_life(node, state)
        if life is None or not self.is_connected(life):
            return f"node {node} has failed, and no other node could take its slots{because}; {advice}"
        return (
            f"node {node} is the last one that can serve{because}: draining it would lose its locks; {advice}"
        )

    def _why_not_undrain(
        self, life: Replica, state: ClusterState, membership: MemberLeases
    ) -> tuple[str, str] | None:
        """Code and text against an operator's wish that a node has slots again."""
        if life in self._leaving:
            return NodeLeaving.code, (
                f"node {life.node} was told to stop and leaves by itself: it cannot be made active again;"
                " start it again once it has ended"
            )
        member = state.members.get(life.node)
        if member is not None and self._is_to_drain(member) and not membership.was_heard(life):
            return Unavailable.code, (
                f"node {life.node} has not been in touch since the coordinator started, so it may be about to"
                " leave; try again, or start it if it has ended"
            )
        return None

    def leaving(self, state: ClusterState, membership: MemberLeases, now_ns: int) -> frozenset[Replica]:
        """Lives whose slots may be released: those that want to stop, while no other is there to take over.

        One that has failed is waited for until the ring does without it: it may be back.
        """
        is_last = not any(
            membership.is_expected(other.replica, now_ns=now_ns) for other in self.others(NO_NODE, state)
        )
        self.is_stopping = bool(self._leaving) and is_last
        self.stranded = tuple(
            sorted(
                node
                for node, member in state.members.items()
                if is_last
                and member.replica in self._connections
                and member.replica not in self._leaving
                and self._is_to_drain(member)
            )
        )
        return frozenset(self._leaving) if self.is_stopping else frozenset()

    def others(self, node: NodeId, state: ClusterState) -> Iterator[Member]:
        """Members besides this one that are not draining, nor to be drained."""
        for other, member in {**state.members, **self._arrived}.items():
            if other != node and not self._is_to_drain(member):
                yield member

    def _is_to_drain(self, member: Member) -> bool:
        wish = self._wishes.get(member.replica)
        return member.condition == "draining" if wish is None else wish.draining

    def next_members(self, state: ClusterState) -> dict[str, Member]:
        """The members as the next state is to have them; the state's own if nothing is new."""
        if not self._arrived and not self._wishes:
            return state.members
        members = dict(state.members)
        for node, arrived in self._arrived.items():
            members[node] = _with_condition(arrived, members.get(node))
        for life, wish in self._wishes.items():
            member = members.get(life.node)
            if member is None or member.replica != life:
                continue
            if wish.draining:
                members[life.node] = msgspec.structs.replace(member, condition="draining")
            elif member.condition == "draining":
                # It is active once a slot is on it: it may have lost all of them.
                members[life.node] = msgspec.structs.replace(member, condition="joining")
        return state.members if members == state.members else members

    def without_departed(
        self,
        members: dict[str, Member],
        named: Iterable[Replica],
        membership: MemberLeases,
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

    def _has_departed(self, member: Member, membership: MemberLeases, now_ns: int) -> bool:
        if member.replica.node in self._arrived:
            return False
        if member.replica in self._leaving and member.replica not in self._connections:
            return True
        return (
            membership.is_failed(member.replica, now_ns=now_ns) and member.replica not in membership.settled
        )

    def settle(self, state: ClusterState) -> list[tuple[Connection, Answer]]:
        """A state is in the store: keep what it does not say yet. Returns the answers that are due."""
        self._arrived = {
            node: member for node, member in self._arrived.items() if not _is_known(member, state)
        }
        self._leaving = {each: None for each in self._leaving if each == self.newest_life(each.node, state)}
        answers: list[tuple[Connection, Answer]] = []
        for life, wish in list(self._wishes.items()):
            member = state.members.get(life.node)
            if member is None:
                is_pending = life.node in self._arrived
            else:
                is_pending = member.replica == life and (member.condition == "draining") != wish.draining
            if not is_pending:
                answers += self._wishes.pop(life).answers
        return answers

    def unanswered(self) -> list[tuple[Connection, RequestNumber]]:
        """Take the requests that were not carried out, as connection, request."""
        unanswered = [
            (connection, answer.request)
            for wish in self._wishes.values()
            for connection, answer in wish.answers
        ]
        self._wishes.clear()
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
