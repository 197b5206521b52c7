"""What a coordinator tells people about itself."""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.core.coordinator.membership import MemberLeases
from lockring.core.coordinator.planner import Planner
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.term import Term
from lockring.ids import NO_INCARNATION, NO_NODE, NO_VERSION, Version
from lockring.protocol import ServerStatus
from lockring.units import ns_to_ms_floor


class CoordinatorStatus(msgspec.Struct, frozen=True):
    """A coordinator for people to look at.

    Attributes:
        phase: "idle", "reading", "claiming", "active" or "passive".
        note: what it waits for, "" if for nothing.
        version: of the state that it has in the store, 0 before the first.
        connected: ids of the nodes that are connected.
        settled: ids of the members that the ring is made of.
        ring_updates: how often these have changed.
        learning: slots that have learners.
        waiting: slots that nobody serves until leases have surely ended.
        absent: ids of the members that have failed, or whose connection has ended.
        heard: of each member, its id and how many milliseconds ago it was heard last, -1 if never.
    """

    phase: str
    note: str
    version: Version
    connected: tuple[str, ...]
    settled: tuple[str, ...]
    ring_updates: int
    learning: int
    waiting: int
    absent: tuple[str, ...]
    heard: tuple[tuple[str, int], ...]


_UNKNOWN: Final = (
    "it is unknown what was held before this start, and it may still be held (where there was no cluster before,"
    " --new-cluster says so)"
)
_GONE: Final = "all copies are gone, and what was held may still be held"


def why_of(term: Term, planning: Planner) -> str:
    """Why slots wait for leases of before to end, "" if none do."""
    if not planning.waiting:
        return ""
    return _UNKNOWN if term.knows_no_past else _GONE


def left_ms_of(planning: Planner, now_ns: int) -> int:
    """How long they wait yet at most, in milliseconds."""
    return planning.waits(now_ns=now_ns)[1]


def note_of(term: Term, roster: Roster, planning: Planner) -> str:
    """A sentence on what the coordinator waits for, "" if for nothing."""
    if term.problem:
        return term.problem
    if not term.is_active or term.state is None:
        return "the coordinator is still reading its store"
    if roster.is_stopping:
        return "the last node is leaving: its slots wait for the next node that joins"
    if roster.stranded:
        return (
            f"{' and '.join(roster.stranded)} cannot be drained, since no other node is there: start another one, or"
            f" make it active again with lockring undrain {roster.stranded[0]}"
        )
    if planning.waiting:
        return f"{planning.waiting} slots are not served: {why_of(term, planning)}"
    return "" if term.state.members else "no node has joined yet"


def status_of(
    term: Term, roster: Roster, membership: MemberLeases, planning: Planner, now_ns: int
) -> CoordinatorStatus:
    """The coordinator as it is now."""
    members = {} if term.state is None else term.state.members
    heard: list[tuple[str, int]] = []
    absent: list[str] = []
    for node, member in sorted(members.items()):
        ago_ns = membership.heard_ago_ns(member.replica, now_ns=now_ns)
        heard.append((node, -1 if ago_ns is None else ns_to_ms_floor(ago_ns)))
        # One that this coordinator has not heard yet is given the time to come back to it.
        has_left = ago_ns is not None and not roster.is_connected(member.replica)
        if has_left or membership.is_failed(member.replica, now_ns=now_ns):
            absent.append(node)
    return CoordinatorStatus(
        phase=term.phase.value,
        note=note_of(term, roster, planning),
        version=NO_VERSION if term.state is None else term.state.version,
        connected=tuple(sorted(replica.node for replica in roster.lives())),
        settled=tuple(replica.node for replica in membership.settled),
        ring_updates=membership.updates,
        learning=planning.learning,
        waiting=planning.waiting,
        absent=tuple(absent),
        heard=tuple(heard),
    )


def server_status_of(status: CoordinatorStatus) -> ServerStatus:
    """Return the status as it goes to clients."""
    return ServerStatus(
        "coordinator",
        NO_NODE,
        NO_INCARNATION,
        status.version,
        note=status.note,
        waiting=status.waiting,
        heard=list(status.heard),
    )
