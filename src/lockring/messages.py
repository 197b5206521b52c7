"""Every message on the wire.

A frame is a 4-byte big-endian length and one msgpack array `[tag, field, …]`: a struct of this module.
New fields go to the end, with a default, so that either side may be older. Durations are milliseconds
(`_ms`); instants never travel. A `request` number is chosen by the asking side, rises on each
of its messages to one server, and comes back in the answer.

Who sends what:

    client → node              ClientHello, Acquire, Release, Keepalive, CloseSession, Describe, List, Watch, Unwatch, Break,
                               Look, Follow, Seen
    client → node, coordinator ClientHello, GetState, GetStatus, Drain, Undrain
    server → client            Welcome, Refused, Granted, Released, Kept, Described, Listed, Changed, Broken, Lost,
                               View, Settled, StateIs, StatusIs, Routes, Draining, Undrained, Queued, Trouble
    node → coordinator         Join, Heartbeat, Ask, Leave; Drain and Undrain of an operator, passed on
    coordinator → node         Welcome, Refused, HeartbeatAck, State, Draining, Undrained
    node → node                PeerHello, Replicate, HandOver, State   (on the connection that the sender opened)
                               Welcome, Refused, ReplicateAck, State   (the answers on it)
"""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.streams import AskItem as AskItem
from lockring.streams import AskKind as AskKind
from lockring.streams import HandOverSlot as HandOverSlot
from lockring.streams import Mutation as Mutation
from lockring.streams import Put as Put
from lockring.streams import Remove as Remove
from lockring.streams import Resume as Resume
from lockring.streams import Revoke as Revoke
from lockring.streams import Snapshot as Snapshot
from lockring.streams import Stream as Stream
from lockring.streams import Tail as Tail
from lockring.streams import Touch as Touch
from lockring.views import GroupMember as GroupMember
from lockring.views import HolderInfo as HolderInfo
from lockring.views import LockEvent as LockEvent
from lockring.views import LockInfo as LockInfo
from lockring.views import Mode as Mode
from lockring.views import ServerStatus as ServerStatus
from lockring.views import Verdict as Verdict
from lockring.views import WaiterInfo as WaiterInfo

PROTOCOL: Final = 1
"""Version of this wire protocol; both sides must speak the same."""

FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
"""Longest frame that anyone may send; longer ones end the connection."""

WAIT_FOREVER: Final = -1
"""`wait_ms` of a request that waits until it is granted, cancelled or its connection ends."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages."""


# --------------------------------------------------------------------------- greetings and errors


class ClientHello(Message, tag=1):
    """First message of a client. `client` is a random id of the client object; `connection` counts its
    connections to this server: a higher one ends the lower ones. `cluster` is "" if not known yet."""

    protocol: int
    cluster: str
    client: str
    connection: int
    software: str = ""


class PeerHello(Message, tag=2):
    """First message of a node to a peer: who it is, and which life of the peer it wants to reach."""

    protocol: int
    cluster: str
    node: str
    incarnation: int
    to_node: str
    to_incarnation: int


class Welcome(Message, tag=3):
    """The hello or join is accepted. `role` is "node" or "coordinator"; `coordinator` is its HOST:PORT."""

    protocol: int
    cluster: str
    role: str
    node: str
    incarnation: int
    version: int
    coordinator: str = ""


class Refused(Message, tag=4):
    """The request was not carried out. `request` is 0 for a hello, a join or a frame that could not be read.

    `code` is one of `lockring.errors`, `hint` a number that helps with it (for "stale" joins: the lowest
    incarnation that will be accepted; for "moved": the version that says where to).
    """

    request: int
    code: str
    text: str
    name: str = ""
    hint: int = 0


# --------------------------------------------------------------------------- locks


class Acquire(Message, tag=10):
    """Acquire a lock, or wait for it. Repeating it under the same acquisition id changes nothing.

    It also starts the session's TTL afresh. `acquisition` numbers the session's acquisitions from 1, never
    used twice. `wait_ms` is 0 to try once, `WAIT_FOREVER`, or a bound; `waited_ms` is how long the client has been
    waiting already (elsewhere, before a failover). `version` is that of the client's routes. `payload` is kept with the
    holder for others to see, `views.PAYLOAD_BYTES_MAX` at the most.
    """

    request: int
    session: str
    ttl_ms: int
    owner: str
    acquisition: int
    name: str
    mode: int = Mode.EXCLUSIVE
    permits: int = 1
    wait_ms: int = WAIT_FOREVER
    waited_ms: int = 0
    version: int = 0
    payload: bytes = b""


