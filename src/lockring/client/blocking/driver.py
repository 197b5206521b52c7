"""The blocking client's machinery: the core in one section at a time, and callers that do their own I/O.

A caller sends its request itself. If no other call reads the connection, the caller also waits for the answer at the
socket, so that no other thread is between it and the node. The reader of a connection hands every message to the core,
including the answers to other calls. A caller that finds a reader waits at a gate of its own, and a reader that leaves
lets the next caller in.

One background thread keeps leases alive: it runs the core's timer, and reads the connections that no caller has
used for some milliseconds. Connections are opened by short-lived threads, since looking names up may block.

A call that a signal's handler or a finalizer makes in the middle of a section is refused if it needs an answer. A
release, a close and the like are done at the end of that section, without waiting for the answer.
"""

from __future__ import annotations

import functools
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

from lockring.client.blocking.background import log
from lockring.client.blocking.calls import Call
from lockring.client.blocking.connection import NAP_S, ClientConnection
from lockring.client.blocking.plumbing import DriverBase
from lockring.client.grant_state import listener_of, words_of_drop
from lockring.client.group_state import GroupListener
from lockring.clock import monotonic_ns
from lockring.core.client import HELD, Backlog, ClientCore, Query, Ticket, Update, Wait, not_held
from lockring.errors import LockringError, ReentrantCall
from lockring.ids import LockName
from lockring.protocol import Mode
from lockring.units import NS_PER_S

_CLOSE_NS: Final = 3 * NS_PER_S
_LOOK_S: Final = 0.05
"""How long a close or another wait that reads for a call beneath it sleeps at a time, before it looks again."""

G = TypeVar("G")


