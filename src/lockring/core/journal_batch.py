"""The batch in which entries of a journal are written.

Apart from `core.journal`, whose structs are not compiled: a batch is made and read on the path of every grant that is
written, where a compiled class takes fewer instructions than a struct. Interpreted, it takes one more call.
"""

from __future__ import annotations

from lockring.core.journal import JournalEntry


class JournalBatch:
    """Entries to be written together.

    Attributes:
        number: counts the batches of a life from 1.
        entries: in their order.
        is_urgent: whether something waits until they are written; others may be synced with the next ones.
        ends_rewrite: whether everything that the node holds was written again, in this batch and the ones before it,
            since the last `rewrite`: whatever stands before that is no longer needed.
    """

    __slots__ = ("ends_rewrite", "entries", "is_urgent", "number")

    def __init__(self, number: int, entries: list[JournalEntry], is_urgent: bool, ends_rewrite: bool) -> None:
        self.number = number
        self.entries = entries
        self.is_urgent = is_urgent
        self.ends_rewrite = ends_rewrite
