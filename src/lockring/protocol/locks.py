"""Acquiring, keeping and releasing locks."""

from enum import IntEnum

import msgspec

from lockring.ids import (
    NO_GENERATION,
    NO_REQUEST,
    NO_VERSION,
    AcquisitionNumber,
    Generation,
    LockName,
    RequestNumber,
    SessionId,
    SlotNumber,
    Version,
)
from lockring.protocol.base import WAIT_FOREVER, Message
from lockring.protocol.infos import HolderRecord, Mode


class Verdict(IntEnum):
    """A node's answer about one acquisition, or about all of a session's acquisitions in one slot.

    HELD (of a slot: the digests agree). LOST: unknown here. WAITING: queued, or granted but not yet replicated.
    MOVED: another node is the primary. RETRY: this node is, but may not serve the slot at the moment.
    DIFFERS (of a slot only): the digests differ; list the acquisitions.
    """

    HELD = 0
    LOST = 1
    WAITING = 2
    MOVED = 3
    RETRY = 4
    DIFFERS = 5


class Acquire(Message, tag=10):
    """Acquire a lock, or wait for it. A repetition with the same acquisition id changes nothing.

    It also restarts the session's TTL. `acquisition` numbers the session's acquisitions from 1; a number is never
    reused. `wait_ms` is 0 to try once, `WAIT_FOREVER`, or a limit. `waited_ms` is how long the client has already
    waited (at another node, before a failover). `version` is that of the client's routes. `payload` is kept with
    the holder for others to see, at most `infos.PAYLOAD_BYTES_MAX`. `traceparent` is the trace that the request
    belongs to (W3C Trace Context), "" for none.
    """

    request: RequestNumber
    session: SessionId
    ttl_ms: int
    owner: str
    acquisition: AcquisitionNumber
    name: LockName
    mode: int = Mode.EXCLUSIVE
    permits: int = 1
    wait_ms: int = WAIT_FOREVER
    waited_ms: int = 0
    version: Version = NO_VERSION
    payload: bytes = b""
    traceparent: str = ""


class Release(Message, tag=11):
    """Give up one acquisition, held or waiting. Answered `ReleaseReply`.

    With `acquire`, the number of an Acquire request: only if no later request asked for the acquisition.
    """

    request: RequestNumber
    session: SessionId
    acquisition: AcquisitionNumber
    name: LockName
    version: Version = NO_VERSION
    acquire: RequestNumber = NO_REQUEST


class SlotDigest(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A session's acquisitions in one slot in short, as the client believes."""

    slot: SlotNumber
    count: int
    digest: int


class ListedAcquisition(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One acquisition of a session, and the lock that it is of."""

    acquisition: AcquisitionNumber
    name: LockName


class SlotList(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """All acquisitions of a session in one slot, as the client believes."""

    slot: SlotNumber
    acquisitions: list[ListedAcquisition]


class Keepalive(Message, tag=12):
    """Renew the session's acquisitions at this node.

    `count` and `digest` (see `core.digest`) cover all acquisitions that, as the client believes, it holds or waits
    for at this node; `through` is the highest acquisition number it has used. If the node disagrees, the client
    repeats the message with `slots`, the same per slot; and where those differ, with `listed`. Acquisitions up to
    `through` that a listed slot does not list were given up.
    """

    request: RequestNumber
    session: SessionId
    ttl_ms: int
    owner: str
    through: AcquisitionNumber
    count: int
    digest: int
    slots: list[SlotDigest] = []
    listed: list[SlotList] = []
    version: Version = NO_VERSION


class CloseSession(Message, tag=13):
    """Give up everything that the session has at this node. Answered `ReleaseReply`."""

    request: RequestNumber
    session: SessionId


class GrantReply(Message, tag=20):
    """The acquisition is held. The promise counts from when the client *sent* the request numbered `basis`."""

    request: RequestNumber
    generation: Generation
    promise_ms: int
    basis: RequestNumber


class ReleaseReply(Message, tag=21):
    """The answer to `Release`; `dropped` says whether the node still knew the acquisition."""

    request: RequestNumber
    dropped: bool


class SlotVerdict(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A node's `Verdict` on what a session has in one slot."""

    slot: SlotNumber
    verdict: int


class AcquisitionVerdict(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A node's `Verdict` on one acquisition; with HELD, the grant's generation."""

    acquisition: AcquisitionNumber
    verdict: int
    generation: Generation


class KeepaliveReply(Message, tag=22):
    """The answer to a keepalive. The promise counts from when the client sent it.

    `agreed`: the digests agree and the node may serve all of these slots, so the promise is for every acquisition
    that the keepalive covered. Otherwise it is for those with verdict HELD, of a slot or of one acquisition. An empty
    answer without `agreed` asks for `slots`.
    """

    request: RequestNumber
    promise_ms: int
    agreed: bool
    slots: list[SlotVerdict] = []
    acquisitions: list[AcquisitionVerdict] = []


class QueueNotice(Message, tag=36):
    """The acquire is in the queue behind other holders, and this node serves the slot.

    Pushed for an acquire that has waited for a moment, and again once it has waited for long: then with the first
    `holders` of the lock, and its own `position` in the queue, from 1.
    """

    request: RequestNumber
    holders: list[HolderRecord] = []
    position: int = 0


class LossNotice(Message, tag=28):
    """The acquisition ended (`reason` as in `errors.LockLost`). Pushed to its holder, which may release it at once.

    `generation` is that of the grant that ended, 0 from a node of an earlier release. The same acquisition may have
    been granted again since, while this was on its way.
    """

    session: SessionId
    acquisition: AcquisitionNumber
    name: LockName
    reason: str
    generation: Generation = NO_GENERATION
