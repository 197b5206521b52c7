"""The health of a cluster: whether it serves, and if not, since when and why.

The cluster state says which nodes should serve; only a node knows whether it may. So a slot counts as served if its
node says so, and a node that does not answer counts as not serving: from outside, its slots look the
same as lost ones. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from lockring.cli.certificates import about_certificates
from lockring.cli.output import count, duration
from lockring.cli.rights import about_rights
from lockring.cluster_state import ClusterState, Member, Replica, SlotState
from lockring.ids import ClusterId, NodeId
from lockring.protocol import ServerStatus
from lockring.slots import SLOTS
from lockring.units import NS_PER_S, NS_PER_US

Condition = Literal["serving", "degraded", "partial", "down"]


class ServerAnswer(NamedTuple):
    """One server's answer about itself.

    Attributes:
        status: the answer, None if there is none.
        trouble: why there is none, else "".
    """

    status: ServerStatus | None
    trouble: str = ""


NO_ANSWER: Final = ServerAnswer(None, "it was not asked")


class Health(NamedTuple):
    """The health of a cluster.

    Attributes:
        condition: "serving"; "degraded" if all slots are served, but not safely or not for long; "partial" if some
            slots are not served; "down" if none is.
        slots_served: the number of served slots.
        since_s: how long no slot has been served, None if not so or unknown.
        reasons: sentences on what keeps slots from being served, none if all are.
        remarks: sentences on other faults.
        lease_left_s: the shortest time that nodes without the coordinator can go on; None if no node has lost it.
        single: the one of the remarks that slots have no backup, "" if they have. One node alone cannot have any.
    """

    condition: Condition
    slots_served: int
    since_s: float | None
    reasons: list[str]
    remarks: list[str]
    lease_left_s: float | None
    single: str = ""

    @property
    def heading(self) -> str:
        """The verdict in one line."""
        if self.condition == "down":
            since = "" if self.since_s is None else f" for {duration(self.since_s)}"
            return f"NOT SERVING{since}: no lock can be acquired or renewed"
        if self.condition == "partial":
            return f"PARTLY NOT SERVING: {SLOTS - self.slots_served} of {SLOTS} slots are not served, their locks must wait"
        if self.condition == "degraded":
            return f"SERVING, degraded: all {SLOTS} slots are served, but see below"
        return f"SERVING: all {SLOTS} slots have a primary and a backup"


def own_status(member: Member, answer: ServerAnswer) -> ServerStatus | None:
    """Return a member's own status; None if it does not answer, or if another life of it does."""
    status = answer.status
    if status is None or Replica(status.node, status.incarnation) != member.replica:
        return None
    return status


def diagnose(
    state: ClusterState,
    nodes: Mapping[NodeId, ServerAnswer],
    coordinator: ServerAnswer,
    *,
    standby: ServerStatus | None = None,
    strangers: Mapping[str, ClusterId] = MappingProxyType({}),
    wall_ns: int,
) -> Health:
    """Judge a cluster.

    Args:
        state: the newest state of any server.
        nodes: each member's answer, by its id.
        coordinator: the coordinator's answer.
        standby: the answer of a coordinator that stands by, where the other one does not answer.
        strangers: the servers that were named too, but belong to another cluster, with its id.
        wall_ns: the wall clock, for ages in the state.
    """
    health = _Diagnosis(state, nodes, coordinator, wall_ns).health()
    remarks = [_about_stranger(state, each, other) for each, other in strangers.items()]
    remarks += filter(None, [about_store(coordinator.status or standby)])
    statuses = {str(node): each.status for node, each in nodes.items() if each.status is not None}
    spokesman = coordinator.status or standby
    if spokesman is not None:
        statuses["the coordinator"] = spokesman
    remarks += about_certificates(statuses, wall_ns / NS_PER_S)
    remarks += about_rights(statuses)
    if not remarks:
        return health
    worse: Condition = "degraded" if health.condition == "serving" else health.condition
    return health._replace(condition=worse, remarks=[*health.remarks, *remarks])


def _about_stranger(state: ClusterState, server: str, cluster: ClusterId) -> str:
    return (
        f"{server} belongs to another cluster, {cluster}, which is not shown here (this is {state.cluster}): name the servers"
        " of one cluster; if it should be this one, its coordinator was started on another store"
    )


