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
from collections.abc import Callable
from typing import Any, Final

from lockring.client.blocking.background import Background
from lockring.client.blocking.connection import IDLE_NS, NAP_S, ClientConnection
from lockring.client.blocking.connections import Connections
from lockring.client.blocking.handlers import let_handlers_run
from lockring.client.blocking.section import Section
from lockring.core.client import PENDING, Backlog, ClientCore, Query, Ticket
from lockring.errors import LockringError
from lockring.ids import LinkId


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
    done: bool = False
    gated: bool = False
    is_over: bool = False
    keeps: bool = False
    waits: bool = False
    error: LockringError | None = None
    answer: Any = None
    core: ClientCore | None = None
    backlog: Backlog | None = None
    gate: threading.Lock | None = None
    queued: ClientConnection | None = None
    reading: ClientConnection | None = None
    beneath: Call | None = None

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.item: Ticket | Query | None = None

    def take_error(self) -> LockringError:
        """Return the error, to be raised, and forget it.

        Its traceback will have the frames of the program, and all in them. The core knows the call for some time yet,
        and would keep them in memory.
        """
        error, self.error = self.error, None
        assert error is not None, "there is an error to raise"
        return error

    def prepare_gate(self) -> None:
        """Have the call wait at its gate until that is opened."""
        if self.gate is None:
            self.gate = threading.Lock()
            self.gate.acquire()
        self.gated = True

    def open_gate(self) -> None:
        """Let the call look again, if it waits at its gate."""
        if self.gated:
            self.gated = False
            assert self.gate is not None
            self.gate.release()


_LOOK_S: Final = 0.05
"""How long a wait that reads for a call beneath it sleeps at a time, before it looks again."""

Feed = Callable[[ClientConnection, int, Call | None], None]
"""Feeds the core what has come on a connection: with the time, and the call of this thread, which needs no waking."""


