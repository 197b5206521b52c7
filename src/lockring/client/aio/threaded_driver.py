"""The asyncio client's driver in a thread of its own, for programs that block their event loop.

An `AsyncDriver` on the program's event loop renews leases when that loop lets it. If code may block the loop for
longer than leases allow, the driver runs here instead: on a second loop, in a second thread. The interpreter lets that
thread run every few milliseconds whatever the first one does, unless the first one is in an extension that keeps the
interpreter's lock. Each call crosses to the other thread and back, which costs about 0.2 ms.

Rules:

- Only its thread touches the inner driver. Both threads read tickets, whose fields are made for that.
- A granted lock reaches its caller, or is given back: a caller that was cancelled meanwhile leaves nothing behind.
- Losses are announced on the program's loop, as soon as that runs again. `held` goes by the clock and needs no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import warnings
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lockring.client.aio.driver import AsyncDriver, ticket_of
from lockring.client.aio.event_loops import call_on_loop, guard_of
from lockring.client.aio.watching import WatchReader
from lockring.client.grant_state import listener_of
from lockring.client.group_state import GroupListener
from lockring.clock import monotonic_ns
from lockring.core.client import HELD, ClientCore, Query, Ticket, Update, Wait
from lockring.errors import ClientClosed, ReentrantCall, Unavailable
from lockring.ids import LockName
from lockring.protocol import Mode
from lockring.system_errors import reason_of
from lockring.units import NS_PER_S

if TYPE_CHECKING:
    from lockring.security.tls_policy import ClientTls

_CLOSE_NS: Final = 3 * NS_PER_S
_POLL_S: Final = 0.01
_LOOK_S: Final = 0.5
"""How often to look whether the program's event loop is closed, since asyncio sends no notice of it."""
_ANSWER_S: Final = 1.0
"""How long the program's thread may wait for the driver's thread, which never blocks."""

G = TypeVar("G")
T = TypeVar("T")


class _Home:
    """The program's event loop, where listeners are notified. Known from the first call on."""

    loop: asyncio.AbstractEventLoop | None = None

    def call(self, function: Callable[[], object]) -> None:
        """Call a function on the program's loop: at once if that runs here, not at all if it is closed."""
        call_on_loop(self.loop, function)


