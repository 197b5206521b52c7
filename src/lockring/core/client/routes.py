"""Which node has which slot, and the client's links to nodes: when to open one, and when one is taken for dead.

Rules:

- Routes are taken as a whole, and only if newer. They are pushed by whatever server the client is linked to.
- A client opens links only when it has work for them. With no link at all it tries the servers that it was
  given and every member it has heard of, one more each quarter of a second until one answers. While something stays
  unreachable it goes on to widen, one link a second: the server it has may be cut off from the news.
- At most one link per address, so that a client never ends its own connection by a second one: a server
  drops a client's older connections when a newer one greets it.
- A link is dead if a question on it went unanswered, and nothing else came, for the silence limit.
- A link on which nothing has come for a while is not trusted: what lies between may have dropped it without a word. If an answer on
  it is late, a second link to the same address, its rival, is opened beside it, and takes its place once it is greeted.
- Where another cluster answers, and of all addresses that are known none is of ours any more, ours is taken for gone.
- A failed address is left alone for a time that doubles from 50 ms to 1 s, a little more or less for each client, so that not
  all come at once; there is no busy loop.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import msgspec

from lockring.cluster_state import Replica
from lockring.core.client.effects import ClientEffect, Connect, Disconnect, SendTo
from lockring.core.client.links import CONNECTING, GREETING, READY, Node, NodeLink
from lockring.core.client.request_log import RequestLog
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockringError, ProtocolError, Unavailable, WrongCluster
from lockring.protocol import PROTOCOL, ClientHello, Message, Routes, Welcome
from lockring.slots import SLOTS
from lockring.units import NS_PER_MS, NS_PER_S

GREETING_NS: Final = 3 * NS_PER_S
"""How long a connection may take until its greeting is answered."""
SILENCE_NS_MAX: Final = 2 * NS_PER_S
SILENCE_NS_MIN: Final = NS_PER_S // 2
STAGGER_NS: Final = NS_PER_S // 4
"""Pause before the next server is tried while none has answered."""
WIDEN_NS: Final = NS_PER_S
"""How long something may be unreachable before one more server is asked for news, and the pause between such."""
BACKOFF_NS_MIN: Final = 50 * NS_PER_MS
BACKOFF_NS_MAX: Final = NS_PER_S
IDLE_NS: Final = NS_PER_S
"""After so long without a message a link is not trusted."""
DOUBT_NS: Final = 300 * NS_PER_MS
"""How long an answer on a link that is not trusted may take before its rival is opened. Short enough that who tries for a
second gets an answer over the rival; an answer that takes longer, over a slow network, ends the race."""

_PRIMARIES: Final = struct.Struct(f"<{SLOTS}H")
_NO_PRIMARY: Final = 0xFFFF


class Failure(msgspec.Struct):
    """Why an address could not be used, when, how often in a row, and when it may be tried again."""

    error: LockringError
    count: int
    retry_at_ns: int
    at_ns: int


class RouteTable(RequestLog):
    """The client's routes, nodes and links. No I/O: what is to be done goes to `effects`.

    Attributes:
        effects: what the shell is to do, in order; the whole client core appends to it.
        table: for each slot the node that is its primary, or None.
        version: of the newest routes, 0 before the first.
        cluster: id of the cluster, "" before the first greeting.
        was_ready: whether any server ever answered a greeting.
        alone_since_ns: since when no link has been ready though one is wanted, 0 if it is not so.
        stuck_since_ns: since when something has been wanted that no link leads to, 0 if it is not so.
        unserved_since_ns: since when some slot has had no primary by the routes, 0 if it is not so.
        origin: where the seeds come from and what to do if none can be reached, for people, "" if not known.
    """

    def __init__(self, seeds: Sequence[str], *, client: str, software: str, origin: str = "") -> None:
        super().__init__()
        self.origin = origin
        self.alone_since_ns = 0
        self.unserved_since_ns = 0
        self.seeds = list(dict.fromkeys(seeds))
        self.client = client
        self.software = software
        self.effects: list[ClientEffect] = []
        self.table: list[Node | None] = [None] * SLOTS
        self.version = 0
        self.cluster = ""
        self.coordinator = ""
        self.members: list[Replica] = []
        self.nodes: dict[Replica, Node] = {}
        self.links: dict[int, NodeLink] = {}
        self.by_address: dict[str, NodeLink] = {}
        self.failures: dict[str, Failure] = {}
        self.was_ready = False
        self.silence_ns = SILENCE_NS_MAX
        self._link_count = 0
        self._hello_count = 0
        self._next_try_ns = 0
        self._next_place = 0
        self.stuck_since_ns = 0
        self._foreign_since_ns = 0

    # ------------------------------------------------------------------ requests

    def ask(self, link: NodeLink, request: int, what: Any, message: Message, now_ns: int) -> int:
        """Send a request that is answered promptly, remember what it was about, and return when to look after the answer."""
        link.requests[request] = what
        wait_ns = self.silence_ns
        if not link.asked_at_ns:
            link.asked_at_ns = now_ns
            if now_ns - link.heard_at_ns >= IDLE_NS:
                wait_ns = self.doubt(link, now_ns)
        self.effects.append(SendTo(link.id, message))
        return now_ns + wait_ns

    def doubt(self, link: NodeLink, now_ns: int) -> int:
        """Something was asked on a link that is not trusted; returns how long the answer may take."""
        if link.doubt_at_ns == DISTANT_FUTURE_NS and link.rival is None:
            link.doubt_at_ns = now_ns + DOUBT_NS
        return DOUBT_NS

    def trust(self, link: NodeLink) -> None:
        """Something came on a link that was in doubt: its rival is of no use, unless the node has heard of that by now."""
        link.doubt_at_ns = DISTANT_FUTURE_NS
        rival = link.rival
        if rival is not None and rival.state == CONNECTING:
            self.drop(rival, "the connection that was there answers after all")

    def race(self, now_ns: int) -> int:
        """Open the rivals that are due; returns when to look again."""
        wake = DISTANT_FUTURE_NS
        for link in list(self.links.values()):
            if not 0 < link.doubt_at_ns < DISTANT_FUTURE_NS:
                continue
            if link.doubt_at_ns > now_ns:
                wake = min(wake, link.doubt_at_ns)
                continue
            link.doubt_at_ns = 0
            self._link_count += 1
            rival = NodeLink(self._link_count, link.address, now_ns, rival_of=link)
            self.links[rival.id] = link.rival = rival
            self.effects.append(Connect(rival.id, link.address))
            wake = min(wake, now_ns + GREETING_NS)
        return wake

    # ------------------------------------------------------------------ routes

    def adopt(self, routes: Routes, now_ns: int) -> bool:
        """Take newer routes over; False if they are not newer.

        Raises:
            ProtocolError: they are malformed.
        """
        if routes.version <= self.version:
            return False
        if len(routes.primaries) != _PRIMARIES.size:
            raise ProtocolError(f"routes have {_PRIMARIES.size} bytes, not {len(routes.primaries)}")
        places: dict[int, Node | None] = {_NO_PRIMARY: None}
        for place, (node_id, incarnation, address) in enumerate(routes.members):
            places[place] = self.node(Replica(node_id, incarnation), address)
        try:
            self.table = [places[place] for place in _PRIMARIES.unpack(routes.primaries)]
        except KeyError as error:
            raise ProtocolError(f"routes name a member that they do not list: {error}") from error
        self.version = routes.version
        if None not in self.table:
            self.unserved_since_ns = 0
        elif not self.unserved_since_ns:
            self.unserved_since_ns = now_ns
        self.coordinator = routes.coordinator
        self.members = [Replica(node_id, incarnation) for node_id, incarnation, _ in routes.members]
        return True

    def is_replaced(self, *, has_any: bool) -> bool:
        """Whether another cluster has taken our one's place: for who has anything there, at each address that is known."""
        if not self._foreign_since_ns or self.ready_count():
            return False
        if not has_any:
            return True
        return all(
            (failure := self.failures.get(address)) is not None and failure.at_ns >= self._foreign_since_ns
            for address in self._known()
        )

    def forget_cluster(self) -> None:
        """Start over with whatever cluster answers next; only for a client that has nothing to lose."""
        for address in [
            each for each in self.failures if isinstance(self.failures[each].error, WrongCluster)
        ]:
            del self.failures[address]
        self.cluster = ""
        self._foreign_since_ns = 0
        self.version = 0
        self.table = [None] * SLOTS
        self.members = []
        self.failures.clear()

    def node(self, replica: Replica, address: str) -> Node:
        """The node of this life, made if it is not known."""
        node = self.nodes.get(replica)
        if node is None:
            node = self.nodes[replica] = Node(replica, address)
        return node

    def prune(self) -> None:
        """Forget nodes that left the cluster, once nothing of ours is there, and close links to them.

        The only link that is ready is kept: it may be the only source of news.
        """
        members = frozenset(self.members)
        for node in list(self.nodes.values()):
            if node.replica in members or any(share.tickets for share in node.shares.values()):
                continue
            link = node.link
            if link is not None:
                if link.requests or link.acquires or self.ready_count() < 2:
                    continue
                self.drop(link, "the node has left the cluster")
            for session in list(node.shares):
                del session.shares[node.replica]
            del self.nodes[node.replica]
        known = {*self.seeds, self.coordinator, *(node.address for node in self.nodes.values())}
        for address in [address for address in self.failures if address not in known]:
            del self.failures[address]

    # ------------------------------------------------------------------ links

    def ready_count(self) -> int:
        """How many links are ready."""
        return sum(link.state == READY for link in self.links.values())

    def any_ready(self) -> NodeLink | None:
        """The oldest link that is ready, or None."""
        return next((link for link in self.links.values() if link.state == READY), None)

    def open(self, address: str, now_ns: int) -> int:
        """Ask for a link unless there is one or the address failed lately; returns when to ask again, in ns."""
        if address in self.by_address:
            return DISTANT_FUTURE_NS
        failure = self.failures.get(address)
        if failure is not None and failure.retry_at_ns > now_ns:
            return failure.retry_at_ns
        if not self.alone_since_ns and not self.ready_count():
            self.alone_since_ns = now_ns
        self._link_count += 1
        link = NodeLink(self._link_count, address, now_ns)
        self.links[link.id] = self.by_address[address] = link
        self.effects.append(Connect(link.id, address))
        return now_ns + GREETING_NS

    def greet(self, link: NodeLink, now_ns: int) -> None:
        """The connection is there: greet the server."""
        link.state = GREETING
        self._hello_count += 1
        link.number = self._hello_count
        hello = ClientHello(PROTOCOL, self.cluster, self.client, self._hello_count, self.software)
        self.effects.append(SendTo(link.id, hello))

    def welcome(self, link: NodeLink, message: Welcome, now_ns: int) -> list[NodeLink]:
        """The server answered; returns the links that are of no use any more: the older of two to the same node.

        Raises:
            ProtocolError, WrongCluster: it is not one to work with.
        """
        if message.protocol != PROTOCOL:
            raise ProtocolError(f"{link.address} speaks protocol {message.protocol}, not {PROTOCOL}")
        if self.cluster and message.cluster and message.cluster != self.cluster:
            raise WrongCluster(f"{link.address} belongs to the cluster {message.cluster}, not {self.cluster}")
        self.cluster = self.cluster or message.cluster
        link.state = READY
        link.since_ns = link.heard_at_ns = now_ns
        self.was_ready = True
        self.alone_since_ns = 0
        failure = self.failures.get(link.address)
        if failure is not None and not isinstance(failure.error, Unavailable):
            failure.error = Unavailable("it has answered since")
        self._foreign_since_ns = 0
        if message.coordinator and not self.version:
            self.coordinator = message.coordinator
        if message.role == "coordinator":
            link.coordinator = True
            return [link.rival_of] if link.rival_of is not None else []
        node = self.node(Replica(message.node, message.incarnation), link.address)
        link.node = node
        other = node.link
        node.wanted = False
        if other is not None and other.number > link.number:
            return [link]
        node.link = link
        return [each for each in dict.fromkeys((link.rival_of, other)) if each is not None]

    def drop(self, link: NodeLink, reason: str) -> None:
        """Close a link from our side and forget it, without holding it against its address."""
        self.effects.append(Disconnect(link.id, reason))
        self._forget(link)

    def fail(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        """Forget a link that broke or was refused, and leave its address alone for a while."""
        self._forget(link)
        before = self.failures.get(link.address)
        count = before.count + 1 if before is not None else 1
        if link.state == READY and now_ns - link.since_ns >= BACKOFF_NS_MAX:
            count = 0
        delay = 0 if count == 0 else min(BACKOFF_NS_MAX, BACKOFF_NS_MIN << min(count - 1, 10))
        if not isinstance(error, Unavailable):
            delay = BACKOFF_NS_MAX
        self.failures[link.address] = Failure(error, count, now_ns + self._spread(delay), now_ns)
        if isinstance(error, WrongCluster) and self.cluster and not self._foreign_since_ns:
            self._foreign_since_ns = now_ns
        if link.state == READY and not self.alone_since_ns and not self.ready_count():
            self.alone_since_ns = now_ns

    def _spread(self, delay_ns: int) -> int:
        """A pause, up to a quarter longer or shorter: the client's id, which is random, says how much."""
        return delay_ns + delay_ns * (crc32(f"{self.client}/{self._link_count}".encode()) % 501 - 250) // 1000

    def _forget(self, link: NodeLink) -> None:
        del self.links[link.id]
        if link.rival_of is not None:
            link.rival_of.rival = None
            link.rival_of = None
        elif link.rival is not None:
            self.by_address[link.address] = link.rival
            link.rival.rival_of = None
            link.rival = None
        else:
            del self.by_address[link.address]
        if link.node is not None and link.node.link is link:
            link.node.link = None

    def silent(self, now_ns: int) -> tuple[list[NodeLink], int]:
        """The links that took too long to greet or to answer, and when to look again."""
        silent: list[NodeLink] = []
        wake = DISTANT_FUTURE_NS
        for link in self.links.values():
            if link.state != READY:
                limit = link.since_ns + GREETING_NS
            elif link.asked_at_ns:
                limit = link.asked_at_ns + self.silence_ns
            else:
                continue
            if limit <= now_ns:
                silent.append(link)
            elif limit < wake:
                wake = limit
        return silent, wake

    def tend(self, now_ns: int, *, waiting: bool) -> int:
        """Open the links that are needed; returns when to look again.

        Args:
            now_ns: the time.
            waiting: whether anything waits for a route or a link.
        """
        wake = DISTANT_FUTURE_NS
        missing = waiting
        for node in self.nodes.values():
            node.wanted = node.wanted and waiting
            if node.link is None and (node.wanted or any(share.tickets for share in node.shares.values())):
                missing = True
                wake = min(wake, self.open(node.address, now_ns))
        if not missing:
            self.stuck_since_ns = 0
            return wake
        if not self.stuck_since_ns:
            self.stuck_since_ns = now_ns
        some = any(link.state == READY for link in self.links.values())
        if some and now_ns < self.stuck_since_ns + WIDEN_NS:
            return min(wake, self.stuck_since_ns + WIDEN_NS)
        if now_ns < self._next_try_ns:
            return min(wake, self._next_try_ns)
        wait = self._try_next(now_ns)
        if wait is None:
            self._next_try_ns = now_ns + (WIDEN_NS if some else STAGGER_NS)
            wait = self._next_try_ns
        return min(wake, wait)

    def _try_next(self, now_ns: int) -> int | None:
        """Open a link to the next address that may be tried; else when one may be."""
        addresses = self._known()
        wake = DISTANT_FUTURE_NS
        for step in range(len(addresses)):
            place = (self._next_place + step) % len(addresses)
            if addresses[place] in self.by_address:
                continue
            at_ns = self.open(addresses[place], now_ns)
            if addresses[place] in self.by_address:
                self._next_place = place + 1
                return None
            wake = min(wake, at_ns)
        return wake

    def _known(self) -> list[str]:
        """Where a server of the cluster may be: the seeds and all members, each once."""
        members = [self.nodes[replica].address for replica in self.members if replica in self.nodes]
        return list(dict.fromkeys([*self.seeds, *members]))

    # ------------------------------------------------------------------ telling

    def hopeless(self) -> LockringError | None:
        """The error to give up with, if every server has refused for good: that is an answer too, and waiting changes nothing."""
        if (self.was_ready and self.links) or self._foreign_since_ns:
            return None  # where another cluster has taken the place of ours, what is open goes on there
        known = [self.nodes[each].address for each in self.members if each in self.nodes]
        addresses = dict.fromkeys([*self.seeds, *(known if self.was_ready else ())])
        failures = [self.failures.get(address) for address in addresses]
        errors = [failure.error for failure in failures if failure is not None]
        if len(errors) < len(addresses) or any(isinstance(error, Unavailable) for error in errors):
            return None
        return errors[0] if len({str(error) for error in errors}) == 1 else self.unreachable()

    def unreachable(self, now_ns: int = 0) -> Unavailable:
        """The error that says that no server could be reached, why, and what to do."""
        tried = dict.fromkeys([*self.seeds, *self.failures])
        reasons = [
            f"{address}: {failure.error}"
            if (failure := self.failures.get(address))
            else f"{address}: no answer"
            for address in tried
        ]
        text = f"no lockring server could be reached ({'; '.join(reasons)})"
        since_s = (now_ns - self.alone_since_ns) / NS_PER_S if now_ns and self.alone_since_ns else None
        return Unavailable(
            f"{text}; {self.origin}" if self.origin else text, reason="unreachable", since_s=since_s
        )

    def check_invariants(self) -> None:
        """Assert what must always hold between links and nodes."""
        rivals = [link for link in self.links.values() if link.rival_of is not None]
        assert len(self.links) == len(self.by_address) + len(rivals)
        for link in self.links.values():
            assert self.by_address[link.address] is (link if link.rival_of is None else link.rival_of)
            assert link.rival is None or (link.rival.rival_of is link and link.rival_of is None)
            assert link.rival_of is None or link.state != READY
            assert link.state == READY or (link.node is None and not link.acquires and not link.requests)
            assert link.node is None or link.node.link is link
            assert not link.asked_at_ns or link.requests
        for node in self.nodes.values():
            assert node.link is None or node.link.node is node
            for session, share in node.shares.items():
                assert session.shares[node.replica] is share
        # Each node once, and not slot by slot: tests look after every step.
        for place in dict.fromkeys(self.table):
            assert place is None or self.nodes[place.replica] is place
