"""Between the client core and the sockets: what the blocking client does whoever's thread it runs on.

Everything here runs under the engine's lock, but for opening connections and the background thread's sleep.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from lockring._version import __version__
from lockring.client.wire import IDLE_NS, Wire, connect, not_understood
from lockring.clock import monotonic_ns
from lockring.core.client import ClientCore
from lockring.core.client_effects import Answer, Connect, Disconnect, GrantLost, Resolve, Send, Update
from lockring.core.holdings import NEVER_NS, TicketState
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.messages import LockInfo
from lockring.net.frames import encode_frame
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005
"""A background thread that comes back so much too late lets everybody read what has arrived before it judges silence."""


class Call:
    """One caller that waits.

    Attributes:
        done: whether it may go on: its ticket or request is decided, or (of a watch) there is news.
        error: what to raise, if anything.
        answer: what to return.
        updates: what a watch has seen and its caller has not.
        gate: what it waits at while it does not read a socket itself; `gated` says whether it does.
        reading: the connection that its thread reads.
    """

    __slots__ = ("answer", "done", "error", "gate", "gated", "reading", "updates")

    def __init__(self) -> None:
        self.done = False
        self.error: LockringError | None = None
        self.answer: Any = None
        self.updates: list[LockInfo] = []
        self.gate: threading.Lock | None = None
        self.gated = False
        self.reading: Wire | None = None


class Loser(Protocol):
    """What a held ticket's `context` must be: whoever is to hear that it was lost."""

    def on_ticket_lost(self) -> None:
        """The ticket was lost; called with the engine's lock held."""


