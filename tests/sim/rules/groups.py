"""Rules of groups."""

from __future__ import annotations

from typing import Any

from lockring.core.client import GroupSubscription, deadline_ns_of
from lockring.core.client.group_view import KeyOwnership
from lockring.core.client.groups import GroupMemberships
from lockring.core.node.clients import ConnectedClient
from lockring.core.node.groups import Groups
from lockring.core.node.reign import Reign
from lockring.core.node.watches import Watches
from lockring.ids import ConnectionId, LockName
from lockring.protocol import AdvanceGeneration
from tests.sim import SLOTS_SIMULATED
from tests.sim.framework.groups import GroupHabits, GroupProgram, Member, group_lock_beside
from tests.sim.framework.workload import ClientShell
from tests.sim.framework.world import S
from tests.sim.rules.switches import Change, drill, mutant, pair
from tests.sim.scenarios.scenario import TTL_MS, Scenario


@mutant
def settled_at_once() -> list[Change]:
    """A view is settled as soon as it goes out: nothing waits until the members have seen it."""
    form = Groups._form

    def changed(self: Groups, group: Any, now_ns: int) -> None:
        form(self, group, now_ns)
        group.awaited = {}

    return [(Groups, "_form", changed)]


class GroupScenario(Scenario):
    """A cluster at rest, with clients that may join a group whose lock has the primary of the scenario's lock."""

    def __init__(self, *, clients: int = 2) -> None:
        super().__init__(clients=clients)
        habits = GroupHabits(group_lock_beside(self.name), (TTL_MS,), 0, S, S, 0.0, 1, 0.0)
        self.programs: list[GroupProgram] = []
        for client in self.simulation.clients:
            client.group = GroupProgram(client, habits, self.simulation.checkers.groups)
            self.programs.append(client.group)

    def client(self, number: int) -> ClientShell:
        """One of the clients."""
        return self.simulation.clients[number]

    def owner(self, number: int = 0, *, heedful_s: float = 0) -> Member:
        """A member that owns everything."""
        member = self.programs[number].enter(int(heedful_s * S))
        self.wait(lambda: self.owns(member), 5)
        return member

    @staticmethod
    def owns(member: Member) -> bool:
        """Whether a member owns anything."""
        return bool(member.owns())

    @staticmethod
    def view(member: Member) -> int:
        """Number of a member's newest view."""
        following = None if member.request is None else member.request.subscription
        return 0 if following is None else following.ownership.view.number

    @staticmethod
    def token(member: Member) -> int:
        """A member's token; the views that have it have greater numbers."""
        assert member.ticket is not None
        return member.ticket.generation

    @staticmethod
    def lease_ends_at_ns(member: Member) -> int:
        """When a member's lease ends, by its client's clock."""
        assert member.ticket is not None
        return deadline_ns_of(member.ticket)

    def comes_to_own(self, member: Member, seconds: float) -> None:
        """Wait until a member owns something."""
        self.wait(lambda: self.owns(member), seconds)


@drill
def drill_settled_at_once() -> None:
    """A member misses a view, since its node's messages are lost, and still has its lease; another member joins."""
    cluster = GroupScenario()
    cluster.owner()
    cluster.silence(cluster.primary(), cluster.client(0), 4)
    joined = cluster.programs[1].enter()
    cluster.comes_to_own(joined, 30)


@mutant
def owned_when_given() -> list[Change]:
    """A member owns what a view gives it before that is settled."""

    def apply_view(
        self: GroupSubscription, view: Any, settled: bool
    ) -> tuple[frozenset[int], frozenset[int]]:
        before, given = self.ownership.owned, view.given_to(self.ticket.generation)
        self.ownership = KeyOwnership(view, settled, given)
        return given - before, before - given

    return [(GroupSubscription, "apply_view", apply_view)]


@drill
def drill_owned_when_given() -> None:
    """The same: the joining member gets the view, but the other one has not let go."""
    drill_settled_at_once()


