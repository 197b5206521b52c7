"""A coordinator core with everything around it played by hand: shell, store, clock and obedient nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState, decode_state
from lockring.core.access import UNCHECKED, Grantee, Newcomer
from lockring.core.coordinator import CoordinatorCore, invariants
from lockring.core.effects import (
    Admit,
    AuditEntry,
    Broadcast,
    Close,
    Effect,
    Note,
    Publish,
    Refuse,
    Send,
    StoreRead,
    StoreWrite,
)
from lockring.core.timing import Timing
from lockring.ids import ConnectionId
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    DrainReply,
    Heartbeat,
    HeartbeatAck,
    Join,
    Leave,
    Message,
    Refusal,
    SlotRequest,
    SlotRequestKind,
    SlotRequests,
    State,
    Undrain,
    UndrainReply,
    Welcome,
)
from lockring.protocol.identities import Identity
from lockring.units import NS_PER_MS, NS_PER_S
from tests.unit.untraced import untraced

WALL_NS = 1_800_000_000 * NS_PER_S
STEP_NS = 10 * NS_PER_MS


@dataclass
class Node:
    """A node that heartbeats every second and does what the state says: learners get into sync at once."""

    replica: Replica
    connection: ConnectionId
    address: str
    weight: int = 1
    is_silent: bool = False
    is_obedient: bool = True
    sequence: int = 0
    next_heartbeat_ns: int = 0
    seen: ClusterState = field(default_factory=ClusterState)
    acknowledged: list[HeartbeatAck] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    closed: str | None = None


class World:
    """One coordinator, its store and its nodes, in steps of 10 ms of the coordinator's clock."""

    def __init__(
        self,
        *,
        stored: ClusterState | None = None,
        new_cluster: bool = True,
        replication: str = "sync",
        wall_ns: int = WALL_NS,
        term: str = "first",
        timing: Timing | None = None,
        now_ns: int = 0,
        starts: bool = True,
        boot: str = "",
        is_as_left: bool = True,
        grantee_of: Callable[[Identity], Grantee] | None = None,
        audits: bool = False,
    ) -> None:
        self.now_ns = now_ns
        self.wall_offset_ns = wall_ns - now_ns
        self.stored = stored
        self.nodes: dict[str, Node] = {}
        self.by_connection: dict[ConnectionId, Node] = {}
        self.written: list[ClusterState] = []
        self.published: list[ClusterState] = []
        self.sent: list[tuple[ConnectionId, Message]] = []
        self.closed: list[ConnectionId] = []
        self.notes: list[str] = []
        self.events: list[str] = []
        """Of each note, the name under which it is logged."""
        self.audited: list[AuditEntry] = []
        self.admitted: dict[ConnectionId, bool] = {}
        """Connections that were let in, and whether they belong to the cluster."""
        self.held_back: list[Effect] = []
        self.holds_reads = False
        self.holds_writes = False
        self.fails_reads = False
        self.fails_writes = False
        self._connections = 0
        self._encoded = b""  # a state as it was last sent, and what it says: the same for all nodes
        self._decoded = ClusterState()
        self._learning_in = ClusterState()
        self._learning: list[tuple[int, SlotState, Copy]] = []
        self.core = CoordinatorCore(
            address="127.0.0.1:9500",
            term=term,
            cluster_if_new="cluster-of-" + term,
            timing=timing or Timing(),
            new_cluster=new_cluster,
            boot=boot,
            is_as_left=is_as_left,
            grantee_of=grantee_of,
            audits=audits,
            replication="async" if replication == "async" else "sync",
            now_ns=self.now_ns,
            wall_ns=wall_ns,
        )
        if starts:
            self.core.start(now_ns=self.read_clocks())
            self.settle()

    # ------------------------------------------------------------------- the clock and the shell

    @property
    def wall_ns(self) -> int:
        return self.now_ns + self.wall_offset_ns

    def read_clocks(self) -> int:
        """Let the core know the wall clock; returns the monotonic one."""
        self.core.set_wall_clock(wall_ns=self.wall_ns, now_ns=self.now_ns)
        return self.now_ns

    @property
    def state(self) -> ClusterState:
        state = self.core.state
        assert state is not None
        return state

    def settle(self) -> None:
        """Carry out effects until there are none."""
        for _ in range(1000):
            effects = self.core.take_effects(now_ns=self.now_ns)
            self.core.check_invariants()
            if not effects:
                return
            for effect in effects:
                self.carry_out(effect)
        raise AssertionError("the coordinator does not come to rest")

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case StoreRead(operation):
                if self.holds_reads:
                    self.held_back.append(effect)
                    return
                self.answer_read(operation)
            case StoreWrite():
                if self.holds_writes:
                    self.held_back.append(effect)
                    return
                self.answer_write(effect)
            case AuditEntry():
                self.audited.append(effect)
            case Publish(state):
                self.published.append(state)
            case Note(event, text):
                self.events.append(event)
                self.notes.append(text)
            case Admit(connection, is_member, welcome):
                assert connection not in self.admitted, "a connection has one role"
                assert connection not in self.closed, "a connection that is being closed has no role"
                self.admitted[connection] = is_member
                if welcome is not None:
                    self.deliver(connection, welcome)
            case Broadcast(connections, message):
                for connection in connections:
                    self.deliver(connection, message)
            case Send(int() as connection, message):
                self.deliver(connection, message)
            case Refuse(connection, refusal):
                self.deliver(connection, refusal)
                self.close(connection, refusal.text)
            case Close(int() as connection, reason):
                self.close(connection, reason)
            case _:
                raise AssertionError(effect)

    def close(self, connection: ConnectionId, reason: str) -> None:
        self.closed.append(connection)
        ended = self.by_connection.pop(connection, None)
        if ended is not None:
            ended.closed = reason

    def deliver(self, connection: ConnectionId, message: Message) -> None:
        self.sent.append((connection, message))
        node = self.by_connection.get(connection)
        if node is None:
            return
        node.inbox.append(message)
        if isinstance(message, HeartbeatAck):
            node.acknowledged.append(message)
        elif isinstance(message, State):
            if message.state != self._encoded:
                self._encoded, self._decoded = message.state, decode_state(message.state)
            self.tell(node, self._decoded)

    def answer_read(self, operation: int) -> None:
        ok = not self.fails_reads
        self.core.store_result(operation, ok=ok, state=self.stored if ok else None, now_ns=self.read_clocks())

    def apply_write(self, write: StoreWrite) -> bool:
        """Compare and set."""
        if (0 if self.stored is None else self.stored.version) != write.expected_version:
            return False
        invariants.check_state(write.state)
        if self.stored is not None:
            assert write.state.version > self.stored.version
        self.stored = write.state
        self.written.append(write.state)
        return True

    def answer_write(self, write: StoreWrite) -> None:
        ok = not self.fails_writes and self.apply_write(write)
        self.core.store_result(
            write.operation,
            ok=ok,
            state=None if self.fails_writes else self.stored,
            now_ns=self.read_clocks(),
        )

    def release(self) -> None:
        """Let the store carry out what it held back, and go on."""
        self.holds_reads = self.holds_writes = False
        held, self.held_back = self.held_back, []
        for effect in held:
            self.carry_out(effect)
        self.settle()

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end_ns = self.now_ns + round(seconds * NS_PER_S)
        while self.now_ns < end_ns:
            self.now_ns = min(end_ns, self.now_ns + STEP_NS)
            for node in list(self.nodes.values()):
                if not node.is_silent and node.closed is None and self.now_ns >= node.next_heartbeat_ns:
                    self.heartbeat(node)
            due_ns = self.core.next_deadline_ns()
            if due_ns is not None and due_ns <= self.now_ns:
                self.core.on_timer(now_ns=self.read_clocks())
            self.settle()

    def run_until_quiet(self, seconds: float = 40) -> None:
        """Let time pass until nothing has been written for two seconds."""
        end_ns = self.now_ns + round(seconds * NS_PER_S)
        while self.now_ns < end_ns:
            writes = len(self.written)
            self.run(2)
            if len(self.written) == writes:
                return
        raise AssertionError("the coordinator goes on writing")

    # ------------------------------------------------------------------- nodes

    def connection(self, newcomer: Newcomer = UNCHECKED) -> ConnectionId:
        """A connection that was accepted."""
        self._connections += 1
        connection = ConnectionId(self._connections)
        self.core.connected(connection, newcomer=newcomer, now_ns=self.read_clocks())
        return connection

    def client(self, cluster: str = "", newcomer: Newcomer = UNCHECKED) -> ConnectionId:
        """The connection of a client, greeted."""
        connection = self.connection(newcomer)
        self.receive(connection, ClientHello(PROTOCOL, cluster, f"client-{connection}", 1))
        self.settle()
        return connection

    def receive(self, connection: ConnectionId, message: Message) -> None:
        """A message, without what follows from it: call `settle`."""
        self.core.receive(connection, message, now_ns=self.read_clocks())

    def join(
        self,
        name: str,
        incarnation: int = 1,
        *,
        weight: int = 1,
        address: str = "",
        cluster: str = "",
        version: int = 0,
        protocol: int = PROTOCOL,
        former: tuple[int, ...] = (),
        newcomer: Newcomer = UNCHECKED,
        identities: bool = True,
    ) -> Node:
        """Connect and join; see `inbox` for the answer."""
        node = Node(
            Replica(name, incarnation),
            self.connection(newcomer),
            address or f"127.0.0.1:{9500 + len(self.nodes)}",
            weight,
        )
        self.by_connection[node.connection] = node
        known = self.nodes.get(name)
        self.receive(
            node.connection,
            Join(
                protocol,
                cluster,
                name,
                incarnation,
                node.address,
                weight,
                version,
                former=list(former),
                identities=identities,
            ),
        )
        self.settle()
        if not node.inbox or isinstance(node.inbox[0], Welcome):
            self.nodes[name] = node
            if known is not None and known.replica == node.replica:
                node.seen, node.is_obedient = known.seen, known.is_obedient
        return node

    def heartbeat(self, node: Node, *, version: int | None = None) -> None:
        node.sequence += 1
        node.next_heartbeat_ns = self.now_ns + NS_PER_S
        self.receive(
            node.connection, Heartbeat(node.sequence, node.seen.version if version is None else version)
        )

    def tell(self, node: Node, state: ClusterState) -> None:
        """The node learns of a state, and asks for what follows from it."""
        if state.version <= node.seen.version or node.is_silent or node.closed is not None:
            return
        node.seen = state
        if not node.is_obedient:
            return
        if state is not self._learning_in:
            self._learning_in = state
            self._learning = [
                (number, slot, slot.learner)
                for number, slot in enumerate(state.slots)
                if slot.learner is not None
            ]
        items = [
            SlotRequest(number, slot.epoch, copy.replica.node, copy.replica.incarnation, copy.joined)
            for number, slot, copy in self._learning
            if slot.primary == node.replica and self.answers(copy)
        ]
        if items:
            self.receive(node.connection, SlotRequests(SlotRequestKind.IN_SYNC, items))

    def answers(self, copy: Copy) -> bool:
        node = self.nodes.get(copy.replica.node)
        return node is not None and node.replica == copy.replica and not node.is_silent

    def silence(self, name: str) -> None:
        """The node falls silent right after a heartbeat of its."""
        node = self.nodes[name]
        self.heartbeat(node)
        self.settle()
        node.is_silent = True

    def kill(self, name: str) -> Node:
        """The process ends, and with it its connection."""
        node = self.nodes.pop(name)
        self.by_connection.pop(node.connection, None)
        self.core.disconnected(node.connection, now_ns=self.read_clocks())
        self.settle()
        return node

    def drain(self, name: str, *, by: ConnectionId | None = None, request: int = 7) -> Message:
        """Ask for a drain as an operator, on a connection of its own or on that of a node; return the answer."""
        return self._order(Drain(request, name), by)

    def undrain(self, name: str, *, by: ConnectionId | None = None, request: int = 7) -> Message:
        """The same for the end of a drain."""
        return self._order(Undrain(request, name), by)

    def leave(self, name: str, *, request: int = 7, keeps: bool = False) -> Message:
        """A node wants to leave, perhaps with its slots in its journal; returns the answer."""
        return self._order(Leave(request, keeps), self.nodes[name].connection)

    def _order(self, order: Leave | Drain | Undrain, by: ConnectionId | None) -> Message:
        connection = self.client() if by is None else by
        self.receive(connection, order)
        self.settle()
        for _ in range(100):
            answers = [
                m
                for c, m in self.sent
                if c == connection and isinstance(m, (DrainReply, UndrainReply, Refusal))
            ]
            if answers:
                return answers[-1]
            self.run(0.1)  # the store has failed, and is asked again after a pause
        raise AssertionError(f"{order} is not answered")

    def ask(self, node: Node, kind: SlotRequestKind, *items: SlotRequest) -> None:
        self.receive(node.connection, SlotRequests(kind, list(items)))
        self.settle()

    @untraced
    def cluster(self, *names: str) -> None:
        """These nodes join, and everything comes to rest."""
        for name in names:
            self.join(name)
        self.run_until_quiet()

    # ------------------------------------------------------------------- looking

    def slot_with(self, *, primary: str = "", backup: str = "") -> tuple[int, SlotState]:
        """The first slot with this primary and backup."""
        for number, slot in enumerate(self.state.slots):
            if primary and (slot.primary is None or slot.primary.node != primary):
                continue
            if backup and (slot.backup is None or slot.backup.replica.node != backup):
                continue
            return number, slot
        raise AssertionError(f"no slot has primary {primary or 'any'} and backup {backup or 'any'}")

    def primaries(self) -> dict[str, int]:
        return _count(slot.primary.node if slot.primary else "-" for slot in self.state.slots)

    def backups(self) -> dict[str, int]:
        return _count(slot.backup.replica.node if slot.backup else "-" for slot in self.state.slots)


def _count(names) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def copies_in_sync(slot: SlotState) -> int:
    return (slot.primary is not None) + (slot.backup is not None)


def successor(
    world: World, *, term: str = "second", wall_ns: int = WALL_NS + 1000 * NS_PER_S, **settings
) -> World:
    """A coordinator on the same store, after the first has ended."""
    return World(
        stored=world.stored, new_cluster=False, term=term, wall_ns=wall_ns, now_ns=7_000_000, **settings
    )


def rejoin(old: World, new: World, *names: str) -> None:
    """The nodes of the old coordinator connect to the new one."""
    for name in names:
        node = old.nodes[name]
        new.join(
            name,
            node.replica.incarnation,
            address=node.address,
            cluster=node.seen.cluster,
            version=node.seen.version,
        )
