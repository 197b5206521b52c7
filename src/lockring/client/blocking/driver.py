"""The blocking client's driver: the core in one section at a time, and callers that do their own I/O.

A caller sends its request itself. If no other call reads the connection, the caller also waits for the answer at the
socket, so that no other thread is between it and the node. The reader of a connection hands every message to the core,
including the answers to other calls. A caller that finds a reader waits at a gate of its own, and a reader that leaves
lets the next caller in.

One background thread keeps leases alive: it runs the core's timer, and reads the connections that no caller has
used for some milliseconds. Connections are opened by short-lived threads, since looking names up may block.

A call that a signal's handler or a finalizer makes in the middle of a section is refused if it needs an answer. A
release, a close and the like are done at the end of that section, without waiting for the answer.

The driver is composed of parts, each with one job:

- `Section`: one section at a time, whatever interrupts it, and the chores after it;
- `ThreadStarter`: threads for callbacks, started later if the system refuses them at first;
- `Background`: the place of the background thread, which wakes it;
- `Connections`: opens and drops connections;
- `Calls`: decides which waiting call reads which connection;
- `CoreHost`: feeds the core and carries its effects out;
- `Upkeep`: does the background thread's work.

No part keeps the driver alive, so that a client to which the program no longer refers is noticed and closed. In the
child of a fork, the driver begins again with new parts.
"""

from __future__ import annotations

import functools
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lockring._version import __version__
from lockring.client.arguments import credential_of, origin_of
from lockring.client.blocking.background import Background, Keeper
from lockring.client.blocking.calls import Call, Calls
from lockring.client.blocking.connection import NAP_S
from lockring.client.blocking.connections import Connections
from lockring.client.blocking.core_host import CoreHost
from lockring.client.blocking.section import Section
from lockring.client.blocking.thread_starter import ThreadStarter
from lockring.client.blocking.upkeep import Upkeep
from lockring.client.goodbye import remember
from lockring.client.grant_state import abandon_held, listener_of, log_drop, tell_lost
from lockring.client.logs import LoggedCore, start_writing
from lockring.clock import monotonic_ns
from lockring.core.client import HELD, Backlog, ClientCore, Query, Ticket, Update, Wait, not_held
from lockring.errors import LockringError, ReentrantCall
from lockring.ids import LockName
from lockring.protocol import Mode
from lockring.random_ids import new_id
from lockring.units import NS_PER_S

if TYPE_CHECKING:
    from lockring.client.group_state import GroupListener
    from lockring.security.tls_policy import ClientTls

_CLOSE_NS: Final = 3 * NS_PER_S

G = TypeVar("G")
R = TypeVar("R")


