"""The end of a client: its sessions are closed at the nodes, for a second at most, and then its links."""

from __future__ import annotations

from typing import Final

from lockring.core.client.agenda import Agenda
from lockring.core.client.links import ClosingSession, Links
from lockring.core.client.request_log import RequestLog
from lockring.core.client.routes import RouteTable
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.protocol import CloseSession
from lockring.units import NS_PER_S

CLOSE_NS: Final = NS_PER_S
"""How long a closing client waits for the nodes to confirm."""


class Shutdown:
    """Closes sessions and links.

    Attributes:
        is_begun: whether the client was closed.
    """

    def __init__(self, agenda: Agenda, log: RequestLog, links: Links, routes: RouteTable) -> None:
        self.is_begun = False
        self._until_ns = 0
        self._agenda = agenda
        self._log = log
        self._links = links
        self._routes = routes

    @property
    def is_over(self) -> bool:
        """Whether the client was closed and has no link left."""
        return self.is_begun and not self._links.by_id

    def begin(self, now_ns: int) -> None:
        """Close every session at every node that knows it, and let nothing renew them."""
        self.is_begun = True
        self._until_ns = now_ns + CLOSE_NS
        for node in self._routes.nodes.values():
            for session, share in node.shares.items():
                # A session on behalf of a program may hold its lock by another call: the end of the link ends the wait.
                is_own = session.on_behalf is None
                if is_own and node.link is not None and share.keepalive_at_ns != DISTANT_FUTURE_NS:
                    number = self._log.take_number(now_ns)
                    message = CloseSession(number, session.id)
                    self._links.ask(node.link, number, ClosingSession(session), message, now_ns)
                share.keepalive_at_ns = DISTANT_FUTURE_NS

    def close_links(self, now_ns: int) -> None:
        """Close each link whose session ends are confirmed, and all of them once the time is over."""
        for link in list(self._links.by_id.values()):
            is_confirmed = not any(isinstance(each, ClosingSession) for each in link.requests.values())
            if is_confirmed or now_ns >= self._until_ns:
                link.acquires.clear()
                self._links.drop(link, "the client was closed")
        if self._links.by_id:
            self._agenda.wake(self._until_ns)
        else:
            self._agenda.wake_at_ns = DISTANT_FUTURE_NS
