"""A node's way out: what it still waits for once it was told to stop (SIGTERM), and for how long.

- While the coordinator is there, everything moves to the other nodes first. If no other is left, the coordinator takes the slots
  back at once, and the locks in them end with the node.
- Without the coordinator nothing can move. A node on which nothing is need not wait for it; one on which something is
  gives a coordinator that is being restarted, or hangs, some seconds; one whose lease is over has nothing left to keep.
- It never waits longer than `--drain-timeout`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from lockring import exits
from lockring.clock import monotonic_ns
from lockring.core.node import NodeCore
from lockring.protocol import DrainReply, Refusal, UndrainReply
from lockring.server.coordinator_link import CoordinatorLink
from lockring.server.state_diff import shares
from lockring.units import NS_PER_MS, NS_PER_S

COORDINATOR_AWAY_NS_MAX: Final = 5 * NS_PER_S
"""How long a node that is to stop goes without its coordinator before it stops without moving anything."""

COORDINATOR_SILENT_NS_MAX: Final = 10 * NS_PER_S
"""The same where the connection stands, and the coordinator acknowledges nothing on it."""

log = logging.getLogger("lockring.node")


class DepartingNode(Protocol):
    """The node, as its departure sees it."""

    @property
    def core(self) -> NodeCore:
        """Of its present life."""

    @property
    def away_since_ns(self) -> int | None:
        """Since when it has not been in touch with the coordinator, None if it is."""


class Departure:
    """See the module. Lives in one event loop.

    Args:
        node: which leaves.
        link: its connection to the coordinator.
        timeout_s: how long it may take, in seconds.
        finish: called once, with the exit code, when the node can stop.
    """

    def __init__(
        self, node: DepartingNode, link: CoordinatorLink, timeout_s: float, finish: Callable[[int], None]
    ) -> None:
        self._node = node
        self._link = link
        self._finish = finish
        self._begun_ns = monotonic_ns()
        self._until_ns = self._begun_ns + int(timeout_s * 1000) * NS_PER_MS
        self._has_begun = self._is_asked = self._is_over = False
        self._ended_before = node.core._roles.released.locks
        self._trouble = ""
        log.info(
            "draining: everything moves to the other nodes, for up to %g s; a second signal stops at once",
            timeout_s,
        )

    def look(self, now_ns: int) -> None:
        """Take the next step, if there is one. To be called when anything has changed, and twice a second."""
        if self._is_over:
            return
        if not self._has_begun and not self._is_asked and self._link.connection is not None:
            self._is_asked = True
            self._link.leave(self._answered)
        if self._has_begun and self._is_drained():
            return
        away_since_ns = self._node.away_since_ns
        if now_ns >= self._until_ns:
            log.warning("not drained in time; this node still %s", self._what_is_left(now_ns))
            self._end(exits.NOT_DRAINED)
        elif away_since_ns is not None:
            away_ns = now_ns - away_since_ns
            self._go_without_coordinator(now_ns, away_ns, away_ns >= COORDINATOR_AWAY_NS_MAX)
        elif (silent_ns := self._silent_ns(now_ns)) >= COORDINATOR_SILENT_NS_MAX:
            self._go_without_coordinator(now_ns, silent_ns, True)

    def coordinator_lost(self) -> None:
        """The connection has ended: another one must be told again."""
        self._has_begun = self._is_asked = False

    def _answered(self, answer: DrainReply | UndrainReply | Refusal) -> None:
        self._is_asked = False
        if isinstance(answer, DrainReply):
            self._has_begun = True
            self._is_drained()
        elif isinstance(answer, Refusal) and answer.text != self._trouble:
            self._trouble = answer.text
            log.warning("the coordinator does not begin the drain yet: %s", answer.text)

    def _is_drained(self) -> bool:
        """Whether it is; if so, that is the end."""
        core = self._node.core
        me = core.replica
        member = core.state.members.get(me.node)
        if member is not None and member.condition != "draining":
            return False  # the coordinator has begun, but its next state may still give this node something
        if core.is_drained():
            ended = core._roles.released.locks - self._ended_before
            if ended > 0:
                log.warning(
                    "drained: nothing is left on this node; no other node could take the %d locks that were"
                    " held here, so they end with it",
                    ended,
                )
            elif len(core.state.members) > 1:
                log.info("drained: nothing is left on this node; the other nodes have what it had")
            else:
                log.info("drained: nothing is left on this node; it is the last one, and held no lock")
        elif self._has_only_spare_copies(core):
            log.info("drained but for copies, which no other node can take: the last one goes on alone")
        else:
            return False
        self._end(exits.OK)
        return True

    @staticmethod
    def _has_only_spare_copies(core: NodeCore) -> bool:
        """Whether the node serves nothing, and waiting would not bring its copies to another node either."""
        me, state = core.replica, core.state
        others = [
            member
            for node, member in state.members.items()
            if node != me.node and member.condition != "draining"
        ]
        if len(others) != 1:
            return False
        other = others[0].replica
        return all(slot.primary == other for slot in state.slots if slot.primary == me or slot.copy_of(me))

    def _silent_ns(self, now_ns: int) -> int:
        """How long the coordinator has acknowledged no heartbeat, since the departure began at the earliest."""
        core = self._node.core
        lease_ns = core.state.coordinator_lease_ms * NS_PER_MS
        return min(now_ns - self._begun_ns, lease_ns - core._context.rights.coordinator_lease_left_ns(now_ns))

    def _go_without_coordinator(self, now_ns: int, away_ns: int, is_given_up: bool) -> None:
        """Stop where nothing is left to keep, or nothing more is expected of the coordinator."""
        core = self._node.core
        if core.is_drained():
            log.info("nothing is on this node: it stops without the coordinator")
            self._end(exits.OK)
        elif is_given_up or core._context.rights.coordinator_lease_left_ns(now_ns) <= 0:
            log.warning(
                "stopping without a move, since the coordinator has been away for %.0f s; this node %s",
                away_ns / NS_PER_S,
                self._what_is_left(now_ns),
            )
            self._end(exits.NOT_DRAINED)

    def _end(self, code: int) -> None:
        self._is_over = True
        self._finish(code)

    def _what_is_left(self, now_ns: int) -> str:
        core = self._node.core
        return shares(
            core.state, core.replica, may_serve=core._context.rights.coordinator_lease_left_ns(now_ns) > 0
        )
