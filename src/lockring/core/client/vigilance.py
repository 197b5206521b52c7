"""How a client notices that a node at which something of it waits is gone, or was cut off without a word.

An answer that is late tells of it only where an answer is due. What may rightly stay open for long (an acquire behind other holders, a
watch) says nothing by its silence: so beside it something is asked that is answered at once.
"""

from __future__ import annotations

from typing import Final

from lockring.core.client.links import NodeLink
from lockring.core.client.queries import PingQuery
from lockring.core.client.routes import IDLE_NS, RouteTable
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.protocol import Unwatch
from lockring.units import NS_PER_S

CHECK_FIRST_NS: Final = NS_PER_S
CHECK_NS: Final = 5 * NS_PER_S
"""How often a client that waits at a node and hears nothing of it makes sure that it is there: the first time, and then."""


class Vigilance:
    """The part of the client core that looks after links on which it waits."""

    _routing: RouteTable
    _wake_ns: int

    def _wake(self, at_ns: int) -> None:
        if at_ns < self._wake_ns:
            self._wake_ns = at_ns

    def _look_after(self, link: NodeLink, now_ns: int) -> None:
        """See to it that an acquire which stays open does not wait for a node that is gone."""
        if now_ns - link.heard_at_ns >= IDLE_NS and not link.asked_at_ns:
            self._ping(link, now_ns)
        if link.check_at_ns == DISTANT_FUTURE_NS:
            link.check_at_ns = now_ns + CHECK_FIRST_NS
            self._wake(link.check_at_ns)

    def _ping(self, link: NodeLink, now_ns: int) -> None:
        """Ask for something that is answered at once: the cheapest question, since no request has the number 0."""
        number = self._routing.number(now_ns)
        self._wake(self._routing.ask(link, number, PingQuery(), Unwatch(number, 0), now_ns))

    def _check_links(self, now_ns: int) -> None:
        """Ask the nodes at which something waits, and of which nothing is heard, whether they are there."""
        for link in self._routing.links.values():
            if link.check_at_ns <= now_ns:
                if not link.acquires:
                    link.check_at_ns = DISTANT_FUTURE_NS
                    continue
                link.check_at_ns = now_ns + CHECK_NS
                if now_ns - link.heard_at_ns >= CHECK_FIRST_NS and not link.asked_at_ns:
                    self._ping(link, now_ns)
            self._wake(link.check_at_ns)
