"""Which node serves which slot, and where a query goes.

Routes are taken only if they are newer: as a whole, or as the difference from exactly those that are here. Every server
pushes them to the clients that are linked to it.
"""

from __future__ import annotations

import struct
from typing import Final

from lockring.cluster_state import Replica
from lockring.core.client.links import Links, Node, NodeLink
from lockring.core.client.listings import LIST_ROUNDS_MAX
from lockring.core.client.queries import ANYWHERE, Query, QueryKind
from lockring.core.client.tickets import Ticket
from lockring.core.digest import slot_factors
from lockring.core.route_differences import (
    DIGEST_MASK,
    content_of_routes,
    digest_of_routes,
    mark_of_member,
    mark_of_primary,
    slots_in,
)
from lockring.errors import ProtocolError
from lockring.ids import NO_CLUSTER, NO_VERSION
from lockring.protocol import Routes, RoutesDifference
from lockring.slots import SLOTS

_PRIMARIES: Final = struct.Struct(f"<{SLOTS}H")
_NO_PRIMARY: Final = 0xFFFF


class RouteTable:
    """The nodes of the cluster, and each slot's primary.

    Attributes:
        table: for each slot the node that is its primary, or None.
        version: of the newest routes, 0 before the first.
        coordinator: address of the coordinator, "" if unknown.
        members: the cluster's nodes by the newest routes.
        nodes: every node that is a member, or has something of the client.
        unserved_since_ns: since when some slot has had no primary by the routes, 0 if all have one.
    """

    def __init__(self, links: Links) -> None:
        self.table: list[Node | None] = [None] * SLOTS
        self.version = NO_VERSION
        self.coordinator = ""
        self.members: list[Replica] = []
        self.nodes: dict[Replica, Node] = {}
        self.unserved_since_ns = 0
        self._links = links
        self._addresses: dict[Replica, str] = {}
        self._content: int | None = None

    # ------------------------------------------------------------------ news

    def adopt(self, routes: Routes, now_ns: int) -> bool:
        """Adopt newer routes; return False if they are not newer.

        Raises:
            ProtocolError: they are malformed.
        """
        if routes.version <= self.version:
            return False
        if len(routes.primaries) != _PRIMARIES.size:
            raise ProtocolError(f"routes have {_PRIMARIES.size} bytes, not {len(routes.primaries)}")
        places: dict[int, Node | None] = {_NO_PRIMARY: None}
        for place, (node_id, incarnation, address) in enumerate(routes.members):
            places[place] = self.ensure_node(Replica(node_id, incarnation), address)
        try:
            self.table = [places[place] for place in _PRIMARIES.unpack(routes.primaries)]
        except KeyError as error:
            raise ProtocolError(f"routes name a member that they do not list: {error}") from error
        self.version, self._content = routes.version, None
        self.coordinator = routes.coordinator
        self._addresses = {
            Replica(node, incarnation): address for node, incarnation, address in routes.members
        }
        self._now_are(now_ns)
        return True

    def take(self, difference: RoutesDifference, now_ns: int) -> bool:
        """Take the step to newer routes; return False, and change nothing, if it does not lead from these to there.

        Raises:
            ProtocolError: it is malformed.
        """
        if difference.base != self.version or difference.version <= self.version:
            return False
        addresses = dict(self._addresses)
        content, factors = self._known_content(), slot_factors()
        for gone in difference.gone:
            replica = Replica(*gone)
            content -= mark_of_member(replica, addresses.pop(replica, ""))
        for node_id, incarnation, address in difference.members:
            replica = Replica(node_id, incarnation)
            addresses[replica] = address
            content += mark_of_member(replica, address)
        slots = slots_in(difference)
        for number, primary in slots:
            if primary is not None and primary not in addresses:
                raise ProtocolError(f"routes name a member that they do not list: {primary}")
            before = self.table[number]
            was = None if before is None else before.replica
            content += (mark_of_primary(primary) - mark_of_primary(was)) * factors[number]
        if digest_of_routes(difference.version, difference.coordinator, content) != difference.digest:
            return False
        for replica, address in addresses.items():
            self.ensure_node(replica, address)
        for number, primary in slots:
            self.table[number] = None if primary is None else self.nodes[primary]
        self.version, self._content = difference.version, content & DIGEST_MASK
        self.coordinator, self._addresses = difference.coordinator, addresses
        self._now_are(now_ns)
        return True

    def _known_content(self) -> int:
        """Return the digest of primaries and members, which each difference brings up to date."""
        if self._content is not None:
            return self._content
        primaries = [None if node is None else node.replica for node in self.table]
        return content_of_routes(primaries, self._addresses.items())

    def _now_are(self, now_ns: int) -> None:
        """Note that routes are in force."""
        if None not in self.table:
            self.unserved_since_ns = 0
        elif not self.unserved_since_ns:
            self.unserved_since_ns = now_ns
        self.members = list(self._addresses)

    def ensure_node(self, replica: Replica, address: str) -> Node:
        """Add the node of this life if it is unknown, and return it."""
        node = self.nodes.get(replica)
        if node is None:
            node = self.nodes[replica] = Node(replica, address)
        return node

    def prune(self) -> None:
        """Forget nodes that left the cluster, once they have nothing of the client, and close the links to them.

        The only link that is ready is kept: it may be the only source of news.
        """
        members = frozenset(self.members)
        for node in list(self.nodes.values()):
            if node.replica in members or any(share.tickets for share in node.shares.values()):
                continue
            link = node.link
            if link is not None:
                if link.requests or link.acquires or self._links.ready_count() < 2:
                    continue
                self._links.drop(link, "the node has left the cluster")
            for session in list(node.shares):
                del session.shares[node.replica]
            del self.nodes[node.replica]

    def forget_cluster(self) -> None:
        """Start over with whatever cluster answers next."""
        self._links.cluster = NO_CLUSTER
        self.version = NO_VERSION
        self.table = [None] * SLOTS
        self.members = []
        self._addresses, self._content = {}, None

    # ------------------------------------------------------------------ where things go

    def node_of(self, replica: Replica | None) -> Node | None:
        """Return the node of a share; None for what is held in slots without a primary."""
        return self.nodes[replica] if replica is not None else None

    def member_addresses(self) -> list[str]:
        """Return the addresses of all members."""
        return [self.nodes[replica].address for replica in self.members if replica in self.nodes]

    def plan(self, query: Query) -> None:
        """Bring a query's plan up to date: a list starts over when the routes have changed."""
        listing = query.listing
        if listing is None:
            return
        if listing.version != self.version and listing.rounds < LIST_ROUNDS_MAX:
            # Each primary once, in the order of its first slot.
            primaries = list(dict.fromkeys(node.replica for node in self.table if node is not None))
            if primaries:
                listing.begin(self.version, primaries, unserved=self.table.count(None))
            else:
                listing.start_over()  # it begins when some slot is served again
        # A member that has left since is passed over.
        while listing.todo and listing.todo[0] not in self.nodes:
            del listing.todo[0]

    def where(self, item: Ticket | Query) -> Node | NodeLink | None:
        """Return where an item goes: a node, whose link may not be ready, a link to use at once, or None."""
        if isinstance(item, Ticket):
            return self.table[item.slot]
        if item.listing is not None:
            return self.nodes.get(item.listing.todo[0]) if item.listing.todo else None
        member = item.asked_member
        if member is not None:
            return self.nodes.get(member)
        if item.slot != ANYWHERE:
            return self.table[item.slot]
        if item.asker is not None:
            # A node alone is asked on behalf of others: a coordinator would take it for the server's own wish.
            return self._links.any_ready(to_node=True)
        if item.kind in (QueryKind.DRAIN, QueryKind.UNDRAIN):
            # The coordinator does it; where there is no link to it, any node passes it on.
            for link in self._links.by_id.values():
                if link.is_to_coordinator:
                    return link
        return self._links.any_ready()

    # ------------------------------------------------------------------ for tests

    def check_invariants(self) -> None:
        """Check what must hold of nodes and routes."""
        for node in self.nodes.values():
            assert node.link is None or node.link.node is node
            for session, share in node.shares.items():
                assert session.shares[node.replica] is share
        # Each node once, and not slot by slot: tests look after every step.
        for place in dict.fromkeys(self.table):
            assert place is None or self.nodes[place.replica] is place
