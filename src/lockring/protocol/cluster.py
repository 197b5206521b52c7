"""Members, the cluster state and its routes, and the orders of operators."""

from enum import IntEnum
from typing import Final

import msgspec

from lockring.ids import (
    NO_GENERATION,
    NO_INCARNATION,
    NO_NODE,
    NO_REQUEST,
    NO_VERSION,
    ClusterId,
    Epoch,
    Generation,
    Incarnation,
    NodeId,
    RequestNumber,
    SequenceNumber,
    SlotNumber,
    Version,
)
from lockring.protocol.base import Message
from lockring.protocol.identities import Identity
from lockring.protocol.infos import ServerStatus

NO_DIFFERENCES: Final = Version(-1)
"""Stands for the version that a sender has, if it takes only whole states."""

FORMER_LIVES_MAX: Final = 1_000
"""Former lives for which one life may vouch. A journal rarely has more than a few."""


class GetState(Message, tag=19):
    """Ask any server for the whole cluster state. Answered `StateReply`."""

    request: RequestNumber


class StateReply(Message, tag=29):
    """The answer to `GetState`: the state as `cluster_state.encode_state` writes it.

    `note` is a sentence on what the server is waiting for, "" if nothing.
    `age_ms` is for how long newer states may have escaped the server, since it has lost the store or the coordinator.
    """

    request: RequestNumber
    state: bytes
    note: str = ""
    age_ms: int = 0


class Routes(Message, tag=30):
    """The primary of each slot. Pushed to clients when they connect and when it changes.

    `members` are `[node, incarnation, address]`; `primaries` has two bytes (little endian) per slot: an index
    into `members`, or 0xFFFF for none.
    """

    version: Version
    members: list[tuple[NodeId, Incarnation, str]]
    primaries: bytes
    coordinator: str


class GetRoutes(Message, tag=23):
    """Ask the server that has sent a `RoutesDifference` for all routes, since it did not fit. Answered `Routes`.

    `version` is that of the routes that the client has, and `request` the number that a refusal names: without one, as
    in earlier versions, a request that is refused gets no answer.
    """

    version: Version
    request: RequestNumber = NO_REQUEST


class RoutesDifference(Message, tag=58):
    """The step from the routes of version `base` to those of `version`. Pushed in place of `Routes`.

    Sent to clients alone that have said that they understand it, and that were sent version `base` before. A client
    that has just that version takes it, and checks the result by `digest`, as `core.route_differences` defines it.

    `gone` are former members, `members` those that are new, or have another address. `slots` has four
    bytes for each slot with another primary: its number and a place in `primaries`, or 0xFFFF for none; little endian.
    """

    base: Version
    version: Version
    digest: int
    coordinator: str
    gone: list[tuple[NodeId, Incarnation]]
    members: list[tuple[NodeId, Incarnation, str]]
    primaries: list[tuple[NodeId, Incarnation]]
    slots: bytes


class GetStatus(Message, tag=46):
    """Ask a server for its own status at this moment. Answered `StatusReply`."""

    request: RequestNumber


class Probe(Message, tag=6):
    """Ask a coordinator, after a while of silence, whether it is there. Answered `ProbeReply`.

    Sent to coordinators alone that have said that they answer it. A node is asked for the end of a watch that does not
    exist.
    """

    request: RequestNumber


class ProbeReply(Message, tag=7):
    """The answer to `Probe`."""

    request: RequestNumber


class StatusReply(Message, tag=56):
    """The answer to `GetStatus`."""

    request: RequestNumber
    status: ServerStatus


class TroubleNotice(Message, tag=37):
    """The reason why a node cannot serve as it should. Pushed to clients after the greeting and when it changes.

    `reason` is as in `errors.Unavailable`, "" once all is well. `all`: whether it concerns every slot, or only those
    without a primary. It began `since_ms` ago and lasts at most `left_ms` longer (-1: unknown).
    """

    reason: str
    text: str = ""
    all: bool = False
    since_ms: int = 0
    left_ms: int = -1


class Drain(Message, tag=43):
    """An operator's order to move everything off a node. A node forwards it to its coordinator.

    `asker` is the operator's identity, which the forwarding node sets; None at a node that checks no identities.
    """

    request: RequestNumber
    node: NodeId
    asker: Identity | None = None


