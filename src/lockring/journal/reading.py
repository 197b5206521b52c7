"""Reads a journal, and finds whether all that was answered for is there.

- *The start.* Reading starts with the last segment that needs none before it.
  In such a segment a rewrite ended, or a life began the journal afresh, since it could not vouch for the one it found.
- *The chain.* From there on, records count as long as they follow each other.
  A segment's header says which records before it count (`follows`).
  So the remains of a failed write at a segment's end are passed over, and a record that is missing there is found.
- *Damage.* The first bad or missing record ends the chain.
  A write that was never answered for may be torn, and good records may stand behind it: unsynced bytes reach the disk
  in any order. It is damage if the position file, a header, or a good record behind it says that it was durable.
- *Zeros at the end.* A segment may have been given room for more records than were written. There it ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from lockring.core.journal import ClusterSeen, JournalEntry
from lockring.errors import JournalError
from lockring.ids import NodeId
from lockring.journal.codec import (
    FORMAT_VERSION,
    HEADER_BYTES,
    RECORD_HEAD_BYTES,
    FileIdentity,
    Flaw,
    OtherFormat,
    Record,
    SegmentHeader,
    decode_entries,
    decode_header,
    read_record,
)
from lockring.journal.files import Files, OpenFile
from lockring.journal.records import Seal

_SUFFIX: Final = ".log"
_DIGITS: Final = 8
_CHUNK_BYTES: Final = 1024 * 1024
_ALL: Final = 1 << 64


def segment_name(number: int) -> str:
    """Return the name of a segment's file."""
    return f"{number:0{_DIGITS}d}{_SUFFIX}"


def segment_numbers(files: Files) -> list[int]:
    """Return the numbers of the segments in a directory, ascending."""
    stems = [name.removesuffix(_SUFFIX) for name in files.names() if name.endswith(_SUFFIX)]
    return sorted(int(stem) for stem in stems if len(stem) >= _DIGITS and stem.isascii() and stem.isdigit())


class Gap(NamedTuple):
    """The place at which the records that count end.

    Attributes:
        segment: name of the file.
        offset: of the first byte that does not count.
        size: of the file.
        kind: as in `Flaw`; or "missing" (a segment, or records before the next ones), "newer" (an entry that is known
            only to a later release).
    """

    segment: str
    offset: int
    size: int
    kind: str


class SegmentContent(NamedTuple):
    """The content of one segment.

    Attributes:
        name: of its file.
        header: its header, or what stands there instead.
        itself: identity of the file.
        entries: of its records, as far as these count.
        last: ordinal of the last of these records; that before the first if there is none.
        begins: whether nothing before this segment is needed.
        answered: the last ordinal that something in the file calls durable.
        gap: where the records that count end; None if that is the end of the file.
        size: of the file, in bytes, without the zeros at its end.
    """

    name: str
    header: SegmentHeader | Flaw
    itself: FileIdentity
    entries: list[JournalEntry]
    last: int
    begins: bool
    answered: int
    gap: Gap | None
    size: int


class JournalContent(NamedTuple):
    """The content of a journal.

    Attributes:
        entries: all that count, in order. If the cluster is named only in segments that no longer count, that entry
            comes first.
        newest: the newest segment that has a header; None if there is none.
        reached: ordinal of the last record that counts.
        answered: ordinal of the last record that was answered for, as far as can be seen.
        gap: where the records that count end; None if that is the end of the files.
        used: the segments that the entries come from.
    """

    entries: list[JournalEntry]
    newest: SegmentHeader | None
    reached: int
    answered: int
    gap: Gap | None
    used: list[SegmentContent]

    @property
    def is_damaged(self) -> bool:
        """Whether something is missing that was answered for."""
        return self.answered > self.reached


def read_segments(files: Files, node: NodeId) -> JournalContent:
    """Read all segments of a directory.

    Args:
        files: the directory, which this process has locked.
        node: the node that it should belong to.

    Raises:
        JournalError: the journal is of another node, or in a format that this release does not read.
        OSError: a file cannot be read.
    """
    opened: list[tuple[str, OpenFile, SegmentHeader | Flaw]] = []
    try:
        for number in segment_numbers(files):
            name = segment_name(number)
            file = files.open(name)
            opened.append((name, file, Flaw("cut")))
            opened[-1] = (name, file, _header_of(file, files.place, node))
        chain = _Chain()
        for place, (name, file, header) in enumerate(opened):
            if isinstance(header, Flaw):
                chain.add(_headless(name, file, header))
                continue
            later = [each for _, _, each in opened[place + 1 :] if isinstance(each, SegmentHeader)]
            counts_until = min((each.follows for each in later if each.continues), default=_ALL)
            if header.first <= counts_until + 1:
                chain.add(_content(name, file, header, counts_until))
            # Else no record of it was durable when a later segment took its place.
    finally:
        for _, file, _ in opened:
            file.close()
    return chain.result()