def about_store(status: ServerStatus | None) -> str:
    """Return why the coordinator's store does not work, "" if it does or nothing is known of it."""
    if status is None or status.store_failing_ms < 0:
        return ""
    since = duration(status.store_failing_ms / 1000)
    # The reason most often names the place already.
    where = "" if status.store in status.store_problem else f" {status.store}"
    return f"the coordinator's store{where} has not worked for {since}: {status.store_problem}"


class _Diagnosis:
    def __init__(
        self,
        state: ClusterState,
        nodes: Mapping[NodeId, ServerAnswer],
        coordinator: ServerAnswer,
        wall_ns: int,
    ) -> None:
        self._state = state
        self._nodes = nodes
        self._coordinator = coordinator
        self._wall_ns = wall_ns
        self._primary: Counter[str] = Counter()
        self._vacant = self._vacant_since = self._single = 0
        self._in_memory = 0
        self._on_disk: set[NodeId] = set()
        self._ended_s: list[float | None] = []
        for slot in state.slots:
            if slot.primary is None or not state.is_current(slot.primary):
                self._vacant += 1
                self._vacant_since = max(self._vacant_since, self._vacant_from(slot))
            else:
                self._primary[slot.primary.node] += 1
                if slot.backup is None or not state.is_current(slot.backup.replica):
                    self._count_single(slot.primary.node)

    def _vacant_from(self, slot: SlotState) -> int:
        """Return since when a slot has no primary, by the wall clock in ns; 0 if it never had one.

        That is the time in the state or, if later, the restart of the node that had it: an incarnation is
        the microseconds at which a process started.
        """
        member = None if slot.primary is None else self._state.members.get(slot.primary.node)
        return slot.epoch if member is None else member.replica.incarnation * NS_PER_US

    def _count_single(self, node: NodeId) -> None:
        self._single += 1
        status = own_status(self._state.members[node], self._nodes.get(node, NO_ANSWER))
        if status is None or status.durability == "none":
            self._in_memory += 1
        else:
            self._on_disk.add(node)

    def health(self) -> Health:
        statuses = {
            node: own_status(member, self._nodes.get(node, NO_ANSWER))
            for node, member in self._state.members.items()
        }
        served = min(SLOTS, sum(each.serving for each in statuses.values() if each is not None))
        reasons = [
            reason for node, status in sorted(statuses.items()) if (reason := self._why_not(node, status))
        ] + self._why_vacant()
        left_ms = [
            each.lease_left_ms
            for each in statuses.values()
            if each is not None and (each.away_ms >= 0 or self._is_fading(each))
        ]
        remarks = self._about_coordinator(statuses) + self._about_journals(statuses)
        single = self._about_single() if self._single and served else ""
        if single:
            remarks.append(single)
        if served >= SLOTS:
            remarks, reasons = remarks + reasons, []
        condition: Condition = "degraded" if remarks else "serving"
        if served < SLOTS:
            condition = "partial" if served else "down"
        since_s = None
        if condition == "down":
            since_s = self._down_since_s()
        return Health(
            condition=condition,
            slots_served=served,
            since_s=since_s,
            reasons=reasons,
            remarks=remarks,
            lease_left_s=min(left_ms) / 1000 if left_ms else None,
            single=single,
        )

    def _about_single(self) -> str:
        """Return which fault would lose the locks of slots that have no backup."""
        slots = f"{count(self._single, 'slot')} without a backup: "
        if self._in_memory:
            return f"{slots}a crash of the primary would lose their locks"
        return (
            f"{slots}their locks outlive a crash, in the journal of {', '.join(sorted(self._on_disk))} alone"
        )

    def _about_journals(self, statuses: Mapping[NodeId, ServerStatus | None]) -> list[str]:
        return [
            f"{node} has not been able to write its journal for {duration(status.journal_trouble_ms / 1000)}"
            f" ({status.journal_trouble}): it grants no new lock, and holders keep theirs"
            for node, status in sorted(statuses.items())
            if status is not None and status.journal_trouble
        ]

    def _is_fading(self, status: ServerStatus) -> bool:
        """Return whether a node's lease has been left to run down: it is renewed several times in its length."""
        return 0 < status.lease_left_ms < self._state.coordinator_lease_ms / 2

    def _down_since_s(self) -> float | None:
        """Return how long no slot has been served: since the last node that should serve has stopped serving."""
        known_s = [each for each in self._ended_s if each is not None]
        is_unknown = len(known_s) < len(self._ended_s)
        # Without a coordinator, the leases of all nodes end at about the same time, including nodes that do not answer.
        if not known_s or (is_unknown and self._coordinator.status is not None):
            return None
        return min(known_s)

    def _why_not(self, node: NodeId, status: ServerStatus | None) -> str:
        """Return why a member does not serve all of its slots; "" if it does."""
        slots = self._primary[node]
        if not slots:
            return ""
        if status is None:
            return self._why_silent(node, slots)
        if status.serving >= slots:
            return ""
        if status.lease_left_ms > 0:
            self._ended_s.append(None)
            return (
                f"{node} may not serve {slots - status.serving} of its {count(slots, 'slot')} at this moment: it waits for"
                " a copy's acknowledgement, or for the end of a former primary's lease"
            )
        if status.lease_over_ms < 0:
            self._ended_s.append(None)
            return f"{node} has not been given the coordinator's lease yet"
        self._ended_s.append(status.lease_over_ms / 1000)
        return f"{node} has been without the coordinator's lease for {duration(status.lease_over_ms / 1000)}"

    def _why_silent(self, node: NodeId, slots: int) -> str:
        member, answer = self._state.members[node], self._nodes.get(node, NO_ANSWER)
        heard_ms = -1
        if self._coordinator.status is not None:
            heard_ms = dict(self._coordinator.status.heard).get(node, -1)
        self._ended_s.append(heard_ms / 1000 if heard_ms >= 0 else None)
        heard = (
            f"; the coordinator last heard from it {duration(heard_ms / 1000)} ago" if heard_ms >= 0 else ""
        )
        if answer.status is not None:
            return f"{node} was started again and has not joined yet{heard}: {count(slots, 'slot')} of its former life"
        return f"{node} at {member.address} does not answer ({answer.trouble}){heard}: {count(slots, 'slot')}"

    def _why_vacant(self) -> list[str]:
        if not self._state.members:
            return ["no node has joined yet"]
        if not self._vacant:
            return []
        if self._vacant_since:
            since_s = max(0.0, (self._wall_ns - self._vacant_since) / NS_PER_S)
            self._ended_s.append(since_s)
            reason = (
                f"{count(self._vacant, 'slot')} of {SLOTS} without a primary for {duration(since_s)}: their locks must"
                " wait until another node takes over or the last earlier lease has ended"
            )
        else:
            self._ended_s.append(None)
            reason = (
                f"{count(self._vacant, 'slot')} of {SLOTS} not assigned yet: a node gets them once no other has joined"
                " for a moment"
            )
        reasons = [reason]
        if self._coordinator.status is not None and self._coordinator.status.note:
            reasons.append(f"the coordinator says: {self._coordinator.status.note}")
        return reasons

    def _about_coordinator(self, statuses: Mapping[NodeId, ServerStatus | None]) -> list[str]:
        away = {
            node: status
            for node, status in sorted(statuses.items())
            if status is not None and status.away_ms >= 0
        }
        remarks = []
        if self._coordinator.status is None and self._state.coordinator:
            where = "" if away else ", though the nodes are in touch with it"
            remarks.append(
                f"the coordinator at {self._state.coordinator} does not answer ({self._coordinator.trouble}){where}"
            )
        fading = {
            node: status
            for node, status in sorted(statuses.items())
            if status is not None and self._is_fading(status)
        }
        if self._coordinator.status is not None and not away and fading:
            # Connected, and still not renewed: the coordinator cannot write to its store, say, or has lost its term.
            left_s = min(each.lease_left_ms for each in fading.values()) / 1000
            note = self._coordinator.status.note
            remarks.append(
                f"the coordinator does not renew the leases of {', '.join(fading)}, which may serve for another"
                f" {duration(left_s)}" + (f"; it says: {note}" if note else "")
            )
        if away:
            since_s = max(each.away_ms for each in away.values()) / 1000
            left_s = min(each.lease_left_ms for each in away.values()) / 1000
            going = (
                f"and may serve for another {duration(left_s)}" if left_s > 0 else "and may no longer serve"
            )
            verb = "has" if len(away) == 1 else "have"
            remarks.append(
                f"{', '.join(away)} {verb} been without the coordinator for {duration(since_s)}, {going}"
            )
        return remarks
