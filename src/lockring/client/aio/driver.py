"""The asyncio client's machinery: one core on one event loop, one connection per node.

Requests overlap freely: a call makes a future and goes on when the core has decided. What the core wants sent is
written once per turn of the loop, and one timer is armed for all there is to do later. There is no task per request.

A client that is not closed is closed when its loop ends, when it is forgotten, or at the end of the program. Where
the loop is over by then, the nodes are told past it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from lockring.client.aio.plumbing import AsyncDriverBase, Outcome
from lockring.client.aio.watching import WatchReader
from lockring.client.goodbye import expect_end, log, remember
from lockring.client.grant_state import abandon_held, farewell_of, words_of_drop
from lockring.client.group_state import GroupListener
from lockring.clock import monotonic_ns
from lockring.core.client.core import ClientCore
from lockring.core.client.effects import Update
from lockring.core.client.outlook import Wait
from lockring.core.client.outstanding import HELD
from lockring.core.client.queries import Query
from lockring.core.client.tickets import Ticket
from lockring.errors import LockringError
from lockring.protocol import Mode
from lockring.units import NS_PER_S

_CLOSE_S: Final = 3.0

G = TypeVar("G")
R = TypeVar("R")


class AsyncDriver(AsyncDriverBase):
    """Runs one client core on the event loop of its first use.

    Args:
        addresses: of the servers.
        owner: gives the label that others see.
        connect_timeout_ns: as for the core.
    """

    def __init__(self, addresses: Sequence[str], owner: Callable[[], str], connect_timeout_ns: int) -> None:
        super().__init__(addresses, owner, connect_timeout_ns)
        self._guard: AsyncGenerator[None] | None = None
        remember(self)

    def _begin_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._guard = guard_of(self)
        expect_end()

    # ------------------------------------------------------------------ calls

    async def acquire(
        self,
        grant: Callable[[Any, Ticket], G],
        name: str,
        ttl_ms: int,
        wait_ms: int,
        mode: int = Mode.EXCLUSIVE,
        payload: bytes = b"",
    ) -> G:
        """Acquire a lock and return its `grant`, made of the driver and the ticket.

        Whatever ends the wait early leaves nothing behind.
        """
        return grant(self, await self.acquire_ticket(name, ttl_ms, wait_ms, mode, payload))

    async def acquire_ticket(self, name: str, ttl_ms: int, wait_ms: int, mode: int, payload: bytes) -> Ticket:
        """Acquire a lock as `acquire` does, and return its ticket alone."""
        loop = self._usable()
        ticket = self._core.acquire(
            name, ttl_ms=ttl_ms, now_ns=monotonic_ns(), wait_ms=wait_ms, mode=mode, payload=payload
        )
        outcome: Outcome = loop.create_future()
        ticket.context = outcome
        if not self._is_flush_planned:
            self._plan_flush(loop)
        try:
            error = await outcome
        except BaseException:
            self._core.cancel(ticket, now_ns=monotonic_ns())
            self._plan_flush(loop)
            raise
        if error is not None:
            raise error
        return ticket

    async def release(self, ticket: Ticket) -> None:
        """Release a held ticket. Outside the client's loop, have that done there without waiting for it.

        Raises:
            LockLost, NotHeld: it is not held.
        """
        try:
            await self.release_here(ticket)
        except RuntimeError:  # another loop runs here than the client's, or none
            if ticket.state != HELD:
                raise
            self.call_at_home(functools.partial(self.let_go, ticket))

    async def release_here(self, ticket: Ticket) -> None:
        """Release a held ticket on the client's loop."""
        loop = self._usable()
        self._plan_flush(loop)
        self._core.release(ticket, now_ns=monotonic_ns())
        outcome: Outcome = loop.create_future()
        ticket.context = outcome
        try:
            await outcome
        except BaseException:
            self._core.cancel(ticket, now_ns=monotonic_ns())
            raise

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        self._core.cancel(ticket, now_ns=monotonic_ns())
        self._plan_flush(self._usable())

    async def ask(self, question: Callable[[ClientCore, int], Query]) -> Any:
        """Ask something of the core, given it and the time, and wait for the answer."""
        loop = self._usable()
        request = question(self._core, monotonic_ns())
        answered: asyncio.Future[tuple[Any, LockringError | None]] = loop.create_future()
        request.context = answered
        self._plan_flush(loop)
        try:
            answer, error = await answered
        except BaseException:
            self._core.abandon(request, now_ns=monotonic_ns())
            self._plan_flush(loop)
            raise
        if error is not None:
            raise error
        return answer

    def watch(self, name: str) -> WatchReader:
        """Begin to watch a lock."""
        loop = self._usable()
        request = self._core.watch(name, now_ns=monotonic_ns())
        watching = request.context = WatchReader(request)
        self._plan_flush(loop)
        return watching

    async def next_updates(self, watching: WatchReader) -> list[Update]:
        """Wait for news of a watch."""
        if not watching.backlog and not watching.over:
            watching.woken = self._usable().create_future()
            try:
                await watching.woken
            finally:
                watching.woken = None
        updates = watching.backlog.take()
        if not updates and watching.error is not None:
            raise watching.error
        return updates

    def unwatch(self, watching: WatchReader) -> None:
        """End a watch."""
        if self._loop is not None and not self._loop.is_closed():
            self._core.abandon(watching.request, now_ns=monotonic_ns())
            self._plan_flush(self._loop)

    def follow(self, ticket: Ticket, member: GroupListener) -> None:
        """Begin to follow the group that a held ticket is a membership of; `member` hears of changes from now on."""
        loop = self._usable()
        request = self._core.follow(ticket, now_ns=monotonic_ns())
        request.context = ticket.context = weakref.ref(member)
        member._followed(self._core, request)
        self._plan_flush(loop)

    def told(self, core: ClientCore, request: Query) -> None:
        """Record that the callbacks of a group's change have returned. `core` is the one that follows the group."""
        if not self._gone and core is self._core:
            self._core.told(request, now_ns=monotonic_ns())
            self._plan_flush(self._usable())

    async def unfollow(self, core: ClientCore, request: Query) -> None:
        """Give up all keys of a member that is about to leave; it hears of that by `_on_regrouped`."""
        self._usable()
        core.leave(request, now_ns=monotonic_ns())
        self._flush()

    def guarded(self, work: Callable[[], R]) -> R:
        """Do something that must not be interrupted by the driver: on an event loop nothing is."""
        return work()

    def call_at_home(self, function: Callable[[], object]) -> None:
        """Call a function on the client's loop: at once if that runs here. On a closed loop nothing is kept alive any
        more."""
        call_on_loop(self._loop, function)

    def notice_expiry(self) -> None:
        """Find out what has expired by now. In the middle of the core's work, where a finalizer may ask, the clock
        tells as much."""
        if self._is_flushing or self._is_busy or self._gone:
            return
        self._core.on_timer(now_ns=monotonic_ns())
        if self._loop is not None and not self._loop.is_closed():
            self._flush()

    def waits(self) -> list[Wait]:
        """What the calls wait for that are not answered yet."""
        return self._core.waits(monotonic_ns())

    # ------------------------------------------------------------------ the end

    async def close(self) -> None:
        """End the sessions, tell the nodes (for a second at most), and close all connections; from any loop."""
        loop, here = self._loop, asyncio.get_running_loop()
        if loop is None or loop is here or self._gone:
            await self._close()
        elif loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self._close(), loop)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.wrap_future(closing), _CLOSE_S)
        else:
            self.end_without_loop()

    async def _close(self) -> None:
        self._core.close(now_ns=monotonic_ns())
        if self._loop is None or self._gone:
            return
        self._flush()
        if not self._core.is_closed:
            if self._ended is None:
                self._ended = self._loop.create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ended), _CLOSE_S)

    def end_without_loop(self) -> None:
        """The event loop is over or stands still: tell the nodes past it, and hold nothing any more."""
        if self._gone or self._core.is_closed:
            return
        farewell = farewell_of(self._core)
        for wire in self._wires.values():
            wire.say_last(farewell)
        self._gone = "the client was closed past its event loop, which did not run any more"
        abandon_held(self._core, "session-ended")

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """At the end of the program: begin to close; returns what waits for the end of that, until a time."""
        loop = self._loop
        if loop is None or self._gone or self._core.is_closed:
            return None
        if not loop.is_running():
            self.end_without_loop()
            return None
        closing = asyncio.run_coroutine_threadsafe(self._close(), loop)

        def wait(until_ns: int) -> None:
            with contextlib.suppress(TimeoutError):
                closing.result(max(0, until_ns - monotonic_ns()) / NS_PER_S)

        return wait

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""
        loop = self._loop
        if loop is not None and not self._gone:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing is renewed
                loop.call_soon_threadsafe(self._drop, ticket)

    def _drop(self, ticket: Ticket) -> None:
        if not self._gone:
            log.warning("%s", words_of_drop(ticket))
            self._core.cancel(ticket, now_ns=monotonic_ns())
            self._flush()

    def __del__(self) -> None:
        """Nothing refers to the client any more, nor to what it gave out: close it, and say that it was forgotten."""
        loop = getattr(self, "_loop", None)
        if loop is None or self._gone or self._core.is_closed or self._ended is not None:
            return
        try:
            loop.call_soon_threadsafe(self._end_forgotten)
        except RuntimeError:  # the loop is closed
            self.end_without_loop()
        warnings.warn(
            f"a client of {','.join(self.addresses)} was forgotten and not closed: what it held is given up",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    def _end_forgotten(self) -> None:
        assert self._loop is not None
        for wire in self._wires.values():
            wire.belong_to(self)
        task = self._loop.create_task(self._close(), name="lockring-close")
        _ending.add(task)
        task.add_done_callback(_ending.discard)


def call_on_loop(loop: asyncio.AbstractEventLoop | None, function: Callable[[], object]) -> None:
    """Call a function on a loop: at once if that runs here, else soon; not at all if it is closed."""
    if loop is None:
        return
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    if is_here:
        function()
    else:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(function)


_ending: set[asyncio.Task[None]] = set()
"""What closes clients that were forgotten: nothing else refers to those."""


class Closable(Protocol):
    """What is to be closed when its loop ends."""

    async def close(self) -> None:
        """Close it; from any loop."""


def guard_of(engine: Closable) -> AsyncGenerator[None]:
    """Have an engine closed when the running loop ends: `asyncio.run` closes all generators that were begun on it."""
    generator = _until_the_loop_ends(weakref.ref(engine))
    with contextlib.suppress(StopIteration):
        step: Any = generator.__anext__()
        step.send(None)  # begins it, without a task
    return generator


async def _until_the_loop_ends(reference: weakref.ref[Closable]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        engine = reference()
        if engine is not None:
            await engine.close()
