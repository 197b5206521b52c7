"""The invariants of a node's slots and sessions, which hold between any two inputs; for tests and the simulation."""

from __future__ import annotations

from lockring.core.node.context import NodeContext
from lockring.core.node.locks import NO_DEADLINE
from lockring.core.node.sessions import Sessions


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
