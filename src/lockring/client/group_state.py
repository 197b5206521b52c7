"""What both clients say of groups: who is in one, and the part of a membership that needs no I/O."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from lockring.client.grant_state import GrantState
from lockring.client.process_bound import ProcessBound
from lockring.core.client import REPLACED, ClientCore, GroupSubscription, GroupView, Query, Wait
from lockring.errors import AcquireTimeout, InvalidRequest, LockLost, LockringError, NotHeld, Unavailable
from lockring.names import GROUP_PREFIX, check_member_id
from lockring.protocol import (
    MEMBER_PAYLOAD_BYTES_MAX,
    WEIGHT_MAX,
    LockRecord,
    LockRecords,
    MemberRecord,
    View,
    membership_of,
    payload_of,
)
from lockring.protocol import GroupMember as GroupMember
from lockring.ring.key_ring import KeySet as KeySet
from lockring.ring.key_ring import slot_of_key
from lockring.slots import SLOTS

ChangeCallback = Callable[[KeySet, KeySet], Any]
"""Called with the keys that were gained and those that were lost: `key in gained`, `key in lost`."""


def member_payload(member_id: str | None, weight: int, payload: bytes) -> tuple[str, bytes]:
    """A member's id, drawn at random if none is given, and what its holding of the group's lock says of it.

    Raises:
        InvalidRequest: one of the three is not of the form it must have.
    """
    member = secrets.token_hex(8) if member_id is None else check_member_id(member_id)
    if type(weight) is not int or not 1 <= weight <= WEIGHT_MAX:
        raise InvalidRequest(
            f"the weight of {member!r} is a whole number from 1 to {WEIGHT_MAX}, not {weight!r}"
        )
    if not isinstance(payload, bytes):
        raise InvalidRequest(f"the payload of {member!r} is bytes, not {type(payload).__name__}")
    if len(payload) > MEMBER_PAYLOAD_BYTES_MAX:
        raise InvalidRequest(
            f"a member's payload has at most {MEMBER_PAYLOAD_BYTES_MAX} bytes; that of {member!r} has {len(payload)}"
        )
    return member, payload_of(MemberRecord(member, weight, payload))


class GroupListener(Protocol):
    """A member of a group, as the one that hears of changes in it."""

    def _followed(self, core: ClientCore, request: Query) -> None:
        """It follows its group by this request to this core."""

    def _on_ticket_lost(self) -> None:
        """Its membership was lost."""

    def _on_regrouped(self, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        """Something has changed; if it is `awaited`, `told` is to be called once the program knows."""


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A group, seen from far.

    Attributes:
        name: its name.
        members: how many it has.
        version: number of its newest view, 0 while none is known at its node.
    """

    name: str
    members: int
    version: int


class GroupInfo:
    """A group as its node sees it, for who is no member of it. Immutable.

    Attributes:
        name: its name.
        version: number of its newest view; 0 if its node knows of none yet, as shortly after a failover.
        settled: whether all members have seen that view.
        members: in the order in which they joined.
        awaited: ids of the members that have not seen it.
    """

    def __init__(self, name: str, view: View) -> None:
        self.name = name
        self.version = view.view
        self.settled = view.settled
        self.members: tuple[GroupMember, ...] = tuple(view.members)
        self.awaited: tuple[str, ...] = tuple(view.awaited)
        self._view = GroupView(view.view, self.members)

    def owner(self, key: str) -> str | None:
        """Id of the member that should own a key; None if the group is empty."""
        return self._view.ring.owner(key)

    def shares(self) -> dict[str, float]:
        """Which part of all keys each member should own, by id: 0.0 to 1.0."""
        counts = self._view.ring.counts()
        return {member: counts.get(member, 0) / SLOTS for member in self._view.by_id}

    def __repr__(self) -> str:
        state = "settled" if self.settled else f"waits for {', '.join(self.awaited)}"
        return f"<GroupInfo {self.name!r} version {self.version}, {len(self.members)} members, {state}>"


class GroupList(list[GroupSummary]):
    """Groups that were found, by name.

    Attributes:
        unserved_slots: how many of the cluster's 4096 slots no node could tell of: groups that are kept there are missing here. 0
            if the list is whole.
    """

    def __init__(self, groups: Iterable[GroupSummary] = (), unserved_slots: int = 0) -> None:
        super().__init__(groups)
        self.unserved_slots = unserved_slots


def groups_of(locks: LockRecords) -> GroupList:
    """The groups among these locks that have members."""
    found = [summary_of(lock) for lock in locks]
    return GroupList([each for each in found if each is not None], locks.unserved_slots)


def summary_of(lock: LockRecord) -> GroupSummary | None:
    """The group whose lock this is, None if it has no members."""
    count = sum(membership_of(holder.payload) is not None for holder in lock.holders)
    return GroupSummary(lock.name.removeprefix(GROUP_PREFIX), count, lock.view) if count else None


