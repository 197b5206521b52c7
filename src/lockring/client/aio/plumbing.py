"""Between the client core and an event loop: connections, effects, one timer.

What the core wants sent is written once per turn of the loop, and one timer is armed for all there is to do later.
There is no task per request. The loop refers to the engine weakly, so that a client that is forgotten can be noticed.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import weakref
from collections.abc import Callable, Sequence
from typing import Final

from lockring._version import __version__
from lockring.addresses import split_address
from lockring.client.aio.connection import AsyncConnection
from lockring.client.aio.watching import WatchReader
from lockring.client.arguments import origin_of
from lockring.client.blocking.connection import CONNECT_S, reason_of
from lockring.client.grant_state import abandon_held, listener_of, tell_lost, words_of
from lockring.client.logs import LoggedCore
from lockring.clock import monotonic_ns
from lockring.core.client.effects import (
    CallResult,
    Connect,
    Disconnect,
    GrantLost,
    GroupChange,
    Resolve,
    SendTo,
    Update,
)
from lockring.core.client.tickets import Ticket
from lockring.errors import ClientClosed, LockringError
from lockring.net.frames import encode_frame
from lockring.protocol import Message
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005

Outcome = asyncio.Future[LockringError | None]


class AsyncDriverBase:
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
        )
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
        _engines.add(self)

    @property
    def is_forked(self) -> bool:
        """Whether this is the child of a fork, and the engine its parent's."""
        return self._forked

    def tell_lost(self, ticket: Ticket) -> None:
        """Tell whoever holds a ticket that it was lost."""
        tell_lost(ticket.context)

    def tell_regrouped(self, news: GroupChange) -> None:
        """Tell whoever follows a group of a change in it."""
        member = listener_of(news.request.context)
        if member is not None:
            member._on_regrouped(news.gained, news.lost, news.awaited)

    def _usable(self) -> asyncio.AbstractEventLoop:
        """The running loop, which must be the one that this client works on."""
        if self._gone:
            raise ClientClosed(self._gone)
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._begin_on(loop)
        elif self._loop is not loop:
            raise ClientClosed("the client belongs to another event loop: make one for each loop")
        return loop

    def _begin_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """The first use, on this loop."""

    # ------------------------------------------------------------------ what connections report

    def wire_received(self, wire: AsyncConnection, messages: list[Message]) -> None:
        """Messages came on a connection."""
        if self._wires.get(wire.link) is not wire or self._gone:
            return
        now_ns = monotonic_ns()
        received, link = self._core.received, wire.link
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
                reason_of(error)
                if isinstance(error, OSError)
                else f"cannot be connected to: {words_of(error)}"
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
                self.tell_lost(ticket)
            case CallResult(request, answer, error):
                waiting = request.context
                if isinstance(waiting, WatchReader):
                    waiting.error, waiting.over = error, True
                    waiting.wake()
                elif not waiting.done():
                    waiting.set_result((answer, error))
            case Update(request):
                request.context.backlog.add(effect)
                request.context.wake()
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
        self._is_busy = True
        try:
            self._core.on_timer(now_ns=now_ns)
        finally:
            self._is_busy = False
        self._flush()

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """In the child of a fork: what was held is the parent's, and so are the loop and the connections."""
        self._forked = True
        self._gone = "the client belongs to the process that was forked: make a new one in the child"
        for loser in abandon_held(self._core, "forked"):
            tell_lost(loser)  # here, on whatever loop it is: no other thread lives in the child


def _on_timer(reference: weakref.ref[AsyncDriverBase], may_wait: bool) -> None:
    engine = reference()
    if engine is not None:
        engine.on_timer(may_wait)


_engines: weakref.WeakSet[AsyncDriverBase] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