class Plumbing:
    """Runs one client core over sockets.

    Args:
        addresses: of the servers.
        owner: gives the label, asked again after a fork.
        connect_timeout_ns: as for the core.
    """

    def __init__(self, addresses: Sequence[str], owner: Callable[[], str], connect_timeout_ns: int) -> None:
        self.addresses = addresses
        self._owner_of = owner
        self._connect_timeout_ns = connect_timeout_ns
        self._begin()
        _engines.add(self)

    def _begin(self) -> None:
        """Start over with nothing: at first, and in the child of a fork."""
        self._lock = threading.Lock()
        self.owner = self._owner_of()
        self._core = ClientCore(
            self.addresses,
            owner=self.owner,
            new_id=lambda: secrets.token_hex(8),
            software=f"lockring-python {__version__}",
            connect_timeout_ns=self._connect_timeout_ns,
        )
        self._wires: dict[int, Wire] = {}
        self._connecting: set[int] = set()
        self._selector: selectors.BaseSelector | None = None
        self._wake_out = self._wake_in = -1
        self._thread: threading.Thread | None = None
        self._sleeping_until_ns = 0
        self._planned_ns = NEVER_NS
        self._closing = False

    # ------------------------------------------------------------------ callers

    def _leave(self, wire: Wire, call: Call, now_ns: int) -> None:
        """A caller stops reading: let the next one in that waits for something on that connection."""
        wire.reader = call.reading = None
        if wire.closed:
            wire.close()
            waiting, wire.waiting = wire.waiting, {}
            for other in waiting:
                self._open_gate(other)
            return
        while wire.waiting:
            other = next(iter(wire.waiting))
            del wire.waiting[other]
            if not other.done:
                self._open_gate(other)
                return
        if self._sleeping_until_ns > now_ns + 2 * IDLE_NS:
            self._wake()  # somebody has to look after this connection from now on

    def _open_gate(self, call: Call) -> None:
        if call.gated:
            call.gated = False
            assert call.gate is not None
            call.gate.release()

    def _finish(self, call: Call, me: Call | None) -> None:
        """A call may go on: wake its thread, unless that is ours."""
        call.done = True
        if call is me:
            return
        if call.reading is not None:
            call.reading.wake()
        else:
            self._open_gate(call)

    # ------------------------------------------------------------------ between core and sockets (all under the lock)

    def _feed(self, wire: Wire, data: memoryview, now_ns: int, me: Call | None) -> None:
        """Give the core what came on a connection."""
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
                    core.received(link, message, now_ns=now_ns)
                if messages:
                    wire.greeted = True
        self._carry_out(now_ns, me)

    def _carry_out(self, now_ns: int, me: Call | None) -> None:
        """Do what the core wants done. `me` is the call of this thread, which needs no waking."""
        touched: Wire | None = None
        pieces: list[bytes] = []
        for effect in self._core.take_effects(now_ns=now_ns):
            kind = type(effect)
            if kind is Send:
                wire = self._wires.get(effect.link)  # type: ignore[union-attr]
                if wire is not touched and touched is not None:
                    self._transmit(touched, pieces, now_ns, me)
                    pieces = []
                touched = wire
                if wire is not None:
                    pieces.append(encode_frame(effect.message))  # type: ignore[union-attr]
            elif kind is Resolve:
                call: Call = effect.ticket.context  # type: ignore[union-attr]
                call.error = effect.error  # type: ignore[union-attr]
                self._finish(call, me)
            else:
                self._carry_out_rare(effect, me)
        if touched is not None:
            self._transmit(touched, pieces, now_ns, me)
        due_ns = self._core.next_deadline_ns()
        if due_ns is not None and due_ns < self._sleeping_until_ns:
            self._wake()

    def _transmit(self, wire: Wire, pieces: list[bytes], now_ns: int, me: Call | None) -> None:
        if me is not None:
            wire.used_at_ns = now_ns
        wire.send(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if wire.outgoing:
            self._watch(wire, wire.events | selectors.EVENT_WRITE)

    def _carry_out_rare(self, effect: object, me: Call | None) -> None:
        match effect:
            case GrantLost(ticket):
                if not isinstance(ticket.context, Call):
                    ticket.context.on_ticket_lost()
            case Answer(request, answer, error):
                call: Call = request.context
                call.answer, call.error = answer, error
                self._finish(call, me)
            case Update(request, lock):
                call = request.context
                call.updates.append(lock)
                self._finish(call, me)
            case Connect(link, address):
                self._connecting.add(link)
                name = f"lockring-connect-{address}"
                threading.Thread(target=self._connect, args=(link, address), name=name, daemon=True).start()
            case Disconnect(link, _):
                self._connecting.discard(link)
                wire = self._wires.get(link)
                if wire is not None:
                    self._drop(wire)

    def _connect(self, link: int, address: str) -> None:
        """Open a connection; in a thread of its own."""
        try:
            sock = connect(address)
        except Unavailable as error:
            with self._lock:
                now_ns = monotonic_ns()
                self._connecting.discard(link)
                self._core.disconnected(link, now_ns=now_ns, reason=str(error))
                self._carry_out(now_ns, None)
            return
        with self._lock:
            now_ns = monotonic_ns()
            if link not in self._connecting:
                sock.close()
                return
            self._connecting.discard(link)
            # Nobody has asked anything on it yet: let the background thread watch it at once.
            wire = self._wires[link] = Wire(link, address, sock, now_ns - IDLE_NS)
            self._core.connected(link, now_ns=now_ns)
            self._carry_out(now_ns, None)
            wire.used_at_ns = now_ns - IDLE_NS
            self._watch(wire, wire.wanted_events(now_ns))

    def _drop(self, wire: Wire) -> None:
        """A connection is over."""
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

    def _watch(self, wire: Wire, events: int) -> None:
        """Let the selector watch a connection for these events."""
        selector = self._selector
        if events == wire.events or selector is None:
            return
        if not events:
            selector.unregister(wire.sock)
        elif not wire.events:
            selector.register(wire.sock, events, wire)
        else:
            selector.modify(wire.sock, events, wire)
        wire.events = events

    # ------------------------------------------------------------------ the background thread

    def _start(self) -> None:
        if self._thread is not None or self._closing:
            return
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        self._selector.register(self._wake_out, selectors.EVENT_READ, None)
        self._thread = threading.Thread(
            target=self._run, args=(self._selector,), name="lockring-client", daemon=True
        )
        self._thread.start()

    def _wake(self) -> None:
        if self._wake_in >= 0 and self._sleeping_until_ns:
            self._sleeping_until_ns = 0
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_in, b"\0")

    def _run(self, selector: selectors.BaseSelector) -> None:
        while True:
            with self._lock:
                now_ns = monotonic_ns()
                if now_ns - self._planned_ns > _STALL_NS:
                    # The process was stopped. What came meanwhile is to be read first, by whoever reads there.
                    self._catch_up(now_ns)
                    timeout_s: float | None = _STALL_S
                else:
                    timeout_s = self._turn(now_ns)
                if timeout_s is None:
                    self._end(selector)
                    return
            for key, mask in selector.select(timeout_s):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_out, 4096)
                else:
                    self._serve(key.data, mask)

    def _catch_up(self, now_ns: int) -> None:
        """Read what no caller reads, whether or not it is watched."""
        for wire in list(self._wires.values()):
            if wire.reader is None and not wire.closed:
                data = wire.receive_now()
                if data is not None:
                    self._feed(wire, data, now_ns, None)
        self._planned_ns = now_ns + _STALL_NS

    def _turn(self, now_ns: int) -> float | None:
        """Do what is due; returns how long to sleep, None if the client is closed."""
        due_ns = self._core.next_deadline_ns()
        if due_ns is not None and due_ns <= now_ns:
            self._core.on_timer(now_ns=now_ns)
            self._carry_out(now_ns, None)
            due_ns = self._core.next_deadline_ns()
        if self._closing and self._core.is_closed:
            return None
        sleep_ns = 3_600 * NS_PER_S if due_ns is None else max(0, due_ns - now_ns)
        for wire in self._wires.values():
            self._watch(wire, wire.wanted_events(now_ns))
            if not wire.events & selectors.EVENT_READ:
                # In use: look again soon, unless somebody is waiting there for long and will say when not any more.
                if wire.reader is None or now_ns - wire.used_at_ns < IDLE_NS:
                    sleep_ns = min(sleep_ns, IDLE_NS)
        self._sleeping_until_ns = self._planned_ns = now_ns + sleep_ns
        return sleep_ns / NS_PER_S

    def _serve(self, wire: Wire, mask: int) -> None:
        """A connection that no caller reads has something, or takes something."""
        with self._lock:
            if wire.closed:
                return
            if mask & selectors.EVENT_WRITE and wire.outgoing:
                wire.flush()
            if mask & selectors.EVENT_READ and wire.reader is None:
                data = wire.receive_now()
                now_ns = monotonic_ns()
                if data is not None:
                    self._feed(wire, data, now_ns, None)
                    wire.used_at_ns = now_ns - IDLE_NS  # still idle, as far as callers are concerned

    def _end(self, selector: selectors.BaseSelector) -> None:
        """Close what is left; the background thread's last deed."""
        for wire in list(self._wires.values()):
            self._drop(wire)
        self._selector = None
        selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)
        self._wake_in = self._wake_out = -1

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """In the child of a fork, where no other thread lives: what was held is the parent's; start afresh.

        The parent's connections are closed here without a word on them, so that it does not notice.
        """
        losers = []
        for session in self._core._sessions.values():
            for share in session.shares.values():
                for ticket in share.tickets.values():
                    if ticket.state == TicketState.HELD:
                        ticket.state, ticket.reason = TicketState.ENDED, "forked"
                        losers.append(ticket.context)
        for wire in self._wires.values():
            wire.close()
        if self._selector is not None:
            self._selector.close()
            os.close(self._wake_in)
            os.close(self._wake_out)
        closing = self._closing
        self._begin()
        if closing:
            self._closing = True
            self._core.close(now_ns=monotonic_ns())
        for loser in losers:
            if not isinstance(loser, Call):
                loser.on_ticket_lost()


_engines: weakref.WeakSet[Plumbing] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
