"""A node's log lines about its share of the cluster, and about its right to serve it: one for each change."""

from __future__ import annotations

import logging
from typing import Final

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState
from lockring.core.node import NodeCore
from lockring.log_events import event
from lockring.server.reporter import StateReporter
from lockring.server.state_diff import shares
from lockring.units import NS_PER_S

log: Final = logging.getLogger("lockring.node")


class NodeLog:
    """The reports of a node, over all of its lives. Lives in one event loop.

    The cluster state, the node's share and its takeovers are reported as each life comes to know them. The right to
    serve is the node's: a lease that one life has lost may come back in another.

    Args:
        core: of its first life.
        began_ns: when it began to read the journal of its former lives, on the monotonic clock; None if nothing comes
            back from one.
    """

    def __init__(self, core: NodeCore, *, began_ns: int | None = None) -> None:
        self._is_lease_reported_over = False
        self._follow(core, began_ns)

    def begin_life(self, core: NodeCore, *, began_ns: int | None = None) -> None:
        """Report another life from now on, after what was collected of the former one."""
        self.flush()
        self._follow(core, began_ns)

    def state_changed(self, state: ClusterState) -> None:
        """Report a new cluster state, together with those that follow at once."""
        self._states.report(state)
        self._tell_of_journal(monotonic_ns())

    def flush(self) -> None:
        """Log what was collected so far."""
        self._states.flush()

    def look(self, now_ns: int) -> None:
        """Report what only the passing of time brings about. To be called twice a second."""
        self._tell_of_journal(now_ns)
        self._tell_of_lease(now_ns)
        self._tell_of_takeovers(now_ns)

    def _follow(self, core: NodeCore, began_ns: int | None) -> None:
        self._core = core
        self._began_ns = began_ns
        self._states = StateReporter(log, core.replica.node, self._share)
        self._beginning_since_ns: int | None = None

    def _share(self, state: ClusterState) -> str:
        core = self._core
        # At the very beginning the first lease is on its way.
        may_serve = core.coordinator_lease_left_ns(monotonic_ns()) > 0 or not core.had_lease
        return shares(state, core.replica, may_serve=may_serve)

    def _tell_of_journal(self, now_ns: int) -> None:
        """Log once what a journal has brought back, when the first of it is served."""
        if self._began_ns is None:
            return
        if self._core.status(now_ns=now_ns).serving_slots:
            locks = self._core.locks_back
            log.info(
                "serving again %.2f s after the journal was opened: %s",
                (now_ns - self._began_ns) / NS_PER_S,
                _back(locks),
                extra=event("locks-back", locks=locks),
            )
            self._began_ns = None

    def _tell_of_lease(self, now_ns: int) -> None:
        """Log once when the coordinator's lease is over, and once when there is one again."""
        core = self._core
        has_lease = core.coordinator_lease_left_ns(now_ns) > 0
        if has_lease and self._is_lease_reported_over:
            self._is_lease_reported_over = False
            log.info(
                "serving again: the coordinator has given this node its lease", extra=event("serving-again")
            )
        elif not has_lease and not self._is_lease_reported_over and core.had_lease:
            self._is_lease_reported_over = True
            away_since_ns = core.away_since_ns
            log.error(
                "serving no more: the coordinator's lease of %g s is over, and %s",
                core.state.coordinator_lease_ms / 1000,
                "it has not been renewed"
                if away_since_ns is None
                else f"the coordinator has been away for {(now_ns - away_since_ns) / 1e9:.0f} s",
                extra=event("serving-no-more"),
            )

    def _tell_of_takeovers(self, now_ns: int) -> None:
        """Log once when all slots that this node was given are served, where some had to wait."""
        if self._core.beginning:
            self._beginning_since_ns = self._beginning_since_ns or now_ns
        elif self._beginning_since_ns is not None:
            waited_s = (now_ns - self._beginning_since_ns) / NS_PER_S
            self._beginning_since_ns = None
            log.info(
                "serving all slots that it was given, the last ones after some %.1f s",
                waited_s,
                extra=event("serving-all"),
            )


def _back(locks: int) -> str:
    """Return how many locks a journal has brought back, as a clause."""
    match locks:
        case 0:
            return "no lock was held in it"
        case 1:
            return "1 lock came back from the journal, and its holder keeps it"
        case _:
            return f"{locks} locks came back from the journal, and their holders keep them"