@mutant
def kept_when_taken() -> list[Change]:
    """A member acknowledges a view, and owns the keys that it takes until the next one is settled."""

    def apply_view(
        self: GroupSubscription, view: Any, settled: bool
    ) -> tuple[frozenset[int], frozenset[int]]:
        before, given = self.ownership.owned, view.given_to(self.ticket.generation)
        owned = given if settled else before
        self.ownership = KeyOwnership(view, settled, owned)
        return owned - before, before - owned

    return [(GroupSubscription, "apply_view", apply_view)]


@drill
def drill_kept_when_taken() -> None:
    """Another one joins, and hears that the view is settled first."""
    cluster = GroupScenario()
    cluster.owner()
    joined = cluster.programs[1].enter()
    cluster.wait(lambda: cluster.view(joined) > 0, 5)
    cluster.delay(cluster.primary(), cluster.client(0), 0)
    cluster.comes_to_own(joined, 30)


@mutant
def seen_before_told() -> list[Change]:
    """A member acknowledges a view before its program has let go of the keys that it takes."""
    acknowledge = GroupMemberships.acknowledge

    def changed(self: GroupMemberships, query: Any, now_ns: int) -> Any:
        pending, query.subscription.callbacks_pending = query.subscription.callbacks_pending, 0
        replaced = acknowledge(self, query, now_ns)
        query.subscription.callbacks_pending = pending
        return replaced

    return [(GroupMemberships, "acknowledge", changed)]


@drill
def drill_seen_before_told() -> None:
    """A member needs six seconds to finish what it does with the keys that are taken from it."""
    cluster = GroupScenario()
    cluster.owner(heedful_s=6)
    joined = cluster.programs[1].enter()
    cluster.comes_to_own(joined, 30)


@mutant
def owned_past_the_lease() -> list[Change]:
    """A member goes by the views alone, and does not look at its lease."""
    return [(GroupMemberships, "owned", lambda self, query, now_ns: query.subscription.ownership.owned)]


@drill
def drill_owned_past_the_lease() -> None:
    """A member's process is stopped for longer than its lease, and another one joins."""
    cluster = GroupScenario()
    cluster.owner()
    cluster.client(0).pause(30 * S)
    joined = cluster.programs[1].enter()
    cluster.comes_to_own(joined, 30)


@mutant
def gone_when_unheard() -> list[Change]:
    """A member whose connection is gone is not waited for, though its lease lasts."""
    disconnected = Groups.disconnected

    def changed(self: Groups, connection: ConnectionId, client: ConnectedClient) -> None:
        for request, name in client.follows.items():
            group = self._groups[name]
            group.awaited.pop(group.followers[connection, request].holder, None)
            self.open[name] = None
        disconnected(self, connection, client)

    return [(Groups, "disconnected", changed)]


@drill
def drill_gone_when_unheard() -> None:
    """A member does not hear of a view, and then its connection breaks, and it cannot make a new one for some
    seconds."""
    cluster = GroupScenario()
    cluster.owner()
    primary, client = cluster.primary(), cluster.client(0)
    joined = cluster.programs[1].enter()
    cluster.wait(lambda: joined.request is not None, 5)
    cluster.silence(primary, client, 5)
    cluster.wait(lambda: cluster.view(joined) > cluster.token(joined), 5)
    cluster.break_connections(client, primary)
    cluster.cut(client, primary, 5)
    cluster.comes_to_own(joined, 30)


@mutant
def number_not_kept() -> list[Change]:
    """The number of a view is known to the primary alone: its copies do not hear of it."""
    record = Reign.record

    def changed(self: Reign, mutation: Any, now_ns: int, *, urgent: bool) -> None:
        if not isinstance(mutation, AdvanceGeneration):
            record(self, mutation, now_ns, urgent=urgent)

    return [(Reign, "record", changed)]


