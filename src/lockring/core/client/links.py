"""The client's connections to servers: their life from the request to open one to its end.

Rules:

- At most one link per address, so that a client never ends its own connection by a second one: a server drops a
  client's older connections when a newer one greets it.
- A link on which nothing has come for a while is not trusted: a router on the way may have dropped it silently.
  If an answer on it is late, a second link to the same address, its *rival*, is opened beside it. Once the rival is
  greeted, it takes the first one's place; if the first one answers before that, the rival is closed.
- A link is dead if a prompt request on it went unanswered, and nothing else came, for the silence limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from lockring.cluster_state import Replica
from lockring.core.client.agenda import Agenda
from lockring.core.client.effects import Connect, Disconnect, SendTo
from lockring.core.client.queries import Query
from lockring.core.client.tickets import ClientSession, NodeShare, Ticket
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import ProtocolError, WrongCluster
from lockring.ids import NO_CLUSTER, ClientId, GreetingNumber, LinkId, RequestNumber
from lockring.protocol import PROTOCOL, ClientHello, Message, OnBehalfOf, TroubleNotice, Welcome
from lockring.protocol.identities import Identity
from lockring.units import NS_PER_MS, NS_PER_S

GREETING_NS: Final = 3 * NS_PER_S
"""How long a connection may take until its greeting is answered."""
SILENCE_NS_MAX: Final = 2 * NS_PER_S
SILENCE_NS_MIN: Final = NS_PER_S // 2
IDLE_NS: Final = NS_PER_S
"""After so long without a message a link is not trusted."""
DOUBT_NS: Final = 300 * NS_PER_MS
"""How long an answer on a link that is not trusted may take before its rival is opened. Short enough that a caller
with a timeout of a second gets an answer over the rival; an answer that takes longer, over a slow network, ends the
race."""

CONNECTING: Final = 0
GREETING: Final = 1
READY: Final = 2


def no_credential() -> str:
    """Return the credential of a client that has none."""
    return ""


class OpenKeepalive(NamedTuple):
    """A keepalive that is not answered yet; `level` is 0 for the digest, 1 for one per slot, 2 for lists."""

    share: NodeShare
    sent_at_ns: int
    level: int


class ClosingSession(NamedTuple):
    """A session's end that is not answered yet."""

    session: ClientSession


class PingQuery(NamedTuple):
    """A request whose answer only shows that the node is there."""


LastingRequest = Ticket | Query
"""The subject of a request that may rightly stay open for long: an acquire behind other holders, or a stream."""
PromptRequest = Ticket | Query | OpenKeepalive | ClosingSession | PingQuery | None
"""The subject of a request that is answered at once: a release, a query, …; None for one whose answer is ignored."""


class Node:
    """One life of one node, as the client knows it.

    Attributes:
        replica: its id and incarnation.
        address: HOST:PORT.
        link: the link that is ready for requests, or None.
        shares: what the sessions have here.
        wanted: whether something waits for a link to it.
    """

    __slots__ = ("address", "link", "replica", "shares", "wanted")

    def __init__(self, replica: Replica, address: str) -> None:
        self.replica = replica
        self.address = address
        self.link: NodeLink | None = None
        self.shares: dict[ClientSession, NodeShare] = {}
        self.wanted = False


class LinkHealth:
    """The times by which a link is trusted, doubted or checked.

    Attributes:
        since_ns: when the link's present state began.
        asked_at_ns: since when a prompt request has been open with nothing heard, 0 if none is.
        heard_at_ns: when something came last.
        doubt_at_ns: when a rival is opened, `DISTANT_FUTURE_NS` while the link is trusted, 0 once it was opened.
        check_at_ns: when to make sure that the node of open acquires still answers, `DISTANT_FUTURE_NS` for none.
    """

    __slots__ = ("asked_at_ns", "check_at_ns", "doubt_at_ns", "heard_at_ns", "since_ns")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        self.asked_at_ns = 0
        self.heard_at_ns = 0
        self.doubt_at_ns: int = DISTANT_FUTURE_NS
        self.check_at_ns: int = DISTANT_FUTURE_NS


class LinkTrouble(NamedTuple):
    """The trouble that keeps a link's node from serving, as the node reported it, and when it did."""

    notice: TroubleNotice
    at_ns: int


class LinkTerms:
    """The terms of a link: what its two sides have said of themselves.

    Attributes:
        identities: whether the server understands `OnBehalfOf`; one of an earlier version does not.
        probes: whether it answers `Probe`.
        names_cluster: whether it has named the client's cluster. A coordinator that knows of none yet names none.
        announced: the identity on whose behalf the last requests were sent, None if they were the client's own.
    """

    __slots__ = ("announced", "identities", "names_cluster", "probes")

    def __init__(self) -> None:
        self.identities = False
        self.probes = False
        self.names_cluster = False
        self.announced: Identity | None = None


