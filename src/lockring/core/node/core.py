"""The lock node: what it does at each input.

It is made of parts that know nothing of each other, and this module is what joins them:

- `context`: what all of them share: who the node is, what it knows and may do, and where its messages go.
- `coordinator_tie`: heartbeats, and the lease that they bring.
- `states`: which cluster states it takes.
- `roles`: what a new cluster state makes of the node in each slot, and when its reigns begin and end.
- `copies`: the node as a copy of others' slots.
- `replicator`: its links to peers, and the streams to the copies of its own slots.
- `orders`: what operators want of the coordinator.
- `admission`: which connections are clients' and peers'; `greetings`: which servers the node works with.
- `service`: all that clients see.
- `departure`: what a node that leaves still waits for.
- `journal`: entries for the disk; `recovery`, `former_lives`: those of earlier lives.

A node with a journal has more outputs and inputs. Before each `take_effects` its shell calls `take_journal`. If that
returns a batch, the shell carries out what `take_ahead` returns, and writes the batch. It calls `journaled` once that
is as durable as was asked for. Where writing is enough it does so before `take_effects`, so that the answers leave in
the same turn.

Inputs change state and collect effects; `take_effects`, once per turn, batches the replication, looks at every right
again, and gives out what may leave. `docs/architecture.md` explains the protocol.
"""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState, Replica
from lockring.core.access import UNCHECKED, GranteeOf, Newcomer
from lockring.core.effects import Coordinator, Effect, Endpoint
from lockring.core.journal import JournalBatch, JournalFound
from lockring.core.node.admission import FROM_PEER, Admission
from lockring.core.node.context import NodeContext
from lockring.core.node.coordinator_tie import CoordinatorTie
from lockring.core.node.copies import Copies
from lockring.core.node.counters import NodeCounters
from lockring.core.node.departure import Departure
from lockring.core.node.former_lives import FormerLives
from lockring.core.node.greetings import JoinFacts, check_coordinator, check_peer, hello_to, join_facts
from lockring.core.node.invariants import check_content, check_quotas
from lockring.core.node.journal import NodeJournal
from lockring.core.node.leases import Promises
from lockring.core.node.orders import OperatorOrders
from lockring.core.node.recovery import recover
from lockring.core.node.replicator import Replicator
from lockring.core.node.roles import SlotChange, SlotRoles
from lockring.core.node.service import ClientService
from lockring.core.node.sessions import Sessions
from lockring.core.node.slot import NodeSlot
from lockring.core.node.states import StateChange, take, take_whole
from lockring.core.node.status import NodeStatus
from lockring.core.timing import Timing
from lockring.errors import ProtocolError
from lockring.ids import ConnectionId, SlotNumber
from lockring.protocol import (
    Acquire,
    DrainReply,
    HandOver,
    HeartbeatAck,
    Message,
    PeerHello,
    Refusal,
    Release,
    Replicate,
    ReplicateAck,
    State,
    StateDifference,
    UndrainReply,
    Welcome,
)
from lockring.units import NS_PER_MS

_NOT_ARMED: Final = -1

TICK_NS: Final = 100 * NS_PER_MS
"""How often the node looks whether a copy or a primary has fallen silent."""

QUICK: Final = frozenset({Acquire, Release})
"""Requests that take only microseconds to handle."""


