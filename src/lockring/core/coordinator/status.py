"""The coordinator's status, and the sentences in which it reports what it waits for."""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.build_kind import BUILD, VERSION
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.reconciler_runs import ReconcilerRuns
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.store_health import StoreReport
from lockring.core.coordinator.term import Term
from lockring.core.election import Election
from lockring.ids import NO_INCARNATION, NO_NODE, NO_VERSION, NodeId, RequestNumber, Version
from lockring.protocol import ServerStatus, StateReply
from lockring.units import NS_PER_S, ns_to_ms_floor


class CoordinatorStatus(msgspec.Struct, frozen=True):
    """A snapshot of a coordinator, for people.

    Attributes:
        phase: "idle", "reading", "claiming", "active", "passive" or "standby".
        note: a sentence on what it waits for, "" if for nothing.
        version: of the state that it has in the store, 0 before the first.
        connected: ids of the nodes that are connected.
        settled: ids of the members that make up the ring.
        ring_updates: how often these have changed.
        learning: slots that have learners.
        waiting: slots that no node serves until leases have surely ended.
        absent: ids of the members that have failed, or whose connection has ended.
        heard: for each member, its id and how many milliseconds ago it was heard last, -1 if never.
        is_store_failing: whether the store does not work, so that no leases are renewed.
    """

    phase: str
    note: str
    version: Version
    connected: tuple[NodeId, ...]
    settled: tuple[NodeId, ...]
    ring_updates: int
    learning: int
    waiting: int
    absent: tuple[NodeId, ...]
    heard: tuple[tuple[NodeId, int], ...]
    is_store_failing: bool = False


STALE_NS: Final = 5 * NS_PER_S
"""Age from which a state is said to be old: a coordinator that stands by reads once a second, and may have to wait."""

_UNKNOWN: Final = (
    "it is unknown what was held before this start, and it may still be held (where there was no cluster before,"
    " --new-cluster says so)"
)
_LOST: Final = "it is unknown what is held, since the coordinator's store cannot be relied on"
_GONE: Final = "all copies are gone, and what was held may still be held"


def wait_reason_of(term: Term, roster: Roster, runs: ReconcilerRuns) -> str:
    """Return why slots wait for earlier leases to end, "" if none do."""
    if not runs.waiting:
        return ""
    if term.knows_no_past:
        return _UNKNOWN if term.loss is None else f"{_LOST}; {term.loss.account}"
    keepers = roster.keepers()
    return f"{_GONE}; {_kept_by(keepers)}" if keepers else _GONE


def left_ms_of(roster: Roster, runs: ReconcilerRuns, now_ns: int) -> int:
    """Return how much longer slots wait for leases at most, in milliseconds; 0 if they wait for their own nodes."""
    return 0 if _waits_for_keepers(roster) else runs.waits(now_ns=now_ns)[1]


def note_of(term: Term, roster: Roster, runs: ReconcilerRuns) -> str:
    """Return a sentence on what the coordinator waits for, "" if for nothing."""
    if term.problem:
        return term.problem
    if not term.is_active or term.state is None:
        return "the coordinator is still reading its store"
    if _waits_for_keepers(roster):
        return f"the last node is leaving: {_kept_by(roster.keepers())}"
    if roster.is_stopping:
        return "the last node is leaving: its slots wait for the next node that joins"
    if roster.stranded:
        return (
            f"{' and '.join(roster.stranded)} cannot be drained, since no other node is there: start another one, or"
            f" make it active again with lockring undrain {roster.stranded[0]}"
        )
    if runs.waiting:
        return f"{runs.waiting} slots are not served: {wait_reason_of(term, roster, runs)}"
    return "" if term.state.members else "no node has joined yet"


def _waits_for_keepers(roster: Roster) -> bool:
    """Return whether no slot goes to another node, and those of some nodes stay theirs until they start again."""
    return roster.is_stopping and bool(roster.keepers())


def _kept_by(nodes: list[NodeId]) -> str:
    if len(nodes) == 1:
        return f"{nodes[0]} keeps what it held in its journal, and brings it back when it starts again"
    names = f"{', '.join(nodes[:-1])} and {nodes[-1]}"
    return f"{names} keep what they held in their journals, and bring it back when they start again"


def status_of(
    term: Term, roster: Roster, membership: MemberLeases, runs: ReconcilerRuns, now_ns: int
) -> CoordinatorStatus:
    """Return a snapshot of the coordinator."""
    members = {} if term.state is None else term.state.members
    heard: list[tuple[NodeId, int]] = []
    absent: list[NodeId] = []
    for node, member in sorted(members.items()):
        ago_ns = membership.heard_ago_ns(member.replica, now_ns=now_ns)
        heard.append((node, -1 if ago_ns is None else ns_to_ms_floor(ago_ns)))
        # A member that this coordinator has not heard yet still has time to connect to it.
        has_left = ago_ns is not None and not roster.is_connected(member.replica)
        if has_left or membership.is_failed(member.replica, now_ns=now_ns):
            absent.append(node)
    return CoordinatorStatus(
        phase=term.phase.value,
        note=note_of(term, roster, runs),
        version=NO_VERSION if term.state is None else term.state.version,
        connected=tuple(sorted(replica.node for replica in roster.lives())),
        settled=tuple(replica.node for replica in membership.settled),
        ring_updates=membership.updates,
        learning=runs.learning,
        waiting=runs.waiting,
        absent=tuple(absent),
        heard=tuple(heard),
        is_store_failing=term.store_report.trouble is not None,
    )


def state_reply(request: RequestNumber, state: bytes, note: str, *, age_ns: int) -> StateReply:
    """Return the answer to a question for the state, which says how old the state may be.

    Args:
        request: the question's number.
        state: the encoded state.
        note: a sentence on what the coordinator waits for, "" if for nothing.
        age_ns: for how long newer states may have escaped this coordinator, in nanoseconds.
    """
    if age_ns >= STALE_NS:
        age = f"what this coordinator knows of the cluster is {age_ns // NS_PER_S} s old"
        note = f"{note}; {age}" if note else age
    return StateReply(request, state, note, ns_to_ms_floor(age_ns))


def standby_status(note: str, version: Version) -> CoordinatorStatus:
    """Return the snapshot of a coordinator that stands by.

    Args:
        note: a sentence on why it decides nothing.
        version: of the newest state that it has read, 0 before the first.
    """
    return CoordinatorStatus(
        phase="standby",
        note=note,
        version=version,
        connected=(),
        settled=(),
        ring_updates=0,
        learning=0,
        waiting=0,
        absent=(),
        heard=(),
    )


def server_status_of(status: CoordinatorStatus, store: StoreReport, *, now_ns: int) -> ServerStatus:
    """Return the status as it goes to clients, with the coordinators of a shared store, and whether it works."""
    election, trouble = store.election, store.trouble
    return ServerStatus(
        role="coordinator",
        node=NO_NODE,
        incarnation=NO_INCARNATION,
        version=status.version,
        note=status.note,
        waiting=status.waiting,
        heard=list(status.heard),
        leader="" if election.leader is None else election.leader.address,
        standbys=_standbys_of(election),
        store=store.place,
        store_failing_ms=-1 if trouble is None else ns_to_ms_floor(max(0, now_ns - trouble.since_ns)),
        store_problem="" if trouble is None else trouble.reason,
        build=BUILD,
        software=VERSION,
    )


def _standbys_of(election: Election) -> list[str]:
    """Return the addresses that stand by: an earlier life of one counts for a while beside the present one."""
    leader = "" if election.leader is None else election.leader.address
    return list(dict.fromkeys(each.address for each in election.standbys if each.address != leader))
