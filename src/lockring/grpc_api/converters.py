"""Conversions: gRPC requests to checked values, and messages of the wire to gRPC responses."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from lockring.cluster_state import GENERATION_MAX, ClusterState, Replica
from lockring.errors import InvalidRequest
from lockring.grpc_api.acquire_call import AcquireParams
from lockring.grpc_api.keepalive_stream import LOCKS_PER_REQUEST_MAX, KeptLock
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.ids import Generation, SessionId
from lockring.names import TTL_MS_MIN, check_lock_name, check_owner
from lockring.protocol import PAYLOAD_BYTES_MAX, LockEvent, LockEventKind, LockRecord, Mode
from lockring.units import DURATION_MS_MAX

TTL_MS: Final = 10_000
"""The lease of a request that names none."""

PEOPLE_MAX: Final = 100
"""Holders and waiters that the description of one lock lists."""

PEOPLE_IN_LIST_MAX: Final = 10
"""Holders that a list gives of each lock."""

_SESSION: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,50}")
_PERMITS_MAX: Final = 2**31 - 1

_MODES: Final[dict[pb.Mode.ValueType, Mode]] = {
    pb.MODE_UNSPECIFIED: Mode.EXCLUSIVE,
    pb.MODE_EXCLUSIVE: Mode.EXCLUSIVE,
    pb.MODE_SHARED: Mode.SHARED,
    pb.MODE_SEMAPHORE: Mode.SEMAPHORE,
}
_MODES_BACK: Final[dict[int, pb.Mode.ValueType]] = {
    Mode.EXCLUSIVE: pb.MODE_EXCLUSIVE,
    Mode.SHARED: pb.MODE_SHARED,
    Mode.SEMAPHORE: pb.MODE_SEMAPHORE,
}


_EVENTS: Final[dict[int, pb.EventKind.ValueType]] = {
    LockEventKind.WAITING: pb.EVENT_KIND_WAITING,
    LockEventKind.GRANTED: pb.EVENT_KIND_GRANTED,
    LockEventKind.RELEASED: pb.EVENT_KIND_RELEASED,
    LockEventKind.LOST: pb.EVENT_KIND_LOST,
    LockEventKind.LEFT: pb.EVENT_KIND_LEFT,
}


def wire_session(session: str, key: str, name: str) -> SessionId:
    """Return the session on the wire of one acquisition: a key is for one lock only, so the name is part of it.

    Raises:
        InvalidRequest: either of the two is not of its form.
    """
    if not _SESSION.fullmatch(session):
        raise InvalidRequest(
            f"a session is 1 to 64 letters, digits, '.', '-' or '_', chosen at random; not {session[:80]!r}"
        )
    if not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"an idempotency_key is 1 to 50 letters, digits, '.', '-' or '_', new for each acquisition; not {key[:80]!r}"
        )
    return SessionId(f"{session}/{key}/{blake2b(name.encode(), digest_size=6).hexdigest()}")


def _parts(session: SessionId) -> tuple[str, str]:
    """Return session and key of a session on the wire; no key for a client that does not use gRPC."""
    own, _, rest = session.partition("/")
    return own, rest.partition("/")[0]


def wanted_of(request: pb.LockRequest, *, ttl_ms_max: int) -> AcquireParams:
    """Return a `LockRequest`, checked.

    Raises:
        InvalidRequest: something in it is not of its form.
    """
    if request.mode not in _MODES:
        raise InvalidRequest(f"there is no mode {request.mode}")
    if request.permits > _PERMITS_MAX:
        raise InvalidRequest(f"a semaphore has 1 to {_PERMITS_MAX} permits, not {request.permits}")
    wait_ms = request.wait_ms if request.HasField("wait_ms") else None
    for what, value_ms in (("wait_ms", wait_ms), ("waited_ms", request.waited_ms)):
        if value_ms is not None and not 0 <= value_ms <= DURATION_MS_MAX:
            raise InvalidRequest(f"{what} is 0 to {DURATION_MS_MAX} ms, not {value_ms}")
    return AcquireParams(
        name=check_lock_name(request.name),
        session=wire_session(request.session, request.idempotency_key, request.name),
        ttl_ms=_ttl_ms(request.ttl_ms, ttl_ms_max),
        owner=check_owner(request.owner),
        wait_ms=wait_ms,
        waited_ms=request.waited_ms,
        mode=_MODES[request.mode],
        permits=max(1, request.permits),
        payload=_payload(request.payload),
    )


def listed_of(request: pb.KeepAliveRequest, *, ttl_ms_max: int) -> list[KeptLock]:
    """Return the locks of a `KeepAliveRequest`, checked.

    Raises:
        InvalidRequest: there are too many, or one is not of its form.
    """
    if len(request.locks) > LOCKS_PER_REQUEST_MAX:
        raise InvalidRequest(
            f"a KeepAliveRequest lists at most {LOCKS_PER_REQUEST_MAX} locks, not {len(request.locks)}: send several"
        )
    return [_listed(each, ttl_ms_max) for each in request.locks]


def _listed(lock: pb.HeldLock, ttl_ms_max: int) -> KeptLock:
    try:
        return KeptLock(
            name=check_lock_name(lock.name),
            session=lock.session,
            key=lock.idempotency_key,
            wire_session=wire_session(lock.session, lock.idempotency_key, lock.name),
            ttl_ms=_ttl_ms(lock.ttl_ms, ttl_ms_max),
            generation=Generation(lock.generation),
        )
    except InvalidRequest as error:
        which = f"lock {lock.name[:40]!r} under key {lock.idempotency_key[:40]!r}"
        raise InvalidRequest(f"{which}: {error}", name=lock.name) from error


def generation_of(number: int) -> Generation:
    """Return a fencing token, checked.

    Raises:
        InvalidRequest: there can be no such token.
    """
    if not 1 <= number <= GENERATION_MAX:
        raise InvalidRequest(f"a generation is 1 to {GENERATION_MAX}, not {number}")
    return Generation(number)


def lock_of(lock: LockRecord, *, in_list: bool = False) -> pb.LockInfo:
    """Return a lock as gRPC clients see it."""
    holders = lock.holders[: PEOPLE_IN_LIST_MAX if in_list else PEOPLE_MAX]
    waiters = lock.waiters[: 0 if in_list else PEOPLE_MAX]
    return pb.LockInfo(
        name=lock.name,
        slot=lock.slot,
        primary=lock.primary,
        mode=_MODES_BACK.get(lock.mode, pb.MODE_UNSPECIFIED),
        permits=lock.permits,
        generation=lock.generation,
        change=lock.seq,
        holders=[
            pb.Holder(
                owner=each.owner,
                session=_parts(each.session)[0],
                idempotency_key=_parts(each.session)[1],
                generation=each.generation,
                held_ms=each.held_ms,
                ttl_ms=each.ttl_ms,
                left_ms=each.left_ms,
                payload=each.payload,
            )
            for each in holders
        ],
        waiters=[
            pb.Waiter(
                owner=each.owner,
                session=_parts(each.session)[0],
                idempotency_key=_parts(each.session)[1],
                waited_ms=each.waited_ms,
                mode=_MODES_BACK.get(each.mode, pb.MODE_UNSPECIFIED),
            )
            for each in waiters
        ],
        holder_count=len(lock.holders),
        waiter_count=len(lock.waiters),
    )


def event_of(event: LockEvent) -> pb.LockEvent:
    """Return a change of a lock as gRPC clients see it."""
    session, key = _parts(event.session)
    return pb.LockEvent(
        kind=_EVENTS.get(event.kind, pb.EVENT_KIND_UNSPECIFIED),
        owner=event.owner,
        session=session,
        idempotency_key=key,
        mode=_MODES_BACK.get(event.mode, pb.MODE_UNSPECIFIED),
        generation=event.generation,
        reason=event.reason,
    )


def state_of(state: ClusterState, node: str, *, with_slots: bool) -> pb.GetClusterStateResponse:
    """Return a cluster state as gRPC clients see it."""
    members = [state.members[node] for node in sorted(state.members)]
    place = {member.replica: number for number, member in enumerate(members)}
    primaries = [_place(place, slot.primary) for slot in state.slots]
    backups = [_place(place, None if slot.backup is None else slot.backup.replica) for slot in state.slots]
    return pb.GetClusterStateResponse(
        cluster=state.cluster,
        version=state.version,
        coordinator=state.coordinator,
        replication=state.replication,
        backup_lease_ms=state.backup_lease_ms,
        coordinator_lease_ms=state.coordinator_lease_ms,
        members=[
            pb.Member(
                node=member.replica.node,
                incarnation=member.replica.incarnation,
                address=member.address,
                grpc_address=member.grpc,
                weight=member.weight,
                condition=member.condition,
                slots_primary=primaries.count(number),
                slots_backup=backups.count(number),
            )
            for number, member in enumerate(members)
        ],
        primaries=primaries if with_slots else (),
        backups=backups if with_slots else (),
        node=node,
    )


def _place(place: dict[Replica, int], replica: Replica | None) -> int:
    return -1 if replica is None else place.get(replica, -1)


def _payload(payload: bytes) -> bytes:
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise InvalidRequest(f"a payload has at most {PAYLOAD_BYTES_MAX} bytes, not {len(payload)}")
    return payload


def _ttl_ms(ttl_ms: int, ttl_ms_max: int) -> int:
    if ttl_ms == 0:
        return min(TTL_MS, ttl_ms_max)
    if not TTL_MS_MIN <= ttl_ms <= ttl_ms_max:
        raise InvalidRequest(
            f"a TTL is between {TTL_MS_MIN} ms and {ttl_ms_max} ms (the coordinator lease), not {ttl_ms} ms"
        )
    return ttl_ms
