"""The driver of the asyncio client: one core on one event loop, one connection per node.

Requests overlap freely: a call makes a future and goes on when the core has decided. What the core wants sent is written
once per turn of the loop, and one timer is armed for everything that is due later. There is no task per request.
The loop refers to the driver only weakly, so that a client that the program has forgotten can be noticed.

A client that is not closed is closed when its loop ends, when it is forgotten, or at the end of the program. Where
the loop is over by then, the nodes are told past it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, TypeVar

from lockring._version import __version__
from lockring.addresses import split_address
from lockring.client.aio.connection import AsyncConnection
from lockring.client.aio.event_loops import call_on_loop, guard_of
from lockring.client.aio.watching import WatchReader
from lockring.client.arguments import origin_of
from lockring.client.blocking.connection import CONNECT_S
from lockring.client.goodbye import expect_end, log, remember
from lockring.client.grant_state import (
    abandon_held,
    dropped_tickets,
    farewell_of,
    listener_of,
    report_drop,
    tell_lost,
    words_of_drop,
)
from lockring.client.group_state import GroupListener
from lockring.client.logs import LoggedCore, start_writing
from lockring.clock import monotonic_ns
from lockring.core.client import (
    HELD,
    CallResult,
    ClientCore,
    Connect,
    Disconnect,
    GrantLost,
    GroupChange,
    Query,
    QueryKind,
    Resolve,
    SendTo,
    Ticket,
    Update,
    Wait,
)
from lockring.errors import ClientClosed, LockringError
from lockring.net.frames import encode_frame
from lockring.protocol import Message, Mode
from lockring.system_errors import connect_failure, reason_of
from lockring.units import NS_PER_MS, NS_PER_S

_CLOSE_S: Final = 3.0

G = TypeVar("G")
R = TypeVar("R")

_SWEEP_NS: Final = 2 * NS_PER_S
"""How often to look for grants that were dropped and whose `__del__` failed."""
_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005

Outcome = asyncio.Future[LockringError | None]


class AsyncDriver:
    """Runs one client core on the event loop of its first use.

    Args:
        addresses: of the servers.
        owner: gives the label that others see.
        connect_timeout_ns: as for the core.
    """

    def __init__(self, addresses: Sequence[str], owner: Callable[[], str], connect_timeout_ns: int) -> None:
        self.addresses = addresses
        self.owner = owner()
        self._core = LoggedCore(
            addresses,
            owner=self.owner,
            new_id=lambda: secrets.token_hex(8),
            software=f"lockring-python-asyncio {__version__}",
            connect_timeout_ns=connect_timeout_ns,
            origin=origin_of(addresses),
            start_writing=start_writing,
        )
        self._sweep_at_ns = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wires: dict[int, AsyncConnection] = {}
        self._connecting: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._is_flush_planned = False
        self._is_flushing = False
        self._is_busy = False
        self._gone = ""
        """Why nothing is to touch the loop and what belongs to it, once that is so."""
        self._forked = False
        self._ended: asyncio.Future[None] | None = None
        self._guard: AsyncGenerator[None] | None = None
        _engines.add(self)
        remember(self)

    @property
    def is_forked(self) -> bool:
        """Whether this is the child of a fork, and the engine its parent's."""
        return self._forked

    def tell_lost(self, ticket: Ticket) -> None:
        """Tell whoever holds a ticket that it was lost."""
        tell_lost(ticket.holder)

    def tell_regrouped(self, news: GroupChange) -> None:
        """Tell whoever follows a group of a change in it."""
        member = listener_of(news.request.member)
        if member is not None:
            member._on_regrouped(news.gained, news.lost, news.awaited)

    def _usable(self) -> asyncio.AbstractEventLoop:
        """The running loop, which must be the one that this client works on."""
        if self._gone:
            raise ClientClosed(self._gone)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._guard = guard_of(self)
            expect_end()
        elif self._loop is not loop:
            raise ClientClosed("the client belongs to another event loop: make one for each loop")
        return loop

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
        ticket.call = outcome
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
        ticket.call = outcome
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
        request.call = answered
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
        watching = request.call = WatchReader(request)
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
        request.member = ticket.holder = weakref.ref(member)
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

    # ------------------------------------------------------------------ what connections report

    def wire_received(self, wire: AsyncConnection, messages: list[Message]) -> None:
        """Messages came on a connection."""
        if self._wires.get(wire.link) is not wire or self._gone:
            return
        now_ns = monotonic_ns()
        received, link = self._core.receive, wire.link
        self._is_busy = True
        try:
            for message in messages:
                received(link, message, now_ns=now_ns)
        finally:
            self._is_busy = False
        self._flush()

    def wire_lost(self, wire: AsyncConnection, reason: str, error: LockringError | None) -> None:
        """A connection is gone, or what came on it makes no sense."""
        if self._wires.get(wire.link) is not wire or self._gone:
            return
        self._hang_up(wire)
        self._core.disconnected(wire.link, now_ns=monotonic_ns(), reason=reason, error=error)
        self._flush()

    def _hang_up(self, wire: AsyncConnection) -> None:
        del self._wires[wire.link]
        if wire.transport is not None:
            # What is not out by now need not be: whoever wanted it sent sends it again elsewhere. But at the end of the
            # client, the last words are to arrive.
            wire.transport.close()

    async def _connect(self, loop: asyncio.AbstractEventLoop, link: int, address: str) -> None:
        host, port = split_address(address)
        wire = AsyncConnection(self, link, address)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: wire, host, port)
        except Exception as error:  # noqa: BLE001 - whatever it was, this connection has failed, and the core is to know
            self._connecting.pop(link, None)
            if wire.transport is not None:
                wire.transport.abort()
            reason = (
                connect_failure(error, CONNECT_S)
                if isinstance(error, OSError)
                else f"cannot be connected to: {reason_of(error)}"
            )
            self._core.disconnected(link, now_ns=monotonic_ns(), reason=reason)
        else:
            self._connecting.pop(link, None)
            self._wires[link] = wire
            self._core.connected(link, now_ns=monotonic_ns())
            if wire.transport is None or wire.transport.is_closing():
                self.wire_lost(wire, "the connection was lost", None)  # before anybody could be told
        self._flush()

    # ------------------------------------------------------------------ what the core wants

    def _plan_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Carry the core's effects out at the end of this turn of the loop, with those of other calls."""
        if not self._is_flush_planned:
            self._is_flush_planned = True
            loop.call_soon(self._flush_planned)

    def _flush_planned(self) -> None:
        self._is_flush_planned = False
        self._flush()

    def _flush(self) -> None:
        """Do what the core wants done, and arm the timer."""
        if self._is_flushing or self._gone:
            return
        self._is_flushing = True
        try:
            pieces: dict[int, list[bytes]] = {}
            while effects := self._core.take_effects(now_ns=monotonic_ns()):
                for effect in effects:
                    kind = type(effect)
                    if kind is SendTo:
                        frame = encode_frame(effect.message)  # type: ignore[union-attr]
                        pieces.setdefault(effect.link, []).append(frame)  # type: ignore[union-attr]
                    elif kind is Resolve:
                        outcome: Outcome = effect.ticket.call  # type: ignore[union-attr]
                        if not outcome.done():
                            outcome.set_result(effect.error)  # type: ignore[union-attr]
                    else:
                        self._carry_out_rare(effect)
                for link, frames in pieces.items():
                    wire = self._wires.get(link)
                    if wire is not None and wire.transport is not None:
                        wire.transport.write(b"".join(frames))
                pieces.clear()
        finally:
            self._is_flushing = False
        self._arm()

    def _carry_out_rare(self, effect: object) -> None:
        assert self._loop is not None
        match effect:
            case GrantLost(ticket):
                self.tell_lost(ticket)
            case CallResult(request, answer, error):
                if request.kind is QueryKind.WATCH:
                    reader: WatchReader = request.call
                    reader.error, reader.over = error, True
                    reader.wake()
                elif not request.call.done():
                    request.call.set_result((answer, error))
            case Update(request):
                request.call.backlog.add(effect)
                request.call.wake()
            case GroupChange():
                self.tell_regrouped(effect)
            case Connect(link, address):
                name = f"lockring-connect-{address}"
                task = self._loop.create_task(self._connect(self._loop, link, address), name=name)
                self._connecting[link] = task
            case Disconnect(link, _):
                task_or_none = self._connecting.pop(link, None)
                if task_or_none is not None:
                    task_or_none.cancel()
                wire = self._wires.get(link)
                if wire is not None:
                    self._hang_up(wire)

    def _arm(self) -> None:
        """Have `_on_timer` called when something is due; a timer that comes too early is left alone."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if self._core.is_closed:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)
            return
        due_ns = self._core.next_deadline_ns()
        if due_ns is None:
            return
        if self._timer is not None:
            if self._timer_ns <= due_ns:
                return
            self._timer.cancel()
        self._timer_ns = due_ns
        delay_s = max(0, due_ns - monotonic_ns()) / NS_PER_S
        self._timer = loop.call_later(delay_s, _on_timer, weakref.ref(self), True)

    def on_timer(self, may_wait: bool) -> None:
        """What the core has planned is due."""
        now_ns = monotonic_ns()
        assert self._loop is not None
        if may_wait and now_ns - self._timer_ns > _STALL_NS:
            # The process or the loop was stopped: what came meanwhile is to be read before anybody is judged silent.
            self._timer = self._loop.call_later(_STALL_S, _on_timer, weakref.ref(self), False)
            return
        self._timer = None
        dropped: Sequence[Ticket] = ()
        self._is_busy = True
        try:
            if now_ns >= self._sweep_at_ns:
                dropped = self._sweep(now_ns)
            self._core.on_timer(now_ns=now_ns)
        finally:
            self._is_busy = False
        self._flush()
        for ticket in dropped:
            report_drop(ticket)

    def _sweep(self, now_ns: int) -> Sequence[Ticket]:
        """Give up what is held for grants that are gone, before it is renewed, and return it; O(held)."""
        self._sweep_at_ns = now_ns + _SWEEP_NS
        dropped = dropped_tickets(self._core)
        for ticket in dropped:
            self._core.cancel(ticket, now_ns=now_ns)
        return dropped

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

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """In the child of a fork: what was held is the parent's, and so are the loop and the connections."""
        self._forked = True
        self._gone = "the client belongs to the process that was forked: make a new one in the child"
        for loser in abandon_held(self._core, "forked"):
            tell_lost(loser)  # here, on whatever loop it is: no other thread lives in the child


_ending: set[asyncio.Task[None]] = set()
"""What closes clients that were forgotten: nothing else refers to those."""


def _on_timer(reference: weakref.ref[AsyncDriver], may_wait: bool) -> None:
    engine = reference()
    if engine is not None:
        engine.on_timer(may_wait)


_engines: weakref.WeakSet[AsyncDriver] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