class NodeCore:
    """A lock node without its I/O, a `core.machine.Machine`. Not safe for use by several threads.

    Attributes:
        sessions: the sessions of clients, served and copied.
        service: what clients see.
    """

    def __init__(
        self,
        replica: Replica,
        *,
        timing: Timing | None = None,
        journal: JournalFound | None = None,
        durability: str = "none",
        grantee_of: GranteeOf | None = None,
        audits: bool = False,
        now_ns: int,
    ) -> None:
        """Make a node that knows no cluster yet.

        Args:
            replica: its id and incarnation.
            timing: how long things take; the two leases are the cluster state's.
            journal: the journal of its former lives, which this one goes on with; None to keep none. Reading it takes
                some 3 µs for each holder and mutation in it.
            durability: how durable the shell keeps the journal, as a word for people.
            grantee_of: returns the rights of an identity for which another server asks; None to check no rights.
            audits: whether to report acts for an audit log.
            now_ns: the time.
        """
        self._context = NodeContext(replica, timing if timing is not None else Timing(), now_ns)
        self.sessions = Sessions(self._context.outbox.wake)
        self._context.durability = durability
        self._context.outbox.audits = audits
        if journal is not None:
            self._take_up(journal, now_ns)
        self._coordinator = CoordinatorTie(self._context)
        self._orders = OperatorOrders(self._context, self._coordinator)
        self.service = ClientService(
            self._context, self.sessions, self._coordinator, self._orders, grantee_of=grantee_of
        )
        self._replicator = Replicator(self._context)
        promises = Promises()
        self._roles = SlotRoles(self._context, self.sessions, self._replicator, promises)
        self._copies = Copies(self._context, self._replicator, promises)
        self._admission = Admission(self._context)
        self._departure: Departure | None = None
        self._tick_at_ns = now_ns + TICK_NS
        # When the shell must call `on_timer`, as it knows since `take_effects`; not once something has come in.
        self._armed_ns = _NOT_ARMED

    # ------------------------------------------------------------------ inputs

    def connected(self, endpoint: Endpoint, *, newcomer: Newcomer = UNCHECKED, now_ns: int) -> None:
        """Hear that a connection is open.

        Args:
            endpoint: one that was accepted, whose first message says what it is; a peer, on which our own connection
                was welcomed; or `COORDINATOR`, which has let this node join.
            newcomer: an accepted one's rights as a client, and the nodes that its other side may be.
            now_ns: the time.
        """
        self._enter(now_ns)
        if isinstance(endpoint, int):
            self._admission.connected(endpoint, newcomer)
        elif isinstance(endpoint, Coordinator):
            self._coordinator.connected()
            self._heartbeat(now_ns)  # at once: a node without a lease serves nothing
            self._look_at_departure(now_ns)
        else:
            self._replicator.connected(endpoint, now_ns)

    def receive(self, sender: Endpoint, message: Message, *, now_ns: int) -> None:
        """Take a message in.

        Args:
            sender: an accepted connection, a peer on our own connection to it, or `COORDINATOR`.
            message: what it sent; what makes no sense from this sender is refused or ignored.
            now_ns: the time, read after the message had arrived.
        """
        self._enter(now_ns)
        if isinstance(sender, int):
            peer = self._admission.peers.get(sender)
            if peer is None:
                if sender in self.service.clients.by_connection:
                    self.service.requests.receive(sender, message, now_ns)
                    return
                admitted = self._admission.greet(sender, message)
                if admitted is not None:
                    self.service.connected(sender, admitted)
                return
            if type(message) not in FROM_PEER:
                self._admission.refuse_message(sender, message)
                return
            sender = peer
        if isinstance(sender, Coordinator):
            self._receive_from_coordinator(message, now_ns)
        elif isinstance(message, Replicate):
            self._copies.replicated(sender, message, now_ns)
        elif isinstance(message, ReplicateAck):
            self._replicator.acknowledged(sender, message, now_ns)
            self.service.requests.retry_parked(now_ns)
        elif isinstance(message, HandOver):
            self._change_slots(self._roles.handed_over(message, now_ns), now_ns)
            self.service.requests.retry_parked(now_ns)
        elif isinstance(message, (State, StateDifference)):
            # The peer sees by the next acknowledgement, or heartbeat, whether it fitted.
            self._receive_state(message, now_ns)

    def _receive_from_coordinator(self, message: Message, now_ns: int) -> None:
        match message:
            case State() | StateDifference():
                if not self._receive_state(message, now_ns) and not self._coordinator.is_astray:
                    self._coordinator.is_astray = True
                    self._heartbeat(now_ns)  # at once: it asks for the whole state
            case HeartbeatAck():
                if self._coordinator.acknowledged(message):
                    self.service.troubles.acknowledged(message, now_ns)
                    self.service.requests.retry_parked(now_ns)
            case DrainReply() | UndrainReply() | Refusal() if message.request:
                self._answered(message)
            case Refusal():
                self._context.outbox.warn(
                    "refused-by-coordinator", f"the coordinator refuses: {message.text}"
                )

    def _answered(self, answer: DrainReply | UndrainReply | Refusal) -> None:
        """Give an answer of the coordinator to the part that has asked."""
        departure = self._departure
        if departure is None or not departure.awaits(answer.request):
            self._orders.answered(answer)
        elif not isinstance(answer, UndrainReply):
            departure.answered(answer)

    def requests(self, connection: ConnectionId, messages: list[Message], *, now_ns: int) -> int:
        """Take requests of a client in as `receive` would, but in fewer steps.

        An input beside the contract's, for the requests of one read. It ends after the first message that may take
        long, so that the shell can look at its clock.

        Returns:
            How many were taken: at least one, if there was one.
        """
        self._enter(now_ns)
        requests = self.service.requests
        taken = 0
        for message in messages:
            requests.receive(connection, message, now_ns)
            taken += 1
            if type(message) not in QUICK:
                break
        return taken

    def disconnected(self, endpoint: Endpoint, *, now_ns: int) -> None:
        """Hear that a connection is over: an accepted one, our own to a peer, or the one to the coordinator.

        Args:
            endpoint: as for `connected`.
            now_ns: the time.
        """
        self._enter(now_ns)
        if isinstance(endpoint, int):
            self._admission.disconnected(endpoint)
            self.service.disconnected(endpoint)
        elif isinstance(endpoint, Coordinator):
            self._coordinator.disconnected(now_ns)
            self._orders.coordinator_lost()
            if self._departure is not None:
                self._departure.coordinator_lost()
        else:
            self._replicator.disconnected(endpoint, now_ns)

    def coordinator_missing(self, why: str) -> None:
        """Hear why the coordinator is not reached, as a sentence for people; it holds until the next connection."""
        self._coordinator.missing(why)

    def leave(self, *, timeout_ns: int, now_ns: int) -> None:
        """Begin to leave the cluster; `effects.Depart` says when the node may stop.

        Args:
            timeout_ns: how long that may take at most.
            now_ns: the time.
        """
        self._enter(now_ns)
        self._departure = Departure(
            self._context, self._coordinator, self._roles.released, until_ns=now_ns + timeout_ns
        )
        self._departure.look(now_ns)

    def adopt(self, state: ClusterState, *, now_ns: int) -> bool:
        """Take a cluster state if it may follow the known one (see `states`), and return whether it was taken."""
        self._enter(now_ns)
        change = take_whole(self._context, state)
        if change is not None:
            self._learned(change, now_ns)
        return change is not None

    def _learned(self, change: StateChange, now_ns: int) -> None:
        """Act on a state that was taken."""
        context = self._context
        state = context.state
        self._coordinator.is_astray = False
        reroutes = context.routes.learn(state, change.slots)
        if not change.old.cluster and state.cluster:
            self._send_back_those_without_id()
        if reroutes:
            self.service.send_routes()
        released = self._roles.released.digest
        self._change_slots(self._roles.change(change, now_ns), now_ns)
        self._copies.learned(state, now_ns)
        if self._roles.released.digest != released and self._coordinator.is_up:
            self._heartbeat(now_ns)  # at once, since this process is about to end
        context.rights.coordinator_lease.learned(state.version)
        self._replicator.learned(state)
        self._change_slots(self._roles.begin_due(now_ns), now_ns)
        self.service.requests.retry_parked(now_ns)
        context.outbox.publish(state)
        self._look_at_departure(now_ns)

    def _send_back_those_without_id(self) -> None:
        """End the connections of clients that were welcomed before this node had a cluster; they come back at once."""
        for connection in self._admission.pop_welcomed_without_id():
            self.service.disconnected(connection)
            self._context.outbox.close(connection, "the node has joined a cluster: come back for its id")

    def next_deadline_ns(self) -> int:
        """Return when the shell must call `on_timer`."""
        return self._armed_ns if self._armed_ns != _NOT_ARMED else self._deadline_ns()

    def _deadline_ns(self) -> int:
        at_ns, journal = self._context.outbox.wake_at_ns, self._context.journal
        if journal is None or journal.next.due_ns >= at_ns:
            return at_ns
        return max(journal.next.due_ns, self._context.now_ns)

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due: heartbeats, new reigns, expiry, and a search for silent copies and primaries."""
        self._enter(now_ns)
        if self._coordinator.is_up and now_ns >= self._coordinator.heartbeat_at_ns:
            self._heartbeat(now_ns)
        self._change_slots(self._roles.begin_due(now_ns), now_ns)
        if now_ns >= self._context.catching_up_until_ns:
            self.service.on_timer(now_ns)
        if now_ns >= self._tick_at_ns:
            self._tick_at_ns = now_ns + TICK_NS
            self._replicator.check_copies(now_ns)
            self._copies.check_primaries(now_ns)
            self._copies.acknowledge_late(now_ns)
            self.service.on_tick(now_ns)
            self._look_at_departure(now_ns)

    def take_effects(self, *, now_ns: int) -> list[Effect]:
        """Hand out the pending effects, in order. Rights are checked here, so `now_ns` must be a fresh reading."""
        context, outbox = self._context, self._context.outbox
        if self._armed_ns != _NOT_ARMED:
            self._enter(now_ns)  # nothing has come in before
        elif now_ns > context.now_ns:
            context.now_ns = now_ns
        if self._replicator.links:
            self._replicator.replicate(now_ns)
        self.service.answer(now_ns)
        if outbox.asks:
            self._coordinator.send_asks()
        if outbox.wake_at_ns <= now_ns:
            outbox.wake_at_ns = self._soonest_ns()
        effects, outbox.effects = outbox.effects, []
        self._armed_ns = self._deadline_ns()
        return effects

    # ------------------------------------------------------------------ the journal

    def take_journal(self, *, now_ns: int, is_end: bool = False) -> JournalBatch | None:
        """Return what must be written now, None if nothing is due. Each batch is handed out once.

        Called before `take_effects`, in every turn. The first batch of a life says that it has begun, and must be
        durable before the life joins.

        Args:
            now_ns: the time.
            is_end: whether this life ends, so that all that is left is due.
        """
        journal = self._context.journal
        if journal is None or (now_ns < journal.next.due_ns and not is_end):
            return None
        return journal.take_rest(now_ns) if is_end else journal.take_batch(now_ns)

    def take_ahead(self, *, now_ns: int) -> list[Effect]:
        """Hand out the effects of this turn that need not wait for the batch that `take_journal` has just returned.

        A grant waits until this node and its copies have it on disk. So its copies get it first: they write it while
        this node does. Nothing leaves here unless there is urgent news for a copy.

        Args:
            now_ns: the time, read in this turn.
        """
        replicator = self._replicator
        if not replicator.with_news.urgent:
            return []
        context = self._context
        if now_ns > context.now_ns:
            context.now_ns = now_ns
        replicator.replicate(now_ns)
        effects, context.outbox.effects = context.outbox.effects, []
        return effects

    def journaled(self, number: int, *, now_ns: int) -> None:
        """Hear that all batches up to one are as durable as was asked for. Answers that wait for them may leave.

        Args:
            number: of the batch.
            now_ns: the time.
        """
        if self._armed_ns != _NOT_ARMED:
            self._enter(now_ns)
        journal = self._context.journal
        assert journal is not None
        journal.journaled(number)
        # With a lone grant, each call that can be left out is felt in its time.
        if self._copies.held.waiting:
            self._copies.journaled()
        if self._departure is not None:
            self._departure.look(now_ns)

    def journal_lost(self, reason: str, *, now_ns: int) -> None:
        """Hear that batches after the last durable one are lost, and that nothing can be written for now.

        Renewals and releases go on. Grants, and acknowledgements to primaries, wait until a `rewrite` is durable.

        Args:
            reason: a sentence for people, on what failed and where.
            now_ns: the time.
        """
        self._enter(now_ns)
        journal = self._context.journal
        assert journal is not None
        journal.lost(reason, now_ns)
        self._copies.journal_lost()

    def rewrite(self, *, now_ns: int) -> None:
        """Write all that is here again, from the next batch on: to shorten the journal, or after a loss.

        Meanwhile `take_journal` hands out batches with a part of it each, and then one that `ends_rewrite`.

        Args:
            now_ns: the time.
        """
        self._enter(now_ns)
        journal = self._context.journal
        assert journal is not None
        journal.begin_rewrite(self.state, now_ns)

    @property
    def journal_trouble(self) -> str:
        """Why something is missing from the journal, as a sentence; "" if nothing is."""
        journal = self._context.journal
        return "" if journal is None else journal.trouble

    def join_facts(self) -> JoinFacts:
        """Return what this node says of itself and its former lives in a `Join`."""
        journal = self._context.journal
        return join_facts(self.state, None if journal is None else journal.former)

    # ------------------------------------------------------------------ for shells

    def hello_to(self, peer: Replica) -> PeerHello:
        """Return the first message on this node's own connection to one life of a peer."""
        return hello_to(peer, me=self.replica, state=self.state)

    def check_peer(self, peer: Replica, welcome: Welcome, *, address: str) -> None:
        """Check the answer to `hello_to`, before the core hears that the connection is open.

        Raises:
            LockringError: the connection must end, since another life has answered.
        """
        check_peer(welcome, peer, address)

    def greet_coordinator(self, welcome: Welcome, *, address: str, has_others: bool = False) -> None:
        """Take the answer to a `Join`, before `connected`; `has_others`: whether the shell knows of several.

        Raises:
            LockringError: the connection must end, since this node may not join what has answered.
        """
        check_coordinator(welcome, self.join_facts().cluster, address)
        self._coordinator.has_others = has_others or welcome.has_others

    @property
    def counters(self) -> NodeCounters:
        """The counts for metrics."""
        return self._context.outbox.counters

    @property
    def replica(self) -> Replica:
        """The node's identity: its id and its incarnation."""
        return self._context.replica

    @property
    def state(self) -> ClusterState:
        """The newest cluster state that the node knows."""
        return self._context.state

    @property
    def slots(self) -> dict[SlotNumber, NodeSlot]:
        """By number, the slots in which the node has, or had, a role."""
        return self._context.slots

    def may_serve(self, number: SlotNumber, *, now_ns: int) -> bool:
        """Return whether this node is a slot's active primary and cannot have been replaced by `now_ns`."""
        return self._context.rights.may_serve(number, now_ns=now_ns)

    @property
    def is_leaving(self) -> bool:
        """Whether this node has the order to leave."""
        return self._departure is not None

    @property
    def away_since_ns(self) -> int | None:
        """Since when this node has not been in touch with the coordinator; None while it is."""
        return self._coordinator.away_since_ns

    @property
    def had_lease(self) -> bool:
        """Whether the coordinator has ever given this node its lease."""
        return self._context.rights.coordinator_lease.version > 0

    @property
    def locks_back(self) -> int:
        """How many locks the journal of former lives had in slots whose primary this life is now."""
        journal = self._context.journal
        return 0 if journal is None else journal.former.locks_back

    @property
    def beginning(self) -> int:
        """How many slots this node will serve once promises to their former primaries are over."""
        return self._roles.beginning

    def coordinator_lease_left_ns(self, now_ns: int) -> int:
        """Return what is left of the coordinator's lease; negative once it is over."""
        return self._context.rights.coordinator_lease_left_ns(now_ns)

    def status(self, *, now_ns: int = 0) -> NodeStatus:
        """Return this node in figures, its rights as of `now_ns` or the last input, if that was later."""
        return self.service.reports.status(now_ns)

    def check_invariants(self) -> None:
        """Assert that the parts of this node fit together. It changes nothing, not even what is computed late."""
        waiters = check_content(self._context, self.sessions)
        clients = self.service.clients.by_connection.values()
        check_quotas(self.sessions, [each.access for each in clients if each.access is not None])
        self._replicator.check_invariants()
        self.service.check_invariants(waiters)

    # ------------------------------------------------------------------ inner

    def _take_up(self, found: JournalFound, now_ns: int) -> None:
        """Go on with the journal of former lives."""
        context = self._context
        recovery = recover(found, self.sessions, now_ns)
        context.slots.update(recovery.slots)
        former = FormerLives(context.replica, recovery, now_ns)
        context.journal = NodeJournal(context.replica, context.slots, former, now_ns=now_ns)
        if recovery.damage:
            context.outbox.warn(
                "journal-doubted",
                f"the journal contradicts itself, so nothing of it is used: {recovery.damage}",
            )

    def _enter(self, now_ns: int) -> None:
        """Note the time of an input, and give it to what has arrived first if the process stood still before it."""
        context, armed_ns = self._context, self._armed_ns
        if armed_ns != _NOT_ARMED:
            self._armed_ns = _NOT_ARMED
            stall_ns = context.timing.stall_ns
            if now_ns > armed_ns + stall_ns:
                # Not again soon after the last time, or a process that is always late would never expire anything.
                if now_ns > context.catching_up_until_ns + 10 * stall_ns - stall_ns // 2:
                    context.catching_up_until_ns = now_ns + stall_ns // 2
        if now_ns > context.now_ns:
            context.now_ns = now_ns

    def _soonest_ns(self) -> int:
        """Return when there will be something to do, apart from the journal."""
        at_ns = min(self._tick_at_ns, self._roles.to_begin.soonest_ns)
        if self._coordinator.is_up:
            at_ns = min(at_ns, self._coordinator.heartbeat_at_ns)
        at_ns = self._replicator.deadline_before_ns(at_ns)
        service_ns = self.service.deadline_before_ns(at_ns)
        return min(at_ns, max(service_ns, self._context.catching_up_until_ns))

    def _receive_state(self, message: State | StateDifference, now_ns: int) -> bool:
        """Take a state in that came, and return False if it was a difference that did not fit."""
        try:
            change = take(self._context, message)
        except ProtocolError:
            # A bug of a peer or of the coordinator must not take this node down; another state will do.
            return isinstance(message, State)
        if change is not None:
            self._learned(change, now_ns)
        return True

    def _change_slots(self, changes: list[SlotChange], now_ns: int) -> None:
        if changes:
            self.service.slots_changed(changes, now_ns)

    def _look_at_departure(self, now_ns: int) -> None:
        if self._departure is not None:
            self._departure.look(now_ns)

    def _heartbeat(self, now_ns: int) -> None:
        self._coordinator.heartbeat(
            waiters=self.service.grants.waiters,
            sessions=len(self.sessions),
            released=self._roles.released,
            now_ns=now_ns,
        )
        self._context.outbox.wake(self._coordinator.heartbeat_at_ns)
