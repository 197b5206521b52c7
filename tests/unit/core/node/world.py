"""Node cores wired to each other by hand: messages are delivered in order, at once, unless a link is cut.

The test plays the coordinator: it writes states and acknowledges heartbeats. Time moves only when the test moves it.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec

from lockring.cluster_state import ClusterState, Copy, Member, Replica, SlotState
from lockring.core.access import Grantee, GranteeOf, Newcomer
from lockring.core.effects import (
    COORDINATOR,
    Admit,
    AuditEntry,
    Broadcast,
    Close,
    Coordinator,
    Note,
    Publish,
    Refuse,
    Reply,
    Send,
)
from lockring.core.journal import JournalBatch, JournalFound
from lockring.core.node import NodeCore
from lockring.core.timing import Timing
from lockring.protocol import (
    PROTOCOL,
    Acquire,
    ClientHello,
    Heartbeat,
    HeartbeatAck,
    Keepalive,
    Message,
    Release,
    SlotRequest,
    SlotRequestKind,
    SlotRequests,
)
from lockring.slots import slot_of

NAMES = ("x", "y", "z", "other", *(f"job/{number}" for number in range(1, 31)))
"""The locks that tests use: only their slots are assigned, so that looking at every slot stays quick."""

M = TypeVar("M", bound=Message)

MS = 1_000_000
S = 1_000 * MS


@dataclass
class Disk:
    """A node's journal as a test keeps it: the batches that were written, and how many of them are durable.

    Attributes:
        batches: of all lives, in order.
        durable: how many of them are.
        at_once: whether each is durable as soon as it is written.
    """

    batches: list[JournalBatch] = field(default_factory=list)
    durable: int = 0
    at_once: bool = True

    def found(self, count: int | None = None, *, is_complete: bool = True) -> JournalFound:
        """The journal as a new life finds it: everything, or the first batches."""
        return JournalFound([entry for each in self.batches[:count] for entry in each.entries], is_complete)

    def sync(self, core: NodeCore, now_ns: int) -> None:
        """Make everything durable."""
        if self.durable < len(self.batches):
            self.durable = len(self.batches)
            core.journaled(self.batches[-1].number, now_ns=now_ns)


@dataclass
class Client:
    """A client's connection: the messages that it has received, and a way to send requests."""

    nodes: Nodes
    node: str
    connection: int
    session: str
    inbox: list[Message] = field(default_factory=list)
    closed: str = ""
    requests: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def ask(self, message: Message) -> list[Message]:
        """Send a message and return what came back by the time everything is quiet."""
        seen = len(self.inbox)
        self.nodes.deliver(self.node, self.connection, message)
        self.nodes.finish(self.node)
        return self.inbox[seen:]

    def acquire(
        self, name: str, acquisition: int, *, wait_ms: int = -1, ttl_ms: int = 10_000, **more: Any
    ) -> list[Message]:
        return self.ask(
            Acquire(
                next(self.requests),
                self.session,
                ttl_ms,
                self.session,
                acquisition,
                name,
                wait_ms=wait_ms,
                **more,
            )
        )

    def release(self, name: str, acquisition: int) -> list[Message]:
        return self.ask(Release(next(self.requests), self.session, acquisition, name))

    def keep(self, *, ttl_ms: int = 10_000, **fields: object) -> list[Message]:
        values = {"through": 0, "count": 0, "digest": 0} | fields
        number = next(self.requests)
        return self.ask(Keepalive(number, self.session, ttl_ms, self.session, **values))  # type: ignore[arg-type]


