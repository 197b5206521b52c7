"""The nodes connected to the coordinator, and the changes of members that the next state must contain.

A node has one connection per life, and one life per id: a newer connection ends the older ones. Joins, drains and
undrains are kept until a state that contains them is in the store; then the operators and nodes that requested them
are answered.

Two kinds of request must not be confused. A *node* may leave, even as the last one: that is about the life that sends
the request. An *operator's* drain names a node, and is judged the same whether the operator's own connection
brought it or that of a node which passed it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from lockring.cluster_state import ClusterState, Member, Replica
from lockring.core.coordinator.heirs import Heirs
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.pending_joins import PendingJoins
from lockring.errors import LastNode, NodeLeaving, Unavailable, UnknownNode
from lockring.ids import NO_NODE, ConnectionId, Incarnation, NodeId, RequestNumber
from lockring.protocol import NO_DIFFERENCES, Drain, DrainReply, Join, Leave, Refusal, Undrain, UndrainReply

Answer = DrainReply | UndrainReply


class _MemberChange(msgspec.Struct):
    """A node's requested condition, and the answers that are due once the state has it."""

    draining: bool
    answers: list[tuple[ConnectionId, Answer]] = []


class Roster:
    """Connections, arrivals and drains. Not safe for use by several tasks.

    Attributes:
        is_stopping: nodes have asked to leave and no other node is left, so no slot can be moved any more.
        stranded: ids of nodes that operators have drained while no other node is left to take their slots.
        pending: joins that wait for the coordinator's term.
        heirs: connected lives that go on with what former lives of their nodes held.
    """

    def __init__(self) -> None:
        self.is_stopping = False
        self.stranded: tuple[NodeId, ...] = ()
        self.pending = PendingJoins()
        self.heirs = Heirs()
        self._nodes: dict[ConnectionId, Member] = {}
        self._connections: dict[Replica, ConnectionId] = {}
        self._arrived: dict[NodeId, Member] = {}
        self._changes: dict[Replica, _MemberChange] = {}
        self._leaving: dict[Replica, bool] = {}

    # ----------------------------------------------------------------------- connections

    def node_of(self, connection: ConnectionId) -> Member | None:
        """Return the node that joined on this connection, as it described itself."""
        return self._nodes.get(connection)

    def claimed_by(self, connection: ConnectionId) -> NodeId | None:
        """Return the id of the node that has joined on this connection, or waits to; None if none has."""
        node, waiting = self._nodes.get(connection), self.pending.join_on(connection)
        if node is not None:
            return node.replica.node
        return None if waiting is None else waiting.node

    def is_connected(self, replica: Replica) -> bool:
        """Return whether this life has a connection."""
        return replica in self._connections

    @property
    def count(self) -> int:
        """Number of connected nodes."""
        return len(self._nodes)

    def lives(self) -> list[Replica]:
        """Return all lives that are connected."""
        return list(self._connections)

    def connections(self) -> list[ConnectionId]:
        """Return all connections of nodes."""
        return list(self._nodes)

    def nodes(self) -> list[tuple[ConnectionId, Member]]:
        """Return all connections of nodes, each with the node as it described itself."""
        return list(self._nodes.items())

    def connections_of(self, node: NodeId) -> list[ConnectionId]:
        """Return the connections of all lives of a node."""
        return [each for each, member in self._nodes.items() if member.replica.node == node]

    def connect(self, connection: ConnectionId, node: Member, former: Iterable[Incarnation] = ()) -> None:
        """Add a node that has joined on this connection; older connections of its id are gone already.

        Args:
            connection: its own.
            node: as it describes itself.
            former: the lives of the node for which this one vouches.
        """
        self._nodes[connection] = node
        self._connections[node.replica] = connection
        self.heirs.add(node.replica, former)

    def disconnect(self, connection: ConnectionId) -> None:
        """Forget a connection that has ended; one on which no node joined is ignored."""
        node = self._nodes.pop(connection, None)
        if node is not None:
            del self._connections[node.replica]
            self.heirs.drop(node.replica)

    # ----------------------------------------------------------------------- members

    def arrive(self, node: Member, state: ClusterState) -> None:
        """Make the next state know this node as it describes itself."""
        if not _is_known(node, state):
            self._arrived[node.replica.node] = node

    def newest_life(self, node: NodeId, state: ClusterState) -> Replica | None:
        """Return the newest life of a node, in the state or about to be."""
        member = self._arrived.get(node) or state.members.get(node)
        return None if member is None else member.replica

    def ask(
        self,
        sender: ConnectionId,
        order: Leave | Drain | Undrain,
        state: ClusterState,
        membership: MemberLeases,
        now_ns: int,
    ) -> Refusal | None:
        """Make a node drain, or stop draining, with the next state, and answer once that is in force.

        Args:
            sender: the connection that brought the request; for a `Leave`, the node's own.
            order: the request.
            state: the present state.
            membership: knows which lives have failed.
            now_ns: the clock.

        Returns:
            The refusal if the request cannot be granted.
        """
        if isinstance(order, Leave):
            asker = self._nodes.get(sender)
            # Never refused to a member: a node that leaves stops in any case, so it should hand over what it can.
            if asker is None:
                return Refusal(order.request, "protocol", "a node joins before it leaves")
            self._leaving[asker.replica] = order.keeps
            self._request(asker.replica, True, sender, DrainReply(order.request, asker.replica.node))
            return None
        life = self.newest_life(order.node, state)
        if life is None:
            text = f"the cluster has no node {order.node!r}"
            return Refusal(order.request, UnknownNode.code, text, order.node)
        if isinstance(order, Undrain):
            refusal = self._undrain_problem(life, state, membership)
            answer: Answer = UndrainReply(order.request, order.node)
        else:
            refusal = self._drain_problem(order.node, state, membership, now_ns)
            answer = DrainReply(order.request, order.node)
        if refusal is not None:
            return Refusal(order.request, *refusal, order.node)
        self._request(life, isinstance(order, Drain), sender, answer)
        return None

    def _request(self, life: Replica, draining: bool, sender: ConnectionId, answer: Answer) -> None:
        change = self._changes.setdefault(life, _MemberChange(draining))
        change.draining = draining
        change.answers.append((sender, answer))

    def _drain_problem(
        self, node: NodeId, state: ClusterState, membership: MemberLeases, now_ns: int
    ) -> tuple[str, str] | None:
        """Return code and text of the refusal of an operator's drain, None if it may be granted."""
        alive, failed = self._others_by_life(node, state, membership, now_ns)
        if not alive:
            return LastNode.code, self._last_one(node, failed, state)
        if not any(map(self.is_connected, alive)):
            names = ", ".join(sorted(each.node for each in alive))
            return Unavailable.code, (
                f"node {node} is not drained now, since no other node is connected to the coordinator ({names} was"
                " lately); try again in a few seconds"
            )
        return None

    def refuse_overtaken_drains(
        self, state: ClusterState, membership: MemberLeases, now_ns: int
    ) -> list[tuple[ConnectionId, Refusal]]:
        """Drop the operators' drains that would now leave no node, and return what to answer.

        When such a drain was granted there was another node, but that one has left, or failed, before the state had the
        drain in it.
        """
        refused: list[tuple[ConnectionId, Refusal]] = []
        for life, change in list(self._changes.items()):
            member = state.members.get(life.node)
            is_in_force = member is not None and member.replica == life and member.condition == "draining"
            if not change.draining or is_in_force or life in self._leaving:
                continue
            alive, failed = self._others_by_life(life.node, state, membership, now_ns)
            if not alive:
                text = self._last_one(life.node, failed, state)
                refused += [
                    (connection, Refusal(answer.request, LastNode.code, text, life.node))
                    for connection, answer in self._changes.pop(life).answers
                ]
        return refused

    def _others_by_life(
        self, node: NodeId, state: ClusterState, membership: MemberLeases, now_ns: int
    ) -> tuple[list[Replica], list[NodeId]]:
        """Return the other members that could take a node's slots: those alive, and the ids of those that failed."""
        others = [each.replica for each in self.others(node, state)]
        alive = [each for each in others if not membership.is_failed(each, now_ns=now_ns)]
        return alive, [each.node for each in others if each not in alive]

    def _last_one(self, node: NodeId, failed: list[NodeId], state: ClusterState) -> str:
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

    def _undrain_problem(
        self, life: Replica, state: ClusterState, membership: MemberLeases
    ) -> tuple[str, str] | None:
        """Return code and text of the refusal of an operator's undrain, None if it may be granted."""
        if life in self._leaving:
            return NodeLeaving.code, (
                f"node {life.node} has been asked to stop and leaves by itself: it cannot be made active again;"
                " start it again once it has ended"
            )
        member = state.members.get(life.node)
        if member is not None and self._will_drain(member) and not membership.was_heard(life):
            return Unavailable.code, (
                f"node {life.node} has not been in touch since the coordinator started, so it may be about to"
                " leave; try again, or start it if it has ended"
            )
        return None

    def released(self) -> frozenset[Replica]:
        """Return the lives whose slots may be released: the leaving ones, while no other member could take over.

        Not those that keep their slots in a journal: the next lives of their nodes can go on with them.
        """
        if not self.is_stopping:
            return frozenset()
        return frozenset([life for life, keeps in self._leaving.items() if not keeps])

    def keepers(self) -> list[NodeId]:
        """Return the ids of the nodes that leave, or have left, and keep what they have in their journals."""
        return sorted(life.node for life, keeps in self._leaving.items() if keeps)

    def judge_drains(self, state: ClusterState, membership: MemberLeases, now_ns: int) -> None:
        """Update `is_stopping` and `stranded` by whether any other member could take over.

        A member that has failed counts as able to until the ring does without it: it may return.
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
                and self._will_drain(member)
            )
        )

    def others(self, node: NodeId, state: ClusterState) -> Iterator[Member]:
        """Yield the members besides this one that neither drain nor will with the next state."""
        for other, member in {**state.members, **self._arrived}.items():
            if other != node and not self._will_drain(member):
                yield member

    def _will_drain(self, member: Member) -> bool:
        change = self._changes.get(member.replica)
        return member.condition == "draining" if change is None else change.draining

    @property
    def has_arrivals(self) -> bool:
        """Whether nodes wait for the next state to know them as they describe themselves."""
        return bool(self._arrived)

    @property
    def has_changes(self) -> bool:
        """Whether the next state has other members, or answers are due, or nodes leave."""
        return bool(self._arrived or self._changes or self._leaving)

    def has_newcomers_alone(self, state: ClusterState) -> bool:
        """Return whether the members of the next state differ from the present ones by ids that are new to it alone."""
        return not self._changes and not any(node in state.members for node in self._arrived)

    def next_members(self, state: ClusterState) -> dict[NodeId, Member]:
        """Return the members of the next state; the present state's own if nothing has changed."""
        if not self._arrived and not self._changes:
            return state.members
        members = dict(state.members)
        for node, arrived in self._arrived.items():
            members[node] = _with_condition(arrived, members.get(node))
        for life, change in self._changes.items():
            member = members.get(life.node)
            if member is None or member.replica != life:
                continue
            if change.draining:
                members[life.node] = msgspec.structs.replace(member, condition="draining")
            elif member.condition == "draining":
                # It is active once a slot is on it: it may have lost all of them.
                members[life.node] = msgspec.structs.replace(member, condition="joining")
        return state.members if members == state.members else members

    def without_departed(
        self,
        members: dict[NodeId, Member],
        lives_named: Callable[[], Iterable[Replica]],
        membership: MemberLeases,
        now_ns: int,
    ) -> dict[NodeId, Member]:
        """Return the members without those that have left, or are gone for good, and that no slot names in any life.

        Args:
            members: as they are.
            lives_named: returns the lives that slots name; called only if that matters.
            membership: knows which lives have failed, and forgets those that are dropped here.
            now_ns: the clock.

        Returns:
            The rest; the same object if all stay.
        """
        departed = [node for node, each in members.items() if self._has_departed(each, membership, now_ns)]
        if not departed:
            return members
        named = list(lives_named())
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

    def settle(self, state: ClusterState) -> list[tuple[ConnectionId, Answer]]:
        """Drop the changes that a stored state contains or has made void, and return the answers that are due."""
        self._arrived = {
            node: member for node, member in self._arrived.items() if not _is_known(member, state)
        }
        self._leaving = {
            life: keeps for life, keeps in self._leaving.items() if life == self.newest_life(life.node, state)
        }
        answers: list[tuple[ConnectionId, Answer]] = []
        for life, change in list(self._changes.items()):
            member = state.members.get(life.node)
            if member is None:
                is_pending = life.node in self._arrived
            else:
                is_pending = member.replica == life and (member.condition == "draining") != change.draining
            if not is_pending:
                answers += self._changes.pop(life).answers
        return answers

    def take_unanswered(self) -> list[tuple[ConnectionId, RequestNumber]]:
        """Remove the requests that were not carried out, and return them as connection, request."""
        unanswered = [
            (connection, answer.request)
            for change in self._changes.values()
            for connection, answer in change.answers
        ]
        self._changes.clear()
        return unanswered

    def check_invariants(self) -> None:
        """Assert the invariants, which hold after every input.

        Raises:
            AssertionError: a bug.
        """
        assert len(self._connections) == len(self._nodes)
        for connection, node in self._nodes.items():
            assert self._connections.get(node.replica) == connection, node
        assert all(heir in self._connections for heir in self.heirs.lives())
        ids = [node.replica.node for node in self._nodes.values()]
        assert len(set(ids)) == len(ids), f"two lives of one node are connected: {ids}"


def described(join: Join) -> Member:
    """Return the node that joins, as it describes itself."""
    return Member(
        Replica(join.node, join.incarnation),
        join.address,
        join.weight,
        grpc=join.grpc,
        differences=join.has != NO_DIFFERENCES,
    )


def _is_known(node: Member, state: ClusterState) -> bool:
    known = state.members.get(node.replica.node)
    return _with_condition(node, known) == known


def _with_condition(node: Member, known: Member | None) -> Member:
    """Return the node as it joined, in the condition that the state knows this life in."""
    if known is None or known.replica != node.replica:
        return node
    return msgspec.structs.replace(node, condition=known.condition)
