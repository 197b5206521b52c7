"""Calls that wait: which of them reads which connection, and what becomes of one that another interrupts.

A call that finds its connection without a reader reads it, for all calls that wait there. The others wait, each at a
gate of its own, and a reader that leaves lets the next one in.

A signal's handler or a finalizer may call the client in a thread that waits already. Then that thread's calls form a
stack, and only the top one runs:

- If a call beneath reads a connection, the top one reads that connection for it, even if its own answer comes on
  another one: other calls wait for what comes there. It does not read a second connection, which would be left
  without a reader once the top call is done. When it leaves, the call beneath looks again.
- If the calls beneath only wait, the top one behaves like any other call. No reader lets those beneath in meanwhile;
  when the top one leaves, the next one beneath looks for itself.
- In the background thread, the top call goes on with that thread's work until the call is done.
- In a thread that opens a connection, a call is refused: it could wait for that very connection.
"""

from __future__ import annotations

import selectors
import threading
from typing import TYPE_CHECKING, Any

from lockring.client.blocking.connection import IDLE_NS, NAP_S, ClientConnection
from lockring.client.blocking.section import Section
from lockring.core.client import PENDING, Backlog, Query, Ticket
from lockring.errors import LockringError
from lockring.ids import LinkId

if TYPE_CHECKING:
    from lockring.client.blocking.background import Keeper
    from lockring.core.client import ClientCore


class Call:
    """One waiting call to the client.

    Attributes:
        done: whether it may go on: its ticket or request is decided, or (of a watch) there is news.
        error: the exception to raise, if any.
        answer: the value to return.
        item: its ticket or request, once it has one.
        backlog: of a watch, the updates that have come and that its caller has not taken yet.
        gate: the lock at which it waits while it does not read a socket itself; `gated` says whether it does so now.
        queued: the connection at which it waits to be let in.
        reading: the connection that its thread reads.
        is_over: whether it reads that for a call beneath it.
        keeps: whether it does the background thread's work until it is done.
        waits: whether it is on its thread's stack of calls.
        beneath: the call under it on that stack.
        thread: the number of its thread.
        core: the core to which its request was given.
    """

    # Defaults stand in the class, so that a new call costs little: most calls change two or three.
    done = gated = is_over = keeps = waits = False
    error: LockringError | None = None
    answer: Any = None
    core: ClientCore | None = None
    item: Ticket | Query | None = None
    backlog: Backlog | None = None
    gate: threading.Lock | None = None
    queued: ClientConnection | None = None
    reading: ClientConnection | None = None
    beneath: Call | None = None

    def __init__(self) -> None:
        self.thread = threading.get_ident()


