"""The other side of a connection: its identity, its rights, and the nodes that it may be. The shell finds them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from lockring.core.access.permissions import Permissions
from lockring.core.access.quotas import Quota
from lockring.ids import NodeId
from lockring.protocol.identities import Identity


class Grantee:
    """An identity with its rights on one connection. Not thread-safe.

    Args:
        identity: the identity.
        permissions: its rights at the moment.
        quota: its use of this server; one object for all connections of the identity.
        is_enforced: see the attribute.
        proof: see the attribute.

    Attributes:
        identity: the identity.
        key: the identity in one text, by which its sessions are known.
        permissions: its rights; replaced when the rights change, so that the next request goes by the new ones.
        quota: its use of this server.
        is_enforced: whether a missing right refuses. If not, rights are only tried out: a refusal is reported, and the
            request goes on.
        is_expired: whether its credential has ended, or is not accepted any more: the client must show another one.
        proof: how the identity was proven. Its type is that of the part which has proven it.
    """

    __slots__ = (
        "__weakref__",
        "identity",
        "is_enforced",
        "is_expired",
        "key",
        "permissions",
        "proof",
        "quota",
    )

    def __init__(
        self,
        identity: Identity,
        permissions: Permissions,
        quota: Quota,
        *,
        is_enforced: bool = True,
        proof: object = None,
    ) -> None:
        self.identity = identity
        self.key = identity.key
        self.permissions = permissions
        self.quota = quota
        self.is_enforced = is_enforced
        self.is_expired = False
        self.proof = proof

    @property
    def is_node(self) -> bool:
        """Whether it is a server of the cluster, which may ask on behalf of others."""
        return self.identity.method == "node"


GranteeOf: TypeAlias = Callable[[Identity], Grantee]
"""Returns the rights of an identity at this server, which follow the ACL file."""


class NodeProof(NamedTuple):
    """The nodes that the other side of a connection may be, by what it has shown.

    Attributes:
        is_server: whether it may be a node at all.
        nodes: the ids that it may have; none means any.
    """

    is_server: bool
    nodes: tuple[NodeId, ...] = ()

    def allows(self, node: NodeId) -> bool:
        """Return whether it may be this node."""
        return self.is_server and (not self.nodes or node in self.nodes)

    def why_not(self, node: NodeId) -> str:
        """Return why it may not be this node, as a sentence."""
        if not self.is_server:
            return (
                f"a connection of node {node} needs a certificate of the servers' own CA; the other side has shown none:"
                " give that node one with --peer-tls-cert and --peer-tls-key"
            )
        return f"the certificate makes its holder node {' or '.join(self.nodes)}, not {node}: give each node its own one"


ANY_NODE: Final = NodeProof(True)
"""Of a connection at a server that asks nodes for no proof."""

NO_NODE: Final = NodeProof(False)
"""Of a connection whose other side has not shown that it is a server."""


class Newcomer(NamedTuple):
    """An accepted connection as its shell knows it, before its first message is looked at.

    Attributes:
        access: the rights of a client on it, None at a server that checks none.
        proof: the nodes that its other side may be.
    """

    access: Grantee | None = None
    proof: NodeProof = ANY_NODE


UNCHECKED: Final = Newcomer()
"""A connection at a server that checks nothing."""
