"""The clients' part of the cluster state: all routes when they connect, then what changes.

Every client on a connection has been sent each version of the routes, in order. So one difference fits all that
understand it, and it is made once. Nothing is made for a server without clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from lockring.cluster_state import ClusterState, Replica, routes_of
from lockring.core.digest import slot_factors
from lockring.core.effects import Broadcast, Effect
from lockring.core.route_differences import (
    DIGEST_MASK,
    NO_PLACE,
    content_of_routes,
    digest_of_routes,
    mark_of_member,
    mark_of_primary,
    packed_slots,
)
from lockring.ids import NO_VERSION, ConnectionId, SlotNumber
from lockring.protocol import Routes, RoutesDifference
from lockring.slots import all_slots


class RouteBook:
    """The routes of the newest state, as messages. Not safe for use by several tasks.

    Attributes:
        difference: the step to the present routes from those before; None if no client has been sent any before.
    """

    def __init__(self) -> None:
        self.difference: RoutesDifference | None = None
        self._state = ClusterState()
        self._version = NO_VERSION
        self._is_used = False
        self._content: int | None = None
        self._whole: Routes | None = None

    def whole(self) -> Routes:
        """Return all routes, made once. From now on the differences from them are made."""
        if self._whole is None:
            if not self._is_used:
                self._is_used, self._version = True, self._state.version
            self._whole = msgspec.structs.replace(routes_of(self._state), version=self._version)
        return self._whole

    def learn(self, new: ClusterState, changed: Sequence[SlotNumber] | None = None) -> bool:
        """Go on to a newer state, and return whether clients need to hear of it.

        Args:
            new: the state.
            changed: the slots that differ from the state that was learned last, and others perhaps; None if unknown.
        """
        old, self._state = self._state, new
        if changed is None:
            changed = [number for number in all_slots() if old.slots[number] is not new.slots[number]]
        gone, members = _members_between(old, new)
        slots = _slots_between(old, new, changed, is_member_gone=bool(gone))
        if not gone and not members and not slots and old.coordinator == new.coordinator:
            return False
        if self._is_used:
            self.difference = self._difference(old, new, gone, members, slots)
            self._version, self._whole = new.version, None
        return True

    def _difference(
        self,
        old: ClusterState,
        new: ClusterState,
        gone: list[tuple[Replica, str]],
        members: list[tuple[Replica, str]],
        slots: list[SlotNumber],
    ) -> RoutesDifference:
        """Make the step from the routes that clients have."""
        content, factors = self._content, slot_factors()
        if content is None:
            content = content_of_routes(
                [_primary(old, number) for number in range(len(old.slots))], _members(old)
            )
        content += sum([mark_of_member(*each) for each in members]) - sum(
            [mark_of_member(*each) for each in gone]
        )
        places: dict[Replica, int] = {}
        pairs: list[tuple[SlotNumber, int]] = []
        for number in slots:
            before, after = _primary(old, number), _primary(new, number)
            content += (mark_of_primary(after) - mark_of_primary(before)) * factors[number]
            pairs.append((number, NO_PLACE if after is None else places.setdefault(after, len(places))))
        digest = digest_of_routes(new.version, new.coordinator, content)
        self._content = content & DIGEST_MASK
        return RoutesDifference(
            base=self._version,
            version=new.version,
            digest=digest,
            coordinator=new.coordinator,
            gone=[(replica.node, replica.incarnation) for replica, _ in gone],
            members=[(replica.node, replica.incarnation, address) for replica, address in members],
            primaries=[(replica.node, replica.incarnation) for replica in places],
            slots=packed_slots(pairs),
        )


def routes_for_all(
    clients: Mapping[ConnectionId, bool], book: RouteBook, *, has_any: bool = True
) -> list[Effect]:
    """Return what sends the present routes to all clients: a difference to those that take it, all to the others.

    Args:
        clients: the connections, each with whether it takes differences.
        book: the routes.
        has_any: whether the clients have been sent the routes before these.
    """
    effects: list[Effect] = []
    step = book.difference if has_any else None
    following = tuple([connection for connection, takes_differences in clients.items() if takes_differences])
    if step is None:
        following = ()
    elif following:
        effects.append(Broadcast(following, step))
    if len(following) < len(clients):
        others = tuple([each for each in clients if step is None or not clients[each]])
        effects.append(Broadcast(others, book.whole()))
    return effects


def _members(state: ClusterState) -> list[tuple[Replica, str]]:
    return [(member.replica, member.address) for member in state.members.values()]


def _members_between(
    old: ClusterState, new: ClusterState
) -> tuple[list[tuple[Replica, str]], list[tuple[Replica, str]]]:
    """Return the members that clients must forget, and those that they must learn of."""
    if old.members is new.members:
        return [], []
    before, after = dict.fromkeys(_members(old)), dict.fromkeys(_members(new))
    return [each for each in before if each not in after], [each for each in after if each not in before]


def _primary(state: ClusterState, number: int) -> Replica | None:
    """Return the primary of a slot as clients see it: a former life of a member is none."""
    primary = state.slots[number].primary
    return primary if primary is not None and state.is_current(primary) else None


def _slots_between(
    old: ClusterState, new: ClusterState, changed: Sequence[SlotNumber], *, is_member_gone: bool
) -> list[SlotNumber]:
    """Return the slots that have another primary for clients."""
    if is_member_gone or len(new.members) > len(old.members):
        # A slot may name a life that has just become, or ceased to be, a member's.
        return [
            SlotNumber(number)
            for number in range(len(new.slots))
            if old.slots[number].primary != new.slots[number].primary
            or _primary(old, number) != _primary(new, number)
        ]
    return [number for number in changed if _primary(old, number) != _primary(new, number)]
