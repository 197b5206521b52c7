"""The core of a blocking client and its sockets: what comes is fed to the core, and what the core wants is done.

Everything here happens in sections. If the system refuses a thread or a descriptor, that is an error of the call that
needs it, or of the connection; it never leaves a section half done.
"""

from __future__ import annotations

import contextlib
import functools
import selectors
from collections.abc import Callable

from lockring.client.blocking.background import Background
from lockring.client.blocking.calls import Call, Calls
from lockring.client.blocking.connection import ClientConnection, not_understood, why_it_ended
from lockring.client.blocking.connections import Connections
from lockring.client.blocking.section import Section
from lockring.client.client_log import client_log
from lockring.client.grant_state import abandon_held, farewell_of, listener_of, tell_lost, what_happened
from lockring.client.logs import LoggedCore
from lockring.core.client import (
    CallResult,
    ClientCore,
    Connect,
    Disconnect,
    GrantLost,
    GroupChange,
    LongWait,
    Resolve,
    SendTo,
    Ticket,
    Update,
)
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.ids import LinkId
from lockring.net.frames import encode_frame
from lockring.security.tls_errors import TlsError


class CoreHost:
    """Runs one client core over sockets, and begins with a new core after an interrupt.

    Args:
        new_core: returns a core that knows nothing yet.

    Attributes:
        core: the present core.
        watches: the calls that watch locks, to which the core may have something to report at any time.
        is_closing: whether the client is closed or being closed.
    """

    __slots__ = (
        "_background",
        "_calls",
        "_connections",
        "_new_core",
        "_section",
        "core",
        "is_closing",
        "watches",
    )

    def __init__(
        self,
        new_core: Callable[[], ClientCore],
        section: Section,
        *,
        background: Background,
        connections: Connections,
        calls: Calls,
    ) -> None:
        self._new_core = new_core
        self._section = section
        self._background = background
        self._connections = connections
        self._calls = calls
        self.core = new_core()
        self.watches: dict[Call, None] = {}
        self.is_closing = False

    # ------------------------------------------------------------------ between core and sockets

    def feed(self, wire: ClientConnection, now_ns: int, me: Call | None) -> None:
        """Feed the core the bytes that came on a connection. `me` is as for `carry_out`."""
        data = wire.taken.pop()
        wire.used_at_ns = now_ns
        core = self.core
        link = wire.link
        if data and wire.tls is not None:
            try:
                data = wire.unseal(wire.tls, data)
            except TlsError as error:
                self._lose(wire, now_ns, error)
                self.carry_out(now_ns, me)
                return
            if not data and not wire.tls.is_ended:
                return  # the rest of a record has not come yet
        if not data:
            self._lose(wire, now_ns, None)
        else:
            try:
                messages = wire.frames.feed(data)
            except ProtocolError as error:
                self._connections.drop(wire)
                wrong = not_understood(wire.address, error, wire.greeted)
                core.disconnected(link, now_ns=now_ns, error=wrong)
            else:
                for message in messages:
                    core.receive(link, message, now_ns=now_ns)
                if messages:
                    wire.greeted = True
        self.carry_out(now_ns, me)

    def _lose(self, wire: ClientConnection, now_ns: int, error: TlsError | None) -> None:
        self._connections.drop(wire)
        reason, wrong = why_it_ended(error, greeted=wire.greeted)
        self.core.disconnected(wire.link, now_ns=now_ns, reason=reason, error=wrong)

    def carry_out(self, now_ns: int, me: Call | None) -> None:
        """Carry out the core's effects. `me` is the call of this thread, which needs no waking."""
        core = self.core
        effects = core.take_effects(now_ns=now_ns)
        left = len(effects)
        ahead: list[bytes] = []
        for effect in effects:
            left -= 1
            if type(effect) is SendTo:
                data = encode_frame(effect.message)
                if left:
                    after = effects[-left]
                    if type(after) is SendTo and after.link == effect.link:
                        ahead.append(data)  # what follows leaves in the same write
                        continue
                if ahead:
                    data, ahead = b"".join([*ahead, data]), []
                wire = self._connections.wires.get(effect.link)
                if wire is not None:
                    if me is not None:
                        wire.used_at_ns = now_ns
                    wire.send(data)
                    if wire.outgoing:
                        self._background.watch(wire, wire.events | selectors.EVENT_WRITE)
            elif type(effect) is Resolve:
                call: Call = effect.ticket.exchange.call
                call.error = effect.error
                self._calls.finish(call, me)
            else:
                self._carry_out_rare(effect, me)
        due_ns = core.next_deadline_ns()
        if due_ns is not None and due_ns < self._background.sleeping_until_ns:
            self._background.wake()

    def _carry_out_rare(self, effect: object, me: Call | None) -> None:
        match effect:
            case GrantLost(ticket):
                tell_lost(ticket.holder)
            case LongWait():
                if isinstance(self.core, LoggedCore):
                    self.core.log_long_wait(effect)
            case CallResult(request, answer, error):
                call: Call = request.exchange.call
                call.answer, call.error = answer, error
                self._calls.finish(call, me)
                self.watches.pop(call, None)
            case Update(request):
                call = request.exchange.call
                assert call.backlog is not None
                call.backlog.add(effect)
                self._calls.finish(call, me)
            case GroupChange(request, gained, lost, awaited):
                member = listener_of(request.member)
                if member is not None:
                    member._on_regrouped(gained, lost, awaited)
            case Connect(link, address):
                self._connections.open(link, address, self._opened)
            case Disconnect(link, _):
                self._connections.hang_up(link)

    def _opened(
        self, now_ns: int, link: LinkId, wire: ClientConnection | None, failure: LockringError | None
    ) -> None:
        if wire is None:
            self.core.disconnected(link, now_ns=now_ns, error=failure)
        else:
            self.core.connected(link, now_ns=now_ns)
        self.carry_out(now_ns, None)

    # ------------------------------------------------------------------ what callers want at once, without waiting

    def expire(self, now_ns: int) -> None:
        """Let the core do what is due."""
        self.core.on_timer(now_ns=now_ns)
        self.carry_out(now_ns, None)

    def knows(self, ticket: Ticket) -> bool:
        """Return whether a ticket belongs to the present core, and not to one that was given up."""
        return any(session is ticket.session for session in self.core.sessions())

    def let_go(self, now_ns: int, ticket: Ticket) -> None:
        """Release a ticket, whatever its state, without waiting for the answer."""
        if self.knows(ticket):
            self.core.cancel(ticket, now_ns=now_ns)
            self.carry_out(now_ns, None)

    def give_up(self, now_ns: int, call: Call) -> None:
        """Leave nothing behind of a call whose caller gave up or was interrupted."""
        self.watches.pop(call, None)
        reading = call.reading
        if reading is not None:
            if reading.taken and not reading.closed:
                self.feed(reading, now_ns, call)
            self._calls.stop_reading(reading, call, now_ns)
        self._calls.leave(call)
        item = call.item
        if isinstance(item, Ticket):
            self.let_go(now_ns, item)
        elif item is not None and call.core is self.core:
            self.core.abandon(item, now_ns=now_ns)
            self.carry_out(now_ns, None)

    def close(self, now_ns: int) -> None:
        """Begin to end the sessions."""
        self.is_closing = True
        self.core.close(now_ns=now_ns)
        self.carry_out(now_ns, None)
        self._background.wake()

    # ------------------------------------------------------------------ sections that ended in their middle

    def start_over(self, now_ns: int, cause: BaseException) -> None:
        """Give everything up and go on with a new core: what is held is lost, and waiting calls raise the reason.

        A signal's handler may raise between any two lines that the main thread runs (Ctrl-C does), and any line may run
        out of memory. So nothing of the former state is relied on.
        """
        old, self.core = self.core, self._new_core()
        if self.is_closing:
            self.core.close(now_ns=now_ns)
        farewell = farewell_of(old)
        wires, tops = self._connections.forget_all(), self._calls.forget_all()
        watches, self.watches = self.watches, {}
        self._background.distrust_watcher()
        losers = abandon_held(old, "session-ended")
        for wire in wires:
            with contextlib.suppress(OSError):  # the program may have closed descriptors that are not its own
                wire.send(farewell)
                wire.hang_up()
                wire.wake()
                if wire.reader is None:
                    wire.close()
        what = what_happened(cause)
        for top in (*tops, *watches):
            call: Call | None = top
            while call is not None:
                if not call.done or call.backlog is not None:
                    call.error = Unavailable(f"{what}, so the client had to start over: what it held is lost")
                    call.error.__cause__ = cause
                with contextlib.suppress(RuntimeError, OSError):  # its gate may be open already
                    self._calls.finish(call, None)
                call = call.beneath
        for loser in losers:
            tell_lost(loser)
        self._section.do_after(functools.partial(_log_restart, what, cause))


def _log_restart(what: str, cause: BaseException) -> None:
    log = client_log()
    if log is not None:
        log.error("%s, so the client had to start over: what it held is lost", what, exc_info=cause)
