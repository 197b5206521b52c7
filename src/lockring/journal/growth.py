"""When a log has grown so long that it should be compacted."""

from __future__ import annotations

from typing import Final

from lockring.journal.files import Files

REWRITE_BYTES_MIN: Final = 16 * 1024 * 1024
"""A shorter log is not compacted: reading it takes a fraction of a second."""

SCARCE_BYTES_MIN: Final = 256 * 1024
"""The same where the volume has little room: a log that is compacted all the time would slow everything down."""

_GROWTH: Final = 2
"""A log is compacted once it is this many times as long as what the last rewrite wrote."""

_SCARCITY: Final = 2
"""Room is little if it is less than this many times the log: a rewrite needs its own while the log is still there."""


def is_outgrown(size: int, rewritten: int, files: Files) -> bool:
    """Return whether a log should be compacted.

    Args:
        size: its length in bytes.
        rewritten: how long it was once the last rewrite had ended.
        files: where it is.
    """
    if size <= _GROWTH * rewritten:
        return False
    return size > REWRITE_BYTES_MIN or (size > SCARCE_BYTES_MIN and files.room() < _SCARCITY * size)
