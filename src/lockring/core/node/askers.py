"""The identities for which other servers ask at this node.

A server that serves clients of its own, over gRPC, asks other nodes on their behalf. Before a request of another client
than the last one it says whose request follows. The rights are those that the identity has *here*: the asking server is
believed about the identity, and about nothing else.

Only a server may do so. A connection that is not one's ends. A node that checks no rights hears it, and ignores it.
"""

from __future__ import annotations

from typing import Final

from lockring.core.access import Grantee, GranteeOf, MissingRight
from lockring.core.effects import denied_entry
from lockring.core.node.clients import ConnectedClient
from lockring.core.node.context import NodeContext
from lockring.ids import ConnectionId
from lockring.protocol.identities import Identity

ASKERS_MAX: Final = 1_000
"""Identities whose rights are kept; those of others are found again with each announcement."""


class Askers:
    """The identities that other servers have announced.

    Args:
        context: the node's.
        grantee_of: returns the rights of an identity; None at a node that checks none.
    """

    def __init__(self, context: NodeContext, grantee_of: GranteeOf | None) -> None:
        self._context = context
        self._grantee_of = grantee_of
        self._known: dict[Identity, Grantee] = {}

    def announced(
        self, connection: ConnectionId, client: ConnectedClient, identity: Identity
    ) -> MissingRight | None:
        """Judge the further requests of a connection by the rights of this identity.

        Returns:
            The right that the connection lacks, so that it must end; None if it has it.
        """
        own = client.own
        if own is None or self._grantee_of is None:
            return None
        if not own.is_node:
            missing = MissingRight(
                f"{own.identity} may not ask for {identity}: only a server with a certificate of the servers' own CA asks"
                " for others",
                name=str(identity),
            )
            self._context.outbox.add(denied_entry(own, missing, connection))
            if own.is_enforced:
                return missing
        known = self._known.get(identity)
        if known is None:
            if len(self._known) >= ASKERS_MAX:
                del self._known[next(iter(self._known))]
            known = self._known[identity] = self._grantee_of(identity)
        client.access = known
        return None
