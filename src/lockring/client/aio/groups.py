"""The asyncio client's groups: what `Client.group` gives."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lockring.client.aio.grants import Grant, call_at_home
from lockring.client.arguments import ANSWER_TIMEOUT_S_DEFAULT, Seconds, answer_to_ns, wait_to_ms
from lockring.client.grant_state import LossCallback, blame, keep_from_being_dropped, may_be_dropped
from lockring.client.group_state import (
    ChangeCallback,
    GroupInfo,
    MembershipState,
    check_change_callback,
    least_version,
    member_payload,
)
from lockring.client.process_bound import ProcessBound
from lockring.clock import monotonic_ns
from lockring.core.client import ClientCore, Query, TicketState
from lockring.errors import LockLost, LockringError
from lockring.names import lock_of_group
from lockring.protocol import WAIT_FOREVER, GroupMember, Mode
from lockring.ring.key_ring import KeySet
from lockring.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from lockring.client.aio.client import Client


class Group(ProcessBound):
    """A group's name, and how memberships of it are to be leased. It holds no state: make one wherever it is needed."""

    _instead = "pass the addresses of the servers and the group's name, and join it there"

    __slots__ = ("_client", "_name", "_ttl_ms")

    def __init__(self, client: Client, name: str, ttl_ms: int) -> None:
        lock_of_group(name)
        self._client = client
        self._name = name
        self._ttl_ms = ttl_ms

    @property
    def name(self) -> str:
        """The group's name."""
        return self._name

    @property
    def ttl(self) -> float:
        """The lease that its memberships get, in seconds."""
        return self._ttl_ms / 1000

    async def join(
        self,
        member_id: str | None = None,
        weight: int = 1,
        payload: bytes = b"",
        *,
        timeout: Seconds | None = None,
    ) -> Membership:
        """Become a member, and return once that is sure and a first view of the group has come.

        Keys are owned only once everybody else has let go of them: see `Membership.wait_settled`.

        Args:
            member_id: 1 to 128 bytes of text, by which the keys are spread; None draws one. Who joins under the id of a member
                that is there already takes over from it: that one's membership is lost (reason "replaced"), and what
                it owned is the new one's once it has let go, or once its lease is over.
            weight: how much of the keys it should own, in proportion to the others: 1 to 100.
            payload: what the others are to see of it, 768 bytes at the most.
            timeout: longest wait in seconds, None for ever (but see the client's `connect_timeout`). However short it is, a
                server gets a second to answer.

        Raises:
            AcquireTimeout: somebody held the group's lock for itself all the time.
            Unavailable: no server could be reached, none may serve the group at present, or no view of it came in time.
            InvalidRequest: an argument is not of the form it must have, or the cluster allows no such TTL.
            ClientClosed: the client was closed.
        """
        member, record = member_payload(member_id, weight, payload)
        wait_ms = wait_to_ms(timeout)
        until_ns = None if wait_ms == WAIT_FOREVER else monotonic_ns() + max(wait_ms * NS_PER_MS, NS_PER_S)
        grant = await self._client._acquire(
            lock_of_group(self._name), self._ttl_ms, wait_ms, Mode.SHARED, record
        )
        try:
            membership = Membership(self._client, self._name, member, grant)
            await membership._wait(membership._first_version, until_ns, "got no view of it")
        except BaseException:
            self._client._engine.let_go(grant._ticket)
            raise
        return membership

    async def describe(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> GroupInfo:
        """Who is in the group, and who should own what, without joining it.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        lock, give_up_ns = lock_of_group(self._name), answer_to_ns(timeout)
        view = await self._client._engine.ask(
            lambda core, now_ns: core.look(lock, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return GroupInfo(self._name, view)

    async def members(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> tuple[GroupMember, ...]:
        """The members, in the order in which they joined.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        return (await self.describe(timeout=timeout)).members

    def __repr__(self) -> str:
        return f"<Group {self._name!r}, ttl {self.ttl:g} s>"


class Membership(MembershipState):
    """One membership of a group: it says who is in the group and which keys are this member's own, and leaves it again.

    It ends when it is left, when its lease is lost (as a lock's), or when another one takes its id over. It may be shared by
    threads, or tasks. Keep it for as long as you want to be a member: one that nothing refers to any more, and that has no
    callbacks, leaves the group, with a `ResourceWarning`. As a context manager it leaves at the end of the block; if it was lost meanwhile, that raises
    `LockLost`, or adds a note to the error that ends the block.
    """

    def __init__(self, client: Client, group: str, member_id: str, grant: Grant) -> None:
        super().__init__(group, member_id)
        self._engine = client._engine
        self._grant: Grant = grant
        self._callbacks: list[ChangeCallback] = []
        self._news: deque[tuple[ChangeCallback, KeySet, KeySet] | None] = deque()
        """Whom to call with what; None where the group may hear that all before was told."""
        self._calling: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Event] = []
        self._leaving: asyncio.Future[None] | None = None
        self._engine.follow(grant._ticket, self)

    def on_change(self, callback: ChangeCallback) -> None:
        """Have a function called with the keys that this member gains and loses, each time that some are.

        `callback(gained, lost)` gets two `KeySet`s: `key in gained`, `key in lost`. `owns` says no to what is lost before it is
        called, and yes to what is gained. Calls come one after the other, in a thread of their own (with asyncio: in the
        loop, where alone it may be a coroutine function). If keys are owned already, the first call comes at once.

        Others get what was lost only when the call has returned: finish there what must not be done by two, and
        quickly. While the membership lasts there is no bound on that; if the lease is lost, others do not wait.
        """
        check_change_callback(callback)
        keep_from_being_dropped(self)
        self._callbacks.append(callback)
        self._following.has_callback = True
        owned = self._following.ownership.owned
        if owned and not self._following.ended:
            self._tell_later((callback,), KeySet(owned), KeySet(), False)

    async def wait_settled(self, *, after: int | None = None, timeout: Seconds | None = None) -> int:
        """Wait until there is a settled view with this member in it, and return its version.

        The view that is known now may be such a one already. To wait for what somebody's coming or going brings, take
        `version` before it, and wait for a view after that.

        Args:
            after: the view's version is to be greater than this one; None takes any.
            timeout: longest wait in seconds, None for ever.

        Raises:
            AcquireTimeout: there was none within that time: somebody has not let go of its keys, nor lost its lease, or nobody came or
                went after that version.
            Unavailable: there was none within that time, and the group's node cannot be reached or may not serve it.
            LockLost: the membership is lost.
            NotHeld: it was left.
            InvalidRequest: `after` is no version.
        """
        least = least_version(after)
        wait_ms = wait_to_ms(timeout)
        until_ns = None if wait_ms == WAIT_FOREVER else monotonic_ns() + wait_ms * NS_PER_MS
        what = "is not settled" if after is None else f"has no settled version after {after}"
        return await self._wait(lambda: self._settled_version(least), until_ns, what)

    @property
    def lost(self) -> asyncio.Event:
        """An event that is set once the membership was lost (not when it is left), with `wait()` and `is_set()`."""
        event = self._grant.lost
        vars(event)["membership"] = self  # who waits for a loss has not dropped the membership
        return event

    def on_lost(self, callback: LossCallback) -> None:
        """Have a function called once if the membership is lost; at once if it is lost already. As `Grant.on_lost`."""
        keep_from_being_dropped(self)
        self._grant.on_lost(callback)

    async def leave(self) -> None:
        """Own nothing any more, have that told to who wants to hear of it, and then leave the group.

        Returns once that is confirmed, or once the lease has ended anyway. Called by a callback of `on_change`, it does
        not wait for the calls that are still to come.

        Raises:
            LockLost: the membership was lost before.
            NotHeld: it was left before.
        """
        self.check()
        may_be_dropped(self)
        await self._engine.unfollow(self._request)
        if self._calling is not None and _inside.get() is not self._calling:
            await self._wait(lambda: None if self._calling else 1, None, "")
        with self._as_membership():
            await self._grant.release()

    # ------------------------------------------------------------------ for the client

    def _followed(self, core: ClientCore, request: Query) -> None:
        """For the client: the group is followed by this request."""
        self._core, self._request = core, request

    def _on_ticket_lost(self) -> None:
        """For the client: the membership was lost."""
        may_be_dropped(self)
        self._grant._on_ticket_lost()

    def _on_regrouped(self, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        """For the client: something has changed in the group."""
        if self._callbacks and (gained or lost):
            self._tell_later(tuple(self._callbacks), KeySet(gained), KeySet(lost), awaited)
        for event in self._waiting:
            event.set()

    def _tell_later(
        self, callbacks: tuple[ChangeCallback, ...], gained: KeySet, lost: KeySet, awaited: bool
    ) -> None:
        self._news += [(callback, gained, lost) for callback in callbacks]
        if awaited:
            self._news.append(None)
        if self._calling is None:
            self._tell()

    # ------------------------------------------------------------------ inner

    def _tell(self) -> None:
        """Tell what is next. The end of that call leads to the one after it, so no task has to go on for it that could be cancelled."""
        self._calling = None
        while self._news and self._calling is None:
            news = self._news.popleft()
            if news is None:
                self._engine.told(self._request)
                continue
            # In a task of its own, which it may cancel, or have cancelled: nothing else ends with it.
            name = f"lockring-group-{self._group[:40]}"
            self._calling = asyncio.get_running_loop().create_task(_call(*news), name=name)
            self._calling.add_done_callback(self._called)
        if self._calling is None:
            for event in self._waiting:
                event.set()

    def _called(self, call: asyncio.Task[None]) -> None:
        if call.cancelled():
            _report(asyncio.CancelledError("it was cancelled"))
        elif (error := call.exception()) is not None:
            _report(error)
        self._tell()

    def _leave_later(self) -> None:
        """Leave where nobody waits for it; not at once, since callbacks may still be finishing what must not be done by two."""
        self._leaving = asyncio.ensure_future(self._leave_unheard())

    async def _leave_unheard(self) -> None:
        with contextlib.suppress(LockringError):  # lost or closed meanwhile, so left
            await self.leave()

    async def _wait(self, ready: Callable[[], int | None], until_ns: int | None, what: str) -> int:
        """Wait until `ready` gives something."""
        event = asyncio.Event()
        self._waiting.append(event)
        try:
            while (found := ready()) is None:
                left_s = None if until_ns is None else (until_ns - monotonic_ns()) / NS_PER_S
                if left_s is not None and left_s <= 0:
                    raise self._too_late(what, self._engine.waits())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), left_s)
                event.clear()
            return found
        finally:
            self._waiting.remove(event)

    async def __aenter__(self) -> Self:
        return self.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket = self._grant._ticket
        if ticket.state == TicketState.HELD:
            try:
                await self.leave()
            except LockLost as loss:
                blame(error, loss)
            except RuntimeError:  # on another loop than the client's, or on none
                if ticket.state != TicketState.HELD:
                    raise
                call_at_home(self._engine, self._leave_later)
            except BaseException:
                if ticket.state == TicketState.HELD:
                    self._leave_later()
                raise
        elif ticket.reason:
            try:
                self.check()
            except LockLost as loss:
                blame(error, loss)


_inside: ContextVar[asyncio.Task[None] | None] = ContextVar("lockring_change", default=None)
"""The call of a callback that the present task is part of, be it by way of another task (`wait_for` makes one)."""


async def _call(callback: ChangeCallback, gained: KeySet, lost: KeySet) -> None:
    _inside.set(asyncio.current_task())
    result = callback(gained, lost)
    if inspect.isawaitable(result):
        await result


def _report(error: BaseException) -> None:
    context = {"message": "a lockring on_change callback failed", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