class _Chain:
    """Joins the segments, in their order."""

    def __init__(self) -> None:
        self._used: list[SegmentContent] = []
        self._newest: SegmentHeader | None = None
        self._cluster: ClusterSeen | None = None
        self._reached = 0
        self._answered = 0
        self._gap: Gap | None = None
        self._is_broken = True

    def add(self, content: SegmentContent) -> None:
        """Take the next segment."""
        if isinstance(content.header, Flaw):
            # Its making was interrupted; or it is damaged, and the position file calls a missing record durable.
            if self._gap is None or self._gap.kind == "zeros":
                self._gap = content.gap
            return
        self._newest = content.header
        self._answered = max(self._answered, content.answered)
        for entry in content.entries:
            if isinstance(entry, ClusterSeen):
                self._cluster = entry
        if content.begins:
            self._used.clear()
            self._is_broken = False
        elif self._is_broken or self._reached < content.header.follows:
            if not self._is_broken:
                self._gap = self._gap or Gap(content.name, 0, 0, "missing")
            self._is_broken = True
            return
        self._used.append(content)
        self._reached, self._gap = content.last, content.gap

    def result(self) -> JournalContent:
        """Return the content of all segments."""
        entries = [entry for content in self._used for entry in content.entries]
        if self._cluster is not None and not any(isinstance(entry, ClusterSeen) for entry in entries):
            entries.insert(0, self._cluster)
        answered = self._answered
        if self._newest is not None and not self._used:
            answered = max(answered, 1)  # the segment that the others follow is missing
        return JournalContent(entries, self._newest, self._reached, answered, gap=self._gap, used=self._used)


def _header_of(file: OpenFile, place: str, node: NodeId) -> SegmentHeader | Flaw:
    header = decode_header(file.read(HEADER_BYTES, 0))
    if isinstance(header, OtherFormat):
        raise JournalError(
            f"the journal in {place} has format {header.number}, but this release reads {FORMAT_VERSION}; start the release"
            " that wrote it, or name another directory with --data-dir"
        )
    if isinstance(header, SegmentHeader) and header.node != node:
        raise JournalError(
            f"the journal in {place} belongs to the node {header.node!r}, not to {node!r}; start that node, or name another"
            " directory with --data-dir"
        )
    return header


def _headless(name: str, file: OpenFile, flaw: Flaw) -> SegmentContent:
    """Return what is known of a segment without a header: nothing. Its records cannot be read without the salt."""
    gap = Gap(name, 0, file.size(), flaw.kind)
    return SegmentContent(
        name, flaw, file.identity(), [], last=0, begins=False, answered=0, gap=gap, size=gap.size
    )


def _content(name: str, file: OpenFile, header: SegmentHeader, counts_until: int) -> SegmentContent:
    seal, size = Seal(header.salt), file.size()
    entries: list[JournalEntry] = []
    last, offset, answered = header.first - 1, HEADER_BYTES, header.durable
    begins, kind, written = not header.continues, "", size
    for found in _records(file, seal, size):
        if isinstance(found, Flaw):
            rest = file.read(size - offset, offset)
            written = offset + len(rest.rstrip(b"\0"))
            kind = found.kind if written > offset else "zeros"
            answered = max(answered, _answered_behind(rest, seal))
            break
        if found.ordinal > counts_until:
            break
        decoded = decode_entries(found.payload) if found.ordinal == last + 1 else None
        if decoded is None:
            kind = "newer" if found.ordinal == last + 1 else "missing"
            answered = max(answered, found.ordinal)
            break
        entries += decoded
        last, offset = found.ordinal, offset + RECORD_HEAD_BYTES + len(found.payload)
        answered = max(answered, found.durable)
        begins = begins or found.ends_rewrite
    gap = Gap(name, offset, size, kind) if kind else None
    return SegmentContent(
        name,
        header,
        file.identity(),
        entries,
        last=last,
        begins=begins,
        answered=answered,
        gap=gap,
        size=written,
    )


def _records(file: OpenFile, seal: Seal, size: int) -> Iterator[Record | Flaw]:
    """Yield the records of a segment up to its end or to a flaw, with a bounded part of it in memory at a time."""
    data, at, read_to = memoryview(b""), 0, HEADER_BYTES
    while True:
        found = read_record(seal, data, at)
        if isinstance(found, Record):
            yield found
            at = found.end
        elif found.needed and read_to < size:
            rest = bytes(data[at:])
            more = file.read(min(size - read_to, max(_CHUNK_BYTES, found.needed - len(rest))), read_to)
            if not more:
                size = read_to  # it was cut while it was read
            data, at, read_to = memoryview(rest + more), 0, read_to + len(more)
        else:
            if at < len(data):
                yield found
            return


def _answered_behind(data: bytes, seal: Seal) -> int:
    """Return the last ordinal that a good record behind a flaw calls durable, 0 if there is no such record."""
    view, answered = memoryview(data), 0
    at = data.find(seal.mark.to_bytes(4, "big"), 1)
    while at >= 0:
        found = read_record(seal, view, at)
        if isinstance(found, Record):
            answered = max(answered, found.durable)
        at = data.find(seal.mark.to_bytes(4, "big"), found.end if isinstance(found, Record) else at + 1)
    return answered
