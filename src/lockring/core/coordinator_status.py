"""What a coordinator tells people about itself."""

from __future__ import annotations

from typing import Final

import msgspec

from lockring.core.heartbeats import Heartbeats
from lockring.core.membership import Membership
from lockring.core.planning import Planning
from lockring.core.roster import Roster
from lockring.core.term import Phase, Term
from lockring.units import NS_PER_MS


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
    """

    phase: str
    note: str
    version: int
    connected: tuple[str, ...]
    settled: tuple[str, ...]
    ring_updates: int
    learning: int
    waiting: int


_UNKNOWN: Final = (
    "it is unknown what was held before this start, and it may still be held (where there was no cluster before,"
    " --new-cluster says so)"
)
_GONE: Final = "all copies are gone, and what was held may still be held"


def why_of(term: Term, planning: Planning) -> str:
    """Why slots wait for leases of before to end, "" if none do."""
    if not planning.waiting:
        return ""
    return _UNKNOWN if term.knows_no_past else _GONE


def left_ms_of(planning: Planning, now_ns: int) -> int:
    """How long they wait yet at most, in milliseconds."""
    return max(0, planning.waits_until_ns - now_ns) // NS_PER_MS if planning.waiting else 0


def note_of(term: Term, roster: Roster, planning: Planning) -> str:
    """A sentence on what the coordinator waits for, "" if for nothing."""
    if term.problem:
        return term.problem
    if not term.is_active or term.state is None:
        return "the coordinator is still reading its store"
    if roster.is_stopping:
        return "the last node is leaving: its slots wait for the next node that joins"
    if planning.waiting:
        return f"{planning.waiting} slots are not served: {why_of(term, planning)}"
    return "" if term.state.members else "no node has joined yet"


def status_of(term: Term, roster: Roster, membership: Membership, planning: Planning) -> CoordinatorStatus:
    """The coordinator as it is now."""
    return CoordinatorStatus(
        phase=term.phase.value,
        note=note_of(term, roster, planning),
        version=0 if term.state is None else term.state.version,
        connected=tuple(sorted(replica.node for replica in roster.lives())),
        settled=tuple(replica.node for replica in membership.settled),
        ring_updates=membership.updates,
        learning=planning.learning,
        waiting=planning.waiting,
    )


def check_parts(
    term: Term, roster: Roster, heartbeats: Heartbeats, held_joins: list[int], has_condemned: bool
) -> None:
    """Assert what must hold between a coordinator's parts.

    Raises:
        AssertionError: a bug.
    """
    roster.check_invariants()
    for connection in heartbeats.connections():
        assert roster.node_of(connection) is not None
    assert not (held_joins and term.is_active), "joins wait for an active coordinator"
    assert not has_condemned or term.is_writing, "condemned without a write on its way"
    if term.phase is Phase.PASSIVE:
        assert not [*roster.lives(), *held_joins]
