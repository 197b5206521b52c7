"""A preview of the removals if nothing changes: one scan, which removes nothing and needs no cluster.

A scan visits each folder after its contents, so it recognizes a parent that would become empty. Memory grows with the
number of parents that would lose an entry and have not been visited yet.
"""

from __future__ import annotations

from collections.abc import Iterator

from lockring.apps.cleaner.core.policy import Policy
from lockring.apps.cleaner.core.tally import Tally
from lockring.apps.cleaner.core.words import ROOT, FolderState, Reason, parent_of
from lockring.apps.cleaner.storage import Storage


def preview(storage: Storage, policy: Policy, tally: Tally) -> Iterator[str]:
    """Yield the folders that would be removed, in order.

    Args:
        storage: the storage, opened.
        policy: decides what to keep.
        tally: counts what is seen and kept; `deleted` counts what would be removed.

    Raises:
        RootMissing, Denied, Unavailable: the storage can no longer be reached or read.
    """
    would_go: dict[str, int] = {}
    tally.begin_scan()
    for found in storage.scan(policy):
        look = found.look
        if isinstance(look, Reason):
            tally.saw(look)
            continue
        entries = look.entries - would_go.pop(found.folder, 0)
        goes_by_itself = storage.implies_parents and not look.is_explicit and not entries
        reason = (
            Reason.NOT_EMPTY if entries else policy.keeps(found.folder, FolderState(0, 0, look.is_explicit))
        )
        tally.saw(reason)
        if reason is not None and not goes_by_itself:
            continue
        parent = parent_of(found.folder)
        if parent != ROOT:
            would_go[parent] = would_go.get(parent, 0) + 1
        if not goes_by_itself:
            tally.delete()
            yield found.folder
    tally.end_scan()