class Calls(Section):
    """The calls of all threads, and the connections that they read. The module's docstring has the rules."""

    _wires: dict[int, ClientConnection]
    _callers: dict[int, Call]
    """The top call of each thread that has any."""
    _keeper: Keeper | None
    _sleeping_until_ns: int

    def _feed(self, wire: ClientConnection, now_ns: int, me: Call | None) -> None:
        raise NotImplementedError

    def _watch(self, wire: ClientConnection, events: int) -> None:
        raise NotImplementedError

    def _wake(self) -> None:
        raise NotImplementedError

    # ------------------------------------------------------------------ waiting

    def _wait(self, call: Call) -> None:
        """Wait until a call is done, reading a connection where there is one to read."""
        while call.waits:
            wire = call.reading
            if wire is None:
                if call.keeps and self._keeper is not None:
                    self._keeper.round()
                else:
                    assert call.gate is not None
                    nap_s = NAP_S if call.thread == threading.main_thread().ident else -1
                    while not call.gate.acquire(timeout=nap_s):
                        pass  # a handler that waits is called between two naps
            elif call.is_over:
                wire.receive_over(NAP_S)
            else:
                item = call.item
                is_acquire = type(item) is Ticket and item.state == PENDING
                wire.receive(wire.grant_spin if is_acquire else wire.reply_spin)
            self._inside(self._look, call)

    def _look(self, now_ns: int, call: Call) -> None:
        """Feed the core what has come for a call that woke up, and decide how the call goes on."""
        item = call.item
        assert item is not None
        wire = call.reading
        if wire is not None:
            if wire.taken and not wire.closed:
                self._feed(wire, now_ns, call)
            if not call.done and not wire.closed and (item.exchange.link == wire.link or call.is_over):
                return
            self._stop_reading(wire, call, now_ns)
        if call.done:
            if call.beneath is None and call.queued is None and not call.keeps:
                call.waits = False
                self._callers.pop(call.thread, None)
            else:
                self._leave(call, now_ns)
        else:
            self._take(item.exchange.link, call, now_ns)

    # ------------------------------------------------------------------ who reads

    def _take(self, link: LinkId, call: Call, now_ns: int) -> None:
        """Make a call the reader of its connection; if it cannot be, prepare its gate."""
        if not call.waits:
            call.waits = True
            call.beneath = self._callers.get(call.thread)
            self._callers[call.thread] = call
        keeper = self._keeper
        if call.beneath is not None or (keeper is not None and keeper.ident == call.thread):
            if self._take_over(call, now_ns):
                return
        wire = self._wires.get(link)
        if wire is not None and wire.reader is None and call.backlog is None:
            wire.reader, call.reading = call, wire
            if wire.events & selectors.EVENT_READ:
                self._watch(wire, wire.events & ~selectors.EVENT_READ)
                self._wake()  # the background thread looks after idle connections again
            return
        if call.gate is None:
            call.gate = threading.Lock()
            call.gate.acquire()
        call.gated = True
        if wire is not None and call.backlog is None:
            wire.waiting[call] = None
            call.queued = wire

    def _take_over(self, call: Call, now_ns: int) -> bool:
        """Let a call wait on top of what its thread does already; return False if it may wait like any other call."""
        if self._keeper is not None and self._keeper.ident == call.thread:
            call.keeps = True
            return True
        beneath = call.beneath
        while beneath is not None:
            if beneath.reading is not None and not beneath.reading.closed:
                call.reading, call.is_over = beneath.reading, True
                self._wake()  # the answer to this call may come on a connection without a reader
                return True
            beneath = beneath.beneath
        for wire in self._wires.values():
            if wire.reader is None and not self._let_next_in(wire, now_ns):
                # A call beneath may have been let in, and cannot run now: the background thread must read instead.
                self._wake()
        return False

    def _stop_reading(self, wire: ClientConnection, call: Call, now_ns: int) -> None:
        """Let a call stop reading, and let in the next call that waits for something on that connection."""
        call.reading = None
        if call.is_over:
            call.is_over = False
            wire.wake()
            return
        wire.reader = None
        if wire.closed:
            wire.close()
            waiting, wire.waiting = wire.waiting, {}
            for other in waiting:
                self._open_gate(other)
            return
        if wire.waiting and self._let_next_in(wire, now_ns):
            return
        if self._sleeping_until_ns > now_ns + 2 * IDLE_NS:
            self._wake()  # from now on, the background thread looks after this connection

    def _let_next_in(self, wire: ClientConnection, now_ns: int) -> bool:
        """Let in the first waiting call that is on top of its thread's stack; return whether there is one.

        For a connection without a reader.
        """
        while wire.waiting:
            other: Call = next(iter(wire.waiting))
            del wire.waiting[other]
            if not other.done and self._callers.get(other.thread) is other:
                self._open_gate(other)
                return True
        return False

    def _leave(self, call: Call, now_ns: int) -> None:
        """Take a call off its thread's stack, and let the call beneath look for itself again."""
        if not call.waits:
            return
        call.waits = False
        if call.queued is not None:
            call.queued.waiting.pop(call, None)
            call.queued = None
        if call.keeps and self._keeper is not None:
            self._keeper.wake()  # the round beneath planned its sleep before this call's rounds
        beneath, call.beneath = call.beneath, None
        if beneath is None:
            self._callers.pop(call.thread, None)
        else:
            self._callers[call.thread] = beneath
            self._open_gate(beneath)

    def _open_gate(self, call: Call) -> None:
        if call.gated:
            call.gated = False
            assert call.gate is not None
            call.gate.release()

    def _finish(self, call: Call, me: Call | None) -> None:
        """Let a call go on: mark it as done, and wake its thread unless that is this one."""
        call.done = True
        if call is me:
            return
        if call.reading is not None:
            call.reading.wake()
        elif call.keeps:
            if self._keeper is not None:
                self._keeper.wake()
        else:
            self._open_gate(call)
