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

    Attributes:
        batch: the journal's next one, which takes the slot's mutations as they happen.
        is_begun: whether its start is in a batch; if not, nothing is added, since that start will contain it.
        acked: index up to which all is as durable as was asked for, -1 before the start of the stream is. It is that of
            a mutation for which an answer may wait: removals behind it are not counted.
    """

    __slots__ = ("acked", "batch", "is_begun")

    def __init__(self, batch: NextBatch) -> None:
        self.batch = batch
        self.is_begun = False
        self.acked = NEEDS_SNAPSHOT


Reached = tuple[JournalStream, MutationIndex]
"""How far a batch takes a stream. A list of them takes fewer instructions than a dictionary: a lone grant has one."""


class NextBatch:
    """The entries since the last batch was handed out.

    Attributes:
        entries: in order.
        reached: how far they take the streams of reigns for which an answer may wait; a later one says more.
        due_ns: when they must be handed out: `AT_ONCE_NS`, `NOT_DUE_NS`, or a time.
    """

    __slots__ = ("due_ns", "entries", "reached")

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.reached: list[Reached] = []
        self.due_ns = NOT_DUE_NS

    def wait(self, until_ns: int) -> None:
        """Let it wait until then at most."""
        if until_ns < self.due_ns:
            self.due_ns = until_ns

    def clear(self) -> None:
        """Forget what was recorded."""
        self.entries.clear()
        self.reached.clear()
        self.due_ns = NOT_DUE_NS