class DrainReply(Message, tag=53):
    """The drain of `node` has begun, now or earlier."""

    request: RequestNumber
    node: NodeId


class Undrain(Message, tag=45):
    """An operator's order to let a drained node have slots again. A node forwards it to its coordinator.

    `asker` is as in `Drain`.
    """

    request: RequestNumber
    node: NodeId
    asker: Identity | None = None


class UndrainReply(Message, tag=54):
    """`node` may have slots again, or already could."""

    request: RequestNumber
    node: NodeId


class Join(Message, tag=40):
    """First message of a node to the coordinator.

    `version`: the newest state that the node has seen (0: none); `grpc`: its gRPC HOST:PORT, or "". `former`: earlier
    lives of this node, at most `FORMER_LIVES_MAX`. The sender testifies that they are over, and that its journal has
    everything for which they have answered. `has`: the version of the state that the sender itself has (0: none), if it
    understands `StateDifference`; -1 if it does not. `identities`: it knows identities, and may check rights.
    """

    protocol: int
    cluster: ClusterId
    node: NodeId
    incarnation: Incarnation
    address: str
    weight: int
    version: Version
    grpc: str = ""
    former: list[Incarnation] = []
    has: Version = NO_DIFFERENCES
    identities: bool = False


class Leave(Message, tag=44):
    """A joined node's notice to the coordinator that it stops: move everything off it. Answered `DrainReply`.

    It concerns the life that sends it and no other, and is never forwarded. `keeps`: what no other node can take is
    kept in the sender's journal, so that its slots stay the sender's.
    """

    request: RequestNumber
    keeps: bool = False


class Heartbeat(Message, tag=41):
    """A sign of life from a node; `version` is the state that it has. The counts are for people.

    `released` is the digest of the slots, with their reigns, that this life gave up without a successor, and
    `promised_ms` how long clients may still trust grants in them; -1 if unknown. See `core.farewells`. `is_astray`: a
    difference did not fit the sender's state, so that it needs the whole one.
    """

    sequence: SequenceNumber
    version: Version
    locks: int = 0
    waiters: int = 0
    sessions: int = 0
    released: int = 0
    promised_ms: int = -1
    is_astray: bool = False


class HeartbeatAck(Message, tag=51):
    """The coordinator's lease, counted from the sending of heartbeat `sequence`, given at state `version`.

    `waiting` slots have no primary until leases have surely ended, in at most `left_ms`. `why` says so for people.
    """

    sequence: SequenceNumber
    version: Version
    waiting: int = 0
    left_ms: int = 0
    why: str = ""


class SlotRequestKind(IntEnum):
    """The kind of change that a node requests for a slot.

    TAKEOVER: the primary is silent; promote the sender, its backup. DROP: this copy does not answer; drop it.
    IN_SYNC: this learner has caught up. EXTEND: reserve more generations.
    """

    TAKEOVER = 0
    DROP = 1
    IN_SYNC = 2
    EXTEND = 3


class SlotRequest(msgspec.Struct, array_like=True, gc=False):
    """One slot of a `SlotRequests`: the epoch as the sender knows it, and the copy, as node, incarnation and joined.

    For EXTEND, `below` is the end of the range that is running out.
    """

    slot: SlotNumber
    epoch: Epoch
    node: NodeId = NO_NODE
    incarnation: Incarnation = NO_INCARNATION
    joined: Version = NO_VERSION
    below: Generation = NO_GENERATION


class SlotRequests(Message, tag=42):
    """Request a change from the coordinator, which may ignore it: only the next state tells what was done."""

    kind: int
    items: list[SlotRequest]


class State(Message, tag=52):
    """The whole cluster state (`cluster_state.encode_state`); receivers ignore one that is not newer than theirs."""

    state: bytes


class StateDifference(Message, tag=57):
    """The step from the cluster state of version `base` to that of `version`, as `core.state_differences` writes it.

    Sent to members alone that have joined with `Join.has`. A receiver that has version `base` takes it, and checks the
    result by `digest`. One that has an older version needs the whole state.
    """

    base: Version
    version: Version
    digest: int
    change: bytes
