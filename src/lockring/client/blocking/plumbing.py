"""The layer between the client core and the sockets: the work of the blocking client that any thread may do.

Everything here runs in sections (see `section`), except that connections are opened outside them. If the system refuses
a thread or a descriptor, that is an error of the call that needs it, or of the connection; it never leaves a section
half done.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import selectors
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from lockring._version import __version__
from lockring.client.arguments import origin_of
from lockring.client.blocking.background import Keeper, log
from lockring.client.blocking.calls import Call, Calls
from lockring.client.blocking.connection import IDLE_NS, ClientConnection, connect, not_understood
from lockring.client.goodbye import expect_end, remember
from lockring.client.grant_state import (
    abandon_held,
    dropped_tickets,
    farewell_of,
    listener_of,
    report_drop,
    tell_lost,
    what_happened,
)
from lockring.client.logs import LoggedCore, start_writing
from lockring.clock import monotonic_ns
from lockring.core.client import (
    CallResult,
    ClientCore,
    Connect,
    Disconnect,
    GrantLost,
    GroupChange,
    Resolve,
    SendTo,
    Update,
)
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import ProtocolError, Unavailable
from lockring.ids import LinkId
from lockring.net.frames import encode_frame
from lockring.system_errors import reason_of
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005
"""A background thread that wakes up `_STALL_NS` too late reads what has arrived, and gives the callers `_STALL_S` to do
the same, before it judges silence."""
_SWEEP_NS: Final = 2 * NS_PER_S
"""How often to look for dropped grants whose `__del__` failed."""
_SPAWN_AGAIN_NS: Final = 50 * NS_PER_MS
"""How often to try again to start a thread that the system refused."""


class DriverBase(Calls):
    """One client core over sockets: the base of the driver, without its calls.

    Args:
        addresses: the servers' addresses.
        owner: returns the client's label; called again after a fork.
        connect_timeout_ns: as for the core.
    """

    def __init__(self, addresses: Sequence[str], owner: Callable[[], str], connect_timeout_ns: int) -> None:
        self.addresses = addresses
        self._owner_of = owner
        self._connect_timeout_ns = connect_timeout_ns
        self._begin()
        _engines.add(self)
        remember(self)

    def _begin(self) -> None:
        """Start with an empty state: at first, and in the child of a fork."""
        self._open_sections()
        self.owner = self._owner_of()
        self._openers: set[threading.Thread] = set()
        """Threads that open a connection, and those that another thread is starting and waits for."""
        self.start_writing = functools.partial(
            self._chores.append, functools.partial(start_writing, self._openers)
        )
        """Starts writing the log, after the section. It does not refer to the driver, so that a core may hold it."""
        self._core = self._new_core()
        self._wires: dict[int, ClientConnection] = {}
        self._callers: dict[int, Call] = {}
        self._watches: dict[Call, None] = {}
        self._connecting: dict[int, object] = {}
        self._unstarted: deque[tuple[Callable[[], object], str]] = deque()
        """Work for threads that the system has refused so far, with each thread's name."""
        self._keeper: Keeper | None = None
        self._sleeping_until_ns = 0
        self._planned_ns = DISTANT_FUTURE_NS
        self._sweep_at_ns = self._spawn_again_at_ns = 0
        self._closing = False

    def _new_core(self) -> ClientCore:
        return LoggedCore(
            self.addresses,
            owner=self.owner,
            new_id=lambda: secrets.token_hex(8),
            software=f"lockring-python {__version__}",
            connect_timeout_ns=self._connect_timeout_ns,
            origin=origin_of(self.addresses),
            start_writing=self.start_writing,
        )

    # ------------------------------------------------------------------ sections that ended in their middle

    def tear(self, cause: BaseException) -> None:
        """Mark the whole state as unreliable: the next section gives it up and starts over."""
        self._torn = cause
        self._rouse()

    def begin_goodbye(self) -> Callable[[int], None] | None:
        """Begin to close at the end of the program."""
        raise NotImplementedError

    def _rouse(self) -> None:
        keeper = self._keeper
        if keeper is not None:
            keeper.wake()

    def _mend(self, now_ns: int, cause: BaseException) -> None:
        """Give everything up and go on with a new core: what is held is lost, and waiting calls raise the reason.

        A signal's handler may raise between any two lines that the main thread runs (Ctrl-C does), and any line may run
        out of memory. So nothing of the former state is relied on.
        """
        old, self._core = self._core, self._new_core()
        if self._closing:
            self._core.close(now_ns=now_ns)
        farewell = farewell_of(old)
        wires, self._wires, self._connecting = self._wires, {}, {}
        callers, self._callers = self._callers, {}
        watches, self._watches = self._watches, {}
        if self._keeper is not None:
            self._keeper.watcher.stale = True
            self._sleeping_until_ns = 0
            self._keeper.wake()
        losers = abandon_held(old, "session-ended")
        for wire in wires.values():
            with contextlib.suppress(OSError):  # the program may have closed descriptors that are not its own
                wire.send(farewell)
                wire.hang_up()
                wire.wake()
                if wire.reader is None:
                    wire.close()
        what = what_happened(cause)
        for top in (*callers.values(), *watches):
            call: Call | None = top
            while call is not None:
                if not call.done or call.backlog is not None:
                    call.error = Unavailable(f"{what}, so the client had to start over: what it held is lost")
                    call.error.__cause__ = cause
                with contextlib.suppress(RuntimeError, OSError):  # its gate may be open already
                    self._finish(call, None)
                call = call.beneath
        for loser in losers:
            tell_lost(loser)
        self._chores.append(
            lambda: log.error(
                "%s, so the client had to start over: what it held is lost", what, exc_info=cause
            )
        )

    # ------------------------------------------------------------------ between core and sockets (all under the lock)

    def _feed(self, wire: ClientConnection, now_ns: int, me: Call | None) -> None:
        """Feed the core the bytes that came on a connection."""
        data = wire.view[: wire.taken.pop()]
        wire.used_at_ns = now_ns
        core = self._core
        link = wire.link
        if not data:
            self._drop(wire)
            reason = "the connection was lost" if wire.greeted else "closed the connection without a greeting"
            core.disconnected(link, now_ns=now_ns, reason=reason)
        else:
            try:
                messages = wire.frames.feed(data)
            except ProtocolError as error:
                self._drop(wire)
                wrong = not_understood(wire.address, error, wire.greeted)
                core.disconnected(link, now_ns=now_ns, error=wrong)
            else:
                for message in messages:
                    core.receive(link, message, now_ns=now_ns)
                if messages:
                    wire.greeted = True
        self._carry_out(now_ns, me)

    def _carry_out(self, now_ns: int, me: Call | None) -> None:
        """Carry out the core's effects. `me` is the call of this thread, which needs no waking."""
        core = self._core
        effects = core.take_effects(now_ns=now_ns)
        frames: list[bytes] = []
        for place, effect in enumerate(effects, start=1):
            if type(effect) is SendTo:
                frames.append(encode_frame(effect.message))
                if place < len(effects):
                    after = effects[place]
                    if type(after) is SendTo and after.link == effect.link:
                        continue  # what follows leaves in the same write
                wire = self._wires.get(effect.link)
                if wire is not None:
                    if me is not None:
                        wire.used_at_ns = now_ns
                    wire.send(frames[0] if len(frames) == 1 else b"".join(frames))
                    if wire.outgoing:
                        self._watch(wire, wire.events | selectors.EVENT_WRITE)
                frames = []
            elif type(effect) is Resolve:
                call: Call = effect.ticket.exchange.call
                call.error = effect.error
                self._finish(call, me)
            else:
                self._carry_out_rare(effect, me)
        due_ns = core.next_deadline_ns()
        if due_ns is not None and due_ns < self._sleeping_until_ns:
            self._wake()

    def _carry_out_rare(self, effect: object, me: Call | None) -> None:
        match effect:
            case GrantLost(ticket):
                tell_lost(ticket.holder)
            case CallResult(request, answer, error):
                call: Call = request.exchange.call
                call.answer, call.error = answer, error
                self._finish(call, me)
                self._watches.pop(call, None)
            case Update(request):
                call = request.exchange.call
                assert call.backlog is not None
                call.backlog.add(effect)
                self._finish(call, me)
            case GroupChange(request, gained, lost, awaited):
                member = listener_of(request.member)
                if member is not None:
                    member._on_regrouped(gained, lost, awaited)
            case Connect(link, address):
                mark = self._connecting[link] = object()
                self._chores.append(functools.partial(self._open, link, address, mark))
            case Disconnect(link, _):
                self._connecting.pop(link, None)
                wire = self._wires.get(link)
                if wire is not None:
                    self._drop(wire)

    # ------------------------------------------------------------------ opening connections

    def _open(self, link: LinkId, address: str, mark: object) -> None:
        """Begin to open a connection, in a thread of its own."""
        work = functools.partial(self._connect, link, address, mark)
        opener = threading.Thread(target=work, name=f"lockring-connect-{address}", daemon=True)
        self._openers.add(opener)
        try:
            opener.start()
        except (RuntimeError, MemoryError, OSError) as error:
            self._openers.discard(opener)
            self._inside(self._connected, link, mark, None, f"cannot be connected to: {reason_of(error)}")
        except BaseException:
            # Raised by a signal handler: the thread may not have started. If it has, the second one comes too late.
            self._chores.append(functools.partial(self._open, link, address, mark))
            self._rouse()
            raise

    def _connect(self, link: LinkId, address: str, mark: object) -> None:
        """Open a connection. `mark` shows whether it is still wanted once it is open."""
        wire, reason = None, ""
        try:
            sock = connect(address)
            try:
                # No call has used it yet: let the background thread watch it at once.
                wire = ClientConnection(link, address, sock, monotonic_ns() - IDLE_NS)
            except BaseException:
                sock.close()
                raise
        except BaseException as error:  # noqa: BLE001 - any error is this connection's, and the core must learn of it
            reason = (
                str(error)
                if isinstance(error, Unavailable)
                else f"cannot be connected to: {reason_of(error)}"
            )
        finally:
            self._openers.discard(threading.current_thread())
        self._inside(self._connected, link, mark, wire, reason)

    def _connected(
        self, now_ns: int, link: LinkId, mark: object, wire: ClientConnection | None, reason: str
    ) -> None:
        if self._connecting.get(link) is not mark:
            if wire is not None:
                wire.close()
            return
        del self._connecting[link]
        if wire is None:
            self._core.disconnected(link, now_ns=now_ns, reason=reason)
            self._carry_out(now_ns, None)
            return
        self._wires[link] = wire
        self._core.connected(link, now_ns=now_ns)
        self._carry_out(now_ns, None)
        if not wire.closed:
            self._watch(wire, wire.wanted_events(now_ns))

    def _drop(self, wire: ClientConnection) -> None:
        """End a connection, and let the calls that wait at it look for another one."""
        del self._wires[wire.link]
        self._watch(wire, 0)
        wire.hang_up()
        if wire.reader is None:
            wire.close()
        else:
            wire.wake()
        waiting, wire.waiting = wire.waiting, {}
        for call in waiting:
            self._open_gate(call)

    def _watch(self, wire: ClientConnection, events: int) -> None:
        """Let the background thread watch a connection for these events."""
        if self._keeper is not None:
            self._keeper.watcher.watch(wire, events)

    # ------------------------------------------------------------------ the background thread

    def _start(self) -> None:
        """Start the background thread, as there is none.

        Each thread that finds none starts one, and the first becomes the client's. The others end at once. They do not
        wait for each other: one of them may be a finalizer on the thread that is being started.

        Raises:
            ReentrantCall: this thread is in a section, and must not wait for another thread there.
            Unavailable: the system has no thread or no descriptor left.
        """
        if not self._may_enter():
            raise self._reentrant()
        if self._closing:
            return
        try:
            keeper = Keeper(self)
            keeper.start()
        except (RuntimeError, MemoryError, OSError) as error:
            if self._keeper is None:
                what = f"the thread that keeps leases cannot be started: {reason_of(error)}"
                raise Unavailable(what) from error
        else:
            self._inside(self._adopt, keeper)

    def _adopt(self, _now_ns: int, keeper: Keeper) -> None:
        """Make a started thread the client's background thread, unless it has one."""
        if self._keeper is None and not self._closing:
            self._keeper = keeper
            self._planned_ns = DISTANT_FUTURE_NS
            self._chores.append(expect_end)

    def spawn(self, work: Callable[[], object], name: str) -> None:
        """Run `work` in a daemon thread of its own, after the section: now, or once the system has a thread for it."""
        self._chores.append(functools.partial(self._start_thread, work, name))
        self._see_to_chores()

    def _start_thread(self, work: Callable[[], object], name: str) -> None:
        openers = self._openers

        def run() -> None:
            openers.discard(thread)
            work()

        thread = threading.Thread(target=run, name=name, daemon=True)
        # The background thread may be starting this one: a finalizer that calls the client here must not wait for it.
        openers.add(thread)
        try:
            thread.start()
        except (RuntimeError, MemoryError, OSError):
            openers.discard(thread)
            self._unstarted.append((work, name))
            self._rouse()

    def _wake(self) -> None:
        if self._keeper is not None and self._sleeping_until_ns:
            self._sleeping_until_ns = 0
            self._keeper.wake()

    def do_due(self, keeper: Keeper) -> float | None:
        """Do what is due, in the background thread; return how long to sleep in seconds, None at its end."""
        return self._inside(self._do_due, keeper)

    def _do_due(self, now_ns: int, keeper: Keeper) -> float | None:
        self._adopt(now_ns, keeper)
        if self._keeper is not keeper:
            return None
        if keeper.watcher.stale:
            keeper.watcher.renew()
            for wire in self._wires.values():
                wire.events = 0
        if now_ns - self._planned_ns > _STALL_NS:
            # The process was stopped. First, what came meanwhile must be read: here, and by the calls that read.
            self._catch_up(now_ns)
            return _STALL_S
        if self._unstarted and now_ns >= self._spawn_again_at_ns:
            self._spawn_again_at_ns = now_ns + _SPAWN_AGAIN_NS
            self._chores.append(functools.partial(self._start_thread, *self._unstarted.popleft()))
        timeout_s = self._turn(now_ns)
        if timeout_s is None:
            for wire in list(self._wires.values()):
                self._drop(wire)
            self._keeper = None
        return timeout_s

    def _sweep(self, now_ns: int) -> None:
        """Give up the tickets whose grants are gone, before they are renewed; O(held)."""
        self._sweep_at_ns = now_ns + _SWEEP_NS
        dropped = dropped_tickets(self._core)
        for ticket in dropped:
            self._core.cancel(ticket, now_ns=now_ns)
            self._chores.append(functools.partial(report_drop, ticket))
        if dropped:
            self._carry_out(now_ns, None)

    def _catch_up(self, now_ns: int) -> None:
        """Read the connections that no caller reads, whether or not they are watched."""
        for wire in list(self._wires.values()):
            if wire.reader is None and not wire.closed:
                if wire.receive_now():
                    self._feed(wire, now_ns, None)
        self._planned_ns = now_ns + _STALL_NS

    def _turn(self, now_ns: int) -> float | None:
        """Do what is due; return how long to sleep in seconds, None if the client is closed."""
        due_ns = self._core.next_deadline_ns()
        if due_ns is not None and due_ns <= now_ns:
            if now_ns >= self._sweep_at_ns:
                self._sweep(now_ns)
            self._core.on_timer(now_ns=now_ns)
            self._carry_out(now_ns, None)
            due_ns = self._core.next_deadline_ns()
        if self._closing and self._core.is_closed:
            return None
        sleep_ns = 3_600 * NS_PER_S if due_ns is None else max(0, due_ns - now_ns)
        if self._unstarted:
            sleep_ns = min(sleep_ns, _SPAWN_AGAIN_NS)
        for wire in self._wires.values():
            self._watch(wire, wire.wanted_events(now_ns))
            if not wire.events & selectors.EVENT_READ:
                # In use: look again soon, unless a call has been reading it for long; that call wakes this thread at
                # its end.
                if wire.reader is None or now_ns - wire.used_at_ns < IDLE_NS:
                    sleep_ns = min(sleep_ns, IDLE_NS)
        self._sleeping_until_ns = self._planned_ns = now_ns + sleep_ns
        return sleep_ns / NS_PER_S

    def serve(self, wire: ClientConnection, events: int) -> None:
        """Read or write on a connection that no caller reads, in the background thread."""
        self._inside(self._serve, wire, events)

    def _serve(self, now_ns: int, wire: ClientConnection, events: int) -> None:
        if wire.closed:
            return
        if events & selectors.EVENT_WRITE and wire.outgoing:
            wire.flush()
        if events & selectors.EVENT_READ and wire.reader is None and wire.receive_now():
            self._feed(wire, now_ns, None)
            wire.used_at_ns = now_ns - IDLE_NS  # no caller has used it: it stays idle

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """Start afresh in the child of a fork, where no other thread lives: what was held is the parent's.

        The parent's connections are closed here without sending anything, so that the parent does not notice.
        """
        losers = abandon_held(self._core, "forked")
        for wire in self._wires.values():
            wire.close()
        if self._keeper is not None:
            self._keeper.watcher.close()
        closing = self._closing
        self._begin()
        if closing:
            self._closing = True
            self._core.close(now_ns=monotonic_ns())
        for loser in losers:
            tell_lost(loser)


_engines: weakref.WeakSet[DriverBase] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
