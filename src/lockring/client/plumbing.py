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
from lockring.client.arguments import origin_of
from lockring.client.holding import abandon_held
from lockring.client.logs import LoggedCore
from lockring.client.wire import IDLE_NS, Watcher, Wire, connect, not_understood
from lockring.clock import monotonic_ns
from lockring.core.client import ClientCore
from lockring.core.client_effects import (
    Answer,
    Connect,
    Disconnect,
    GrantLost,
    Regrouped,
    Resolve,
    Send,
    Update,
)
from lockring.core.holdings import NEVER_NS
from lockring.core.watching import Backlog
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.messages import CloseSession
from lockring.net.frames import encode_frame
from lockring.units import NS_PER_MS, NS_PER_S

_STALL_NS: Final = 100 * NS_PER_MS
_STALL_S: Final = 0.005
_LAST_REQUEST: Final = 1 << 53
"""Above every request number: for the last words of a core that will hear no answer."""
"""A background thread that comes back so much too late lets everybody read what has arrived before it judges silence."""


class Call:
    """One caller that waits.

    Attributes:
        done: whether it may go on: its ticket or request is decided, or (of a watch) there is news.
        error: what to raise, if anything.
        answer: what to return.
        backlog: of a watch, what it has seen and its caller has not.
        gate: what it waits at while it does not read a socket itself; `gated` says whether it does.
        reading: the connection that its thread reads.
        life: which core it was made for.
    """

    __slots__ = ("answer", "backlog", "done", "error", "gate", "gated", "life", "reading")

    def __init__(self, life: int) -> None:
        self.life = life
        self.done = False
        self.error: LockringError | None = None
        self.answer: Any = None
        self.backlog: Backlog | None = None
        self.gate: threading.Lock | None = None
        self.gated = False
        self.reading: Wire | None = None


