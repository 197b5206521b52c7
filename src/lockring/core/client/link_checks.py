"""How a client notices that a node at which it waits is gone, or was cut off silently.

A late answer shows it only where an answer is due. A request that may rightly stay open for long (an acquire behind
other holders, a watch) shows nothing by its silence. So beside it the client asks something that is answered at once.

A link on which nothing waits may be dead for as long as it likes, unless something waits for a route, or for a link
to another server: the news of it, or that this cluster is gone, may come on any link. Where another cluster has
answered in the meantime, all links are asked often: it takes this one's place only once none of them is left.

News for many clients is heard by all of them at one time. So each client takes its own time to ask, by its id, which
is random: they would all ask together else, again and again.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from lockring.core.client.agenda import Agenda
from lockring.core.client.links import IDLE_NS, READY, Links, NodeLink, PingQuery
from lockring.core.client.request_log import RequestLog
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import NO_REQUEST
from lockring.protocol import GetStatus, Message, Probe, Unwatch
from lockring.units import NS_PER_MS, NS_PER_S

CHECK_FIRST_NS: Final = NS_PER_S
"""How long a node at which a client waits may be silent until the client makes sure that it is there, at least."""
CHECK_FIRST_NS_MAX: Final = CHECK_FIRST_NS + 250 * NS_PER_MS
CHECK_NS: Final = 5 * NS_PER_S
"""How long a client leaves a server alone after such a question, at most. A connection that dies right after an answer
is noticed only then. Asked more often, servers would have to answer each second all that wait for a slot's primary."""
CHECK_NS_MIN: Final = CHECK_NS - NS_PER_S


class LinkChecks:
    """The checks of links on which something waits."""

    def __init__(self, agenda: Agenda, log: RequestLog, links: Links) -> None:
        self._agenda = agenda
        self._log = log
        self._links = links

    def watch_over(self, link: NodeLink, now_ns: int) -> None:
        """Check a link from now on, as long as a request that may stay open for long is open on it."""
        if now_ns - link.health.heard_at_ns >= IDLE_NS and not link.health.asked_at_ns:
            self._ping(link, now_ns)
        if link.health.check_at_ns == DISTANT_FUTURE_NS:
            link.health.check_at_ns = now_ns + CHECK_FIRST_NS
            self._agenda.wake(link.health.check_at_ns)

    def on_timer(self, now_ns: int, *, everywhere: bool, often: bool) -> None:
        """Probe the servers at which something waits, and which have been silent.

        Args:
            now_ns: the time.
            everywhere: whether to check all links that are ready, even those on which nothing waits.
            often: whether to check these whenever they have been silent for a moment.
        """
        for link in self._links.by_id.values():
            if everywhere and link.state == READY:
                self._include(link, now_ns, often=often)
            if link.health.check_at_ns <= now_ns:
                if not link.acquires and not everywhere:
                    link.health.check_at_ns = DISTANT_FUTURE_NS
                    continue
                link.health.check_at_ns = self._look(link, now_ns)
            self._agenda.wake(link.health.check_at_ns)

    def _look(self, link: NodeLink, now_ns: int) -> int:
        """Ask whether the server is there, if the link has been silent; return when to look again, in ns."""
        silent_at_ns = self._silent_at_ns(link)
        if now_ns < silent_at_ns:
            return silent_at_ns  # nothing was asked, so nothing keeps the question off for long
        if not link.health.asked_at_ns:
            self._ping(link, now_ns)
        return now_ns + CHECK_NS - self._share_of(CHECK_NS - CHECK_NS_MIN, link)

    def _silent_at_ns(self, link: NodeLink) -> int:
        """Return when a link will have been silent for so long that this client asks on it."""
        return (
            link.health.heard_at_ns
            + CHECK_FIRST_NS
            + self._share_of(CHECK_FIRST_NS_MAX - CHECK_FIRST_NS, link)
        )

    def _share_of(self, span_ns: int, link: NodeLink) -> int:
        """Return a part of a span that is another one for each client and link."""
        return crc32(f"{self._links.client}/{link.id}".encode()) % span_ns

    def _include(self, link: NodeLink, now_ns: int, *, often: bool) -> None:
        """Have a link checked though nothing may wait on it."""
        if often:
            link.health.check_at_ns = min(link.health.check_at_ns, max(now_ns, self._silent_at_ns(link)))
            self._agenda.wake(now_ns + CHECK_FIRST_NS)  # what is heard until then puts the check off again
        elif link.health.check_at_ns == DISTANT_FUTURE_NS:
            # Clients that lost the same node are stuck together.
            link.health.check_at_ns = now_ns + self._share_of(CHECK_FIRST_NS_MAX - CHECK_FIRST_NS, link)

    def _ping(self, link: NodeLink, now_ns: int) -> None:
        # The cheapest question that every node answers: the end of a watch that does not exist, since no request has
        # the number 0. A coordinator takes no watches, and one of an earlier version no probes.
        number = self._log.take_number(now_ns)
        message: Message = Unwatch(number, NO_REQUEST)
        if link.is_to_coordinator:
            message = Probe(number) if link.terms.probes else GetStatus(number)
        self._links.ask(link, number, PingQuery(), message, now_ns)
