"""The cluster state: one immutable, versioned value that says which node has which slot.

Only the coordinator makes new versions, by compare-and-set on `version` in its store. Nodes and clients
take a state as a whole and ignore one that is not newer than theirs. Nodes get all of it (`encode_state`);
clients only need `Routes`, which is the primary of every slot.

On the wire, the 4096 slots are a list of the different values and an index into it, since most slots share the
history of their neighbours.

Annotations are not postponed here, as in `protocol`: the decoder is made sooner.
"""

import struct
from collections.abc import Iterable
from typing import Final, Literal

import msgspec

from lockring.errors import ProtocolError
from lockring.ids import (
    NO_CLUSTER,
    NO_GENERATION,
    NO_TERM,
    NO_VERSION,
    ClusterId,
    Epoch,
    Generation,
    Incarnation,
    NodeId,
    TermId,
    Version,
)
from lockring.protocol import Routes
from lockring.slots import SLOTS

Condition = Literal["joining", "active", "draining"]
Replication = Literal["sync", "async"]

GENERATIONS_PER_REIGN: Final = 1_000_000
"""Number of generations in a reservation; an extension reserves as many again."""

SKIPPED_MAX: Final = 64
"""Number of ranges of skipped versions in a state: those of more starts of coordinators than fit into one lease."""

GENERATION_MAX: Final = 2**53 - 1
"""Greatest generation: up to here they stay exact in JSON and JavaScript."""


