"""The last line of a node's log, and the exit code of its process."""

from __future__ import annotations

import logging

from lockring import exits
from lockring.core.effects import Depart, DepartureEnd
from lockring.log_events import event
from lockring.units import NS_PER_S

log = logging.getLogger("lockring.node")


def report_departure(
    depart: Depart, *, left: str, locks: int, is_last: bool, journal_trouble: str = ""
) -> int:
    """Log why a node stops, and return the exit code of its process.

    Args:
        depart: the decision of the node's core.
        left: the node's remaining work, as the end of a sentence.
        locks: how many locks it has.
        is_last: whether the cluster has no other node.
        journal_trouble: why its journal cannot be written; "" if it can, or if there is none.
    """
    why = f" (its journal has failed, so it grants no new lock: {journal_trouble})" if journal_trouble else ""
    match depart.end:
        case DepartureEnd.DRAINED if depart.locks_ended > 0:
            log.warning(
                "drained: nothing is left on this node; no other node could take the %d locks that were"
                " held here, so they end with it",
                depart.locks_ended,
                extra=event("drained", locks_ended=depart.locks_ended),
            )
        case DepartureEnd.DRAINED if is_last:
            log.info(
                "drained: nothing is left on this node; it is the last one, and held no lock",
                extra=event("drained"),
            )
        case DepartureEnd.DRAINED:
            log.info(
                "drained: nothing is left on this node; the other nodes have what it had",
                extra=event("drained"),
            )
        case DepartureEnd.KEPT if journal_trouble:
            log.warning(
                "stopping with %d locks: no other node goes on, and the journal lacks what changed since it failed: %s",
                locks,
                journal_trouble,
                extra=event("stopped-with-locks", locks=locks),
            )
        case DepartureEnd.KEPT:
            kept = "1 lock is" if locks == 1 else f"{locks} locks are"
            log.info(
                "%s kept in the data directory, for this node's next start: no other node goes on",
                kept,
                extra=event("locks-kept", locks=locks),
            )
        case DepartureEnd.ONLY_SPARE_COPIES:
            log.info(
                "drained but for copies, which no other node can take: the last one goes on alone",
                extra=event("drained"),
            )
        case DepartureEnd.NOTHING_HERE:
            log.info("nothing is on this node: it stops without the coordinator", extra=event("drained"))
        case DepartureEnd.NEW_LIFE:
            log.info(
                "a new life of this node has nothing to hand over: it stops without joining the cluster",
                extra=event("drained"),
            )
        case DepartureEnd.TIMED_OUT:
            log.warning("not drained in time; this node still %s%s", left, why, extra=event("not-drained"))
            return exits.NOT_DRAINED
        case DepartureEnd.COORDINATOR_AWAY:
            log.warning(
                "stopping without a move, since the coordinator has been away for %.0f s; this node %s%s",
                depart.away_ns / NS_PER_S,
                left,
                why,
                extra=event("not-drained"),
            )
            return exits.NOT_DRAINED
    return exits.OK
