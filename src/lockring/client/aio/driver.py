"""The driver of the asyncio client: one core on one event loop, one connection per node.

Requests overlap freely: a call makes a future, and continues when the core has decided. The core's messages are
written once per turn of the loop, and one timer is armed for everything that is due later. There is no task per
request. The loop refers to the driver only weakly, so that the driver notices when the program forgets its client.

A client that is not closed is closed when its loop ends, when it is forgotten, or at the end of the program. If the
loop has ended already, the sessions are ended by a write to the sockets, without the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import operator
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from lockring._version import __version__
from lockring.addresses import split_address
from lockring.client.aio.connection import AsyncConnection, why_not_connected
from lockring.client.aio.event_loops import call_on_loop, guard_of
from lockring.client.aio.forks import expect_forks
from lockring.client.aio.past_calls import taken_error
from lockring.client.aio.stall_timer import StallTimer
from lockring.client.aio.tls_opener import opener_with
from lockring.client.aio.watching import WatchReader
from lockring.client.arguments import credential_of, origin_of
from lockring.client.blocking.connection import CONNECT_S
from lockring.client.goodbye import expect_end, remember, wait_for
from lockring.client.grant_state import (
    abandon_held,
    cancel_dropped,
    farewell_of,
    listener_of,
    log_drop,
    report_drop,
    tell_lost,
)
from lockring.client.group_state import GroupListener
from lockring.client.logs import LoggedCore, start_writing
from lockring.client.tls import failure_of
from lockring.clock import monotonic_ns
from lockring.core.client import (
    BACKLOG_MAX,
    HELD,
    CallResult,
    ClientCore,
    Connect,
    Disconnect,
    GrantLost,
    GroupChange,
    LongWait,
    OnBehalf,
    Query,
    QueryKind,
    Resolve,
    SendTo,
    Ticket,
    Update,
    Wait,
)
from lockring.errors import ClientClosed, LockringError
from lockring.ids import LinkId, LockName
from lockring.net.frames import encode_frame
from lockring.net.openers import Opener
from lockring.protocol import Message, Mode
from lockring.random_ids import new_id
from lockring.security.tls_errors import TlsError
from lockring.units import NS_PER_S

if TYPE_CHECKING:
    from lockring.security.tls_policy import ClientTls

_CLOSE_S: Final = 3.0

G = TypeVar("G")
R = TypeVar("R")

_SWEEP_NS: Final = 2 * NS_PER_S
"""How often to look for grants that were dropped and whose `__del__` failed."""

Outcome = asyncio.Future[LockringError | None]


class AsyncDriver:
    """Runs one client core on the event loop of its first use.

    Args:
        addresses: HOST:PORT of each server.
        owner: returns the label that other clients see.
        connect_timeout_ns: how long an acquire without a timeout waits for the very first server.
        core: the client core to run, None for one of this client's own.
        notify: calls the listeners of losses and of changes of groups: at once, or on another loop.
        tls: the client's TLS, None for none.
        opener: opens connections instead of the client's TLS.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        owner: Callable[[], str],
        connect_timeout_ns: int,
        *,
        core: ClientCore | None = None,
        notify: Callable[[Callable[[], object]], object] = operator.call,
        tls: ClientTls | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.addresses = addresses
        self.owner = owner()
        self._core = core or LoggedCore(
            addresses,
            owner=self.owner,
            new_id=new_id,
            software=f"lockring-python-asyncio {__version__}",
            connect_timeout_ns=connect_timeout_ns,
            origin=origin_of(addresses),
            credential=credential_of(addresses),
            start_writing=start_writing,
        )
        self._notify = notify
        self._opener = opener or opener_with(tls)
        self._sweep_at_ns = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wires: dict[LinkId, AsyncConnection] = {}
        self._connecting: dict[LinkId, asyncio.Task[None]] = {}
        self._timer = StallTimer(self)
        self._is_flush_planned = False
        self._is_flushing = False
        self._is_busy = False
        self._gone = ""
        """Why the loop and its connections must not be touched any more; "" while they may be."""
        self._forked = False
        self._ended: asyncio.Future[None] | None = None
        self._guard: AsyncGenerator[None] | None = None
        expect_forks(self)
        remember(self)

    @property
    def is_forked(self) -> bool:
        """Whether this is the child of a fork, and the driver belongs to the parent."""
        return self._forked

    def _usable(self) -> asyncio.AbstractEventLoop:
        """Return the running loop, which must be the one to which this client belongs."""
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
        name: LockName,
        ttl_ms: int,
        wait_ms: int,
        mode: int = Mode.EXCLUSIVE,
        payload: bytes = b"",
        *,
        permits: int = 1,
        on_behalf: OnBehalf | None = None,
        traceparent: str = "",
    ) -> G:
        """Acquire a lock and return its `grant`, made of the driver and the ticket.

        Whatever ends the wait early leaves nothing behind.
        """
        loop = self._usable()
        ticket = self._core.acquire(
            name,
            ttl_ms=ttl_ms,
            now_ns=monotonic_ns(),
            wait_ms=wait_ms,
            mode=mode,
            permits=permits,
            payload=payload,
            on_behalf=on_behalf,
            traceparent=traceparent,
        )
        ticket.exchange.call = loop.create_future()
        if not self._is_flush_planned:
            self._plan_flush(loop)
        try:
            is_granted = await ticket.exchange.call is None
        except BaseException:
            self.let_go(ticket)
            raise
        if not is_granted:
            raise taken_error(ticket.exchange)
        return grant(self, ticket)

    async def release(self, ticket: Ticket) -> None:
        """Release a held ticket. Outside the client's loop, have that done there without waiting for it.

        Raises:
            LockLost, NotHeld: it is not held.
        """
        try:
            loop = self._usable()
            if not self._is_flush_planned:
                self._plan_flush(loop)
            self._core.release(ticket, now_ns=monotonic_ns())
            outcome: Outcome = loop.create_future()
            ticket.exchange.call = outcome
            try:
                await outcome
            except BaseException:
                self.let_go(ticket)
                raise
        except RuntimeError:  # another loop runs here than the client's, or none
            if ticket.state != HELD:
                raise
            self.let_go(ticket)

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer; from any thread."""
        grant = listener_of(ticket.holder)  # kept alive until then, so that it does not count as dropped
        self._clean_up(lambda: self._cancel(ticket, grant))

    def _cancel(self, ticket: Ticket, _grant: object) -> None:
        self._core.cancel(ticket, now_ns=monotonic_ns())

    async def ask(self, question: Callable[[ClientCore, int], Query]) -> Any:
        """Begin a query, which `question` makes of the core and the time, and wait for its answer."""
        return await self.answer_to(self.begin(question))

    def begin(self, question: Callable[[ClientCore, int], Query]) -> Query:
        """Begin a query; its `call` is the future of its answer and its error."""
        loop = self._usable()
        request = question(self._core, monotonic_ns())
        request.exchange.call = loop.create_future()
        self._plan_flush(loop)
        return request

    async def answer_to(self, request: Query) -> Any:
        """Wait for the answer to what was begun; an early end of the wait withdraws it."""
        try:
            has_failed = (await request.exchange.call)[1] is not None
        except BaseException:
            self.abandon(request)
            raise
        if has_failed:
            raise taken_error(request.exchange)
        return request.exchange.call.result()[0]

    def abandon(self, request: Query) -> None:
        """Withdraw what was begun; its answer is not wanted any more; from any thread."""
        self._clean_up(lambda: self._core.abandon(request, now_ns=monotonic_ns()))

    def watch(self, name: LockName, *, unread_max: int = BACKLOG_MAX) -> WatchReader:
        """Begin to watch a lock; of a slow reader's updates at most `unread_max` wait."""
        loop = self._usable()
        request = self._core.watch(name, now_ns=monotonic_ns())
        watching = request.exchange.call = WatchReader(request, unread_max)
        self._plan_flush(loop)
        return watching

    async def next_updates(self, watching: WatchReader) -> list[Update]:
        """Wait for news of a watch."""
        return await watching.next_updates(self._usable())

    def unwatch(self, watching: WatchReader) -> None:
        """End a watch; from any thread."""
        self.abandon(watching.request)

    def follow(self, ticket: Ticket, member: GroupListener) -> None:
        """Begin to follow the group whose membership a held ticket is; `member` is notified of changes from now on."""
        loop = self._usable()
        request = self._core.follow(ticket, now_ns=monotonic_ns())
        request.member = ticket.holder = weakref.ref(member)
        member._followed(self._core, request)
        self._plan_flush(loop)

    def told(self, core: ClientCore, request: Query) -> None:
        """Record that the callbacks of a group's change have returned. `core` is the one that follows the group."""
        if core is self._core:
            self._clean_up(lambda: core.told(request, now_ns=monotonic_ns()))

    async def unfollow(self, core: ClientCore, request: Query) -> None:
        """Give up all keys of a member that is about to leave; `_on_regrouped` notifies it."""
        self._usable()
        core.leave(request, now_ns=monotonic_ns())
        self._flush()

    def _clean_up(self, work: Callable[[], object]) -> None:
        """Have the core do something on the client's loop: at once if that runs here, soon from elsewhere.

        A call that ends early comes here, and its coroutine may be closed on another loop, in another thread, or past
        the end of the client. An error from here would take the place of the one that ends the call, so there is none.
        """
        loop = self._loop
        if loop is None or self._gone:
            return
        if self._is_flushing or self._is_busy:
            # The garbage collector may close a coroutine in the middle of the core's work.
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._clean_up, work)
            return
        call_on_loop(loop, functools.partial(self._clean_up_here, loop, work))

    def _clean_up_here(self, loop: asyncio.AbstractEventLoop, work: Callable[[], object]) -> None:
        if not self._gone:
            work()
            self._plan_flush(loop)

    def guarded(self, work: Callable[[], R]) -> R:
        """Call a function that the driver must not interrupt. On an event loop it cannot, so no lock is needed."""
        return work()

    def call_at_home(self, function: Callable[[], object]) -> None:
        """Call a function on the client's loop: at once if that runs here, not at all if it is closed."""
        call_on_loop(self._loop, function)

    def notice_expiry(self) -> None:
        """Find out which leases have expired.

        Does nothing in the middle of the core's work, where a finalizer may call: `held` goes by the clock anyway.
        """
        if self._is_flushing or self._is_busy or self._gone:
            return
        self._core.on_timer(now_ns=monotonic_ns())
        if self._loop is not None and not self._loop.is_closed():
            self._flush()

    def waits(self) -> list[Wait]:
        """Return the reasons for which the unanswered calls wait."""
        return self._core.waits(monotonic_ns())

    # ------------------------------------------------------------------ what connections report

    def wire_received(self, wire: AsyncConnection, messages: list[Message]) -> None:
        """Hand the messages of a connection to the core."""
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
        """Drop a connection that has ended, or whose bytes make no sense."""
        if self._wires.get(wire.link) is not wire or self._gone:
            return
        self._hang_up(wire)
        self._core.disconnected(wire.link, now_ns=monotonic_ns(), reason=reason, error=error)
        self._flush()

    def _hang_up(self, wire: AsyncConnection) -> None:
        del self._wires[wire.link]
        if wire.transport is not None:
            # Not `abort`: at the end of the client its last messages must still arrive. In all other cases the core
            # repeats unanswered requests on another connection.
            wire.transport.close()

    async def _connect(self, loop: asyncio.AbstractEventLoop, link: LinkId, address: str) -> None:
        wire = AsyncConnection(self, link, address)
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._open(loop, wire)
        except Exception as error:  # noqa: BLE001 - any error means that the connection failed: the core decides
            self._connecting.pop(link, None)
            if wire.transport is not None:
                wire.transport.abort()
            wrong = failure_of(error) if isinstance(error, TlsError) else None
            reason = why_not_connected(error)
            self._core.disconnected(link, now_ns=monotonic_ns(), reason=reason, error=wrong)
        else:
            self._connecting.pop(link, None)
            self._wires[link] = wire
            self._core.connected(link, now_ns=monotonic_ns())
            if wire.transport is None or wire.transport.is_closing():
                self.wire_lost(wire, "the connection was lost", None)  # it ended before it was in `_wires`
        self._flush()

    async def _open(self, loop: asyncio.AbstractEventLoop, wire: AsyncConnection) -> None:
        """Give a connection its transport. A driver with other transports than TCP replaces this."""
        host, port = split_address(wire.address)
        await self._opener(lambda: cast(asyncio.Protocol, wire), host, port)

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
        """Carry out the core's effects until there are no more, and arm the timer."""
        if self._is_flushing or self._gone:
            return
        self._is_flushing = True
        try:
            pieces: dict[LinkId, list[bytes]] = {}
            while effects := self._core.take_effects(now_ns=monotonic_ns()):
                for effect in effects:
                    if type(effect) is SendTo:
                        pieces.setdefault(effect.link, []).append(encode_frame(effect.message))
                    elif type(effect) is Resolve:
                        outcome: Outcome = effect.ticket.exchange.call
                        if not outcome.done():
                            outcome.set_result(effect.error)
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
                loser = listener_of(ticket.holder)
                if loser is not None:
                    self._notify(loser._on_ticket_lost)
            case LongWait():
                if isinstance(self._core, LoggedCore):
                    self._core.log_long_wait(effect)
            case CallResult(request, answer, error):
                if request.kind is QueryKind.WATCH:
                    reader: WatchReader = request.exchange.call
                    reader.error, reader.over = error, True
                    reader.wake()
                elif not request.exchange.call.done():
                    request.exchange.call.set_result((answer, error))
            case Update(request):
                request.exchange.call.backlog.add(effect)
                request.exchange.call.wake()
            case GroupChange(request, gained, lost, awaited):
                member = listener_of(request.member)
                if member is not None:
                    self._notify(functools.partial(member._on_regrouped, gained, lost, awaited))
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
        """Arm the timer for the core's next deadline."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if self._core.is_closed:
            self._timer.disarm()
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(None)
            return
        due_ns = self._core.next_deadline_ns()
        if due_ns is not None:
            self._timer.arm(loop, due_ns)

    def on_timer(self) -> None:
        """Let the core process the deadlines that have passed."""
        now_ns = monotonic_ns()
        dropped: Sequence[Ticket] = ()
        self._is_busy = True
        try:
            if now_ns >= self._sweep_at_ns:
                self._sweep_at_ns = now_ns + _SWEEP_NS
                dropped = cancel_dropped(self._core, now_ns=now_ns)
            self._core.on_timer(now_ns=now_ns)
        finally:
            self._is_busy = False
        self._flush()
        for ticket in dropped:
            report_drop(ticket)

    # ------------------------------------------------------------------ the end

    async def close(self) -> None:
        """End the sessions, wait at most a second for the nodes' answers, and close all connections; from any loop."""
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
        """End the sessions by writing to the sockets, since the event loop has ended or does not run."""
        if self._gone or self._core.is_closed:
            return
        farewell = farewell_of(self._core)
        for wire in self._wires.values():
            wire.say_last(farewell)
        self._gone = "the client was closed past its event loop, which did not run any more"
        abandon_held(self._core, "session-ended")

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Begin to close at the end of the program. Returns a function that waits for the end of that."""
        loop = self._loop
        if loop is None or self._gone or self._core.is_closed:
            return None
        if not loop.is_running():
            self.end_without_loop()
            return None
        return wait_for(asyncio.run_coroutine_threadsafe(self._close(), loop))

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""
        loop = self._loop
        if loop is not None and not self._gone:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nothing is renewed
                loop.call_soon_threadsafe(self._drop, ticket)

    def _drop(self, ticket: Ticket) -> None:
        if not self._gone:
            log_drop(ticket)
            self._core.cancel(ticket, now_ns=monotonic_ns())
            self._flush()

    def __del__(self) -> None:
        """Close a client that was forgotten, with all its grants, and warn."""
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
        """Give up everything in the child of a fork: the leases, the loop and the connections are the parent's."""
        self._forked = True
        self._gone = "the client belongs to the process that was forked: make a new one in the child"
        for loser in abandon_held(self._core, "forked"):
            tell_lost(loser)  # directly, not on the client's loop: no other thread exists in the child


def ticket_of(_driver: object, ticket: Ticket) -> Ticket:
    """Return the ticket alone, as the `grant` of a caller that makes none here."""
    return ticket


_ending: set[asyncio.Task[None]] = set()
"""The tasks that close forgotten clients. The event loop refers to tasks only weakly."""