def _number_comes_again(*, cut: bool) -> None:
    """A primary dies with a view just out, which one member has not got. Another one, that has, leaves before the
    remaining ones reach the successor, whose first view gives its keys to the former."""
    cluster = GroupScenario(clients=3)
    first = cluster.owner()
    second = cluster.programs[1].enter(weight=9)
    cluster.comes_to_own(second, 10)
    third = cluster.programs[2].enter()
    cluster.wait(lambda: third.request is not None, 5)
    primary, backup, before = cluster.primary(), cluster.backup(), cluster.view(second)
    cluster.silence(primary, cluster.client(0), 60)
    cluster.run(0.1)
    if cut:
        cluster.cut(primary, backup, 60)
        cluster.cut(primary, cluster.coordinator, 60)
    cluster.run(1.1)
    if not cut:
        assert cluster.view(second) > before
    cluster.crash(primary)
    for node in cluster.simulation.nodes:
        for number in (0, 2):
            cluster.cut(cluster.client(number), node, 60)
    cluster.programs[1].exit(second)
    cluster.wait(lambda: second.ticket is None, 6)
    for node in cluster.simulation.nodes:
        for number in (0, 2):
            cluster.mend(cluster.client(number), node)
    cluster.wait(lambda: len(first.owns() | third.owns()) == SLOTS_SIMULATED, 30)


@drill
def drill_number_not_kept() -> None:
    """The successor knows of every change of the group, but for the number of the last view."""
    _number_comes_again(cut=False)


@mutant
def view_told_early() -> list[Change]:
    """A view goes out before its copies know its number."""
    send_views = Groups.send_views

    def changed(self: Groups, now_ns: int) -> None:
        for group in self._groups.values():
            group.index = 0
        send_views(self, now_ns)

    return [(Groups, "send_views", changed)]


@drill
def drill_view_told_early() -> None:
    """The primary is cut off from its backup while it forms its last view."""
    _number_comes_again(cut=True)


def _settled_without_the_right() -> list[Change]:
    """A node tells that a view is settled without the right to serve the slot."""
    send_views = Groups.send_views

    def changed(self: Groups, now_ns: int) -> None:
        for name in list(self.open):
            group = self._groups[name]
            if group.view and group.announced and self._send_to_followers(group):
                del self.open[name]
        send_views(self, now_ns)

    return [(Groups, "send_views", changed)]


def _gone_without_the_right() -> list[Change]:
    """A node waits no more for members that have run out there, though it may not serve the slot."""
    send_news = Watches.send_news

    def changed(self: Watches, now_ns: int) -> list[LockName]:
        events = self._events
        grouped = [name for name in events.changed if events.watched[name].grouped]
        send_news(self, now_ns)
        return grouped

    return [(Watches, "send_news", changed)]


@pair(_settled_without_the_right, _gone_without_the_right)
def settled_without_the_right() -> None:
    """A node that may not serve the slot any more takes members that have run out there for gone, and tells that the
    view is settled."""


@drill
def drill_settled_without_the_right() -> None:
    """A primary that is cut off has a view that one member has not seen, and reaches the other one alone. The first
    one's lease is renewed by the successor, which cannot tell it of a view; at the former primary it runs out before
    the other one's does."""
    cluster = GroupScenario()
    first = cluster.owner()
    primary, successor, third = cluster.primary(), cluster.backup(), cluster.third()
    joined = cluster.programs[1].enter()
    cluster.wait(lambda: joined.request is not None, 5)
    cluster.silence(primary, cluster.client(0), 60)
    cluster.wait(lambda: cluster.view(joined) > cluster.token(joined), 5)
    cluster.cut(primary, cluster.client(0), 60)
    renewed_ns = cluster.lease_ends_at_ns(joined)
    cluster.wait(lambda: cluster.lease_ends_at_ns(joined) > renewed_ns, 5)
    for other in (successor, third, cluster.coordinator):
        cluster.cut(primary, other, 60)
    for other in (successor, third):
        cluster.cut(cluster.client(1), other, 60)
    cluster.cut(cluster.client(0), successor, 60)
    cluster.wait(lambda: cluster.slot().backup is not None and cluster.backup() is third, 10)
    cluster.silence(third, successor, 60)
    cluster.mend(cluster.client(0), successor)
    before_ns, view = cluster.lease_ends_at_ns(first), cluster.view(first)
    cluster.wait(lambda: cluster.lease_ends_at_ns(first) > before_ns, 10)
    cluster.cut(cluster.client(0), successor, 60)
    assert cluster.view(first) == view, "it has heard of a view that takes its keys"
    cluster.run(30)