class Loser(Protocol):
    """What a held ticket's `context` must be: whoever is to hear that it was lost."""

    def _on_ticket_lost(self) -> None:
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
        self._life = 0
        self._torn = False
        self._core = self._new_core()
        self._wires: dict[int, Wire] = {}
        self._waiting: dict[Call, None] = {}
        """Calls that wait at their gates; others read a connection."""
        self._connecting: dict[int, object] = {}
        self._watcher: Watcher | None = None
        self._thread: threading.Thread | None = None
        self._sleeping_until_ns = 0
        self._planned_ns = NEVER_NS
        self._closing = False

    def _new_core(self) -> ClientCore:
        return LoggedCore(
            self.addresses,
            owner=self.owner,
            new_id=lambda: secrets.token_hex(8),
            software=f"lockring-python {__version__}",
            connect_timeout_ns=self._connect_timeout_ns,
            origin=origin_of(self.addresses),
        )

    # ------------------------------------------------------------------ interrupts

    def _enter(self) -> None:
        """Begin a section under the lock; whoever leaves one sets `_torn` to False again.

        A signal's handler may raise between any two lines that the main thread runs (Ctrl-C does). Where it came in the
        middle of a section, what it left half done cannot be trusted any more.
        """
        if self._torn:
            self._start_over()
        self._torn = True

    def _start_over(self) -> None:
        """Give everything up and go on with a new core: what is held is lost, and whoever waits is told to try again.

        Nothing of what was there is relied on; the background thread ends, and the next call starts another one.
        """
        old, self._core = self._core, self._new_core()
        self._life += 1
        if self._closing:
            self._core.close(now_ns=monotonic_ns())
        farewell = b"".join(encode_frame(CloseSession(_LAST_REQUEST, each.id)) for each in old.sessions())
        wires, self._wires, self._connecting = self._wires, {}, {}
        watcher, self._watcher, self._thread = self._watcher, None, None
        waiting, self._waiting = self._waiting, {}
        waiting.update((wire.reader, None) for wire in wires.values() if wire.reader is not None)
        for loser in abandon_held(old, "session-ended"):
            if not isinstance(loser, Call):
                loser._on_ticket_lost()
        for wire in list(wires.values()):
            wire.send(farewell)
            wire.hang_up()
            wire.wake()
            if wire.reader is None:
                wire.close()
        for call in list(waiting):
            call.error = Unavailable("an interrupt came at the wrong moment, so the client had to start over")
            with contextlib.suppress(RuntimeError):  # its gate may be open already
                self._finish(call, None)
        if watcher is not None:
            watcher.wake()

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
        self._waiting.pop(call, None)
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
        core = self._core
        effects = core.take_effects(now_ns=now_ns)
        frames: list[bytes] = []
        for place, effect in enumerate(effects, start=1):
            if type(effect) is Send:
                frames.append(encode_frame(effect.message))
                if place < len(effects):
                    after = effects[place]
                    if type(after) is Send and after.link == effect.link:
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
                call: Call = effect.ticket.context
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
                if not isinstance(ticket.context, Call):
                    ticket.context._on_ticket_lost()
            case Answer(request, answer, error):
                call: Call = request.context
                call.answer, call.error = answer, error
                self._finish(call, me)
                self._waiting.pop(call, None)
            case Update(request):
                call = request.context
                assert call.backlog is not None
                call.backlog.add(effect)
                self._finish(call, me)
                self._waiting[call] = None
            case Regrouped(request, gained, lost, awaited):
                request.context._on_regrouped(gained, lost, awaited)
            case Connect(link, address):
                mark = self._connecting[link] = object()
                name = f"lockring-connect-{address}"
                work = (link, address, mark)
                threading.Thread(target=self._connect, args=work, name=name, daemon=True).start()
            case Disconnect(link, _):
                self._connecting.pop(link, None)
                wire = self._wires.get(link)
                if wire is not None:
                    self._drop(wire)

    def _connect(self, link: int, address: str, mark: object) -> None:
        """Open a connection; in a thread of its own. `mark` tells whether it is still wanted then."""
        sock, reason = None, ""
        try:
            sock = connect(address)
        except Unavailable as error:
            reason = str(error)
        with self._lock:
            self._enter()
            now_ns = monotonic_ns()
            if self._connecting.get(link) is not mark:
                if sock is not None:
                    sock.close()
            elif sock is None:
                del self._connecting[link]
                self._core.disconnected(link, now_ns=now_ns, reason=reason)
                self._carry_out(now_ns, None)
            else:
                del self._connecting[link]
                # Nobody has asked anything on it yet: let the background thread watch it at once.
                wire = self._wires[link] = Wire(link, address, sock, now_ns - IDLE_NS)
                self._core.connected(link, now_ns=now_ns)
                self._carry_out(now_ns, None)
                self._watch(wire, wire.wanted_events(now_ns))
            self._torn = False

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
        """Let the background thread watch a connection for these events."""
        if self._watcher is not None:
            self._watcher.watch(wire, events)

    # ------------------------------------------------------------------ the background thread

    def _start(self) -> None:
        if self._thread is not None or self._closing:
            return
        self._watcher = Watcher()
        self._planned_ns = NEVER_NS
        self._thread = threading.Thread(
            target=self._run, args=(self._watcher,), name="lockring-client", daemon=True
        )
        self._thread.start()

    def _wake(self) -> None:
        if self._watcher is not None and self._sleeping_until_ns:
            self._sleeping_until_ns = 0
            self._watcher.wake()

    def _run(self, watcher: Watcher) -> None:
        while True:
            with self._lock:
                self._enter()
                timeout_s: float | None = None
                if self._watcher is watcher:
                    now_ns = monotonic_ns()
                    if now_ns - self._planned_ns > _STALL_NS:
                        # The process was stopped. What came meanwhile is to be read first, by whoever reads there.
                        self._catch_up(now_ns)
                        timeout_s = _STALL_S
                    else:
                        timeout_s = self._turn(now_ns)
                    if timeout_s is None:
                        for wire in list(self._wires.values()):
                            self._drop(wire)
                        self._watcher = None
                self._torn = False
            if timeout_s is None:
                watcher.close()
                return
            for wire, events in watcher.wait(timeout_s):
                self._serve(wire, events)

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
            self._enter()
            if not wire.closed:
                if mask & selectors.EVENT_WRITE and wire.outgoing:
                    wire.flush()
                if mask & selectors.EVENT_READ and wire.reader is None:
                    data = wire.receive_now()
                    now_ns = monotonic_ns()
                    if data is not None:
                        self._feed(wire, data, now_ns, None)
                        wire.used_at_ns = now_ns - IDLE_NS  # still idle, as far as callers are concerned
            self._torn = False

    # ------------------------------------------------------------------ fork

    def after_fork(self) -> None:
        """In the child of a fork, where no other thread lives: what was held is the parent's; start afresh.

        The parent's connections are closed here without a word on them, so that it does not notice.
        """
        losers = abandon_held(self._core, "forked")
        for wire in self._wires.values():
            wire.close()
        if self._watcher is not None:
            self._watcher.close()
        closing = self._closing
        self._begin()
        if closing:
            self._closing = True
            self._core.close(now_ns=monotonic_ns())
        for loser in losers:
            if not isinstance(loser, Call):
                loser._on_ticket_lost()


_engines: weakref.WeakSet[Plumbing] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