class Replica(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One life of one node.

    Attributes:
        node: the node's id.
        incarnation: raised at each start of the node's process, so that a restart is never mistaken for a return.
    """

    node: NodeId
    incarnation: Incarnation

    def __str__(self) -> str:
        return f"{self.node}#{self.incarnation}"


class Copy(msgspec.Struct, frozen=True, array_like=True):
    """A replica's tenure as a copy of one slot.

    Attributes:
        replica: the replica that has the copy.
        joined: version of the state that made it a learner (or, for the former primary of a planned move, its
            backup).
    """

    replica: Replica
    joined: Version


class SlotState(msgspec.Struct, frozen=True, array_like=True):
    """One slot: its replicas, and the generations of the present reign.

    Attributes:
        epoch: version of the last change to this slot; requests about a slot name it.
        since: version that began the primary's reign.
        base: version at which the slot was last assigned empty; copies of another base have nothing in common.
        primary: the replica that may serve, or None if none may.
        backup: the copy in sync, or None.
        learner: the copy that is catching up, or None.
        generation_from: first generation that the reign may hand out.
        generation_below: end of that range, exclusive.
    """

    epoch: Epoch = Epoch(0)
    since: Version = NO_VERSION
    base: Version = NO_VERSION
    primary: Replica | None = None
    backup: Copy | None = None
    learner: Copy | None = None
    generation_from: Generation = NO_GENERATION
    generation_below: Generation = NO_GENERATION

    def copy_of(self, replica: Replica) -> Copy | None:
        """Return the replica's tenure as backup or learner here, or None."""
        if self.backup is not None and self.backup.replica == replica:
            return self.backup
        if self.learner is not None and self.learner.replica == replica:
            return self.learner
        return None


class Member(msgspec.Struct, frozen=True, array_like=True):
    """A lock node as the cluster knows it.

    Attributes:
        replica: id and incarnation.
        address: HOST:PORT at which clients and peers reach it.
        weight: its share of slots relative to the others, 1 to 100.
        condition: "joining" until its first slots have arrived, then "active"; "draining" once it leaves.
        grpc: HOST:PORT of its gRPC port, "" if it has none.
        differences: whether it takes differences of states, from the coordinator and from other members.
    """

    replica: Replica
    address: str
    weight: int = 1
    condition: Condition = "joining"
    grpc: str = ""
    differences: bool = False


class Farewell(msgspec.Struct, frozen=True, array_like=True):
    """The time until which clients may trust grants in slots that no node has any more; see `core.farewells`.

    Attributes:
        boot: the boot of the machine whose monotonic clock the instants refer to.
        until_ns: on that clock.
        at_ns: when this was written, by that clock.
        at_wall_ns: the same by the wall clock.
        version: of the newest state that it covers.
    """

    boot: str
    until_ns: int
    at_ns: int
    at_wall_ns: int
    version: Version


class Relocation(msgspec.Struct, frozen=True, array_like=True):
    """The mark of a store that its cluster has left: no coordinator may begin there.

    Attributes:
        version: of the state that was taken along; this store has nothing newer of the cluster.
        at_wall_ns: when that was, by the wall clock.
        account: what was moved where and when, as a sentence for people.
    """

    version: Version
    at_wall_ns: int
    account: str


class ClusterState(msgspec.Struct, frozen=True):
    """The whole decision on placement, immutable.

    Attributes:
        cluster: random id of the cluster; members of another are refused.
        version: nanoseconds, `max(previous + 1, wall clock)`; 0 is the state before the first.
        term: the coordinator that may write the next version.
        members: by node id.
        slots: `SLOTS` of them, by number.
        replication: "sync" answers a grant once all required copies have it, "async" at once.
        backup_lease_ms: T, for which a copy's acknowledgement lets a primary serve.
        coordinator_lease_ms: L, for which the coordinator's acknowledgement lets a node serve; also the longest TTL.
        coordinator: HOST:PORT of the coordinator that wrote this version.
        farewell: what the nodes of a stopped cluster reported about their promises, None if nothing.
        skipped: ranges of versions, without their ends, that coordinators have skipped when they began: no state of
            this store had one of them. The newest `SKIPPED_MAX` of them.
        relocation: set once the cluster has left this store for another one, None otherwise.
    """

    cluster: ClusterId = NO_CLUSTER
    version: Version = NO_VERSION
    term: TermId = NO_TERM
    members: dict[NodeId, Member] = {}
    slots: tuple[SlotState, ...] = (SlotState(),) * SLOTS
    replication: Replication = "sync"
    backup_lease_ms: int = 2_000
    coordinator_lease_ms: int = 30_000
    coordinator: str = ""
    farewell: Farewell | None = None
    skipped: tuple[tuple[Version, Version], ...] = ()
    relocation: Relocation | None = None

    def has_skipped(self, version: Version) -> bool:
        """Return whether a version belongs to no state of this store: its state was lost when the store went back."""
        return any(below < version < above for below, above in self.skipped)

    def is_current(self, replica: Replica) -> bool:
        """Return whether this life of the node is the one that the cluster knows."""
        member = self.members.get(replica.node)
        return member is not None and member.replica == replica

    def address_of(self, replica: Replica) -> str | None:
        """Return the address of a replica, None if the cluster knows another life of the node, or none."""
        member = self.members.get(replica.node)
        return member.address if member is not None and member.replica == replica else None


class _Wire(msgspec.Struct, frozen=True, array_like=True):
    cluster: ClusterId
    version: Version
    term: TermId
    members: list[Member]
    different: list[SlotState]
    index: bytes
    replication: Replication
    backup_lease_ms: int
    coordinator_lease_ms: int
    coordinator: str
    farewell: Farewell | None = None
    skipped: tuple[tuple[Version, Version], ...] = ()
    relocation: Relocation | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def encode_state(state: ClusterState) -> bytes:
    """Serialize a state for the store or the wire (about 10 KiB plus the differences between slots)."""
    different, index = _deduplicate(state.slots)
    return _encoder.encode(
        _Wire(
            cluster=state.cluster,
            version=state.version,
            term=state.term,
            members=list(state.members.values()),
            different=different,
            index=index,
            replication=state.replication,
            backup_lease_ms=state.backup_lease_ms,
            coordinator_lease_ms=state.coordinator_lease_ms,
            coordinator=state.coordinator,
            farewell=state.farewell,
            skipped=state.skipped,
            relocation=state.relocation,
        )
    )


def decode_state(data: bytes) -> ClusterState:
    """Deserialize what `encode_state` returned. Equal slots come back as one shared object.

    Raises:
        ProtocolError: the bytes are not a cluster state.
    """
    try:
        wire = _decoder.decode(data)
        numbers = struct.unpack(f"<{len(wire.index) // 2}H", wire.index)
        slots = tuple([wire.different[number] for number in numbers])
    except (msgspec.MsgspecError, ValueError, RecursionError, struct.error, IndexError) as error:
        raise ProtocolError(f"not a cluster state: {error}") from error
    if len(slots) != SLOTS:
        raise ProtocolError(f"a cluster state has {SLOTS} slots, not {len(slots)}")
    return ClusterState(
        cluster=wire.cluster,
        version=wire.version,
        term=wire.term,
        members={member.replica.node: member for member in wire.members},
        slots=slots,
        replication=wire.replication,
        backup_lease_ms=wire.backup_lease_ms,
        coordinator_lease_ms=wire.coordinator_lease_ms,
        coordinator=wire.coordinator,
        farewell=wire.farewell,
        skipped=wire.skipped,
        relocation=wire.relocation,
    )


def _deduplicate(slots: Iterable[SlotState]) -> tuple[list[SlotState], bytes]:
    numbers: dict[SlotState, int] = {}
    index = bytearray()
    for slot in slots:
        index += numbers.setdefault(slot, len(numbers)).to_bytes(2, "little")
    return list(numbers), bytes(index)


def routes_of(state: ClusterState) -> Routes:
    """Return the part of a state that a client needs: the members' addresses and each slot's primary."""
    members = [[m.replica.node, m.replica.incarnation, m.address] for m in state.members.values()]
    number = {m.replica: place for place, m in enumerate(state.members.values())}
    primaries = bytearray()
    for slot in state.slots:
        place = 0xFFFF if slot.primary is None else number.get(slot.primary, 0xFFFF)
        primaries += place.to_bytes(2, "little")
    return Routes(
        version=state.version,
        members=[(node, incarnation, address) for node, incarnation, address in members],  # type: ignore[misc]
        primaries=bytes(primaries),
        coordinator=state.coordinator,
    )
