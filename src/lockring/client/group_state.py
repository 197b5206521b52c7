"""The part of a membership that needs no I/O, and descriptions of groups: the same in both clients."""

from __future__ import annotations

import contextlib
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
from lockring.random_ids import new_id
from lockring.ring.key_ring import KeySet as KeySet
from lockring.ring.key_ring import slot_of_key
from lockring.slots import SLOTS

ChangeCallback = Callable[[KeySet, KeySet], Any]
"""A function that is called with the keys gained and the keys lost: `key in gained`, `key in lost`."""

ChangeCall = tuple[ChangeCallback, KeySet, KeySet]
"""A callback and its arguments."""


class ChangeListener:
    """An `on_change` callback, and the keys that the member owns by the calls made to it.

    No key is reported to it twice, nor the loss of a key that it was never given, whichever changes were on their way
    when it was registered.
    """

    __slots__ = ("_callback", "_known")

    def __init__(self, callback: ChangeCallback) -> None:
        self._callback = callback
        self._known: frozenset[int] = frozenset()

    def calls_for(self, gained: frozenset[int], lost: frozenset[int]) -> list[ChangeCall]:
        """Return the call that reports what is new in a change, or none if nothing is."""
        gained, lost = gained - self._known, lost & self._known
        return [(self._callback, KeySet(gained), KeySet(lost))] if gained or lost else []

    def apply(self, gained: frozenset[int], lost: frozenset[int]) -> None:
        """Count a change as known, once its call is queued."""
        self._known = (self._known | gained) - lost


