"""Durations, and the factor by which a duration of one clock must be lengthened on another.

The safety of leases rests on one assumption: the rates of two machines' monotonic clocks differ by less
than 5 %. A process that waits for another one's lease to end waits `up(lease)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from lockring.units import NS_PER_MS, NS_PER_S

# Below 2 ** 62: the compiled build keeps such an integer in a register, and any other one in an object.
DISTANT_PAST_NS: Final = -(1 << 61)
"""Before any instant of any monotonic clock."""

DISTANT_FUTURE_NS: Final = 1 << 61
"""After any instant of any monotonic clock: a deadline that never comes."""

CLOCK_TICK_NS: Final = NS_PER_MS
"""Allowance for the granularity of one clock reading."""

HEARTBEATS_PER_LEASE: Final = 6
"""How often at least a node renews its coordinator lease within one."""

ASK_AGAIN_NS: Final = 300 * NS_PER_MS
"""How long a node waits for the coordinator to act before it asks again."""


def earliest(*instants_ns: int | None) -> int | None:
    """Return the earliest of some deadlines, None if there is none."""
    found: int | None = None
    for at_ns in instants_ns:
        if at_ns is not None and (found is None or at_ns < found):
            found = at_ns
    return found


def up(duration_ns: int) -> int:
    """Return a duration after which the same duration has surely passed on every other clock."""
    # 5 % for the rates, and one tick for each of the two readings between which the duration lies.
    return duration_ns + duration_ns // 20 + 2 * CLOCK_TICK_NS


def with_time_left(text: str, left_ms: int) -> str:
    """Return a sentence about a wait, with the longest time that it may still take if `left_ms` is above 0."""
    left_s = -(-left_ms * NS_PER_MS // NS_PER_S)
    return f"{text}; it takes another {left_s} s at the longest" if left_ms > 0 else text


class Timing(msgspec.Struct, frozen=True):
    """Durations, all in nanoseconds. The two leases are the cluster state's; the rest may differ per process.

    Attributes:
        backup_lease_ns: T. A primary serves within T of the sending of the last message that each copy acknowledged.
        coordinator_lease_ns: L. A node serves within L of the sending of the last acknowledged heartbeat.
        heartbeat_ns: how often a node sends a heartbeat to the coordinator; at most L / `HEARTBEATS_PER_LEASE`.
        peer_heartbeat_ns: how often a primary sends to each copy when there is nothing to replicate; at most T / 4.
        link_grace_ns: how long a broken connection may be down before the other side is asked to be replaced.
        takeover_link_grace_ns: the same, for a backup whose primary's connection is down.
        member_lease_ns: silence after which the coordinator takes a member for failed.
        stabilization_ns: window, restarted by each change, in which membership changes are batched.
        reconcile_ns: how often the coordinator looks for the next safe step.
        group_window_ns: window, restarted by each change, in which changes of a group's members are batched.
        group_window_max_ns: how long changes may follow each other before they make a view all the same.
        stall_ns: a gap between two calls above which a process reads what has arrived before it expires anything.
    """

    backup_lease_ns: int = 2 * NS_PER_S
    coordinator_lease_ns: int = 30 * NS_PER_S
    heartbeat_ns: int = NS_PER_S
    peer_heartbeat_ns: int = 400 * NS_PER_MS
    link_grace_ns: int = 250 * NS_PER_MS
    takeover_link_grace_ns: int = 700 * NS_PER_MS
    member_lease_ns: int = 5 * NS_PER_S
    stabilization_ns: int = NS_PER_S
    reconcile_ns: int = 50 * NS_PER_MS
    group_window_ns: int = NS_PER_S
    group_window_max_ns: int = 5 * NS_PER_S
    stall_ns: int = 100 * NS_PER_MS

    def heartbeat_for_ns(self, coordinator_lease_ms: int) -> int:
        """Return how often a node sends heartbeats: often enough for its cluster's lease, however short."""
        return min(self.heartbeat_ns, coordinator_lease_ms * NS_PER_MS // HEARTBEATS_PER_LEASE)


def stood_still_for_ns(
    timing: Timing, called_at_ns: int, next_deadline_ns: Callable[[], int | None], *, now_ns: int
) -> int:
    """Return how long a process that is called now was suspended, 0 if for no longer than `stall_ns`.

    Args:
        timing: has `stall_ns`.
        called_at_ns: when it was called last.
        next_deadline_ns: returns when it had asked to be called at the latest; called only if that matters.
        now_ns: monotonic clock.
    """
    if now_ns - called_at_ns <= timing.stall_ns:
        return 0
    due_ns = next_deadline_ns()
    gap_ns = 0 if due_ns is None else now_ns - max(due_ns, called_at_ns)
    return gap_ns if gap_ns > timing.stall_ns else 0
