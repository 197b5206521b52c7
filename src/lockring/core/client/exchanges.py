"""The request that a ticket or a query has open with a server, and the pause before it is repeated.

Both kinds of exchange name alike what they have in common, so that sending, parking and repeating need not tell them
apart.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockring.core.timing import DISTANT_FUTURE_NS


class Backoff(msgspec.Struct, eq=False):
    """The refusals of a request, and the pause that they cause.

    Most requests are never refused, so it is made with the first refusal.

    Attributes:
        refusal: the last refusal's code and text.
        attempts: refusals in a row.
        retry_at_ns: when to try again, 0 if no refusal pauses the request.
    """

    refusal: tuple[str, str]
    attempts: int = 0
    retry_at_ns: int = 0


class TicketExchange(msgspec.Struct, eq=False):
    """The requests by which a ticket is acquired and later released, one at a time.

    Attributes:
        link: number of the link on which the request is open, 0 if none is open.
        request: number of that request, or of the last one, 0 before the first.
        first_request: number of the first Acquire on that link; the answer may name either.
        sent_at_ns: when the last Acquire was sent.
        give_up_at_ns: when the core stops trying: to acquire, or later to release.
        queued: whether the node that serves the slot has reported other holders.
        overdue: whether its time is over, and only that node's last word is still awaited.
        late: whether a grant came too late to begin with, so that a keepalive asks about it.
        unreleased: whether a release must still be sent or answered.
        backoff: the refusals, None before the first.
        call: the shell's: the call that waits for the grant or the release. Its type is the shell's own.
    """

    link: int = 0
    request: int = 0
    first_request: int = 0
    sent_at_ns: int = 0
    give_up_at_ns: int = DISTANT_FUTURE_NS
    queued: bool = False
    overdue: bool = False
    late: bool = False
    unreleased: bool = False
    backoff: Backoff | None = None
    call: Any = None


class QueryExchange(msgspec.Struct, eq=False):
    """The requests by which a query is asked, one at a time.

    Attributes:
        link: number of the link on which the request is open, 0 if none is open.
        request: number of that request, or of the last one, 0 before the first.
        sent: how often it was sent.
        give_up_at_ns: when the core stops trying, `DISTANT_FUTURE_NS` for never.
        backoff: the refusals, None before the first.
        call: the shell's: the call that waits for the answer, or reads the watch. Its type is the shell's own.
    """

    link: int = 0
    request: int = 0
    sent: int = 0
    give_up_at_ns: int = DISTANT_FUTURE_NS
    backoff: Backoff | None = None
    call: Any = None


Exchange = TicketExchange | QueryExchange


def reset_attempts(exchange: Exchange) -> None:
    """Let the next refusal pause the request for the shortest time again."""
    if exchange.backoff is not None:
        exchange.backoff.attempts = 0
