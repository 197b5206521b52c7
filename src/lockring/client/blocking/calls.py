"""Calls that wait: which of them reads which connection, and what becomes of one that another interrupts.

A call that finds its connection unread reads it, for all that wait there; the others wait at a gate of their own, and the one
that leaves lets the next one in.

A signal's handler or a finalizer may call the client in a thread that waits already. Then that thread's calls lie on top of
each other, and only the top one runs:

- If one beneath reads a connection, the top one reads that connection for it, whatever its own answer comes on: others wait
  for what comes there. It takes no second one: nobody would read that once it is done. When it leaves, the one beneath looks again.
- If those beneath only wait, the top one does as any other call. Nobody lets those beneath in meanwhile; when it
  leaves, the next one beneath looks for itself.
- In the background thread, the top one goes on with that thread's work until it is done.
- In a thread that opens a connection it is refused: it could wait for that very connection.
"""

from __future__ import annotations

import selectors
import threading
from typing import TYPE_CHECKING, Any

from lockring.client.blocking.connection import IDLE_NS, NAP_S, ClientConnection
from lockring.client.blocking.section import Section
from lockring.core.client import PENDING, Backlog, Query, Ticket
from lockring.errors import LockringError

if TYPE_CHECKING:
    from lockring.client.blocking.background import Keeper
    from lockring.core.client import ClientCore


class Call:
    """One caller that waits.

    Attributes:
        done: whether it may go on: its ticket or request is decided, or (of a watch) there is news.
        error: what to raise, if anything.
        answer: what to return.
        item: its ticket or request, once it has one.
        backlog: of a watch, what it has seen and its caller has not.
        gate: what it waits at while it does not read a socket itself; `gated` says whether it does.
        queued: the connection at which it waits to be let in.
        reading: the connection that its thread reads.
        is_over: whether it reads that for a call beneath it.
        keeps: whether it does the background thread's work until it is done.
        waits: whether it is one of its thread's calls, beneath it `beneath`.
        thread: which thread that is.
        core: the core that its request was given to.
    """

    # Defaults of the class, and not of each call: most calls change two or three.
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
    """The calls of all threads, and the connections that they read; see the module for the rules."""

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
        """A call has been woken, or something has come: feed it, and see how to go on."""
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

    def _take(self, link: int, call: Call, now_ns: int) -> None:
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
        """Let a call wait on top of what its thread does already; False if it may wait as any other."""
        if self._keeper is not None and self._keeper.ident == call.thread:
            call.keeps = True
            return True
        beneath = call.beneath
        while beneath is not None:
            if beneath.reading is not None and not beneath.reading.closed:
                call.reading, call.is_over = beneath.reading, True
                self._wake()  # what this call waits for may come on a connection that nobody reads
                return True
            beneath = beneath.beneath
        for wire in self._wires.values():
            if wire.reader is None and not self._let_next_in(wire, now_ns):
                self._wake()  # one beneath may have been let in, and does not run: somebody has to read for it
        return False

    def _stop_reading(self, wire: ClientConnection, call: Call, now_ns: int) -> None:
        """A call stops reading: let the next one in that waits for something on that connection."""
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
            self._wake()  # somebody has to look after this connection from now on

    def _let_next_in(self, wire: ClientConnection, now_ns: int) -> bool:
        """Let one go on that waits for a connection without a reader, if there is one that runs."""
        while wire.waiting:
            other: Call = next(iter(wire.waiting))
            del wire.waiting[other]
            if not other.done and self._callers.get(other.thread) is other:
                self._open_gate(other)
                return True
        return False

    def _leave(self, call: Call, now_ns: int) -> None:
        """A call is over for its thread: the one beneath it looks for itself again."""
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
        """A call may go on: wake its thread, unless that is ours."""
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
