"""How a node greets the servers that it dials, what it says of itself, and which answers it accepts.

Rules:

- A hello to a peer names the life that is meant. The streams of a peer's former life must not reach its successor,
  which shares its address: the peer refuses such a hello (`admission`), and the node refuses an answer of another life.
- A node stays in its cluster. Another cluster's coordinator under the same address must not give it leases.
"""

from __future__ import annotations

from typing import NamedTuple

from lockring.cluster_state import ClusterState, Replica
from lockring.core.node.former_lives import FormerLives
from lockring.errors import StaleVersion, WrongCluster, WrongRole
from lockring.ids import ClusterId, Incarnation, Version
from lockring.protocol import PROTOCOL, PeerHello, Welcome


class JoinFacts(NamedTuple):
    """A node's word on itself in a `Join`.

    Attributes:
        cluster: the one that it belongs to, or to which its journal belongs; "" for any.
        version: of the newest state that it knows, or that its former lives knew.
        former: the lives for which it vouches, and that may still have slots.
        has: version of the state that it has itself, from which it takes differences.
    """

    cluster: ClusterId
    version: Version
    former: tuple[Incarnation, ...]
    has: Version


def join_facts(state: ClusterState, former: FormerLives | None) -> JoinFacts:
    """Return a node's word on itself, by the newest state that it has and its journal's former lives."""
    if former is None:
        return JoinFacts(state.cluster, state.version, (), state.version)
    cluster, version = state.cluster, state.version
    if not cluster and former.seen is not None:
        cluster, version = former.seen.cluster, former.seen.version
    return JoinFacts(cluster, version, former.named_in(state), state.version)


def hello_to(peer: Replica, *, me: Replica, state: ClusterState) -> PeerHello:
    """Return the first message on a connection to one life of a peer."""
    return PeerHello(
        protocol=PROTOCOL,
        cluster=state.cluster,
        node=me.node,
        incarnation=me.incarnation,
        to_node=peer.node,
        to_incarnation=peer.incarnation,
    )


def check_peer(welcome: Welcome, peer: Replica, address: str) -> None:
    """Raise `StaleVersion` unless the life of the peer has answered that was greeted."""
    if Replica(welcome.node, welcome.incarnation) != peer:
        raise StaleVersion(f"{address} is {welcome.node}#{welcome.incarnation}, not {peer}")


def check_coordinator(welcome: Welcome, cluster: ClusterId, address: str) -> None:
    """Raise `WrongRole` or `WrongCluster` unless a coordinator of the cluster ("" for any) has answered a join."""
    if welcome.role != "coordinator":
        raise WrongRole(f"{address} is a {welcome.role}, not a coordinator")
    if cluster and welcome.cluster != cluster:
        raise WrongCluster(f"{address} belongs to cluster {welcome.cluster}, this node to {cluster}")
