"""The ownership of a worker in a group: the group's ring says which folders are its own.

A membership that was lost (the cluster could not be reached for longer than its lease) is taken up again by
`rejoin`. Until then the worker owns nothing, and so removes nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol

from lockring.apps.cleaner.ownership import owner_key
from lockring.errors import LockLost, NotHeld

REPLACED: Final = "replaced"
"""Why a membership is lost whose id another member has taken over."""


class FolderMember(Protocol):
    """What is used of a `lockring.Membership`."""

    def fence(self, key: str) -> int:
        """The version of the view by which a key is owned."""

    def on_change(self, callback: Callable[[Any, Any], Any]) -> object:
        """Call back with what was gained and lost."""

    def check(self) -> object:
        """Raise if the membership is over."""

    def leave(self) -> Any:
        """End it."""


class GroupOwnership:
    """See the module. Safe for use by several threads.

    Args:
        join: joins the group; called again whenever the membership was lost.
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
        """See `Ownership`. What was lost goes to others only once the callback has returned."""
        with self._lock:
            self._callbacks.append(callback)

    def rejoin(self) -> bool:
        """Join if there is no membership, or it was lost.

        Returns:
            Whether there was none.

        Raises:
            LockLost: another process has taken this member's place.
            LockringError: joining failed; it can be tried again.
        """
        if self._member is not None:
            try:
                self._member.check()
                return False
            except LockLost as error:
                if error.reason == REPLACED:
                    raise LockLost(
                        f"another worker calls itself {self.worker!r} and has taken this one's place: each needs a name of its own (--worker)",
                        name=error.name,
                        reason=REPLACED,
                    ) from error
                self._member = None
                self._changed()
        member = self._join()
        # Before anything is owned: whoever takes a folder from this worker waits for these calls, and so for a removal under way.
        member.on_change(lambda gained, lost: self._changed())
        self._member = member
        self._changed()
        return True

    def leave(self) -> None:
        """End the membership: the others take over what was owned."""
        member, self._member = self._member, None
        if member is not None:
            member.leave()

    def _changed(self) -> None:
        with self._lock:
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()
