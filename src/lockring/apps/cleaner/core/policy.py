"""Which folders are kept even if they are empty, whoever owns them.

Never the root. Not its direct children, unless asked. Not what lies in staging areas of multipart uploads, in a
repository or in what a file system keeps for itself. Not what a pattern names, nor what is in a top folder whose
policy is to allow empty folders. Not a folder that exists by an explicit marker, unless asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lockring.apps.cleaner.core.words import ROOT, FolderState, Reason, top_of

STAGING: Final = frozenset({".uploads", ".multipart", ".minio.sys"})
"""Names of folders in which object stores put the parts of uploads together."""

SYSTEM: Final = frozenset({".git", "lost+found", ".snapshot", ".zfs"})
"""Names of folders that need their empty folders."""


def _nothing(name: str) -> bool:
    return False


class Policy:
    """See the module. Immutable, so safe to share.

    Args:
        is_kept: whether a pattern keeps a folder.
        allows_empty: whether the policy of a top folder is to allow empty folders in it.
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
        """Why a folder and everything in it is kept; None if it is not. What is kept so need not be scanned."""
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
        """Why an empty folder is kept; None if it may go.

        A scan has looked at the folders above already; for a folder from an event they are looked at here.
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
