"""What a node tells people about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lockring.cluster_state import Replica
from lockring.core.timing import DISTANT_PAST_NS
from lockring.units import ns_to_ms_floor

if TYPE_CHECKING:
    from lockring.core.node.core import NodeCore


class NodeStatus(msgspec.Struct, frozen=True):
    """A node at one moment.

    Attributes:
        replica: which life of which node it is.
        version: of the newest state that it knows.
        primary_slots: slots that this state makes it the primary of.
        active_slots: slots in which it reigns, though it may lack a lease just now.
        serving_slots: slots that it may serve at this moment.
        copied_slots: slots of which it has, or is to get, a copy.
        locks: locks in the slots in which it reigns.
        waiters: requests that wait for locks there.
        sessions: sessions of clients.
        clients: connections of clients.
        coordinator_lease_left_ms: what is left of the coordinator's lease; 0 if it is over, or never was.
        coordinator_lease_over_ms: for how long it has been over; -1 if it is not, or never was.
    """

    replica: Replica
    version: int
    primary_slots: int
    active_slots: int
    serving_slots: int
    copied_slots: int
    locks: int
    waiters: int
    sessions: int
    clients: int
    coordinator_lease_left_ms: int
    coordinator_lease_over_ms: int


def status_of(node: NodeCore, now_ns: int) -> NodeStatus:
    """A node as it is at `now_ns`. Costs some milliseconds: it looks at every slot."""
    me, state = node.replica, node.state
    reigning = [data for data in node.slots.values() if data.reign is not None]
    left_ns = node.coordinator_lease_left_ns(now_ns)
    has_been = node.coordinator_lease.until_ns != DISTANT_PAST_NS
    return NodeStatus(
        replica=me,
        version=state.version,
        primary_slots=sum(slot.primary == me for slot in state.slots),
        active_slots=len(reigning),
        serving_slots=sum(node.may_serve(data.number, now_ns=now_ns) for data in reigning),
        copied_slots=sum(slot.copy_of(me) is not None for slot in state.slots),
        locks=sum(len(data.table.locks) for data in reigning),
        waiters=node.service.locking.waiters,
        sessions=len(node.sessions),
        clients=len(node.service.connections),
        coordinator_lease_left_ms=ns_to_ms_floor(left_ns),
        coordinator_lease_over_ms=ns_to_ms_floor(-left_ns) if has_been and left_ns <= 0 else -1,
    )