class MembershipState(ProcessBound):
    """One membership of a group, as far as it can be told without asking anyone."""

    _instead = "pass the addresses of the servers and the group's name, and join it there"
    _grant: GrantState
    _request: Query

    def __init__(self, group: str, member_id: str) -> None:
        self._group = group
        self._member_id = member_id

    @property
    def _following(self) -> GroupSubscription:
        following = self._request.subscription
        assert following is not None
        return following

    @property
    def name(self) -> str:
        """The group's name."""
        return self._group

    @property
    def member_id(self) -> str:
        """This member's id."""
        return self._member_id

    @property
    def members(self) -> tuple[GroupMember, ...]:
        """Who is in the group by the newest view: `id`, `weight`, `payload`, and the `owner` label of its client."""
        return self._following.ownership.view.members

    @property
    def version(self) -> int:
        """Number of the newest view; it only grows."""
        return self._following.ownership.view.number

    @property
    def settled(self) -> bool:
        """Whether the newest view is settled: all its members have let go of what it takes from them."""
        return self._following.ownership.settled

    @property
    def owned(self) -> KeySet:
        """The keys that are this member's own at this moment."""
        owned = self._following.ownership.owned
        return KeySet(owned if self.held else frozenset())

    def owner(self, key: str) -> str | None:
        """Id of the member that should own a key by the newest view, whether or not that is settled; None if nobody should."""
        return self._following.ownership.view.ring.owner(key)

    def owns(self, key: str) -> bool:
        """Whether a key is this member's own at this moment: nobody else's `owns` says so too.

        By what was last heard and a look at the clock; nobody is asked. False from the moment a view takes the key away, or the
        lease is not surely ours any more; True once everybody else has let go of it.

        Raises:
            InvalidRequest: it is no text.
        """
        owned = self._following.ownership.owned  # before the look at the lease
        return slot_of_key(key) in owned and self.held

    def fence(self, key: str) -> int:
        """A number for a key that this member owns, greater than all that former owners of the key ever got.

        Give it to the resource that the key stands for, which can then refuse a former owner that is late. It
        grows while the key is owned, with the group's version.

        Raises:
            NotHeld: the key is not this member's own.
            LockLost: the membership is lost.
            InvalidRequest: it is no text.
        """
        standing = self._following.ownership
        if slot_of_key(key) not in standing.owned:
            raise self._not_owned(key)
        self.check()
        return standing.view.number

    def _not_owned(self, key: str) -> LockringError:
        following = self._following
        if following.error is not None:
            return following.error
        self.check()
        view = following.ownership.view
        owner, version = view.ring.owner(key), view.number
        if owner is None:
            why = "no view of the group has come yet"
        elif owner == self._member_id and view.has(self._grant._ticket.generation):
            why = f"version {version} gives it to this member, but not everybody has let go of it"
        else:
            why = f"version {version} gives it to {owner!r}"
        return NotHeld(
            f"{self._member_id!r} does not own {key!r} in the group {self._group!r}: {why}", name=self._group
        )

    @property
    def held(self) -> bool:
        """Whether this is still a member: it has neither left nor lost its lease, by a look at the clock."""
        return self._grant.held

    def remaining(self) -> float:
        """For how many seconds this is surely a member, should nothing be heard from the cluster any more; 0.0 if it is none."""
        return self._grant.remaining()

    def check(self) -> Self:
        """Return the membership if it is held.

        Raises:
            LockLost: it was lost; reason "replaced" if another member has taken its id over.
            NotHeld: it was left.
        """
        with self._as_membership():
            self._grant.check()
        return self

    @contextlib.contextmanager
    def _as_membership(self) -> Iterator[None]:
        """Say of the membership what is said of the lock that it is a holding of."""
        who = f"the membership of {self._member_id!r} in the group {self._group!r}"
        try:
            yield
        except LockLost as error:
            why = LockLost.explained(error.reason)
            if error.reason == REPLACED:
                why = f"{REPLACED}: another member has joined under the id {self._member_id!r}"
            raise LockLost(f"{who} was lost: {why}", name=self._group, reason=error.reason) from None
        except NotHeld:
            raise NotHeld(f"{who} was left", name=self._group) from None

    def _settled_version(self, least: int) -> int | None:
        """The version, if it is settled, has this member and is `least` or more."""
        standing = self._following.ownership
        generation = self._grant._ticket.generation
        if standing.view.number < least or not standing.settled or not standing.view.has(generation):
            if self._following.ended:
                raise self._over()
            return None
        return standing.view.number

    def _first_version(self) -> int | None:
        """The version, once there is one."""
        if self._following.ended:
            raise self._over()
        return self._following.ownership.view.number or None

    def _too_late(self, what: str, waits: Sequence[Wait]) -> LockringError:
        """Why a wait in the group has ended without what was waited for: other members, or an outage.

        Args:
            what: what the membership lacks.
            waits: what the client's calls wait for.
        """
        text = f"{self._member_id!r} joined the group {self._group!r}, but it {what} in time"
        for wait in waits:
            if wait.name == self._request.name and wait.reason not in ("held", "failover"):
                return Unavailable(
                    f"{text}: {wait.text}", name=self._group, reason=wait.reason, since_s=wait.since_s
                )
        if not self._following.ownership.view.number:
            return Unavailable(text, name=self._group)
        return AcquireTimeout(text, name=self._group)

    def _over(self) -> LockringError:
        if self._following.error is not None:
            return self._following.error
        try:
            self.check()
        except LockringError as error:
            return error
        return NotHeld(f"{self._member_id!r} is leaving the group {self._group!r}", name=self._group)

    def __repr__(self) -> str:
        standing = self._following.ownership
        state = f"version {standing.view.number}, {'settled' if standing.settled else 'not settled'}"
        return (
            f"<Membership {self._member_id!r} of {self._group!r}, {state}, {'held' if self.held else 'over'}>"
        )


def least_version(after: int | None) -> int:
    """The least version that is after one, which may be None for any.

    Raises:
        InvalidRequest: it is no version.
    """
    if after is None:
        return 0
    if type(after) is not int or after < 0:
        raise InvalidRequest(f"after is a version of the group, a whole number from 0 on, not {after!r}")
    return after + 1


def check_change_callback(callback: ChangeCallback) -> None:
    """Raise InvalidRequest for what cannot be called."""
    if not callable(callback):
        raise InvalidRequest(f"on_change takes a function, not {callback!r}")