class BlockingDriver:
    """The calls of any number of threads, on one core over sockets.

    Args:
        addresses: the servers' addresses.
        owner: returns the client's label; called again after a fork.
        connect_timeout_ns: as for the core.
        tls: the client's TLS, None for none.

    Attributes:
        owner: the label that other clients see.
        start_writing: starts writing the log, after the section. It does not refer to the driver, so that a core may
            hold it.
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
        self._tls = tls
        self._owner_of = owner
        self._connect_timeout_ns = connect_timeout_ns
        self._begin()
        _drivers.add(self)
        remember(self)

    def _begin(self) -> None:
        """Begin with new parts, which know nothing yet: at first, and in the child of a fork."""
        self.owner = self._owner_of()
        self._background = background = Background()
        self._section = section = Section(background.rouse)
        self._starter = starter = ThreadStarter(section, background.rouse)
        self.start_writing = functools.partial(
            section.chores.append, functools.partial(start_writing, starter.openers)
        )
        connections = Connections(section, background, starter, tls=self._tls)
        self._calls = calls = Calls(section, background, connections)
        new_core = functools.partial(
            LoggedCore,
            self.addresses,
            owner=self.owner,
            new_id=new_id,
            software=f"lockring-python {__version__}",
            connect_timeout_ns=self._connect_timeout_ns,
            origin=origin_of(self.addresses),
            credential=credential_of(self.addresses),
            start_writing=self.start_writing,
        )
        self._host = host = CoreHost(
            new_core, section, background=background, connections=connections, calls=calls
        )
        section.mend = host.start_over
        self._upkeep = Upkeep(
            section,
            host,
            background=background,
            connections=connections,
            starter=starter,
            driver=weakref.ref(self),
        )
        self._connections = connections

    # ------------------------------------------------------------------ locks

    def acquire(
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

        An exception, even a signal handler's, leaves nothing behind.
        """
        call = Call()
        try:
            if self._background.keeper is None:
                self._upkeep.start()
            # By position: a closure over these arguments adds 0.3 µs or more to the 1.0 µs of a section that does
            # nothing (CPython 3.11), on the path of every acquire.
            self._section.inside(self._begin_acquire, call, name, ttl_ms, wait_ms, mode, payload, traceparent)
            if call.waits:
                self._calls.wait(call, self._host.feed)
            if call.error is None:
                return grant(self, call.item)  # type: ignore[arg-type]
        except BaseException:
            self._withdraw(call)
            raise
        raise call.take_error()

    def _begin_acquire(
        self,
        now_ns: int,
        call: Call,
        name: LockName,
        ttl_ms: int,
        wait_ms: int,
        mode: int,
        payload: bytes,
        traceparent: str,
    ) -> None:
        if (
            self._background.keeper is None or self._section.choring or self._starter.openers
        ) and not self._may_begin(call):
            return
        host = self._host
        try:
            ticket = host.core.acquire(
                name,
                ttl_ms=ttl_ms,
                now_ns=now_ns,
                wait_ms=wait_ms,
                mode=mode,
                payload=payload,
                traceparent=traceparent,
            )
        except LockringError as error:
            call.error = error
            return
        ticket.exchange.call, call.item = call, ticket
        host.carry_out(now_ns, call)
        if not call.done:
            self._calls.take(ticket.exchange.link, call)

    def release(self, ticket: Ticket) -> None:
        """Release a held ticket.

        Raises:
            LockLost, NotHeld: it is not held.
        """
        call = Call()
        try:
            self._section.inside(self._begin_release, call, ticket)
            if call.waits:
                self._calls.wait(call, self._host.feed)
        except ReentrantCall:
            if call.item is not None:
                # It has begun, and only the wait for its answer is refused: a finalizer in the middle of another
                # client's work must not wait for the thread that is in this one's section.
                self._withdraw(call)
            elif ticket.state != HELD:
                raise not_held(ticket) from None
            else:
                self._let_go_later(ticket)
            return
        except BaseException:
            self._withdraw(call)
            raise
        if call.error is not None and call.item is None:
            raise call.take_error()

    def _begin_release(self, now_ns: int, call: Call, ticket: Ticket) -> None:
        host = self._host
        try:
            host.core.release(ticket, now_ns=now_ns)
        except LockringError as error:
            call.error = error
            host.carry_out(now_ns, None)
            return
        ticket.exchange.call, call.item = call, ticket
        host.carry_out(now_ns, call)
        if call.done or ((self._section.choring or self._starter.openers) and not self._may_begin(call)):
            return
        self._calls.take(ticket.exchange.link, call)

    def let_go(self, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        try:
            self._section.inside(self._host.let_go, ticket)
        except ReentrantCall:
            self._let_go_later(ticket)

    def _let_go_later(self, ticket: Ticket) -> None:
        host = self._host
        grant = listener_of(ticket.holder)  # kept alive until then, so that it does not count as dropped

        def let_go(now_ns: int, _grant: object = grant) -> None:
            host.let_go(now_ns, ticket)

        self._section.defer(let_go)

    def drop(self, ticket: Ticket) -> None:
        """Give up a ticket whose grant was dropped; from any thread, at any moment."""
        if self._host.knows(ticket) and not self._host.is_closing:
            self._section.do_after(functools.partial(log_drop, ticket))
        self.let_go(ticket)

    def notice_expiry(self) -> None:
        """Find out which leases have expired.

        In the middle of a section, only wake the background thread, which finds out: `held` goes by the clock anyway.
        """
        try:
            self._section.inside(self._host.expire)
        except ReentrantCall:
            self._background.rouse()

    def waits(self) -> list[Wait]:
        """Return the reasons for which the unanswered calls wait.

        Raises:
            ReentrantCall: a signal handler or a finalizer asks, in the middle of the client's own work.
        """
        return self._section.inside(lambda now_ns: self._host.core.waits(now_ns))

    # ------------------------------------------------------------------ queries and watches

    def ask(self, question: Callable[[ClientCore, int], Query]) -> Any:
        """Make a query of the core and wait for the answer. `question` makes it, from the core and the time."""
        call = Call()
        try:
            if self._background.keeper is None:
                self._upkeep.start()
            self._section.inside(self._begin_to_ask, call, question)
            if call.waits:
                self._calls.wait(call, self._host.feed)
        except BaseException:
            self._withdraw(call)
            raise
        if call.error is not None:
            raise call.take_error()
        return call.answer

    def _begin_to_ask(self, now_ns: int, call: Call, question: Callable[[ClientCore, int], Query]) -> None:
        if self._begin_query(now_ns, call, question):
            self._host.carry_out(now_ns, call)
            if not call.done:
                assert call.item is not None
                self._calls.take(call.item.exchange.link, call)

    def _begin_query(self, now_ns: int, call: Call, question: Callable[[ClientCore, int], Query]) -> bool:
        """Give a call its query; return False, with the call's `error` set, if it cannot have one."""
        if (
            self._background.keeper is None or self._section.choring or self._starter.openers
        ) and not self._may_begin(call):
            return False
        core = self._host.core
        try:
            request = question(core, now_ns)
        except LockringError as error:
            call.error = error
            return False
        request.exchange.call, call.item, call.core = call, request, core
        return True

    def watch(self, name: LockName) -> Call:
        """Begin to watch a lock."""
        call = Call()
        call.backlog = Backlog()
        try:
            if self._background.keeper is None:
                self._upkeep.start()
            self._section.inside(self._begin_watch, call, name)
        except BaseException:
            self._withdraw(call)
            raise
        if call.item is None and call.error is not None:
            raise call.take_error()
        return call

    def _begin_watch(self, now_ns: int, call: Call, name: LockName) -> None:
        if self._begin_query(now_ns, call, lambda core, now_ns: core.watch(name, now_ns=now_ns)):
            self._host.watches[call] = None
            self._host.carry_out(now_ns, None)

    def next_updates(self, call: Call) -> list[Update]:
        """Return the next updates of a watch; wait until there are any."""
        try:
            self._section.inside(self._begin_next, call)
            if call.waits:
                self._calls.wait(call, self._host.feed)
            updates = self._section.inside(self._take_updates, call)
        except BaseException:
            self._withdraw(call)
            raise
        if not updates and call.error is not None:
            raise call.take_error()
        return updates

    def _begin_next(self, _now_ns: int, call: Call) -> None:
        if not call.done:
            call.thread = threading.get_ident()
            assert call.item is not None
            self._calls.take(call.item.exchange.link, call)

    def _take_updates(self, _now_ns: int, call: Call) -> list[Update]:
        assert call.backlog is not None
        updates = call.backlog.take()
        call.done = call.error is not None
        return updates

    def unwatch(self, call: Call) -> None:
        """End a watch."""
        self._withdraw(call)

    # ------------------------------------------------------------------ calls that may not begin, or end early

    def _may_begin(self, call: Call) -> bool:
        """Return whether a call may wait for an answer; if it may not, set its `error`."""
        if self._background.keeper is None and not self._host.is_closing:
            call.error = ReentrantCall(
                "a signal handler forked the process in the middle of this call, so nothing was done: try again"
            )
        elif self._starter.must_not_wait(call.thread):
            call.error = ReentrantCall(
                "a finalizer called the client while its thread was opening the client's connection, so nothing was done"
            )
        return call.error is None

    def _withdraw(self, call: Call) -> None:
        """Leave nothing behind of a call whose caller gave up or was interrupted."""
        try:
            if call.waits or call.item is not None:
                self._section.inside(self._host.give_up, call)
            elif self._section.torn is not None:
                self._background.rouse()
        except ReentrantCall:
            host = self._host
            self._section.defer(lambda now_ns: host.give_up(now_ns, call))
        except BaseException as error:
            self._section.tear(error)
            raise

    # ------------------------------------------------------------------ groups

    def follow(self, ticket: Ticket, member: GroupListener) -> None:
        """Begin to follow the group that a held ticket is a membership of; `member` hears of changes from now on.

        Raises:
            LockLost, NotHeld: the ticket is not held.
        """
        error = self._section.inside(self._follow, ticket, member)
        if error is not None:
            raise error

    def _follow(self, now_ns: int, ticket: Ticket, member: GroupListener) -> LockringError | None:
        core = self._host.core
        try:
            request = core.follow(ticket, now_ns=now_ns)
        except LockringError as error:
            return error
        request.member = ticket.holder = weakref.ref(member)
        member._followed(core, request)
        self._host.carry_out(now_ns, None)
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
            if self._host.core is core:
                act(now_ns)
                self._host.carry_out(now_ns, None)

        self._section.inside(work)

    # ------------------------------------------------------------------ for grants and memberships

    def guarded(self, work: Callable[[], R]) -> R:
        """Do work in a section. See `Section.guarded`."""
        return self._section.guarded(work)

    def locked(self) -> Any:
        """Return the section's lock, for single steps. See `Section.locked`."""
        return self._section.locked()

    def do_after(self, chore: Callable[[], object]) -> None:
        """Leave a chore to be done after the section that this thread is in."""
        self._section.do_after(chore)

    def spawn(self, work: Callable[[], object], name: str) -> None:
        """Run `work` in a thread of its own. See `ThreadStarter.spawn`."""
        self._starter.spawn(work, name)

    def wait_at(self, gate: threading.Lock, until_ns: int | None) -> None:
        """Wait until a gate is opened, or until a time. May return early.

        A thread that is already in a call to this client may wait here, too: meanwhile it does the background thread's
        work if it is that thread, or reads for its call beneath.
        """
        if not self._calls.serve_beneath(self._host.feed):
            left_s = NAP_S if until_ns is None else max(0, until_ns - monotonic_ns()) / NS_PER_S
            gate.acquire(timeout=min(left_s, NAP_S))

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """End the sessions, tell the nodes (for a second at most), and close all connections."""
        keeper = self._begin_close()
        if keeper is not None:
            self._finish_close(keeper, monotonic_ns() + _CLOSE_NS)

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Begin to close at the end of the program; return a function that waits for the end of that, until a time."""
        keeper = self._begin_close()
        return None if keeper is None else functools.partial(self._finish_close, keeper)

    def _begin_close(self) -> Keeper | None:
        """End the sessions and tell the nodes; return the background thread to wait for, if any.

        None as well where the close was left to the end of the section that this thread is in.
        """
        keeper = self._background.keeper
        try:
            self._section.inside(self._host.close)
        except ReentrantCall:
            self._section.defer(self._host.close)
            return None
        return keeper

    def _finish_close(self, keeper: Keeper, until_ns: int) -> None:
        """Wait until everything is closed, or until a time."""
        while keeper.thread.is_alive() and (left_ns := until_ns - monotonic_ns()) > 0:
            if keeper.ident == threading.get_ident():
                if not keeper.round():
                    return
            elif not self._calls.serve_beneath(self._host.feed):
                keeper.thread.join(left_ns / NS_PER_S)

    def __del__(self) -> None:
        """Close a client to which, as to its grants, nothing refers any more, and warn that it was forgotten."""
        background = getattr(self, "_background", None)
        keeper = None if background is None else background.keeper
        if keeper is None or self._host.is_closing:
            return
        self._host.is_closing = True  # only once
        keeper.heir = self  # the end of the program, or a fork, finds it until it is closed
        self._section.defer(self._host.close)
        warnings.warn(
            f"a client of {','.join(self.addresses)} was forgotten and not closed: what it held is given up",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """Begin again in the child of a fork, where no other thread lives: what was held is the parent's.

        The parent's connections are closed here without sending anything, so that the parent does not notice.
        """
        losers = abandon_held(self._host.core, "forked")
        for wire in self._connections.wires.values():
            wire.close()
        if self._background.keeper is not None:
            self._background.keeper.watcher.close()
        is_closing = self._host.is_closing
        self._begin()
        if is_closing:
            self._host.is_closing = True
            self._host.core.close(now_ns=monotonic_ns())
        for loser in losers:
            tell_lost(loser)


_drivers: weakref.WeakSet[BlockingDriver] = weakref.WeakSet()


def _after_fork() -> None:
    for driver in list(_drivers):
        driver.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
