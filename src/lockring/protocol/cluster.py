"""Members, the cluster state and its routes, and the orders of operators."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from lockring.protocol.base import Message
from lockring.protocol.infos import ServerStatus


class GetState(Message, tag=19):
    """Ask any server for the whole cluster state. Answered `StateReply`."""

    request: int


class StateReply(Message, tag=29):
    """The state, as `cluster_state.encode_state` writes it; `note` is a sentence on what the server is waiting for, if anything."""

    request: int
    state: bytes
    note: str = ""


class Routes(Message, tag=30):
    """Pushed to clients, at once on connecting and when it changes: where each slot's primary is.

    `members` are `[node, incarnation, address]`; `primaries` has two bytes (little endian) per slot: a
    place in `members`, or 0xFFFF for none.
    """

    version: int
    members: list[tuple[str, int, str]]
    primaries: bytes
    coordinator: str


class GetStatus(Message, tag=46):
    """Ask a server what it does itself at this moment. Answered `StatusReply`."""

    request: int


class StatusReply(Message, tag=56):
    """The answer to `GetStatus`."""

    request: int
    status: ServerStatus


class TroubleNotice(Message, tag=37):
    """Pushed to clients, after the greeting and when it changes: why a node cannot serve as it should; `reason` is as in
    `errors.Unavailable`, "" once all is well.

    `all`: whether it concerns every slot, or only those that have no primary. It has been so for `since_ms`, and will be for
    `left_ms` at the most (-1: not known).
    """

    reason: str
    text: str = ""
    all: bool = False
    since_ms: int = 0
    left_ms: int = -1


class Drain(Message, tag=43):
    """An operator's: move everything off this node. A node passes it on to its coordinator as what it is."""

    request: int
    node: str


class DrainReply(Message, tag=53):
    """The drain of `node` has begun, or had before."""

    request: int
    node: str


class Undrain(Message, tag=45):
    """An operator's: let a node that is drained have slots again. A node passes it on to its coordinator as what it is."""

    request: int
    node: str


class UndrainReply(Message, tag=54):
    """`node` may have slots again, or could all the time."""

    request: int
    node: str


class Join(Message, tag=40):
    """First message of a node to the coordinator. `version`: newest state it has seen (0: none); `grpc`: its gRPC HOST:PORT or ""."""

    protocol: int
    cluster: str
    node: str
    incarnation: int
    address: str
    weight: int
    version: int
    grpc: str = ""


class Leave(Message, tag=44):
    """From a node to the coordinator that it has joined: it is to stop, move everything off it. Answered `DrainReply`.

    It is about the life that sends it, and no other; nobody passes one on.
    """

    request: int


class Heartbeat(Message, tag=41):
    """A node is alive; `version` is the state it has. The counts are for people.

    `released` is the digest of the slots, with their reigns, that this life gave up with nobody to take over, and `promised_ms` for how
    long yet clients may believe in what they were granted there; -1 if that is unknown. See `core.farewells`.
    """

    sequence: int
    version: int
    locks: int = 0
    waiters: int = 0
    sessions: int = 0
    released: int = 0
    promised_ms: int = -1


class HeartbeatAck(Message, tag=51):
    """The coordinator's lease, counted from the sending of heartbeat `sequence`, given at state `version`.

    `waiting` slots have no primary until leases have surely ended, which takes `left_ms` more at the most. `why` says so for people.
    """

    sequence: int
    version: int
    waiting: int = 0
    left_ms: int = 0
    why: str = ""


class SlotRequestKind(IntEnum):
    """What a node asks of the coordinator for a slot.

    TAKEOVER: the primary is silent, promote me (its backup). DROP: this copy does not answer, drop it.
    IN_SYNC: this learner has caught up. EXTEND: reserve more generations.
    """

    TAKEOVER = 0
    DROP = 1
    IN_SYNC = 2
    EXTEND = 3


class SlotRequest(msgspec.Struct, array_like=True, gc=False):
    """One slot of an `SlotRequests`: `epoch` as the asker knows it; the copy meant, as node, incarnation, joined;
    for EXTEND `below` is the end of the range that is running out."""

    slot: int
    epoch: int
    node: str = ""
    incarnation: int = 0
    joined: int = 0
    below: int = 0


class SlotRequests(Message, tag=42):
    """Ask the coordinator for a change. It obliges nobody: only the next state says what was done."""

    kind: int
    items: list[SlotRequest]


class State(Message, tag=52):
    """The whole cluster state (`cluster_state.encode_state`); receivers ignore one that is not newer than theirs."""

    state: bytes
