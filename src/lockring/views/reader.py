"""Asks the servers of a cluster on behalf of viewers. The rights are those that a viewer has at the nodes.

Rules:

- Nodes decide what a viewer sees. A process that is a server of the cluster asks under its own certificate, and says on
  whose behalf. Without TLS there is no such proof: then each viewer's own credential is shown.
- Each question has a bound. A member that does not answer in time is named, and the others' answers are shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from lockring._version import __version__
from lockring.client.aio.driver import AsyncDriver
from lockring.clock import monotonic_ns, wall_ns
from lockring.cluster_state import ClusterState, Member, Replica, decode_state
from lockring.core.client import ClientCore, LocksFound, Query
from lockring.errors import Denied, LockringError, StaleVersion, Unavailable
from lockring.ids import NO_REQUEST, Generation, LockName, NodeId
from lockring.names import GROUP_PREFIX
from lockring.net.openers import Opener
from lockring.protocol import BreakReply, DescribeReply, EventsReply, GetEvents, GetStatus, LockRecord, View
from lockring.protocol.identities import Identity
from lockring.random_ids import new_id
from lockring.units import NS_PER_S
from lockring.views.cluster import COLOURS, ClusterView, MemberReport, cluster_view
from lockring.views.events import EventsView, event_views
from lockring.views.filters import EventFilter, LockFilter
from lockring.views.groups import GroupsView, OneGroupView, group_view, groups_view
from lockring.views.locks import GrantView, LocksView, LockView, grant_view, lock_view, locks_view

ANSWER_NS: Final = 4 * NS_PER_S
"""How long a question may take: longer than a failover usually does."""
MEMBER_NS: Final = NS_PER_S
"""How long a member may take to answer about itself."""
ORDER_NS: Final = 8 * NS_PER_S
EVENTS_SHOWN: Final = 200
EVENTS_OF_LOCK: Final = 20
_DRIVERS_MAX: Final = 32
_LAST_NAME: Final = "\U0010ffff"
_MEMBERS_ASKED_MAX: Final = 200


class Viewer(NamedTuple):
    """The person for whom servers are asked.

    Attributes:
        identity: the proven identity, None where none are looked at.
        credential: the token or JWT that was shown, "" for none.
    """

    identity: Identity | None = None
    credential: str = ""


class _ViewDriver(AsyncDriver):
    """An asyncio client that asks on behalf of viewers."""

    def __init__(self, addresses: Sequence[str], *, opener: Opener, credential: str) -> None:
        core = ClientCore(
            addresses,
            owner="",
            new_id=new_id,
            software=f"lockring-views {__version__}",
            connect_timeout_ns=ANSWER_NS,
            credential=lambda: credential,
        )
        super().__init__(addresses, lambda: "", ANSWER_NS, core=core, opener=opener)

    async def ask_for(self, asker: Identity | None, question: Callable[[ClientCore, int], Query]) -> Any:
        """Ask on behalf of an identity, None for the client's own."""
        self._core.ask_for(asker)
        return await self.answer_to(self.begin(question))

    def members(self) -> list[Replica]:
        """Return the members that the routes name, which any identity with a role may know; none before the first."""
        return self._core.members()


