"""Values about locks, groups and servers, for people and programs."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final

import msgspec

from lockring.ids import (
    NO_GENERATION,
    NO_NODE,
    NO_VERSION,
    AcquisitionNumber,
    Generation,
    Incarnation,
    LockName,
    NodeId,
    SessionId,
    SlotNumber,
    Version,
)

PAYLOAD_BYTES_MAX: Final = 1024
"""Longest payload of a holder. A node keeps each in memory, twice."""


SEQ_FREE: Final = 2**31 - 1
"""`LockRecord.seq` of a free lock: past every change since its last grant, which are no longer counted."""


class Mode(IntEnum):
    """The way a lock is held: by one, by many readers, or by as many as there are permits."""

    EXCLUSIVE = 0
    SHARED = 1
    SEMAPHORE = 2


class HolderRecord(msgspec.Struct, array_like=True, gc=False):
    """One holder: how long it has held the lock, and how much of its lease is left at the node.

    `payload` is the data that it left there for others. `renewed_ms` is how long ago it was heard, or its node took
    over, -1 if the sender does not say. `host` and `pid` are where its process is, "" and 0 if that is not known.
    `away_ms` is how long its connection has been gone, -1 while there is one or if none is known. `broken`: an operator
    has broken its lease.
    """

    owner: str
    session: SessionId
    acquisition: AcquisitionNumber
    generation: Generation
    held_ms: int
    ttl_ms: int
    left_ms: int
    payload: bytes = b""
    renewed_ms: int = -1
    host: str = ""
    pid: int = 0
    away_ms: int = -1
    broken: bool = False


class WaiterRecord(msgspec.Struct, array_like=True, gc=False):
    """One waiter, in queue order; `mode` is how it wants the lock."""

    owner: str
    session: SessionId
    acquisition: AcquisitionNumber
    waited_ms: int
    mode: int = Mode.EXCLUSIVE


class LockEventKind(IntEnum):
    """The kind of an event: what happened to a holder or a waiter of a watched lock.

    WAITING: it began to wait. GRANTED: it holds the lock, at once or after a wait. RELEASED: its holder let go.
    LOST: it ended without a release (`reason`: "expired" or "broken"). LEFT: it stopped waiting without a grant
    (`reason`: "timeout", "cancelled", "disconnected" or "expired"). GONE: it disappeared for an unseen reason; only
    clients report that, for a gap.
    """

    WAITING = 0
    GRANTED = 1
    RELEASED = 2
    LOST = 3
    LEFT = 4
    GONE = 5


class LockEvent(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One event of a watched lock; `generation` is 0 for a waiter."""

    kind: int
    owner: str
    session: SessionId
    acquisition: AcquisitionNumber
    mode: int
    generation: Generation = NO_GENERATION
    reason: str = ""


class LockRecord(msgspec.Struct, array_like=True, gc=False):
    """A lock as its primary sees it.

    `(generation, seq)` orders the records of one lock. No grant of it had a higher `generation`; of a free lock, `seq`
    is `SEQ_FREE`. For a group's lock, `view` is the number of the present view.
    """

    name: LockName
    slot: SlotNumber
    primary: NodeId
    mode: int
    permits: int
    generation: Generation
    seq: int
    holders: list[HolderRecord]
    waiters: list[WaiterRecord]
    view: Generation = NO_GENERATION


COUNTED_MAX: Final = 10_000
"""So many locks of a search are counted where that takes a look at each name. More take nodes too long."""


