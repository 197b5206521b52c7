"""The asyncio client's grants."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, overload

from lockring.client.aio.driver import AsyncDriver
from lockring.client.aio.threaded_driver import ThreadedDriver
from lockring.client.arguments import ANSWER_TIMEOUT_S_DEFAULT, Seconds, answer_to_ns
from lockring.client.grant_state import (
    GrantState,
    LossCallback,
    blame,
    check_callback,
    give_up_dropped,
    is_holder,
    keep_from_being_dropped,
    loss_of,
    may_be_dropped,
)
from lockring.client.logs import log_loss
from lockring.client.process_bound import ProcessBound
from lockring.core.client import HELD, Ticket, TicketState
from lockring.errors import LockLost


class Grant(GrantState):
    """One acquisition of a lock: it says whether the lock is held, and gives it back.

    As a context manager it releases the lock at the end of the block. If the lock was lost meanwhile, leaving the block
    raises `LockLost`, or adds a note to the error that ends it.

    Keep it for as long as the lock is to be held: a grant that nothing refers to any more gives its lock up, with a
    `ResourceWarning`. The event `lost` and the callbacks of `on_lost` refer to it until the lock is released or lost.
    """

    __slots__ = ("__weakref__", "_engine", "_event")

    def __init__(self, engine: AsyncDriver | ThreadedDriver, ticket: Ticket) -> None:
        super().__init__(engine, ticket)
        self._engine = engine
        self._event: asyncio.Event | None = None
        ticket.holder = weakref.ref(self)

    @property
    def lost(self) -> asyncio.Event:
        """An event that is set once the lock was lost (not when it is released), with `wait()` and `is_set()`.

        In the child of a fork, take it from the grant again.
        """
        is_lost = self._loss is not None
        if self._event is None:
            self._event = asyncio.Event()
            vars(self._event)["grant"] = self  # who waits for a loss has not dropped the grant
        if is_lost:
            self._event.set()
        return self._event

    def on_lost(self, callback: LossCallback) -> None:
        """Have a function called once if the lock is lost; at once if it is lost already.

        It is called with the `LockLost` that `check` would raise, in a thread of its own (with asyncio: in the loop). It is
        started before anyone else can get the lock. Not called after a release, nor in the child of a fork.

        Raises:
            InvalidRequest: it is a coroutine function, which would never be run.
        """
        check_callback(callback)
        if self._ticket.reason:
            _call_back([callback], loss_of(self._ticket))
            return
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)
        keep_from_being_dropped(self)

    def _on_ticket_lost(self) -> None:
        """For the client: the lock was lost."""
        log_loss(self._ticket)
        may_be_dropped(self)
        if self._event is not None:
            self._event.set()
        callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            _call_back(callbacks, loss_of(self._ticket))

    async def verify(self, *, timeout: Seconds = ANSWER_TIMEOUT_S_DEFAULT) -> bool:
        """Ask the lock's node whether this grant is still the holder.

        `held` says whether it is safe to go on; this is for when a look at the cluster itself is wanted.

        Args:
            timeout: how long to try, in seconds.

        Raises:
            Unavailable: no node could tell within that time.
        """
        give_up_ns = answer_to_ns(timeout)
        ticket = self._ticket
        answer = await self._engine.ask(
            lambda core, now_ns: core.describe(ticket.name, give_up_at_ns=now_ns + give_up_ns, now_ns=now_ns)
        )
        return self.held and is_holder(ticket, answer.lock)

    async def release(self) -> None:
        """Give the lock back, and return once its node has confirmed it, or once the lease has ended anyway.

        Raises:
            LockLost: it was lost before.
            NotHeld: it was released before.
        """
        if self._callbacks is not None:
            may_be_dropped(self)
        await _release(self._engine, self._ticket)

    def __del__(self) -> None:
        """Nothing refers to the grant any more: nobody can give the lock back, so do that here, and say so."""
        ticket: Ticket | None = getattr(self, "_ticket", None)  # not there if an interrupt came first
        if ticket is not None and ticket.state == HELD:
            give_up_dropped(self, ticket)

    async def __aenter__(self) -> Self:
        return self.check()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ticket = self._ticket
        if ticket.state == TicketState.HELD:
            if self._callbacks is not None:
                may_be_dropped(self)
            try:
                await _release(self._engine, ticket)
            except LockLost as loss:
                blame(error, loss)
        elif ticket.reason:
            blame(error, loss_of(ticket))


class Grants(ProcessBound, Sequence[Grant]):
    """The grants of several locks, in the order in which they were named; as a context manager it releases them all.

    If any was lost meanwhile, leaving the block raises `LockLost` for the first of them.
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
        """Whether all of the locks are held at this moment."""
        return all(grant.held for grant in self._grants)

    def check(self) -> Self:
        """Return the grants if all locks are held.

        Raises:
            LockLost: one was lost.
            NotHeld: one was released.
        """
        for grant in self._grants:
            grant.check()
        return self

    async def release(self) -> None:
        """Give all locks back, the last acquired first.

        Raises:
            LockLost: one was lost before; the others are released.
            NotHeld: one was released before; the others are released.
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
            raise problem

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
            raise problem

    def __repr__(self) -> str:
        return f"<Grants {list(self._grants)!r}>"


Engine = AsyncDriver | ThreadedDriver


async def _release(engine: Engine, ticket: Ticket) -> None:
    """Release a ticket; where that is another loop than the client's, or none runs, have it done there without waiting."""
    try:
        await engine.release(ticket)
    except RuntimeError:
        if ticket.state != TicketState.HELD:
            raise
        call_at_home(engine, lambda: engine.let_go(ticket))


def call_at_home(engine: Engine, function: Callable[[], object]) -> None:
    """Have a function called on the loop that a client belongs to. Where that loop is closed nothing is kept alive any more."""
    home = engine._loop if isinstance(engine, AsyncDriver) else engine._engine.home
    if home is not None:
        with contextlib.suppress(RuntimeError):
            home.call_soon_threadsafe(function)


def _let_go(grants: Iterable[Grant]) -> None:
    """Release without waiting what an interrupted release of several leaves."""
    for grant in grants:
        grant._engine.let_go(grant._ticket)


def _call_back(callbacks: Sequence[LossCallback], loss: LockLost) -> None:
    """Call who wants to hear of a loss."""
    for callback in callbacks:
        try:
            callback(loss)
        except Exception as error:  # noqa: BLE001 - reported; the other callbacks must be called
            context = {"message": "a lockring on_lost callback failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
