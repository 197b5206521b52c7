"""Opens a node's journal when a life begins, and says in the log what was found."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Final

from lockring.ids import NodeId
from lockring.journal.files import DirectoryFiles
from lockring.journal.growth import REWRITE_BYTES_MIN
from lockring.journal.journal import Journal
from lockring.log_events import event
from lockring.server.directory_use import JOURNAL_PART
from lockring.server.settings import NodeSettings

_MIB: Final = 1024 * 1024

ROOM_BYTES_MIN: Final = 3 * REWRITE_BYTES_MIN
"""The room that a journal may take beside what it holds: a log that is not compacted yet, another one while it is, and
as much again for the locks that come meanwhile."""

_KEPT: Final = {
    "process": "written before they are answered (durability process)",
    "disk": "synced to the disk before they are answered (durability disk)",
}

log: Final = logging.getLogger("lockring.node")


def open_journal(settings: NodeSettings) -> Journal | None:
    """Take the node's journal for a new life; None if it keeps none. Blocks: it reads everything that is in it.

    Raises:
        JournalError: the directory is in use, belongs to another node, is of another format, or cannot be read or
            written. The text says what to do.
    """
    durability = settings.keeps
    if settings.data_dir is None:
        return None
    directory = Path(settings.data_dir) / JOURNAL_PART
    if durability == "none":
        if directory.exists():
            log.warning(
                "--durability none: locks are kept in memory only, and the journal in %s is not read",
                directory,
                extra=event("journal-not-read", directory=str(directory)),
            )
        return None
    began_s = time.monotonic()
    files = DirectoryFiles(directory)
    journal = Journal(files, node=NodeId(settings.id), durability=durability)
    took_s = time.monotonic() - began_s
    if journal.is_new:
        log.info(
            "locks are kept in %s, which is new: %s",
            directory,
            _KEPT[durability],
            extra=event("journal-new", directory=str(directory), durability=durability),
        )
    elif journal.reason:
        log.warning(
            "%s: so nothing in it is vouched for. Locks that no other node has a copy of are served once their leases"
            " have surely ended",
            journal.reason,
            extra=event("journal-doubted"),
        )
    else:
        log.info(
            "locks are kept in %s: %s; the former life's journal was read in %.2f s (%d entries)",
            directory,
            _KEPT[durability],
            took_s,
            len(journal.found.entries),
            extra=event(
                "journal-read",
                directory=str(directory),
                durability=durability,
                entries=len(journal.found.entries),
            ),
        )
    if journal.cut_off:
        log.warning(
            "%s in %s were dropped, as a write that was cut off before it was answered for; if the files were damaged or"
            " shortened afterwards, locks that were granted in the last moments of the former life may be missing",
            journal.cut_off,
            directory,
            extra=event("journal-cut-off", directory=str(directory)),
        )
    room = files.room()
    if room < ROOM_BYTES_MIN:
        log.warning(
            "the volume of %s has %d MiB left, and a journal may need %d MiB beside what it holds: it is compacted more often"
            " there. New locks wait while the volume is full",
            directory,
            room // _MIB,
            ROOM_BYTES_MIN // _MIB,
            extra=event("disk-nearly-full", directory=str(directory), bytes_left=room),
        )
    return journal


def reopen_journal(settings: NodeSettings) -> Journal:
    """Make the directory of a journal again, for a life that is under way and has everything in memory. Blocks.

    Raises:
        JournalError: it cannot be made, or another process has it already. The text says what to do.
    """
    durability = settings.keeps
    assert settings.data_dir is not None and durability != "none", "only a journal can be made again"
    directory = Path(settings.data_dir) / JOURNAL_PART
    journal = Journal(
        DirectoryFiles(directory), node=NodeId(settings.id), durability=durability, is_of_new_life=False
    )
    log.warning(
        "the journal's directory %s was deleted: it is made again, and everything is written again",
        directory,
        extra=event("journal-deleted", directory=str(directory)),
    )
    return journal