class BlockingDriver(DriverBase):
    """The calls of any number of threads, on one core."""

    # ------------------------------------------------------------------ calls

    def acquire(
        self,
        grant: Callable[[Any, Ticket], G],
        name: LockName,
        ttl_ms: int,
        wait_ms: int,
        mode: int = Mode.EXCLUSIVE,
        payload: bytes = b"",
    ) -> G:
        """Acquire a lock and return its `grant`, made of the driver and the ticket.

        An exception, even a signal handler's, leaves nothing behind.
        """
        call = Call()
        try:
            if self._keeper is None:
                self._start()
            # By position: a closure over these arguments adds 0.3 µs or more to the 1.0 µs of a section that does
            # nothing (CPython 3.11), on the path of every acquire.
            self._inside(self._begin_acquire, call, name, ttl_ms, wait_ms, mode, payload)
            if call.waits:
                self._wait(call)
            if call.error is None:
                return grant(self, call.item)  # type: ignore[arg-type]
        except BaseException:
            self._withdraw(call)
            raise
        raise call.error

    def _begin_acquire(
        self, now_ns: int, call: Call, name: LockName, ttl_ms: int, wait_ms: int, mode: int, payload: bytes
    ) -> None:
        if (self._keeper is None or self._choring or self._openers) and not self._may_begin(call):
            return
        try:
            ticket = self._core.acquire(
                name, ttl_ms=ttl_ms, now_ns=now_ns, wait_ms=wait_ms, mode=mode, payload=payload
            )
        except LockringError as error:
            call.error = error
            return
        ticket.exchange.call, call.item = call, ticket
        self._carry_out(now_ns, call)
        if not call.done:
            self._take(ticket.exchange.link, call, now_ns)

    def release(self, ticket: Ticket) -> None:
        """Release a held ticket.

        Raises:
            LockLost, NotHeld: it is not held.
        """
        call = Call()
        try:
            self._inside(self._begin_release, call, ticket)
            if call.waits:
                self._wait(call)
        except ReentrantCall:
            if ticket.state != HELD:
                raise not_held(ticket) from None
            self._let_go_later(ticket)
            return
        except BaseException:
            self._withdraw(call)
            raise
        if call.error is not None and call.item is None:
            raise call.error

    def _begin_release(self, now_ns: int, call: Call, ticket: Ticket) -> None:
        try:
            self._core.release(ticket, now_ns=now_ns)
        except LockringError as error:
            call.error = error
            self._carry_out(now_ns, None)
            return
        ticket.exchange.call, call.item = call, ticket
        self._carry_out(now_ns, call)
        if call.done or ((self._choring or self._openers) and not self._may_begin(call)):
            return
        self._take(ticket.exchange.link, call, now_ns)

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        try:
            self._inside(self._let_go, ticket)
        except ReentrantCall:
            self._let_go_later(ticket)

    def _let_go(self, now_ns: int, ticket: Ticket) -> None:
        if self._knows(ticket):
            self._core.cancel(ticket, now_ns=now_ns)
            self._carry_out(now_ns, None)

    def _let_go_later(self, ticket: Ticket) -> None:
        grant = listener_of(ticket.holder)  # kept alive until then, so that it does not count as dropped

        def let_go(now_ns: int, _grant: object = grant) -> None:
            self._let_go(now_ns, ticket)

        self._defer(let_go)

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""
        if self._knows(ticket) and not self._closing:
            self._chores.append(lambda: log.warning("%s", words_of_drop(ticket)))
        self.let_go(ticket)

    def _knows(self, ticket: Ticket) -> bool:
        """Return whether a ticket belongs to the present core, and not to one that was given up."""
        return any(session is ticket.session for session in self._core.sessions())

    def ask(self, question: Callable[[ClientCore, int], Query]) -> Any:
        """Make a query of the core and wait for the answer. `question` makes it, from the core and the time."""
        call = Call()
        try:
            if self._keeper is None:
                self._start()
            self._inside(self._begin_to_ask, call, question)
            if call.waits:
                self._wait(call)
        except BaseException:
            self._withdraw(call)
            raise
        if call.error is not None:
            raise call.error
        return call.answer

    def _begin_to_ask(self, now_ns: int, call: Call, question: Callable[[ClientCore, int], Query]) -> None:
        if (self._keeper is None or self._choring or self._openers) and not self._may_begin(call):
            return
        try:
            request = question(self._core, now_ns)
        except LockringError as error:
            call.error = error
            return
        request.exchange.call, call.item, call.core = call, request, self._core
        self._carry_out(now_ns, call)
        if not call.done:
            self._take(request.exchange.link, call, now_ns)

    def watch(self, name: LockName) -> Call:
        """Begin to watch a lock."""
        call = Call()
        call.backlog = Backlog()
        try:
            if self._keeper is None:
                self._start()
            self._inside(self._begin_watch, call, name)
        except BaseException:
            self._withdraw(call)
            raise
        if call.item is None and call.error is not None:
            raise call.error
        return call

    def _begin_watch(self, now_ns: int, call: Call, name: LockName) -> None:
        if (self._keeper is None or self._choring or self._openers) and not self._may_begin(call):
            return
        try:
            request = self._core.watch(name, now_ns=now_ns)
        except LockringError as error:
            call.error = error
            return
        request.exchange.call, call.item, call.core = call, request, self._core
        self._watches[call] = None
        self._carry_out(now_ns, call)

    def next_updates(self, call: Call) -> list[Update]:
        """Return the next updates of a watch; wait until there are any."""
        assert call.backlog is not None
        try:
            self._inside(self._begin_next, call)
            if call.waits:
                self._wait(call)
            updates = self._inside(self._take_updates, call)
        except BaseException:
            self._withdraw(call)
            raise
        if not updates and call.error is not None:
            raise call.error
        return updates

    def _begin_next(self, now_ns: int, call: Call) -> None:
        if not call.done:
            call.thread = threading.get_ident()
            assert call.item is not None
            self._take(call.item.exchange.link, call, now_ns)

    def _take_updates(self, _now_ns: int, call: Call) -> list[Update]:
        assert call.backlog is not None
        updates = call.backlog.take()
        call.done = call.error is not None
        return updates

    def unwatch(self, call: Call) -> None:
        """End a watch."""
        self._withdraw(call)

    def follow(self, ticket: Ticket, member: GroupListener) -> None:
        """Begin to follow the group that a held ticket is a membership of; `member` hears of changes from now on.

        Raises:
            LockLost, NotHeld: the ticket is not held.
        """
        error = self._inside(self._follow, ticket, member)
        if error is not None:
            raise error

    def _follow(self, now_ns: int, ticket: Ticket, member: GroupListener) -> LockringError | None:
        try:
            request = self._core.follow(ticket, now_ns=now_ns)
        except LockringError as error:
            return error
        request.member = ticket.holder = weakref.ref(member)
        member._followed(self._core, request)
        self._carry_out(now_ns, None)
        return None

    def told(self, core: ClientCore, request: Query) -> None:
        """Report to the core that a member's callbacks have finished for a change of its group.

        Does nothing if `core`, by which the member follows the group, is no longer the driver's.
        """
        self._on(core, lambda now_ns: core.told(request, now_ns=now_ns))

    def unfollow(self, core: ClientCore, request: Query) -> None:
        """End a member's ownership of keys, because it is about to leave its group."""
        self._on(core, lambda now_ns: core.leave(request, now_ns=now_ns))

    def _on(self, core: ClientCore, act: Callable[[int], None]) -> None:
        def work(now_ns: int) -> None:
            if self._core is core:
                act(now_ns)
                self._carry_out(now_ns, None)

        self._inside(work)

    def notice_expiry(self) -> None:
        """Find out which leases have expired.

        In the middle of a section, only wake the background thread, which finds out: `held` goes by the clock anyway.
        """
        try:
            self._inside(self._notice_expiry)
        except ReentrantCall:
            self._rouse()

    def waits(self) -> list[Wait]:
        """Return the reasons for which the unanswered calls wait.

        Raises:
            ReentrantCall: a signal handler or a finalizer asks, in the middle of the client's own work.
        """
        return self._inside(self._waits)

    def _waits(self, now_ns: int) -> list[Wait]:
        return self._core.waits(now_ns)

    def _notice_expiry(self, now_ns: int) -> None:
        self._core.on_timer(now_ns=now_ns)
        self._carry_out(now_ns, None)

    def _may_begin(self, call: Call) -> bool:
        """Return whether a call may wait for an answer; if it may not, set its `error`."""
        if self._keeper is None and not self._closing:
            call.error = ReentrantCall(
                "a signal handler forked the process in the middle of this call, so nothing was done: try again"
            )
        elif (self._choring or self._openers) and self._is_opening(call.thread):
            call.error = ReentrantCall(
                "a finalizer called the client while its thread was opening the client's connection, so nothing was done"
            )
        return call.error is None

    def _is_opening(self, thread: int) -> bool:
        """Return whether this thread must not wait: it opens a connection, or another thread waits for its start."""
        return self._is_choring() or any(opener.ident == thread for opener in list(self._openers))

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """End the sessions, tell the nodes (for a second at most), and close all connections."""
        keeper = self.begin_close()
        if keeper is not None:
            self.finish_close(keeper, monotonic_ns() + _CLOSE_NS)

    def begin_close(self) -> Any:
        """End the sessions and tell the nodes; return the background thread for `finish_close` to wait for, if any.

        None as well where the close was left to the end of the section that this thread is in.
        """
        keeper = self._keeper
        try:
            self._inside(self._begin_close)
        except ReentrantCall:
            self._defer(self._begin_close)
            return None
        return keeper

    def _begin_close(self, now_ns: int) -> None:
        self._closing = True
        self._core.close(now_ns=now_ns)
        self._carry_out(now_ns, None)
        self._wake()

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Begin to close at the end of the program; return a function that waits for the end of that, until a time."""
        keeper = self.begin_close()
        return None if keeper is None else functools.partial(self.finish_close, keeper)

    def finish_close(self, keeper: Any, until_ns: int) -> None:
        """Wait until everything is closed, or until a time."""
        me = threading.get_ident()
        while keeper.thread.is_alive() and (left_ns := until_ns - monotonic_ns()) > 0:
            if keeper.ident == me:
                if not keeper.round():
                    return
                continue
            wire = self.guarded(functools.partial(self._reading_beneath, me))
            if wire is None:
                keeper.thread.join(left_ns / NS_PER_S)
            else:
                wire.receive_over(_LOOK_S)
                self._inside(self._feed_over, wire)

    def wait_at(self, gate: threading.Lock, until_ns: int | None) -> None:
        """Wait until a gate is opened, or until a time. May return early.

        A thread that is already in a call to this client may wait here, too: meanwhile it does the background thread's
        work if it is that thread, or reads for its call beneath.
        """
        me = threading.get_ident()
        keeper = self._keeper
        if keeper is not None and keeper.ident == me:
            keeper.round()
            return
        # Outside a section: an interrupt in one costs all that is held, and only this thread changes its own calls.
        wire = self._reading_beneath(me)
        if wire is not None:
            wire.receive_over(_LOOK_S)
            self._inside(self._feed_over, wire)
        else:
            left_s = NAP_S if until_ns is None else max(0, until_ns - monotonic_ns()) / NS_PER_S
            gate.acquire(timeout=min(left_s, NAP_S))

    def _reading_beneath(self, thread: int) -> ClientConnection | None:
        """Return the connection that a call of a thread reads, None if there is none."""
        call = self._callers.get(thread)
        while call is not None:
            if call.reading is not None and not call.reading.closed:
                return call.reading
            call = call.beneath
        return None

    def _feed_over(self, now_ns: int, wire: Any) -> None:
        if wire.taken and not wire.closed:
            self._feed(wire, now_ns, None)

    def __del__(self) -> None:
        """Close a client to which, as to its grants, nothing refers any more, and warn that it was forgotten."""
        keeper = getattr(self, "_keeper", None)
        if keeper is None or self._closing:
            return
        self._closing = True  # only once
        keeper.heir = self
        self._defer(self._begin_close)
        warnings.warn(
            f"a client of {','.join(self.addresses)} was forgotten and not closed: what it held is given up",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    def _withdraw(self, call: Call) -> None:
        """Leave nothing behind of a call whose caller gave up or was interrupted."""
        try:
            if call.waits or call.item is not None:
                self._inside(self._give_up, call)
            elif self._torn is not None:
                self._rouse()
        except ReentrantCall:
            self._defer(lambda now_ns: self._give_up(now_ns, call))
        except BaseException as error:
            self.tear(error)
            raise

    def _give_up(self, now_ns: int, call: Call) -> None:
        self._watches.pop(call, None)
        reading = call.reading
        if reading is not None:
            if reading.taken and not reading.closed:
                self._feed(reading, now_ns, call)
            self._stop_reading(reading, call, now_ns)
        self._leave(call, now_ns)
        item = call.item
        if isinstance(item, Ticket):
            self._let_go(now_ns, item)
        elif item is not None and call.core is self._core:
            self._core.abandon(item, now_ns=now_ns)
            self._carry_out(now_ns, None)
