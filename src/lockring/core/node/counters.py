"""The counts of a node, for its metrics.

Rules:

- An event adds to one count: a grant where it is answered, an end where the holder goes. Everything else is calculated
  when the figures are asked for.
- Counts on the path of each request are in lists, at the place that a small number gives. Dictionaries by label are for
  what is rare.
- Names of locks are in none of them. Names that begin with one of a few configured prefixes are counted apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lockring.core.histograms import LONG, SHORT, Durations, Histogram
from lockring.errors import LockringError, Overloaded

MODES: Final = 3
"""How many modes there are; the number of a mode is its place in the lists here."""

RELEASED: Final = 0
EXPIRED: Final = 1
BROKEN: Final = 2
ENDINGS: Final = 3
"""How holds end: by their client, with its session, by an operator."""

OUTCOMES: Final = ("timeout", "cancelled", "refused")
"""How waits end without a grant."""

PREFIXES_MAX: Final = 20
"""Prefixes of names that are counted apart."""

TENTHS: Final = 10
"""The part of a lease that is left is counted in tenths."""


class LockCounters:
    """The counts of the locks under one prefix.

    Attributes:
        answers: by mode, the time from each grant until its answer leaves: for copies and the journal.
        waits: by mode, how long those grants waited that were not given at once.
        holds: by mode and ending (at mode * ENDINGS + ending), how long holders had the lock.
        failed_waits: by mode and outcome (at mode * len(OUTCOMES) + outcome), acquires without a grant.
        waiting: by mode, the acquires that wait now.
        answered: what each of `answers` has noted, for the path of each grant.
        ended: what each of `holds` has noted, for the path of each release.
    """

    __slots__ = ("answered", "answers", "ended", "failed_waits", "holds", "waiting", "waits")

    def __init__(self) -> None:
        self.answers = [Durations(SHORT) for _ in range(MODES)]
        self.waits = [Durations(LONG) for _ in range(MODES)]
        self.holds = [Durations(LONG) for _ in range(MODES * ENDINGS)]
        self.failed_waits = [Durations(LONG) for _ in range(MODES * len(OUTCOMES))]
        self.waiting = [0] * MODES
        self.answered = [each.noted for each in self.answers]
        self.ended = [each.noted for each in self.holds]


class HandledRequests:
    """How many requests of one kind were carried out.

    Attributes:
        kind: of the requests.
        count: see above.
    """

    __slots__ = ("count", "kind")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.count = 0


class NodeCounters:
    """The counts of one life of a node. Not thread-safe.

    Attributes:
        all: of the locks under no prefix that is counted apart.
        by_prefix: of the others, by prefix; None if no prefix is.
        handled: requests that were carried out, by their kind.
        refused: refusals by the kind of request and the code of the error.
        refused_inside: of a kind, those among the refused that `handled` has.
        throttled: requests beyond a limit of their identity, by limit.
        renewals: by verdict: all is agreed, compared slot by slot, compared one by one, without the right to renew.
        lease_left: the tenths of a lease that were left at each renewal.
        breaks: leases that operators have broken: without force, with force.
        replication: the time from the sending of mutations to a copy until its acknowledgement.
    """

    __slots__ = (
        "all",
        "breaks",
        "by_prefix",
        "handled",
        "lease_left",
        "refused",
        "refused_inside",
        "renewals",
        "replication",
        "throttled",
    )

    def __init__(self) -> None:
        self.all = LockCounters()
        self.by_prefix: dict[str, LockCounters] | None = None
        self.handled: list[HandledRequests] = []
        self.refused: dict[tuple[str, str], int] = {}
        self.refused_inside: dict[str, int] = {}
        self.throttled: dict[str, int] = {}
        self.renewals = [0, 0, 0, 0]
        self.lease_left = Histogram(tuple(range(1, TENTHS + 1)))
        self.breaks = [0, 0]
        self.replication = Durations(SHORT)

    def count_apart(self, prefixes: Sequence[str]) -> None:
        """Count the locks under each of these prefixes apart, `PREFIXES_MAX` at most. Call it before any input."""
        assert len(prefixes) <= PREFIXES_MAX
        # The longest first, which is the one that counts where several fit.
        ordered = sorted(dict.fromkeys(prefixes), key=len, reverse=True)
        self.by_prefix = {prefix: LockCounters() for prefix in ordered} or None

    def of(self, name: str) -> LockCounters:
        """Return the counts of the locks among which this one is."""
        if self.by_prefix is not None:
            for prefix, counters in self.by_prefix.items():
                if name.startswith(prefix):
                    return counters
        return self.all

    def refuse(self, kind: str, code: str, *, is_handled: bool = False) -> None:
        """Count a refusal.

        Args:
            kind: of the request.
            code: of the error.
            is_handled: whether `handled` has the request, or is about to.
        """
        self.refused[kind, code] = self.refused.get((kind, code), 0) + 1
        if is_handled:
            self.refused_inside[kind] = self.refused_inside.get(kind, 0) + 1

    def refuse_by(self, kind: str, error: LockringError) -> None:
        """Count a refusal by its error, with the limit that was reached if it was one of the identity's."""
        self.refuse(kind, error.code)
        if isinstance(error, Overloaded) and error.limit:
            self.throttled[error.limit] = self.throttled.get(error.limit, 0) + 1
