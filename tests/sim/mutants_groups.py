"""Rules of groups; see `mutants`."""

from __future__ import annotations

from typing import Any

from lockring.core.client_groups import GroupsClient
from lockring.core.following import Following, Standing
from lockring.core.node_groups import Groups
from lockring.core.node_watching import Watching
from lockring.core.replication import Reign
from tests.sim.switches import Change, mutant, pair


@mutant
def settled_at_once() -> list[Change]:
    """A view is settled as soon as it goes out: nobody waits until the members have seen it."""
    form = Groups._form

    def changed(self: Groups, group: Any, now_ns: int) -> None:
        form(self, group, now_ns)
        group.awaited = {}

    return [(Groups, "_form", changed)]


@mutant
def owned_when_given() -> list[Change]:
    """A member owns what a view gives it before that is settled."""

    def take(self: Following, view: Any, settled: bool) -> tuple[frozenset[int], frozenset[int]]:
        before, given = self.standing.owned, view.given_to(self.ticket.generation)
        self.standing = Standing(view, settled, given)
        return given - before, before - given

    return [(Following, "take", take)]


@mutant
def kept_when_taken() -> list[Change]:
    """A member says that it has seen a view, and owns what that takes from it until the next one is settled."""

    def take(self: Following, view: Any, settled: bool) -> tuple[frozenset[int], frozenset[int]]:
        before, given = self.standing.owned, view.given_to(self.ticket.generation)
        owned = given if settled else before
        self.standing = Standing(view, settled, owned)
        return owned - before, before - owned

    return [(Following, "take", take)]


@mutant
def seen_before_told() -> list[Change]:
    """A member says that it has seen a view before its program has let go of what that takes from it."""
    see = GroupsClient._see

    def changed(self: GroupsClient, request: Any, now_ns: int) -> None:
        untold, request.following.untold = request.following.untold, 0
        see(self, request, now_ns)
        request.following.untold = untold

    return [(GroupsClient, "_see", changed)]


@mutant
def owned_past_the_lease() -> list[Change]:
    """A member goes by the views alone, and does not look at its lease."""
    return [(GroupsClient, "owned", lambda self, request, now_ns: request.following.standing.owned)]


@mutant
def gone_when_unheard() -> list[Change]:
    """A member whose connection is gone is not waited for, though its lease lasts."""
    disconnected = Groups.disconnected

    def changed(self: Groups, connection: int, follows: dict[int, str]) -> None:
        for request, name in follows.items():
            group = self._groups[name]
            group.awaited.pop(group.followers[connection, request].holder, None)
            self.open[name] = None
        disconnected(self, connection, follows)

    return [(Groups, "disconnected", changed)]


@mutant
def number_not_kept() -> list[Change]:
    """The number of a view is known to the primary alone: its copies do not hear of it."""
    record = Reign.record

    def changed(self: Reign, mutation: Any, now_ns: int) -> None:
        if type(mutation).__name__ != "Touch":
            record(self, mutation, now_ns)

    return [(Reign, "record", changed)]


@mutant
def view_told_early() -> list[Change]:
    """A view goes out before its copies know its number."""
    tell = Groups.tell

    def changed(self: Groups, now_ns: int) -> None:
        for group in self._groups.values():
            group.index = 0
        tell(self, now_ns)

    return [(Groups, "tell", changed)]


def _settled_without_the_right() -> list[Change]:
    """A node tells that a view is settled without the right to serve the slot."""
    tell = Groups.tell

    def changed(self: Groups, now_ns: int) -> None:
        for name in list(self.open):
            group = self._groups[name]
            if group.view and group.announced and self._tell_followers(group):
                del self.open[name]
        tell(self, now_ns)

    return [(Groups, "tell", changed)]


def _gone_without_the_right() -> list[Change]:
    """A node waits no more for members that have run out there, though it may not serve the slot."""
    tell_all = Watching.tell_all

    def changed(self: Watching, now_ns: int) -> None:
        for name in list(self.changed):
            if self._watched[name].grouped:
                self._service.groups.changed(name, now_ns)
        tell_all(self, now_ns)

    return [(Watching, "tell_all", changed)]


@pair(_settled_without_the_right, _gone_without_the_right)
def settled_without_the_right() -> None:
    """A node that may not serve the slot any more takes members that have run out there for gone, and tells that the view is settled."""
