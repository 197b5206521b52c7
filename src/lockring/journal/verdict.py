"""Whether a new life may vouch for a journal that it found: nothing can be missing that a former life answered for."""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.journal.codec import DurablePosition, FileIdentity, SegmentHeader
from lockring.journal.host import Host
from lockring.journal.reading import Gap, JournalContent
from lockring.units import NS_PER_S

ALTERED_NS_MAX: Final = NS_PER_S
"""How far the times of a file's last write and of its last change may differ, where nothing better tells a copy.

A write sets both. A copy that is put in the file's place with its times, or a change of its owner, sets one."""


class Evidence(NamedTuple):
    """The findings in the directory beside the segments.

    Attributes:
        lock: identity of the lock file.
        position_file: identity of the position file; None if it is missing.
        position: its content; None if that is missing or damaged.
        nameplate: which file the content says that it is in; None if that is missing or damaged.
        altered_ns: how long after its last write the position file was changed in another way.
        newest_number: the highest number of a segment, even one without a header; 0 if there is none.
        host: the machine that this process runs on.
    """

    lock: FileIdentity
    position_file: FileIdentity | None
    position: DurablePosition | None
    nameplate: FileIdentity | None
    altered_ns: int
    newest_number: int
    host: Host


def reason_against(found: JournalContent, seen: Evidence, place: str) -> str:
    """Return why a journal cannot be vouched for, as a sentence for people without its full stop; "" if it can be.

    Args:
        found: the content of its segments.
        seen: what else the directory shows.
        place: the directory.
    """
    if found.newest is None:
        return _reason_without_segments(seen, place)
    if seen.position is None or seen.position_file is None or seen.nameplate is None:
        return f"the journal in {place} has no valid file named position, so a part of it may be missing"
    if found.is_damaged or seen.position.ordinal > found.reached:
        return (
            f"the journal in {place} is damaged: records up to {max(found.answered, seen.position.ordinal)} were answered"
            f" for, but it can be read up to {found.reached} only{_words_of(found.gap)}"
        )
    return (
        _reason_against_files(found, seen, place)
        or _reason_against_position(found.newest, seen, place)
        or _reason_against_changes(seen, place)
        or _reason_against_host(found.newest, seen, place)
    )


def _reason_without_segments(seen: Evidence, place: str) -> str:
    if seen.position_file is None and not seen.newest_number:
        return f"the journal in {place} is new"
    return f"the journal in {place} is damaged: it has no segment that can be read"


def _words_of(gap: Gap | None) -> str:
    if gap is None:
        return ""
    if gap.kind == "newer":
        return f" (from byte {gap.offset} on, {gap.segment} has entries of a later release)"
    words = {"zeros": "zeros", "missing": "records are missing", "cut": "a cut record"}
    return (
        f" ({gap.segment}, from byte {gap.offset} of {gap.size} on: {words.get(gap.kind, 'damaged bytes')})"
    )


def _reason_against_files(found: JournalContent, seen: Evidence, place: str) -> str:
    assert seen.position_file is not None
    for segment in found.used:
        header = segment.header
        assert isinstance(header, SegmentHeader), "a segment without a header is never used"
        same_boot = bool(header.boot) and header.boot == seen.host.boot
        pairs = ((segment.name, header.itself, segment.itself), ("lock", header.lock, seen.lock))
        for name, written, here in pairs:
            if not _is_same(written, here, same_boot=same_boot):
                return f"the journal in {place} is a copy: its file {name} is not the one that the node wrote"
    return ""


def _reason_against_position(newest: SegmentHeader, seen: Evidence, place: str) -> str:
    """Compare the position file with what it says of itself.

    The node makes it afresh again and again, so an older copy that was written into it names the file that it was then.
    """
    assert seen.position_file is not None and seen.nameplate is not None
    same_boot = bool(newest.boot) and newest.boot == seen.host.boot
    if _is_same(seen.nameplate, seen.position_file, same_boot=same_boot):
        return ""
    return f"the journal in {place} is a copy: its file position is not the one that the node wrote"


def _is_same(written: FileIdentity, found: FileIdentity, *, same_boot: bool) -> bool:
    if written.inode != found.inode:
        return False
    if written.edition and found.edition:
        return written.edition == found.edition
    return written.device == found.device or not same_boot


def _reason_against_changes(seen: Evidence, place: str) -> str:
    assert seen.position_file is not None
    # With an edition, the position file has shown by itself that it was not copied, whatever its owner and times.
    if seen.position_file.edition or seen.altered_ns <= ALTERED_NS_MAX:
        return ""
    return (
        f"the journal in {place} was changed after the node's last write: a copy was put in its place, or its files got"
        " another owner or other times, which a file system like this one cannot tell from a copy"
    )


def _reason_against_host(newest: SegmentHeader, seen: Evidence, place: str) -> str:
    assert seen.position is not None
    if seen.position.closed and seen.position.closed == seen.newest_number:
        return ""  # the life that wrote it said itself that it is over, and synced before that
    if newest.boot and newest.boot == seen.host.boot:
        return ""
    if not newest.machine or newest.machine != seen.host.machine:
        return (
            f"the journal in {place} was last written on another machine, or in an earlier boot of one without an id of its"
            " own: the process that wrote it may run on there"
        )
    if not newest.is_synced:
        return (
            f"the journal in {place} was last written before this boot of the machine, with the durability process, which"
            " does not outlive a loss of power"
        )
    return ""
