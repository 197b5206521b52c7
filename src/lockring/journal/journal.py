"""A node's journal in a directory: reads what former lives left, and keeps what this life appends.

How the shell uses it, in this order:

    append(batch)                 each turn, before the effects: written when it returns
    mark()                        now and then, after the effects: notes that answers have left
    sync_point() → perform(point) → complete(point)
                                  makes everything appended so far durable; `perform` may run in another thread
    begin_rewrite()               before the core writes everything again: to compact, or after a failure
    close()                       after the last answer

- *One writer.* The directory's lock is held from the start to `close`.
- *A new life appends to no old segment.* Its last record may be torn.
- *A failed write or sync ends its segment.* A part of a failed write may stand there, and after a failed sync nothing
  that was not synced before may be relied on. So every `append` fails until `begin_rewrite` has made a new segment.
  Its header says which records before it still count.
- *Old segments go last.* They are deleted once the end of a rewrite is durable.
  So a crash in between finds too much rather than too little.
- *The position file is made afresh again and again*, and says which file it is. So an older copy that is written into
  the files of the directory names another one, whatever owner and times they have.
- *A segment that is synced gets room ahead of its records.* A sync that has no new length and no new blocks to write
  down took 45 to 60 µs on ext4, rather than 67 to 90. Where there is no room, the segment grows with each record.
- *An answer waits for its write or sync, and for nothing else.* The position file is a lower bound and may follow.
  A directory that was replaced is found within a second; one that was deleted, by the next sync, which costs a µs.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Final, Literal

from lockring.core.journal import JournalBatch, JournalFound
from lockring.errors import JournalError
from lockring.ids import NodeId
from lockring.journal.codec import (
    HEADER_BYTES,
    POSITION_FILE_BYTES,
    POSITION_NAMEPLATE_OFFSET,
    POSITION_OFFSETS,
    FileIdentity,
    SegmentHeader,
    decode_nameplate,
    decode_positions,
    encode_entries,
    encode_header,
    encode_nameplate,
    encode_position,
)
from lockring.journal.cut_off import words_of_cut_off
from lockring.journal.files import LOCK_NAME, Files, OpenFile, what_to_do
from lockring.journal.found import FoundSegment, found_segments, make_durable
from lockring.journal.growth import is_outgrown
from lockring.journal.host import Host, this_host
from lockring.journal.reading import read_segments, segment_name, segment_numbers
from lockring.journal.records import BATCH_BYTES_MAX, Seal
from lockring.journal.sync_point import SyncPoint
from lockring.journal.verdict import Evidence, reason_against
from lockring.system_errors import reason_of

POSITION_NAME: Final = "position"
_UNFINISHED_NAME: Final = "position.new"

_encode: Final = encode_entries
"""Bound once, for each record: compiled code looks an imported name up in a dictionary."""

_WITHOUT_END: Final = 1 << 61
"""The room of a segment that grows with each record."""

Durability = Literal["process", "disk"]
"""An answer waits for the write, or for the sync too."""


class Journal:
    """A journal. Not safe for use by several threads, except for `perform` and `check`.

    Args:
        files: the directory.
        node: the node's id.
        durability: what answers wait for.
        host: the machine that this process runs on; by default, the real one.
        is_of_new_life: whether the life that writes it has only begun. If not, nothing counts before the end of the
            next rewrite, which is due at once.

    Attributes:
        found: what former lives left; without its entries after `forget_found`.
        reason: why `found` cannot be vouched for, as a sentence for people without its full stop; "" if it can be.
        cut_off: what was dropped behind `found` as a write that was cut off, as the beginning of a sentence for people;
            "" if there was nothing, or if `found` cannot be vouched for.
        is_new: whether no life has ever used the directory.

    Raises:
        JournalError: the directory is in use, belongs to another node, is of another format, or cannot be read or
            written. The text names it.
    """

    def __init__(
        self,
        files: Files,
        *,
        node: NodeId,
        durability: Durability,
        host: Host | None = None,
        is_of_new_life: bool = True,
    ) -> None:
        self._files = files
        self._node = node
        self._waits_for_sync = durability == "disk"
        self._host = this_host() if host is None else host
        self._segments: list[_Segment] = []
        self._void: list[str] = []
        self._names: list[str] = []
        self.found: JournalFound
        self._unsynced_found: list[FoundSegment] = []
        self._obsolete: tuple[str, ...] = ()
        self._rewrite_bytes = 0
        self._problem = ""
        self._era = 0
        self._number = 0
        self._ordinal = 0
        self._durable = 0
        self._follows = 0
        self._next_number = 1
        self._in_place: tuple[tuple[str, FileIdentity], ...] = ()
        self._position: OpenFile | None = None
        self._position_guard = threading.RLock()
        self._turn = 0
        self._position_is_unsynced = self._position_is_worn = False
        self._marked = 0
        try:
            self._lock = files.lock()
            self._open(is_of_new_life=is_of_new_life)
        except OSError as error:
            self._release()
            raise JournalError(
                f"the journal in {files.place} cannot be opened: {reason_of(error)}; {what_to_do(error)}"
            ) from error
        except BaseException:
            self._release()
            raise

    @property
    def durable_ordinal(self) -> int:
        """The last record that is as durable as was asked for."""
        return self._durable

    @property
    def has_failed(self) -> bool:
        """Whether nothing can be appended until `begin_rewrite`."""
        return bool(self._problem)

    def is_deleted(self) -> bool:
        """Return whether the directory was deleted for good, so that another one may take its place.

        Raises:
            JournalError: the system does not say.
        """
        try:
            return self._files.is_deleted()
        except OSError as error:
            raise JournalError(self._unwritable(error)) from error

    @property
    def is_due_for_rewrite(self) -> bool:
        """Whether the log has grown so long that it should be compacted. Never while a rewrite is under way."""
        if not self._rewrite_bytes or self._problem:
            return False
        return is_outgrown(self._segments[-1].size, self._rewrite_bytes, self._files)

    def forget_found(self) -> None:
        """Let go of the entries that former lives left, once they are read: they take more memory than the locks."""
        self.found = self.found._replace(entries=[])

    def append(self, batch: JournalBatch) -> None:
        """Write a batch. With the durability process it is then as durable as was asked for.

        Raises:
            JournalError: it could not be written, or the journal has failed before. Nothing can be appended until
                `begin_rewrite`.
        """
        if self._problem:
            raise JournalError(self._problem)
        segment, payload = self._segments[-1], _encode(batch.entries)
        if len(payload) > BATCH_BYTES_MAX:
            raise self._failed(
                f"the journal in {self._files.place} cannot take a batch of {len(payload)} bytes, which is longer than"
                f" {BATCH_BYTES_MAX}"
            )
        ordinal, size, ends_rewrite = self._ordinal + 1, segment.size, batch.ends_rewrite
        record = segment.seal.record(payload, ordinal, self._durable, ends_rewrite)
        end = size + len(record)
        if end > segment.reserved:
            self._reserve(segment, end)
        try:
            segment.write(record, size)
        except OSError as error:
            raise self._failed(self._unwritable(error)) from error
        segment.size = end
        self._ordinal = ordinal
        self._number = batch.number
        if not self._waits_for_sync:
            self._durable = ordinal
        if ends_rewrite:
            self._rewrite_bytes = segment.size
            self._obsolete = tuple(each for each in self._names if each != segment.name)

    def mark(self) -> None:
        """Note that everything that is as durable as was asked for may have been answered for.

        Each record says so for those before it. So this is about the last ones, and may follow the answers.
        Without it, damage to them is taken for a torn write.

        Raises:
            JournalError: it could not be written. Nothing can be appended until `begin_rewrite`.
        """
        if self._marked == self._durable or self._problem:
            return
        try:
            self._write_position(self._durable)
        except OSError as error:
            raise self._failed(self._unwritable(error)) from error

    def sync_point(self) -> SyncPoint | None:
        """Return what a sync must cover now; None if everything is durable, or the journal has failed."""
        unsynced = [segment for segment in self._segments if segment.synced < segment.size]
        if self._problem or not (unsynced or self._obsolete):
            return None
        return SyncPoint(
            self._number,
            self._ordinal,
            self._era,
            parts=[(segment.file, segment.size) for segment in unsynced],
            has_new_names=any(not segment.synced for segment in unsynced),
            obsolete=self._obsolete,
        )

    def perform(self, point: SyncPoint) -> None:
        """Sync what a point covers, and delete what is then no longer needed.

        Blocks. May run in any thread, one call at a time.

        Raises:
            JournalError: the directory was deleted; or it was replaced, and a segment was begun or is no longer needed.
            OSError: a sync failed.
        """
        for file, size in point.parts:
            file.sync(size)
        if point.has_new_names:
            self._files.sync_names()
        if point.has_new_names or point.obsolete or self._files.is_deleted():
            self.check()
        for name in point.obsolete:
            with contextlib.suppress(OSError):  # it takes space until the first rewrite of the next life
                self._files.delete(name)

    def complete(self, point: SyncPoint) -> bool:
        """Take note that a point was performed, and return whether its batches are the core's latest view.

        They are not if the journal failed in the meantime: the core then knows them as lost.
        """
        sizes = {id(file): size for file, size in point.parts}
        for segment in self._segments:
            segment.synced = max(segment.synced, sizes.get(id(segment.file), 0))
        if self._waits_for_sync:
            self._durable = max(self._durable, point.ordinal)
        self._names = [name for name in self._names if name not in point.obsolete]
        self._obsolete = tuple(name for name in self._obsolete if name not in point.obsolete)
        for segment in self._segments[:-1]:
            if segment.synced >= segment.size:
                segment.file.close()
                self._segments.remove(segment)
        return point.era == self._era

    def fail(self, error: Exception) -> str:
        """Take note that a point could not be performed, and return why, as a sentence for people.

        Bytes that were not durable before are not relied on any more, whatever a later sync may say.
        """
        text = self._unwritable(error) if isinstance(error, OSError) else str(error)
        self._follows = self._durable
        self._obsolete = ()  # the end of the rewrite that made them so is not relied on either
        for segment in self._segments:
            segment.file.close()
        # Attempts on a disk that goes on failing must not pile up. A segment with which the journal began afresh stays:
        # the one before it does not count, even if this one has no record that does.
        self._void += [each.name for each in self._segments if each.continues and each.first > self._durable]
        self._segments.clear()
        return str(self._failed(text, is_written=False))

    def begin_rewrite(self) -> None:
        """Begin a new segment. The batches from the next one on, up to one that `ends_rewrite`, must hold everything.

        Raises:
            JournalError: no segment can be made; the journal stays as it is.
        """
        self.check()
        if not self._segments or not self._segments[-1].is_empty:
            follows = self._follows if self._problem else self._ordinal
            try:
                self._begin_segment(follows, continues=True)
            except OSError as error:
                raise JournalError(self._unwritable(error)) from error
        self._problem = ""
        for name in self._void:
            with contextlib.suppress(OSError):  # it takes space until the next rewrite
                self._files.delete(name)
        self._names = [name for name in self._names if name not in self._void]
        self._void = []

    def check(self) -> None:
        """Check that the directory still has this journal's files. Cheap; may run in any thread.

        Raises:
            JournalError: it was deleted or replaced, or the system does not say.
        """
        with self._position_guard:
            try:
                position = None if self._position is None else self._position.identity()
            except OSError as error:
                raise JournalError(self._unwritable(error)) from error
            is_in_place = position is None or self._files.is_in_place(POSITION_NAME, position)
        if not (is_in_place and all(self._files.is_in_place(*each) for each in self._in_place)):
            raise JournalError(
                f"the journal's directory {self._files.place} was deleted or replaced while it was in use; a deleted one is"
                " made again at once, otherwise put it back, or start the node again"
            )

    def renew_position(self) -> None:
        """Set the position file apart from every copy of it that was made before. Blocks; for the thread that syncs.

        It becomes another file, which names itself: an older copy in its place names the file that it was then. Where
        the file system keeps no editions of files, that proves little, and the times of changes must do.

        Raises:
            OSError: the present file cannot be synced.
        """
        if self._position_is_worn and self._lock.edition:
            try:
                self._replace_position(is_synced=self._waits_for_sync)
                return
            except OSError:  # on a full disk, the present file is as good a lower bound
                self._position_is_worn = True
        self.sync_position()

    def sync_position(self) -> None:
        """Make the lower bound of what was answered for survive a loss of power. Blocks; may run in any thread.

        Without it, damage to the last batches is taken for torn writes after a loss of power. A later record says so,
        so this matters once no more come.
        """
        position = self._position
        if self._waits_for_sync and position is not None and self._position_is_unsynced:
            self._position_is_unsynced = False
            position.sync(POSITION_FILE_BYTES)

    def close(self, *, in_order: bool = True) -> None:
        """Sync everything, and leave the directory to others. Blocks. Closing twice is harmless.

        Args:
            in_order: whether this life is over: it answers no one any more. The next life then needs no other proof.
        """
        if self._position is not None and in_order and not self._problem:
            with contextlib.suppress(OSError, JournalError):  # then it is found as after a crash
                self._sync_found()
                point = self.sync_point()
                if point is not None:
                    self.perform(point)
                if self._waits_for_sync:
                    for segment in self._segments:
                        segment.file.cut(segment.size)
                if self._lock.edition:
                    self._replace_position(is_synced=True)
                self._write_position(self._ordinal, closed=self._segments[-1].number)
                self._position.sync(POSITION_FILE_BYTES)
        self._release()

    # ----------------------------------------------------------------------- opening

    def _open(self, *, is_of_new_life: bool) -> None:
        numbers = segment_numbers(self._files)
        self._names = [segment_name(number) for number in numbers]
        reading = read_segments(self._files, self._node)
        seen = self._evidence(numbers[-1] if numbers else 0)
        self.reason = reason_against(reading, seen, self._files.place)
        self.cut_off = "" if self.reason else words_of_cut_off(reading)
        self.is_new = not numbers and seen.position_file is None
        self.found = JournalFound(reading.entries, not self.reason)
        stored = 0 if seen.position is None else seen.position.ordinal
        if self.found.is_complete:
            self._unsynced_found = found_segments(reading, stored)
        if self._waits_for_sync:
            self._sync_found()
        self._ordinal = self._durable = max(reading.reached, reading.answered, stored)
        self._follows = reading.reached
        continues = self.found.is_complete
        if not is_of_new_life:
            # The new segment follows a record that there never was, so it counts only once everything stands in it.
            self._ordinal = self._durable = self._follows = self._ordinal + 1
            continues = True
        self._next_number = seen.newest_number + 1
        if POSITION_NAME in self._files.names():
            self._position = self._files.open(POSITION_NAME)
        self._begin_segment(self._follows, continues=continues)
        point = self.sync_point()
        assert point is not None, "the new segment is not synced yet"
        self.perform(point)
        self.complete(point)
        # Not before the new segment is durable: a new position file vouches for what the segments say.
        self._marked = self._durable
        if self._lock.edition or self._position is None or seen.nameplate != seen.position_file:
            self._replace_position(is_synced=True)
            return
        # The first stamp goes into the place of the lower one, and is safe before the other is overwritten.
        self._write_position(self._durable)
        self._position.sync(POSITION_FILE_BYTES)

    def _evidence(self, newest_number: int) -> Evidence:
        if POSITION_NAME not in self._files.names():
            return Evidence(
                self._lock,
                None,
                None,
                nameplate=None,
                altered_ns=0,
                newest_number=newest_number,
                host=self._host,
            )
        with contextlib.closing(self._files.open(POSITION_NAME)) as file:
            content = file.read(POSITION_FILE_BYTES, 0)
            position, self._turn = decode_positions(content)
            return Evidence(
                self._lock,
                file.identity(),
                position,
                nameplate=decode_nameplate(content),
                altered_ns=file.altered_ns(),
                newest_number=newest_number,
                host=self._host,
            )

    def _sync_found(self) -> None:
        """Make the found content durable before this life builds on it."""
        make_durable(self._unsynced_found, self._files, self._names)
        self._unsynced_found.clear()

    # ----------------------------------------------------------------------- writing

    def _begin_segment(self, follows: int, *, continues: bool) -> None:
        number = self._next_number
        self._next_number += 1
        name, salt = segment_name(number), self._files.salt()
        file = self._files.create(name)
        try:
            itself = file.identity()
            header = SegmentHeader(
                number=number,
                first=self._ordinal + 1,
                follows=follows,
                durable=min(self._durable, follows),
                continues=continues,
                salt=salt,
                node=self._node,
                boot=self._host.boot,
                machine=self._host.machine,
                is_synced=self._waits_for_sync,
                lock=self._lock,
                itself=itself,
            )
            file.write(encode_header(header), 0)
        except OSError:
            file.close()
            with contextlib.suppress(OSError):  # without a header, it counts for nothing
                self._files.delete(name)
            raise
        self._names.append(name)
        has_room = self._waits_for_sync and self._files.reserve_bytes > 0
        self._segments.append(_Segment(header, file, HEADER_BYTES if has_room else _WITHOUT_END))
        self._in_place = ((LOCK_NAME, self._lock), (name, itself))
        self._rewrite_bytes = 0

    def _reserve(self, segment: _Segment, size: int) -> None:
        """Give a segment room for `size` bytes and more, in the event loop: nothing else may write to it meanwhile."""
        step = self._files.reserve_bytes
        reserved = (size // step + 1) * step
        try:
            segment.file.reserve(reserved)
            segment.reserved = reserved
        except OSError:  # whether the disk is full, or a limit is reached, a write will show
            segment.reserved = _WITHOUT_END
            with contextlib.suppress(OSError):
                segment.file.cut(segment.size)  # leaves to others what there was

    def _write_position(self, ordinal: int, closed: int = 0) -> None:
        with self._position_guard:
            assert self._position is not None
            self._turn = 1 - self._turn
            self._position_is_unsynced = self._position_is_worn = True
            self._marked = ordinal
            self._position.write(encode_position(ordinal, closed), POSITION_OFFSETS[self._turn])

    def _replace_position(self, *, is_synced: bool) -> None:
        """Put a new position file in the place of the present one; at any moment, one of them is there, and whole."""
        if _UNFINISHED_NAME in self._files.names():
            self._files.delete(_UNFINISHED_NAME)
        self._position_is_worn = False
        marked = self._marked
        file = self._new_position(_UNFINISHED_NAME, marked, is_synced=is_synced)
        with self._position_guard:
            try:
                self._files.replace(POSITION_NAME, _UNFINISHED_NAME)
            except OSError:
                file.close()
                raise
            former, self._position = self._position, file
            self._position_is_unsynced = not is_synced
            if self._marked != marked:
                self._write_position(self._marked)  # it came meanwhile, and went to the former file
        if former is not None:
            former.close()
        if is_synced:
            self._files.sync_names()

    def _new_position(self, name: str, ordinal: int, *, is_synced: bool) -> OpenFile:
        file = self._files.create(name)
        try:
            for offset in POSITION_OFFSETS:
                file.write(encode_position(ordinal), offset)
            file.write(encode_nameplate(file.identity()), POSITION_NAMEPLATE_OFFSET)
            if is_synced:
                file.sync(POSITION_FILE_BYTES)
        except OSError:
            file.close()
            raise
        return file

    def _failed(self, text: str, *, is_written: bool = True) -> JournalError:
        """Let nothing be appended to this segment any more, and return the error that says why."""
        if not self._problem:
            self._era += 1
            if is_written:
                self._follows = self._ordinal
        self._problem = text
        return JournalError(text)

    def _unwritable(self, error: OSError) -> str:
        return (
            f"the journal in {self._files.place} cannot be written: {reason_of(error)}; {what_to_do(error)}"
        )

    def _release(self) -> None:
        for segment in self._segments:
            segment.file.close()
        self._segments.clear()
        if self._position is not None:
            self._position.close()
            self._position = None
        self._files.unlock()


class _Segment:
    """A segment that this life writes.

    `size` counts its good bytes, `synced` those that survive a loss of power. `reserved` is how long it may get before
    it needs more room.
    """

    def __init__(self, header: SegmentHeader, file: OpenFile, reserved: int) -> None:
        self.number = header.number
        self.name = segment_name(header.number)
        self.first = header.first
        self.continues = header.continues
        self.file = file
        self.write = file.write  # bound once: a protocol's methods are looked up by name
        self.seal = Seal(header.salt)
        self.size = HEADER_BYTES
        self.synced = 0
        self.reserved = reserved

    @property
    def is_empty(self) -> bool:
        """Whether no record was written to it."""
        return self.size == HEADER_BYTES
