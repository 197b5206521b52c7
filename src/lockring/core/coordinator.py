"""The coordinator without I/O: it alone decides which node has which slot.

It is made of parts that know nothing of each other, and this module is what joins them:

- `term`: the right to write, all reads and writes of the store, versions.
- `membership`: who is heard and acknowledged, the stabilization window.
- `asks`: what nodes want changed in single slots.
- `reconciler`: the next safe step from where the slots are to where the ring wants them.
- `reach`: which copies their primaries cannot reach.

Rules that hold here:

- Nothing is decided before the own term is in the store; joins that come earlier wait for it.
- At most one write is on its way. What arrives meanwhile goes into the next one; asks do not wait for the
  reconciler's next turn. Only what the store has taken is told to anyone.
- A heartbeat is acknowledged after a read of the store that was begun after it came and that bears the own term;
  not while a write that takes slots from its sender is on its way.
- Whoever has lost the term says so to everyone and does nothing more.

Reads, writes and plans are begun in `take_effects`, so that all that arrived in one turn shares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from lockring.core.admission import foreign, malformed, not_the_latest
from lockring.core.asks import Asks, check_ask
from lockring.core.effects import Close, Connection, Effect, Publish, Send
from lockring.core.membership import Membership
from lockring.core.reach import Reach
from lockring.core.reconciler import LEARNERS_MAX, Plan, Situation, Standing, plan
from lockring.core.term import RETRY_NS, News, Phase, Term
from lockring.core.timing import Timing
from lockring.core.transitions import VERSION_MAX, check_slot, lives_of
from lockring.errors import ProtocolError
from lockring.messages import (
    PROTOCOL,
    Ask,
    Drain,
    Draining,
    Heartbeat,
    HeartbeatAck,
    Join,
    Message,
    Refused,
    State,
    Welcome,
)
from lockring.names import SLOTS
from lockring.ring.hash_ring import HashRing
from lockring.ring.state import ClusterState, Member, Replica, encode_state
from lockring.units import NS_PER_S

DUPLICATE_NS: Final = 3 * NS_PER_S
"""A life that is connected and was heard this recently is running: three heartbeats, less than a member lease."""

RESEND_NS: Final = 2 * NS_PER_S
"""A node whose heartbeats bear an old version for this long is sent the state again."""


class CoordinatorStatus(msgspec.Struct, frozen=True):
    """A coordinator for people to look at.

    Attributes:
        phase: "idle", "reading", "claiming", "active" or "passive".
        note: what it waits for, "" if for nothing.
        version: of the state that it has in the store, 0 before the first.
        connected: ids of the nodes that are connected.
        settled: ids of the members that the ring is made of.
        ring_updates: how often these have changed.
        learning: slots that have learners.
        waiting: slots that nobody serves until leases have surely ended.
        writes: states written.
    """

    phase: str
    note: str
    version: int
    connected: tuple[str, ...]
    settled: tuple[str, ...]
    ring_updates: int
    learning: int
    waiting: int
    writes: int


class CoordinatorCore:
    """The coordinator's state machine. See `core.effects` for how a shell drives it. Not safe for several tasks.

    Args:
        address: HOST:PORT at which nodes and clients reach it; goes into the state.
        term: random, unique to this process start.
        cluster_if_new: random id for the cluster if the store has none.
        timing: durations; the two leases go into the state.
        new_cluster: whether an empty store means a new cluster, rather than one that was lost.
        replication: "sync" or "async"; goes into the state.
        now_ns: monotonic clock.
        wall_ns: wall clock.
    """

    def __init__(
        self,
        *,
        address: str,
        term: str,
        cluster_if_new: str,
        timing: Timing | None = None,
        new_cluster: bool = False,
        replication: Literal["sync", "async"] = "sync",
        now_ns: int,
        wall_ns: int,
    ) -> None:
        self._timing = timing = timing or Timing()
        self._address = address
        self._effects: list[Effect] = []
        self._term = Term(
            address=address,
            name=term,
            cluster_if_new=cluster_if_new,
            timing=timing,
            new_cluster=new_cluster,
            replication=replication,
            effects=self._effects,
        )
        self._membership = Membership(timing, now_ns=now_ns)
        self._reach = Reach()
        self._asks = Asks()
        self._called_at_ns = now_ns
        self._wall_offset_ns = wall_ns - now_ns
        # Connections: every joined one, as its join described it; one per life.
        self._nodes: dict[Connection, Member] = {}
        self._connections: dict[Replica, Connection] = {}
        self._held_joins: dict[Connection, Join] = {}
        self._former_clusters: list[str] = []
        # What the next write is to contain: nodes that joined, nodes to drain with whom to tell.
        self._arrived: dict[str, Member] = {}
        self._drains: dict[Replica, list[tuple[Connection, int]]] = {}
        self._leaving: dict[Replica, None] = {}
        self._is_stopping = False
        # Heartbeats, the newest of each connection: to be confirmed, and being confirmed.
        self._heartbeats: dict[Connection, int] = {}
        self._confirming: dict[Connection, int] = {}
        self._confirm_from_ns = now_ns
        # The plan, and the write that came of it.
        self._target: HashRing | None = None
        self._condemned: frozenset[Replica] = frozenset()
        self._known_at_ns: dict[int, int] = {}
        self._dirty_at_ns: int | None = None
        self._planned_at_ns = now_ns - timing.reconcile_ns
        self._wake_at_ns: int | None = None
        self._waiting = 0
        self._learning = 0
        self._writes = 0
        self._published_at_ns = now_ns
        self._resent_at_ns: dict[Connection, int] = {}
        self._encoded: tuple[int, bytes] | None = None

    # ----------------------------------------------------------------------- looking

    @property
    def state(self) -> ClusterState | None:
        """The newest state that the store has taken from this coordinator, None before the first."""
        return self._term.state

    @property
    def is_active(self) -> bool:
        """Whether this coordinator decides, as far as it knows."""
        return self._term.is_active

    @property
    def note(self) -> str:
        """A sentence on what the coordinator waits for, "" if for nothing."""
        phase, state = self._term.phase, self._term.state
        if self._term.problem:
            return self._term.problem
        if phase is not Phase.ACTIVE or state is None:
            return "the coordinator is still reading its store"
        if self._is_stopping:
            return (
                "the last node is leaving: its slots are released, and assigned anew to the next that joins"
            )
        if self._waiting:
            wait_s = self._term.lease_wait_ns / NS_PER_S
            return (
                f"{self._waiting} slots have no copy left, or it is unknown who had them; they are assigned empty"
                f" once no lease from before can be left, which takes {wait_s:.1f} s"
            )
        if not state.members:
            return "no node has joined yet"
        return ""

    def status(self) -> CoordinatorStatus:
        """A copy of what is worth knowing."""
        return CoordinatorStatus(
            phase=self._term.phase.value,
            note=self.note,
            version=0 if self._term.state is None else self._term.state.version,
            connected=tuple(sorted(replica.node for replica in self._connections)),
            settled=tuple(replica.node for replica in self._membership.settled),
            ring_updates=self._membership.updates,
            learning=self._learning,
            waiting=self._waiting,
            writes=self._writes,
        )

    # ----------------------------------------------------------------------- inputs

    def start(self, *, now_ns: int, wall_ns: int) -> None:
        """Begin: read the store and claim it."""
        self._enter(now_ns, wall_ns)
        self._term.begin(now_ns=now_ns)

    def store_result(
        self, operation: int, *, ok: bool, state: ClusterState | None, now_ns: int, wall_ns: int
    ) -> None:
        """The result of a `StoreRead` or `StoreWrite`.

        Args:
            operation: the effect's number.
            ok: whether the read succeeded, or the write was made.
            state: what is stored now; None if that is unknown, or the store is empty.
            now_ns: monotonic clock.
            wall_ns: wall clock.
        """
        self._enter(now_ns, wall_ns)
        news = self._term.result(operation, ok=ok, state=state, now_ns=now_ns, wall_ns=wall_ns)
        self._take(news, now_ns)

    def receive(self, sender: Connection, message: Message, *, now_ns: int, wall_ns: int) -> None:
        """A message that came on a connection: `Join` first for a node, then `Heartbeat`, `Ask`, `Drain`; `Drain` from anyone.

        What is wrong in it is answered with `Refused`; a node that broke the protocol is disconnected.
        """
        self._enter(now_ns, wall_ns)
        match message:
            case Join():
                self._join(sender, message, now_ns)
            case Heartbeat():
                self._heartbeat(sender, message, now_ns)
            case Ask():
                self._ask(sender, message, now_ns)
            case Drain():
                self._drain(sender, message, now_ns)
            case _:
                self._refuse(sender, "protocol", f"{type(message).__name__} is nothing for a coordinator")

    def disconnected(self, sender: Connection, *, now_ns: int, wall_ns: int) -> None:
        """A connection has ended. Unknown ones are ignored."""
        self._enter(now_ns, wall_ns)
        self._drop(sender)
        self._look_again(now_ns)

    def next_deadline_ns(self) -> int | None:
        """When to call `on_timer`, None if never."""
        deadlines = [] if (due_ns := self._term.next_deadline_ns()) is None else [due_ns]
        if self._term.is_active:
            if not self._term.is_writing:
                turn_ns = self._planned_at_ns + self._timing.reconcile_ns
                deadlines += [
                    max(turn_ns, due_ns)
                    for due_ns in (self._dirty_at_ns, self._wake_at_ns)
                    if due_ns is not None
                ]
            if self._heartbeats and not self._term.is_confirming and self._confirmable():
                deadlines.append(self._confirm_from_ns)
        return min(deadlines, default=None)

    def on_timer(self, *, now_ns: int, wall_ns: int) -> None:
        """`next_deadline_ns` has come; calling it earlier or later is harmless."""
        self._enter(now_ns, wall_ns)
        self._take(self._term.on_timer(now_ns=now_ns), now_ns)

    def take_effects(self, *, now_ns: int) -> list[Effect]:
        """Start what there is to do, and hand out all effects since the last call, to be carried out in order."""
        self._called_at_ns = max(self._called_at_ns, now_ns)
        if self._term.is_active:
            self._confirm(now_ns)
            if not self._term.is_writing:
                self._advance(now_ns)
        effects = self._effects[:]
        self._effects.clear()
        return effects

    # ----------------------------------------------------------------------- nodes

    def _join(self, sender: Connection, join: Join, now_ns: int) -> None:
        refusal = malformed(join)
        if refusal is None and self._term.phase is Phase.PASSIVE:
            refusal = self._not_coordinator(0)
        state = self._term.state
        if refusal is None and (not self._term.is_active or state is None):
            self._held_joins[sender] = join
            return
        if refusal is None:
            assert state is not None
            refusal = foreign(join, state, self._former_clusters)
            if refusal is not None and self._adopts(join, state):
                self._former_clusters.append(state.cluster)
                self._catch_up(sender, join, join.cluster, now_ns)
                return
        if refusal is None and self._term.is_behind(join.version):
            self._catch_up(sender, join, "", now_ns)
            return
        if refusal is None:
            refusal = not_the_latest(join, self._newest_life(join.node), self._is_running(now_ns))
        if refusal is not None:
            self._effects += (Send(sender, refusal), Close(sender, refusal.text))
            return
        self._admit(sender, join, now_ns)

    def _adopts(self, join: Join, state: ClusterState) -> bool:
        """Whether the join shows that this is the node's cluster, whose store was lost with its id."""
        return self._term.is_behind(join.version) and self._term.may_adopt(join.cluster)

    def _catch_up(self, sender: Connection, join: Join, cluster: str, now_ns: int) -> None:
        self._held_joins[sender] = join
        self._term.begin_above(join.version, cluster=cluster, now_ns=now_ns)
        self._take(News.INTERRUPTED, now_ns)

    def _admit(self, sender: Connection, join: Join, now_ns: int) -> None:
        state = self._term.state
        assert state is not None
        self._drop(sender)
        replica = Replica(join.node, join.incarnation)
        for connection in [c for c, m in self._nodes.items() if m.replica.node == join.node]:
            self._drop(connection)
            self._effects.append(Close(connection, f"node {join.node} has opened a newer connection"))
        self._nodes[sender] = Member(replica, join.address, join.weight)
        self._connections[replica] = sender
        self._arrive(self._nodes[sender])
        self._membership.hear(replica, now_ns=now_ns)
        self._look_again(now_ns)
        self._effects += (
            Send(
                sender,
                Welcome(
                    protocol=PROTOCOL,
                    cluster=state.cluster,
                    role="coordinator",
                    node=join.node,
                    incarnation=join.incarnation,
                    version=state.version,
                    coordinator=self._address,
                ),
            ),
            Send(sender, self._encoded_state(state)),
        )

    def _arrive(self, node: Member) -> None:
        """See to it that the next state knows this node."""
        state = self._term.state
        assert state is not None
        if _with_condition(node, state.members.get(node.replica.node)) != state.members.get(
            node.replica.node
        ):
            self._arrived[node.replica.node] = node

    def _newest_life(self, node: str) -> Replica | None:
        state = self._term.state
        assert state is not None
        member = self._arrived.get(node) or state.members.get(node)
        return None if member is None else member.replica

    def _is_running(self, now_ns: int) -> _IsRunning:
        return _IsRunning(self._connections, self._membership, now_ns)

    def _heartbeat(self, sender: Connection, heartbeat: Heartbeat, now_ns: int) -> None:
        node = self._joined(sender, now_ns)
        if node is None:
            return
        if not 0 <= heartbeat.version <= VERSION_MAX:
            self._refuse(sender, "protocol", f"no state has version {heartbeat.version}")
            return
        self._heartbeats[sender] = heartbeat.sequence
        state = self._term.state
        if not self._term.is_active or state is None:
            return
        if self._term.is_behind(heartbeat.version):
            self._term.begin_above(heartbeat.version, now_ns=now_ns)
            self._take(News.INTERRUPTED, now_ns)
            return
        self._arrive(node)
        if heartbeat.version < state.version:
            last_ns = max(self._published_at_ns, self._resent_at_ns.get(sender, self._published_at_ns))
            if now_ns - last_ns >= RESEND_NS:
                self._resent_at_ns[sender] = now_ns
                self._effects.append(Send(sender, self._encoded_state(state)))

    def _ask(self, sender: Connection, ask: Ask, now_ns: int) -> None:
        node = self._joined(sender, now_ns)
        if node is None:
            return
        try:
            check_ask(ask)
        except ProtocolError as error:
            self._refuse(sender, error.code, str(error))
            return
        if self._term.is_active:
            self._asks.add(node.replica, ask)

    def _joined(self, sender: Connection, now_ns: int) -> Member | None:
        """The node that has joined on this connection; if none, the sender is refused."""
        node = self._nodes.get(sender)
        if node is None:
            if self._term.phase is Phase.PASSIVE:
                self._refuse(sender, "not-coordinator", self.note)
            elif sender not in self._held_joins:
                self._refuse(sender, "protocol", "a node joins before it sends anything else")
            return None
        if self._membership.hear(node.replica, now_ns=now_ns):
            self._look_again(now_ns)
        return node

    def _drain(self, sender: Connection, drain: Drain, now_ns: int) -> None:
        state = self._term.state
        if not self._term.is_active or state is None:
            self._effects.append(Send(sender, self._not_coordinator(drain.request)))
            return
        asker = self._nodes.get(sender)
        life = self._newest_life(drain.node)
        if life is None:
            text = f"the cluster has no node {drain.node!r}"
            self._effects.append(Send(sender, Refused(drain.request, "unknown-node", text, drain.node)))
            return
        is_own = asker is not None and asker.replica == life
        others = [
            member
            for node, member in {**state.members, **self._arrived}.items()
            if node != drain.node
            and member.condition != "draining"
            and member.replica not in self._drains
            and (is_own or not self._membership.is_failed(member.replica, now_ns=now_ns))
        ]
        member = state.members.get(drain.node)
        is_draining = member is not None and member.replica == life and member.condition == "draining"
        if not others and not is_own and not is_draining:
            text = (
                f"node {drain.node} is the last one that can serve: draining it would lose its locks;"
                " let another node join first"
            )
            self._effects.append(Send(sender, Refused(drain.request, "invalid", text, drain.node)))
            return
        if is_own:
            self._leaving[life] = None
            self._is_stopping = self._is_stopping or not others
        self._drains.setdefault(life, []).append((sender, drain.request))
        self._look_again(now_ns)
        if is_draining:
            self._answer_drains(state)

    def _answer_drains(self, state: ClusterState) -> None:
        """Tell those who asked for drains that are in force by now, or whose node is gone."""
        for life in list(self._drains):
            member = state.members.get(life.node)
            if member is not None and member.replica == life and member.condition != "draining":
                continue
            if member is None and life.node in self._arrived:
                continue
            for connection, request in self._drains.pop(life):
                self._effects.append(Send(connection, Draining(request, life.node)))

    def _drop(self, connection: Connection) -> None:
        self._held_joins.pop(connection, None)
        self._heartbeats.pop(connection, None)
        self._confirming.pop(connection, None)
        self._resent_at_ns.pop(connection, None)
        node = self._nodes.pop(connection, None)
        if node is not None and self._connections.get(node.replica) == connection:
            del self._connections[node.replica]

    def _refuse(self, sender: Connection, code: str, text: str) -> None:
        self._effects += (Send(sender, Refused(0, code, text)), Close(sender, text))
        self._drop(sender)

    def _not_coordinator(self, request: int) -> Refused:
        return Refused(request, "not-coordinator", self.note)

    # ----------------------------------------------------------------------- acknowledging

    def _confirmable(self) -> dict[Connection, int]:
        """Heartbeats that could be acknowledged: others wait until the state knows their node."""
        state = self._term.state
        assert state is not None
        return {
            connection: sequence
            for connection, sequence in self._heartbeats.items()
            if state.is_current(self._nodes[connection].replica)
        }

    def _confirm(self, now_ns: int) -> None:
        if self._term.is_confirming or not self._heartbeats or now_ns < self._confirm_from_ns:
            return
        self._confirming = self._confirmable()
        if self._confirming:
            for connection in self._confirming:
                del self._heartbeats[connection]
            self._term.confirm(now_ns=now_ns)

    def _acknowledge(self, now_ns: int) -> None:
        state = self._term.state
        assert state is not None
        for connection, sequence in self._confirming.items():
            replica = self._nodes[connection].replica
            if replica in self._condemned or not state.is_current(replica):
                continue
            self._membership.acknowledge(replica, now_ns=now_ns)
            self._effects.append(Send(connection, HeartbeatAck(sequence, state.version)))
        self._confirming = {}

    # ----------------------------------------------------------------------- deciding

    def _take(self, news: News, now_ns: int) -> None:
        if news is News.CONFIRMED:
            self._acknowledge(now_ns)
        elif self._confirming and not self._term.is_confirming:
            # The read failed or was given up: newer heartbeats replace older ones, the rest is tried again.
            self._heartbeats = {**self._confirming, **self._heartbeats}
            self._confirming = {}
            self._confirm_from_ns = now_ns + RETRY_NS
        if news is News.STARTED:
            self._membership.start(now_ns=now_ns)
        if news in (News.STARTED, News.RESUMED, News.WRITTEN):
            self._install(now_ns, whole=news is not News.WRITTEN)
        if news in (News.STARTED, News.RESUMED):
            held, self._held_joins = self._held_joins, {}
            for connection, join in held.items():
                self._join(connection, join, now_ns)
        elif news is News.ENDED:
            self._retire()

    def _install(self, now_ns: int, *, whole: bool) -> None:
        """A state is in the store: it is in force. `whole`: it may contain what this process did not write."""
        state = self._term.state
        assert state is not None
        self._condemned = frozenset()
        self._writes += 1
        self._known_at_ns[state.version] = now_ns
        if whole or len(self._known_at_ns) > 2 * SLOTS:
            self._known_at_ns = _versions_in(state, self._known_at_ns, now_ns)
        self._arrived = {
            node: member
            for node, member in self._arrived.items()
            if _with_condition(member, state.members.get(node)) != state.members.get(node)
        }
        self._answer_drains(state)
        self._leaving = {each: None for each in self._leaving if state.is_current(each)}
        self._published_at_ns = now_ns
        self._effects.append(Publish(state))
        self._look_again(now_ns)

    def _retire(self) -> None:
        for connection in [*self._nodes, *self._held_joins]:
            self._effects += (
                Send(connection, self._not_coordinator(0)),
                Close(connection, self.note),
            )
        for replies in self._drains.values():
            for connection, request in replies:
                self._effects.append(Send(connection, self._not_coordinator(request)))
        self._drains.clear()
        self._asks.clear()
        for connection in [*self._nodes, *self._held_joins]:
            self._drop(connection)

    def _advance(self, now_ns: int) -> None:
        """Write the next state if there is anything to write."""
        before = self._term.state
        assert before is not None
        version = self._term.version_at(now_ns + self._wall_offset_ns)
        state = before
        members = self._next_members(state)
        slots = state.slots
        if self._asks:
            slots = self._asks.apply(state, self._reach, version=version, now_ns=now_ns)
        if members is not state.members or slots is not state.slots:
            state = msgspec.structs.replace(state, members=members, slots=slots)
        condemned: frozenset[Replica] = frozenset()
        if self._is_due(now_ns):
            step = self._plan(state, version, now_ns)
            members = self._without_departed(step, now_ns)
            condemned = step.condemned
            if members is not state.members or step.slots is not state.slots:
                state = msgspec.structs.replace(state, members=members, slots=step.slots)
        if state is before:
            return
        self._condemned = condemned
        self._term.write(msgspec.structs.replace(state, version=version), now_ns=now_ns)

    def _next_members(self, state: ClusterState) -> dict[str, Member]:
        if not self._arrived and not self._drains:
            return state.members
        members = dict(state.members)
        for node, arrived in self._arrived.items():
            members[node] = _with_condition(arrived, members.get(node))
        for life in self._drains:
            member = members.get(life.node)
            if member is not None and member.replica == life:
                members[life.node] = msgspec.structs.replace(member, condition="draining")
        return state.members if members == state.members else members

    def _is_due(self, now_ns: int) -> bool:
        if now_ns < self._planned_at_ns + self._timing.reconcile_ns:
            return False
        if self._dirty_at_ns is not None:
            return True
        return self._wake_at_ns is not None and now_ns >= self._wake_at_ns

    def _plan(self, state: ClusterState, version: int, now_ns: int) -> Plan:
        self._planned_at_ns = now_ns
        self._dirty_at_ns = None
        membership = self._membership
        if membership.observe(state.members, now_ns=now_ns):
            self._target = _target_of(membership.settled, state)
        if any(member.condition != "draining" for member in state.members.values()):
            self._is_stopping = False
        self._reach.expire(now_ns=now_ns)
        self._reach.forget_all_but(state.members)
        step = plan(
            Situation(
                state=state,
                version=version,
                now_ns=now_ns,
                target=self._target,
                standing=_Standings(state, membership, now_ns),
                age_ns=lambda of: now_ns - self._known_at_ns.get(of, now_ns),
                avoided=lambda primary, copy: self._reach.is_avoided(primary, copy, now_ns=now_ns),
                lease_wait_ns=self._term.lease_wait_ns,
                leaving=frozenset(self._leaving) if self._is_stopping else frozenset(),
            )
        )
        for primary, copy in step.abandoned:
            self._reach.dropped(primary, copy, version=version, now_ns=now_ns)
        self._waiting, self._learning = step.waiting, step.learning
        deadlines = (
            step.wake_at_ns,
            membership.next_deadline_ns(),
            self._reach.next_deadline_ns(),
        )
        self._wake_at_ns = min((each for each in deadlines if each is not None), default=None)
        return step

    def _without_departed(self, step: Plan, now_ns: int) -> dict[str, Member]:
        """The members without those that are gone for good and that no slot names, in any life."""
        departed = [
            node for node, member in step.members.items() if self._has_departed(member, now_ns=now_ns)
        ]
        if not departed:
            return step.members
        named: dict[str, None] = {}
        for slot in {id(slot): slot for slot in step.slots}.values():
            for replica in lives_of(slot):
                named[replica.node] = None
        members = {
            node: member for node, member in step.members.items() if node in named or node not in departed
        }
        if len(members) == len(step.members):
            return step.members
        lives = [member.replica for member in members.values()]
        lives += [replica for slot in step.slots for replica in lives_of(slot)]
        self._membership.forget([*lives, *self._connections])
        return members

    def _has_departed(self, member: Member, *, now_ns: int) -> bool:
        if member.replica.node in self._arrived:
            return False
        if member.condition == "draining" and member.replica not in self._connections:
            return True
        return (
            self._membership.is_failed(member.replica, now_ns=now_ns)
            and member.replica not in self._membership.settled
        )

    # ----------------------------------------------------------------------- small things

    def _enter(self, now_ns: int, wall_ns: int) -> None:
        """Every input comes through here: note the clocks, and whether this process stood still."""
        if now_ns - self._called_at_ns > self._timing.stall_ns:
            due_ns = self.next_deadline_ns()
            if due_ns is not None:
                gap_ns = now_ns - max(due_ns, self._called_at_ns)
                if gap_ns > self._timing.stall_ns:
                    self._membership.excuse(gap_ns, now_ns=now_ns)
        self._called_at_ns = max(self._called_at_ns, now_ns)
        self._wall_offset_ns = wall_ns - now_ns

    def _look_again(self, now_ns: int) -> None:
        if self._dirty_at_ns is None:
            self._dirty_at_ns = now_ns

    def _encoded_state(self, state: ClusterState) -> State:
        if self._encoded is None or self._encoded[0] != state.version:
            self._encoded = (state.version, encode_state(state))
        return State(self._encoded[1])

    def check_invariants(self) -> None:
        """Assert what must hold after every input. For tests and the simulation; it looks at every slot.

        Raises:
            AssertionError: a bug.
        """
        for connection, node in self._nodes.items():
            assert self._connections.get(node.replica) == connection, node
        assert len(self._connections) == len(self._nodes)
        assert all(connection in self._nodes for connection in self._heartbeats)
        assert all(connection in self._nodes for connection in self._confirming)
        assert not (self._held_joins and self._term.is_active), "joins wait for an active coordinator"
        assert not self._condemned or self._term.is_writing, "condemned without a write on its way"
        if self._term.phase is Phase.PASSIVE:
            assert not self._nodes
            assert not self._drains
            assert not len(self._asks)
        state = self._term.state
        if state is not None:
            check_state(state)
            assert self._published_at_ns <= self._called_at_ns