class Calls:
    """The calls that wait in all threads, and the connections that they read. The module's docstring has the rules.

    All methods but `wait` and `serve_beneath` are called in sections.
    """

    __slots__ = ("_background", "_connections", "_section", "_tops")

    def __init__(self, section: Section, background: Background, connections: Connections) -> None:
        self._section = section
        self._connections = connections
        self._background = background
        self._tops: dict[int, Call] = {}
        """The top call of each thread that has any."""

    def wait(self, call: Call, feed: Feed) -> None:
        """Wait, outside sections, until a call is done, reading a connection where there is one to read."""
        while call.waits:
            wire = call.reading
            if wire is None:
                keeper = self._background.keeper
                if call.keeps and keeper is not None:
                    keeper.round()
                else:
                    assert call.gate is not None
                    nap_s = NAP_S if call.thread == threading.main_thread().ident else -1
                    while not call.gate.acquire(timeout=nap_s):
                        let_handlers_run()  # those of signals that have not interrupted the nap
            elif call.is_over:
                wire.receive_over(NAP_S)
            else:
                item = call.item
                is_acquire = type(item) is Ticket and item.state == PENDING
                wire.receive(wire.grant_spin if is_acquire else wire.reply_spin)
            self._section.inside(self._look, call, feed)

    def _look(self, now_ns: int, call: Call, feed: Feed) -> None:
        """Feed the core what has come for a call that woke up, and decide how the call goes on."""
        item = call.item
        assert item is not None
        wire = call.reading
        if wire is not None:
            if wire.taken and not wire.closed:
                feed(wire, now_ns, call)
            if not call.done and not wire.closed and (item.exchange.link == wire.link or call.is_over):
                return
            self.stop_reading(wire, call, now_ns)
        if call.done:
            if call.beneath is None and call.queued is None and not call.keeps:
                call.waits = False  # as `leave` does it, for most calls
                self._tops.pop(call.thread, None)
            else:
                self.leave(call)
        else:
            self.take(item.exchange.link, call)

    def serve_beneath(self, feed: Feed) -> bool:
        """Do, outside sections, what the calls of this thread would do for others meanwhile; for a moment.

        For a wait that is not a call. Returns False if this thread is neither in a call that reads nor the background
        thread, so that it may sleep.
        """
        me = threading.get_ident()
        keeper = self._background.keeper
        if keeper is not None and keeper.ident == me:
            keeper.round()
            return True
        # Outside a section: an interrupt in one costs all that is held, and only this thread changes its own calls.
        call = self._tops.get(me)
        while call is not None:
            wire = call.reading
            if wire is not None and not wire.closed:
                wire.receive_over(_LOOK_S)
                self._section.inside(self._feed_over, wire, feed)
                return True
            call = call.beneath
        return False

    def _feed_over(self, now_ns: int, wire: ClientConnection, feed: Feed) -> None:
        if wire.taken and not wire.closed:
            feed(wire, now_ns, None)

    def take(self, link: LinkId, call: Call) -> None:
        """Make a call the reader of its connection; if it cannot be, prepare its gate."""
        if not call.waits:
            call.waits = True
            call.beneath = self._tops.get(call.thread)
            self._tops[call.thread] = call
        background = self._background
        keeper = background.keeper
        if call.beneath is not None or (keeper is not None and keeper.ident == call.thread):
            if self._take_over(call):
                return
        wire = self._connections.wires.get(link)
        if wire is not None and wire.reader is None and call.backlog is None:
            wire.reader, call.reading = call, wire
            if wire.events & selectors.EVENT_READ:
                background.watch(wire, wire.events & ~selectors.EVENT_READ)
                background.wake()  # it looks after idle connections again
            return
        call.prepare_gate()
        if wire is not None and call.backlog is None:
            wire.waiting[call] = None
            call.queued = wire

    def _take_over(self, call: Call) -> bool:
        """Let a call wait on top of what its thread does already; return False if it may wait like any other call."""
        background = self._background
        if background.keeper is not None and background.keeper.ident == call.thread:
            call.keeps = True
            return True
        beneath = call.beneath
        while beneath is not None:
            if beneath.reading is not None and not beneath.reading.closed:
                call.reading, call.is_over = beneath.reading, True
                background.wake()  # the answer to this call may come on a connection without a reader
                return True
            beneath = beneath.beneath
        for wire in self._connections.wires.values():
            if wire.reader is None and not self._let_next_in(wire):
                # A call beneath may have been let in, and cannot run now: the background thread must read instead.
                background.wake()
        return False

    def stop_reading(self, wire: ClientConnection, call: Call, now_ns: int) -> None:
        """Let a call stop reading, and let in the next call that waits for something on that connection."""
        call.reading = None
        if call.is_over:
            call.is_over = False
            wire.wake()
            return
        wire.reader = None
        if wire.closed:
            wire.close()
            wire.let_all_in()
            return
        if wire.waiting and self._let_next_in(wire):
            return
        if self._background.sleeping_until_ns > now_ns + 2 * IDLE_NS:
            self._background.wake()  # from now on, it looks after this connection

    def _let_next_in(self, wire: ClientConnection) -> bool:
        """Let in the first waiting call that is on top of its thread's stack; return whether there is one.

        For a connection without a reader.
        """
        while wire.waiting:
            other: Call = next(iter(wire.waiting))
            del wire.waiting[other]
            if not other.done and self._tops.get(other.thread) is other:
                other.open_gate()
                return True
        return False

    def leave(self, call: Call) -> None:
        """Take a call off its thread's stack, and let the call beneath look for itself again."""
        if not call.waits:
            return
        call.waits = False
        if call.queued is not None:
            call.queued.waiting.pop(call, None)
            call.queued = None
        keeper = self._background.keeper
        if call.keeps and keeper is not None:
            keeper.wake()  # the round beneath planned its sleep before this call's rounds
        beneath, call.beneath = call.beneath, None
        if beneath is None:
            self._tops.pop(call.thread, None)
        else:
            self._tops[call.thread] = beneath
            beneath.open_gate()

    def finish(self, call: Call, me: Call | None) -> None:
        """Let a call go on: mark it as done, and wake its thread unless that is this one."""
        call.done = True
        if call is me:
            return
        if call.reading is not None:
            call.reading.wake()
        elif call.keeps:
            self._background.rouse()
        else:
            call.open_gate()

    def forget_all(self) -> list[Call]:
        """Take all calls off their stacks, and return the top ones; those beneath hang from them."""
        tops, self._tops = self._tops, {}
        return list(tops.values())
