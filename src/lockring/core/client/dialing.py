"""When a client opens which link, and what it says if none can be opened.

Rules:

- A client opens links only when it has work for them. With no link at all it tries the servers that it was given and
  every member that it has heard of, one more each quarter of a second until one answers.
- While something stays unreachable the client goes on to widen its search, one link a second: the server that it has
  may be cut off from the news.
- A failed address is left alone for a time that doubles from 50 ms to 1 s, a little more or less for each client, so
  that they do not all come at once. There is no busy loop.
- Where another cluster answers, and none of the known addresses belongs to this one any more, this one is taken for
  gone. Such a meeting counts until a server of this cluster is heard again: a wrong address among the right ones must
  cost a client nothing, however long ago it was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from zlib import crc32

from lockring.core.client.agenda import Agenda
from lockring.core.client.links import GREETING_NS, READY, Links, NodeLink
from lockring.core.client.routes import RouteTable
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockringError, Unavailable, WrongCluster
from lockring.units import NS_PER_MS, NS_PER_S

STAGGER_NS: Final = NS_PER_S // 4
"""Pause before the next server is tried while none has answered."""
WIDEN_NS: Final = NS_PER_S
"""How long something may be unreachable before one more server is asked for news, and the pause between such."""
BACKOFF_NS_MIN: Final = 50 * NS_PER_MS
BACKOFF_NS_MAX: Final = NS_PER_S


class Failure:
    """Why an address could not be used, when, how often in a row, and when it may be tried again."""

    __slots__ = ("at_ns", "count", "error", "retry_at_ns")

    def __init__(self, error: LockringError, count: int, retry_at_ns: int, at_ns: int) -> None:
        self.error = error
        self.count = count
        self.retry_at_ns = retry_at_ns
        self.at_ns = at_ns


class DialPlan:
    """Which address is dialed next, and when.

    Attributes:
        seeds: the servers that the client was given.
        origin: where the seeds come from and what to do if none can be reached, for people, "" if not known.
        failures: the addresses that could not be used last time.
        stuck_since_ns: since when something has been wanted that no link leads to, 0 if nothing is.
    """

    def __init__(
        self, agenda: Agenda, links: Links, routes: RouteTable, *, seeds: Sequence[str], origin: str
    ) -> None:
        self.seeds = list(dict.fromkeys(seeds))
        self.origin = origin
        self.failures: dict[str, Failure] = {}
        self.stuck_since_ns = 0
        self._foreign_since_ns = 0
        self._heard_at_ns = 0
        self._next_try_ns = 0
        self._next_place = 0
        self._agenda = agenda
        self._links = links
        self._routes = routes

    # ------------------------------------------------------------------ what came of it

    def note_failure(self, link: NodeLink, error: LockringError, now_ns: int) -> None:
        """Leave the address of a lost link alone for a while."""
        if link.is_of_cluster:
            self._heard_at_ns = max(self._heard_at_ns, link.health.heard_at_ns)
        before = self.failures.get(link.address)
        count = before.count + 1 if before is not None else 1
        if link.state == READY and now_ns - link.health.since_ns >= BACKOFF_NS_MAX:
            count = 0  # it worked for a while: what broke it need not keep the next one from working
        pause_ns = 0 if count == 0 else min(BACKOFF_NS_MAX, BACKOFF_NS_MIN << min(count - 1, 10))
        if not isinstance(error, Unavailable):
            pause_ns = BACKOFF_NS_MAX
        self.failures[link.address] = Failure(error, count, now_ns + self._spread_ns(pause_ns), now_ns)
        if isinstance(error, WrongCluster) and self._links.cluster and not self.has_met_another():
            self._foreign_since_ns = now_ns

    def _spread_ns(self, pause_ns: int) -> int:
        """Return a pause, up to a quarter longer or shorter: the client's id, which is random, decides by how much."""
        seed = f"{self._links.client}/{self._links.opened}".encode()
        return pause_ns + pause_ns * (crc32(seed) % 501 - 250) // 1000

    def note_answer(self, address: str) -> None:
        """Note that a server which may be of this cluster has answered at an address."""
        failure = self.failures.get(address)
        if failure is not None and not isinstance(failure.error, Unavailable):
            failure.error = Unavailable("it has answered since")

    def forget_departed(self) -> None:
        """Forget the failures of addresses at which no server of the cluster can be any more."""
        nodes = (node.address for node in self._routes.nodes.values())
        known = {*self.seeds, self._routes.coordinator, *nodes}
        for address in [address for address in self.failures if address not in known]:
            del self.failures[address]

    def forget_cluster(self) -> None:
        """Start over with whatever cluster answers next."""
        self._foreign_since_ns = 0
        self.failures.clear()

    # ------------------------------------------------------------------ whom to dial

    def maintain(self, now_ns: int, *, waiting: bool) -> None:
        """Open the links that are needed.

        Args:
            now_ns: the time.
            waiting: whether anything waits for a route or a link.
        """
        missing = waiting
        for node in self._routes.nodes.values():
            node.wanted = node.wanted and waiting
            if node.link is None and (node.wanted or any(share.tickets for share in node.shares.values())):
                missing = True
                self._agenda.wake(self._open(node.address, now_ns))
        if not missing:
            self.stuck_since_ns = 0
            return
        if not self.stuck_since_ns:
            self.stuck_since_ns = now_ns
        has_ready = self._links.any_ready() is not None
        if has_ready and now_ns < self.stuck_since_ns + WIDEN_NS:
            self._agenda.wake(self.stuck_since_ns + WIDEN_NS)
        elif now_ns < self._next_try_ns:
            self._agenda.wake(self._next_try_ns)
        else:
            self._widen(now_ns, has_ready)

    def _widen(self, now_ns: int, has_ready: bool) -> None:
        """Open a link to the next address that may be tried."""
        addresses = self._known()
        look_at_ns = DISTANT_FUTURE_NS
        for step in range(len(addresses)):
            place = (self._next_place + step) % len(addresses)
            if addresses[place] in self._links.by_address:
                continue
            at_ns = self._open(addresses[place], now_ns)
            if addresses[place] in self._links.by_address:
                self._next_place = place + 1
                self._next_try_ns = look_at_ns = now_ns + (WIDEN_NS if has_ready else STAGGER_NS)
                break
            look_at_ns = min(look_at_ns, at_ns)
        self._agenda.wake(look_at_ns)

    def _open(self, address: str, now_ns: int) -> int:
        """Open a link unless there is one or the address failed lately; return when to look again, in ns."""
        if address in self._links.by_address:
            return DISTANT_FUTURE_NS
        failure = self.failures.get(address)
        if failure is not None and failure.retry_at_ns > now_ns:
            return failure.retry_at_ns
        self._links.open(address, now_ns)
        return now_ns + GREETING_NS

    def _known(self) -> list[str]:
        """Return where a server of the cluster may be: the seeds and all members, each once."""
        return list(dict.fromkeys([*self.seeds, *self._routes.member_addresses()]))

    # ------------------------------------------------------------------ verdicts

    def is_stuck(self, now_ns: int) -> bool:
        """Return whether something has been out of reach for a moment. The news of it may come on any link."""
        return self.stuck_since_ns != 0 and now_ns >= self.stuck_since_ns + WIDEN_NS

    def has_met_another(self) -> bool:
        """Return whether another cluster has answered, and no server of this one was heard since."""
        if not self._foreign_since_ns:
            return False
        heard_at_ns = self._heard_at_ns
        for link in self._links.by_id.values():
            if link.is_of_cluster:
                heard_at_ns = max(heard_at_ns, link.health.heard_at_ns)
        return self._foreign_since_ns >= heard_at_ns

    def is_replaced(self, *, has_any: bool) -> bool:
        """Return whether another cluster has taken the place of this one.

        Args:
            has_any: whether the client has anything in this one. If so, each known address must have failed since
                another cluster was met; else one meeting is enough.
        """
        if self._links.ready_count() or not self.has_met_another():
            return False
        if not has_any:
            return True
        return all(
            (failure := self.failures.get(address)) is not None and failure.at_ns >= self._foreign_since_ns
            for address in self._known()
        )

    def permanent_failure(self) -> LockringError | None:
        """Return the error to give up with if every server has refused for good, so that waiting changes nothing."""
        links = self._links
        if (links.was_ready and links.by_id) or self.has_met_another():
            return None  # where another cluster has taken this one's place, what is open goes on there
        addresses = self._known() if links.was_ready else self.seeds
        failures = [self.failures.get(address) for address in addresses]
        errors = [failure.error for failure in failures if failure is not None]
        if len(errors) < len(addresses) or any(isinstance(error, Unavailable) for error in errors):
            return None
        return errors[0] if len({str(error) for error in errors}) == 1 else self.unreachable()

    def unreachable(self, now_ns: int = 0) -> Unavailable:
        """Return the error that says that no server could be reached, why, and what to do."""
        tried = dict.fromkeys([*self.seeds, *self.failures])
        reasons = [
            f"{address}: {failure.error}"
            if (failure := self.failures.get(address))
            else f"{address}: no answer"
            for address in tried
        ]
        text = f"no lockring server could be reached ({'; '.join(reasons)})"
        alone_since_ns = self._links.alone_since_ns
        return Unavailable(
            f"{text}; {self.origin}" if self.origin else text,
            reason="unreachable",
            since_s=(now_ns - alone_since_ns) / NS_PER_S if now_ns and alone_since_ns else None,
        )