class ThreadedDriver:
    """Runs an `AsyncDriver` in a daemon thread of its own, for callers on the event loop of its first use.

    Its methods are those of `AsyncDriver`, with the same arguments, results and errors.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        owner: Callable[[], str],
        connect_timeout_ns: int,
        *,
        tls: ClientTls | None = None,
    ) -> None:
        self.addresses = addresses
        self._home = _Home()  # not this driver, to which the inner one must not refer: it may be forgotten
        self._inner = AsyncDriver(addresses, owner, connect_timeout_ns, notify=self._home.call, tls=tls)
        self.owner = self._inner.owner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._guard: AsyncGenerator[None] | None = None
        self._is_closed = False

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
        traceparent: str = "",
    ) -> G:
        """Acquire a lock and return its `grant`, made of the driver and the ticket.

        Whatever ends the wait early leaves nothing behind.
        """
        ticket = await self._across(
            lambda: self._inner.acquire(
                ticket_of, name, ttl_ms, wait_ms, mode=mode, payload=payload, traceparent=traceparent
            ),
            self._inner.let_go,
        )
        return grant(self, ticket)

    async def release(self, ticket: Ticket) -> None:
        """Release a held ticket. Outside the client's loop, have that done without waiting for it.

        Raises:
            LockLost, NotHeld: it is not held.
        """
        grant = listener_of(ticket.holder)  # kept alive until then, so that it does not count as dropped

        async def release(_grant: object = grant) -> None:
            await self._inner.release(ticket)

        try:
            await self._across(release, goes_on=True)
        except RuntimeError:  # another loop runs here than the client's, or none
            if ticket.state != HELD:
                raise
            self.let_go(ticket)

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        self._inner.let_go(ticket)

    async def ask(self, question: Callable[[ClientCore, int], Query]) -> Any:
        """Begin a query, which `question` makes of the core and the time, and wait for its answer."""
        return await self._across(lambda: self._inner.ask(question))

    def watch(self, name: LockName) -> WatchReader:
        """Begin to watch a lock."""
        return self._now(self._start(), lambda: self._inner.watch(name))

    async def next_updates(self, watching: WatchReader) -> list[Update]:
        """Wait for news of a watch."""
        return await self._across(lambda: self._inner.next_updates(watching))

    def unwatch(self, watching: WatchReader) -> None:
        """End a watch."""
        if not self._is_closed:
            self._soon(self._inner.unwatch, watching)

    def follow(self, ticket: Ticket, member: GroupListener) -> None:
        """Begin to follow the group whose membership a held ticket is."""
        self._now(self._start(), lambda: self._inner.follow(ticket, member))

    def told(self, core: ClientCore, request: Query) -> None:
        """Record that the callbacks of a group's change have returned."""
        if not self._is_closed:
            self._soon(self._inner.told, core, request)

    async def unfollow(self, core: ClientCore, request: Query) -> None:
        """Give up all keys of a member that is about to leave."""
        await self._across(lambda: self._inner.unfollow(core, request), goes_on=True)

    def guarded(self, work: Callable[[], T]) -> T:
        """Call a function that the driver must not interrupt. On an event loop it cannot, so no lock is needed."""
        return work()

    def call_at_home(self, function: Callable[[], object]) -> None:
        """Call a function on the program's loop: at once if that runs here."""
        if self._loop is not None:
            self._home.call(function)

    def notice_expiry(self) -> None:
        """Find out which leases have expired."""
        if self._loop is not None and not self._is_closed and not self._inner.is_forked:
            with contextlib.suppress(
                ClientClosed, ReentrantCall, Unavailable
            ):  # `held` goes by the clock anyway
                self._now(self._loop, self._inner.notice_expiry)

    def waits(self) -> list[Wait]:
        """Return the reasons for which the unanswered calls wait."""
        if self._loop is None or self._is_closed:
            return []
        return self._now(self._loop, self._inner.waits)

    # ------------------------------------------------------------------ the end

    async def close(self) -> None:
        """End the sessions, close all connections, and end the thread; from any loop."""
        self._is_closed = True
        thread = self._thread
        if thread is None or self._inner.is_forked:
            return
        self._stop_soon()
        until_ns = monotonic_ns() + _CLOSE_NS
        # By polling, not in a waiting thread: a loop that is ending cannot start threads.
        while thread.is_alive() and monotonic_ns() < until_ns:  # noqa: ASYNC110 - threads end without an event
            await asyncio.sleep(_POLL_S)

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Return None: the inner driver is registered itself."""
        return None

    def _stop_soon(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        with contextlib.suppress(RuntimeError):  # it is over
            self._loop.call_soon_threadsafe(self._stop.set)

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""
        self._inner.drop(ticket)

    def __del__(self) -> None:
        """Close a client that was forgotten, with all its grants, and warn."""
        thread = getattr(self, "_thread", None)
        if thread is None or self._is_closed or self._inner.is_forked or not thread.is_alive():
            return
        self._is_closed = True
        self._stop_soon()
        warnings.warn(
            f"a client of {','.join(self.addresses)} was forgotten and not closed: what it held is given up",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    # ------------------------------------------------------------------ between the threads

    def _start(self) -> asyncio.AbstractEventLoop:
        """Return the inner driver's loop, and start its thread if it does not run yet."""
        home = asyncio.get_running_loop()
        if self._is_closed:
            raise ClientClosed("the client is closed")
        if self._loop is None:
            self._home.loop = home
            self._stop = asyncio.Event()
            self._loop = loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=_run, args=(loop, self._inner, home, self._stop), name="lockring-client", daemon=True
            )
            try:
                thread.start()
            except (RuntimeError, MemoryError, OSError) as error:
                loop.close()
                self._loop = None
                raise Unavailable(
                    f"the thread that keeps leases cannot be started: {reason_of(error)}"
                ) from error
            self._thread = thread
            self._guard = guard_of(self)
        elif self._home.loop is not home:
            raise ClientClosed("the client belongs to another event loop: make one for each loop")
        elif self._inner.is_forked:
            raise ClientClosed(
                "the client belongs to the process that was forked: make a new one in the child"
            )
        return self._loop

    async def _across(
        self,
        call: Callable[[], Coroutine[Any, Any, T]],
        give_back: Callable[[T], None] | None = None,
        *,
        goes_on: bool = False,
    ) -> T:
        """Run a coroutine of the inner driver in its thread, and return its result.

        Args:
            call: makes the coroutine.
            give_back: called in that thread with a result that the caller does not take, since it was cancelled.
            goes_on: whether the coroutine outlives the caller.
        """
        loop, home = self._start(), asyncio.get_running_loop()
        outcome: asyncio.Future[T] = home.create_future()
        tasks: list[asyncio.Task[None]] = []

        async def work() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = await call()
            except BaseException as problem:  # noqa: BLE001 - raised to the caller, in its own thread
                error = problem
            try:
                home.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:  # the caller's loop is closed
                if error is None and give_back is not None:
                    give_back(result)  # type: ignore[arg-type]
            finally:
                del error  # its traceback has this call, and would keep itself in memory

        def deliver(result: Any, error: BaseException | None) -> None:
            if outcome.done():
                if error is None and give_back is not None:
                    self._soon(give_back, result)
            elif error is None:
                outcome.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                outcome.cancel()
            else:
                outcome.set_exception(error)

        loop.call_soon_threadsafe(lambda: tasks.append(loop.create_task(work())))
        try:
            return await outcome
        except BaseException:
            if outcome.done() and not outcome.cancelled():
                if outcome.exception() is not None:
                    del outcome  # `deliver` has run; and see above
                elif give_back is not None:
                    self._soon(give_back, outcome.result())
            elif not goes_on:
                outcome.cancel()  # so that `deliver` gives a late result back
                self._soon(lambda: [task.cancel() for task in tasks])
            raise

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called in the inner driver's thread."""
        if self._loop is not None and not self._inner.is_forked:
            with contextlib.suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(function, *arguments)

    def _now(self, loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> T:
        """Call a function in the inner driver's thread and wait for its result.

        Raises:
            ClientClosed: that thread has ended.
            ReentrantCall: the caller is a finalizer that runs in that thread.
            Unavailable: the thread did not answer in time.
        """
        if threading.current_thread() is self._thread:
            raise ReentrantCall(
                "a finalizer in the client's own thread called the client, so nothing was done"
            )
        results: list[T] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def call() -> None:
            try:
                results.append(function())
            except BaseException as error:  # noqa: BLE001 - raised to the caller, in its own thread
                errors.append(error)
            done.set()

        try:
            loop.call_soon_threadsafe(call)
        except RuntimeError as error:
            raise ClientClosed("the client is closed") from error
        if not done.wait(_ANSWER_S):
            raise Unavailable(f"the client's thread did not answer within {_ANSWER_S:g} s")
        if errors:
            raise errors[0]
        return results[0]


def _run(
    loop: asyncio.AbstractEventLoop,
    driver: AsyncDriver,
    home: asyncio.AbstractEventLoop,
    stop: asyncio.Event,
) -> None:
    """Run the loop of the inner driver in its thread until the driver is closed."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(_run_until_over(driver, home, stop))
    finally:
        loop.close()


async def _run_until_over(driver: AsyncDriver, home: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Wait until `stop` is set or the program's loop is closed, then close the driver."""
    while not home.is_closed():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK_S)
            break
    await driver.close()
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    if calls:
        # Closing has decided them; their callers get the outcome.
        await asyncio.wait(calls, timeout=_ANSWER_S)
