"""A node's part in groups: the primary of a group's lock numbers the views of its members.

A group's members are the shared holders of its lock whose payload says so. Rules:

- A view is the list of the members at one moment. Its number is a fresh generation of the slot, so it is greater
  than every earlier one, over failovers and the loss of everything. The copies get it as a mutation
  (`AdvanceGeneration`), and the view goes out once those that must acknowledge it have it, and so has the journal, if
  the node may then still serve the slot: like a grant.
- Changes are batched, so that a restart of many members costs a few views and not one for each: a new view is formed
  `group_window_ns` after the last change, `group_window_max_ns` after the first one at the latest. Where there is no
  view yet, or it is empty, at once.
- A view is *settled* once each of its members has seen it or is gone. A member that joins later is not in the view, and
  owns no keys that it could give away. A member is gone when its hold on the lock was dropped: if it released the lock,
  it had let go of its keys before; if it expired, it knew that before the node did (`P4`). The notice of a settled view
  is sent only while the node may serve the slot: otherwise the member may live on at another node.
- A node knows a group only while a member follows it. A new primary forms its own view when the first member comes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lockring.core.deadline_queue import DeadlineQueue
from lockring.core.node.clients import ConnectedClient, ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.generations import Generations
from lockring.core.node.lock_events import LockEvents
from lockring.core.node.locks import LockHolder
from lockring.core.node.slot import NodeSlot
from lockring.errors import InvalidRequest, NotHeld, Overloaded
from lockring.ids import NO_GENERATION, ConnectionId, Generation, LockName, RequestNumber, SlotNumber
from lockring.names import GROUP_PREFIX, check_lock_name
from lockring.protocol import (
    MEMBERS_MAX,
    AdvanceGeneration,
    DescribeGroup,
    FollowGroup,
    GroupMember,
    Mode,
    SettlementNotice,
    View,
    ViewAck,
    membership_of,
)
from lockring.slots import slot_of
from lockring.units import NS_PER_MS

RETRY_NS: Final = 100 * NS_PER_MS
"""Pause until a view is tried again for which the slot had no generation left."""

VIEW_BYTES_PER_TURN: Final = 1024 * 1024
"""About how much a node sends of one view in a turn; the rest follows in the next ones, so that the view of a large
group neither delays other clients nor fills the memory."""

_MEMBER_BYTES: Final = 64

FOLLOWS_MAX: Final = 10_000
"""Groups that one connection follows."""


class GroupFollower:
    """A member that wants the views, and what it has got."""

    __slots__ = ("holder", "settled", "view")

    def __init__(self, holder: LockHolder) -> None:
        self.holder = holder
        self.view = -1
        self.settled = False


class FollowedGroup:
    """A group with at least one follower here.

    Attributes:
        name: of its lock.
        view: number of the newest view, 0 before the first.
        index: the mutation that its copies must have before it goes out.
        announced: whether it may have gone out.
        members: those of the view, by holder.
        awaited: those that have not seen it.
        followers: by connection and request.
        changed_at_ns: of the changes since: the first one, None if there is none.
        due_ns: when to form the next view, None if nothing has changed.
    """

    __slots__ = (
        "announced",
        "awaited",
        "changed_at_ns",
        "due_ns",
        "followers",
        "index",
        "members",
        "name",
        "view",
    )

    def __init__(self, name: LockName) -> None:
        self.name = name
        self.view = NO_GENERATION
        self.index = 0
        self.announced = False
        self.members: dict[LockHolder, GroupMember] = {}
        self.awaited: dict[LockHolder, None] = {}
        self.followers: dict[tuple[ConnectionId, RequestNumber], GroupFollower] = {}
        self.changed_at_ns: int | None = None
        self.due_ns: int | None = None


class Groups:
    """The groups of a node.

    Attributes:
        open: by the names of their locks, the groups with something to send, once it may leave.
        windows: when to form which group's next view.
        has_more: whether some that could be sent are left for the next turn.
    """

    def __init__(
        self,
        context: NodeContext,
        clients: ConnectedClients,
        generations: Generations,
        events: LockEvents,
    ) -> None:
        self._context = context
        self._clients = clients
        self._generations = generations
        self._events = events
        self._groups: dict[LockName, FollowedGroup] = {}
        self._in_slot: dict[SlotNumber, dict[LockName, None]] = {}
        self.open: dict[LockName, None] = {}
        self.has_more = False
        self.windows: DeadlineQueue[FollowedGroup] = DeadlineQueue(
            lambda group, at_ns: group.due_ns == at_ns, context.outbox.wake
        )

    def view_of(self, name: LockName) -> Generation:
        """Return the number of the newest view of the group with this lock, 0 for none."""
        group = self._groups.get(name)
        return group.view if group is not None and group.announced else NO_GENERATION

    # ------------------------------------------------------------------ requests

    def describe(self, connection: ConnectionId, message: DescribeGroup, slot: NodeSlot, now_ns: int) -> None:
        """Describe a group: its members, and those that have not seen its newest view."""
        group = self._groups.get(message.name)
        if group is None or not group.announced:
            members = list(_members_in(slot, message.name).values())
            awaited = [member.id for member in members]
            self._context.outbox.send(
                connection, View(message.request, NO_GENERATION, not members, members, awaited)
            )
            return
        awaited = [group.members[holder].id for holder in group.awaited]
        members = list(group.members.values())
        self._context.outbox.send(
            connection, View(message.request, group.view, not awaited, members, awaited)
        )

    def follow(self, connection: ConnectionId, message: FollowGroup, slot: NodeSlot, now_ns: int) -> None:
        """Send a member the views of its group from now on."""
        name = message.name
        holder = slot.table.find(message.session, message.acquisition)
        if not isinstance(holder, LockHolder) or holder.lock.name != name:
            raise NotHeld(
                f"acquisition {message.acquisition} of the session is not a member of the group of {name!r}"
            )
        follows = self._clients.by_connection[connection].follows
        if follows.get(message.request, name) != name:
            raise InvalidRequest(f"request {message.request} follows another group already")
        if len(follows) >= FOLLOWS_MAX:
            raise Overloaded(f"one connection follows {FOLLOWS_MAX} groups at most")
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = FollowedGroup(name)
            self._in_slot.setdefault(slot.number, {})[name] = None
            self._events.begin_group(name)
            self._form(group, now_ns)
        follows[message.request] = name
        group.followers[connection, message.request] = GroupFollower(holder)
        self.open[name] = None
        self._mark_seen(group, holder, message.view)

    def view_acknowledged(self, connection: ConnectionId, message: ViewAck, now_ns: int) -> None:
        """Note that a member has let go of what a view takes from it."""
        group = self._groups.get(message.name)
        if group is None:
            return
        holder = self._slot_of(group).table.find(message.session, message.acquisition)
        if isinstance(holder, LockHolder):
            self._mark_seen(group, holder, message.view)

    def _mark_seen(self, group: FollowedGroup, holder: LockHolder, view: Generation) -> None:
        if view == group.view and holder in group.awaited:
            del group.awaited[holder]
            self.open[group.name] = None

    def unfollow(self, connection: ConnectionId, request: RequestNumber) -> bool:
        """Send a member no more views, and return whether it got them so far."""
        name = self._clients.by_connection[connection].follows.pop(request, None)
        if name is not None:
            self._forget_follower(name, (connection, request))
        return name is not None

    def disconnected(self, connection: ConnectionId, client: ConnectedClient) -> None:
        """End what a connection that is gone has followed."""
        for request, name in client.follows.items():
            self._forget_follower(name, (connection, request))

    def _forget_follower(self, name: LockName, follower: tuple[ConnectionId, RequestNumber]) -> None:
        group = self._groups[name]
        del group.followers[follower]
        if not group.followers:
            self._forget(group)

    def _forget(self, group: FollowedGroup) -> None:
        if group.due_ns is not None:
            group.due_ns = None
            self.windows.abandon()
        del self._groups[group.name]
        self.open.pop(group.name, None)
        number = slot_of(group.name)
        names = self._in_slot[number]
        del names[group.name]
        if not names:
            del self._in_slot[number]
        self._events.end_group(group.name)

    def reign_ended(self, number: SlotNumber) -> None:
        """Send the followers of groups in a slot that is not served here any more elsewhere."""
        for name in list(self._in_slot.get(number, ())):
            group = self._groups[name]
            for connection, request in group.followers:
                del self._clients.by_connection[connection].follows[request]
                self._clients.refuse_moved(connection, request, group.name, "FollowGroup")
            self._forget(group)

    # ------------------------------------------------------------------ views

    def _slot_of(self, group: FollowedGroup) -> NodeSlot:
        return self._context.slots[slot_of(group.name)]

    def locks_changed(self, names: Iterable[LockName], now_ns: int) -> None:
        """Look for other members in groups whose locks have changed."""
        for name in names:
            self._lock_changed(name, now_ns)

    def _lock_changed(self, name: LockName, now_ns: int) -> None:
        group = self._groups[name]
        slot = self._slot_of(group)
        for (connection, request), follower in list(group.followers.items()):
            holder = follower.holder
            if slot.table.find(holder.session.id, holder.acquisition) is not holder:
                # Its client knows, or will by its lease.
                self.unfollow(connection, request)
        if name not in self._groups or not group.view:
            return  # no follower is left; or the first view is still to be formed, once there is a number for it
        present = _members_in(slot, name)
        for holder in [holder for holder in group.awaited if holder not in present]:
            del group.awaited[holder]
            self.open[name] = None
        if present.keys() == group.members.keys():
            self._plan(group, None)
            group.changed_at_ns = None
            return
        if group.changed_at_ns is None:
            group.changed_at_ns = now_ns
        timing = self._context.timing
        at_ns = min(now_ns + timing.group_window_ns, group.changed_at_ns + timing.group_window_max_ns)
        self._plan(group, at_ns if group.members else now_ns)

    def _plan(self, group: FollowedGroup, at_ns: int | None) -> None:
        if group.due_ns == at_ns:
            return
        if group.due_ns is not None:
            self.windows.abandon()
        group.due_ns = at_ns
        if at_ns is not None:
            self.windows.push(at_ns, group)

    def form_due(self, now_ns: int) -> None:
        """Form the views that are due."""
        while (due := self.windows.pop_due(now_ns)) is not None:
            group = due[1]
            if group.due_ns == due[0]:
                group.due_ns = None
                self._form(group, now_ns)

    def _form(self, group: FollowedGroup, now_ns: int) -> None:
        slot = self._slot_of(group)
        assert slot.reign is not None
        view = self._generations.reserve(slot)
        if view is None:
            self._plan(group, now_ns + RETRY_NS)
            return
        slot.table.touch(view)
        if slot.reign.streams or slot.reign.journal is not None:
            slot.reign.record(AdvanceGeneration(group.name, view), now_ns, urgent=True)
        else:
            slot.reign.count()
        group.index = slot.reign.index
        group.view = view
        group.announced = False
        group.members = _members_in(slot, group.name)
        group.awaited = dict.fromkeys(group.members)
        group.changed_at_ns = None
        self.open[group.name] = None

    def send_views(self, now_ns: int) -> None:
        """Send the views, and that they are settled, where the copies have them and this node may still say so."""
        context = self._context
        self.has_more = False
        for name in list(self.open):
            group = self._groups[name]
            number = slot_of(name)
            if group.view == 0:
                del self.open[name]
                continue
            if not context.rights.may_serve(number, now_ns=now_ns):
                continue
            if not group.announced:
                reign = context.slots[number].reign
                assert reign is not None
                sync = context.state.replication == "sync"
                journal = reign.journal
                if sync and reign.acknowledged_index() < group.index:
                    continue
                if journal is not None and journal.acked < group.index:
                    continue
                group.announced = True
            if self._send_to_followers(group):
                del self.open[name]
            else:
                self.has_more = True
                context.outbox.wake(now_ns)

    def _send_to_followers(self, group: FollowedGroup) -> bool:
        """Send a group to the followers that do not know its state, and return whether the turn had room for all."""
        settled = not group.awaited
        members = list(group.members.values())
        view_bytes = sum(_MEMBER_BYTES + len(member.payload) for member in members)
        room = VIEW_BYTES_PER_TURN
        for (connection, request), follower in group.followers.items():
            if follower.view != group.view:
                if room <= 0:
                    return False
                room -= view_bytes
                self._context.outbox.send(connection, View(request, group.view, settled, members))
            elif settled and not follower.settled:
                self._context.outbox.send(connection, SettlementNotice(request, group.view))
            else:
                continue
            follower.view, follower.settled = group.view, settled
        return True

    def check_invariants(self) -> None:
        """Assert that groups, followers and clients fit together."""
        for name, group in self._groups.items():
            assert group.name == name
            assert group.followers, f"{name!r} has no follower"
            slot = self._slot_of(group)
            assert slot.reign is not None
            assert group.view <= slot.table.highest
            assert group.awaited.keys() <= group.members.keys()
            for connection, request in group.followers:
                assert self._clients.by_connection[connection].follows[request] == name
        assert self.open.keys() <= self._groups.keys()


def _members_in(slot: NodeSlot, name: LockName) -> dict[LockHolder, GroupMember]:
    """Return the present members of a group, in the order in which they joined."""
    lock = slot.table.locks.get(name)
    found: dict[LockHolder, GroupMember] = {}
    if lock is None or lock.mode != Mode.SHARED:
        return found
    for holder in lock.holders:
        payload = slot.table.payload_of(holder)
        membership = membership_of(payload) if payload else None
        if membership is not None and len(found) < MEMBERS_MAX:
            found[holder] = GroupMember(
                membership.id,
                membership.weight,
                membership.payload,
                holder.session.owner,
                holder.generation,
            )
    return found


def check_group_request(message: DescribeGroup | FollowGroup) -> None:
    """Check that a request about a group names a group's lock.

    Raises:
        InvalidRequest: it names another lock.
    """
    name = message.name
    if not check_lock_name(name).startswith(GROUP_PREFIX) or name == GROUP_PREFIX:
        raise InvalidRequest(f"the lock of a group is named {GROUP_PREFIX}NAME, not {name!r}")