class LockSearch(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A search for locks: by name, which are wanted.

    Names are those behind `after` and, unless that is "", before `before`. `text` is a part of the name,
    or where the prefix of the search is that of groups, of the group's name. `owner` is one
    of a holder's or waiter's label, whatever its case; "" for any. `mode` is that of the holders, -1 for any.
    `is_held` and `has_waiters` leave out the other locks. Without `is_counted` they are not counted where that would
    take a look at each name.
    """

    after: str = ""
    before: str = ""
    text: str = ""
    owner: str = ""
    mode: int = -1
    is_held: bool = False
    has_waiters: bool = False
    is_counted: bool = True


class LockRecords(list[LockRecord]):
    """Locks, sorted by name.

    Attributes:
        unserved_slots: number of the cluster's 4096 slots without an answer; locks in them are missing here. 0 if the
            list is complete.
    """

    def __init__(self, locks: Iterable[LockRecord] = (), unserved_slots: int = 0) -> None:
        super().__init__(locks)
        self.unserved_slots = unserved_slots


CERTIFICATE_ENDS_SOON_S: Final = 14 * 86_400
"""How long before its end a certificate is reported, in seconds."""


class CertificateInfo(msgspec.Struct, array_like=True, gc=False):
    """When a certificate ends that a server shows or was shown.

    `side` is "clients" or "servers" for one of its own that is shown to them, whose file `name` is; "peer" for that of
    another server, called `name`, which ends soon. `not_after_s` is the end in seconds since 1970. `fingerprint` tells
    it from all others: the SHA-256 of its DER form, in hexadecimal digits, "" if unknown.
    """

    side: str
    name: str
    not_after_s: int
    fingerprint: str = ""


HTTP_OFF: Final = "off"
"""`ServerStatus.http` of a server without HTTP."""


class ServerStatus(msgspec.Struct, array_like=True, gc=False):
    """A server's status at one moment, by its own clock and rights, whatever the cluster state says.

    Of a node: `serving` counts the slots that it may serve now, `primary` those that its newest state (`version`) gives
    it. `lease_left_ms` is the rest of the coordinator's lease, 0 if there is none. `lease_over_ms` is how long ago the
    lease ended, `away_ms` how long the node has been out of touch with the coordinator; -1 if not so. `durability` is
    how it keeps locks ("none", "process" or "disk"), `journal_trouble` the reason for which it cannot at the moment,
    "" if it can, and `journal_trouble_ms` for how long it has not been able to, -1 if it can.
    Of a coordinator: `waiting` counts the slots that wait for leases to end; `heard` has `[node, ms]` for each member:
    the time since its last heartbeat, -1 if none; `leader` is the address of the one that leads, and `standbys` are
    those of the others, where several share a store. `store` is the store's engine and place, without a password;
    `store_failing_ms` is how long it has failed, -1 if it works, and `store_problem` the reason. `note` is a sentence
    on what the server is waiting for, "" if nothing. `build` says which build of lockring it runs, "compiled" or
    "interpreted"; "" for a server that does not say. `certificates` says when those for TLS end. `auth` says
    whether it checks rights: "off", "permissive" or "enforcing", "" for a version that knows none. `acl` is the edition
    of its ACL file, "" if it has none. `insecure`: other machines may reach it without
    proving what they are, which an operator has asked for. `software` is the version of lockring that it runs, ""
    if it does not say, and `up_ms` how long its present life, or lead, has lasted by its own clock; -1 if it does not
    say. `http` is HOST:PORT of its HTTP port, `HTTP_OFF` if it has none, "" if it does not say.
    """

    role: str
    node: NodeId
    incarnation: Incarnation
    version: Version
    note: str = ""
    serving: int = 0
    primary: int = 0
    lease_left_ms: int = 0
    lease_over_ms: int = -1
    away_ms: int = -1
    locks: int = 0
    waiters: int = 0
    sessions: int = 0
    waiting: int = 0
    heard: list[tuple[NodeId, int]] = []
    leader: str = ""
    standbys: list[str] = []
    durability: str = "none"
    journal_trouble: str = ""
    journal_trouble_ms: int = -1
    store: str = ""
    store_failing_ms: int = -1
    store_problem: str = ""
    build: str = ""
    certificates: list[CertificateInfo] = []
    auth: str = ""
    acl: str = ""
    insecure: bool = False
    software: str = ""
    up_ms: int = -1
    http: str = ""


class EventRecord(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One event of a cluster or of a lock, as a server remembers it.

    `number` rises with each event of one server. `kind` is a word of `core.events`, `age_ms` how long ago it was.
    Of a lock: its `name`, the holder's `owner`, the `generation` of the grant, and the `reason` of its end.
    Of slots: how many there are (`slots`), the first of them (`slot`), and that they went from node `source` to `node`.
    Of a member: `node`. Of a coordinator: its address (`source`). `version` is that of the cluster state that brought
    the event, 0 if none did: servers that report the same change report the same version.
    """

    number: int
    kind: str
    age_ms: int
    name: str = ""
    node: NodeId = NO_NODE
    source: str = ""
    slot: SlotNumber = SlotNumber(-1)
    slots: int = 0
    owner: str = ""
    generation: Generation = NO_GENERATION
    reason: str = ""
    version: Version = NO_VERSION
