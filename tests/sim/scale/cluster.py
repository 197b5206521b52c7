"""A cluster of real cores in one process, whose messages are counted as the bytes that the real shells would send.

There are no faults here, no sockets and no decoding at nodes: messages arrive as they were sent, after a short delay
and in order. What a thousand machines would each have in their own memory is shared: a state is decoded once for all
nodes that receive the same bytes. The coordinator's processor time is measured: its core, its reading of messages, its
writing of them.

A node dials every member, as the real one does, but only connections to peers with common slots are played. The
greetings on the others are counted by their size.
"""

from __future__ import annotations

import gc
import heapq
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

import lockring.core.node.states as node_states
from lockring.cluster_state import ClusterState, Replica
from lockring.core import state_history
from lockring.core.coordinator import CoordinatorCore
from lockring.core.effects import (
    COORDINATOR,
    Admit,
    Broadcast,
    Close,
    Effect,
    Endpoint,
    Note,
    Publish,
    Refuse,
    Reply,
    Send,
    StoreRead,
    StoreWrite,
)
from lockring.core.node import NodeCore
from lockring.core.state_differences import LaterState
from lockring.core.timing import Timing
from lockring.ids import (
    ClientId,
    ClusterId,
    ConnectionId,
    GreetingNumber,
    OperationNumber,
    SequenceNumber,
    Version,
)
from lockring.protocol import (
    NO_DIFFERENCES,
    PROTOCOL,
    ClientHello,
    Heartbeat,
    Join,
    Message,
    StateDifference,
    ToCoordinator,
    Welcome,
)

MS = 1_000_000
S = 1_000_000_000
WALL_NS = 1_800_000_000 * S

READ_NS = 1 * MS
WRITE_NS = 3 * MS
TURN_NS = 50_000

HEADER_BYTES = 4

REMEMBERED_MAX = 50
"""States that nodes share: those of the last seconds."""

_encode = msgspec.msgpack.Encoder().encode
_to_coordinator = msgspec.msgpack.Decoder(ToCoordinator)


class ScaleNode:
    """A node with its connections.

    Attributes:
        core: the real core.
        connection: its number at the coordinator.
        linked: the peers to which it has a connection, by life, each with its node.
        dialed: the lives that it has dialed, or whose greetings have been counted.
        is_joined: whether the coordinator has welcomed it.
        wake_at_ns: when its next turn is.
        is_measured: whether its processor time is measured: its core, and its writing of messages to clients.
        processor_ns: that time.
    """

    def __init__(self, core: NodeCore, connection: ConnectionId) -> None:
        self.core = core
        self.connection = connection
        self.linked: dict[Replica, ScaleNode] = {}
        self.dialed: dict[Replica, None] = {}
        self.is_joined = False
        self.wake_at_ns: int | None = None
        self.is_measured = False
        self.processor_ns = 0


