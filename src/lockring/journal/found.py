"""The segments that former lives left in a journal, made durable before a life builds on them.

The system may have dropped bytes that can still be read: after a failed sync it takes them for written, and a later
sync says nothing of them, in another process either. So content that may never have been synced is written once more.
See "Can Applications Recover from fsync Failures?" (Rebello et al., USENIX ATC 2020).
"""

from __future__ import annotations

import contextlib
from collections.abc import Container
from typing import Final, NamedTuple

from lockring.journal.codec import SegmentHeader
from lockring.journal.files import Files
from lockring.journal.reading import JournalContent

_CHUNK_BYTES: Final = 1024 * 1024


class FoundSegment(NamedTuple):
    """A segment of former lives whose content counts.

    Attributes:
        name: of its file.
        size: of what counts, in bytes.
        is_doubtful: whether some of that may never have been synced.
    """

    name: str
    size: int
    is_doubtful: bool


def found_segments(reading: JournalContent, stored: int) -> list[FoundSegment]:
    """Return the segments that count.

    Args:
        reading: the content of the journal.
        stored: the last ordinal that the position file calls durable.
    """
    synced = _synced_ordinal(reading, stored)
    return [
        FoundSegment(each.name, each.size if each.gap is None else each.gap.offset, each.last > synced)
        for each in reading.used
    ]


def make_durable(found: list[FoundSegment], files: Files, names: Container[str]) -> None:
    """Make the content of the segments durable. Blocks.

    Args:
        found: the segments.
        files: the directory, which this process has locked.
        names: those of the segments that are still there.

    Raises:
        OSError: a segment cannot be read, written or synced.
    """
    for name, size, is_doubtful in found:
        if name not in names:
            continue
        with contextlib.closing(files.open(name)) as file:
            if is_doubtful:
                for offset in range(0, size, _CHUNK_BYTES):
                    file.write(file.read(min(_CHUNK_BYTES, size - offset), offset), offset)
            file.sync(size)


def _synced_ordinal(reading: JournalContent, stored: int) -> int:
    """Return the last record that is known to have been synced, 0 if that is unknown."""
    newest = reading.newest
    if newest is None or not all(
        isinstance(each.header, SegmentHeader) and each.header.is_synced for each in reading.used
    ):
        return 0
    return max(reading.answered, stored if newest.is_synced else 0)
