"""The coordinator without I/O: it alone decides which node has which slot.

Its parts know nothing of each other; this module joins them:

- `term`: the right to write, all reads and writes of the store, versions.
- `clients`: which connections await a hello, which are clients', and which routes and notices these have.
- `client_answers`: what clients are answered.
- `roster`: which nodes are connected or wait for the term to join, and the members of the next state.
- `member_leases`: when each member was heard and acknowledged, and the stabilization window.
- `heartbeats`: which heartbeats wait to be acknowledged, and by which read of the store.
- `decisions`: the next state, from all that wants a change: members, requests of nodes (`slot_requests`), farewells,
  and the reconciler.
- `reconciler_runs` and `reconciler`: the next safe step from where the slots are to where the ring wants them.
- `state_broadcast`: the encoded state, and when it was sent to which node.

Rules that hold here:

- Nothing is decided before the own term is in the store; joins that come earlier wait for it.
- At most one write is under way. Input that arrives meanwhile goes into the next one; requests of nodes do not wait for
  the reconciler's next turn. Only a state that is in the store is published.
- A heartbeat is acknowledged after a read of the store that was begun after it arrived and that bears the own term;
  not while a write that takes slots from its sender is under way.
- A coordinator that has lost the term refuses every connection and does nothing more.

Reads, writes and plans begin in `take_effects`, so that all input of one turn shares them.
"""

from __future__ import annotations

import msgspec

from lockring.cluster_state import ClusterState, Member, Relocation, Replica, Replication
from lockring.core.access import UNCHECKED, GranteeOf, Newcomer
from lockring.core.coordinator.client_answers import ClientAnswers, Question
from lockring.core.coordinator.clients import Clients, welcome_to
from lockring.core.coordinator.clocks import Clocks
from lockring.core.coordinator.decisions import Decisions, Moment
from lockring.core.coordinator.heartbeats import Heartbeats
from lockring.core.coordinator.invariants import Checks
from lockring.core.coordinator.join_checks import (
    contradicted,
    foreign,
    malformed,
    not_the_latest,
    outdated,
    unproven,
)
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.misplaced import why_not_first, why_not_taken
from lockring.core.coordinator.pace import Pace
from lockring.core.coordinator.reconciler_runs import ReconcilerRuns
from lockring.core.coordinator.roster import Roster, described
from lockring.core.coordinator.slot_requests import check_requests
from lockring.core.coordinator.state_broadcast import StateBroadcast
from lockring.core.coordinator.status import (
    CoordinatorStatus,
    left_ms_of,
    note_of,
    status_of,
    wait_reason_of,
)
from lockring.core.coordinator.store_health import StoreNews, StoreTrouble
from lockring.core.coordinator.term import News, Phase, Term, TermSettings
from lockring.core.coordinator.transitions import VERSION_MAX
from lockring.core.effects import Admit, Close, Effect, Note, Publish, Refuse, Send
from lockring.core.election import Election
from lockring.core.farewells import Farewells
from lockring.core.timing import Timing, earliest
from lockring.errors import LockringError, ProtocolError
from lockring.ids import (
    NO_CLUSTER,
    NO_REQUEST,
    NO_VERSION,
    ClusterId,
    ConnectionId,
    OperationNumber,
    RequestNumber,
    TermId,
    Version,
)
from lockring.protocol import (
    ClientHello,
    Drain,
    Heartbeat,
    HeartbeatAck,
    Join,
    Leave,
    Message,
    Refusal,
    SlotRequests,
    Undrain,
)


