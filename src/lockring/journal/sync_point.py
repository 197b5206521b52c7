"""The extent of one sync: what a journal's shell must make durable, and may then delete."""

from __future__ import annotations

from typing import NamedTuple

from lockring.journal.files import OpenFile


class SyncPoint(NamedTuple):
    """Everything that was appended up to a moment.

    Attributes:
        number: of the last batch, 0 if this life has appended none.
        ordinal: of its record.
        era: how many failures came before.
        parts: the files to sync, each with the length up to which that is needed.
        has_new_names: whether the directory must be synced too.
        obsolete: the files to delete afterwards.
    """

    number: int
    ordinal: int
    era: int
    parts: list[tuple[OpenFile, int]]
    has_new_names: bool
    obsolete: tuple[str, ...]
