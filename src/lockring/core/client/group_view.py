"""A group, as one of its members knows it: the newest view, and the keys that the member owns by it.

Rules:

- A view older than the newest one is ignored: view numbers only grow.
- Keys that a new view takes from the member stop being its own at once. The member acknowledges the view only after
  that, once the program above has let go of them.
- Keys that a view gives to the member become its own once the view is settled: every member that may have owned them
  has seen the view, or is gone. Keys that the member had before and is given again stay its own without interruption.
  No other member can have got them in between, since that takes a settled view, and no view settles without this
  member.
- All this lasts only while the membership is held, by the clock (`ClientCore.owned`).

So two members never own one key at the same time, however late messages are, and without any clock but the leases'.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from lockring.core.client.tickets import Ticket
from lockring.errors import LockringError
from lockring.ids import NO_GENERATION, Generation
from lockring.protocol import GroupMember
from lockring.ring.key_ring import KeyRing

NO_SLOTS: Final[frozenset[int]] = frozenset()


class GroupView:
    """One view of a group. Immutable, safe to share between threads.

    Attributes:
        number: greater than that of every earlier view of the group; 0 for none.
        members: in the order in which they joined.
    """

    def __init__(self, number: Generation, members: tuple[GroupMember, ...]) -> None:
        self.number = number
        self.members = members

    @cached_property
    def by_id(self) -> dict[str, GroupMember]:
        """The members by their ids. Of two with one id the newer one counts: it has taken over."""
        found: dict[str, GroupMember] = {}
        for member in self.members:
            known = found.get(member.id)
            if known is None or known.fencing_token < member.fencing_token:
                found[member.id] = member
        return found

    @cached_property
    def ring(self) -> KeyRing:
        """Which member should own which keys."""
        return KeyRing({member.id: member.weight for member in self.by_id.values()})

    def given_to(self, generation: Generation) -> frozenset[int]:
        """Return the slots that the view gives to the member with this token: none if it is absent or replaced."""
        for member in self.by_id.values():
            if member.fencing_token == generation:
                return self.ring.slots_of(member.id)
        return NO_SLOTS

    def has_replaced(self, generation: Generation) -> bool:
        """Return whether the view lists the member with this token beside a newer one with the same id."""
        replaced = next((member for member in self.members if member.fencing_token == generation), None)
        return replaced is not None and self.by_id[replaced.id].fencing_token > generation

    def has(self, generation: Generation) -> bool:
        """Return whether the view lists the member with this token."""
        return any(member.fencing_token == generation for member in self.members)


class KeyOwnership(NamedTuple):
    """The slots that a member owns, and by which view. A value, so that any thread may read it without a lock.

    Attributes:
        view: the newest view.
        settled: whether it is settled.
        owned: the slots that the member owns, as long as its membership is held.
    """

    view: GroupView
    settled: bool
    owned: frozenset[int]


NO_OWNERSHIP: Final = KeyOwnership(GroupView(NO_GENERATION, ()), False, NO_SLOTS)


class GroupSubscription(msgspec.Struct, eq=False):
    """A member's subscription to its group. Shells read it; only the core changes it, but for `has_callback`.

    Attributes:
        ticket: the membership: a shared holding of the group's lock.
        ownership: what the member owns.
        seen: number of the newest view that the member has acknowledged.
        has_callback: whether the program above hears of changes, so that acknowledgements wait for its callbacks.
        callbacks_pending: changes handed to the shell whose callbacks have not finished.
        ended: whether no change will come any more.
        error: why it ended, if not with the membership.
    """

    ticket: Ticket
    ownership: KeyOwnership = NO_OWNERSHIP
    seen: Generation = NO_GENERATION
    has_callback: bool = False
    callbacks_pending: int = 0
    ended: bool = False
    error: LockringError | None = None

    def apply_view(self, view: GroupView, settled: bool) -> tuple[frozenset[int], frozenset[int]]:
        """Apply a view that is not older than the present one; return the slots gained and lost by it."""
        before = self.ownership.owned
        given = view.given_to(self.ticket.generation)
        # Until the view is settled, another member may still own what it newly gives.
        owned = given if settled else before & given
        self.ownership = KeyOwnership(view, settled, owned)
        return owned - before, before - owned

    def end(self) -> frozenset[int]:
        """End the subscription; return the slots that were owned."""
        before = self.ownership
        # In this order: another thread that sees the end sees no keys either.
        self.ownership = KeyOwnership(before.view, False, NO_SLOTS)
        self.ended = True
        return before.owned
