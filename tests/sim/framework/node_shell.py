"""A lock node in the simulation: the work of the real server around the core, without I/O."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Protocol

import msgspec

from lockring.cluster_state import ClusterState, Replica
from lockring.core.access import UNCHECKED, Grantee, Newcomer
from lockring.core.effects import (
    COORDINATOR,
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
from lockring.core.node.locks import LockHolder, LockWaiter
from lockring.core.timing import Timing
from lockring.errors import JournalError, LockringError
from lockring.ids import SessionId, SlotNumber
from lockring.journal import incarnations
from lockring.protocol import (
    PROTOCOL,
    FromCoordinator,
    FromPeer,
    Heartbeat,
    HeartbeatAck,
    Join,
    Message,
    Refusal,
    Replicate,
    ReplicateAck,
    ToNode,
    Welcome,
)
from tests.sim.framework.disk import Killed, SimDisk
from tests.sim.framework.journal_shell import Durability, JournalShell
from tests.sim.framework.network import End, Network
from tests.sim.framework.shells import Shell
from tests.sim.framework.world import MS, S, Slowness, World

_to_node = msgspec.msgpack.Decoder(ToNode)
_from_peer = msgspec.msgpack.Decoder(FromPeer)
_from_coordinator = msgspec.msgpack.Decoder(FromCoordinator)


WELCOME_NS_MAX = 5 * S
"""How long a coordinator may take to answer a join, as with the real dialer."""

PATIENCE_NS = 1 << 50
"""How long a drain may take: longer than any run, so that no drain is given up."""


def _is_heartbeat(message: Message) -> bool:
    match message:
        case Heartbeat() | HeartbeatAck() | Replicate(streams=[]) | ReplicateAck(positions=[]):
            return True
    return False


class Tap(Protocol):
    """An observer of the messages between clients and nodes."""

    def node_received(self, node: NodeShell, sender: int, message: Message) -> None:
        """Note a client's message, just before the core receives it."""

    def node_sent(self, node: NodeShell, to: int, message: Message) -> None:
        """Note a message to a client."""

    def client_gone(self, node: NodeShell, sender: int) -> None:
        """Note the end of a client's connection."""

    def node_learned(self, node: NodeShell, state: ClusterState) -> None:
        """Note a state that the node has just taken."""

    def node_began(self, node: NodeShell) -> None:
        """Note that a life has begun on a journal, and has read it."""