class ScaleCluster:
    """One coordinator and any number of nodes, in simulated time.

    Args:
        seed: for the delays.
        timing: durations of the coordinator and the nodes.

    Attributes:
        bytes_sent: by the type of the message, over all senders.
        messages_sent: the same as numbers.
        coordinator_sent: bytes that the coordinator has sent, by type.
        writes: number of writes to the store.
        reads: number of reads of the store.
        processor_ns: processor time of the coordinator.
        client_bytes: bytes that nodes have sent to clients.
        nodes: by name.
        published_at_ns: when the last state came into force.
    """

    def __init__(self, seed: int = 0, timing: Timing | None = None) -> None:
        self.now_ns = 0
        self.timing = timing or Timing()
        self.bytes_sent: Counter[str] = Counter()
        self.messages_sent: Counter[str] = Counter()
        self.coordinator_sent: Counter[str] = Counter()
        self.writes = self.reads = 0
        self.processor_ns = 0
        self.client_bytes = 0
        self.nodes: dict[str, ScaleNode] = {}
        self.published_at_ns = 0
        self._random = random.Random(seed)
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0
        self._arrives_at_ns: dict[tuple[int, object], int] = {}
        self._stored: ClusterState | None = None
        self._by_connection: dict[ConnectionId, ScaleNode] = {}
        self._by_replica: dict[Replica, ScaleNode] = {}
        self._wake_at_ns: int | None = None
        self._due_ns: int | None = None
        self._hello_bytes = 0
        self.core = CoordinatorCore(
            address="coordinator:9500",
            term="term-0123456789abcdef",
            cluster_if_new="0123456789abcdef",
            timing=self.timing,
            new_cluster=True,
            now_ns=0,
            wall_ns=WALL_NS,
        )
        self.core.start(now_ns=0)
        self._turn()

    # ------------------------------------------------------------------ time

    def run(self, duration_ns: int) -> None:
        """Let everything happen in the next `duration_ns`."""
        end_ns = self.now_ns + duration_ns
        events = self._events
        while events and events[0][0] <= end_ns:
            self.now_ns, _, what, args = heapq.heappop(events)
            what(*args)
        self.now_ns = end_ns

    def run_until(self, is_done: Callable[[], bool], timeout_ns: int) -> None:
        """Run until a condition holds, which is looked at every 100 ms.

        Raises:
            TimeoutError: it does not hold after `timeout_ns`.
        """
        end_ns = self.now_ns + timeout_ns
        while not is_done():
            if self.now_ns >= end_ns:
                raise TimeoutError(
                    f"the cluster has not come to rest: {self.core.status(now_ns=self.now_ns)}"
                )
            self.run(100 * MS)

    def is_settled(self) -> bool:
        """Return whether all nodes are members, all slots have their copies, and nothing has changed for a second."""
        state = self.core.state
        return (
            state is not None
            and len(state.members) == len(self.nodes)
            and all(member.condition == "active" for member in state.members.values())
            and self.now_ns - self.published_at_ns > S
            and all(
                slot.primary is not None and slot.learner is None and (slot.backup or len(self.nodes) < 2)
                for slot in state.slots
            )
        )

    def at(self, when_ns: int, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` at a time."""
        self._count += 1
        heapq.heappush(self._events, (when_ns, self._count, what, args))

    def _delay_ns(self) -> int:
        return 100_000 + int(self._random.random() * 1_900_000)

    # ------------------------------------------------------------------ nodes

    def add_node(self, name: str, *, takes_differences: bool = True) -> ScaleNode:
        """Start a node and let it join, as one that takes differences of states or as an older one."""
        number = len(self.nodes) + 1
        replica = Replica(name, (WALL_NS + self.now_ns) // 1000)
        core = NodeCore(replica, timing=self.timing, now_ns=self.now_ns)
        node = ScaleNode(core, ConnectionId(number))
        self.nodes[name] = self._by_replica[replica] = self._by_connection[node.connection] = node
        with self._measured():
            self.core.connected(node.connection, now_ns=self.now_ns)
        address = f"{name}.example.net:9501"
        has = Version(0) if takes_differences else NO_DIFFERENCES
        join = Join(PROTOCOL, ClusterId(""), name, replica.incarnation, address, 1, Version(0), has=has)
        self._to_coordinator(node, join)
        self._arm_node(node)
        return node

    def connect_clients(self, node: ScaleNode, count: int) -> None:
        """Connect so many clients to a node, which take differences of routes."""
        for number in range(count):
            connection = ConnectionId(10_000_000 + number)
            node.core.connected(connection, now_ns=self.now_ns)
            hello = ClientHello(
                PROTOCOL, ClusterId(""), ClientId(f"client-{number}"), GreetingNumber(1), differences=True
            )
            node.core.receive(connection, hello, now_ns=self.now_ns)
            if number % 1_000 == 0:
                node.core.take_effects(now_ns=self.now_ns)
        node.core.take_effects(now_ns=self.now_ns)
        self._arm_node(node)

    def idle_processor_ms(self, seconds: int) -> float:
        """Return the coordinator's processor time for an idle second, which is played without nodes: heartbeats alone.

        Nothing can be played with nodes behind this.
        """
        assert self.core.state is not None
        answers: list[tuple[int, int]] = []
        heartbeat = Heartbeat(SequenceNumber(1 << 40), self.core.state.version, 100, 0, 10)
        data = _encode(heartbeat)
        due_ns = self.core.next_deadline_ns()
        took_ns: list[int] = []
        for _ in range(seconds):
            end_ns = self.now_ns + S
            arrivals = sorted((self.now_ns + self._random.randrange(S), c) for c in self._by_connection)
            arrivals.append((end_ns, ConnectionId(0)))
            start_ns = time.process_time_ns()
            for arrives_ns, connection in arrivals:
                while True:
                    next_ns = min(
                        answers[0][0] if answers else end_ns, due_ns if due_ns is not None else end_ns
                    )
                    if next_ns > arrives_ns or next_ns >= end_ns:
                        break
                    self.now_ns = max(self.now_ns, next_ns)
                    if answers and answers[0][0] <= self.now_ns:
                        operation = OperationNumber(answers.pop(0)[1])
                        self.core.store_result(operation, ok=True, state=self._stored, now_ns=self.now_ns)
                    due_ns = self._idle_turn(answers, due_ns)
                self.now_ns = arrives_ns
                if connection:
                    self.core.receive(connection, _to_coordinator.decode(data), now_ns=self.now_ns)
                    due_ns = self._idle_turn(answers, due_ns)
            took_ns.append(time.process_time_ns() - start_ns)
        return min(took_ns) / MS

    def _idle_turn(self, answers: list[tuple[int, int]], due_ns: int | None) -> int | None:
        if due_ns is not None and due_ns <= self.now_ns:
            self.core.on_timer(now_ns=self.now_ns)
        for effect in self.core.take_effects(now_ns=self.now_ns):
            if isinstance(effect, StoreRead):
                self.reads += 1
                answers.append((self.now_ns + READ_NS, effect.operation))
            elif isinstance(effect, Send):
                _encode(effect.message)
            else:
                raise AssertionError(f"an idle coordinator asks for {effect}")
        return self.core.next_deadline_ns()

    def _to_coordinator(self, node: ScaleNode, message: Message) -> None:
        data = _encode(message)
        self._count_sent(message, len(data))
        self._deliver((0, node.connection), self._coordinator_receives, node, data)

    def _coordinator_receives(self, node: ScaleNode, data: bytes) -> None:
        with self._measured():
            self.core.receive(node.connection, _to_coordinator.decode(data), now_ns=self.now_ns)
        self._wake_coordinator(self.now_ns + TURN_NS)

    def _node_hears(self, node: ScaleNode, message: Message) -> None:
        start_ns = time.process_time_ns() if node.is_measured else 0
        if isinstance(message, Welcome):
            node.is_joined = True
            node.core.connected(COORDINATOR, now_ns=self.now_ns)
        else:
            node.core.receive(COORDINATOR, message, now_ns=self.now_ns)
        if node.is_measured:
            node.processor_ns += time.process_time_ns() - start_ns
        self._wake_node(node, self.now_ns + TURN_NS)

    def _peer_hears(self, node: ScaleNode, sender: Endpoint, message: Message) -> None:
        node.core.receive(sender, message, now_ns=self.now_ns)
        self._wake_node(node, self.now_ns + TURN_NS)

    def _wake_node(self, node: ScaleNode, at_ns: int) -> None:
        if node.wake_at_ns is None or at_ns < node.wake_at_ns:
            node.wake_at_ns = at_ns
            self.at(at_ns, self._node_turn, node, at_ns)

    def _arm_node(self, node: ScaleNode) -> None:
        self._wake_node(node, max(self.now_ns + TURN_NS, node.core.next_deadline_ns()))

    def _node_turn(self, node: ScaleNode, at_ns: int) -> None:
        if node.wake_at_ns != at_ns:
            return
        node.wake_at_ns = None
        start_ns = time.process_time_ns() if node.is_measured else 0
        if node.core.next_deadline_ns() <= self.now_ns:
            node.core.on_timer(now_ns=self.now_ns)
        for effect in node.core.take_effects(now_ns=self.now_ns):
            self._carry_out_for(node, effect)
        self._arm_node(node)
        if node.is_measured:
            node.processor_ns += time.process_time_ns() - start_ns

    def _carry_out_for(self, node: ScaleNode, effect: Effect) -> None:
        match effect:
            case Send(to, message):
                if to == COORDINATOR:
                    self._to_coordinator(node, message)
                elif isinstance(to, Replica):
                    self._to_peer(node, to, message, is_reply=False)
                else:
                    self._count_sent(message, len(_encode(message)))
            case Reply(to, message):
                self._to_peer(node, to, message, is_reply=True)
            case Broadcast(to, message):
                size = len(_encode(message))
                self._count_sent(message, size, len(to))
                self.client_bytes += (HEADER_BYTES + size) * len(to)
            case Publish(state):
                self._dial(node, state)
            case Admit(_, _, welcome):
                if welcome is not None:
                    self._count_sent(welcome, len(_encode(welcome)))
            case Note():
                pass
            case _:
                raise AssertionError(f"a node asks for {effect}")

    def _to_peer(self, node: ScaleNode, to: Replica, message: Message, *, is_reply: bool) -> None:
        peer = self._by_replica[to]
        self._count_sent(message, len(_encode(message)))
        me = node.core.replica
        if is_reply:
            # It arrives on the connection that the peer has opened: the peer's own endpoint for this node.
            self._deliver((1, (to, me, True)), self._peer_hears, peer, me, message)
        else:
            accepted = self._accepted(peer, node)
            self._deliver((1, (me, to, False)), self._peer_hears, peer, accepted, message)

    def _accepted(self, peer: ScaleNode, dialer: ScaleNode) -> ConnectionId:
        return ConnectionId(1_000_000 + dialer.connection)

    def _dial(self, node: ScaleNode, state: ClusterState) -> None:
        me = node.core.replica
        needed: dict[Replica, None] = {}
        for number in node.core.slots:
            slot = state.slots[number]
            lives = [] if slot.primary is None else [slot.primary]
            lives += [copy.replica for copy in (slot.backup, slot.learner) if copy is not None]
            if me in lives:
                needed.update(dict.fromkeys(lives))
        for member in state.members.values():
            if member.replica != me and member.replica not in node.dialed:
                node.dialed[member.replica] = None
                self._greet(node, member.replica)
        for peer in needed:
            if peer != me and peer not in node.linked and peer in self._by_replica:
                node.linked[peer] = self._by_replica[peer]
                self.at(self.now_ns + 3 * self._delay_ns(), self._link_is_up, node, peer)

    def _greet(self, node: ScaleNode, peer: Replica) -> None:
        if not self._hello_bytes:
            self._hello_bytes = len(_encode(node.core.hello_to(peer)))
        self.bytes_sent["PeerHello"] += 2 * (
            HEADER_BYTES + self._hello_bytes
        )  # the answer has about the same size
        self.messages_sent["PeerHello"] += 2

    def _link_is_up(self, node: ScaleNode, peer: Replica) -> None:
        there = node.linked[peer]
        accepted = self._accepted(there, node)
        there.core.connected(accepted, now_ns=self.now_ns)
        hello = node.core.hello_to(peer)
        there.core.receive(accepted, hello, now_ns=self.now_ns)
        welcome = None
        for effect in there.core.take_effects(now_ns=self.now_ns):
            if isinstance(effect, Admit) and effect.to == accepted:
                welcome = effect.welcome
            else:
                self._carry_out_for(there, effect)
        assert welcome is not None, f"{peer} has refused {hello}"
        node.core.connected(peer, now_ns=self.now_ns)
        self._wake_node(there, self.now_ns + TURN_NS)
        self._wake_node(node, self.now_ns + TURN_NS)

    # ------------------------------------------------------------------ the coordinator

    @contextmanager
    def _measured(self) -> Iterator[None]:
        start_ns = time.process_time_ns()
        yield
        self.processor_ns += time.process_time_ns() - start_ns

    def _wake_coordinator(self, at_ns: int) -> None:
        if self._wake_at_ns is None or at_ns < self._wake_at_ns:
            self._wake_at_ns = at_ns
            self.at(at_ns, self._coordinator_turn, at_ns)

    def _coordinator_turn(self, at_ns: int) -> None:
        if self._wake_at_ns == at_ns:
            self._wake_at_ns = None
            self._turn()

    def _turn(self) -> None:
        with self._measured():
            core = self.core
            core.set_wall_clock(wall_ns=WALL_NS + self.now_ns, now_ns=self.now_ns)
            if self._due_ns is not None and self._due_ns <= self.now_ns:
                core.on_timer(now_ns=self.now_ns)
            outgoing = []
            for effect in core.take_effects(now_ns=self.now_ns):
                if isinstance(effect, (Send, Broadcast)):
                    outgoing.append((effect, len(_encode(effect.message))))
                else:
                    outgoing.append((effect, 0))
            self._due_ns = due_ns = core.next_deadline_ns()
        for effect, size in outgoing:
            self._carry_out(effect, size)
        if due_ns is not None:
            self._wake_coordinator(max(due_ns, self.now_ns + TURN_NS))

    def _carry_out(self, effect: Effect, size: int) -> None:
        match effect:
            case Send(to, message):
                assert isinstance(to, int)
                self._from_coordinator(to, message, size)
            case Broadcast(connections, message):
                for connection in connections:
                    self._from_coordinator(connection, message, size)
            case StoreRead(operation):
                self.reads += 1
                self.at(self.now_ns + READ_NS, self._store_answers, operation, self._stored, True)
            case StoreWrite(operation, expected, state):
                self.writes += 1
                version = 0 if self._stored is None else self._stored.version
                assert version == expected
                self._stored = state
                self.at(self.now_ns + WRITE_NS, self._store_answers, operation, state, True)
            case Publish():
                self.published_at_ns = self.now_ns
            case Admit() | Note():
                pass
            case Refuse() | Close():
                raise AssertionError(f"the coordinator asks for {effect}")
            case _:
                raise AssertionError(f"the coordinator asks for {effect}")

    def _from_coordinator(self, connection: ConnectionId, message: Message, size: int) -> None:
        self._count_sent(message, size)
        self.coordinator_sent[type(message).__name__] += HEADER_BYTES + size
        self._deliver((2, connection), self._node_hears, self._by_connection[connection], message)

    def _store_answers(self, operation: int, state: ClusterState | None, ok: bool) -> None:
        with self._measured():
            self.core.store_result(operation, ok=ok, state=state, now_ns=self.now_ns)
        self._wake_coordinator(self.now_ns + TURN_NS)

    # ------------------------------------------------------------------ messages

    def _count_sent(self, message: Message, size: int, receivers: int = 1) -> None:
        name = type(message).__name__
        self.bytes_sent[name] += (HEADER_BYTES + size) * receivers
        self.messages_sent[name] += receivers

    def _deliver(self, stream: tuple[int, object], what: Callable[..., None], *args: Any) -> None:
        arrives_ns = max(self.now_ns + self._delay_ns(), self._arrives_at_ns.get(stream, 0) + 1)
        self._arrives_at_ns[stream] = arrives_ns
        self.at(arrives_ns, what, *args)

    @property
    def total_bytes(self) -> int:
        """Bytes sent by all so far."""
        return sum(self.bytes_sent.values())


@contextmanager
def shared_memory() -> Iterator[None]:
    """Let all nodes of this process share what they decode, and the collector rest over millions of objects."""
    decode, apply = node_states.decode_state, state_history.apply_difference
    decoded: dict[bytes, ClusterState] = {}
    applied: dict[tuple[int, Version], tuple[ClusterState, LaterState]] = {}

    def decode_once(data: bytes) -> ClusterState:
        state = decoded.get(data)
        if state is None:
            if len(decoded) > REMEMBERED_MAX:
                del decoded[next(iter(decoded))]
            state = decoded[data] = decode(data)
        return state

    def apply_once(before: ClusterState, content: int, message: StateDifference) -> LaterState:
        key = id(before), message.version
        known = applied.get(key)
        if known is not None and known[0] is before:
            return known[1]
        if len(applied) > REMEMBERED_MAX:
            del applied[next(iter(applied))]
        applied[key] = before, apply(before, content, message)
        return applied[key][1]

    node_states.decode_state = decode_once
    state_history.apply_difference = apply_once
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        node_states.decode_state, state_history.apply_difference = decode, apply
        gc.enable()
        gc.unfreeze()