class Nodes:
    """Some node cores, a coordinator played by the test, and clients."""

    def __init__(
        self,
        *names: str,
        timing: Timing | None = None,
        journals: bool = False,
        grantee_of: GranteeOf | None = None,
        audits: bool = False,
    ) -> None:
        self.now = 1_000 * S
        self.timing = timing or Timing()
        self.grantee_of = grantee_of
        self.audits = audits
        self.state = ClusterState(cluster="c", coordinator="here:1")
        self.cores: dict[str, NodeCore] = {}
        self.replicas: dict[str, Replica] = {}
        self.asks: list[tuple[SlotRequestKind, SlotRequest]] = []
        self.clients: dict[tuple[str, int], Client] = {}
        self.notes: list[str] = []
        self.audited: list[AuditEntry] = []
        self.asked_of_coordinator: list[Message] = []
        """Messages of nodes to it, except heartbeats and requests about slots."""
        self.cut: set[tuple[str, str]] = set()
        self.coordinator_up = True
        self.lag: set[str] = set()
        self.on_ask: Callable[[SlotRequestKind, SlotRequest], None] | None = None
        self.disks: dict[str, Disk] = {}
        """Of the nodes that keep a journal."""
        self._numbers = itertools.count(1)
        self._queue: deque[Callable[[], None]] = deque()
        for name in names:
            self.start(name, found=JournalFound([], True) if journals else None)

    def start(self, name: str, incarnation: int = 1, *, found: JournalFound | None = None) -> NodeCore:
        replica = self.replicas[name] = Replica(name, incarnation)
        core = self.cores[name] = NodeCore(
            replica,
            timing=self.timing,
            journal=found,
            grantee_of=self.grantee_of,
            audits=self.audits,
            now_ns=self.now,
        )
        if found is not None:
            self.disks.setdefault(name, Disk())
        core.connected(COORDINATOR, now_ns=self.now)
        for other in list(self.cores):
            if other != name:
                core.connected(self.replicas[other], now_ns=self.now)
                self.cores[other].connected(replica, now_ns=self.now)
        self.settle()
        return core

    def restart(self, name: str, *, is_complete: bool = True) -> NodeCore:
        """Start the next life of a node that has crashed, on what is durable of its journal."""
        disk = self.disks[name]
        del disk.batches[disk.durable :]
        found = disk.found(is_complete=is_complete)
        return self.start(name, self.replicas[name].incarnation + 1, found=found)

    def crash(self, name: str) -> None:
        replica = self.replicas[name]
        del self.cores[name]
        for core in self.cores.values():
            core.disconnected(replica, now_ns=self.now)
        for key in [key for key in self.clients if key[0] == name]:
            del self.clients[key]
        self.settle()

    def client(
        self, node: str, session: str, *, client: str = "", number: int = 1, access: Grantee | None = None
    ) -> Client:
        connection = next(self._numbers)
        made = self.clients[node, connection] = Client(self, node, connection, session)
        core = self.cores[node]
        hello = ClientHello(PROTOCOL, "", client or session + str(connection), number)
        core.connected(connection, newcomer=Newcomer(access), now_ns=self.now)
        core.receive(connection, hello, now_ns=self.now)
        self.settle()
        return made

    # ------------------------------------------------------------------ states

    def slots(self, change: Callable[[SlotState], SlotState], *numbers: int) -> None:
        """Write a new version in which these slots (by default all in use) are changed, and tell every node."""
        version = self.state.version + 1
        members = {name: Member(replica, f"{name}:1") for name, replica in self.replicas.items()}
        slots = list(self.state.slots)
        for number in numbers or sorted({slot_of(name) for name in NAMES}):
            slots[number] = msgspec.structs.replace(change(slots[number]), epoch=version)
        self.state = msgspec.structs.replace(self.state, version=version, members=members, slots=tuple(slots))
        self.tell()

    def tell(self) -> None:
        for name, core in list(self.cores.items()):
            if name not in self.lag:
                core.adopt(self.state, now_ns=self.now)
        self.settle()

    def assign(self, primary: str, backup: str | None = None, *names: str) -> None:
        """Assign slots empty: those of the lock names, or all in use."""
        version = self.state.version + 1
        numbers = [slot_of(name) for name in names]
        self.slots(
            lambda slot: SlotState(
                version,
                version,
                version,
                self.replicas[primary],
                Copy(self.replicas[backup], version) if backup else None,
                None,
                max(1, slot.generation_below),
                max(1, slot.generation_below) + 1_000_000,
            ),
            *numbers,
        )

    def promote(self, primary: str, *names: str, swap: bool = False) -> None:
        """Make the backup the primary of the names' slots, or of all; with `swap` the old primary stays as backup."""
        version = self.state.version + 1
        self.slots(
            lambda slot: msgspec.structs.replace(
                slot,
                since=version,
                primary=self.replicas[primary],
                backup=Copy(slot.primary, version) if swap and slot.primary else None,
                learner=None,
            ),
            *(slot_of(name) for name in names),
        )

    def copy_of(self, node: str) -> Copy:
        """A copy at a node that joins with the next state."""
        return Copy(self.replicas[node], self.state.version + 1)

    # ------------------------------------------------------------------ time and messages

    def deliver(self, node: str, sender: object, message: Message) -> None:
        self.cores[node].receive(sender, message, now_ns=self.now)  # type: ignore[arg-type]
        self.settle()

    def advance(self, duration_ns: int, step_ns: int = 50 * MS) -> None:
        """Let time pass in steps, with every timer that is due."""
        end = self.now + duration_ns
        while self.now < end:
            self.now = min(end, self.now + step_ns)
            for core in list(self.cores.values()):
                if core.next_deadline_ns() <= self.now:
                    core.on_timer(now_ns=self.now)
            self.settle(check=self.now == end)

    def finish(self, name: str) -> None:
        """Let a node do the work that it has left for its next turns, without time passing."""
        core = self.cores.get(name)
        while core is not None and core.next_deadline_ns() <= self.now:
            core.on_timer(now_ns=self.now)
            self.settle()

    def settle(self, *, check: bool = True) -> None:
        """Deliver messages until no node has anything to send, and check that every node is sound."""
        while True:
            for name, core in list(self.cores.items()):
                self._write(name, core)
                for effect in core.take_effects(now_ns=self.now):
                    self._carry_out(name, effect)
            if not self._queue:
                break
            while self._queue:
                self._queue.popleft()()
        if check:
            for core in self.cores.values():
                core.check_invariants()

    def _write(self, name: str, core: NodeCore) -> None:
        batch = core.take_journal(now_ns=self.now)
        if batch is not None:
            for effect in core.take_ahead(now_ns=self.now):
                self._carry_out(name, effect)
            disk = self.disks[name]
            disk.batches.append(batch)
            if disk.at_once:
                disk.sync(core, self.now)

    def inherit(self, name: str, *numbers: int) -> None:
        """Put a node's present life in the place of its former ones, as the coordinator does."""
        me, version = self.replicas[name], self.state.version + 1

        def heir(slot: SlotState) -> SlotState:
            primary, backup = slot.primary, slot.backup
            if primary is not None and primary.node == name:
                return msgspec.structs.replace(
                    slot,
                    since=version,
                    primary=me,
                    backup=None if backup is None else Copy(backup.replica, version),
                    learner=None,
                )
            if backup is not None and backup.replica.node == name:
                return msgspec.structs.replace(slot, backup=Copy(me, backup.joined))
            return slot

        self.slots(heir, *numbers)

    def _carry_out(self, name: str, effect: object) -> None:
        match effect:
            case Send(to=Coordinator(), message=Heartbeat() as beat):
                if self.coordinator_up and beat.version <= self.state.version:
                    self._later(name, COORDINATOR, HeartbeatAck(beat.sequence, self.state.version))
            case Send(to=Coordinator(), message=SlotRequests() as ask):
                for item in ask.items:
                    self.asks.append((SlotRequestKind(ask.kind), item))
                    if self.on_ask is not None:
                        kind = SlotRequestKind(ask.kind)
                        self._queue.append(lambda kind=kind, item=item: self.on_ask(kind, item))  # type: ignore[misc]
            case AuditEntry():
                self.audited.append(effect)
            case Send(to=int() as connection, message=message):
                client = self.clients.get((name, connection))
                if client is not None:
                    client.inbox.append(message)
            case Broadcast(to=connections, message=message):
                for connection in connections:
                    self.clients[name, connection].inbox.append(message)
            case Send(to=Replica(node=node), message=message) | Reply(to=Replica(node=node), message=message):
                if (name, node) not in self.cut and self.replicas.get(node) == effect.to:
                    self._later(node, self.replicas[name], message)
            case Refuse(to=connection, refusal=refusal):
                client = self.clients[name, connection]
                client.inbox.append(refusal)
                client.closed = refusal.text
            case Send(to=Coordinator(), message=message):
                self.asked_of_coordinator.append(message)
            case Close(to=int() as connection, reason=reason):
                self.clients[name, connection].closed = reason
            case Admit() | Publish():
                pass
            case Note(text=text):
                self.notes.append(text)
            case _:
                raise AssertionError(effect)

    def _later(self, node: str, sender: object, message: Message) -> None:
        def deliver() -> None:
            if node in self.cores:
                self.cores[node].receive(sender, message, now_ns=self.now)  # type: ignore[arg-type]

        self._queue.append(deliver)


def of(kind: type[M], messages: list[Message]) -> list[M]:
    """The messages of one kind."""
    return [message for message in messages if isinstance(message, kind)]
