"""The call that a ticket or a query is open for: its terms, its request at a server, and what delays the answer.

Both kinds of exchange name alike what they have in common, so that sending, parking and repeating need not tell them
apart. What most calls never need, a refusal or a delay, is a record that is made on demand.
"""

from __future__ import annotations

from typing import Any, Final

from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import NO_LINK, NO_REQUEST, LinkId, RequestNumber
from lockring.protocol import WAIT_FOREVER, Mode, QueueNotice

# A plain number: every acquire compares its mode, and a member of an enum takes longer.
EXCLUSIVE: Final = Mode.EXCLUSIVE.value


class LockTerms:
    """The terms on which a lock was asked for; they never change.

    Attributes:
        mode: how the lock is wanted.
        permits: of a semaphore, how many there are.
        wait_ms: how long the caller waits for other holders, `WAIT_FOREVER` for without end.
        payload: what others see of the holder.
        traceparent: the trace that the node continues, "" for none.
    """

    __slots__ = ("mode", "payload", "permits", "traceparent", "wait_ms")

    def __init__(
        self,
        mode: int = EXCLUSIVE,
        permits: int = 1,
        wait_ms: int = WAIT_FOREVER,
        payload: bytes = b"",
        traceparent: str = "",
    ) -> None:
        self.mode: Final = mode
        self.permits: Final = permits
        self.wait_ms: Final = wait_ms
        self.payload: Final = payload
        self.traceparent: Final = traceparent


PLAIN_TERMS: Final = LockTerms()
"""Those of nearly all tickets, which share this one."""


class Backoff:
    """The refusals of a request, and the pause that they cause.

    Attributes:
        refusal: the last refusal's code and text.
        attempts: refusals in a row.
        retry_at_ns: when to try again, 0 if no refusal pauses the request.
    """

    __slots__ = ("attempts", "refusal", "retry_at_ns")

    def __init__(self, refusal: tuple[str, str]) -> None:
        self.refusal = refusal
        self.attempts = 0
        self.retry_at_ns = 0


class GrantDelay:
    """The delay of a grant: it has not come, or came too late to begin.

    Attributes:
        queued: whether the node that serves the slot has reported other holders.
        overdue: whether the ticket's time is over, and only that node's last word is still awaited.
        late: whether a grant came too late to begin with, so that a keepalive asks about it.
        notice: the node's word on a long wait, None before it comes.
    """

    __slots__ = ("late", "notice", "overdue", "queued")

    def __init__(self) -> None:
        self.queued = False
        self.overdue = False
        self.late = False
        self.notice: QueueNotice | None = None


class TicketExchange:
    """The call on a ticket, and the requests by which it is acquired and later released, one at a time.

    Attributes:
        started_at_ns: when the caller asked.
        terms: what the caller asked for.
        give_up_at_ns: when the core stops trying: to acquire, or later to release.
        link: number of the link on which the request is open, 0 if none is open.
        request: number of that request, or of the last one, 0 before the first.
        first_request: number of the first Acquire on that link; the answer may name either.
        sent_at_ns: when the last Acquire was sent.
        unreleased: whether a release must still be sent or answered.
        mixed: the ticket's number in the digest that its node is asked to confirm, 0 while not folded in.
        delay: what the wait has met with, None while nothing is known.
        backoff: the refusals, None before the first.
        call: the shell's: the call that waits for the grant or the release. Its type is the shell's own.
    """

    __slots__ = (
        "backoff",
        "call",
        "delay",
        "first_request",
        "give_up_at_ns",
        "link",
        "mixed",
        "request",
        "sent_at_ns",
        "started_at_ns",
        "terms",
        "unreleased",
    )

    def __init__(self, started_at_ns: int) -> None:
        self.started_at_ns = started_at_ns
        self.terms: LockTerms = PLAIN_TERMS
        self.give_up_at_ns: int = DISTANT_FUTURE_NS
        self.link: LinkId = NO_LINK
        self.request: RequestNumber = NO_REQUEST
        self.first_request: RequestNumber = NO_REQUEST
        self.sent_at_ns = 0
        self.unreleased = False
        self.mixed = 0
        self.delay: GrantDelay | None = None
        self.backoff: Backoff | None = None
        self.call: Any = None

    def ensure_delay(self) -> GrantDelay:
        """Keep a record of what delays the grant from now on, and return it."""
        if self.delay is None:
            self.delay = GrantDelay()
        return self.delay


class QueryExchange:
    """The call of a query, and the requests by which it is asked, one at a time.

    Attributes:
        started_at_ns: when the caller asked.
        give_up_at_ns: when the core stops trying, `DISTANT_FUTURE_NS` for never.
        link: number of the link on which the request is open, 0 if none is open.
        request: number of that request, or of the last one, 0 before the first.
        sent: how often it was sent.
        backoff: the refusals, None before the first.
        call: the shell's: the call that waits for the answer, or reads the watch. Its type is the shell's own.
    """

    __slots__ = ("backoff", "call", "give_up_at_ns", "link", "request", "sent", "started_at_ns")

    def __init__(self, started_at_ns: int, give_up_at_ns: int) -> None:
        self.started_at_ns = started_at_ns
        self.give_up_at_ns = give_up_at_ns
        self.link: LinkId = NO_LINK
        self.request: RequestNumber = NO_REQUEST
        self.sent = 0
        self.backoff: Backoff | None = None
        self.call: Any = None


def reset_attempts(exchange: TicketExchange | QueryExchange) -> None:
    """Let the next refusal pause the request for the shortest time again."""
    if exchange.backoff is not None:
        exchange.backoff.attempts = 0
