"""The lock node: who it is, what it may serve now, and what it does at each input.

The node is made of three parts that share this object: its roles in slots (`node_roles`: reigns, copies, promises), the
replication to its copies (`node_replication`), and the service to clients (`node_service`). The slots themselves are
`NodeSlot`s. Sections 3 to 7 of the protocol are explained in `docs/architecture.md`.

Inputs only change state and note what is to be said; `take_effects`, once per turn, batches the replication, looks
at every right again, and gives out what may leave.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState, Replica, decode_state, encode_state, routes_differ, routes_of
from lockring.core.effects import (
    COORDINATOR,
    Close,
    Connection,
    Coordinator,
    Effect,
    Endpoint,
    Note,
    Publish,
    Reply,
    Send,
)
from lockring.core.node.dispatch import ClientRequests
from lockring.core.node.leases import Lease, SentTimes
from lockring.core.node.replicator import Replicator
from lockring.core.node.roles import SlotRoles
from lockring.core.node.sessions import NO_DEADLINE, Sessions
from lockring.core.node.slot import NodeSlot
from lockring.core.node.status import NodeStatus, status_of
from lockring.core.timing import Timing
from lockring.errors import ProtocolError
from lockring.protocol import (
    Acquire,
    HandOver,
    Heartbeat,
    HeartbeatAck,
    Message,
    Release,
    Replicate,
    ReplicateAck,
    Routes,
    SlotRequest,
    SlotRequestKind,
    SlotRequests,
    State,
)
from lockring.units import NS_PER_MS

TICK_NS: Final = 100 * NS_PER_MS
"""How often the node looks whether a copy or a primary has fallen silent."""

QUICK: Final = frozenset({Acquire, Release})
"""Requests of which any one is handled in some microseconds."""


class NodeCore:
    """A lock node without its I/O. Not thread-safe: one shell drives it (see `core.effects`).

    Attributes:
        replica: who this is.
        state: the newest cluster state it knows.
        slots: by number, those in which it has, or had, a role.
        now_ns: time of the last input.
        coordinator_lease: the coordinator's.
        locks_ended: held locks of slots that were taken from this node and given to no other.
    """

    def __init__(self, replica: Replica, *, timing: Timing | None = None, now_ns: int) -> None:
        """Make a node that knows no cluster yet.

        Args:
            replica: its id and incarnation.
            timing: how long things take; the two leases are the cluster state's.
            now_ns: the time.
        """
        self.replica = replica
        self.timing = timing if timing is not None else Timing()
        self.state = ClusterState()
        self.slots: dict[int, NodeSlot] = {}
        self.now_ns = now_ns
        self.sessions = Sessions()
        self.service = ClientRequests(self, self.sessions)
        self.replicator = Replicator(self)
        self.roles = SlotRoles(self)
        self._out: list[Effect] = []
        self._asks: dict[tuple[SlotRequestKind, int, str], SlotRequest] = {}
        self._coordinator_up = False
        self.coordinator_lease = Lease()
        self.locks_ended = 0
        self._heartbeats = SentTimes()
        self._heartbeat_at_ns = now_ns
        self._tick_at_ns = now_ns + TICK_NS
        self._armed_ns: int | None = None
        self._stalled_at_ns = now_ns - 100 * self.timing.stall_ns
        self._routes: Routes | None = None
        self._encoded: bytes | None = None

    # ------------------------------------------------------------------ inputs

    def receive(self, sender: Endpoint, message: Message, *, now_ns: int) -> None:
        """Take a message in.

        Args:
            sender: a client's connection (after `client_connected`), a peer's replica, or `COORDINATOR`.
            message: what it sent; what makes no sense from this sender is refused or ignored.
            now_ns: the time, read after the message had arrived.
        """
        self._enter(now_ns)
        if isinstance(sender, Connection):
            self.service.receive(sender, message, now_ns)
        elif isinstance(message, State):
            self._receive_state(message, now_ns)
        elif isinstance(sender, Coordinator):
            if isinstance(message, HeartbeatAck):
                self._heartbeat_acknowledged(message, now_ns)
        elif isinstance(message, Replicate):
            self.roles.replicated(sender, message, now_ns)
        elif isinstance(message, ReplicateAck):
            self.replicator.acknowledged(sender, message, now_ns)
            self.service.retry_parked(now_ns)
        elif isinstance(message, HandOver):
            self.roles.handed_over(message, now_ns)

    def requests(self, connection: Connection, messages: list[Message], *, now_ns: int) -> int:
        """Take in what a client has sent, as `receive` for each, in fewer steps: up to the first message that may take
        long, so that the shell can look at its clock, or that is no request to a node's core.

        Returns:
            How many were taken; 0 if the first one is for somebody else.
        """
        self._enter(now_ns)
        service = self.service
        for place, message in enumerate(messages):
            kind = type(message)
            if kind in QUICK:
                service.receive(connection, message, now_ns)
            elif kind in service.handlers:
                service.receive(connection, message, now_ns)
                return place + 1
            else:
                return place
        return len(messages)

    def client_connected(self, connection: Connection, client: str, number: int, *, now_ns: int) -> None:
        """A client's hello was welcomed on `connection`; it is told the routes at once.

        Args:
            connection: the shell's number for it.
            client: the client's random id.
            number: which of its connections this is; lower ones of the same client end.
            now_ns: the time.
        """
        self._enter(now_ns)
        self.service.connected(connection, client, number)
        if connection in self.service.connections:
            self.send(connection, self.routes())

    def disconnected(self, endpoint: Endpoint, *, now_ns: int) -> None:
        """A client's connection, our own connection to a peer, or the one to the coordinator is gone."""
        self._enter(now_ns)
        if isinstance(endpoint, Connection):
            self.service.disconnected(endpoint)
        elif isinstance(endpoint, Coordinator):
            self._coordinator_up = False
        else:
            self.replicator.disconnected(endpoint, now_ns)

    def peer_connected(self, peer: Replica, *, now_ns: int) -> None:
        """Our own connection to this life of a peer stands and was welcomed."""
        self._enter(now_ns)
        self.replicator.connected(peer, now_ns)

    def coordinator_connected(self, *, now_ns: int) -> None:
        """The coordinator has let us join: a heartbeat goes out at once."""
        self._enter(now_ns)
        self._coordinator_up = True
        self._heartbeat_at_ns = now_ns
        self._heartbeat(now_ns)

    def adopt(self, state: ClusterState, *, now_ns: int) -> bool:
        """Take a cluster state if it is newer than the one known, and of the same cluster; whether it was."""
        self._enter(now_ns)
        old = self.state
        if state.version <= old.version or (old.cluster and state.cluster != old.cluster):
            return False
        self.state = state
        self._encoded = None
        if routes_differ(old, state):
            self._routes = None
            for connection in self.service.connections:
                self.send(connection, self.routes())
        released = self.roles.released
        self.roles.change(old, state, now_ns)
        if self.roles.released != released and self._coordinator_up:
            self._heartbeat(now_ns)  # at once, since this process is about to end
        self.coordinator_lease.learned(state.version)
        self.replicator.learned(state)
        self.roles.begin_due(now_ns)
        self.service.retry_parked(now_ns)
        self._out.append(Publish(state))
        return True

    def next_deadline_ns(self) -> int:
        """When `on_timer` is to be called."""
        if self._armed_ns is not None:
            return self._armed_ns  # nothing has come in since `take_effects`
        at_ns = self._tick_at_ns
        if self._coordinator_up and self._heartbeat_at_ns < at_ns:
            at_ns = self._heartbeat_at_ns
        if self.replicator.links:
            at_ns = self.replicator.deadline_before_ns(at_ns)
        to_begin = self.roles.to_begin.heap
        if to_begin and to_begin[0][0] < at_ns:
            at_ns = to_begin[0][0]
        service = self.service.deadline_before_ns(at_ns)
        if service < at_ns:
            at_ns = min(at_ns, max(service, self._catching_up_until_ns()))
        return at_ns

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due: heartbeats, new reigns, expiry, and a look at who has fallen silent."""
        self._enter(now_ns)
        if now_ns >= self._heartbeat_at_ns and self._coordinator_up:
            self._heartbeat(now_ns)
        self.roles.begin_due(now_ns)
        if not self.is_catching_up(now_ns):
            self.service.on_timer(now_ns)
        if now_ns >= self._tick_at_ns:
            self._tick_at_ns = now_ns + TICK_NS
            self.replicator.check_copies(now_ns)
            self.roles.check_primaries(now_ns)
            self.service.on_tick(now_ns)

    def take_effects(self, *, now_ns: int) -> list[Effect]:
        """What is to be done, in order. Rights are looked at now, so `now_ns` must be a fresh reading."""
        if self._armed_ns is not None:
            self._enter(now_ns)  # nothing has come in before
        elif now_ns > self.now_ns:
            self.now_ns = now_ns
        if self.replicator.links:
            self.replicator.replicate(now_ns)
        if self.service.locking.unanswered:
            self.service.locking.answer_grants(now_ns)
        if self.service.watching.changed:
            self.service.watching.tell_all(now_ns)
        if self.service.groups.open:
            self.service.groups.tell(now_ns)
        if self._asks:
            self._send_asks()
        effects, self._out = self._out, []
        self._armed_ns = self.next_deadline_ns()
        return effects

    # ------------------------------------------------------------------ rights

    def may_serve(self, slot: int, *, now_ns: int) -> bool:
        """Whether this node is the active primary of a slot, and nobody can have replaced it at this time."""
        data = self.slots.get(slot)
        reign = None if data is None else data.reign
        if reign is None or self.coordinator_lease.until_ns <= now_ns:
            return False
        for stream in reign.streams.values():
            if stream.required:
                lease = stream.link.lease
                if lease.until_ns <= now_ns or lease.version < reign.since:
                    return False
        return True

    def may_serve_everything(self, now_ns: int) -> bool:
        """Whether `may_serve` holds for every slot in which this node is active. May say no where the answer is yes."""
        return self.coordinator_lease.until_ns > now_ns and self.replicator.has_all_leases(now_ns)

    def coordinator_lease_left_ns(self, now_ns: int) -> int:
        """How much is left of the coordinator's lease; negative if it is over."""
        return self.coordinator_lease.until_ns - now_ns

    def is_catching_up(self, now_ns: int) -> bool:
        """Whether this process stood still a moment ago, so that what has arrived meanwhile is to be read first."""
        return now_ns < self._catching_up_until_ns()

    def is_drained(self) -> bool:
        """Whether no slot of the state names this node any more."""
        me = self.replica
        return all(slot.primary != me and slot.copy_of(me) is None for slot in self.state.slots)

    # ------------------------------------------------------------------ for the parts

    def send(self, to: Endpoint, message: Message) -> None:
        """Send a message with this turn's effects."""
        self._out.append(Send(to, message))

    def note(self, text: str, asked_by: Connection | None = None) -> None:
        """Have a line written to the log."""
        self._out.append(Note(text, asked_by))

    def reply(self, to: Replica, message: Message) -> None:
        """Answer a peer on the connection that it opened."""
        self._out.append(Reply(to, message))

    def close(self, connection: Connection, reason: str) -> None:
        """Close a client's connection."""
        self._out.append(Close(connection, reason))

    def ask(self, kind: SlotRequestKind, item: SlotRequest) -> None:
        """Ask the coordinator for something with this turn's effects; asking twice in a turn asks once."""
        self._asks[kind, item.slot, item.node] = item

    def ask_for_generations(self, slot: int) -> None:
        """Ask for more generations in a slot."""
        state = self.state.slots[slot]
        self.ask(SlotRequestKind.EXTEND, SlotRequest(slot, state.epoch, below=state.generation_below))

    def routes(self) -> Routes:
        """Where the primaries are, by the newest state."""
        if self._routes is None:
            self._routes = routes_of(self.state)
        return self._routes

    def encoded_state(self) -> bytes:
        """The newest state, serialized."""
        if self._encoded is None:
            self._encoded = encode_state(self.state)
        return self._encoded

    # ------------------------------------------------------------------ looking inside

    def status(self, *, now_ns: int = 0) -> NodeStatus:
        """This node in figures, its rights as of `now_ns` or the last input, if that was later."""
        return status_of(self, max(now_ns, self.now_ns))

    def check_invariants(self) -> None:
        """Assert that the parts of this node fit together."""
        waiters = 0
        counts: dict[str, tuple[int, int]] = {}
        for number, data in self.slots.items():
            data.check_invariants()
            reign = data.reign
            if reign is None:
                continue
            state = self.state.slots[number]
            assert state.since == reign.since
            assert state.primary == self.replica
            if not data.table.locks:
                continue
            waiters += sum(len(lock.waiters or ()) for lock in data.table.locks.values())
            for share in data.table.shares.values():
                count, digest = counts.get(share.session.id, (0, 0))
                counts[share.session.id] = (count + share.count, digest ^ share.digest)
        assert waiters == self.service.locking.waiters
        assert waiters == sum(len(client.waiters) for client in self.service.connections.values())
        for session in self.sessions.by_id.values():
            assert (session.count, session.digest) == counts.get(session.id, (0, 0))
            assert session.tables or session.deadline_ns != NO_DEADLINE
        self.replicator.check_invariants()
        self.service.groups.check_invariants()

    # ------------------------------------------------------------------ inner

    def _enter(self, now_ns: int) -> None:
        armed_ns, self._armed_ns = self._armed_ns, None
        stall_ns = self.timing.stall_ns
        if (
            armed_ns is not None
            and now_ns > armed_ns + stall_ns
            and now_ns > self._stalled_at_ns + 10 * stall_ns
        ):
            self._stalled_at_ns = now_ns
        if now_ns > self.now_ns:
            self.now_ns = now_ns

    def _catching_up_until_ns(self) -> int:
        return self._stalled_at_ns + self.timing.stall_ns // 2

    def _receive_state(self, message: State, now_ns: int) -> None:
        try:
            state = decode_state(message.state)
        except ProtocolError:
            return  # a peer's or coordinator's bug must not take this node down; the next state will do
        self.adopt(state, now_ns=now_ns)

    def _heartbeat(self, now_ns: int) -> None:
        self._heartbeat_at_ns = now_ns + self.timing.heartbeat_for_ns(self.state.coordinator_lease_ms)
        self.send(
            COORDINATOR,
            Heartbeat(
                self._heartbeats.sent(now_ns),
                self.state.version,
                locks=sum(len(data.table.locks) for data in self.slots.values() if data.reign is not None),
                waiters=self.service.locking.waiters,
                sessions=len(self.sessions),
                released=self.roles.released,
                promised_ms=max(0, -((now_ns - self.roles.promised_until_ns) // NS_PER_MS)),
            ),
        )

    def _heartbeat_acknowledged(self, message: HeartbeatAck, now_ns: int) -> None:
        sent_at_ns = self._heartbeats.take(message.sequence)
        if sent_at_ns is not None:
            lease_ns = self.state.coordinator_lease_ms * NS_PER_MS
            self.coordinator_lease.acknowledged(sent_at_ns + lease_ns, message.version, self.state.version)
            self.service.troubles.acknowledged(message, now_ns)
            self.service.retry_parked(now_ns)

    def _send_asks(self) -> None:
        asks, self._asks = self._asks, {}
        if not self._coordinator_up:
            return
        by_kind: dict[SlotRequestKind, list[SlotRequest]] = {}
        for (kind, _, _), item in asks.items():
            by_kind.setdefault(kind, []).append(item)
        for kind, items in by_kind.items():
            self.send(COORDINATOR, SlotRequests(kind, items))