def member_payload(member_id: str | None, weight: int, payload: bytes) -> tuple[str, bytes]:
    """Return a member's id, drawn at random if None is given, and the payload for its hold on the group's lock.

    Raises:
        InvalidRequest: an argument is malformed.
    """
    member = new_id() if member_id is None else check_member_id(member_id)
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
    """A membership, as the driver sees it: the receiver of news about its group."""

    def _followed(self, core: ClientCore, request: Query) -> None:
        """Remember the request by which `core` follows the group."""

    def _on_ticket_lost(self) -> None:
        """Handle the loss of the membership."""

    def _on_regrouped(self, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        """Handle a change. If it is `awaited`, the group waits until `told` reports that all callbacks returned."""


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A group in a list of groups.

    Attributes:
        name: the group's name.
        members: the number of its members.
        version: the version of its newest view; 0 while its node knows none.
    """

    name: str
    members: int
    version: int


class GroupInfo:
    """A group at one moment, as its node saw it. Immutable.

    Attributes:
        name: the group's name.
        version: the version of its newest view; 0 if its node knows none yet, as happens shortly after a failover.
        settled: whether all members have let go of the keys that this view takes from them.
        members: the members, in the order in which they joined.
        awaited: the ids of the members that have not let go yet.
    """

    def __init__(self, name: str, view: View) -> None:
        self.name = name
        self.version = view.view
        self.settled = view.settled
        self.members: tuple[GroupMember, ...] = tuple(view.members)
        self.awaited: tuple[str, ...] = tuple(view.awaited)
        self._view = GroupView(view.view, self.members)

    def owner(self, key: str) -> str | None:
        """Return the id of the member that should own a key; None if the group is empty."""
        return self._view.ring.owner(key)

    def shares(self) -> dict[str, float]:
        """Return the share of all keys that each member should own, by the member's id: 0.0 to 1.0."""
        counts = self._view.ring.counts()
        return {member: counts.get(member, 0) / SLOTS for member in self._view.by_id}

    def __repr__(self) -> str:
        state = "settled" if self.settled else f"waits for {', '.join(self.awaited)}"
        return f"<GroupInfo {self.name!r} version {self.version}, {len(self.members)} members, {state}>"


class GroupList(list[GroupSummary]):
    """A list of groups, sorted by name.

    Attributes:
        unserved_slots: how many of the cluster's 4096 slots could not be listed. Groups in those slots are missing from
            the list. 0 if the list is complete.
    """

    def __init__(self, groups: Iterable[GroupSummary] = (), unserved_slots: int = 0) -> None:
        super().__init__(groups)
        self.unserved_slots = unserved_slots


def groups_of(locks: LockRecords) -> GroupList:
    """Return the groups among these locks, without those that have no members."""
    found = [summary_of(lock) for lock in locks]
    return GroupList([each for each in found if each is not None], locks.unserved_slots)


def summary_of(lock: LockRecord) -> GroupSummary | None:
    """Return the group to which a lock belongs, None if it has no members."""
    count = sum(membership_of(holder.payload) is not None for holder in lock.holders)
    return GroupSummary(lock.name.removeprefix(GROUP_PREFIX), count, lock.view) if count else None


class MembershipState(ProcessBound):
    """One membership of a group, as far as the client knows it without asking a node."""

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
        """The id of this member."""
        return self._member_id

    @property
    def members(self) -> tuple[GroupMember, ...]:
        """The group's members by the newest view: `id`, `weight`, `payload`, and the `owner` label of the client."""
        return self._following.ownership.view.members

    @property
    def version(self) -> int:
        """The version of the newest view. It only grows."""
        return self._following.ownership.view.number

    @property
    def settled(self) -> bool:
        """Whether the newest view is settled: all members have let go of the keys that it takes from them."""
        return self._following.ownership.settled

    @property
    def owned(self) -> KeySet:
        """The keys that this member owns at this moment, as for `owns`."""
        owned = self._following.ownership.owned
        return KeySet(owned if self.held else frozenset())

    def owner(self, key: str) -> str | None:
        """Return the id of the member that should own a key by the newest view, whether or not that view is settled.

        None while no view is known.
        """
        return self._following.ownership.view.ring.owner(key)

    def owns(self, key: str) -> bool:
        """Return whether this member owns a key at this moment. No two members own a key at once.

        Reads the newest view and the clock, and does no I/O. True once all other members have let go of the key.
        False from the moment a view takes the key away, or the lease may have ended.

        Raises:
            InvalidRequest: the key is not a string.
        """
        owned = self._following.ownership.owned  # before the look at the lease
        return slot_of_key(key) in owned and self.held

    def fence(self, key: str) -> int:
        """Return a fencing number for a key that this member owns, greater than those of all its former owners.

        Pass it to the resource that the key stands for. A resource that remembers the greatest number it has seen can
        refuse a former owner that is late. The number grows with the group's version while the key stays owned.

        Raises:
            NotHeld: this member does not own the key.
            LockLost: the membership was lost.
            InvalidRequest: the key is not a string.
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
            why = f"version {version} gives it to this member, but not every member has let go of it"
        else:
            why = f"version {version} gives it to {owner!r}"
        return NotHeld(
            f"{self._member_id!r} does not own {key!r} in the group {self._group!r}: {why}", name=self._group
        )

    @property
    def held(self) -> bool:
        """Whether the membership lasts at this moment: it was neither left nor lost. Reads the clock; does no I/O."""
        return self._grant.held

    def remaining(self) -> float:
        """Return how long the membership is certain to last if no further renewal succeeds, in seconds.

        0.0 if it is over.
        """
        return self._grant.remaining()

    def check(self) -> Self:
        """Return the membership if it lasts.

        Raises:
            LockLost: the membership was lost; reason "replaced" if another member joined under its id.
            NotHeld: the membership was left.
        """
        with self._as_membership():
            self._grant.check()
        return self

    @contextlib.contextmanager
    def _as_membership(self) -> Iterator[None]:
        """Turn errors about the group's lock into errors about the membership."""
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
        """Return the newest view's version if the view is settled, has this member and is at least `least`."""
        standing = self._following.ownership
        generation = self._grant._ticket.generation
        if standing.view.number < least or not standing.settled or not standing.view.has(generation):
            if self._following.ended:
                raise self._over()
            return None
        return standing.view.number

    def _first_version(self) -> int | None:
        """Return the newest view's version, None while no view is known."""
        if self._following.ended:
            raise self._over()
        return self._following.ownership.view.number or None

    def _too_late(self, what: str, waits: Sequence[Wait]) -> LockringError:
        """Return the error of a wait that took too long: `Unavailable` in an outage, else `AcquireTimeout`.

        Args:
            what: what the membership lacks, as part of the error's sentence.
            waits: the reasons for which the client's calls wait.
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
    """Return the least version after a given one; 0 for None.

    Raises:
        InvalidRequest: `after` is not a version.
    """
    if after is None:
        return 0
    if type(after) is not int or after < 0:
        raise InvalidRequest(f"after is a version of the group, a whole number from 0 on, not {after!r}")
    return after + 1


def check_change_callback(callback: ChangeCallback) -> None:
    """Check an `on_change` callback.

    Raises:
        InvalidRequest: it cannot be called.
    """
    if not callable(callback):
        raise InvalidRequest(f"on_change takes a function, not {callback!r}")
