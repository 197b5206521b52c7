"""One life of a node: the core of one incarnation, and the connections that it talks over.

A node that must begin a new life (the cluster knows a later incarnation) makes a new object and drops this one, and
with it every connection: no message to the former life may reach the new one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Member, Replica
from lockring.core.access import Grantee, Newcomer
from lockring.core.effects import (
    Admit,
    AuditEntry,
    Broadcast,
    Close,
    Depart,
    Effect,
    Endpoint,
    Note,
    Publish,
    Refuse,
    Reply,
    Send,
)
from lockring.core.node import NodeCore
from lockring.core.refusals import error_of
from lockring.core.timing import Timing
from lockring.errors import Denied, LockringError, Unavailable
from lockring.ids import ConnectionId, NodeId
from lockring.journal.journal import Journal
from lockring.log_events import event
from lockring.net.accepted import CLIENT, PEER, AcceptedConnection
from lockring.net.connection import FramedConnection, Outbox
from lockring.net.core_loop import CoreLoop
from lockring.net.dialer import Dialer
from lockring.net.frames import encode_frame
from lockring.net.openers import Opener, open_plain
from lockring.protocol import ClientHello, FromPeer, Message, Welcome
from lockring.server.access_gate import AccessGate, expired_among, not_accepted
from lockring.server.journal_writer import JournalWriter
from lockring.server.logs import name_cluster
from lockring.server.request_spans import RequestSpans
from lockring.server.settings import Durability
from lockring.server.tls import check_node_certificate
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

_PAUSE_S_MIN: Final = 0.05
_PAUSE_S_MAX: Final = 0.5
_CALM_NS: Final = 10 * NS_PER_S

log = logging.getLogger("lockring.node")


class Answerable(Protocol):
    """A receiver of messages: a connection, or a client in this very process.

    Attributes:
        remote: HOST:PORT of its other end, or a description of the client.
    """

    remote: str

    def send(self, message: Message) -> None:
        """Send a message, with the next flush at the latest."""

    def close(self, reason: str) -> None:
        """Deliver what was sent, then end."""


class Guest(Answerable, Protocol):
    """A visitor of the node: an accepted connection, or a client in this very process."""

    def turn_away(self, error: LockringError) -> None:
        """Send the reason for which it is not served, then end."""


class DialedPeer:
    """The node's own connection to one life of a peer: kept up for as long as the cluster knows that life."""

    def __init__(self, life: NodeLife, peer: Replica) -> None:
        self._life = life
        self._peer = peer
        self._trouble = RepeatedTrouble(calm_ns=_CALM_NS)
        self.dialer = Dialer(
            self,
            self._addresses,
            FromPeer,
            life.outbox,
            pause_s_min=_PAUSE_S_MIN,
            pause_s_max=_PAUSE_S_MAX,
            opener=life.opener,
        )

    def _addresses(self) -> list[str]:
        address = self._life.core.state.address_of(self._peer)
        return [] if address is None else [address]

    def hello(self) -> Message:
        """See `Caller`."""
        return self._life.core.hello_to(self._peer)

    def connect_failed(self, address: str, error: LockringError, hint: int) -> None:
        """See `Caller`. The core does not learn of a failed attempt."""
        self._tell(f"no connection to {self._peer.node}: {error}")

    def opened(self, address: str, welcome: Welcome) -> None:
        """See `Caller`. The core says whether the life of the peer has answered that is meant."""
        assert self.dialer.connection is not None
        check_node_certificate(self.dialer.connection.certificate, self._peer.node, address)
        self._life.core.check_peer(self._peer, welcome, address=address)
        so_far = self._trouble.ends(now_ns=monotonic_ns())
        if so_far:
            log.info(
                "connected to %s again (%s)",
                self._peer.node,
                so_far,
                extra=event("peer-connected-again", peer=self._peer.node),
            )
        self._life.core.connected(self._peer, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def arrived(self, messages: list[Message]) -> None:
        """See `Caller`."""
        self._life.receive(self._peer, messages, monotonic_ns())

    def lost(self, reason: str) -> None:
        """See `Caller`."""
        self._tell(f"lost the connection to {self._peer.node}: {reason}")
        self._life.core.disconnected(self._peer, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def _tell(self, text: str) -> None:
        told = self._trouble.fails(text, now_ns=monotonic_ns())
        if told:
            log.info("%s", told, extra=event("peer-unreachable", peer=self._peer.node))


class NodeLife:
    """One incarnation of a node at work. Lives in one event loop.

    Args:
        replica: id and incarnation.
        outbox: where writes wait for the flush.
        gate: says what connections may do.
        coordinator: returns the connection to the coordinator if the coordinator has welcomed this node.
        on_state: called for each new cluster state.
        on_depart: called when the node may stop, with the reason.
        opener: opens connections to other nodes.
        spans: the traces of requests, None if there are none.
        metrics_prefixes: beginnings of names whose locks are counted apart.
        journal: the files of the node's journal, None without one.
        durability: how durable the journal is kept.
        reopen: makes the journal's directory again after it was deleted; needed with a journal.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        outbox: Outbox,
        gate: AccessGate,
        coordinator: Callable[[], FramedConnection | None],
        on_state: Callable[[ClusterState], None],
        on_depart: Callable[[Depart], None],
        opener: Opener = open_plain,
        spans: RequestSpans | None = None,
        metrics_prefixes: Sequence[str] = (),
        journal: Journal | None = None,
        durability: Durability = "none",
        reopen: Callable[[], Journal] | None = None,
    ) -> None:
        self.core = core = NodeCore(
            replica,
            timing=Timing(),
            journal=None if journal is None else journal.found,
            durability=durability,
            grantee_of=gate.grantee_of if gate.is_on else None,
            audits=gate.audits,
            now_ns=monotonic_ns(),
        )
        core.counters.count_apart(metrics_prefixes)
        if journal is not None:
            journal.forget_found()
        self.outbox = outbox
        self.gate = gate
        """The access control of the node, which all of its lives share."""
        self.opener = opener
        self.spans = spans
        """The traces of requests."""
        self.guests: dict[ConnectionId, Guest] = {}
        """The connections that the core knows, by number."""
        self.journal: JournalWriter | None = None
        """Writes the journal, where there is one."""
        self.over = ""
        """Why this life is over, "" while it is not."""
        if journal is not None:
            assert reopen is not None
            self.journal = JournalWriter(
                core,
                journal,
                waits_for_sync=durability == "disk",
                wake=lambda: self.pump.schedule(),
                flush=lambda: self.pump.flush(),
                carry_out=self._carry_out,
                reopen=reopen,
            )
        takes = None if self.journal is None else self.journal.take_effects
        self.pump = CoreLoop(
            core, self._carry_out, take_effects=takes, has_work_left=core.service.has_work_left
        )
        self._coordinator = coordinator
        self._on_state = on_state
        self._on_depart = on_depart
        self._links: dict[Replica, DialedPeer] = {}
        self._incoming: dict[Replica, AcceptedConnection] = {}
        self._grantees: dict[ConnectionId, Grantee] = {}
        self._framed: tuple[Message, bytes] | None = None
        self._dialed: Mapping[NodeId, Member] = {}
        self.pump.schedule()

    def end(self, reason: str) -> None:
        """Stop the core, its journal and all of its connections. From then on, connections are refused."""
        self.over = reason
        self.pump.stop()
        journal, self.journal = self.journal, None
        if journal is not None:
            journal.end()
        for link in self._links.values():
            link.dialer.close(reason)
        guests, self.guests = self.guests, {}
        for number in sorted(guests):
            if self.spans is not None:
                self.spans.left(number)  # the ends of these connections are not reported any more
            guests[number].close(reason)
        self._links.clear()
        self._incoming.clear()
        self._grantees.clear()

    # ----------------------------------------------------------------------- what comes in

    def receive(self, sender: Replica | ConnectionId, messages: list[Message], now_ns: int) -> int:
        """Hand the core messages: a peer's on our own connection to it, or those on an accepted connection.

        Returns:
            The monotonic clock at the end.
        """
        for message in messages:
            self.core.receive(sender, message, now_ns=now_ns)
        return self.pump.flush_if_idle(now_ns)

    def greet(self, guest: AcceptedConnection, hello: Message) -> None:
        """Let the core admit or refuse a connection by its first message, and carry that out at once.

        The next messages on the connection are read by the bounds of its role, so it must be admitted before them.

        Raises:
            Overloaded: the port has too many clients, which the listener alone counts.
            Unavailable: this life is over, and the next one has not begun.
            Denied: its client has shown nothing that lets it in.
        """
        if self.over:
            raise Unavailable(f"node {self.core.replica.node} answers no one yet: {self.over}")
        if isinstance(hello, ClientHello):
            # Before the core hears of it: there, a client's new connection ends its older one.
            guest.require_client_room()
        newcomer = self.gate.newcomer(hello, guest.certificate, origin=guest.remote)
        self.accept(guest.number, guest, newcomer)
        self.core.receive(guest.number, hello, now_ns=monotonic_ns())
        self.pump.flush()

    def accept(self, number: ConnectionId, guest: Guest, newcomer: Newcomer) -> None:
        """Report an accepted connection to the core, or end it if this life is over."""
        if self.over:
            guest.close(self.over)
            return
        self.guests[number] = guest
        if newcomer.access is not None:
            self._grantees[number] = newcomer.access
        self.core.connected(number, newcomer=newcomer, now_ns=monotonic_ns())

    def turn_away_expired(self) -> None:
        """End the connections whose credential is not accepted any more: their clients come back with another one."""
        for number in expired_among(self._grantees):
            guest = self.guests.get(number)
            if guest is not None:
                guest.turn_away(not_accepted(self._grantees[number]))

    def guest_left(self, guest: AcceptedConnection) -> None:
        """Report that an accepted connection has ended. Does nothing for a connection of another life."""
        if guest.number in self.guests:
            if isinstance(guest.tag, Replica) and self._incoming.get(guest.tag) is guest:
                del self._incoming[guest.tag]
            self.left(guest.number)

    def left(self, number: ConnectionId) -> None:
        """Report the end of a connection that the core knows."""
        if self.spans is not None:
            self.spans.left(number)
        self.guests.pop(number, None)
        self._grantees.pop(number, None)
        self.core.disconnected(number, now_ns=monotonic_ns())
        self.pump.schedule()

    # ----------------------------------------------------------------------- what goes out

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            # Plain tests of the type: this runs once for every message that the node sends.
            connection: Answerable | None
            if type(effect) is Send:
                to = effect.to
                if type(to) is int:  # a ConnectionId, which the checker does not see
                    connection = self.guests.get(to)  # type: ignore[unreachable]
                    if self.spans is not None:
                        self.spans.answered(to, effect.message)
                else:
                    connection = self._connection_to(to)
            elif type(effect) is Reply:
                connection = self._incoming.get(effect.to)
            else:
                self._carry_out_rare(effect)
                continue
            if connection is not None:
                connection.send(effect.message)
        self.outbox.flush()

    def _carry_out_rare(self, effect: Effect) -> None:
        match effect:
            case Broadcast(numbers, message):
                self._broadcast(numbers, message)
            case Publish(state):
                self._dial_members(state)
                name_cluster(state.cluster)
                self._on_state(state)
            case Close(to, reason):
                connection = self._connection_to(to)
                if connection is not None:
                    connection.close(reason)
            case Admit():
                self._admit(effect)
            case Refuse(to, refusal):
                self._refuse(to, error_of(refusal))
            case Note(name, text, asked_by, is_warning):
                by = None if asked_by is None else self.guests.get(asked_by)
                level = logging.WARNING if is_warning else logging.INFO
                whom = f", asked for by {by.remote}" if by is not None else ""
                log.log(level, "%s%s", text, whom, extra=event(name, remote="" if by is None else by.remote))
            case AuditEntry():
                self._audit(effect)
            case Depart():
                self._on_depart(effect)
            case _:
                raise AssertionError(f"a node core asked for {effect}")

    def _audit(self, entry: AuditEntry) -> None:
        if entry.connection is None:
            self.gate.record(entry, origin="")
            return
        guest, by = self.guests.get(entry.connection), self._grantees.get(entry.connection)
        via = by.identity.name if by is not None and entry.is_forwarded else ""
        self.gate.record(entry, origin="" if guest is None else guest.remote, via=via)

    def _broadcast(self, numbers: tuple[ConnectionId, ...], message: Message) -> None:
        # All routes go to each client that connects, the same object each time.
        if self._framed is None or self._framed[0] is not message:
            self._framed = message, encode_frame(message)
        frame = self._framed[1]
        for number in numbers:
            guest = self.guests.get(number)
            if isinstance(guest, AcceptedConnection):
                guest.send_frame(frame)
            elif guest is not None:
                guest.send(message)

    def _refuse(self, number: ConnectionId, error: LockringError) -> None:
        guest = self.guests.get(number)
        if guest is not None:
            if isinstance(error, Denied):
                self.gate.refused(error, origin=guest.remote, name=error.name)
            guest.turn_away(error)
        if not isinstance(guest, AcceptedConnection) or guest.role is None:
            self._grantees.pop(number, None)
            self.guests.pop(number, None)  # the end of a connection that was not admitted is not reported

    def _admit(self, effect: Admit) -> None:
        guest = self.guests.get(effect.to)
        if not isinstance(guest, AcceptedConnection):
            if guest is not None and effect.welcome is not None:
                guest.send(effect.welcome)  # a client in this process, which nothing bounds
            return
        guest.admit(PEER if effect.is_member else CLIENT, effect.welcome)
        if effect.peer is not None:
            guest.tag = effect.peer
            self._incoming[effect.peer] = guest

    def _connection_to(self, to: Endpoint) -> Answerable | None:
        if isinstance(to, int):
            return self.guests.get(to)
        if type(to) is Replica:
            link = self._links.get(to)
            return None if link is None else link.dialer.connection
        return self._coordinator()

    def _dial_members(self, state: ClusterState) -> None:
        if state.members is self._dialed:
            return  # as with most differences
        self._dialed = state.members
        for peer in [each for each in self._links if not state.is_current(each)]:
            link = self._links.pop(peer)
            if link.dialer.connection is not None:
                self.core.disconnected(peer, now_ns=monotonic_ns())
                self.pump.schedule()
            link.dialer.close("the cluster knows this node no longer")
        for member in state.members.values():
            peer = member.replica
            if peer.node != self.core.replica.node and peer not in self._links:
                self._links[peer] = link = DialedPeer(self, peer)
                link.dialer.start()
