"""A node in figures, for people."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from lockring.build_kind import BUILD, VERSION
from lockring.cluster_state import Replica
from lockring.core.node.context import NodeContext
from lockring.core.node.counters import MODES
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import Version
from lockring.protocol import CertificateInfo, ServerStatus
from lockring.units import ns_to_ms_floor


class Doors(NamedTuple):
    """The TLS, the rights and the HTTP port of a server, which its shell knows.

    Attributes:
        certificates: when those for TLS end.
        auth: whether rights are checked, see `ServerStatus`.
        acl: the edition of the ACL file, "" without one.
        insecure: whether other machines reach it without proving what they are.
        http: its HTTP port, see `ServerStatus`.
    """

    certificates: list[CertificateInfo]
    auth: str = ""
    acl: str = ""
    insecure: bool = False
    http: str = ""


class NodeStatus(msgspec.Struct, frozen=True):
    """A node at one moment.

    Attributes:
        replica: the node's identity: its id and its incarnation.
        version: the version of the newest state that it knows.
        primary_slots: slots whose primary it is by that state.
        serving_slots: slots that it may serve at this moment.
        locks: locks in the slots in which it reigns.
        waiters: requests that wait for locks there.
        sessions: sessions of clients.
        coordinator_lease_left_ms: what is left of the coordinator's lease; 0 if it is over, or never was.
        coordinator_lease_over_ms: for how long it has been over; -1 if it is not, or never was.
        durability: how durable it keeps its locks.
        journal_trouble: why it cannot at this moment, "" if it can.
        journal_trouble_ms: for how long it has not been able to; -1 if it can.
    """

    replica: Replica
    version: Version
    primary_slots: int
    serving_slots: int
    locks: int
    waiters: int
    sessions: int
    coordinator_lease_left_ms: int
    coordinator_lease_over_ms: int
    durability: str = "none"
    journal_trouble: str = ""
    journal_trouble_ms: int = -1


class NodeHoldings(msgspec.Struct, frozen=True):
    """A node's parts in slots and locks at one moment, for its metrics.

    Attributes:
        holders: in the slots in which it reigns, by mode.
        locks: locks that are held there, by mode.
        backup_slots: slots whose backup it is by its newest state.
        learner_slots: slots whose learner it is.
        backup_lease_left_ns: what is left of the shortest lease that it needs of a copy; 0 if it is over, None if it
            needs none.
    """

    holders: tuple[int, ...]
    locks: tuple[int, ...]
    backup_slots: int
    learner_slots: int
    backup_lease_left_ns: int | None


def holdings_of(context: NodeContext, now_ns: int) -> NodeHoldings:
    """Return a node's holdings at `now_ns`. It takes a few milliseconds: it looks at every slot, and at no lock."""
    me, slots = context.replica, context.state.slots
    held = [0] * (2 * MODES)
    for slot in context.slots.values():
        if slot.reign is not None and slot.table.locks:
            for place, count in enumerate(slot.table.held()):
                held[place] += count
    left_ns = context.rights.copy_lease_left_ns(now_ns)
    return NodeHoldings(
        holders=tuple(held[:MODES]),
        locks=tuple(held[MODES:]),
        backup_slots=sum(slot.backup is not None and slot.backup.replica == me for slot in slots),
        learner_slots=sum(slot.learner is not None and slot.learner.replica == me for slot in slots),
        backup_lease_left_ns=None if left_ns is None else max(0, left_ns),
    )


def status_of(context: NodeContext, *, waiters: int, sessions: int, now_ns: int) -> NodeStatus:
    """Return a node's status at `now_ns`. It takes a few milliseconds, since it looks at every slot.

    Args:
        context: of the node.
        waiters: requests that wait for locks.
        sessions: sessions of clients.
        now_ns: the time.
    """
    me, state, rights = context.replica, context.state, context.rights
    reigning = [slot for slot in context.slots.values() if slot.reign is not None]
    left_ns = rights.coordinator_lease_left_ns(now_ns)
    journal = context.journal
    lost_at_ns = None if journal is None else journal.lost_at_ns
    has_been = rights.coordinator_lease.until_ns != DISTANT_PAST_NS
    return NodeStatus(
        replica=me,
        version=state.version,
        primary_slots=sum(slot.primary == me for slot in state.slots),
        serving_slots=sum(rights.may_serve(slot.number, now_ns=now_ns) for slot in reigning),
        locks=sum(len(slot.table.locks) for slot in reigning),
        waiters=waiters,
        sessions=sessions,
        coordinator_lease_left_ms=ns_to_ms_floor(left_ns),
        coordinator_lease_over_ms=ns_to_ms_floor(-left_ns) if has_been and left_ns <= 0 else -1,
        durability=context.durability,
        journal_trouble="" if journal is None else journal.trouble,
        journal_trouble_ms=-1 if lost_at_ns is None else ns_to_ms_floor(now_ns - lost_at_ns),
    )


def server_status_of(
    status: NodeStatus,
    *,
    note: str,
    away_since_ns: int | None,
    doors: Doors,
    began_at_ns: int,
    now_ns: int,
) -> ServerStatus:
    """Return the status as it goes to clients.

    Args:
        status: the node in figures.
        note: what the node waits for, "" if for nothing.
        away_since_ns: since when the coordinator has been away; None if it is not.
        doors: TLS, rights and HTTP.
        began_at_ns: when this life of the node began.
        now_ns: the time.
    """
    return ServerStatus(
        "node",
        status.replica.node,
        status.replica.incarnation,
        status.version,
        note=note,
        serving=status.serving_slots,
        primary=status.primary_slots,
        lease_left_ms=status.coordinator_lease_left_ms,
        lease_over_ms=status.coordinator_lease_over_ms,
        away_ms=-1 if away_since_ns is None else ns_to_ms_floor(now_ns - away_since_ns),
        locks=status.locks,
        waiters=status.waiters,
        sessions=status.sessions,
        durability=status.durability,
        journal_trouble=status.journal_trouble,
        journal_trouble_ms=status.journal_trouble_ms,
        build=BUILD,
        certificates=doors.certificates,
        auth=doors.auth,
        acl=doors.acl,
        insecure=doors.insecure,
        software=VERSION,
        up_ms=ns_to_ms_floor(now_ns - began_at_ns),
        http=doors.http,
    )
