"""The invariants of a node's slots and sessions, which hold between any two inputs; for tests and the simulation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lockring.core.access import Grantee
from lockring.core.node.context import NodeContext
from lockring.core.node.locks import NO_DEADLINE, LockWaiter
from lockring.core.node.sessions import Sessions


class _Use(NamedTuple):
    """The use that the sessions of one identity make of a node."""

    sessions: int = 0
    acquisitions: int = 0
    waiters: int = 0


def check_content(context: NodeContext, sessions: Sessions) -> int:
    """Assert that slots, their tables and the sessions agree. It looks at everything, and changes nothing.

    Returns:
        How many requests wait for locks in the slots that are served here.

    Raises:
        AssertionError: they contradict each other.
    """
    waiters = 0
    counts: dict[str, tuple[int, int]] = {}
    for number, slot in context.slots.items():
        slot.check_invariants()
        reign = slot.reign
        if reign is None:
            continue
        state = context.state.slots[number]
        assert state.since == reign.since
        assert state.primary == context.replica
        if not slot.table.locks:
            continue
        waiters += sum(len(lock.waiters or ()) for lock in slot.table.locks.values())
        for share in slot.table.shares.values():
            share_digest = share.session.totals.peek(share)
            assert (share.count, share_digest) == share.counted()
            count, digest = counts.get(share.session.id, (0, 0))
            counts[share.session.id] = (count + share.count, digest ^ share_digest)
    for session in sessions.by_id.values():
        totals = session.totals
        assert (totals.count, totals.peek()) == counts.get(session.id, (0, 0))
        assert session.tables or session.deadline_ns != NO_DEADLINE
    return waiters


def check_quotas(sessions: Sessions, grantees: Iterable[Grantee]) -> None:
    """Assert that what identities use of their limits is what their sessions have here. It changes nothing.

    Args:
        sessions: of the node.
        grantees: the identities that are connected; one without a session uses nothing.

    Raises:
        AssertionError: something is counted that is not there, or the other way round.
    """
    used = {each.quota: _Use() for each in grantees}
    for session in sessions.by_id.values():
        totals = session.totals
        if totals.quota is None:
            continue
        assert session.deadline_ns != NO_DEADLINE, f"session {session.id} is counted, and does not run"
        entries = (entry for share in totals.served.values() for entry in share.entries.values())
        waiters = sum(isinstance(entry, LockWaiter) for entry in entries)
        use = used.get(totals.quota, _Use())
        used[totals.quota] = _Use(use.sessions + 1, use.acquisitions + totals.count, use.waiters + waiters)
    for quota, use in used.items():
        assert _Use(quota.sessions, quota.acquisitions, quota.waiters) == use, quota.who
