"""The lead as one coordinator sees it: when it campaigns, and what came of that.

The lead keeps coordinators of one store from interfering with one another. It makes nothing safe: that is the matter
of the term, which is compared in the store with each write. A leader that was paused may take itself for the leader
for any length of time, and harms nothing by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lockring.core.coordinator.store_health import StoreHealth
from lockring.core.coordinator.store_operations import OPERATION_TIMEOUT_NS, SILENT
from lockring.core.election import Candidate, Election
from lockring.ids import OperationNumber, TermId
from lockring.units import ms_to_ns

LEAD_MS: Final = 3_000
"""How long a lead lasts that is not renewed. A new leader decides about a second after that, while nodes go on serving
for the coordinator lease."""
CAMPAIGNS_PER_LEAD: Final = 3
"""How often a coordinator campaigns within the time of a lead: two campaigns may fail before it is over."""


class Leadership:
    """The campaigns of one coordinator. Not safe for use by several tasks.

    Args:
        address: HOST:PORT at which nodes and clients reach it.
        new_term: returns a random name, another one at each call.
        lead_ms: how long a lead lasts that is not renewed, in milliseconds.
        now_ns: the monotonic clock, in nanoseconds.

    Attributes:
        lead_ms: the same.
        candidate: this coordinator, under the name of its present or next term.
        election: the newest that the store has said of the coordinators.
        has_led: whether a lead of this coordinator is over, and it was not said yet which one follows.
        health: the record of the campaigns that the store did not answer.
    """

    def __init__(self, address: str, new_term: Callable[[], TermId], *, lead_ms: int, now_ns: int) -> None:
        self._new_term = new_term
        self._due_ns = now_ns
        self._asked: tuple[OperationNumber, int] | None = None
        self.lead_ms = lead_ms
        self.candidate = Candidate(new_term(), address)
        self.election = Election(None)
        self.has_led = False
        self.health = StoreHealth()

    @property
    def problem(self) -> str:
        """A sentence on why the store says nothing of the coordinators, "" if it does."""
        trouble = self.health.trouble
        return "" if trouble is None else trouble.reason

    @property
    def is_leading(self) -> bool:
        """Whether this coordinator leads, as far as it knows."""
        return self.election.leader == self.candidate

    def is_due(self, now_ns: int) -> bool:
        """Return whether the next campaign is due."""
        return now_ns >= self.next_deadline_ns()

    def next_deadline_ns(self) -> int:
        """Return when the next campaign is due."""
        return self._due_ns if self._asked is None else self._asked[1] + OPERATION_TIMEOUT_NS

    def begin(self, operation: OperationNumber, now_ns: int) -> None:
        """Note that a campaign begins; one without an answer so far is given up."""
        if self._asked is not None:
            self.health.failed(SILENT, is_write=False, now_ns=now_ns)
        self._asked = operation, now_ns
        self._due_ns = now_ns + self._pause_ns()

    def take_result(
        self, operation: OperationNumber, election: Election | None, problem: str, now_ns: int
    ) -> bool:
        """Take the result of a campaign; return whether it was that of the present one."""
        if self._asked is None or self._asked[0] != operation:
            return False
        self._asked = None
        self._due_ns = max(self._due_ns, now_ns)
        if election is None:
            self.health.failed(problem, is_write=False, now_ns=now_ns)
        else:
            self.health.worked(is_write=False, now_ns=now_ns)
            self.election = election
        return True

    def renounce(self, now_ns: int) -> None:
        """Campaign under another name, after a pause: a term that has ended does not come back."""
        if self.is_leading:
            self.election = Election(None, self.election.standbys)
        self.candidate = Candidate(self._new_term(), self.candidate.address)
        self.has_led = True
        self._asked = None
        self._due_ns = now_ns + self._pause_ns()

    def _pause_ns(self) -> int:
        return ms_to_ns(self.lead_ms) // CAMPAIGNS_PER_LEAD
