"""The asyncio client's machinery in a thread of its own, for programs whose event loop may stand still.

An `AsyncEngine` on the program's event loop renews leases when that loop lets it. Where code may block the loop for
longer than leases allow, the engine runs here instead: on a second loop, in a second thread, which the interpreter lets run
every few milliseconds whatever the first one does (unless that is in an extension that keeps the interpreter's lock).
Each call goes to the other thread and its answer comes back, which costs about 0.2 ms.

Rules:

- Only the engine's thread touches the engine. Tickets are read by both: their fields are made for that.
- What was granted reaches who asked, or is given back: a caller that was cancelled meanwhile leaves nothing behind.
- Losses are told on the program's loop, as soon as that runs again. `held` goes by the clock and needs neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from lockring.client.async_engine import AsyncEngine
from lockring.client.async_watching import Watching
from lockring.client.membership import Follower
from lockring.core.asking import Request
from lockring.core.client import ClientCore
from lockring.core.client_effects import Regrouped, Update
from lockring.core.holdings import Ticket
from lockring.core.outlook import Wait
from lockring.errors import ClientClosed
from lockring.messages import Mode

_ANSWER_S: Final = 1.0
"""How long the program's thread may wait for the engine's, which never does anything that takes long."""

T = TypeVar("T")


class _Engine(AsyncEngine):
    """An engine whose grants live on another loop."""

    home: asyncio.AbstractEventLoop

    def tell_lost(self, ticket: Ticket) -> None:
        """Tell of a loss on the loop of who holds the grant."""
        with contextlib.suppress(RuntimeError):  # that loop is closed: nobody is left to hear it
            self.home.call_soon_threadsafe(ticket.context._on_ticket_lost)

    def tell_regrouped(self, news: Regrouped) -> None:
        """Tell of a change in a group on the loop of its member."""
        with contextlib.suppress(RuntimeError):
            self.home.call_soon_threadsafe(
                news.request.context._on_regrouped, news.gained, news.lost, news.awaited
            )


class ThreadedEngine:
    """Runs an `AsyncEngine` in a daemon thread of its own, for callers on the event loop of its first use.

    Its methods are those of `AsyncEngine`, with the same arguments, results and errors.
    """

    def __init__(self, addresses: Sequence[str], owner: str, connect_timeout_ns: int) -> None:
        self.addresses = addresses
        self.owner = owner
        self._engine = _Engine(addresses, owner, connect_timeout_ns)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    # ------------------------------------------------------------------ calls

    async def acquire(
        self, name: str, ttl_ms: int, wait_ms: int, mode: int = Mode.EXCLUSIVE, payload: bytes = b""
    ) -> Ticket:
        """Acquire a lock; whatever ends the wait early leaves nothing behind."""
        return await self._across(
            lambda: self._engine.acquire(name, ttl_ms, wait_ms, mode, payload), self._engine.let_go
        )

    async def release(self, ticket: Ticket) -> None:
        """Release a held ticket."""
        await self._across(lambda: self._engine.release(ticket), goes_on=True)

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        self._soon(self._engine.let_go, ticket)

    async def ask(self, question: Callable[[ClientCore, int], Request]) -> Any:
        """Ask something of the core, given it and the time, and wait for the answer."""
        return await self._across(lambda: self._engine.ask(question))

    def watch(self, name: str) -> tuple[Watching, Request]:
        """Begin to watch a lock."""
        return self._now(self._start(), lambda: self._engine.watch(name))

    async def next_updates(self, watching: Watching) -> list[Update]:
        """Wait for news of a watch."""
        return await self._across(lambda: self._engine.next_updates(watching))

    def unwatch(self, request: Request) -> None:
        """End a watch."""
        if not self._is_closed:
            self._soon(self._engine.unwatch, request)

    def follow(self, ticket: Ticket, member: Follower) -> None:
        """Begin to follow the group that a held ticket is a membership of."""
        self._now(self._start(), lambda: self._engine.follow(ticket, member))

    def told(self, request: Request) -> None:
        """The one that follows was told of a change."""
        if not self._is_closed:
            self._soon(self._engine.told, request)

    async def unfollow(self, request: Request) -> None:
        """A member is about to leave: it owns nothing any more, and has been told so."""
        await self._across(lambda: self._engine.unfollow(request), goes_on=True)

    def notice_expiry(self) -> None:
        """Find out what has expired by now."""
        if self._loop is not None and not self._is_closed and not self._engine.is_forked:
            with contextlib.suppress(ClientClosed):
                self._now(self._loop, self._engine.notice_expiry)

    def waits(self) -> list[Wait]:
        """What the calls wait for that are not answered yet."""
        if self._loop is None or self._is_closed:
            return []
        return self._now(self._loop, self._engine.waits)

    async def close(self) -> None:
        """End the sessions, tell the nodes, close all connections, and end the thread."""
        if self._loop is None or self._is_closed:
            self._is_closed = True
            return
        await self._across(self._engine.close, goes_on=True)
        self._is_closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        await asyncio.to_thread(self._thread.join, _ANSWER_S)

    # ------------------------------------------------------------------ between the threads

    def _start(self) -> asyncio.AbstractEventLoop:
        """The engine's loop, started if it is not running yet."""
        home = asyncio.get_running_loop()
        if self._is_closed:
            raise ClientClosed("the client is closed")
        if self._loop is None:
            self._engine.home = home
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=_run, args=(self._loop,), name="lockring-client", daemon=True
            )
            self._thread.start()
        elif self._engine.home is not home:
            raise ClientClosed("the client belongs to another event loop: make one for each loop")
        elif self._engine.is_forked:
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
        """Run a coroutine of the engine in its thread. A result that nobody takes is given back there; `goes_on` says that
        it is not cancelled with its caller."""
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

        def deliver(result: Any, error: BaseException | None) -> None:
            if outcome.done():
                if error is None and give_back is not None:
                    loop.call_soon_threadsafe(give_back, result)
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
            if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
                if give_back is not None:
                    loop.call_soon_threadsafe(give_back, outcome.result())
            elif not goes_on:
                outcome.cancel()  # where the caller was thrown away: what still comes is given back
                loop.call_soon_threadsafe(lambda: [task.cancel() for task in tasks])
            raise

    def _soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Have a function called in the engine's thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)

    def _now(self, loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> T:
        """Call a function in the engine's thread and wait for it.

        Raises:
            ClientClosed: that thread has ended.
        """
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
            raise ClientClosed("the client's thread does not answer")
        if errors:
            raise errors[0]
        return results[0]


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The engine's thread: its loop, until it is stopped."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