class NodeShell(Shell):
    """A lock node.

    Attributes:
        core: the real core; None before the first start.
        durability: whether the node keeps a journal, and what its answers wait for.
        disk: where it keeps it; None if it keeps none.
        journal: the present life's use of it.
        access_of: returns the rights of a client's process by its name; None for a node that checks none.
        has_patient_operator: whether the directory is kept even if it is of another cluster than the coordinator.
        id: the node's id: its process's name, unless two processes got one id by mistake.
        draining: whether the node was asked to leave: it exits once nothing is left on it.
        wished_to_leave: the lives of the node that were asked to leave.
    """

    core: NodeCore | None

    def __init__(
        self,
        world: World,
        network: Network,
        name: str,
        *,
        coordinators: list[str],
        timing: Timing,
        weight: int,
        slowness: Slowness,
        drift: bool,
        tap: Tap,
        durability: Durability = "none",
    ) -> None:
        super().__init__(world, network, name, slowness=slowness, drift=drift)
        self.tap = tap
        self.id = name
        self.address = f"{name}:9501"
        self.coordinators = coordinators
        self.names_coordinators = len(coordinators) > 1
        self.timing = timing
        self.weight = weight
        self.draining = False
        self.wished_to_leave: set[Replica] = set()
        self.incarnation_asked = 0
        self.durability = durability
        self.has_patient_operator = False
        self.access_of: Callable[[str], Grantee] | None = None
        self.disk: SimDisk | None = None
        if durability != "none":
            self.disk = SimDisk(name, world, is_synced=durability == "disk")
        self.journal: JournalShell | None = None
        self.core = None

    # ------------------------------------------------------------------ life

    def on_start(self) -> None:
        self.draining = False
        self._trying = self.rng.randrange(len(self.coordinators))
        self.network.listen(self.address, self, self._accepted)
        self._links: dict[Replica, End] = {}
        self._dialing: set[Replica] = set()
        self._inbound: dict[Replica, End] = {}
        self._clients: dict[int, End] = {}
        self._accepted_ends: dict[int, End] = {}
        self._coordinator: End | None = None
        self._welcomed = False
        self._may_stop = False
        if self.disk is not None:
            try:
                self.journal = JournalShell(self, self.disk)
            except JournalError as error:
                self.life_cannot_begin(str(error))
                return
        incarnation = incarnations.next_incarnation(
            self.wall_ns() // 1000,
            random.Random(self.world.now).randrange(incarnations.STEP_MAX),
            asked=self.incarnation_asked,
            entries=() if self.journal is None else self.journal.found.entries,
        )
        self.incarnation_asked = 0
        self.core = NodeCore(
            Replica(self.id, incarnation),
            timing=self.timing,
            journal=None if self.journal is None else self.journal.found,
            now_ns=self.now_ns(),
        )
        self.keeps_journal = self.journal is not None
        if self.journal is None:
            self._dial_coordinator()
        else:
            self._tell_found(self.journal)
            self.tap.node_began(self)

    def _tell_found(self, journal: JournalShell) -> None:
        self.world.stats["journal_vouched" if journal.found.is_complete else "journal_not_vouched"] += 1
        if self.world.story is not None:
            why = f": {journal.reason}" if journal.reason else ""
            self.world.tell(self.name, f"{'does not vouch' if why else 'vouches'} for its journal{why}")

    def life_cannot_begin(self, reason: str) -> None:
        """End this process: its journal cannot be used."""
        self.world.stats["journal_refused"] += 1
        if self.world.story is not None:
            self.world.tell(self.name, reason)
        self._end_for(self.rng.randrange(500 * MS, 2000 * MS))

    def life_is_durable(self) -> None:
        """Go to the coordinator: this life stands in the journal."""
        self._dial_coordinator()

    def pause(self, duration: int) -> None:
        super().pause(duration)
        if self.disk is not None:
            self.disk.process_stops(duration)

    def write_journal(self) -> None:
        assert self.journal is not None
        try:
            self.journal.write()
        except Killed:
            self.world.stats["killed_writing"] += 1
            self._end_for(self.rng.randrange(MS, 500 * MS))

    def on_crash(self) -> None:
        self.keeps_journal = False
        if self.journal is not None:
            self.journal.over()
            self.journal = None
        if self.disk is not None and self.lost_power:
            self.disk.lose_power()

    def _pause_ns(self) -> int:
        """Draw how long the supervisor of a refused node waits.

        With a journal and short leases it waits less than usual, so that no locks are lost by the pause alone.
        """
        longest = 2_000 * MS
        if self.disk is not None:
            longest = min(longest, self.timing.coordinator_lease_ns // 8)
        return self.rng.randrange(longest // 4, longest)

    def _end_for(self, duration: int) -> None:
        """End this process as it ends by itself, with its connections; its supervisor starts it again."""
        self.network.process_crashed(self, power=False)
        self.crash()
        self.world.after(duration, self._restart, self.life)

    def on_timer(self) -> None:
        assert self.core is not None
        self.core.on_timer(now_ns=self.turn_now)

    def drain(self) -> None:
        """Leave the cluster in good order."""
        self.draining = True
        if self.core is not None:
            self.wished_to_leave.add(self.core.replica)
        if self.alive and self.core is not None:
            self.core.leave(timeout_ns=PATIENCE_NS, now_ns=self.now_ns())
            self.wake(1_000)

    def gone(self) -> bool:
        """Exit if the core says that the node may; return whether it did."""
        if self.alive and self._may_stop:
            if self.journal is not None:
                assert self.core is not None
                kept = self.core._context.journal
                assert kept is not None
                if not kept.is_settled and not self.journal.has_failed:
                    return False
                self.journal.close()
            self.world.stats["drained"] += 1
            self.network.process_crashed(self, power=False)
            self.crash()
            return True
        return False

    # ------------------------------------------------------------------ for the checkers

    def has(self, slot: SlotNumber, session: SessionId, acquisition: int) -> bool:
        """Return whether the acquisition is a holder in this node's table, as primary or as copy."""
        assert self.core is not None
        data = self.core.slots.get(slot)
        return data is not None and isinstance(data.table.find(session, acquisition), LockHolder)

    def is_waiting(self, slot: SlotNumber, session: SessionId, acquisition: int) -> bool:
        """Return whether the acquisition waits in this node's table."""
        assert self.core is not None
        data = self.core.slots.get(slot)
        return data is not None and isinstance(data.table.find(session, acquisition), LockWaiter)

    def serving(self, among: Collection[int] | None = None) -> list[int]:
        """Return the slots (of `among`, if given) that this node may serve at this true time, by its own clock."""
        core = self.core
        if core is None or not self.alive:
            return []
        now_ns = self.now_ns()
        return [
            slot
            for slot, data in core.slots.items()
            if data.reign is not None
            and (among is None or slot in among)
            and core.may_serve(slot, now_ns=now_ns)
        ]

    def leftovers(self) -> list[str]:
        """Return descriptions of what is still in the tables and sessions."""
        core = self.core
        if core is None:
            return []
        found = [
            f"slot {number}: {lock.name!r} holders {[(h.session.id, h.acquisition) for h in lock.holders]}"
            f" waiters {[(w.session.id, w.acquisition) for w in lock.waiters or ()]}"
            for number, data in core.slots.items()
            for lock in data.table.locks.values()
        ]
        found += [f"the group of {name!r}" for name in core.service.groups._groups]
        return found + [f"session {session}" for session in core.sessions.by_id]

    # ------------------------------------------------------------------ coordinator link

    def _dial_coordinator(self) -> None:
        address = self.coordinators[self._trying % len(self.coordinators)]
        self.network.dial(self, address, self._coordinator_dialed)

    def _again(self) -> None:
        self._trying += 1
        self.later(self.rng.randrange(50 * MS, 300 * MS), self._dial_coordinator)

    def _coordinator_dialed(self, end: End | None) -> None:
        if end is None:
            self._again()
            return
        assert self.core is not None
        end.on_message, end.on_closed = self._from_coordinator, self._coordinator_closed
        self._coordinator, self._welcomed = end, False
        self._join(end)
        self.later(WELCOME_NS_MAX, self._unwelcomed, end)

    def _unwelcomed(self, end: End) -> None:
        """Try another coordinator if this one has not answered in time."""
        if end is self._coordinator and not self._welcomed:
            self.world.stats["coordinator_unwelcoming"] += 1
            self._leave_coordinator(end)

    def _join(self, end: End) -> None:
        assert self.core is not None
        facts, me = self.core.join_facts(), self.core.replica
        self.transmit(
            end,
            Join(
                PROTOCOL,
                facts.cluster,
                me.node,
                me.incarnation,
                self.address,
                self.weight,
                facts.version,
                former=list(facts.former),
                has=facts.has,
            ),
        )

    def _coordinator_closed(self, end: End) -> None:
        assert self.core is not None
        if end is self._coordinator:
            self._coordinator = None
            if self._welcomed:
                self._welcomed = False
                self.core.disconnected(COORDINATOR, now_ns=self.turn_now)
            self._again()

    def _leave_coordinator(self, end: End) -> None:
        end.close()
        self._coordinator_closed(end)

    def _from_coordinator(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        message = _from_coordinator.decode(payload)
        if end is not self._coordinator:
            return
        match message:
            case Welcome():
                try:
                    address, has_others = end.other.process.name, self.names_coordinators
                    self.core.greet_coordinator(message, address=address, has_others=has_others)
                except LockringError as error:
                    self.world.stats[f"coordinator_answer_{error.code}"] += 1
                    self._leave_coordinator(end)
                    return
                self._welcomed = True
                self.core.connected(COORDINATOR, now_ns=self.turn_now)
                if self.draining:
                    self.wished_to_leave.add(self.core.replica)
            case Refusal(code="stale", hint=hint) if hint > self.core.replica.incarnation:
                # The coordinator knows another life of this node that is not over: begin a new one.
                self.world.stats["join_stale"] += 1
                self.incarnation_asked = hint
                self._end_for(MS)
            case Refusal(code="duplicate-node" | "wrong-cluster"):
                # The real process ends with a message; its supervisor starts it again.
                self.world.stats[f"join_refused_{message.code}"] += 1
                self._end_for(self._pause_ns())
                if (
                    message.code == "wrong-cluster"
                    and self.disk is not None
                    and not self.has_patient_operator
                ):
                    self.disk.lose_directory()  # the operator reads the message, and gives the node another one
            case Refusal(request=0):
                self.world.stats[f"join_refused_{message.code}"] += 1
                self._leave_coordinator(end)
            case _ if self._welcomed:
                self._news -= _is_heartbeat(message)
                self.core.receive(COORDINATOR, message, now_ns=self.turn_now)
            case _:
                self.world.stats["coordinator_before_welcome"] += 1

    def _restart(self, life: int) -> None:
        if not self.alive and self.life == life:
            self.start()

    # ------------------------------------------------------------------ peers and clients

    def _accepted(self, end: End) -> None:
        end.on_message, end.on_closed = self._hello, self._accepted_closed

    def _hello(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        end.on_message = self._from_accepted
        self._accepted_ends[end.number] = end
        newcomer = UNCHECKED if self.access_of is None else Newcomer(self.access_of(end.other.process.name))
        self.core.connected(end.number, newcomer=newcomer, now_ns=self.turn_now)
        self._from_accepted(end, payload)

    def _from_accepted(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        message = _to_node.decode(payload)
        if end.number in self._clients:
            self.tap.node_received(self, end.number, message)
        elif isinstance(end.label, Replica):
            self._news -= _is_heartbeat(message)
        self.core.receive(end.number, message, now_ns=self.turn_now)

    def _accepted_closed(self, end: End) -> None:
        assert self.core is not None
        if self._accepted_ends.pop(end.number, None) is None:
            return
        if isinstance(end.label, Replica) and self._inbound.get(end.label) is end:
            del self._inbound[end.label]
        if self._clients.pop(end.number, None) is not None:
            self.tap.client_gone(self, end.number)
        self.core.disconnected(end.number, now_ns=self.turn_now)

    def _admit(self, admit: Admit) -> None:
        end = self._accepted_ends.get(admit.to)
        if end is None:
            return
        if admit.peer is None:
            self._clients[end.number] = end
        else:
            end.label = admit.peer
            self._inbound[admit.peer] = end
        assert admit.welcome is not None
        self.transmit(end, admit.welcome)

    # ------------------------------------------------------------------ links to peers

    def _dial_peers(self) -> None:
        assert self.core is not None
        members = self.core.state.members
        for replica in [each for each in self._links if not self.core.state.is_current(each)]:
            self._links.pop(replica).close()
            self.core.disconnected(replica, now_ns=self.turn_now)
        for member in members.values():
            replica = member.replica
            if replica.node != self.id and replica not in self._links and replica not in self._dialing:
                self._dialing.add(replica)
                self._dial_peer(replica)

    def _dial_peer(self, replica: Replica) -> None:
        assert self.core is not None
        address = self.core.state.address_of(replica)
        if address is None:
            self._dialing.discard(replica)
            return
        self.network.dial(self, address, lambda end: self._peer_dialed(replica, end))

    def _peer_again(self, replica: Replica) -> None:
        self.later(self.rng.randrange(20 * MS, 300 * MS), self._dial_peer, replica)

    def _peer_dialed(self, replica: Replica, end: End | None) -> None:
        assert self.core is not None
        if end is None:
            self._peer_again(replica)
            return
        end.label = replica
        end.on_message, end.on_closed = self._peer_welcome, self._peer_hello_closed
        self.transmit(end, self.core.hello_to(replica))

    def _peer_hello_closed(self, end: End) -> None:
        assert isinstance(end.label, Replica)
        self._peer_again(end.label)

    def _peer_welcome(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        assert isinstance(end.label, Replica)
        if not self._is_welcome(end.label, _from_peer.decode(payload)):
            end.close()
            self._peer_hello_closed(end)
            return
        self._dialing.discard(end.label)
        self._links[end.label] = end
        end.on_message, end.on_closed = self._from_link, self._link_closed
        self.core.connected(end.label, now_ns=self.turn_now)

    def _is_welcome(self, peer: Replica, answer: Message) -> bool:
        assert self.core is not None
        if isinstance(answer, Refusal):
            return False
        assert isinstance(answer, Welcome), answer
        try:
            self.core.check_peer(peer, answer, address=peer.node)
        except LockringError as error:
            self.world.stats[f"peer_answer_{error.code}"] += 1
            return False
        return True

    def _from_link(self, end: End, payload: bytes) -> None:
        assert self.core is not None
        assert isinstance(end.label, Replica)
        message = _from_peer.decode(payload)
        self._news -= _is_heartbeat(message)
        self.core.receive(end.label, message, now_ns=self.turn_now)

    def _link_closed(self, end: End) -> None:
        assert self.core is not None
        assert isinstance(end.label, Replica)
        if self._links.get(end.label) is end:
            del self._links[end.label]
            self.core.disconnected(end.label, now_ns=self.turn_now)
            self._dialing.add(end.label)
            self._peer_again(end.label)

    # ------------------------------------------------------------------ effects

    def _end_of(self, endpoint: Endpoint) -> End | None:
        if isinstance(endpoint, Replica):
            return self._links.get(endpoint)
        if isinstance(endpoint, int):
            return self._accepted_ends.get(endpoint)
        return self._coordinator if self._welcomed else None

    def is_heartbeat(self, effect: Effect) -> bool:
        return isinstance(effect, (Send, Reply)) and _is_heartbeat(effect.message)

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case Send(to, message):
                if isinstance(to, int):
                    self.tap.node_sent(self, to, message)
                self.transmit(self._end_of(to), message)
            case Broadcast(connections, message):
                for number in connections:
                    self.tap.node_sent(self, number, message)
                    self.transmit(self._end_of(number), message)
            case Reply(to, message):
                self.transmit(self._inbound.get(to), message)
            case Close(to, reason):
                self._close(to, reason)
            case Admit():
                self._admit(effect)
            case Refuse(to, refusal):
                self.transmit(self._end_of(to), refusal)
                self._close(to, refusal.text)
            case Depart():
                self._may_stop = True
            case Publish(state):
                self.tap.node_learned(self, state)
                self.post(self._dial_peers)
            case AuditEntry():
                pass  # for people
            case Note(text=text):
                if self.world.story is not None:
                    self.world.tell(self.name, text)
            case _:
                raise AssertionError(f"a node asks for {effect}")

    def _close(self, endpoint: Endpoint, reason: str) -> None:
        end = self._end_of(endpoint)
        if end is None:
            return
        if self.world.story is not None:
            self.world.tell(self.name, f"closes the connection to {end.other.process.name}: {reason}")
        end.close()
        self.post(end.on_closed, end)