def check_state(state: ClusterState) -> None:
    """Assert what must hold in every state that a coordinator writes.

    Raises:
        AssertionError: it does not.
    """
    assert len(state.slots) == SLOTS
    learning = 0
    for number, slot in enumerate(state.slots):
        check_slot(number, slot, state.version)
        learning += slot.learner is not None
        for replica in lives_of(slot):
            member = state.members.get(replica.node)
            assert member is not None, f"slot {number} names {replica}, which is no member"
            assert replica.incarnation <= member.replica.incarnation, (
                f"slot {number} names {replica}, which is newer than the member {member.replica}"
            )
    assert learning <= LEARNERS_MAX
    for node, member in state.members.items():
        assert member.replica.node == node


class _IsRunning:
    """Whether a life is connected and was heard just now."""

    def __init__(
        self, connections: Mapping[Replica, Connection], membership: Membership, now_ns: int
    ) -> None:
        self._connections = connections
        self._membership = membership
        self._now_ns = now_ns

    def __call__(self, replica: Replica) -> bool:
        return replica in self._connections and self._membership.heard_within(
            replica, DUPLICATE_NS, now_ns=self._now_ns
        )


class _Standings:
    """What the reconciler asks of a life."""

    def __init__(self, state: ClusterState, membership: Membership, now_ns: int) -> None:
        self._state = state
        self._membership = membership
        self._now_ns = now_ns

    def __call__(self, replica: Replica) -> Standing:
        membership, now_ns = self._membership, self._now_ns
        gone = not self._state.is_current(replica)
        dead = gone or membership.is_failed(replica, now_ns=now_ns)
        usable = (
            not dead
            and replica in membership.settled
            and membership.was_heard(replica)
            and self._state.members[replica.node].condition != "draining"
        )
        return Standing(
            dead=dead,
            usable=usable,
            gone=gone,
            unacknowledged_ns=membership.unacknowledged_ns(replica, now_ns=now_ns),
        )


def _with_condition(node: Member, known: Member | None) -> Member:
    """The node as it joined, in the condition that this life of it has."""
    if known is None or known.replica != node.replica or known.condition == node.condition:
        return node
    return msgspec.structs.replace(node, condition=known.condition)


def _versions_in(state: ClusterState, known_at_ns: Mapping[int, int], now_ns: int) -> dict[int, int]:
    """Since when each reign and tenure has been known to be in force; those not known before since now."""
    used: dict[int, int] = {}
    for slot in {id(slot): slot for slot in state.slots}.values():
        used[slot.since] = known_at_ns.get(slot.since, now_ns)
        if slot.learner is not None:
            used[slot.learner.joined] = known_at_ns.get(slot.learner.joined, now_ns)
    return used


def _target_of(settled: Mapping[Replica, int], state: ClusterState) -> HashRing | None:
    """The ring of the settled members, going on from where the slots are."""
    if not settled:
        return None
    return HashRing.resume(
        {replica.node: weight for replica, weight in settled.items()},
        [None if slot.primary is None else slot.primary.node for slot in state.slots],
        [None if slot.backup is None else slot.backup.replica.node for slot in state.slots],
    )
