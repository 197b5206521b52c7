"""The limits of a role, and the counters of one identity at one server that are checked against them.

A server counts by itself: an identity may have its limit of locks at each node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from lockring.errors import Overloaded
from lockring.units import NS_PER_S

BURST_NS: Final = NS_PER_S
"""How far requests may run ahead of their rate: as many as one second brings."""


class Limits(NamedTuple):
    """The limits of a role at each server; None for no limit.

    Attributes:
        sessions: the number of sessions.
        locks: the number of locks held.
        waiters: the number of requests that wait for locks.
        requests_per_s: the number of requests per second; a burst may bring one second's worth at once.
    """

    sessions: int | None = None
    locks: int | None = None
    waiters: int | None = None
    requests_per_s: int | None = None


NO_LIMITS: Final = Limits()


def smallest(limits: Iterable[Limits]) -> Limits:
    """Return the limits of an identity that has several roles: of each kind the smallest."""
    found = list(limits)

    def least(values: Iterable[int | None]) -> int | None:
        return min((each for each in values if each is not None), default=None)

    return Limits(
        sessions=least(each.sessions for each in found),
        locks=least(each.locks for each in found),
        waiters=least(each.waiters for each in found),
        requests_per_s=least(each.requests_per_s for each in found),
    )


class Quota:
    """The use that one identity makes of one server, counted. Not thread-safe.

    Args:
        who: the identity, for the texts of errors.
        limits: its limits.

    Attributes:
        limits: see above. They may be replaced at any time; what is in use stays.
        sessions: how many it has.
        acquisitions: how many locks it holds or waits for; its sessions count them.
        waiters: how many of its requests wait; counted where they begin and end.
    """

    __slots__ = ("__weakref__", "_due_ns", "acquisitions", "limits", "sessions", "waiters", "who")

    def __init__(self, who: str, limits: Limits = NO_LIMITS) -> None:
        self.who = who
        self.limits = limits
        self.sessions = 0
        self.acquisitions = 0
        self.waiters = 0
        self._due_ns = 0

    def take_request(self, now_ns: int) -> int:
        """Count one request.

        Args:
            now_ns: the monotonic clock, in nanoseconds.

        Returns:
            0 if it is within the rate. Otherwise it was not counted, and this is how long to wait, in nanoseconds.
        """
        rate = self.limits.requests_per_s
        if rate is None:
            return 0
        # The generic cell rate algorithm: `_due_ns` is when the requests so far were due if they had come evenly.
        due_ns = self._due_ns if self._due_ns > now_ns else now_ns
        ahead_ns = due_ns + NS_PER_S // rate - now_ns
        if ahead_ns > BURST_NS:
            return ahead_ns - BURST_NS
        self._due_ns = now_ns + ahead_ns
        return 0

    def check_request(self, now_ns: int) -> None:
        """Count one request; see `take_request`.

        Raises:
            Overloaded: it is beyond the rate; `retry_after_s` says when to come again.
        """
        wait_ns = self.take_request(now_ns)
        if wait_ns:
            wait_s = wait_ns / NS_PER_S
            raise Overloaded(
                f"{self.who} may send {self.limits.requests_per_s} requests per second to this server; come again in"
                f" {wait_s:.3f} s",
                retry_after_s=wait_s,
                limit="requests_per_s",
            )

    def add_session(self) -> None:
        """Count one more session, which `drop_session` uncounts.

        Raises:
            Overloaded: it has as many as it may have.
        """
        self._check(self.sessions, self.limits.sessions, "sessions", "sessions")
        self.sessions += 1

    def drop_session(self) -> None:
        """Uncount a session."""
        assert self.sessions > 0
        self.sessions -= 1

    def check_lock(self) -> None:
        """Check that one more lock may be granted.

        Raises:
            Overloaded: it holds as many as it may hold.
        """
        self._check(self.acquisitions - self.waiters, self.limits.locks, "locks", "locks")

    def check_waiter(self) -> None:
        """Check that one more request may wait.

        Raises:
            Overloaded: as many wait as may.
        """
        self._check(self.waiters, self.limits.waiters, "waiters", "waiting requests")

    def _check(self, used: int, limit: int | None, name: str, what: str) -> None:
        if limit is not None and used >= limit:
            raise Overloaded(
                f"{self.who} has {used} {what} at this server, and may have {limit}; end some first",
                limit=name,
            )