class ClusterReader:
    """Asks the servers of a cluster. Lives in one event loop.

    Args:
        seeds: returns addresses of servers of the cluster, at least one that answers.
        opener: opens connections to them.
        is_server: whether these connections prove that this process is a server of the cluster.
    """

    def __init__(self, seeds: Callable[[], Sequence[str]], opener: Opener, *, is_server: bool) -> None:
        self._seeds = seeds
        self._opener = opener
        self._is_server = is_server
        self._drivers: dict[str, _ViewDriver] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """End all connections."""
        drivers, self._drivers = list(self._drivers.values()), {}
        for each in drivers:
            await each.close()

    # ------------------------------------------------------------------ views

    async def cluster(self, viewer: Viewer) -> tuple[ClusterState, ClusterView]:
        """Return the cluster with its members.

        Raises:
            Denied: the viewer may not read everything.
            Unavailable: no server answers.
        """
        state, note = await self._state(viewer)
        members = list(state.members.values())[:_MEMBERS_ASKED_MAX]
        reports = await asyncio.gather(*(self._report(viewer, each) for each in members))
        by_node = {each.replica.node: report for each, report in zip(members, reports, strict=True)}
        return state, cluster_view(state, note, by_node)

    async def locks(self, viewer: Viewer, wanted: LockFilter) -> LocksView:
        """Return a page of locks.

        Raises:
            Denied: the viewer may read no name with that prefix.
            Unavailable: a node could not be reached in time.
        """
        return locks_view(await self._found(viewer, wanted), wanted)

    async def lock(self, viewer: Viewer, name: LockName) -> LockView:
        """Return one lock, held or free.

        Raises:
            Denied: the viewer may not read it.
            Unavailable: its node could not be reached in time.
        """
        lock = await self._described(viewer, name)
        question = GetEvents(NO_REQUEST, limit=EVENTS_OF_LOCK, name=name)
        replies, _ = await self._events(viewer, question)
        return lock_view(lock, event_views(replies, wall_s=_wall_s())[:EVENTS_OF_LOCK])

    async def grant(self, viewer: Viewer, name: LockName, token: Generation) -> GrantView:
        """Return the holder of a lock that has a fencing token, without the events of the lock.

        Raises:
            Denied: the viewer may not read it.
            Unavailable: its node could not be reached in time.
        """
        return grant_view(await self._described(viewer, name), token)

    async def groups(self, viewer: Viewer, text: str, after: str) -> GroupsView:
        """Return a page of groups: those with `text` in their names, behind the group `after`.

        Raises:
            Denied: the viewer may read no group.
            Unavailable: a node could not be reached in time.
        """
        wanted = LockFilter(
            GROUP_PREFIX, text, mode="shared", show="held", after=GROUP_PREFIX + after if after else ""
        )
        return groups_view(locks_view(await self._found(viewer, wanted), wanted))

    async def group(self, viewer: Viewer, name: str) -> OneGroupView:
        """Return one group.

        Raises:
            Denied: the viewer may not read it.
            Unavailable: its node could not be reached in time.
        """
        lock = LockName(GROUP_PREFIX + name)
        view: View = await self._ask(
            viewer, lambda core, now_ns: core.look(lock, give_up_at_ns=now_ns + ANSWER_NS, now_ns=now_ns)
        )
        return group_view(name, view, COLOURS)

    async def events(self, viewer: Viewer, wanted: EventFilter, limit: int = EVENTS_SHOWN) -> EventsView:
        """Return the newest events that the viewer may see.

        Args:
            viewer: the viewer.
            wanted: which events.
            limit: how many at most, 1 to `EVENTS_SHOWN`.

        Raises:
            Denied: the viewer may read no name with that prefix.
            Unavailable: no node answers.
        """
        kinds = [wanted.kind] if wanted.kind else []
        question = GetEvents(NO_REQUEST, wanted.prefix, kinds, limit=limit)
        replies, errors = await self._events(viewer, question)
        silent = [f"{node}: {error}" for node, error in errors.items()]
        if not replies:
            denied = next((error for error in errors.values() if isinstance(error, Denied)), None)
            if denied is not None:
                errors.clear()
                try:
                    raise denied
                finally:
                    del denied  # its traceback has this call, and would keep itself in memory
            raise Unavailable(f"no node has answered about its events: {'; '.join(silent)}")
        found = event_views(replies, wall_s=_wall_s())
        has_more = len(found) > limit or any(each.more for each in replies.values())
        return EventsView(found[:limit], has_more, silent, wanted.command())

    # ------------------------------------------------------------------ orders

    async def break_lock(
        self, viewer: Viewer, name: LockName, token: Generation, *, force: bool
    ) -> BreakReply:
        """End the lease of a lock's holder.

        Raises:
            Denied: the viewer may not.
            NotHeld: no grant of the lock has that token.
            Unavailable: its node could not be reached in time.
        """
        answer: BreakReply = await self._ask(
            viewer,
            lambda core, now_ns: core.break_lock(
                name, token, force=force, give_up_at_ns=now_ns + ORDER_NS, now_ns=now_ns
            ),
        )
        return answer

    async def drain(self, viewer: Viewer, node: NodeId, *, undo: bool) -> None:
        """Begin to move everything off a node, or with `undo` let it have slots again.

        Raises:
            Denied: the viewer may not.
            UnknownNode, LastNode, NodeLeaving: as for `Client.drain` and `Client.undrain`.
            Unavailable: no node passed it on in time.
        """
        await self._ask(
            viewer,
            lambda core, now_ns: core.drain(node, undo=undo, give_up_at_ns=now_ns + ORDER_NS, now_ns=now_ns),
        )

    # ------------------------------------------------------------------ inner

    async def _described(self, viewer: Viewer, name: LockName) -> LockRecord:
        answer: DescribeReply = await self._ask(
            viewer, lambda core, now_ns: core.describe(name, give_up_at_ns=now_ns + ANSWER_NS, now_ns=now_ns)
        )
        return answer.lock

    async def _found(self, viewer: Viewer, wanted: LockFilter) -> LocksFound:
        found: LocksFound = await self._ask(
            viewer,
            lambda core, now_ns: core.search(
                wanted.prefix,
                wanted.search(),
                limit=wanted.limit,
                give_up_at_ns=now_ns + ANSWER_NS,
                now_ns=now_ns,
            ),
        )
        return found

    async def _state(self, viewer: Viewer) -> tuple[ClusterState, str]:
        answer = await self._ask(
            viewer, lambda core, now_ns: core.get_state(give_up_at_ns=now_ns + ANSWER_NS, now_ns=now_ns)
        )
        return decode_state(answer.state), answer.note

    async def _report(self, viewer: Viewer, member: Member) -> MemberReport:
        began_ns = monotonic_ns()
        try:
            answer = await self._ask(
                viewer,
                lambda core, now_ns: core.ask_member(
                    member.replica, GetStatus(NO_REQUEST), give_up_at_ns=now_ns + MEMBER_NS, now_ns=now_ns
                ),
            )
        except (Unavailable, StaleVersion):
            return MemberReport(problem=f"it did not answer within {MEMBER_NS / NS_PER_S:g} s")
        except LockringError as error:
            return MemberReport(problem=f"it gives no account of itself: {error}")
        return MemberReport(answer.status, (monotonic_ns() - began_ns) / NS_PER_S)

    async def _events(
        self, viewer: Viewer, question: GetEvents
    ) -> tuple[dict[str, EventsReply], dict[str, LockringError]]:
        """Return the events of every member that answers, and why the others do not."""
        members = await self._members(viewer, question.name or question.prefix)
        answers = await asyncio.gather(*(self._events_of(viewer, each, question) for each in members))
        replies: dict[str, EventsReply] = {}
        errors: dict[str, LockringError] = {}
        for member, answer in zip(members, answers, strict=True):
            if isinstance(answer, EventsReply):
                replies[member.node] = answer
            else:
                errors[member.node] = answer
        return replies, errors

    async def _events_of(
        self, viewer: Viewer, replica: Replica, question: GetEvents
    ) -> EventsReply | LockringError:
        try:
            reply: EventsReply = await self._ask(
                viewer,
                lambda core, now_ns: core.ask_member(
                    replica, question, give_up_at_ns=now_ns + MEMBER_NS, now_ns=now_ns
                ),
            )
        except LockringError as error:
            return error
        return reply

    async def _members(self, viewer: Viewer, prefix: str) -> list[Replica]:
        """Return the members that routes name, which every identity with a role may know."""
        driver = self._driver(viewer)
        if not driver.members():
            # Any answer brings routes, and this one takes no look at locks.
            await self._found(viewer, LockFilter(prefix, after=_LAST_NAME, show="waiting", limit=1))
        return driver.members()[:_MEMBERS_ASKED_MAX]

    async def _ask(self, viewer: Viewer, question: Callable[[ClientCore, int], Query]) -> Any:
        asker = viewer.identity if self._is_server else None
        return await self._driver(viewer).ask_for(asker, question)

    def _driver(self, viewer: Viewer) -> _ViewDriver:
        credential = "" if self._is_server else viewer.credential
        driver = self._drivers.get(credential)
        if driver is None:
            seeds = self._seeds()
            if not seeds:
                raise Unavailable("no node is a member of the cluster yet", reason="no-primary")
            if len(self._drivers) >= _DRIVERS_MAX:
                self._end_soon(self._drivers.pop(next(iter(self._drivers))))
            driver = self._drivers[credential] = _ViewDriver(
                seeds, opener=self._opener, credential=credential
            )
        return driver

    def _end_soon(self, driver: _ViewDriver) -> None:
        task = asyncio.get_running_loop().create_task(driver.close())
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)


def _wall_s() -> float:
    return wall_ns() / NS_PER_S
