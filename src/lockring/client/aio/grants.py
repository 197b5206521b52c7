"""The asyncio client's grants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self, overload

from lockring.client.aio._support import Driver
from lockring.client.aio.loss_notices import Event, LossNotices
from lockring.client.arguments import ANSWER_TIMEOUT_S_DEFAULT, Seconds, answer_to_ns
from lockring.client.grant_state import (
    LossCallback,
    blame,
    check_callback,
    give_up_dropped,
    is_holder,
    loss_of,
    may_be_dropped,
)
from lockring.client.process_bound import ProcessBound
from lockring.client.tracing import HoldSpan, acquire_span
from lockring.core.client import HELD, Ticket
from lockring.errors import LockLost
from lockring.ids import LockName


class Grant(LossNotices):
    """One acquisition of a lock. It reports whether the lock is still held, and releases it.

    It may be shared by any number of tasks. As a context manager it releases the lock at the end of the block. If the
    lock was lost meanwhile, leaving the block raises `LockLost`, or adds a note to the error that ends the block.

    Keep a reference to the grant for as long as you need the lock: a grant that is garbage collected while held
    releases its lock with a `ResourceWarning`. The event `lost` and callbacks registered with `on_lost` keep a
    reference to the grant until the lock is released or lost.
    """

    __slots__ = ("__weakref__",)

    @property
    def lost(self) -> Event:
        """An event that is set when the lock is lost, but not when it is released. It has `wait()` and `is_set()`.

        After a fork, read this property again in the child.
        """
        return self._lost_event()

    def on_lost(self, callback: LossCallback) -> None:
        """Register a function to be called once if the lock is lost, or immediately if it is lost already.

        The callback receives the `LockLost` that `check` would raise. It runs on the event loop, and is started
        before any other client can acquire the lock. It is not called after a release, nor in the child of a fork.

        Raises:
            InvalidRequest: `callback` is a coroutine function, which would never run.
        """
        check_callback(callback)
        self._add_loss_callback(callback)

    async def verify(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> bool:
        """Ask the lock's node whether this grant still holds the lock.

        Use `held` to decide whether it is safe to continue. This method shows the cluster's own view instead.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node answered within `timeout`.
        """
        give_up_ns = answer_to_ns(timeout)
        ticket = self._ticket
        answer = await self._driver.ask(
            lambda core, now_ns: core.describe(ticket.name, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return self.held and is_holder(ticket, answer.lock)

    async def release(self) -> None:
        """Release the lock. Returns once the node has confirmed the release or the lease has ended.

        Raises:
            LockLost: the lock was lost before.
            NotHeld: the lock was released before.
        """
        if self._callbacks is not None:
            may_be_dropped(self)
        if self._hold is None:
            await self._driver.release(self._ticket)
        else:
            await self._release_in_span(self._hold)

    def _let_go(self) -> None:
        """Release the lock, whatever its state, without waiting for the answer."""
        self._driver.let_go(self._ticket)
        if self._hold is not None:
            self._hold.end("released")

    async def _release_in_span(self, hold: HoldSpan) -> None:
        with hold.releasing():
            await self._driver.release(self._ticket)

    def __del__(self) -> None:
        """Release the lock of a grant that was dropped while held, and warn: no caller can release it any more."""
        # An interrupt may have ended the constructor before there was a ticket.
        ticket: Ticket | None = getattr(self, "_ticket", None)
        if ticket is not None and ticket.state == HELD:
            give_up_dropped(self, ticket)

    async def __aenter__(self) -> Self:
        return self.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket = self._ticket
        if ticket.state == HELD:
            if self._callbacks is not None:
                may_be_dropped(self)
            try:
                if self._hold is None:
                    await self._driver.release(ticket)
                else:
                    await self._release_in_span(self._hold)
            except LockLost as loss:
                blame(error, loss)
        elif ticket.reason:
            blame(error, loss_of(ticket))


class Grants(ProcessBound, Sequence[Grant]):
    """The grants of several locks, in the order in which the locks were named.

    As a context manager it releases all locks at the end of the block. If any was lost meanwhile, leaving the block
    raises `LockLost` for the first of them.
    """

    _instead = "pass their names and fencing tokens; the leases stay with this process"

    def __init__(self, grants: Iterable[Grant]) -> None:
        self._grants = tuple(grants)

    @overload
    def __getitem__(self, index: int) -> Grant: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Grant]: ...
    def __getitem__(self, index: int | slice) -> Grant | Sequence[Grant]:
        return self._grants[index]

    def __len__(self) -> int:
        return len(self._grants)

    @property
    def held(self) -> bool:
        """Whether all locks are held at this moment."""
        return all(grant.held for grant in self._grants)

    def check(self) -> Self:
        """Return the grants if all locks are held.

        Raises:
            LockLost: one of the locks was lost.
            NotHeld: one of the locks was released.
        """
        for grant in self._grants:
            grant.check()
        return self

    async def release(self) -> None:
        """Release all locks, in reverse order of acquisition.

        Raises:
            LockLost: one of the locks was lost before; the others are released.
            NotHeld: one of the locks was released before; the others are released.
        """
        problem: BaseException | None = None
        left = sorted(self._grants, key=lambda grant: grant.name)
        while left:
            try:
                await left.pop().release()
            except Exception as error:  # noqa: BLE001 - raised below, once all others are released
                problem = problem or error
            except BaseException:
                _let_go(left)
                raise
        if problem is not None:
            try:
                raise problem
            finally:
                del problem  # its traceback has this call, and would keep itself in memory

    async def __aenter__(self) -> Self:
        return self.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problem: BaseException | None = None
        left = sorted(self._grants, key=lambda grant: grant.name)
        while left:
            try:
                await left.pop().__aexit__(kind, error, trace)
            except Exception as failure:  # noqa: BLE001 - raised below, once all others are released
                problem = problem or failure
            except BaseException:
                _let_go(left)
                raise
        if problem is not None:
            try:
                raise problem
            finally:
                del problem  # its traceback has this call, and would keep itself in memory

    def __repr__(self) -> str:
        return f"<Grants {list(self._grants)!r}>"


def _let_go(grants: Iterable[Grant]) -> None:
    """Release, without waiting, the locks that an interrupted release of several has left."""
    for grant in grants:
        grant._let_go()


async def acquire_in_span(
    driver: Driver, name: LockName, ttl_ms: int, wait_ms: int, mode: int, *, payload: bytes = b""
) -> Grant:
    """Acquire a lock as the driver does, in a span of the program's traces if OpenTelemetry is there as a whole."""
    span = acquire_span(name, mode)
    if span is None:
        return await driver.acquire(Grant, name, ttl_ms, wait_ms, mode=mode, payload=payload)
    with span:
        grant = await driver.acquire(
            Grant, name, ttl_ms, wait_ms, mode=mode, payload=payload, traceparent=span.traceparent
        )
        grant._hold = span.granted(grant.fencing_token)
        return grant
