"""The asyncio client's groups, as returned by `Client.group`."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from lockring.client.aio._support import Driver, Wakeup, check_on_change, leave_later
from lockring.client.aio.change_calls import ChangeCalls
from lockring.client.aio.grants import Grant, acquire_in_span
from lockring.client.aio.loss_notices import Event
from lockring.client.arguments import ANSWER_TIMEOUT_S_DEFAULT, Seconds, answer_to_ns, wait_to_ms
from lockring.client.grant_state import LossCallback, blame, keep_from_being_dropped, may_be_dropped
from lockring.client.group_state import (
    ChangeCall,
    ChangeCallback,
    ChangeListener,
    GroupInfo,
    MembershipState,
    least_version,
    member_payload,
)
from lockring.client.process_bound import ProcessBound
from lockring.client.tracing import SDK
from lockring.clock import monotonic_ns
from lockring.core.client import HELD, ClientCore, Query
from lockring.errors import LockLost
from lockring.names import lock_of_group
from lockring.protocol import WAIT_FOREVER, GroupMember, Mode
from lockring.units import NS_PER_MS, NS_PER_S


class Group(ProcessBound):
    """A group's name and the lease that its memberships get. It holds no state: create one wherever you need it."""

    _instead = "pass the addresses of the servers and the group's name, and join it there"

    __slots__ = ("_driver", "_name", "_ttl_ms")

    def __init__(self, driver: Driver, name: str, ttl_ms: int) -> None:
        lock_of_group(name)
        self._driver = driver
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
        """Become a member. Returns once the membership is certain and a first view of the group has arrived.

        A member owns keys only once all other members have let go of them: see `Membership.wait_settled`.

        Args:
            member_id: 1 to 128 bytes of text that determine which keys the member gets; None draws an id at random.
                Joining under the id of an existing member replaces it: that membership is lost (reason "replaced"),
                and its keys pass to the new one once the old one has let go of them or its lease is over.
            weight: the member's share of the keys in proportion to the other members' weights: 1 to 100.
            payload: data that the other members can read, up to 768 bytes.
            timeout: longest wait in seconds, None for no limit (but see the client's `connect_timeout`). A server
                always gets one second to answer, however short the timeout.

        Raises:
            AcquireTimeout: another client held the group's lock exclusively for the whole time.
            Unavailable: no server could be reached, none may serve the group at present, or no view of it arrived in
                time.
            InvalidRequest: an argument is malformed, or the cluster does not allow the TTL.
            ClientClosed: the client was closed.
        """
        member, record = member_payload(member_id, weight, payload)
        wait_ms = wait_to_ms(timeout)
        until_ns = None if wait_ms == WAIT_FOREVER else monotonic_ns() + max(wait_ms * NS_PER_MS, NS_PER_S)
        lock = lock_of_group(self._name)
        if SDK in sys.modules:
            grant = await acquire_in_span(
                self._driver, lock, self._ttl_ms, wait_ms, Mode.SHARED, payload=record
            )
        else:
            grant = await self._driver.acquire(
                Grant, lock, self._ttl_ms, wait_ms, mode=Mode.SHARED, payload=record
            )
        try:
            membership = Membership(self._driver, self._name, member, grant)
            await membership._wait(membership._first_version, until_ns, "got no view of it")
        except BaseException:
            grant._let_go()
            raise
        return membership

    async def describe(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> GroupInfo:
        """Return the group's members and which keys each of them should own, without joining.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node answered within `timeout`.
        """
        lock, give_up_ns = lock_of_group(self._name), answer_to_ns(timeout)
        view = await self._driver.ask(
            lambda core, now_ns: core.look(lock, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return GroupInfo(self._name, view)

    async def members(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> tuple[GroupMember, ...]:
        """Return the members, in the order in which they joined.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node answered within `timeout`.
        """
        info = await self.describe(timeout=timeout)
        return info.members

    def __repr__(self) -> str:
        return f"<Group {self._name!r}, ttl {self.ttl:g} s>"


class Membership(MembershipState):
    """A membership of a group. It reports the other members and which keys this one owns, and leaves the group.

    It ends when it is left, when its lease is lost, or when another member joins under its id. It may be shared by
    any number of tasks. As a context manager it leaves the group at the end of the block; if the membership was lost
    meanwhile, that raises `LockLost`, or adds a note to the error that ends the block.

    Keep a reference for as long as you want to be a member: a membership without callbacks that is garbage collected
    leaves the group with a `ResourceWarning`.
    """

    def __init__(self, driver: Driver, group: str, member_id: str, grant: Grant) -> None:
        super().__init__(group, member_id)
        self._driver = driver
        self._grant: Grant = grant
        self._listeners: list[ChangeListener] = []
        self._arrived: frozenset[int] = frozenset()
        """The slots owned by the changes that have arrived here: the core may be ahead, in another thread."""
        self._wakeups: list[Wakeup] = []
        self._calls = ChangeCalls(driver, group, self._wakeups)
        self._driver.follow(grant._ticket, self)

    def on_change(self, callback: ChangeCallback) -> None:
        """Register a function to be called with the keys that this member gains and loses, whenever there are some.

        `callback(gained, lost)` receives two `KeySet`s, to be used as in `key in gained`. It may be a coroutine
        function. When it is called, `owns` is already False for keys that were lost and True for keys that were
        gained. Calls run one after the other on the event loop. If the member owns keys already, the first call comes
        at once.

        Other members get the lost keys only after the call has returned, so finish there, quickly, whatever two
        members must not do at once. There is no time limit while the membership lasts, but if its lease is lost,
        other members do not wait. In the child of a fork, no callbacks are called.
        """
        check_on_change(callback)
        keep_from_being_dropped(self)
        self._driver.guarded(lambda: self._add(callback))

    def _add(self, callback: ChangeCallback) -> None:
        listener = ChangeListener(callback)
        self._listeners.append(listener)
        # First this, then the look at what is owned: the core takes keys away before it looks whether to wait for a
        # callback. So a key that is reported here is given on only after the callback has returned from its loss.
        self._following.has_callback = True
        # Gains that have not arrived yet are reported when they do, and keys whose loss is on its way never are.
        known = self._arrived & self._following.ownership.owned
        self._tell([listener], known, frozenset(), None)

    async def wait_settled(self, *, after: int | None = None, timeout: Seconds | None = None) -> int:
        """Wait for a settled view that includes this member, and return its version.

        The present view may be such a view already. To wait for the effect of another member joining or leaving, read
        `version` first and wait for a view after it.

        Args:
            after: wait for a version greater than this one; None accepts any.
            timeout: longest wait in seconds, None for no limit.

        Raises:
            AcquireTimeout: there was no such view in time: a member has neither let go of its keys nor lost its
                lease, or no member joined or left after that version.
            Unavailable: there was no such view in time, and the group's node is unreachable or may not serve it.
            LockLost: the membership was lost.
            NotHeld: the membership was left.
            InvalidRequest: `after` is not a version.
        """
        least = least_version(after)
        wait_ms = wait_to_ms(timeout)
        until_ns = None if wait_ms == WAIT_FOREVER else monotonic_ns() + wait_ms * NS_PER_MS
        what = "is not settled" if after is None else f"has no settled version after {after}"
        return await self._wait(lambda: self._settled_version(least), until_ns, what)

    @property
    def lost(self) -> Event:
        """An event that is set when the membership is lost, but not when it is left. It has `wait()` and
        `is_set()`."""
        event = self._grant.lost
        vars(event)["membership"] = self  # a membership whose loss is waited for is not dropped
        return event

    def on_lost(self, callback: LossCallback) -> None:
        """Register a function to be called once if the membership is lost, or immediately if it is lost already.

        As for `Grant.on_lost`.
        """
        keep_from_being_dropped(self)
        self._grant.on_lost(callback)

    async def leave(self) -> None:
        """Give up all keys, run the `on_change` callbacks, then leave the group.

        Returns once the node has confirmed it or the lease has ended. When called from an `on_change` callback, it
        does not wait for the callbacks that are still to come.

        Raises:
            LockLost: the membership was lost before.
            NotHeld: the membership was left before.
        """
        self.check()
        may_be_dropped(self)
        await self._driver.unfollow(self._core, self._request)
        if not self._calls.runs_here():
            await self._wait(lambda: None if self._calls.is_busy else 1, None, "")
        with self._as_membership():
            await self._grant.release()

    # ------------------------------------------------------------------ called by the driver

    def _followed(self, core: ClientCore, request: Query) -> None:
        self._core, self._request = core, request

    def _on_ticket_lost(self) -> None:
        may_be_dropped(self)
        self._grant._on_ticket_lost()
        if self._grant._ticket.reason == "forked":
            # The callbacks and waits that have begun are the parent's: nothing would ever end them here.
            self._calls.forget()
            self._listeners.clear()
            self._wakeups.clear()
        if not self._following.ended:  # the core did not end it: the client has started over, or was forked
            self._on_regrouped(frozenset(), self._following.end(), False)

    def _on_regrouped(self, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        # `awaited` changes count as seen once all callbacks have returned. Nothing is awaited without callbacks.
        self._arrived = (self._arrived | gained) - lost
        if self._listeners:
            seen = functools.partial(self._driver.told, self._core, self._request) if awaited else None
            self._tell(self._listeners, gained, lost, seen)
        for wakeup in self._wakeups:
            wakeup.set()

    def _tell(
        self,
        listeners: list[ChangeListener],
        gained: frozenset[int],
        lost: frozenset[int],
        when_done: Callable[[], None] | None,
    ) -> None:
        calls: list[ChangeCall] = []
        for listener in listeners:
            calls += listener.calls_for(gained, lost)
            listener.apply(gained, lost)
        if calls or when_done is not None:
            self._calls.add(calls, when_done)

    # ------------------------------------------------------------------ waiting

    async def _wait(self, ready: Callable[[], int | None], until_ns: int | None, what: str) -> int:
        """Wait until `ready` returns a number, and return that. `what` completes the error's "but it …"."""
        wakeup = Wakeup()
        self._wakeups.append(wakeup)
        try:
            while (found := ready()) is None:
                if until_ns is not None and monotonic_ns() >= until_ns:
                    raise self._too_late(what, self._driver.waits())
                await wakeup.wait(self._driver, until_ns)
            return found
        finally:
            with contextlib.suppress(ValueError):  # in the child of a fork they are forgotten
                self._wakeups.remove(wakeup)

    async def __aenter__(self) -> Self:
        return self.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket = self._grant._ticket
        if ticket.state == HELD:
            try:
                await self.leave()
            except LockLost as loss:
                blame(error, loss)
            except RuntimeError:
                # The client cannot be used from here: leave without waiting, as a grant releases its lock.
                if ticket.state != HELD:
                    raise
                leave_later(self._driver, self._group, self.leave)
            except BaseException:
                if ticket.state == HELD:
                    leave_later(self._driver, self._group, self.leave)
                raise
        elif ticket.reason:
            try:
                self.check()
            except LockLost as loss:
                blame(error, loss)
