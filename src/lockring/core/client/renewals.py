"""How a client keeps what it has: keepalives, promises, losses, and moves to other nodes."""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.core.client.effects import GrantLost, Resolve
from lockring.core.client.links import Node, NodeLink
from lockring.core.client.outlook import Wait, wait_of
from lockring.core.client.outstanding import ENDED, HELD, PENDING, RELEASING, RETRY_NS_MIN, Exchange
from lockring.core.client.queries import STREAMS, ListProgress, Query, QueryKind
from lockring.core.client.tickets import NodeShare, Ticket, deadline_of
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockringError, WrongCluster
from lockring.protocol import (
    GrantReply,
    Keepalive,
    KeepaliveReply,
    LossNotice,
    QueueNotice,
    Routes,
    TroubleNotice,
    Welcome,
)
from lockring.units import NS_PER_MS

LISTED_BYTES_MAX: Final = 1024 * 1024
"""About how much one keepalive lists; more is split by slots, far below the longest frame."""
_ENTRY_BYTES: Final = 16

OTHER_CLUSTER: Final = "other-cluster"
"""Why everything is lost that was held in a cluster in whose place another one answers."""

_DIGEST: Final = 0
_PER_SLOT: Final = 1
_LISTED: Final = 2


class OpenKeepalive(NamedTuple):
    """A keepalive that is not answered yet; `level` is 0 for the digest, 1 for one per slot, 2 for lists."""

    share: NodeShare
    sent_at_ns: int
    level: int


