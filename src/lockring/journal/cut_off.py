"""The end of a journal that a new life drops, as a write that was cut off.

Nothing in the directory says that such a write was answered for, so it does not count as damage. But nothing follows
the last writes of a life that could say so: a file that was damaged or shortened afterwards looks the same there.
"""

from __future__ import annotations

from lockring.journal.codec import HEADER_BYTES, SegmentHeader
from lockring.journal.reading import JournalContent


def words_of_cut_off(found: JournalContent) -> str:
    """Return what is dropped, as the beginning of a sentence for people; "" if there is nothing.

    Args:
        found: the content of a journal from which nothing is missing that was answered for.
    """
    gap = found.gap
    if gap is None or not found.used:
        return ""
    last = found.used[-1]
    assert isinstance(last.header, SegmentHeader), "a segment without a header is never used"
    if gap.segment != last.name:
        offset, end = 0, gap.size if gap.size > HEADER_BYTES else 0  # else it was only about to be made
    elif gap.kind == "zeros":
        offset, end = gap.offset, gap.offset if last.header.is_synced else gap.size  # the former is room
    else:
        offset, end = gap.offset, last.size
    if end <= offset:
        return ""
    return f"{end - offset} bytes behind batch {found.reached} ({gap.segment}, from byte {offset} on)"
