"""The ownership of a worker in a group: the group's ring assigns the folders.

`rejoin` replaces a membership that was lost (the cluster could not be reached for longer than its lease). Until
then the worker owns nothing, and so removes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from lockring.apps.cleaner.ownership import owner_key
from lockring.errors import LockLost, NotHeld

REPLACED: Final = "replaced"
"""Reason of a loss: another member has taken over the id."""


class FolderMember(Protocol):
    """The part of a `lockring.Membership` that is used here."""

    def fence(self, key: str) -> int:
        """Return the version of the view by which a key is owned."""

    def on_change(self, callback: Callable[[Any, Any], Any]) -> object:
        """Register a callback for gained and lost keys."""

    def check(self) -> object:
        """Raise an error if the membership is over."""

    def leave(self) -> Any:
        """End the membership."""


class GroupOwnership:
    """See the module. Thread-safe.

    Args:
        join: joins the group; called again after each loss of the membership.
        worker: the member's id.
    """

    def __init__(self, join: Callable[[], FolderMember], worker: str) -> None:
        self.worker = worker
        self._join = join
        self._callbacks: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._member: FolderMember | None = None
        self.rejoin()

    def fence(self, folder: str) -> int | None:
        """See `Ownership`: the version of the group's view."""
        member = self._member
        if member is None:
            return None
        try:
            return member.fence(owner_key(folder))
        except (NotHeld, LockLost):
            return None

    def on_change(self, callback: Callable[[], None]) -> None:
        """See `Ownership`. Lost folders go to other workers only once the callback has returned."""
        with self._lock:
            self._callbacks.append(callback)

    def rejoin(self) -> bool:
        """Join if there is no membership, or if it was lost.

        Returns:
            Whether there was none.

        Raises:
            LockLost: another process has taken this member's place.
            LockringError: joining failed; try again later.
        """
        if self._member is not None:
            try:
                self._member.check()
                return False
            except LockLost as error:
                if error.reason == REPLACED:
                    raise LockLost(
                        f"another worker named {self.worker!r} has taken this one's place: give each its own name with --worker",
                        name=error.name,
                        reason=REPLACED,
                    ) from error
                self._member = None
                self._changed()
        member = self._join()
        # Before any folder is owned: their next owner waits for these calls, and so for a removal in progress.
        member.on_change(lambda gained, lost: self._changed())
        self._member = member
        self._changed()
        return True

    def leave(self) -> None:
        """End the membership: other workers take over its folders."""
        member, self._member = self._member, None
        if member is not None:
            member.leave()

    def _changed(self) -> None:
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()
