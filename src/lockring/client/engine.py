"""The blocking client's machinery: the core under one lock, and callers that do their own I/O.

A caller sends its request itself, and if nobody reads that connection, it also waits for the answer at the socket
itself: no other thread is between it and the node. Whoever reads hands every message to the core, whomever it is
for. Callers that find a reader wait at a gate of their own, and the one who leaves lets the next one in.

One background thread keeps leases alive: it runs the core's timer, and reads the connections that no caller has
used for some milliseconds. Connections are opened by short-lived threads, since looking names up may block.

The clock is read inside the lock, after the network: so no answer is judged by an older time than
another thread has already seen.
"""

from __future__ import annotations

import selectors
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from lockring.client.membership import Follower
from lockring.client.plumbing import Call, Plumbing
from lockring.client.wire import Wire
from lockring.clock import monotonic_ns
from lockring.core.asking import Request
from lockring.core.client import ClientCore
from lockring.core.client_effects import Update
from lockring.core.exchange import PENDING
from lockring.core.holdings import Ticket
from lockring.core.outlook import Wait
from lockring.core.watching import Backlog
from lockring.errors import LockringError
from lockring.messages import Mode

_CLOSE_S: Final = 3.0


G = TypeVar("G")


class Engine(Plumbing):
    """The calls of any number of threads, on one core."""

    # ------------------------------------------------------------------ calls

    def acquire(
        self,
        name: str,
        ttl_ms: int,
        wait_ms: int,
        grant: Callable[[Ticket], G],
        mode: int = Mode.EXCLUSIVE,
        payload: bytes = b"",
    ) -> G:
        """Acquire a lock and return its `grant`; whatever ends this early leaves nothing behind."""
        call = Call(self._life)
        ticket: Ticket | None = None
        try:
            with self._lock:
                self._enter()
                now_ns = monotonic_ns()
                try:
                    ticket = self._core.acquire(
                        name, ttl_ms=ttl_ms, now_ns=now_ns, wait_ms=wait_ms, mode=mode, payload=payload
                    )
                except LockringError:
                    self._torn = False
                    raise
                ticket.context = call
                wire = self._go(ticket.link, call, now_ns)
                self._torn = False
            if wire is not None or not call.done:
                self._wait(call, ticket, wire)
            if call.error is None:
                return grant(ticket)
        except BaseException:
            if ticket is not None:
                self._withdraw(call, ticket)
            raise
        raise call.error

    def release(self, ticket: Ticket) -> None:
        """Release a held ticket.

        Raises:
            LockLost, NotHeld: it is not held.
        """
        call = Call(self._life)
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            try:
                self._core.release(ticket, now_ns=now_ns)
            except LockringError:
                self._carry_out(now_ns, None)
                self._torn = False
                raise
            ticket.context = call
            wire = self._go(ticket.link, call, now_ns)
            self._torn = False
        try:
            if wire is not None or not call.done:
                self._wait(call, ticket, wire)
        except BaseException:
            self._withdraw(call, ticket)
            raise

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            self._core.cancel(ticket, now_ns=now_ns)
            self._carry_out(now_ns, None)
            self._torn = False

    def ask(self, question: Callable[[ClientCore, int], Request]) -> Any:
        """Ask something of the core, given it and the time, and wait for the answer."""
        call = Call(self._life)
        request: Request | None = None
        try:
            with self._lock:
                self._enter()
                now_ns = monotonic_ns()
                try:
                    request = question(self._core, now_ns)
                except LockringError:
                    self._torn = False
                    raise
                request.context = call
                wire = self._go(request.link, call, now_ns)
                self._torn = False
            if wire is not None or not call.done:
                self._wait(call, request, wire)
        except BaseException:
            if request is not None:
                self._withdraw(call, request)
            raise
        if call.error is not None:
            raise call.error
        return call.answer

    def watch(self, name: str) -> tuple[Call, Request]:
        """Begin to watch a lock."""
        call = Call(self._life)
        call.backlog = Backlog()
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            try:
                request = self._core.watch(name, now_ns=now_ns)
            except LockringError:
                self._torn = False
                raise
            request.context = call
            self._waiting[call] = None
            self._carry_out(now_ns, call)
            self._start()
            self._torn = False
        return call, request

    def next_updates(self, call: Call) -> list[Update]:
        """Wait for news of a watch."""
        assert call.backlog is not None
        with self._lock:
            wait = not call.done
            if wait:
                self._gate(call)
        if wait:
            self._pass_gate(call)
        with self._lock:
            updates = call.backlog.take()
            call.done = call.error is not None
        if not updates and call.error is not None:
            raise call.error
        return updates

    def unwatch(self, call: Call, request: Request) -> None:
        """End a watch."""
        self._withdraw(call, request)

    def follow(self, ticket: Ticket, member: Follower) -> None:
        """Begin to follow the group that a held ticket is a membership of; `member` hears of changes from now on.

        Raises:
            LockLost, NotHeld: the ticket is not held.
        """
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            try:
                request = self._core.follow(ticket, now_ns=now_ns)
            except LockringError:
                self._torn = False
                raise
            request.context = ticket.context = member
            member._followed(self._core, request)
            self._carry_out(now_ns, None)
            self._torn = False

    def told(self, core: ClientCore, request: Request) -> None:
        """The one that follows was told of a change. `core` is the one that it follows by; another one knows nothing of it."""
        self._on(core, lambda now_ns: core.told(request, now_ns=now_ns))

    def unfollow(self, core: ClientCore, request: Request) -> None:
        """A member is about to leave: it owns nothing any more."""
        self._on(core, lambda now_ns: core.leave(request, now_ns=now_ns))

    def _on(self, core: ClientCore, act: Callable[[int], None]) -> None:
        with self._lock:
            self._enter()
            if self._core is core:
                now_ns = monotonic_ns()
                act(now_ns)
                self._carry_out(now_ns, None)
            self._torn = False

    def notice_expiry(self) -> None:
        """Find out what has expired by now."""
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            self._core.on_timer(now_ns=now_ns)
            self._carry_out(now_ns, None)
            self._torn = False

    def waits(self) -> list[Wait]:
        """What the calls wait for that are not answered yet."""
        with self._lock:
            self._enter()
            found = self._core.waits(monotonic_ns())
            self._torn = False
        return found

    def locked(self) -> threading.Lock:
        """The lock that guards everything here, for those that hear of losses."""
        return self._lock

    def close(self) -> None:
        """End the sessions, tell the nodes (for a second at most), and close all connections."""
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            self._closing = True
            self._core.close(now_ns=now_ns)
            self._carry_out(now_ns, None)
            thread = self._thread
            self._wake()
            self._torn = False
        if thread is not None and thread is not threading.current_thread():
            thread.join(_CLOSE_S)

    # ------------------------------------------------------------------ waiting

    def _go(self, link: int, call: Call, now_ns: int) -> Wire | None:
        """Send what the core wants sent, and let the caller read its connection if nobody does."""
        self._carry_out(now_ns, call)
        if self._thread is None:
            self._start()
        return None if call.done else self._take(link, call)

    def _take(self, link: int, call: Call) -> Wire | None:
        """Make a call the reader of its connection; if it cannot be, prepare its gate."""
        wire = self._wires.get(link)
        if wire is not None and wire.reader is None:
            wire.reader, call.reading = call, wire
            if call.gate is not None:
                self._waiting.pop(call, None)
            if wire.events & selectors.EVENT_READ:
                self._watch(wire, wire.events & ~selectors.EVENT_READ)
                self._wake()  # the background thread looks after idle connections again
            return wire
        self._waiting[call] = None
        self._gate(call)
        if wire is not None:
            wire.waiting[call] = None
        return None

    def _gate(self, call: Call) -> None:
        if call.gate is None:
            call.gate = threading.Lock()
            call.gate.acquire()
        call.gated = True

    def _pass_gate(self, call: Call) -> None:
        """Wait until somebody opens the gate."""
        assert call.gate is not None
        call.gate.acquire()

    def _wait(self, call: Call, item: Ticket | Request, wire: Wire | None) -> None:
        """Wait until a call is done, reading its connection where that is ours to read."""
        while True:
            if wire is None:
                self._pass_gate(call)
                with self._lock:
                    self._enter()
                    if not call.done:
                        wire = self._take(item.link, call)
                    self._torn = False
                    if call.done:
                        return
                continue
            is_acquire = type(item) is Ticket and item.state == PENDING
            data = wire.receive(wire.granting if is_acquire else wire.answering)
            with self._lock:
                self._enter()
                now_ns = monotonic_ns()
                if data is not None and not wire.closed:
                    self._feed(wire, data, now_ns, call)
                if call.done or wire.closed or item.link != wire.link:
                    self._leave(wire, call, now_ns)
                    wire = None if call.done else self._take(item.link, call)
                self._torn = False
                if call.done:
                    return

    def _withdraw(self, call: Call, item: Ticket | Request) -> None:
        """A caller gives up, or was interrupted: leave nothing behind."""
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            self._waiting.pop(call, None)
            for wire in self._wires.values():
                wire.waiting.pop(call, None)
            if call.reading is not None:
                self._leave(call.reading, call, now_ns)
            if call.life == self._life:
                if isinstance(item, Ticket):
                    self._core.cancel(item, now_ns=now_ns)
                else:
                    self._core.abandon(item, now_ns=now_ns)
                self._carry_out(now_ns, None)
            self._torn = False
