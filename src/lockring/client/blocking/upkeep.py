"""The work of the background thread: the core's deadlines, idle connections, and the end of everything."""

from __future__ import annotations

import functools
import selectors
from collections.abc import Callable
from typing import Final

from lockring.client.blocking.background import Background, Keeper
from lockring.client.blocking.connection import IDLE_NS, ClientConnection
from lockring.client.blocking.connections import Connections
from lockring.client.blocking.core_host import CoreHost
from lockring.client.blocking.section import Section, reentrant_call
from lockring.client.blocking.thread_starter import RETRY_NS, ThreadStarter
from lockring.client.goodbye import expect_end
from lockring.client.grant_state import dropped_tickets, report_drop
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import Unavailable
from lockring.system_errors import reason_of
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005
"""A background thread that wakes up `_STALL_NS` too late reads what has arrived, and gives the callers `_STALL_S` to do
the same, before it judges silence."""
_SWEEP_NS: Final = 2 * NS_PER_S
"""How often to look for dropped grants whose `__del__` failed."""


class Upkeep:
    """The work of one client's background thread, and the start of that thread.

    Args:
        section: the client's.
        host: the core and its sockets.
        driver: returns the driver, None once it is gone. Its finalizer closes the client; if that failed, as at the
            recursion limit, the thread finds out by this.
    """

    __slots__ = ("_background", "_connections", "_driver", "_host", "_section", "_starter", "_sweep_at_ns")

    def __init__(
        self,
        section: Section,
        host: CoreHost,
        *,
        background: Background,
        connections: Connections,
        starter: ThreadStarter,
        driver: Callable[[], object],
    ) -> None:
        self._section = section
        self._host = host
        self._background = background
        self._connections = connections
        self._starter = starter
        self._driver = driver
        self._sweep_at_ns = 0

    # ------------------------------------------------------------------ the thread

    def start(self) -> None:
        """Start the background thread, as there is none.

        Each thread that finds none starts one, and the first becomes the client's. The others end at once. They do not
        wait for each other: one of them may be a finalizer on the thread that is being started.

        Raises:
            ReentrantCall: this thread is in a section, and must not wait for another thread there.
            Unavailable: the system has no thread or no descriptor left.
        """
        if not self._section.may_enter():
            raise reentrant_call()
        if self._host.is_closing:
            return
        try:
            keeper = Keeper(self)
            keeper.start()
        except (RuntimeError, MemoryError, OSError) as error:
            if self._background.keeper is None:
                what = f"the thread that keeps leases cannot be started: {reason_of(error)}"
                raise Unavailable(what) from error
        else:
            self._section.inside(self._adopt, keeper)

    def _adopt(self, _now_ns: int, keeper: Keeper) -> None:
        """Make a started thread the client's background thread, unless it has one."""
        background = self._background
        if background.keeper is None and not self._host.is_closing:
            background.keeper = keeper
            background.planned_ns = DISTANT_FUTURE_NS
            self._section.do_after(expect_end)

    def tear(self, cause: BaseException) -> None:
        """Mark the whole state as unreliable: the next section gives it up and starts over."""
        self._section.tear(cause)

    def serve(self, wire: ClientConnection, events: int) -> None:
        """Read or write on a connection that no caller reads."""
        self._section.inside(self._serve, wire, events)

    def _serve(self, now_ns: int, wire: ClientConnection, events: int) -> None:
        if wire.closed:
            return
        if events & selectors.EVENT_WRITE and wire.outgoing:
            wire.flush()
        if events & selectors.EVENT_READ and wire.reader is None and wire.receive_now():
            self._host.feed(wire, now_ns, None)
            wire.used_at_ns = now_ns - IDLE_NS  # no caller has used it: it stays idle

    # ------------------------------------------------------------------ what is due

    def do_due(self, keeper: Keeper) -> float | None:
        """Do what is due; return how long to sleep in seconds, None at the end of the thread."""
        # Outside the section: this may be the last reference to the driver for a moment, and then runs its finalizer.
        if self._driver() is None and not self._host.is_closing:
            self._section.inside(self._host.close)
        return self._section.inside(self._do_due, keeper)

    def _do_due(self, now_ns: int, keeper: Keeper) -> float | None:
        self._adopt(now_ns, keeper)
        background = self._background
        if background.keeper is not keeper:
            return None
        if keeper.watcher.stale:
            keeper.watcher.renew()
            for wire in self._connections.wires.values():
                wire.events = 0
        if now_ns - background.planned_ns > _STALL_NS:
            # The process was stopped. First, what came meanwhile must be read: here, and by the calls that read.
            self._catch_up(now_ns)
            return _STALL_S
        self._starter.try_again(now_ns)
        timeout_s = self._turn(now_ns)
        if timeout_s is None:
            for wire in list(self._connections.wires.values()):
                self._connections.drop(wire)
            background.keeper = None
        return timeout_s

    def _sweep(self, now_ns: int) -> None:
        """Give up the tickets whose grants are gone, before they are renewed; O(held)."""
        self._sweep_at_ns = now_ns + _SWEEP_NS
        core = self._host.core
        dropped = dropped_tickets(core)
        for ticket in dropped:
            core.cancel(ticket, now_ns=now_ns)
            self._section.do_after(functools.partial(report_drop, ticket))
        if dropped:
            self._host.carry_out(now_ns, None)

    def _catch_up(self, now_ns: int) -> None:
        """Read the connections that no caller reads, whether or not they are watched."""
        for wire in list(self._connections.wires.values()):
            if wire.reader is None and not wire.closed:
                if wire.receive_now():
                    self._host.feed(wire, now_ns, None)
        self._background.planned_ns = now_ns + _STALL_NS

    def _turn(self, now_ns: int) -> float | None:
        """Do what is due; return how long to sleep in seconds, None if the client is closed."""
        host = self._host
        due_ns = host.core.next_deadline_ns()
        if due_ns is not None and due_ns <= now_ns:
            if now_ns >= self._sweep_at_ns:
                self._sweep(now_ns)
            host.expire(now_ns)
            due_ns = host.core.next_deadline_ns()
        if host.is_closing and host.core.is_closed:
            return None
        sleep_ns = 3_600 * NS_PER_S if due_ns is None else max(0, due_ns - now_ns)
        if self._starter.refused:
            sleep_ns = min(sleep_ns, RETRY_NS)
        for wire in self._connections.wires.values():
            self._background.watch(wire, wire.wanted_events(now_ns))
            if not wire.events & selectors.EVENT_READ:
                # In use: look again soon, unless a call has been reading it for long; that call wakes this thread at
                # its end.
                if wire.reader is None or now_ns - wire.used_at_ns < IDLE_NS:
                    sleep_ns = min(sleep_ns, IDLE_NS)
        self._background.sleeping_until_ns = self._background.planned_ns = now_ns + sleep_ns
        return sleep_ns / NS_PER_S