class NodeLink:
    """One connection that the core asked for.

    Attributes:
        id: its number, never reused.
        address: where it leads.
        number: of the greeting sent on it; a node drops the lower ones of a client.
        state: CONNECTING, GREETING or READY.
        node: which node answered, None before the greeting and for a coordinator.
        acquires: open requests that may stay open for long, by request number.
        requests: all other open requests: these are answered promptly.
        health: when it was last heard, and what its silence means.
        rival: the link that may take its place.
        rival_of: the link whose place it may take.
        trouble: what keeps its node from serving, None if nothing does.
        terms: what its server understands, and for which identity the client speaks.
    """

    __slots__ = (
        "acquires",
        "address",
        "health",
        "id",
        "node",
        "number",
        "requests",
        "rival",
        "rival_of",
        "state",
        "terms",
        "trouble",
    )

    def __init__(self, link_id: LinkId, address: str, since_ns: int) -> None:
        self.id = link_id
        self.address = address
        self.number = GreetingNumber(0)
        self.state: int = CONNECTING
        self.node: Node | None = None
        self.acquires: dict[RequestNumber, LastingRequest] = {}
        self.requests: dict[RequestNumber, PromptRequest] = {}
        self.health = LinkHealth(since_ns)
        self.rival: NodeLink | None = None
        self.rival_of: NodeLink | None = None
        self.trouble: LinkTrouble | None = None
        self.terms = LinkTerms()

    @property
    def is_to_coordinator(self) -> bool:
        """Whether a coordinator answered: every other server is a node."""
        return self.state == READY and self.node is None

    @property
    def is_of_cluster(self) -> bool:
        """Whether a server of the client's cluster answered."""
        return self.state == READY and self.terms.names_cluster


class ClientProcess(NamedTuple):
    """The process of a client, as it shows itself to servers.

    Attributes:
        software: name and version of the client.
        host: the name of the host, "" to not say.
        pid: the number of the process there, 0 to not say.
    """

    software: str = ""
    host: str = ""
    pid: int = 0


