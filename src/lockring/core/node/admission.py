"""Which connections a node admits, as what, and which messages it takes on them.

Rules:

- A connection begins with a hello. A client's names its cluster if it knows one; a peer's names the cluster, its own
  life and the life that it means. What does not fit is refused with the reason, and its connection ends.
- A client keeps the first cluster id that it hears. One that was welcomed before this node had joined heard none, and
  could not tell another cluster under the same address from its own: once the node has joined, that client has to come
  back and hear the id.
- A peer's new connection replaces an older one of the same life: the older one is dead, and only its end has not been
  noticed here yet.
- A peer sends what primaries send on this connection; everything else there is a mistake.
- A peer is the node that it claims to be: its certificate makes it that one, where the shell asks nodes for proof.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import Replica
from lockring.core.access import Grantee, Newcomer, NodeProof
from lockring.core.effects import Admit, Refuse
from lockring.core.node.context import NodeContext
from lockring.core.refusals import refusal_of
from lockring.errors import (
    Denied,
    LockringError,
    ProtocolError,
    StaleVersion,
    Unavailable,
    WrongCluster,
    WrongRole,
)
from lockring.ids import NO_REQUEST, ClusterId, ConnectionId
from lockring.names import check_node_id
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    HandOver,
    Heartbeat,
    Join,
    Message,
    PeerHello,
    Refusal,
    Replicate,
    SlotRequests,
    State,
    StateDifference,
    Welcome,
)

FROM_PEER: Final = frozenset({Replicate, HandOver, State, StateDifference})
"""The messages that a peer may send on the connection that it opened."""


class AdmittedClient(NamedTuple):
    """A client that was welcomed: its hello, and its rights, None at a server that checks none."""

    hello: ClientHello
    access: Grantee | None


class Admission:
    """The accepted connections that are not clients': strangers, and peers.

    Attributes:
        peers: those that were admitted, by connection.
    """

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._strangers: dict[ConnectionId, Newcomer] = {}
        self._welcomed_without_id: dict[ConnectionId, None] = {}
        self.peers: dict[ConnectionId, Replica] = {}
        self._connection_of: dict[Replica, ConnectionId] = {}

    def connected(self, connection: ConnectionId, newcomer: Newcomer) -> None:
        """Await a hello on an accepted connection."""
        self._strangers[connection] = newcomer

    def disconnected(self, connection: ConnectionId) -> None:
        """Forget a connection that has ended."""
        self._strangers.pop(connection, None)
        self._welcomed_without_id.pop(connection, None)
        peer = self.peers.pop(connection, None)
        if peer is not None and self._connection_of.get(peer) == connection:
            del self._connection_of[peer]

    def pop_welcomed_without_id(self) -> list[ConnectionId]:
        """Forget the clients that were welcomed before the node had joined a cluster, and return their connections."""
        connections, self._welcomed_without_id = list(self._welcomed_without_id), {}
        return connections

    def refuse_message(self, connection: ConnectionId, message: Message) -> None:
        """Refuse a peer that sends any other message than those of `FROM_PEER`."""
        self.disconnected(connection)
        text = f"a node does not accept {type(message).__name__} from another node"
        self._context.outbox.add(Refuse(connection, Refusal(NO_REQUEST, ProtocolError.code, text)))

    def greet(self, connection: ConnectionId, hello: Message) -> AdmittedClient | None:
        """Admit or refuse a connection by its first message.

        Returns:
            A client that was admitted; None for a peer, and for what was refused or is not greeting.
        """
        newcomer = self._strangers.pop(connection, None)
        if newcomer is None:
            return None
        outbox = self._context.outbox
        try:
            match hello:
                case ClientHello():
                    self._check_client(hello)
                    if not self._context.state.cluster:
                        self._welcomed_without_id[connection] = None
                    outbox.add(Admit(connection, is_member=False, welcome=self._welcome()))
                    return AdmittedClient(hello, newcomer.access)
                case PeerHello():
                    self._check_peer(hello, newcomer.proof)
                    self._admit_peer(connection, Replica(hello.node, hello.incarnation))
                case Join() | Heartbeat() | SlotRequests():
                    raise self._not_a_coordinator()
                case _:
                    raise ProtocolError(f"a connection begins with a hello, not with {type(hello).__name__}")
        except LockringError as error:
            outbox.add(Refuse(connection, refusal_of(error)))
        return None

    def _admit_peer(self, connection: ConnectionId, peer: Replica) -> None:
        outbox = self._context.outbox
        older = self._connection_of.get(peer)
        if older is not None:
            self.disconnected(older)
            outbox.close(older, f"{peer.node} has opened a newer connection")
        self.peers[connection] = peer
        self._connection_of[peer] = connection
        outbox.add(Admit(connection, is_member=True, welcome=self._welcome(), peer=peer))

    def _check_client(self, hello: ClientHello) -> None:
        _check_protocol(hello.protocol, "the client")
        context = self._context
        if hello.cluster and not context.state.cluster:
            # The node may join another cluster than the client's, whose routes the client must not follow.
            raise Unavailable(f"node {context.replica.node} has not joined a cluster yet")
        self._check_cluster(hello.cluster, "the client")

    def _check_peer(self, hello: PeerHello, proof: NodeProof) -> None:
        check_node_id(hello.node)  # before any text names it
        _check_protocol(hello.protocol, f"node {hello.node}")
        if not proof.allows(hello.node):
            raise Denied(proof.why_not(hello.node), name=hello.node)
        context = self._context
        if not context.state.cluster:
            raise Unavailable(f"node {context.replica.node} has not joined a cluster yet")
        if hello.cluster != context.state.cluster:
            self._check_cluster(hello.cluster or ClusterId("(none)"), f"node {hello.node}")
        if Replica(hello.to_node, hello.to_incarnation) != context.replica:
            text = f"this is {context.replica}, not {hello.to_node}#{hello.to_incarnation}"
            raise StaleVersion(text, name=hello.to_node)
        known = context.state.members.get(hello.node)
        if known is not None and known.replica.incarnation > hello.incarnation:
            raise StaleVersion(f"the cluster knows a later life of {hello.node}", name=hello.node)

    def _check_cluster(self, cluster: ClusterId, sender: str) -> None:
        mine = self._context.state.cluster
        if cluster and mine and cluster != mine:
            raise WrongCluster(
                f"{sender} belongs to cluster {cluster}, node {self._context.replica.node} to cluster {mine}"
            )

    def _not_a_coordinator(self) -> WrongRole:
        context = self._context
        address = context.state.address_of(context.replica) or "this"
        coordinator = context.state.coordinator
        hint = f"; its coordinator is at {coordinator}" if coordinator else ""
        return WrongRole(f"{address} is node {context.replica.node}, not a coordinator{hint}")

    def _welcome(self) -> Welcome:
        me, state = self._context.replica, self._context.state
        return Welcome(
            protocol=PROTOCOL,
            cluster=state.cluster,
            role="node",
            node=me.node,
            incarnation=me.incarnation,
            version=state.version,
            coordinator=state.coordinator,
            identities=True,
        )


def _check_protocol(protocol: int, sender: str) -> None:
    if protocol != PROTOCOL:
        raise ProtocolError(
            f"{sender} speaks version {protocol} of the protocol, this server version {PROTOCOL}"
        )