class Release(Message, tag=11):
    """Give up one acquisition, held or waiting; with `acquire` (an Acquire's request) only if nobody else asked for it. Answered `Released`."""

    request: int
    session: str
    acquisition: int
    name: str
    version: int = 0
    acquire: int = 0


class Keepalive(Message, tag=12):
    """Renew the session's acquisitions at this node.

    `count` and `digest` (see `core.digest`) cover all acquisitions that the client believes to hold or to
    wait for at this node; `through` is the highest acquisition number it has used. Where the node disagrees, the client
    repeats it with `slots`, the same per slot as `[slot, count, digest]`, and where that differs with `listed`:
    `[slot, [[acquisition, name], …]]`. Acquisitions up to `through` in a listed slot, and not in its list, were given up.
    """

    request: int
    session: str
    ttl_ms: int
    owner: str
    through: int
    count: int
    digest: int
    slots: list[tuple[int, int, int]] = []
    listed: list[tuple[int, list[tuple[int, str]]]] = []
    version: int = 0


class CloseSession(Message, tag=13):
    """Give up everything that the session has at this node. Answered `Released`."""

    request: int
    session: str


class Granted(Message, tag=20):
    """The acquisition is held. The promise counts from when the client *sent* the request numbered `basis`."""

    request: int
    generation: int
    promise_ms: int
    basis: int


class Released(Message, tag=21):
    """`dropped` says whether the acquisition was still known here."""

    request: int
    dropped: bool


class Kept(Message, tag=22):
    """Answer to a keepalive; the promise counts from when the client sent it.

    `agreed`: the digests agree and the node may serve all of these slots, so the promise is for every acquisition
    it covered. Otherwise for those with verdict HELD: of a slot (`[slot, verdict]`) or of one
    acquisition (`[acquisition, verdict, generation]`). An empty answer without `agreed` asks for `slots`.
    """

    request: int
    promise_ms: int
    agreed: bool
    slots: list[tuple[int, int]] = []
    acquisitions: list[tuple[int, int, int]] = []


class Queued(Message, tag=36):
    """Pushed for an acquire that has waited for a moment: others have the lock, it is in the queue, and this node serves the slot."""

    request: int


class Lost(Message, tag=28):
    """Pushed to a holder: this acquisition ended (`reason` as in `errors.LockLost`). Release it to let go at once."""

    session: str
    acquisition: int
    name: str
    reason: str


# --------------------------------------------------------------------------- asking and administration


class Describe(Message, tag=14):
    """Ask for one lock, held or free. Answered `Described`."""

    request: int
    name: str
    version: int = 0


class Described(Message, tag=24):
    """The answer to `Describe`."""

    request: int
    lock: LockInfo


class List(Message, tag=15):
    """Ask for the locks of this node, held or waited for, whose name starts with `prefix`, a page at a time.

    Start with slot 0 and name ""; go on with what `Listed` says. `limit` is 1 to 10,000.
    """

    request: int
    prefix: str
    from_slot: int = 0
    after_name: str = ""
    limit: int = 1000


class Listed(Message, tag=25):
    """A page. `next_slot` is -1 after the last one. `unserved` counts the slots among those looked at for this page of which
    this node is the primary and may not tell at present."""

    request: int
    locks: list[LockInfo]
    next_slot: int
    next_name: str
    unserved: int = 0


class Watch(Message, tag=16):
    """Send `Changed` now and after every change to the lock, until `Unwatch`, or `Refused` when it moves."""

    request: int
    name: str
    version: int = 0


class Unwatch(Message, tag=17):
    """End the watch, or the following, that was started by the request numbered `watch`. Answered `Released`."""

    request: int
    watch: int


class Changed(Message, tag=26):
    """The watched lock as it is now; `request` is the watch's.

    `events` lead from the last `Changed` of this watch to this one, in order; none in the first. With `gap`, some are missing.
    """

    request: int
    lock: LockInfo
    events: list[LockEvent] = []
    gap: bool = True


class Break(Message, tag=18):
    """End a holder's lease by its generation. The holder is told, its lease is not renewed; the lock is free
    once it lets go or its TTL has passed. With `force`, at once (two may then believe to hold it)."""

    request: int
    name: str
    generation: int
    force: bool = False
    version: int = 0


class Broken(Message, tag=27):
    """`freed` says whether the lock is free already; otherwise it will be within `within_ms`."""

    request: int
    freed: bool
    within_ms: int


# --------------------------------------------------------------------------- groups


class Look(Message, tag=31):
    """Ask for the members of the group whose lock is `name`. Answered `View`."""

    request: int
    name: str
    version: int = 0