class Links:
    """All links of one client.

    Attributes:
        by_id: every link that is not closed.
        by_address: the same without rivals.
        client: the client's id, by which a server recognizes its other connections.
        cluster: id of the cluster, "" before the first greeting.
        was_ready: whether any server ever answered a greeting.
        alone_since_ns: since when no link has been ready though one is wanted, 0 if one is.
        silence_ns: how long a prompt request may go unanswered.
        opened: how many links were opened.
    """

    def __init__(
        self,
        agenda: Agenda,
        *,
        client: ClientId,
        process: ClientProcess,
        credential: Callable[[], str],
    ) -> None:
        self.by_id: dict[LinkId, NodeLink] = {}
        self.by_address: dict[str, NodeLink] = {}
        self.client = client
        self.cluster = NO_CLUSTER
        self.was_ready = False
        self.alone_since_ns = 0
        self.silence_ns = SILENCE_NS_MAX
        self.opened = 0
        self._credential = credential
        self._process = process
        self._greetings = 0
        self._agenda = agenda

    # ------------------------------------------------------------------ the state of things

    def ready_count(self) -> int:
        """Return how many links are ready."""
        return sum(link.state == READY for link in self.by_id.values())

    def any_ready(self, *, to_node: bool = False) -> NodeLink | None:
        """Return the oldest link that is ready, with `to_node` the oldest to a node; or None."""
        return next(
            (
                link
                for link in self.by_id.values()
                if link.state == READY and not (to_node and link.is_to_coordinator)
            ),
            None,
        )

    def silent(self, now_ns: int) -> tuple[list[NodeLink], int]:
        """Return the links that took too long to greet or to answer, and when the next one will have."""
        silent: list[NodeLink] = []
        next_ns = DISTANT_FUTURE_NS
        for link in self.by_id.values():
            if link.state != READY:
                limit_ns = link.health.since_ns + GREETING_NS
            elif link.health.asked_at_ns:
                limit_ns = link.health.asked_at_ns + self.silence_ns
            else:
                continue
            if limit_ns <= now_ns:
                silent.append(link)
            elif limit_ns < next_ns:
                next_ns = limit_ns
        return silent, next_ns

    # ------------------------------------------------------------------ life

    def open(self, address: str, now_ns: int) -> None:
        """Ask for a link to an address that has none."""
        if not self.alone_since_ns and not self.ready_count():
            self.alone_since_ns = now_ns
        link = self._new(address, now_ns)
        self.by_address[address] = link

    def _new(self, address: str, now_ns: int) -> NodeLink:
        self.opened += 1
        link_id = LinkId(self.opened)
        link = self.by_id[link_id] = NodeLink(link_id, address, now_ns)
        self._agenda.effects.append(Connect(link.id, address))
        return link

    def greet(self, link: NodeLink) -> None:
        """Greet the server at the other end, now that the connection is open."""
        link.state = GREETING
        self._greetings += 1
        link.number = GreetingNumber(self._greetings)
        hello = ClientHello(
            PROTOCOL,
            cluster=self.cluster,
            client=self.client,
            connection=link.number,
            software=self._process.software,
            differences=True,
            credential=self._credential(),
            host=self._process.host,
            pid=self._process.pid,
        )
        self._agenda.effects.append(SendTo(link.id, hello))

    def admit(self, link: NodeLink, message: Welcome, now_ns: int) -> None:
        """Take a link into use whose server answered the greeting.

        Raises:
            ProtocolError, WrongCluster: the server cannot be worked with.
        """
        if message.protocol != PROTOCOL:
            raise ProtocolError(f"{link.address} speaks protocol {message.protocol}, not {PROTOCOL}")
        if self.cluster and message.cluster and message.cluster != self.cluster:
            raise WrongCluster(f"{link.address} belongs to the cluster {message.cluster}, not {self.cluster}")
        self.cluster = self.cluster or message.cluster
        link.state = READY
        link.terms.identities, link.terms.probes = message.identities, message.probes
        link.terms.names_cluster = bool(message.cluster)
        link.health.since_ns = link.health.heard_at_ns = now_ns
        self.was_ready = True
        self.alone_since_ns = 0

    def attach(self, link: NodeLink, node: Node) -> list[NodeLink]:
        """Make an admitted link the one to its node; return the links that this makes useless.

        Of two links to one node the one whose greeting is older is useless: the node has dropped it.
        """
        link.node = node
        node.wanted = False
        other = node.link
        if other is not None and other.number > link.number:
            return [link]
        node.link = link
        return [each for each in dict.fromkeys((link.rival_of, other)) if each is not None]

    def drop(self, link: NodeLink, reason: str) -> None:
        """Close a link from our side and forget it, without blaming its address."""
        self._agenda.effects.append(Disconnect(link.id, reason))
        self._forget(link)

    def lose(self, link: NodeLink, now_ns: int) -> None:
        """Forget a link that broke or was refused."""
        self._forget(link)
        if link.state == READY and not self.alone_since_ns and not self.ready_count():
            self.alone_since_ns = now_ns

    def _forget(self, link: NodeLink) -> None:
        del self.by_id[link.id]
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

    # ------------------------------------------------------------------ prompt requests, and trust

    def ask(
        self, link: NodeLink, request: RequestNumber, subject: PromptRequest, message: Message, now_ns: int
    ) -> None:
        """Send a request that is answered promptly, and remember its subject."""
        link.requests[request] = subject
        wait_ns = self.silence_ns
        if not link.health.asked_at_ns:
            link.health.asked_at_ns = now_ns
            if now_ns - link.health.heard_at_ns >= IDLE_NS:
                self.doubt(link, now_ns)
                wait_ns = DOUBT_NS
        self._agenda.effects.append(SendTo(link.id, message))
        self._agenda.wake(now_ns + wait_ns)

    def announce(self, link: NodeLink, asker: Identity | None) -> None:
        """Say on whose behalf the next requests are, unless the last ones were on the same.

        A server of a version that knows no identities gets them as the client's own: it checks no rights.
        """
        # Otherwise the server would take it for a request of the identity that was announced last.
        terms = link.terms
        assert asker is not None or terms.announced is None, "a client that asks for others says for which"
        if asker is not None and asker != terms.announced and terms.identities:
            terms.announced = asker
            self._agenda.effects.append(SendTo(link.id, OnBehalfOf(asker)))

    def doubt(self, link: NodeLink, now_ns: int) -> None:
        """Plan a rival of an idle link on which something is asked, in case that the answer is late."""
        if link.health.doubt_at_ns == DISTANT_FUTURE_NS and link.rival is None:
            link.health.doubt_at_ns = now_ns + DOUBT_NS

    def trust(self, link: NodeLink) -> None:
        """Stop doubting a link on which something came, and close its rival while the node has not heard of that."""
        link.health.doubt_at_ns = DISTANT_FUTURE_NS
        rival = link.rival
        if rival is not None and rival.state == CONNECTING:
            self.drop(rival, "the connection that was there answers after all")

    def open_rivals(self, now_ns: int) -> None:
        """Open the rivals that are due."""
        for link in list(self.by_id.values()):
            if not 0 < link.health.doubt_at_ns < DISTANT_FUTURE_NS:
                continue
            if link.health.doubt_at_ns > now_ns:
                self._agenda.wake(link.health.doubt_at_ns)
                continue
            link.health.doubt_at_ns = 0
            rival = link.rival = self._new(link.address, now_ns)
            rival.rival_of = link
            self._agenda.wake(now_ns + GREETING_NS)

    # ------------------------------------------------------------------ for tests

    def check_invariants(self) -> None:
        """Check what must hold of links and the nodes behind them."""
        rivals = [link for link in self.by_id.values() if link.rival_of is not None]
        assert len(self.by_id) == len(self.by_address) + len(rivals)
        for link in self.by_id.values():
            assert self.by_address[link.address] is (link if link.rival_of is None else link.rival_of)
            assert link.rival is None or (link.rival.rival_of is link and link.rival_of is None)
            assert link.rival_of is None or link.state != READY
            assert link.state == READY or (link.node is None and not link.acquires and not link.requests)
            assert link.node is None or link.node.link is link
            assert not link.health.asked_at_ns or link.requests
