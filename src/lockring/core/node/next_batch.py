"""The next batch of a journal, in the making.

Apart from `journal`, since each reign adds to it what its table does: on the path of every grant, without a call.
"""

from __future__ import annotations

from typing import Final

from lockring.core.journal import JournalEntry
from lockring.ids import NEEDS_SNAPSHOT, MutationIndex

AT_ONCE_NS: Final = 0
"""An answer waits for the batch."""

NOT_DUE_NS: Final = 1 << 61
"""Nothing is there to be written."""


class JournalStream:
    """One slot's stream to the journal of its primary.

    It notes in which batch its latest mutation is, rather than each batch which streams are in it: so there is nothing
    to do for a batch once it is durable.

    Attributes:
        batch: the journal's next one, which takes the slot's mutations as they happen.
        is_begun: whether its start is in a batch; if not, nothing is added, since that start will contain it.
        number: of the batch that has the latest mutation for which an answer may wait, or the start; 0 before that.
        index: of that mutation, -1 before the start.
        durable: an index up to which everything is durable, where `number` is not.
    """

    __slots__ = ("_earlier", "batch", "durable", "index", "is_begun", "number")

    def __init__(self, batch: NextBatch) -> None:
        self.batch = batch
        self.is_begun = False
        self.number = 0
        self.index: MutationIndex = NEEDS_SNAPSHOT
        self.durable: MutationIndex = NEEDS_SNAPSHOT
        self._earlier: list[tuple[int, MutationIndex]] = []

    @property
    def acked(self) -> MutationIndex:
        """Index up to which all is as durable as was asked for, -1 before the start of the stream is. It is that of a
        mutation for which an answer may wait: removals behind it are not counted."""
        until = self.batch.durable
        if self.number <= until:
            return self.index
        found = self.durable
        for number, index in self._earlier:
            if number > until:
                break
            found = index
        return found

    def reach(self, index: MutationIndex) -> None:
        """Note that the next batch takes the stream up to an index for which an answer may wait."""
        batch, earlier = self.batch, self._earlier
        if self.number <= batch.durable:
            self.durable = self.index
            if earlier:
                earlier.clear()
        elif self.number != batch.number:
            while earlier and earlier[0][0] <= batch.durable:
                self.durable = earlier.pop(0)[1]
            earlier.append((self.number, self.index))
        self.number = batch.number
        self.index = index

    def lost(self) -> None:
        """Go back to what is durable: the rest is lost, and the stream must start again."""
        self.index = self.acked
        self.number = 0
        self._earlier.clear()
        self.is_begun = False


class NextBatch:
    """The entries since the last batch was handed out, and how far the disk is.

    Attributes:
        number: of this batch, once it is handed out; batches are counted from 1.
        durable: number up to which all batches are as durable as was asked for.
        entries: in order.
        due_ns: when they must be handed out: `AT_ONCE_NS`, `NOT_DUE_NS`, or a time.
    """

    __slots__ = ("due_ns", "durable", "entries", "number")

    def __init__(self) -> None:
        self.number = 1
        self.durable = 0
        self.entries: list[JournalEntry] = []
        self.due_ns = NOT_DUE_NS

    def wait(self, until_ns: int) -> None:
        """Let it wait until then at most."""
        if until_ns < self.due_ns:
            self.due_ns = until_ns

    def clear(self) -> None:
        """Forget what was recorded."""
        self.entries.clear()
        self.due_ns = NOT_DUE_NS