class Follow(Message, tag=32):
    """A member wants every `View` of its group, now and when it changes, until `Unwatch`, or `Refused` when it moves.

    The member is the holder of the group's lock that `session` and `acquisition` name; it has seen the `view` of that number
    (0: none) and let go of what that takes from it.
    """

    request: int
    name: str
    session: str
    acquisition: int
    view: int = 0
    version: int = 0


class Seen(Message, tag=33):
    """A member has let go of what the `view` of that number takes from it. Not answered."""

    request: int
    name: str
    session: str
    acquisition: int
    view: int


class View(Message, tag=34):
    """The members of a group; `view` numbers it, 0 if the node has formed none yet.

    `settled`: every member that was there when it was formed has seen it or is gone, so what it gives to a member is
    nobody else's. `awaited` has the ids of those that have not, for who looks.
    """

    request: int
    view: int
    settled: bool
    members: list[GroupMember]
    awaited: list[str] = []


class Settled(Message, tag=35):
    """To a member that has this view: it is settled."""

    request: int
    view: int


class GetState(Message, tag=19):
    """Ask any server for the whole cluster state. Answered `StateIs`."""

    request: int


class StateIs(Message, tag=29):
    """The state, as `ring.state.encode_state` writes it; `note` is a sentence on what the server is waiting for, if anything."""

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
    """Ask a server what it does itself at this moment. Answered `StatusIs`."""

    request: int


class StatusIs(Message, tag=56):
    """The answer to `GetStatus`."""

    request: int
    status: ServerStatus


class Leave(Message, tag=44):
    """From a node to the coordinator that it has joined: it is to stop, move everything off it. Answered `Draining`.

    It is about the life that sends it, and no other; nobody passes one on.
    """

    request: int


class Trouble(Message, tag=37):
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


class Draining(Message, tag=53):
    """The drain of `node` has begun, or had before."""

    request: int
    node: str


class Undrain(Message, tag=45):
    """An operator's: let a node that is drained have slots again. A node passes it on to its coordinator as what it is."""

    request: int
    node: str


class Undrained(Message, tag=54):
    """`node` may have slots again, or could all the time."""

    request: int
    node: str


# --------------------------------------------------------------------------- node and coordinator


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


class Ask(Message, tag=42):
    """Ask the coordinator for a change. It obliges nobody: only the next state says what was done."""

    kind: int
    items: list[AskItem]


class State(Message, tag=52):
    """The whole cluster state (`ring.state.encode_state`); receivers ignore one that is not newer than theirs."""

    state: bytes


# --------------------------------------------------------------------------- node and node


class Replicate(Message, tag=60):
    """From a primary to a copy: a heartbeat, and the news of any number of slots.

    `version` is the sender's state; `serving` is False if the sender knows that it may not serve (no coordinator lease).
    """

    sequence: int
    version: int
    serving: bool
    streams: list[Stream]


class ReplicateAck(Message, tag=61):
    """Acknowledges `Replicate` number `sequence`, and with it the sender's lease; `version` is the state that the copy had.

    `positions` has `[slot, since, joined, index]` for the slots it named: index -1 asks for a snapshot.
    """

    sequence: int
    version: int
    positions: list[tuple[int, int, int, int]]


class HandOver(Message, tag=62):
    """From a former primary to its successor: it will never serve these slots in that reign again."""

    version: int
    slots: list[HandOverSlot]


ToNode = (
    ClientHello
    | PeerHello
    | Acquire
    | Release
    | Keepalive
    | CloseSession
    | Describe
    | List
    | Watch
    | Unwatch
    | Break
    | Look
    | Follow
    | Seen
    | GetState
    | GetStatus
    | Drain
    | Undrain
    | Replicate
    | HandOver
    | State
)
"""What a node accepts on its listening port."""

ToCoordinator = ClientHello | GetState | GetStatus | Drain | Undrain | Join | Heartbeat | Ask | Leave
"""What a coordinator accepts on its listening port."""

ToClient = (
    Welcome
    | Refused
    | Granted
    | Released
    | Kept
    | Described
    | Listed
    | Changed
    | Broken
    | Lost
    | View
    | Settled
    | StateIs
    | StatusIs
    | Routes
    | Draining
    | Undrained
    | Queued
    | Trouble
)
"""What a client accepts on a connection that it opened."""

FromCoordinator = Welcome | Refused | HeartbeatAck | State | Draining | Undrained
"""What a node accepts on the connection that it opened to a coordinator."""

FromPeer = Welcome | Refused | ReplicateAck | State
"""What a node accepts on the connection that it opened to a peer."""
