"""The blocking client's groups: what `Client.group` gives."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lockring.client.arguments import ANSWER_TIMEOUT_S_DEFAULT, Seconds, answer_to_ns, wait_to_ms
from lockring.client.blocking.grants import Grant
from lockring.client.grant_state import (
    LossCallback,
    blame,
    check_callback,
    keep_from_being_dropped,
    may_be_dropped,
    report_in_thread,
)
from lockring.client.group_state import (
    ChangeCallback,
    GroupInfo,
    MembershipState,
    call_all,
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
    from lockring.client.blocking.client import Client


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

    def join(
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
        grant = self._client._acquire(lock_of_group(self._name), self._ttl_ms, wait_ms, Mode.SHARED, record)
        try:
            membership = Membership(self._client, self._name, member, grant)
            membership._wait(membership._first_version, until_ns, "got no view of it")
        except BaseException:
            self._client._engine.let_go(grant._ticket)
            raise
        return membership

    def describe(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> GroupInfo:
        """Who is in the group, and who should own what, without joining it.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        lock, give_up_ns = lock_of_group(self._name), answer_to_ns(timeout)
        view = self._client._engine.ask(
            lambda core, now_ns: core.look(lock, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return GroupInfo(self._name, view)

    def members(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> tuple[GroupMember, ...]:
        """The members, in the order in which they joined.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        return self.describe(timeout=timeout).members

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
        self._news: deque[tuple[tuple[ChangeCallback, ...], KeySet, KeySet, bool]] = deque()
        self._teller: int | None = None
        """Which thread tells, 0 if it does not run yet."""
        self._waiting: list[threading.Lock] = []
        """A gate for each thread that waits for something: an event has a lock that does not let its own thread in again."""
        self._engine.follow(grant._ticket, self)

    def on_change(self, callback: ChangeCallback) -> None:
        """Have a function called with the keys that this member gains and loses, each time that some are.

        `callback(gained, lost)` gets two `KeySet`s: `key in gained`, `key in lost`. `owns` says no to what is lost before it is
        called, and yes to what is gained. Calls come one after the other, in a thread of their own (with asyncio: in the
        loop, where alone it may be a coroutine function). If keys are owned already, the first call comes at once.

        Others get what was lost only when the call has returned: finish there what must not be done by two, and
        quickly. While the membership lasts there is no bound on that; if the lease is lost, others do not wait.
        """
        check_callback(callback, "on_change")
        keep_from_being_dropped(self)
        self._engine.guarded(lambda: self._add(callback))

    def _add(self, callback: ChangeCallback) -> None:
        self._callbacks.append(callback)
        self._following.has_callback = True
        owned = self._following.ownership.owned
        if owned and not self._following.ended:
            self._tell_later((callback,), KeySet(owned), KeySet(), False)

    def wait_settled(self, *, after: int | None = None, timeout: Seconds | None = None) -> int:
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
        return self._wait(lambda: self._settled_version(least), until_ns, what)

    @property
    def lost(self) -> threading.Event:
        """An event that is set once the membership was lost (not when it is left), with `wait()` and `is_set()`."""
        event = self._grant.lost
        vars(event)["membership"] = self  # who waits for a loss has not dropped the membership
        return event

    def on_lost(self, callback: LossCallback) -> None:
        """Have a function called once if the membership is lost; at once if it is lost already. As `Grant.on_lost`."""
        keep_from_being_dropped(self)
        self._grant.on_lost(callback)

    def leave(self) -> None:
        """Own nothing any more, have that told to who wants to hear of it, and then leave the group.

        Returns once that is confirmed, or once the lease has ended anyway. Called by a callback of `on_change`, it does
        not wait for the calls that are still to come.

        Raises:
            LockLost: the membership was lost before.
            NotHeld: it was left before.
        """
        self.check()
        may_be_dropped(self)
        self._engine.unfollow(self._core, self._request)
        if threading.get_ident() != self._teller:
            self._wait(lambda: 1 if self._teller is None else None, None, "")
        with self._as_membership():
            self._grant.release()

    # ------------------------------------------------------------------ for the client, with its lock held

    def _followed(self, core: ClientCore, request: Query) -> None:
        """For the client: the group is followed by this request."""
        self._core, self._request = core, request

    def _on_ticket_lost(self) -> None:
        """For the client: the membership was lost."""
        may_be_dropped(self)
        self._grant._on_ticket_lost()
        if self._grant._ticket.reason == "forked":
            # Who was telling is a thread of the parent's, and the events are in a state that nobody knows.
            self._teller = None
            self._news.clear()
            self._waiting.clear()
        if not self._following.ended:  # the client had to start over, or this is the child of a fork
            self._on_regrouped(frozenset(), self._following.end(), False)

    def _on_regrouped(self, gained: frozenset[int], lost: frozenset[int], awaited: bool) -> None:
        """For the client: something has changed in the group."""
        if self._callbacks and (gained or lost):
            self._tell_later(tuple(self._callbacks), KeySet(gained), KeySet(lost), awaited)
        self._open_gates()

    def _tell_later(
        self, callbacks: tuple[ChangeCallback, ...], gained: KeySet, lost: KeySet, awaited: bool
    ) -> None:
        self._news.append((callbacks, gained, lost, awaited))
        if self._teller is None:
            self._teller = 0
            self._engine.spawn(self._tell, f"lockring-group-{self._group[:40]}")

    # ------------------------------------------------------------------ inner

    def _tell(self) -> None:
        """Tell what there is to tell, and end."""
        self._teller = threading.get_ident()
        while True:
            news = self._engine.guarded(self._next_news)
            if news is None:
                return
            callbacks, gained, lost, awaited = news
            call_all(callbacks, gained, lost, report_in_thread)
            if awaited:
                self._engine.told(self._core, self._request)

    def _wait(self, ready: Callable[[], int | None], until_ns: int | None, what: str) -> int:
        """Wait until `ready` gives something."""
        gate = threading.Lock()
        gate.acquire()
        self._waiting.append(gate)
        try:
            while (found := ready()) is None:
                if until_ns is not None and monotonic_ns() >= until_ns:
                    raise self._too_late(what, self._engine.waits())
                self._engine.wait_at(gate, until_ns)
            return found
        finally:
            self._waiting.remove(gate)

    def _open_gates(self) -> None:
        """Let all look again that wait for something."""
        for gate in list(self._waiting):
            with contextlib.suppress(RuntimeError):  # it is open
                gate.release()

    def _next_news(self) -> tuple[tuple[ChangeCallback, ...], KeySet, KeySet, bool] | None:
        if self._news:
            return self._news.popleft()
        self._teller = None
        self._open_gates()
        return None

    def _leave_later(self) -> None:
        """Leave where nobody waits for it; not at once, since callbacks may still be finishing what must not be done by two."""
        name = f"lockring-leave-{self._group[:40]}"
        threading.Thread(target=self._leave_unheard, name=name, daemon=True).start()

    def _leave_unheard(self) -> None:
        with contextlib.suppress(LockringError):  # lost or closed meanwhile, so left
            self.leave()

    def __enter__(self) -> Self:
        return self.check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket = self._grant._ticket
        if ticket.state == TicketState.HELD:
            try:
                self.leave()
            except LockLost as loss:
                blame(error, loss)
            except BaseException:
                if ticket.state == TicketState.HELD:
                    self._leave_later()
                raise
        elif ticket.reason:
            try:
                self.check()
            except LockLost as loss:
                blame(error, loss)
