"""The folders that are kept even if they are empty, independent of their owner.

The root is always kept. So are, by default, its direct children and folders that exist by an explicit marker.
Always kept are staging areas of multipart uploads, repositories, a file system's own folders, folders that match a
pattern, and those in a top folder whose policy allows empty folders.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lockring.apps.cleaner.core.words import ROOT, FolderState, Reason, top_of

STAGING: Final = frozenset({".uploads", ".multipart", ".minio.sys"})
"""Names of folders in which object stores assemble the parts of uploads."""

SYSTEM: Final = frozenset({".git", "lost+found", ".snapshot", ".zfs"})
"""Names of folders whose empty subfolders are needed."""


def _nothing(name: str) -> bool:
    return False


class Policy:
    """See the module. Immutable, so safe to share.

    Args:
        is_kept: whether a pattern keeps a folder.
        allows_empty: whether the policy of a top folder allows empty folders in it.
        children: whether the root's direct children may go too.
        markers: whether folders that exist by an explicit marker may go too.
    """

    def __init__(
        self,
        *,
        is_kept: Callable[[str], bool] = _nothing,
        allows_empty: Callable[[str], bool] = _nothing,
        children: bool = False,
        markers: bool = False,
    ) -> None:
        self._is_kept = None if is_kept is _nothing else is_kept
        self._allows_empty = None if allows_empty is _nothing else allows_empty
        self._children = children
        self._markers = markers

    def keeps_below(self, folder: str) -> Reason | None:
        """Return why a folder and all its contents are kept, so that they need no scan; None if they are not."""
        if folder == ROOT:
            return None
        name = folder.rpartition("/")[2]
        if name in STAGING:
            return Reason.MULTIPART
        if name in SYSTEM:
            return Reason.PATTERN
        if self._allows_empty is not None and self._allows_empty(top_of(folder)):
            return Reason.ALLOWED
        if self._is_kept is not None and self._is_kept(folder):
            return Reason.PATTERN
        return None

    def keeps(self, folder: str, look: FolderState) -> Reason | None:
        """Return why an empty folder is kept; None if it may go.

        A scan has checked the folders above already; for a folder from an event they are checked here.
        """
        if folder == ROOT:
            return Reason.ROOT
        if "/" not in folder and not self._children:
            return Reason.TOP
        end = folder.find("/")
        while end != -1:
            if (reason := self.keeps_below(folder[:end])) is not None:
                return reason
            end = folder.find("/", end + 1)
        if (reason := self.keeps_below(folder)) is not None:
            return reason
        if look.is_explicit and not self._markers:
            return Reason.MARKER
        return None
