"""What a member knows of its group: the newest view, and which keys are its own by it.

Rules:

- A view that is older than the newest one is ignored: numbers only grow.
- What a new view does not give the member is not its own any more, at once. Only then, and once the program above has let go
  of it, does the member say that it has seen the view.
- What a view gives the member is its own once the view is settled: everybody who may have owned it has seen the view, or is
  gone. What was its own before, and is given to it again, stays its own without interruption: nobody else can have got it,
  since that would have taken a settled view, and no view settles without this member.
- All that only while the membership is held, by the clock (`ClientCore.owns`).

So two members never own one key at the same time, however late messages are, and without any clock but those of the leases.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from lockring.core.client.tickets import Ticket
from lockring.errors import LockringError
from lockring.protocol import GroupMember
from lockring.ring.key_ring import KeyRing

NOTHING: Final[frozenset[int]] = frozenset()


class GroupView:
    """One view of a group. Immutable, safe to share between threads.

    Attributes:
        number: greater than that of every earlier view of the group; 0 for none.
        members: in the order in which they joined.
    """

    def __init__(self, number: int, members: tuple[GroupMember, ...]) -> None:
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

    def given_to(self, generation: int) -> frozenset[int]:
        """The slots that the view gives to the member with this token; none if it is not in it, or replaced."""
        for member in self.by_id.values():
            if member.fencing_token == generation:
                return self.ring.slots_of(member.id)
        return NOTHING

    def has_replaced(self, generation: int) -> bool:
        """Whether the member with this token is in it, beside a newer one with the same id."""
        replaced = next((member for member in self.members if member.fencing_token == generation), None)
        return replaced is not None and self.by_id[replaced.id].fencing_token > generation

    def has(self, generation: int) -> bool:
        """Whether the member with this token is in it."""
        return any(member.fencing_token == generation for member in self.members)


class KeyOwnership(NamedTuple):
    """Where a member stands. A value, so that any thread may look at it without a lock.

    Attributes:
        view: the newest view.
        settled: whether it is settled.
        owned: the slots that are the member's own, as long as its membership is held.
    """

    view: GroupView
    settled: bool
    owned: frozenset[int]


NO_STANDING: Final = KeyOwnership(GroupView(0, ()), False, NOTHING)


class GroupSubscription(msgspec.Struct, eq=False):
    """A member's following of its group. Read it, but let only the core change it.

    Attributes:
        ticket: the membership: a shared holding of the group's lock.
        standing: where it stands.
        seen: number of the newest view that it has said, or will say, to have seen.
        telling: whether the program above wants to be told, so that changes wait until it was.
        untold: changes that were given to the shell and that it has not yet told the program of.
        over: whether nothing more is to come of it.
        error: why it ended, if not with the membership.
    """

    ticket: Ticket
    standing: KeyOwnership = NO_STANDING
    seen: int = 0
    telling: bool = False
    untold: int = 0
    over: bool = False
    error: LockringError | None = None

    def take(self, view: GroupView, settled: bool) -> tuple[frozenset[int], frozenset[int]]:
        """Take a view in that is not older than the present one; returns which slots were gained and lost by that."""
        before = self.standing.owned
        given = view.given_to(self.ticket.generation)
        owned = given if settled else before & given
        self.standing = KeyOwnership(view, settled, owned)
        return owned - before, before - owned

    def end(self) -> frozenset[int]:
        """Own nothing any more; returns which slots that were."""
        before = self.standing
        self.over = True
        self.standing = KeyOwnership(before.view, False, NOTHING)
        return before.owned
