"""A lock, and what has happened to it, as identities may see it: with the ids of their own sessions alone.

Each id is hidden once, however many identities look: nearly all of them have no session in it, and see the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from lockring.core.access import Grantee, hidden_id
from lockring.ids import SessionId
from lockring.protocol import HolderRecord, LockEvent, LockRecord, WaiterRecord

_Shown = TypeVar("_Shown", HolderRecord, WaiterRecord, LockEvent)


def hides_ids(access: Grantee) -> bool:
    """Return whether the ids of others' sessions are hidden from an identity."""
    return access.is_enforced and not access.permissions.is_admin


class LockView(NamedTuple):
    """A lock and its events as some identity may see them."""

    lock: LockRecord
    events: list[LockEvent]


class LockViews:
    """The views of one lock at one moment. Not safe for use by several tasks.

    Args:
        lock: as an admin may see it.
        events: what has happened to it, in order.
        owners: of each event, the key of the identity to which its session belongs.
        owner_of: returns the key of the identity to which a session belongs, "" if it is not known.
    """

    def __init__(
        self,
        lock: LockRecord,
        events: Sequence[LockEvent],
        owners: Sequence[str],
        owner_of: Callable[[SessionId], str],
    ) -> None:
        self._open = LockView(lock, list(events))
        self._event_owners = owners
        self._owner_of = owner_of
        self._hidden: LockView | None = None
        self._holder_owners: list[str] = []
        self._waiter_owners: list[str] = []
        self._owners: frozenset[str] = frozenset()

    def shown(self, access: Grantee | None) -> LockView:
        """Return what an identity may see; None stands for any client of a server that checks no rights."""
        if access is None or not hides_ids(access):
            return self._open
        hidden = self._hidden if self._hidden is not None else self._hide()
        if access.key not in self._owners:
            return hidden
        return self._with_own(access.key, hidden)

    def _hide(self) -> LockView:
        lock, events = self._open
        self._holder_owners = [self._owner_of(each.session) for each in lock.holders]
        self._waiter_owners = [self._owner_of(each.session) for each in lock.waiters]
        self._owners = frozenset((*self._holder_owners, *self._waiter_owners, *self._event_owners))
        sessions = [each.session for each in lock.holders]
        sessions += [each.session for each in lock.waiters]
        sessions += [each.session for each in events]
        ids = {each: hidden_id(each) for each in dict.fromkeys(sessions)}
        self._hidden = LockView(
            msgspec.structs.replace(
                lock, holders=_hidden(lock.holders, ids), waiters=_hidden(lock.waiters, ids)
            ),
            _hidden(events, ids),
        )
        return self._hidden

    def _with_own(self, key: str, hidden: LockView) -> LockView:
        """Return the view of an identity that has sessions in it. It hides nothing again."""
        lock, events = self._open
        return LockView(
            msgspec.structs.replace(
                lock,
                holders=_chosen(lock.holders, hidden.lock.holders, self._holder_owners, key),
                waiters=_chosen(lock.waiters, hidden.lock.waiters, self._waiter_owners, key),
            ),
            _chosen(events, hidden.events, self._event_owners, key),
        )


def _hidden(records: list[_Shown], ids: Mapping[SessionId, SessionId]) -> list[_Shown]:
    """Return records with other ids of sessions."""
    return [msgspec.structs.replace(each, session=ids[each.session]) for each in records]


def _chosen(shown: list[_Shown], hidden: list[_Shown], owners: Sequence[str], key: str) -> list[_Shown]:
    """Return the records of one identity as they are, and those of others with hidden ids."""
    return [mine if owner == key else other for mine, other, owner in zip(shown, hidden, owners, strict=True)]
