"""The commands that keep data in directories, and which of them a directory belongs to.

A command that finds a directory without its own files would begin a second cluster beside the data that are there. So a
directory that another command has used is refused before anything is written to it.

A coordinator and a node of one machine may share a directory, as `serve` does: their files have other names.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from lockring.errors import StoreError
from lockring.ids import NO_NODE, NodeId
from lockring.journal.codec import HEADER_BYTES, SegmentHeader, decode_header
from lockring.store.sqlite import DATABASE_NAME, LOCK_NAME, MARK_NAME

COORDINATOR_PART: Final = "coordinator"
"""The coordinator's directory below that of `lockring up`."""

CERTIFICATES_PART: Final = "certs"
"""The directory of the certificates that `lockring up` makes, below its own."""

JOURNAL_PART: Final = "journal"
"""The journal's directory below the data directory of a node."""

Command = Literal["coordinator", "node", "serve", "up"]

_NAMED_MAX: Final = 4
_OWN_NAMES: Final = (DATABASE_NAME, LOCK_NAME, MARK_NAME, "lost+found")


def refuse_another_use(data_dir: str, command: Command, *, node: NodeId = NO_NODE) -> None:
    """Raise an error if a directory belongs to another command, or to another node. Reads only.

    Args:
        data_dir: the directory; it may be missing.
        command: the command that is about to use it.
        node: the id of the node of `lockring serve`.

    Raises:
        StoreError: the directory belongs to another command or node. The text says to which one, and what to do.
    """
    directory = Path(data_dir)
    try:
        journal = directory / JOURNAL_PART
        has_journal, has_state = journal.is_dir(), (directory / DATABASE_NAME).exists()
        parts = _parts_of_up(directory)
        if command != "serve" and COORDINATOR_PART not in parts:
            parts = []  # nodes may keep theirs below the directory of another process
    except OSError:  # the command itself says why it cannot be read
        return
    if command != "up" and parts and not (has_journal or has_state):
        raise StoreError(
            f"the data directory {directory} is that of lockring up, whose {' and '.join(parts[:_NAMED_MAX])} it has: start"
            f" that command on it, or name another directory for lockring {command} with --data-dir"
        )
    if not has_journal or command in ("coordinator", "node"):
        return  # a node's journal itself finds that it is another one's, and whether that one runs
    owner = _node_of(journal)
    if command == "up" or (node and owner and owner != node):
        of_node = f" of the node {owner!r}" if owner else ""
        use = "lockring serve" if has_state else "lockring node"
        raise StoreError(
            f"the data directory {directory} has a journal{of_node}, so it is that of {use}: start that command on it"
            f"{f' with --id {owner}' if owner else ''}, or name another directory for lockring {command} with --data-dir"
        )


def others_in(data_dir: str) -> list[str]:
    """Return the names in a directory that a coordinator's store has not made, sorted; the first few of them.

    Raises:
        OSError: the directory cannot be read.
    """
    names = sorted(each.name for each in Path(data_dir).iterdir())
    return [each for each in names if not each.startswith(_OWN_NAMES)][:_NAMED_MAX]


def _parts_of_up(directory: Path) -> list[str]:
    """Return the names of the parts of `lockring up` in a directory."""
    coordinator = directory / COORDINATOR_PART
    parts = [COORDINATOR_PART] if (coordinator / DATABASE_NAME).exists() else []
    nodes = sorted(each.parent.name for each in directory.glob(f"N[1-9]*/{JOURNAL_PART}"))
    return parts + [each for each in nodes if each[1:].isdigit()]


def _node_of(journal: Path) -> NodeId:
    """Return the id of a journal's node, "" if that cannot be read."""
    for segment in sorted(journal.glob("*.log"), reverse=True):
        with suppress(OSError), segment.open("rb") as file:
            header = decode_header(file.read(HEADER_BYTES))
            if isinstance(header, SegmentHeader):
                return header.node
    return NO_NODE
