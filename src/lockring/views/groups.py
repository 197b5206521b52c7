"""Groups: which there are, and which member owns which share of the keys."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lockring.names import GROUP_PREFIX
from lockring.protocol import View
from lockring.ring.key_ring import KeyRing
from lockring.slots import SLOTS
from lockring.terminals import command
from lockring.views.locks import LocksView


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group on the page of groups.

    Attributes:
        name: its name.
        members: how many members it has.
        primary: the node that keeps its lock.
    """

    name: str
    members: int
    primary: str


@dataclass(frozen=True, slots=True)
class GroupsView:
    """A page of groups, by name.

    Attributes:
        groups: see above.
        after: the name behind which the next page begins, "" if this is the last one.
        unserved_slots: slots that no node could search; groups in them are missing.
        command: the command that shows the same.
    """

    groups: list[GroupRow]
    after: str
    unserved_slots: int
    command: str


@dataclass(frozen=True, slots=True)
class GroupMemberView:
    """A member of a group.

    Attributes:
        id: its id.
        owner: its client's label.
        weight: its share relative to the others.
        fencing_token: of its membership.
        key_slots: slots of keys that the newest view gives it.
        share: the same as a fraction of all, 0 to 1.
        is_awaited: whether it has not yet let go of what the newest view takes from it.
        colour: the number of its colour.
    """

    id: str
    owner: str
    weight: int
    fencing_token: int
    key_slots: int
    share: float
    is_awaited: bool
    colour: int


@dataclass(frozen=True, slots=True)
class OneGroupView:
    """One group.

    Attributes:
        name: its name.
        version: of its view, 0 before the first.
        is_settled: whether every key has left its former owner.
        summary: the same as a sentence.
        members: by id.
        lock: the name of its lock.
        command: the command that shows the same.
    """

    name: str
    version: int
    is_settled: bool
    summary: str
    members: list[GroupMemberView]
    lock: str
    command: str


def groups_view(locks: LocksView) -> GroupsView:
    """Return a page of groups, made of a page of their locks."""
    return GroupsView(
        groups=[GroupRow(each.group, each.holders, each.primary) for each in locks.locks],
        after=locks.after.removeprefix(GROUP_PREFIX),
        unserved_slots=locks.unserved_slots,
        command=command("groups"),
    )


def group_view(name: str, view: View, colours: int) -> OneGroupView:
    """Return one group, whose members have so many colours."""
    awaited = frozenset(view.awaited)
    owners = Counter(KeyRing({each.id: each.weight for each in view.members}).owners) if view.members else {}
    members = [
        GroupMemberView(
            id=each.id,
            owner=each.owner,
            weight=each.weight,
            fencing_token=each.fencing_token,
            key_slots=owners.get(each.id, 0),
            share=owners.get(each.id, 0) / SLOTS,
            is_awaited=each.id in awaited,
            colour=place % colours,
        )
        for place, each in enumerate(sorted(view.members, key=lambda each: each.id))
    ]
    if not members:
        summary = "It has no members."
    elif view.settled:
        summary = "Settled: each key is with its owner."
    else:
        names = ", ".join(sorted(awaited)) or "some members"
        summary = f"Not settled: {names} have not yet let go of keys."
    return OneGroupView(
        name=name,
        version=view.view,
        is_settled=view.settled,
        summary=summary,
        members=members,
        lock=GROUP_PREFIX + name,
        command=command("group", name),
    )
