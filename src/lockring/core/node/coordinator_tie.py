"""A node's tie to its coordinator: heartbeats, the lease that their acknowledgements give, and requests about slots."""

from __future__ import annotations

from typing import Final

from lockring.core.effects import COORDINATOR
from lockring.core.events import COORDINATOR_FOUND, COORDINATOR_LOST
from lockring.core.node.context import NodeContext
from lockring.core.node.leases import SentTimes
from lockring.core.node.roles import ReleasedSlots
from lockring.ids import RequestNumber
from lockring.protocol import Heartbeat, HeartbeatAck, SlotRequest, SlotRequestKind, SlotRequests
from lockring.units import NS_PER_MS

SILENT_HEARTBEATS: Final = 3
"""Heartbeats in a row without an acknowledgement after which a node looks for another coordinator. Its lease lasts for
ten or more."""


class CoordinatorTie:
    """The connection to the coordinator, as the node's rights depend on it.

    A coordinator that stands still keeps its connections. Where another one may lead, the node hangs up after a few
    heartbeats without an answer, and finds the one that leads by dialing. Where there is one, waiting is all it can do.

    Attributes:
        has_others: whether another coordinator than the present one may lead.
        away_since_ns: since when no connection stands on which the coordinator has welcomed the node; None while one
            does.
        heartbeat_at_ns: when the next heartbeat is due, while it does.
        current_at_ns: when the newest heartbeat was sent that was acknowledged. No state escaped the node until then.
        is_astray: whether a difference of states did not fit the node's own.
    """

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self.has_others = False
        self._was_up = False
        self._unanswered = 0
        self._heartbeats = SentTimes()
        self._requests = 0
        self._why_away = "waiting for the coordinator"
        self.away_since_ns: int | None = context.now_ns
        self.current_at_ns = context.now_ns
        self.heartbeat_at_ns = context.now_ns
        self.is_astray = False

    @property
    def is_up(self) -> bool:
        """Whether the coordinator has welcomed the node on a connection that stands."""
        return self.away_since_ns is None

    @property
    def note(self) -> str:
        """A sentence on why no connection stands, "" while one does."""
        return "" if self.is_up else self._why_away

    def missing(self, why: str) -> None:
        """Note why the coordinator is not reached, which the shell knows."""
        self._why_away = why

    def connected(self) -> None:
        """Note that the coordinator has welcomed the node."""
        if self._was_up and self.away_since_ns is not None:
            self._context.outbox.events.coordinator_changed(
                COORDINATOR_FOUND, self._context.replica.node, self._context.now_ns
            )
        self._was_up = True
        self.away_since_ns = None
        self._unanswered = 0

    def disconnected(self, now_ns: int) -> None:
        """Note that the connection to the coordinator is gone."""
        if self.away_since_ns is None:
            self.away_since_ns = now_ns
            self._context.outbox.events.coordinator_changed(
                COORDINATOR_LOST, self._context.replica.node, now_ns
            )

    def number_request(self) -> RequestNumber:
        """Give the next request its number, be it an operator's or this node's own, and return that.

        They count from 1, in one sequence, since the coordinator answers all of them on one connection. A refusal with
        the number 0 answers no request: it is about the connection.
        """
        self._requests += 1
        return RequestNumber(self._requests)

    def heartbeat(self, *, waiters: int, sessions: int, released: ReleasedSlots, now_ns: int) -> None:
        """Send a heartbeat, or hang up on a coordinator that has not acknowledged the last ones.

        Args:
            waiters: requests that wait for locks at this node.
            sessions: sessions at this node.
            released: the slots that it gave up with no successor.
            now_ns: the time, from which the lease that is asked for counts.
        """
        context = self._context
        if self.has_others and self._unanswered >= SILENT_HEARTBEATS:
            self._unanswered = 0
            context.outbox.close(COORDINATOR, f"it has not acknowledged {SILENT_HEARTBEATS} heartbeats")
        self._unanswered += 1
        lease_ms = context.state.coordinator_lease_ms
        self.heartbeat_at_ns = now_ns + context.timing.heartbeat_for_ns(lease_ms)
        context.outbox.send(
            COORDINATOR,
            Heartbeat(
                self._heartbeats.add(now_ns),
                context.state.version,
                locks=sum(len(slot.table.locks) for slot in context.slots.values() if slot.reign is not None),
                waiters=waiters,
                sessions=sessions,
                released=released.digest,
                promised_ms=max(0, -((now_ns - released.promised_until_ns) // NS_PER_MS)),
                is_astray=self.is_astray,
            ),
        )

    def acknowledged(self, message: HeartbeatAck) -> bool:
        """Extend the lease by an acknowledgement. Returns whether the heartbeat that it answers is still known."""
        sent_at_ns = self._heartbeats.pop(message.sequence)
        if sent_at_ns is None:
            return False
        self._unanswered = 0
        self.current_at_ns = sent_at_ns
        context = self._context
        lease_ns = context.state.coordinator_lease_ms * NS_PER_MS
        context.rights.coordinator_lease.acknowledged(
            sent_at_ns + lease_ns, message.version, context.state.version
        )
        return True

    def send_asks(self) -> None:
        """Send this turn's requests about slots, one message for each kind; without a coordinator they are dropped.

        Every asker asks again as long as its reason lasts.
        """
        outbox = self._context.outbox
        asks, outbox.asks = outbox.asks, {}
        if not self.is_up:
            return
        by_kind: dict[SlotRequestKind, list[SlotRequest]] = {}
        for (kind, _, _), item in asks.items():
            by_kind.setdefault(kind, []).append(item)
        for kind, items in by_kind.items():
            outbox.send(COORDINATOR, SlotRequests(kind, items))
