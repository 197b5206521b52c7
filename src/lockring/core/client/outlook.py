"""The reasons of waits: why a call has no answer yet, since when, and for how long at most.

"Held" is said only on the word of a node that serves the slot. Everything else is an outage, whatever the lock's state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from lockring.core.client.dialing import DialPlan
from lockring.core.client.links import READY, Links, Node, NodeLink
from lockring.core.client.queries import ANYWHERE, STREAMS, Query
from lockring.core.client.routes import RouteTable
from lockring.core.client.tickets import PENDING, Ticket
from lockring.core.refusals import holder_of
from lockring.errors import AcquireTimeout, LockringError, Unavailable, from_code
from lockring.units import NS_PER_MS, NS_PER_S

BEHIND_OTHERS: Final = "held"
"""The reason of an acquire that waits for other holders; all other reasons are those of `errors.Unavailable`."""


class Outlook(NamedTuple):
    """The reason of one wait.

    Attributes:
        reason: `BEHIND_OTHERS`, or as in `errors.Unavailable`.
        text: the same for people.
        since_ns: since when.
        until_ns: when that will be over at the latest, None if it is not known.
    """

    reason: str
    text: str
    since_ns: int
    until_ns: int | None = None


class Wait(NamedTuple):
    """A call of a client that waits, and for what.

    Attributes:
        name: the lock, or whatever else the call is about; "" for a question about the cluster.
        reason: "held" if others hold the lock (or wait before this call); else why it is not known whether they do,
            as in `Unavailable.reason`.
        text: the same for people.
        since_s: for how long that has been so, in seconds.
        left_s: how much longer it may take, in seconds, None if that is not known.
    """

    name: str
    reason: str
    text: str
    since_s: float
    left_s: float | None


class Outlooks:
    """Says what calls wait for, by the links, the routes and the failures of a client."""

    def __init__(self, links: Links, routes: RouteTable, dialing: DialPlan) -> None:
        self._links = links
        self._routes = routes
        self._dialing = dialing

    def waits(self, items: Iterable[Ticket | Query], now_ns: int) -> list[Wait]:
        """Return what each open call waits for, and each watch from which nothing can come at present."""
        found: list[Wait] = []
        for item in items:
            if isinstance(item, Ticket) and item.state != PENDING:
                continue
            outlook = self.outlook_of(item)
            is_quiet_stream = isinstance(item, Query) and item.kind in STREAMS
            if is_quiet_stream and outlook.reason == "failover":
                continue  # it is open at its node, and nothing has changed
            left_s = None if outlook.until_ns is None else max(0, outlook.until_ns - now_ns) / NS_PER_S
            since_s = max(0, now_ns - outlook.since_ns) / NS_PER_S
            found.append(Wait(item.name, outlook.reason, outlook.text, since_s, left_s))
        return found

    def too_late(self, item: Ticket | Query, now_ns: int) -> LockringError:
        """Return the error for a call that was not answered in its time."""
        name = item.name
        backoff = item.exchange.backoff
        if backoff is not None and backoff.refusal[0] == "overloaded":
            return from_code(*backoff.refusal, name=name)
        found = self.outlook_of(item)
        if found.reason == BEHIND_OTHERS:
            assert isinstance(item, Ticket)
            limit_s = item.exchange.terms.wait_ms * NS_PER_MS / NS_PER_S
            notice = None if item.exchange.delay is None else item.exchange.delay.notice
            return AcquireTimeout(
                f"{name!r} was not granted within {limit_s:g} s: {found.text}",
                name=name,
                holders=() if notice is None else map(holder_of, notice.holders),
                waited_s=(now_ns - item.exchange.started_at_ns) / NS_PER_S,
                position=None if notice is None else notice.position or None,
            )
        if found.reason == "unreachable" and self._links.any_ready() is None:
            error = self._dialing.unreachable(now_ns)
            error.name = name
            return error
        since_s = max(0, now_ns - found.since_ns) / NS_PER_S
        text = f"{found.text} (for {since_s:.1f} s)"
        if found.until_ns is not None:
            text += f"; {max(0, found.until_ns - now_ns) / NS_PER_S:.1f} s more at most"
        return Unavailable(text, name=name, reason=found.reason, since_s=since_s)

    def outlook_of(self, item: Ticket | Query) -> Outlook:
        """Return what a call waits for."""
        link = self._links.by_id.get(item.exchange.link)
        if link is not None:
            return _of_sent(link, item)
        if self._links.any_ready() is None:
            since_ns = self._links.alone_since_ns or item.exchange.started_at_ns
            return Outlook("unreachable", str(self._dialing.unreachable()), since_ns)
        target = self._routes.where(item)
        if target is None:
            return self._of_unserved(item)
        if isinstance(target, NodeLink):
            return _of_refused(target, item)
        if target.link is not None:
            return _of_refused(target.link, item)
        return self._of_unlinked(target, item)

    def _of_unlinked(self, node: Node, item: Ticket | Query) -> Outlook:
        failure = self._dialing.failures.get(node.address)
        why = f": {failure.error}" if failure is not None else ""
        text = (
            f"node {node.replica.node} at {node.address}, which serves {_about(item)}, cannot be reached{why}"
        )
        return Outlook("unreachable", text, max(item.exchange.started_at_ns, self._dialing.stuck_since_ns))

    def _of_unserved(self, item: Ticket | Query) -> Outlook:
        for link in self._links.by_id.values():
            if link.state == READY and link.trouble is not None and not link.trouble.notice.all:
                return _of_trouble(link)
        slot = f"slot {item.slot}" if item.slot != ANYWHERE else "any slot"
        text = f"no node serves {slot} at present" + (
            f", which has {item.name!r}" if item.slot != ANYWHERE else ""
        )
        return Outlook("no-primary", text, self._routes.unserved_since_ns or item.exchange.started_at_ns)


def _of_sent(link: NodeLink, item: Ticket | Query) -> Outlook:
    """Return what an item waits for that was sent and has no answer."""
    if link.trouble is not None and link.trouble.notice.all:
        return _of_trouble(link)
    if isinstance(item, Ticket):
        sent_at_ns = item.exchange.sent_at_ns
        if item.exchange.delay is not None and item.exchange.delay.queued:
            return Outlook(
                BEHIND_OTHERS, f"the lock {item.name!r} is held by others", item.exchange.started_at_ns
            )
    else:
        sent_at_ns = link.health.asked_at_ns or item.exchange.started_at_ns
    if link.health.heard_at_ns <= sent_at_ns:
        return Outlook("silent", f"{link.address} did not answer in time", sent_at_ns)
    return Outlook("failover", f"{link.address} has not answered about {_about(item)} yet", sent_at_ns)


def _of_refused(link: NodeLink, item: Ticket | Query) -> Outlook:
    """Return what an item waits for that was refused and will be tried again."""
    if link.trouble is not None and link.trouble.notice.all:
        return _of_trouble(link)
    backoff = item.exchange.backoff
    text = (
        backoff.refusal[1]
        if backoff is not None
        else f"{link.address} has not been asked about {_about(item)} yet"
    )
    return Outlook("failover", text, item.exchange.started_at_ns)


def _of_trouble(link: NodeLink) -> Outlook:
    assert link.trouble is not None
    trouble, at_ns = link.trouble
    since_ns = at_ns - trouble.since_ms * NS_PER_MS
    until_ns = None if trouble.left_ms < 0 else at_ns + trouble.left_ms * NS_PER_MS
    return Outlook(trouble.reason, trouble.text, since_ns, until_ns)


def _about(item: Ticket | Query) -> str:
    return f"{item.name!r}" if item.name else "what was asked"
