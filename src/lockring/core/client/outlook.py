"""What a call of a client waits for: why it has no answer yet, since when, and for how long yet at the most.

"Held" is said only on the word of a node that serves the slot. All else is an outage, whatever the lock's state may be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from lockring.core.client.links import READY, Node, NodeLink
from lockring.core.client.queries import ANYWHERE, Query, where
from lockring.core.client.tickets import Ticket
from lockring.errors import AcquireTimeout, LockringError, Unavailable, from_code
from lockring.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from lockring.core.client.routes import RouteTable

HELD: Final = "held"
"""The reason of an acquire that waits for other holders; all other reasons are those of `errors.Unavailable`."""


class Outlook(NamedTuple):
    """What a call waits for.

    Attributes:
        reason: `HELD`, or as in `errors.Unavailable`.
        text: the same for people.
        since_ns: since when it is so.
        until_ns: when that will be over at the latest, None if it is not known.
    """

    reason: str
    text: str
    since_ns: int
    until_ns: int | None = None


class Wait(NamedTuple):
    """A call of a client that waits, and for what.

    Attributes:
        name: the lock, or what else the call is about; "" for a question about the cluster.
        reason: "held" if others hold the lock (or wait before this call); else why it cannot be told whether they do, as in
            `Unavailable.reason`.
        text: the same for people.
        since_s: for how long that has been so, in seconds.
        left_s: how long it may go on yet, in seconds, None if that is not known.
    """

    name: str
    reason: str
    text: str
    since_s: float
    left_s: float | None


def wait_of(routing: RouteTable, item: Ticket | Query, now_ns: int) -> Wait:
    """What a call waits for, for who looks."""
    found = outlook_of(routing, item, now_ns)
    left_s = None if found.until_ns is None else max(0, found.until_ns - now_ns) / NS_PER_S
    return Wait(item.name, found.reason, found.text, max(0, now_ns - found.since_ns) / NS_PER_S, left_s)


def too_late(routing: RouteTable, item: Ticket | Query, now_ns: int) -> LockringError:
    """Why a call was not answered in its time."""
    name = item.name
    if item.refusal is not None and item.refusal[0] == "overloaded":
        return from_code(*item.refusal, name=name)
    found = outlook_of(routing, item, now_ns)
    if found.reason == HELD:
        assert isinstance(item, Ticket)
        waited_s = (item.wait_until_ns - item.started_at_ns) / NS_PER_S
        return AcquireTimeout(f"{name!r} was not granted within {waited_s:g} s: {found.text}", name=name)
    if found.reason == "unreachable" and routing.any_ready() is None:
        error = routing.unreachable(now_ns)
        error.name = name
        return error
    since_s = max(0, now_ns - found.since_ns) / NS_PER_S
    text = f"{found.text} (for {since_s:.1f} s)"
    if found.until_ns is not None:
        text += f"; {max(0, found.until_ns - now_ns) / NS_PER_S:.1f} s more at the most"
    return Unavailable(text, name=name, reason=found.reason, since_s=since_s)


def outlook_of(routing: RouteTable, item: Ticket | Query, now_ns: int) -> Outlook:
    """What a call waits for."""
    link = routing.links.get(item.link)
    if link is not None:
        return _of_open(link, item)
    target = where(item, routing) if isinstance(item, Query) else routing.table[item.slot]
    ready = routing.any_ready()
    if ready is None:
        since_ns = routing.alone_since_ns or item.started_at_ns
        return Outlook("unreachable", str(routing.unreachable()), since_ns)
    if isinstance(target, Node):
        if target.link is None:
            failure = routing.failures.get(target.address)
            why = f": {failure.error}" if failure is not None else ""
            text = f"node {target.replica.node} at {target.address}, which serves {_about(item)}, cannot be reached{why}"
            return Outlook("unreachable", text, max(item.started_at_ns, routing.stuck_since_ns))
        return _of_refusal(target.link, item)
    if target is not None:
        return _of_refusal(target, item)
    for each in routing.links.values():
        if each.state == READY and each.trouble is not None and not each.trouble.all:
            return _of_trouble(each)
    slot = f"slot {item.slot}" if item.slot != ANYWHERE else "any slot"
    text = f"no node serves {slot} at present" + (
        f", which has {item.name!r}" if item.slot != ANYWHERE else ""
    )
    return Outlook("no-primary", text, routing.unserved_since_ns or item.started_at_ns)


def _of_open(link: NodeLink, item: Ticket | Query) -> Outlook:
    """Of what was sent and has no answer."""
    if link.trouble is not None and link.trouble.all:
        return _of_trouble(link)
    if isinstance(item, Ticket):
        sent_at_ns = item.sent_at_ns
        if item.queued:
            return Outlook(HELD, f"the lock {item.name!r} is held by others", item.started_at_ns)
    else:
        sent_at_ns = link.asked_at_ns or item.started_at_ns
    if link.heard_at_ns <= sent_at_ns:
        return Outlook("silent", f"{link.address} did not answer in time", sent_at_ns)
    return Outlook("failover", f"{link.address} has not answered about {_about(item)} yet", sent_at_ns)


def _of_refusal(link: NodeLink, item: Ticket | Query) -> Outlook:
    """Of what was refused and is to be tried again."""
    if link.trouble is not None and link.trouble.all:
        return _of_trouble(link)
    text = (
        item.refusal[1]
        if item.refusal is not None
        else f"{link.address} has not been asked about {_about(item)} yet"
    )
    return Outlook("failover", text, item.started_at_ns)


def _of_trouble(link: NodeLink) -> Outlook:
    trouble = link.trouble
    assert trouble is not None
    since_ns = link.trouble_at_ns - trouble.since_ms * NS_PER_MS
    until_ns = None if trouble.left_ms < 0 else link.trouble_at_ns + trouble.left_ms * NS_PER_MS
    return Outlook(trouble.reason, trouble.text, since_ns, until_ns)


def _about(item: Ticket | Query) -> str:
    return f"{item.name!r}" if item.name else "what was asked"