class CoordinatorCore:
    """The coordinator's state machine. See `core.effects` for how a shell drives it. Not safe for several tasks.

    Args:
        address: HOST:PORT at which nodes and clients reach it; part of the state.
        term: random, unique to this process start.
        cluster_if_new: random id for the cluster if the store has none.
        timing: durations; the two leases are part of the state.
        new_cluster: whether an empty store means a new cluster, rather than one that was lost.
        boot: id of this boot of the machine, "" if unknown.
        is_as_left: whether the store is as its last coordinator left it.
        store: the store, for people.
        is_shared: whether other coordinators share it: nodes then hang up on one that stands still.
        replication: "sync" or "async"; part of the state.
        grantee_of: returns the rights of an identity for which a node asks; None to check no rights.
        audits: whether to report acts for an audit log.
        now_ns: monotonic clock.
        wall_ns: wall clock.
    """

    def __init__(
        self,
        *,
        address: str,
        term: TermId,
        cluster_if_new: ClusterId,
        timing: Timing | None = None,
        new_cluster: bool = False,
        boot: str = "",
        is_as_left: bool = True,
        store: str = "",
        is_shared: bool = False,
        replication: Replication = "sync",
        grantee_of: GranteeOf | None = None,
        audits: bool = False,
        now_ns: int,
        wall_ns: int,
    ) -> None:
        timing = timing or Timing()
        self._effects: list[Effect] = []
        self._clocks = Clocks(timing, now_ns=now_ns, wall_ns=wall_ns)
        settings = TermSettings(
            address=address,
            name=term,
            cluster_if_new=cluster_if_new,
            timing=timing,
            new_cluster=new_cluster,
            boot=boot if is_as_left else "",
            replication=replication,
            store=store,
            is_shared=is_shared,
        )
        self._term = Term(settings, self._effects)
        self._roster = Roster()
        self._membership = MemberLeases(timing, now_ns=now_ns)
        self._heartbeats = Heartbeats(Pace(timing))
        self.farewells = Farewells(boot)
        self._runs = ReconcilerRuns(timing, self._membership, now_ns=now_ns)
        self._decisions = Decisions(self._roster, self._membership, self._runs, self.farewells, Pace(timing))
        self._broadcast = StateBroadcast(now_ns=now_ns)
        self._answers = ClientAnswers(
            Clients(now_ns=now_ns),
            self._term,
            self._roster,
            self._membership,
            runs=self._runs,
            broadcast=self._broadcast,
            effects=self._effects,
            grantee_of=grantee_of,
            audits=audits,
        )
        self._checks = Checks()

    # ----------------------------------------------------------------------- queries

    @property
    def state(self) -> ClusterState | None:
        """The newest state that the store has taken from this coordinator, None before the first."""
        return self._term.state

    @property
    def is_active(self) -> bool:
        """Whether this coordinator decides, as far as it knows."""
        return self._term.is_active

    @property
    def is_over(self) -> bool:
        """Whether the term has ended, for good."""
        return self._term.phase is Phase.PASSIVE

    @property
    def relocation(self) -> Relocation | None:
        """The mark that the cluster has left this store, None if it has not. The term is over then."""
        return self._term.relocation

    @property
    def newest(self) -> Version:
        """The newest version that is known to have been in the store, from this process or from a node."""
        return self._term.newest

    @property
    def note(self) -> str:
        """A sentence on what the coordinator waits for, "" if for nothing."""
        return note_of(self._term, self._roster, self._runs)

    def age_ns(self, now_ns: int) -> int:
        """Return for how long newer states may have escaped this coordinator, in nanoseconds; 0 while it works."""
        return self._term.store_report.age_ns(now_ns)

    def take_store_news(self) -> list[StoreNews]:
        """Hand out the lines for the log about the store since the last call, in order, and forget them."""
        return self._term.health.take_news()

    def left_ms(self, now_ns: int) -> int:
        """Return how much longer the wait in `note` takes at most, in milliseconds, 0 if that is unknown."""
        return left_ms_of(self._roster, self._runs, now_ns)

    def status(self, *, now_ns: int = 0) -> CoordinatorStatus:
        """Return a snapshot for people, as of `now_ns` or of the last input, whichever is later."""
        moment = max(now_ns, self._clocks.now_ns)
        return status_of(self._term, self._roster, self._membership, self._runs, moment)

    def check_invariants(self) -> None:
        """Assert what must hold after every input. For tests and the simulation: it looks at every slot.

        Raises:
            AssertionError: a bug.
        """
        self._checks.check(self._term, self._roster, self._heartbeats)

    # ----------------------------------------------------------------------- inputs

    def set_wall_clock(self, *, wall_ns: int, now_ns: int) -> None:
        """Set what the wall clock shows at `now_ns`. Versions are above it, and a farewell's age is checked by it.

        Call it before any input if the clock may have been set since the last call.
        """
        self._clocks.set_wall(wall_ns=wall_ns, now_ns=now_ns)

    def start(self, *, newest: Version = NO_VERSION, now_ns: int) -> None:
        """Read the store and claim it. Call this once, before all other inputs.

        Args:
            newest: the newest version that this process has read or written; a store without it has lost something.
            now_ns: the monotonic clock, in nanoseconds.
        """
        self._enter(now_ns)
        self._term.know(newest)
        self._term.begin(now_ns=now_ns)

    def store_result(
        self,
        operation: OperationNumber,
        *,
        ok: bool,
        state: ClusterState | None,
        problem: str = "",
        now_ns: int,
    ) -> None:
        """Handle the result of a `StoreRead` or `StoreWrite`.

        Args:
            operation: the effect's number.
            ok: whether the read succeeded, or the write was made.
            state: what is stored now; None if that is unknown, or the store is empty.
            problem: why it failed; "" if it did not fail, or only found another version than expected.
            now_ns: the monotonic clock, in nanoseconds.
        """
        self._enter(now_ns)
        wall_ns = self._clocks.wall_ns(now_ns)
        result = self._term.take_result
        self._act_on(result(operation, ok, state, problem, now_ns=now_ns, wall_ns=wall_ns), now_ns)

    def note_election(self, election: Election, trouble: StoreTrouble | None) -> None:
        """Note the coordinators of a shared store, for people, and the trouble of one that does not name them."""
        self._term.election, self._term.campaign_trouble = election, trouble

    def step_down(self, *, now_ns: int) -> None:
        """Decide nothing more, for good, since another coordinator leads; refuse what is open."""
        self._enter(now_ns)
        if not self.is_over:
            self._term.step_down("another coordinator leads")
            self._retire()

    def connected(self, connection: ConnectionId, /, *, newcomer: Newcomer = UNCHECKED, now_ns: int) -> None:
        """Note an accepted connection of a newcomer. Its first message shows whether that is a node or a client."""
        self._enter(now_ns)
        self._answers.clients.await_hello(connection, newcomer)

    def receive(self, sender: ConnectionId, message: Message, /, *, now_ns: int) -> None:
        """Handle a message: a `ClientHello` or a `Join` first, then requests of clients and nodes.

        An invalid request is answered with `Refusal`; a violation of the protocol also ends the connection, and the
        messages that arrived behind it are ignored.
        """
        self._enter(now_ns)
        if sender in self._answers.clients:
            self._from_client(sender, message, now_ns)
        elif self._roster.node_of(sender) is not None or self._roster.pending.holds(sender):
            self._from_node(sender, message, now_ns)
        elif self._answers.clients.awaits_hello(sender):
            self._greet(sender, message, now_ns)

    def disconnected(self, sender: ConnectionId, /, *, now_ns: int) -> None:
        """Note that a connection has ended. Unknown ones are ignored."""
        self._enter(now_ns)
        self._answers.clients.drop(sender)
        self._drop(sender)
        self._runs.reschedule(now_ns=now_ns)

    def next_deadline_ns(self) -> int | None:
        """Return when to call `on_timer`, None if never."""
        term = self._term
        at_ns = earliest(term.next_deadline_ns(), self._answers.clients.next_report_ns(self.note))
        if not term.is_active:
            return at_ns
        # While an operation is under way its own deadline stands; its result starts the next one.
        if not term.is_writing:
            at_ns = earliest(at_ns, self._decisions.next_deadline_ns(self._state()))
        if not term.is_confirming:
            now_ns = self._clocks.now_ns
            at_ns = earliest(at_ns, self._heartbeats.next_deadline_ns(self._may_confirm, now_ns=now_ns))
        return at_ns

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due at `next_deadline_ns`. Calling it earlier or later is harmless."""
        self._enter(now_ns)
        self._act_on(self._term.on_timer(now_ns=now_ns), now_ns)

    def take_effects(self, *, now_ns: int) -> list[Effect]:
        """Begin due reads and writes, and return all effects since the last call, to be carried out in order."""
        self._clocks.advance(now_ns)
        if (
            self._term.is_active
            and not self._term.is_confirming
            and self._heartbeats.begin(self._may_confirm, nodes=self._roster.count, now_ns=now_ns)
        ):
            self._term.confirm(now_ns=now_ns)
        if self._term.is_active and not self._term.is_writing:
            self._advance(now_ns)
        self._answers.report(now_ns)
        effects, self._effects[:] = self._effects[:], []
        return effects

    # ----------------------------------------------------------------------- first messages

    def _greet(self, sender: ConnectionId, message: Message, now_ns: int) -> None:
        """Admit or refuse a connection by its first message."""
        # A connection has one first message: a second hello behind a refusal must not admit what is being closed.
        newcomer = self._answers.clients.take_stranger(sender)
        error: LockringError | None
        match message:
            case Join():
                # A stranger gets little room, and few lines in the log.
                refusal = malformed(message) or unproven(message, newcomer.proof)
                if refusal is not None:
                    self._refuse(sender, refusal)
                    return
                self._effects.append(Admit(sender, is_member=True, welcome=None))
                self._join(sender, message, now_ns)
                return
            case ClientHello():
                error = self._answers.greet(sender, message, newcomer.access, now_ns)
                if error is None:
                    return
            case Heartbeat() | SlotRequests() | Leave() if self._term.phase is Phase.PASSIVE:
                self._refuse(sender, self._not_coordinator(NO_REQUEST))
                return
            case _:
                error = why_not_first(message, self._term.address)
        self._refuse(sender, Refusal(NO_REQUEST, error.code, str(error)))

    # ----------------------------------------------------------------------- what clients and nodes send

    def _from_client(self, sender: ConnectionId, message: Message, now_ns: int) -> None:
        if self._answers.clients.refuse_if_denied(sender, message, self._effects, now_ns=now_ns):
            return
        match message:
            case Drain() | Undrain():
                self._order(sender, message, now_ns)
            case _ if isinstance(message, Question):
                self._answers.answer(sender, message, now_ns)
            case _:
                self._refuse_role(sender, message, "a client")

    def _from_node(self, sender: ConnectionId, message: Message, now_ns: int) -> None:
        match message:
            case Join() if message.node == self._roster.claimed_by(sender):
                refusal = malformed(message)
                if refusal is None:
                    self._join(sender, message, now_ns)
                else:
                    self._refuse(sender, refusal)
            case Heartbeat():
                self._heartbeat(sender, message, now_ns)
            case SlotRequests():
                self._ask(sender, message, now_ns)
            case Leave() | Drain() | Undrain():
                if not self._answers.refuse_forwarded_if_denied(sender, message):
                    self._order(sender, message, now_ns)
            case _:
                self._refuse_role(sender, message, "a node")

    def _refuse_role(self, sender: ConnectionId, message: Message, what: str) -> None:
        error = why_not_taken(message, self._term.address, what)
        self._answers.clients.drop(sender)
        self._refuse(sender, Refusal(NO_REQUEST, error.code, str(error)))

    # ----------------------------------------------------------------------- joining and leaving

    def _join(self, sender: ConnectionId, join: Join, now_ns: int) -> None:
        if self._term.phase is Phase.PASSIVE:
            self._refuse(sender, self._not_coordinator(NO_REQUEST))
            return
        if not self._term.is_active:
            # A decision before the term is in the store could contradict the one of a predecessor that still writes.
            self._roster.pending.hold(sender, join)
            return
        state = self._state()
        if self._roster.pending.is_given_up(join.cluster):
            self._refuse(sender, outdated(join.node, join.incarnation))
            return
        refusal = foreign(join, state)
        if self._term.is_behind(join.version) if refusal is None else self._term.may_adopt(join.version):
            # The store has lost something. The join waits for the claim that makes up for it; if the loss includes the
            # cluster's id, the node brings that back.
            self._roster.pending.hold(sender, join)
            if refusal is not None:
                self._roster.pending.give_up_cluster(state.cluster)
                for connection, node in self._roster.nodes():
                    self._refuse(connection, outdated(node.replica.node, node.replica.incarnation))
            self._term.begin_above(
                join.version, cluster=NO_CLUSTER if refusal is None else join.cluster, now_ns=now_ns
            )
            self._act_on(News.INTERRUPTED, now_ns)
            return
        refusal = refusal or not_the_latest(
            join, self._roster.newest_life(join.node, state), self._is_running
        )
        if refusal is not None:
            self._refuse(sender, refusal)
            if self._roster.heirs.contradict(Replica(join.node, join.incarnation)):
                self._effects.append(Note("node-contradicted", contradicted(join), is_warning=True))
            return
        # One connection per node, in whatever life: the older one may be half open, and never end by itself.
        self._drop(sender)
        for connection in self._roster.connections_of(join.node):
            self._drop(connection)
            self._effects.append(Close(connection, f"node {join.node} has opened a newer connection"))
        node = described(join)
        self._roster.connect(sender, node, join.former)
        self._roster.arrive(node, state)
        self._membership.hear(node.replica, now_ns=now_ns)
        self._runs.reschedule(now_ns=now_ns)
        term, life = self._term, (join.node, join.incarnation)
        welcome = welcome_to(state, term.address, *life, has_others=term.is_shared)
        self._effects += (Send(sender, welcome), *self._broadcast.greet(sender, join.has))
        self._answers.warn_of_older_version(join)

    def _order(self, sender: ConnectionId, order: Leave | Drain | Undrain, now_ns: int) -> None:
        refusal: Refusal | None = self._not_coordinator(order.request)
        if self._term.is_active:
            refusal = self._roster.ask(sender, order, self._state(), self._membership, now_ns)
        self._answers.audit_order(sender, order, refusal)
        if refusal is not None:
            self._effects.append(Send(sender, refusal))
        self._runs.reschedule(now_ns=now_ns)

    def _drop(self, connection: ConnectionId) -> None:
        self._roster.pending.drop(connection)
        self._broadcast.drop(connection)
        self._heartbeats.drop(connection)
        self._roster.disconnect(connection)

    def _refuse(self, sender: ConnectionId, refusal: Refusal) -> None:
        self._drop(sender)
        self._effects.append(Refuse(sender, refusal))

    def _not_coordinator(self, request: RequestNumber) -> Refusal:
        return Refusal(request, "not-coordinator", self.note)

    def _is_running(self, replica: Replica) -> bool:
        now_ns = self._clocks.now_ns
        return self._roster.is_connected(replica) and self._membership.heard_lately(replica, now_ns=now_ns)

    def _joined(self, sender: ConnectionId, now_ns: int) -> Member | None:
        """Note that a connection's node was heard, and return the node; None while its join waits."""
        node = self._roster.node_of(sender)
        if node is not None:
            if self._membership.hear(node.replica, now_ns=now_ns):
                self._runs.reschedule(now_ns=now_ns)
        return node

    def _heartbeat(self, sender: ConnectionId, heartbeat: Heartbeat, now_ns: int) -> None:
        node = self._joined(sender, now_ns)
        if node is None:
            return
        if not 0 <= heartbeat.version <= VERSION_MAX:
            self._refuse(sender, Refusal(NO_REQUEST, "protocol", f"no state has version {heartbeat.version}"))
            return
        self._heartbeats.add(sender, heartbeat.sequence)
        self.farewells.record_promise(node.replica, heartbeat, now_ns)
        if not self._term.is_active:
            return
        state = self._state()
        if self._term.is_behind(heartbeat.version):
            self._term.begin_above(heartbeat.version, now_ns=now_ns)
            self._act_on(News.INTERRUPTED, now_ns)
            return
        if not state.is_current(node.replica):  # it counted as failed, and was dropped meanwhile
            self._roster.arrive(node, state)
        self._effects += self._broadcast.catch_up(sender, heartbeat, now_ns=now_ns)

    def _ask(self, sender: ConnectionId, ask: SlotRequests, now_ns: int) -> None:
        node = self._joined(sender, now_ns)
        if node is None:
            return
        try:
            check_requests(ask)
        except ProtocolError as error:
            self._refuse(sender, Refusal(NO_REQUEST, error.code, str(error)))
            return
        self._decisions.request(node.replica, ask, now_ns=now_ns)

    def _may_confirm(self, connection: ConnectionId) -> bool:
        """Return whether a heartbeat on this connection could be acknowledged: the state knows its node."""
        node = self._roster.node_of(connection)
        return node is not None and self._state().is_current(node.replica)

    def _acknowledge(self, now_ns: int) -> None:
        state = self._state()
        waiting, left_ms = self._runs.waits(now_ns=now_ns)
        why = wait_reason_of(self._term, self._roster, self._runs)
        for connection, sequence in self._heartbeats.take_confirmed().items():
            node = self._roster.node_of(connection)
            # An acknowledgement is a lease. A node that a write under way deposes must not get one: the write gives its
            # slots to another node, whose wait counts from the last acknowledgement.
            if node is None or node.replica in self._term.deposed or not state.is_current(node.replica):
                continue
            self._membership.acknowledge(node.replica, now_ns=now_ns)
            ack = HeartbeatAck(sequence, state.version, waiting, left_ms, why)
            self._effects.append(Send(connection, ack))

    def _act_on(self, news: News, now_ns: int) -> None:
        """Do what the result of a store operation calls for."""
        if news is News.CONFIRMED:
            self._acknowledge(now_ns)
        elif not self._term.is_confirming:
            self._heartbeats.failed(pause_ns=self._term.health.pause_ns, now_ns=now_ns)
        if news is News.ENDED:
            self._retire()
        elif news in (News.STARTED, News.RESUMED, News.WRITTEN):
            if news is News.STARTED:
                self._membership.start(now_ns=now_ns)
                self._broadcast.start_at(self._term.found)
            self._effects += self._term.take_warnings()
            self._install(now_ns, is_own=news is News.WRITTEN)
            for connection, join in self._roster.pending.pop_all():
                self._join(connection, join, now_ns)

    def _install(self, now_ns: int, *, is_own: bool) -> None:
        """Put a state into force that is in the store, and send it to every node and client."""
        state = self._state()
        self._runs.learn(state, now_ns=now_ns, is_own=is_own)
        self.farewells.learn(state)
        self._runs.reschedule(now_ns=now_ns)
        for client in self._answers.clients.pop_misled(state.cluster):
            self._effects.append(Close(client, "the cluster has another id than this client was given"))
        self._effects += self._broadcast.publish(state, self._roster.nodes(), now_ns=now_ns)
        self._answers.publish(state, now_ns)
        self._effects.append(Publish(state))

    def _advance(self, now_ns: int) -> None:
        """Write the next state if it differs from the present one."""
        if self._decisions.is_idle(now_ns=now_ns):
            return
        state = self._state()
        self._effects += [Send(connection, answer) for connection, answer in self._roster.settle(state)]
        wall_ns = self._clocks.wall_ns(now_ns)
        at = Moment(self._term.version_at(wall_ns), self._term.lease_wait_ns, now_ns, wall_ns)
        decision = self._decisions.take_next(state, at)
        self._effects += [Send(connection, refusal) for connection, refusal in decision.refused]
        if decision.state is not state:
            after = msgspec.structs.replace(decision.state, version=at.version)
            self._term.write(after, decision.deposed, now_ns=now_ns)

    def _retire(self) -> None:
        """Refuse every open request and connection: the term is another coordinator's."""
        self._effects += [
            Send(to, self._not_coordinator(each)) for to, each in self._roster.take_unanswered()
        ]
        for connection in [*self._roster.connections(), *self._roster.pending.connections()]:
            self._refuse(connection, self._not_coordinator(NO_REQUEST))

    def _state(self) -> ClusterState:
        state = self._term.state
        assert state is not None, "only an active coordinator has a state"
        return state

    def _enter(self, now_ns: int) -> None:
        """Note the time of an input, and excuse members for the time in which this process was suspended."""
        pause_ns = self._clocks.pause_before_ns(self.next_deadline_ns, now_ns=now_ns)
        if pause_ns:
            # Their heartbeats may lie unread in this process's sockets: the silence is the coordinator's own.
            self._membership.excuse(pause_ns, now_ns=now_ns)
        self._clocks.advance(now_ns)
