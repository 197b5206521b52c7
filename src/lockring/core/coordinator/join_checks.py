"""The checks of a `Join`, most useful refusal first: wrong release, then wrong cluster, then old life."""

from __future__ import annotations

from collections.abc import Callable

from lockring.addresses import split_address
from lockring.cluster_state import ClusterState, Replica
from lockring.core.access import NodeProof
from lockring.core.coordinator.transitions import VERSION_MAX
from lockring.errors import InvalidRequest
from lockring.ids import NO_REQUEST, Incarnation, NodeId
from lockring.names import check_node_id
from lockring.protocol import FORMER_LIVES_MAX, NO_DIFFERENCES, PROTOCOL, WEIGHT_MAX, Join, Refusal
from lockring.ring.hash_ring import WEIGHT_MIN


def malformed(join: Join) -> Refusal | None:
    """Return why a join is invalid in any cluster, None if it is valid."""
    if join.protocol != PROTOCOL:
        return _refused(
            "protocol",
            f"the node speaks protocol {join.protocol}, this coordinator {PROTOCOL}: use the same release",
            join.node,
        )
    try:
        check_node_id(join.node)
        split_address(join.address)
        if join.grpc:
            split_address(join.grpc)
        if not WEIGHT_MIN <= join.weight <= WEIGHT_MAX:
            raise InvalidRequest(f"a weight is {WEIGHT_MIN} to {WEIGHT_MAX}, not {join.weight}")
        if not 0 < join.incarnation < 2**63:
            raise InvalidRequest(f"an incarnation is 1 to 2**63 - 1, not {join.incarnation}")
        if not 0 <= join.version <= VERSION_MAX:
            raise InvalidRequest(f"a version is 0 to {VERSION_MAX}, not {join.version}")
        if not NO_DIFFERENCES <= join.has <= join.version:
            raise InvalidRequest(
                f"a node has a state of version 0 to {join.version}, the newest that it has seen, or {NO_DIFFERENCES}"
                f" if it takes no differences; not {join.has}"
            )
        if len(join.former) > FORMER_LIVES_MAX:
            raise InvalidRequest(
                f"a node vouches for at most {FORMER_LIVES_MAX} former lives, not for {len(join.former)}"
            )
        for former in join.former:
            if not 0 < former < join.incarnation:
                raise InvalidRequest(
                    f"a former life of incarnation {join.incarnation} has a lower one above 0, not {former}"
                )
    except InvalidRequest as error:
        return _refused(error.code, str(error), "")
    return None


def unproven(join: Join, proof: NodeProof) -> Refusal | None:
    """Return the refusal of a connection that has not shown that it is the node's, None if it has.

    Args:
        join: the first message on it.
        proof: the nodes that its other side may be.
    """
    if proof.allows(join.node):
        return None
    return _refused("denied", proof.why_not(join.node), join.node)


def foreign(join: Join, state: ClusterState) -> Refusal | None:
    """Return the refusal of a node that belongs to another cluster than the state's, None if it does not."""
    if not join.cluster or join.cluster == state.cluster:
        return None
    return _refused(
        "wrong-cluster",
        f"node {join.node} belongs to cluster {join.cluster}, this coordinator to cluster {state.cluster}",
        join.node,
    )


def outdated(node: NodeId, incarnation: Incarnation) -> Refusal:
    """Return the refusal of a life that received an id for the cluster which turned out to be wrong.

    Nothing was assigned under that id. The node must begin a new life, since it takes no state of another cluster.
    """
    return _refused(
        "stale",
        f"the cluster of node {node} has got its former id back: begin a new life",
        node,
        hint=incarnation + 1,
    )


def not_the_latest(
    join: Join, known: Replica | None, is_running: Callable[[Replica], bool]
) -> Refusal | None:
    """Return the refusal of a life that conflicts with another life of the same id, None if it does not.

    Args:
        join: of the node.
        known: the newest life of its id.
        is_running: reports whether a life is connected and was heard within the last moments.
    """
    if known is None or known.incarnation == join.incarnation:
        return None
    # After a loss of power the connection of a life that is over may stand for a while.
    is_over = known.incarnation in join.former
    if is_running(known) and not is_over:
        # Two processes share an id: the newcomer must not push out the one that works.
        return _refused(
            "duplicate-node",
            f"a node {join.node} is running already: give this one another id, or stop the other first",
            join.node,
        )
    if join.incarnation < known.incarnation:
        # The node's clock was set back. The hint lets it begin a life above the known one without an operator.
        return _refused(
            "stale",
            f"node {join.node} was seen with incarnation {known.incarnation}, later than {join.incarnation}",
            join.node,
            hint=known.incarnation + 1,
        )
    return None


def contradicted(join: Join) -> str:
    """Return the warning about a life that asks to join although a later one vouches that it is over."""
    return (
        f"a life of node {join.node} that its present one says is over ({join.incarnation}) has asked to join: if this"
        " is repeated, two processes work on copies of one data directory, and one must be stopped"
    )


def older_version(node: NodeId) -> str:
    """Return the warning about a node that knows no identities, at a coordinator that checks rights."""
    return (
        f"node {node} runs a version of lockring that knows no identities: it lets every client do everything, and forgets"
        " to whom sessions belong; start it with this version, and with --auth and --acl-file"
    )


def _refused(code: str, text: str, name: str, *, hint: int = 0) -> Refusal:
    return Refusal(request=NO_REQUEST, code=code, text=text, name=name, hint=hint)
