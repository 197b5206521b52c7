"""One slot at one node: what its table holds, and how a copy's table follows its primary's.

A table's content is named by (reign, index): two tables with the same name are equal. A copy *follows* a
stream (since, joined) once a snapshot or `Resume` put it on a place in it. What it held before stays until
then, since a copy may be promoted at any moment with what it has.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.core.journal import OWN_TENURE
from lockring.core.node.lock_table import LockTable
from lockring.core.node.locks import LockWaiter
from lockring.core.node.reign import Reign, snapshot_of
from lockring.core.node.sessions import Sessions
from lockring.core.timing import DISTANT_PAST_NS
from lockring.ids import (
    NEEDS_SNAPSHOT,
    NO_GENERATION,
    NO_INDEX,
    Generation,
    MutationIndex,
    SlotNumber,
    Version,
)
from lockring.protocol import HandOverSlot, Resume, Snapshot, StreamPart, Tail

NO_BASE: Final = Version(-1)


class EndedReign(NamedTuple):
    """A reign that is over, and what its end leaves unanswered.

    Attributes:
        number: of the slot.
        reign: with the grants that were not answered yet.
        waiters: taken out of the table, in queue order.
    """

    number: SlotNumber
    reign: Reign
    waiters: list[LockWaiter]


class NodeSlot:
    """One slot at one node.

    Attributes:
        number: the slot.
        table: its locks here.
        base: version at which the slot was assigned empty, that this table grew from; `NO_BASE` if it holds nothing.
        content: (since, index) that names the table's content, None where it holds nothing.
        origin: the tenure in which this node got to that content, `OWN_TENURE` where it was itself the primary.
        following: (since, joined) of the stream that the table follows, None for none.
        reign: this node's own, while it is the active primary.
        not_before_ns: this node must not become active earlier.
        parts: of a snapshot that is coming in; the last one is still missing.
    """

    __slots__ = (
        "base",
        "content",
        "following",
        "not_before_ns",
        "number",
        "origin",
        "parts",
        "reign",
        "table",
    )

    def __init__(self, number: SlotNumber, sessions: Sessions) -> None:
        self.number = number
        self.table = LockTable(number, sessions)
        self.base = NO_BASE
        self.content: tuple[Version, MutationIndex] | None = None
        self.following: tuple[Version, Version] | None = None
        self.reign: Reign | None = None
        self.not_before_ns = DISTANT_PAST_NS
        self.origin = OWN_TENURE
        self.parts: list[Snapshot] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing of this slot is here, not even a part of it."""
        return self.content is None and not self.parts and self.reign is None

    def clear(self, base: Version = NO_BASE) -> None:
        """Hold nothing, as of `base`."""
        assert self.reign is None
        self.table.clear()
        self.base = base
        self.content = None
        self.following = None
        self.parts = []

    # ------------------------------------------------------------------ as a copy

    def takes(self, stream: StreamPart, base: Version) -> bool:
        """Return whether `apply` would take anything from a primary's news."""
        tenure = (stream.since, stream.joined)
        if isinstance(stream, Snapshot):
            if self.following == tenure and self._index() >= stream.index:
                return False
            return stream.part == 0 or self._continues(stream)
        if isinstance(stream, Resume):
            return self.following != tenure and self._ended_at(stream, base)
        if self.following != tenure:
            return False
        return stream.after <= self._index() < stream.after + len(stream.mutations)

    def apply(self, stream: StreamPart, base: Version, now_ns: int) -> MutationIndex | None:
        """Take in a primary's news; the caller has checked that the state names this tenure.

        Args:
            stream: what came.
            base: the slot's base by the state.
            now_ns: the time.

        Returns:
            The index that the table is at now; -1 if it needs a snapshot; None if there is nothing to say yet.
        """
        tenure = (stream.since, stream.joined)
        if isinstance(stream, Tail):  # nearly all are
            if self.following != tenure:
                return NEEDS_SNAPSHOT
            return self._apply_tail(stream, now_ns)
        if isinstance(stream, Snapshot):
            return self._apply_snapshot(stream, tenure, now_ns)
        if self.following != tenure:
            if not self._ended_at(stream, base):
                return NEEDS_SNAPSHOT
            self._follow(tenure, NO_INDEX)
        return self._index()

    def take_over_from(self, end: HandOverSlot, now_ns: int) -> bool:
        """Take in the end of the reign that this table was following; False if it does not fit."""
        if self.reign is not None or self.following != (end.since, end.joined) or self._index() < end.after:
            return False
        index = self._index()
        self.table.apply_all(end.mutations[index - end.after :], now_ns)
        self.table.highest = max(self.table.highest, end.highest)
        self.content = (end.since, max(index, end.index))
        self.not_before_ns = DISTANT_PAST_NS
        return True

    def _apply_snapshot(
        self, part: Snapshot, tenure: tuple[Version, Version], now_ns: int
    ) -> MutationIndex | None:
        if self.following == tenure and self._index() >= part.index:
            return self._index()
        if part.part == 0:
            self.parts = []
        elif not self._continues(part):
            return NEEDS_SNAPSHOT
        self.parts.append(part)
        if not part.last:
            return None
        highest = max(part.highest, self.table.highest if self.base == part.base else NO_GENERATION)
        parts = self.parts
        self.clear(part.base)
        self.table.highest = highest
        for each in parts:
            self.table.apply_all(each.holders, now_ns)
        self._follow(tenure, part.index)
        return part.index

    def _continues(self, part: Snapshot) -> bool:
        """Return whether a part of a snapshot, not the first, is the next one of the snapshot that is coming in."""
        if part.part != len(self.parts):
            return False
        first = self.parts[0]
        return (part.since, part.joined, part.index) == (first.since, first.joined, first.index)

    def _ended_at(self, stream: Resume, base: Version) -> bool:
        return self.content == (stream.ended_since, stream.ended_index) and self.base == base

    def _apply_tail(self, tail: Tail, now_ns: int) -> MutationIndex:
        content = self.content
        assert content is not None
        index, after, mutations, table = content[1], tail.after, tail.mutations, self.table
        reached: MutationIndex = after + len(mutations)  # type: ignore[assignment]  # born here
        if after > index:
            # The stream was started again, and its start did not come through. To name the present place would take
            # back what was said of that start, where one answer stands for several messages.
            return NEEDS_SNAPSHOT
        if after < index:
            mutations = mutations[index - after :]
        table.apply_all(mutations, now_ns)
        if tail.highest > table.highest:
            table.highest = tail.highest
        if reached <= index:
            return index
        self.content = (tail.since, reached)
        return reached

    def _follow(self, tenure: tuple[Version, Version], index: MutationIndex) -> None:
        self.following = tenure
        self.parts = []
        self.origin = tenure[1]
        self.content = (tenure[0], index)

    def _index(self) -> MutationIndex:
        assert self.content is not None
        return self.content[1]

    # ------------------------------------------------------------------ as the primary

    def begin_reign(self, since: Version, base: Version, generation_from: Generation, now_ns: int) -> Reign:
        """Become active: from now on sessions here count what the table holds."""
        self.reign = Reign(self.table, since, base, now_ns, self.content)
        self.following = None
        self.parts = []
        self.table.start_serving(generation_from)
        return self.reign

    def end_reign(self) -> EndedReign:
        """Stop being active. The table stays, without its waiters, which are open requests to this primary."""
        assert self.reign is not None
        waiters = self.table.stop_serving()
        reign, self.reign = self.reign, None
        self.content = (reign.since, reign.index)
        self.origin = OWN_TENURE
        return EndedReign(self.number, reign, waiters)

    # ------------------------------------------------------------------ for the journal

    def snapshot(self, now_ns: int) -> list[Snapshot]:
        """Return all of the slot's content, and then the parts of another that is coming in."""
        reign = self.reign
        if reign is not None:
            return snapshot_of(
                self.table, (reign.since, OWN_TENURE), base=reign.base, index=reign.index, now_ns=now_ns
            )
        if self.content is None:
            return list(self.parts)
        since, index = self.content
        found = snapshot_of(self.table, (since, self.origin), base=self.base, index=index, now_ns=now_ns)
        return found + self.parts

    def check_invariants(self) -> None:
        """Assert that the parts fit."""
        table, reign, following = self.table, self.reign, self.following
        if table.locks or table.shares:
            table.check_invariants()
        assert table.served == (reign is not None)
        if following is not None:
            assert self.content is not None
            assert following[0] == self.content[0]
            assert reign is None
        if reign is not None:
            reign.check_invariants()