class Renewal(Exchange):
    """The part of the client core that renews, loses and moves what is held."""

    # ------------------------------------------------------------------ keepalives

    def _keepalive(self, share: NodeShare, now_ns: int) -> None:
        """Send a share's keepalive if its node need hear of it, and plan the next."""
        node = self._routing.nodes[share.replica] if share.replica is not None else None
        if node is None or node.link is None or not (share.tickets or share.touched):
            share.keepalive_at_ns = DISTANT_FUTURE_NS
            return
        share.touched = False
        share.keepalive_at_ns = now_ns + share.session.keepalive_ns
        self._send_keepalive(share, node.link, _DIGEST, now_ns)

    def _send_keepalive(
        self,
        share: NodeShare,
        link: NodeLink,
        level: int,
        now_ns: int,
        listed: list[tuple[int, list[tuple[int, str]]]] | None = None,
    ) -> None:
        session = share.session
        routing = self._routing
        request = routing.number(now_ns, exact=True)
        slots: list[tuple[int, int, int]] = []
        if level == _PER_SLOT:
            # Where nothing is left here but the node knows something: an empty slot says so.
            slots = share.per_slot() or [(0, 0, 0)]
        message = Keepalive(
            request,
            session.id,
            session.ttl_ms,
            self.owner,
            session.used,
            len(share.tickets),
            share.fold(),
            slots,
            listed or [],
            routing.version,
        )
        look_at_ns = routing.ask(link, request, OpenKeepalive(share, now_ns, level), message, now_ns)
        self._wake(min(share.keepalive_at_ns, look_at_ns))

    def _list(self, share: NodeShare, link: NodeLink, slots: list[int], now_ns: int) -> None:
        """Send what the share has in these slots, in keepalives of bounded size."""
        part: list[tuple[int, list[tuple[int, str]]]] = []
        size = 0
        for slot, entries in share.listed(slots):
            part.append((slot, entries))
            size += _ENTRY_BYTES + sum(_ENTRY_BYTES + 4 * len(name) for _, name in entries)
            if size > LISTED_BYTES_MAX:
                self._send_keepalive(share, link, _LISTED, now_ns, part)
                part, size = [], 0
        if part:
            self._send_keepalive(share, link, _LISTED, now_ns, part)

    def _kept(self, link: NodeLink, kept: KeepaliveReply, now_ns: int) -> None:
        """A keepalive was answered."""
        asked = link.requests.pop(kept.request, None)
        if not isinstance(asked, OpenKeepalive):
            return
        share, sent_at_ns, level = asked
        self._expire(share, now_ns)
        found = share.judge(kept.request, sent_at_ns, kept, now_ns)
        for ticket in found.lost:
            self._lose(ticket, "expired", now_ns)
        for ticket, generation in found.begun:
            self._begin(ticket, generation, found.until_ns, kept.request, now_ns)
        again = found.again
        node = link.node
        assert node is not None
        for ticket in found.gone:
            self._send_acquire(ticket, node, link, now_ns)
        if kept.agreed:
            share.unsettled = 0
            if share.late:
                self._ask_late_again(share, kept.request, node, link, now_ns)
        elif level == _DIGEST and not kept.slots:
            self._send_keepalive(share, link, _PER_SLOT, now_ns)
        elif found.to_list:
            self._list(share, link, found.to_list, now_ns)
        elif level != _LISTED and not kept.slots:
            again = True
        if again:
            share.unsettled += 1
            pause_ns = min(share.session.keepalive_ns, RETRY_NS_MIN << min(share.unsettled, 10))
            share.keepalive_at_ns = min(share.keepalive_at_ns, now_ns + pause_ns)
            self._wake(share.keepalive_at_ns)

    def _ask_late_again(
        self, share: NodeShare, request: int, node: Node, link: NodeLink, now_ns: int
    ) -> None:
        """A node agreed without a verdict on a grant that had come too late: repeat the acquire, to hear of it anew."""
        share.late = False
        for ticket in [t for t in share.tickets.values() if t.late and t.state == PENDING]:
            if ticket.covered_after < request:
                ticket.late = False
                self._send_acquire(ticket, node, link, now_ns)
            else:
                share.late = True

    def _refused_keepalive(self, share: NodeShare, now_ns: int) -> None:
        """The node could not take a keepalive: try again after a pause."""
        share.unsettled += 1
        pause_ns = min(share.session.keepalive_ns, RETRY_NS_MIN << min(share.unsettled, 10))
        share.keepalive_at_ns = min(share.keepalive_at_ns, now_ns + pause_ns)
        self._wake(share.keepalive_at_ns)

    # ------------------------------------------------------------------ grants and losses

    def _granted(self, link: NodeLink, granted: GrantReply, now_ns: int) -> None:
        """An acquire was granted."""
        ticket = link.acquires.get(granted.request)
        if not isinstance(ticket, Ticket):
            return
        basis = granted.basis
        sent_at_ns: int | None = ticket.sent_at_ns
        if basis != ticket.request:
            sent_at_ns = self._routing.sent_no_earlier_than(basis)
        deadline_ns = 0 if sent_at_ns is None else sent_at_ns + granted.promise_ms * NS_PER_MS
        if deadline_ns > now_ns:
            self._begin(ticket, granted.generation, deadline_ns, basis, now_ns)
        else:
            # Too late to begin with: ask whether it is still ours. It stays open, should the answer not come.
            share = ticket.share
            assert share is not None
            ticket.late = share.late = True
            self._list(share, link, [ticket.slot], now_ns)

    def _begin(self, ticket: Ticket, generation: int, deadline_ns: int, basis: int, now_ns: int) -> None:
        """A waiting ticket is held from now on; `basis` is the request that the promise answers."""
        link = self._routing.links[ticket.link]
        del link.acquires[ticket.request]
        if ticket.request != ticket.first_request:
            del link.acquires[ticket.first_request]
        ticket.link = 0
        if ticket.wait_until_ns != DISTANT_FUTURE_NS:
            self._alarms.abandon()
        share = ticket.share
        assert share is not None
        ticket.generation = generation
        ticket.deadline_ns = deadline_ns
        if basis > ticket.covered_after:
            ticket.covered_after = basis
        ticket.state = HELD
        if deadline_ns < share.check_at_ns:
            share.check_at_ns = deadline_ns
            if deadline_ns < self._wake_ns:
                self._wake_ns = deadline_ns
        self._effects.append(Resolve(ticket, None))

    def _expire(self, share: NodeShare, now_ns: int) -> None:
        """Lose what has passed its deadline."""
        if share.check_at_ns <= now_ns:
            for ticket in share.take_expired(now_ns):
                self._lose(ticket, "local-deadline", now_ns)

    def _lose(self, ticket: Ticket, reason: str, now_ns: int) -> None:
        """A held ticket is not held any more: say so first, then let go of it at its node at once."""
        assert ticket.share is not None
        ticket.share.leave(ticket)
        self._end_held(ticket, reason)
        self._begin_release(ticket, now_ns)

    def _end_held(self, ticket: Ticket, reason: str) -> None:
        ticket.reason = reason
        ticket.state = ENDED
        self._effects.append(GrantLost(ticket, reason))

    def _let_go(self, ticket: Ticket) -> None:
        ticket.unreleased = False
        ticket.link = 0
        if ticket.state == RELEASING:
            ticket.state = ENDED
            self._effects.append(Resolve(ticket, None))

    def _told_lost(self, link: NodeLink, lost: LossNotice, now_ns: int) -> None:
        """A node says that it ended an acquisition."""
        session = self._session_of.get(lost.session)
        shares = session.shares.values() if session is not None else ()
        for share in shares:
            ticket = share.tickets.get(lost.acquisition)
            if ticket is None:
                continue
            if ticket.state == HELD:
                # Only from where it is held: a former primary may end, late, what lives on at its successor.
                if link.node is not None and share.replica == link.node.replica:
                    self._lose(ticket, lost.reason, now_ns)
            elif link.node is not None and link.id == ticket.link:
                self._send_acquire(ticket, link.node, link, now_ns)
            return

    # ------------------------------------------------------------------ moves

    def _welcomed(self, link: NodeLink, welcome: Welcome, now_ns: int) -> None:
        """A server answered the greeting: send it what waits for it, and renew what is there."""
        for replaced in self._routing.welcome(link, welcome, now_ns):
            self._requeue(replaced, now_ns)
            self._routing.drop(replaced, "a newer connection took its place")
        self._unpark(now_ns)
        if link.node is not None:
            # Only now: a list must not come before the acquires that it speaks of.
            # What waits has just been sent, which says as much as a keepalive.
            for share in link.node.shares.values():
                if any(ticket.state == HELD for ticket in share.tickets.values()):
                    self._keepalive(share, now_ns)
        self._wake(now_ns)

    def _routed(self, routes: Routes, now_ns: int) -> None:
        """Routes came: take what moved to where it is now."""
        routing = self._routing
        if not routing.adopt(routes, now_ns):
            return
        reached: dict[int, NodeShare] = {}
        for session in self._sessions.values():
            for share in list(session.shares.values()):
                node = routing.nodes[share.replica] if share.replica is not None else None
                moved = [t for t in share.tickets.values() if routing.table[t.slot] is not node]
                for ticket in moved:
                    share.leave(ticket)
                    if ticket.state == PENDING:
                        self._close_acquire(ticket)
                        self._park(ticket, now_ns)
                        continue
                    target = self._share(session, routing.table[ticket.slot])
                    # What its new node has been sent so far says nothing of this ticket.
                    target.enter(ticket, routing.request)
                    reached[id(target)] = target
        for each in routing.nodes.values():
            each.wanted = False
        self._unpark(now_ns, rerouted=True)
        for share in reached.values():
            share.unsettled = 0
            self._keepalive(share, now_ns)
            self._wake(share.check_at_ns)
        self._release_again(now_ns)
        routing.prune()
        self._wake(now_ns)

    # ------------------------------------------------------------------ what nodes tell by themselves

    def _queued(self, link: NodeLink, queued: QueueNotice) -> None:
        """An acquire waits for other holders, as the node says that serves its slot."""
        ticket = link.acquires.get(queued.request)
        if isinstance(ticket, Ticket):
            ticket.queued = True

    def _troubled(self, link: NodeLink, trouble: TroubleNotice, now_ns: int) -> None:
        """A node cannot serve as it should, or can again."""
        link.trouble, link.trouble_at_ns = (trouble if trouble.reason else None), now_ns

    # ------------------------------------------------------------------ another cluster

    def _lose_link(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        super()._lose_link(link, error, now_ns)
        if self._routing.is_replaced(has_any=self._has_any()):
            self._begin_afresh(now_ns)

    def _begin_afresh(self, now_ns: int) -> None:
        """The cluster is gone, and another one is in its place: nothing is held, and what is open is asked of the new one.

        What names something of the former cluster, a token or a node, is not: it might hit something else there.
        """
        for session in self._sessions.values():
            for share in session.shares.values():
                for ticket in list(share.tickets.values()):
                    share.leave(ticket)
                    self._end_held(ticket, OTHER_CLUSTER)  # what waits is parked by now
        for item in list(self._parked):
            if isinstance(item, Query):
                if item.kind in (QueryKind.BREAK, QueryKind.DRAIN):
                    what = f"{item.kind.value} of {item.name!r}"
                    error = WrongCluster(
                        f"the {what} was meant for a cluster that is gone: another one answers at its addresses",
                        name=item.name,
                    )
                    self._give_up(item, error, now_ns)
                elif item.listing is not None:
                    item.listing = ListProgress()
            elif item.state != PENDING:
                del self._parked[item]
                self._let_go(item)
        self._lately_released.clear()
        self._routing.forget_cluster()
        self._wake(now_ns)

    # ------------------------------------------------------------------ time

    def waits(self, now_ns: int) -> list[Wait]:
        """What each call waits for that is not answered yet, or is a watch that nothing can come from at present."""
        found: list[Wait] = []
        for item in self._open_items():
            if isinstance(item, Query) or item.state == PENDING:
                wait = wait_of(self._routing, item, now_ns)
                if wait.reason != "failover" or isinstance(item, Ticket) or item.kind not in STREAMS:
                    found.append(wait)
        return found

    def _is_wanting(self) -> bool:
        """Whether something waits for a route or a link, or is held in a slot that is to have a primary again."""
        return bool(self._parked) or any(
            None in session.shares and session.shares[None].tickets for session in self._sessions.values()
        )

    def _soonest(self) -> int:
        """The earliest deadline of shares and alarms."""
        soonest = self._alarms.first_ns() or DISTANT_FUTURE_NS
        for session in self._sessions.values():
            for share in session.shares.values():
                soonest = min(soonest, share.check_at_ns, share.keepalive_at_ns)
        return soonest

    def believes(self, ticket: Ticket, now_ns: int) -> bool:
        """Whether the client rightly takes the ticket for held at this time."""
        return ticket.state == HELD and now_ns < deadline_of(ticket)
