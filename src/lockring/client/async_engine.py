"""The asyncio client's machinery: one core on one event loop, one connection per node.

Requests overlap freely: a call makes a future and goes on when the core has decided. What the core wants sent is
written once per turn of the loop, and one timer is armed for all there is to do later. There is no task per request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from lockring._version import __version__
from lockring.client.arguments import origin_of
from lockring.client.async_watching import Watching
from lockring.client.holding import abandon_held
from lockring.client.logs import LoggedCore
from lockring.client.membership import Follower
from lockring.client.wire import CONNECT_S, decoder, not_understood, reason_of
from lockring.clock import monotonic_ns
from lockring.core.asking import Request
from lockring.core.client import ClientCore
from lockring.core.client_effects import (
    Answer,
    Connect,
    Disconnect,
    GrantLost,
    Regrouped,
    Resolve,
    Send,
    Update,
)
from lockring.core.holdings import Ticket
from lockring.core.outlook import Wait
from lockring.errors import ClientClosed, LockringError, ProtocolError
from lockring.messages import Message, Mode
from lockring.names import split_address
from lockring.net.frames import FrameReader, encode_frame
from lockring.net.sockets import tune
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005
_CLOSE_S: Final = 3.0

Outcome = asyncio.Future[LockringError | None]


class AsyncWire(asyncio.Protocol):
    """One connection, as the event loop drives it."""

    def __init__(self, engine: AsyncEngine, link: int, address: str) -> None:
        self._engine = engine
        self._frames: FrameReader[Message] = FrameReader(decoder)
        self._greeted = False
        self.link = link
        self.address = address
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is there."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        tune(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            messages = self._frames.feed(data)
        except ProtocolError as error:
            wrong = not_understood(self.address, error, self._greeted)
            self._engine.wire_lost(self, "", wrong)
            return
        if messages:
            self._greeted = True
            self._engine.wire_received(self, messages)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        reason = "the connection was lost" if self._greeted else "closed the connection without a greeting"
        self._engine.wire_lost(self, reason, None)


class AsyncEngine:
    """Runs one client core on the event loop of its first use.

    Args:
        addresses: of the servers.
        owner: label that others see.
        connect_timeout_ns: as for the core.
    """

    def __init__(self, addresses: Sequence[str], owner: str, connect_timeout_ns: int) -> None:
        self.addresses = addresses
        self.owner = owner
        self._core = LoggedCore(
            addresses,
            owner=owner,
            new_id=lambda: secrets.token_hex(8),
            software=f"lockring-python-asyncio {__version__}",
            connect_timeout_ns=connect_timeout_ns,
            origin=origin_of(addresses),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wires: dict[int, AsyncWire] = {}
        self._connecting: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._is_flush_planned = False
        self._is_flushing = False
        self._forked = False
        self._ended: asyncio.Future[None] | None = None
        _engines.add(self)

    # ------------------------------------------------------------------ calls

    async def acquire(
        self, name: str, ttl_ms: int, wait_ms: int, mode: int = Mode.EXCLUSIVE, payload: bytes = b""
    ) -> Ticket:
        """Acquire a lock; whatever ends the wait early leaves nothing behind."""
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
        """Release a held ticket.

        Raises:
            LockLost, NotHeld: it is not held.
        """
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

    async def ask(self, question: Callable[[ClientCore, int], Request]) -> Any:
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

    def watch(self, name: str) -> tuple[Watching, Request]:
        """Begin to watch a lock."""
        loop = self._usable()
        request = self._core.watch(name, now_ns=monotonic_ns())
        watching = request.context = Watching()
        self._plan_flush(loop)
        return watching, request

    async def next_updates(self, watching: Watching) -> list[Update]:
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

    def unwatch(self, request: Request) -> None:
        """End a watch."""
        if self._loop is not None and not self._loop.is_closed():
            self._core.abandon(request, now_ns=monotonic_ns())
            self._plan_flush(self._loop)

    def follow(self, ticket: Ticket, member: Follower) -> None:
        """Begin to follow the group that a held ticket is a membership of; `member` hears of changes from now on."""
        loop = self._usable()
        request = self._core.follow(ticket, now_ns=monotonic_ns())
        request.context = ticket.context = member
        member._followed(self._core, request)
        self._plan_flush(loop)

    def told(self, request: Request) -> None:
        """The one that follows was told of a change."""
        if not self._forked:
            self._core.told(request, now_ns=monotonic_ns())
            self._plan_flush(self._usable())

    async def unfollow(self, request: Request) -> None:
        """A member is about to leave: it owns nothing any more, and has been told so (`_on_regrouped`)."""
        self._usable()
        self._core.leave(request, now_ns=monotonic_ns())
        self._flush()

    def notice_expiry(self) -> None:
        """Find out what has expired by now."""
        self._core.on_timer(now_ns=monotonic_ns())
        if self._is_flushing or self._loop is None or self._loop.is_closed():
            return
        self._flush()

    def waits(self) -> list[Wait]:
        """What the calls wait for that are not answered yet."""
        return self._core.waits(monotonic_ns())

    async def close(self) -> None:
        """End the sessions, tell the nodes (for a second at most), and close all connections."""
        loop = asyncio.get_running_loop()
        self._core.close(now_ns=monotonic_ns())
        if self._loop is not loop or self._forked:
            return
        self._flush()
        if not self._core.is_closed:
            if self._ended is None:
                self._ended = loop.create_future()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ended), _CLOSE_S)

    @property
    def is_forked(self) -> bool:
        """Whether this is the child of a fork, and the engine its parent's."""
        return self._forked

    def tell_lost(self, ticket: Ticket) -> None:
        """Tell whoever holds a ticket that it was lost."""
        ticket.context._on_ticket_lost()

    def tell_regrouped(self, news: Regrouped) -> None:
        """Tell whoever follows a group of a change in it."""
        news.request.context._on_regrouped(news.gained, news.lost, news.awaited)

    def _usable(self) -> asyncio.AbstractEventLoop:
        """The running loop, which must be the one that this client works on."""
        if self._forked:
            raise ClientClosed(
                "the client belongs to the process that was forked: make a new one in the child"
            )
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise ClientClosed("the client belongs to another event loop: make one for each loop")
        return loop

    # ------------------------------------------------------------------ what connections report

    def wire_received(self, wire: AsyncWire, messages: list[Message]) -> None:
        """Messages came on a connection."""
        if self._wires.get(wire.link) is not wire or self._forked:
            return
        now_ns = monotonic_ns()
        received, link = self._core.received, wire.link
        for message in messages:
            received(link, message, now_ns=now_ns)
        self._flush()

    def wire_lost(self, wire: AsyncWire, reason: str, error: LockringError | None) -> None:
        """A connection is gone, or what came on it makes no sense."""
        if self._wires.get(wire.link) is not wire or self._forked:
            return
        self._hang_up(wire)
        self._core.disconnected(wire.link, now_ns=monotonic_ns(), reason=reason, error=error)
        self._flush()

    def _hang_up(self, wire: AsyncWire) -> None:
        del self._wires[wire.link]
        if wire.transport is not None:
            # What is not out by now need not be: whoever wanted it sent sends it again elsewhere. But at the end of the
            # client, the last words are to arrive.
            wire.transport.close()

    async def _connect(self, loop: asyncio.AbstractEventLoop, link: int, address: str) -> None:
        host, port = split_address(address)
        wire = AsyncWire(self, link, address)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: wire, host, port)
        except OSError as error:  # also TimeoutError
            self._connecting.pop(link, None)
            self._core.disconnected(link, now_ns=monotonic_ns(), reason=reason_of(error))
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
        if self._is_flushing or self._forked:
            return
        self._is_flushing = True
        try:
            pieces: dict[int, list[bytes]] = {}
            while effects := self._core.take_effects(now_ns=monotonic_ns()):
                for effect in effects:
                    kind = type(effect)
                    if kind is Send:
                        frame = encode_frame(effect.message)  # type: ignore[union-attr]
                        pieces.setdefault(effect.link, []).append(frame)  # type: ignore[union-attr]
                    elif kind is Resolve:
                        outcome: Outcome = effect.ticket.context  # type: ignore[union-attr]
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
                if not isinstance(ticket.context, asyncio.Future):
                    self.tell_lost(ticket)
            case Answer(request, answer, error):
                waiting = request.context
                if isinstance(waiting, Watching):
                    waiting.error, waiting.over = error, True
                    waiting.wake()
                elif not waiting.done():
                    waiting.set_result((answer, error))
            case Update(request):
                request.context.backlog.add(effect)
                request.context.wake()
            case Regrouped():
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
        self._timer = loop.call_later(max(0, due_ns - monotonic_ns()) / NS_PER_S, self._on_timer, True)

    def _on_timer(self, may_wait: bool) -> None:
        now_ns = monotonic_ns()
        assert self._loop is not None
        if may_wait and now_ns - self._timer_ns > _STALL_NS:
            # The process or the loop was stopped: what came meanwhile is to be read before anybody is judged silent.
            self._timer = self._loop.call_later(_STALL_S, self._on_timer, False)
            return
        self._timer = None
        self._core.on_timer(now_ns=now_ns)
        self._flush()

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """In the child of a fork: what was held is the parent's, and so are the loop and the connections."""
        self._forked = True
        abandon_held(self._core, "forked")


_engines: weakref.WeakSet[AsyncEngine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
