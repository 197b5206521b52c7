"""One TCP connection of the blocking client."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lockring.addresses import split_address
from lockring.client.blocking.spinning import SHARED_NS, SpinBudget
from lockring.client.tls import failure_of, layer_to
from lockring.clock import monotonic_ns
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.ids import LinkId
from lockring.net.frames import FrameReader
from lockring.net.sockets import open_connection, tune
from lockring.protocol import Message, ToClient
from lockring.security.tls_errors import TlsError
from lockring.system_errors import connect_failure
from lockring.units import NS_PER_MS

if TYPE_CHECKING:
    from lockring.security.tls_layer import TlsLayer
    from lockring.security.tls_policy import ClientTls

AnyCall = Any
"""A `Call`. Connections only store calls, and `calls` imports this module."""

CONNECT_S: Final = 3.0
"""How long one address may take to accept a connection."""
IDLE_NS: Final = 10 * NS_PER_MS
"""The background thread watches a connection that no caller has used for this long."""
NAP_S: Final = 0.5
"""How long a thread sleeps at a time. A signal that arrives just before the main thread falls asleep does not wake it,
and the signal's handler would not be called until something else wakes the thread."""
_SIZES: Final = (64 * 1024,)
"""The most bytes of one read. Where the system's allocator maps larger pieces apart, as with 128 KiB, each would cost
system calls."""

_yield: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: None)  # not every system has it
decoder: Final[msgspec.msgpack.Decoder[Any]] = msgspec.msgpack.Decoder(ToClient)


class ClientConnection:
    """A connected, non-blocking socket, its frames, and its present reader.

    All fields but the socket itself are guarded by the client's section. `receive` is called outside of it: by the one
    reader, and by calls that interrupt the reader in its own thread.

    Attributes:
        link: the core's number for it.
        address: HOST:PORT of the server.
        reader: the call whose thread reads it, None if the background thread may.
        waiting: calls whose answers come on this connection while another call reads it, in order of arrival.
        events: the events for which the background thread's selector watches it.
        outgoing: bytes that the socket did not take yet.
        used_at_ns: when a caller last used it.
        closed: whether it is over. Its reader then stops reading and closes the socket.
        greeted: whether a valid message has come from the other side.
        taken: the bytes that have left the socket and were not fed yet, in a list that is empty if there are none. No
            bytes are the end of the stream.
        grant_spin: how soon grants have come lately.
        reply_spin: how soon all other answers have come lately.
        tls: the TLS of the connection, None without. Only sections use it: `taken` and `outgoing` have bytes as they
            cross the network.
    """

    __slots__ = (
        "_poll",
        "_receive",
        "_wake_in",
        "_wake_out",
        "address",
        "closed",
        "events",
        "frames",
        "grant_spin",
        "greeted",
        "link",
        "outgoing",
        "reader",
        "reply_spin",
        "sock",
        "taken",
        "tls",
        "used_at_ns",
        "waiting",
    )

    def __init__(
        self, link: LinkId, address: str, sock: socket.socket, now_ns: int, *, tls: TlsLayer | None = None
    ) -> None:
        self.link = link
        self.address = address
        self.sock = sock
        self.tls = tls
        self.reader: AnyCall | None = None
        self.waiting: dict[AnyCall, None] = {}
        self.events = 0
        self.outgoing = b""
        self.used_at_ns = now_ns
        self.closed = False
        self.greeted = False
        self.frames: FrameReader[Message] = FrameReader(decoder)
        self.taken: list[bytes] = []
        self._receive = sock.recv
        self.grant_spin, self.reply_spin = SpinBudget(), SpinBudget()
        self._wake_out, self._wake_in = _pipe()
        self._poll = self._new_poll()

    def receive(self, budget: SpinBudget) -> None:
        """Wait until bytes have come and take them, or until woken up.

        Args:
            budget: says whether to spin before going to sleep.
        """
        looks = budget.spend()
        began_ns = monotonic_ns()
        if not looks or not self._spin(budget, looks, began_ns):
            self._sleep(self._poll, NAP_S)
        if budget.is_trial:
            budget.took(monotonic_ns() - began_ns)

    def _spin(self, budget: SpinBudget, looks: int, began_ns: int) -> bool:
        """Look for bytes a few times; return whether there are any to feed."""
        before_ns, last_ns = began_ns, 0
        while looks and last_ns <= SHARED_NS:
            looks -= 1
            _yield()
            if self.receive_now():
                budget.was_short()
                return True
            now_ns = monotonic_ns()
            before_ns, last_ns = now_ns, now_ns - before_ns
        budget.was_long(last_ns)
        return False

    def receive_over(self, timeout_s: float) -> None:
        """Receive for a call that runs on top of the reader, in the same thread: like `receive`, without spinning."""
        if not self.receive_now():
            # The reader beneath may be using its poll object, which cannot be used twice at a time.
            self._sleep(self._new_poll(), timeout_s)

    def _sleep(self, poll: select.poll, timeout_s: float) -> None:
        for number, _ in poll.poll(timeout_s * 1000):
            if number != self._wake_out:
                self.receive_now()
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_out, 512)

    def receive_now(self) -> bool:
        """Take what has come, without waiting, if all earlier bytes were fed; return whether there are any to feed."""
        step = map(self._receive, _SIZES)
        if not self.taken:
            try:
                # One step for the interpreter: a handler or a finalizer that reads here runs before or after it, so
                # all bytes are either still in the socket or already in `taken`.
                self.taken.extend(step)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self.taken.append(b"")
        return bool(self.taken)

    def _new_poll(self) -> select.poll:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        return poll

    def wake(self) -> None:
        """Make `receive` return in the reader's thread."""
        if self._wake_in >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_in, b"\0")

    def send(self, data: bytes, *, is_sealed: bool = False) -> None:
        """Send bytes, and keep those that the socket does not take now. A broken connection shows at the next read."""
        if self.tls is not None and not is_sealed:
            data = self._seal(self.tls, data)
        if self.outgoing:
            self.outgoing += data
            return
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            return
        if sent < len(data):
            self.outgoing = data[sent:]

    def flush(self) -> None:
        """Send the bytes that were kept."""
        kept, self.outgoing = self.outgoing, b""
        self.send(kept, is_sealed=True)

    def _seal(self, tls: TlsLayer, data: bytes) -> bytes:
        try:
            return tls.seal(data)
        except TlsError:
            return tls.take_output()  # the next read reports it

    def unseal(self, tls: TlsLayer, data: bytes) -> bytes:
        """Return the plain bytes in those that have come: b"" if no record of TLS is complete, or the other side ends.

        Raises:
            TlsError: they are not TLS, or the server refuses the client.
        """
        plain = tls.receive(data)
        if tls.has_output:
            self.send(tls.take_output(), is_sealed=True)
        return plain

    def close(self) -> None:
        """Close the socket and its pipe. If the socket is shared with another process, the connection stays open."""
        self.closed = True
        if self._wake_in >= 0:
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = self._wake_out = -1
        self.sock.close()

    def hang_up(self) -> None:
        """End the connection so that a thread that reads it wakes up."""
        self.closed = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def let_all_in(self) -> None:
        """Have the calls that wait for its reader to leave look again: this connection has ended."""
        waiting, self.waiting = self.waiting, {}
        for call in waiting:
            call.open_gate()

    def wanted_events(self, now_ns: int) -> int:
        """Return the events for which the selector should watch it."""
        events = selectors.EVENT_WRITE if self.outgoing else 0
        if self.reader is None and now_ns - self.used_at_ns >= IDLE_NS:
            events |= selectors.EVENT_READ
        return events


class Watcher:
    """A selector that can be woken by other threads, for one background thread.

    Attributes:
        selector: the selector itself.
        stale: whether it is unknown what the selector watches. Then nothing may be changed until `renew`.
    """

    __slots__ = ("_closed", "_wake_in", "_wake_out", "selector", "stale")

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        try:
            self._wake_out, self._wake_in = _pipe()
        except OSError:
            self.selector.close()
            raise
        self.selector.register(self._wake_out, selectors.EVENT_READ, None)
        self.stale = False
        self._closed = False

    def renew(self) -> None:
        """Replace the selector by one that watches no connection. Only the thread that waits here may call this."""
        self.selector.close()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._wake_out, selectors.EVENT_READ, None)
        self.stale = False

    def wait(self, timeout_s: float) -> list[tuple[ClientConnection, int]]:
        """Return the connections that are ready, with their events; none if only woken, or after the timeout."""
        found: list[tuple[ClientConnection, int]] = []
        for key, events in self.selector.select(timeout_s):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_out, 4096)
            else:
                found.append((key.data, events))
        return found

    def watch(self, wire: ClientConnection, events: int) -> None:
        """Watch a connection for these events from now on."""
        if events == wire.events or self.stale:
            return
        if not events:
            self.selector.unregister(wire.sock)
        elif not wire.events:
            self.selector.register(wire.sock, events, wire)
        else:
            self.selector.modify(wire.sock, events, wire)
        wire.events = events

    def wake(self) -> None:
        """Make `wait` return."""
        if not self._closed:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_in, b"\0")

    def close(self) -> None:
        """Close its descriptors."""
        if self._closed:
            return
        self._closed = True
        self.selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)


def _pipe() -> tuple[int, int]:
    """Return the ends of a non-blocking pipe: where to read, and where to write."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    os.set_blocking(into, False)
    return out, into


def connect(address: str, tls: ClientTls | None = None) -> tuple[socket.socket, TlsLayer | None]:
    """Open a connection; blocks, so call it from a thread that may wait.

    Args:
        address: HOST:PORT of the server.
        tls: the client's TLS, None for none.

    Returns:
        The socket, and its TLS after the handshake.

    Raises:
        Unavailable: the connection could not be opened.
        ProtocolError: the server does not speak TLS.
        Unauthenticated: the server does not accept the client's certificate.
    """
    try:
        sock = open_connection(address, CONNECT_S)
    except OSError as error:
        raise Unavailable(connect_failure(error, CONNECT_S)) from error
    try:
        layer = None if tls is None else _secured(sock, address, tls)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    tune(sock)
    return sock, layer


def _secured(sock: socket.socket, address: str, tls: ClientTls) -> TlsLayer:
    from lockring.security.tls_socket import shake_hands  # clients without TLS need not load it

    layer = layer_to(tls, split_address(address)[0])
    try:
        shake_hands(sock, layer, timeout_s=CONNECT_S)
    except TlsError as error:
        raise failure_of(error) from error
    except OSError as error:
        raise Unavailable(connect_failure(error, CONNECT_S)) from error
    return layer


def why_it_ended(error: Exception | None, *, greeted: bool) -> tuple[str, LockringError | None]:
    """Return why a connection has ended, in both clients: a short text for people, and the error of the other side if
    that does not get better by itself, else None.

    Args:
        error: what the connection ended with, None for none.
        greeted: whether the server had answered on it. Then it is one of lockring's that lets this client in, whatever
            has come since, and the client dials again.
    """
    if greeted:
        return "the connection was lost", None
    # A server that does not accept the client's certificate says so after the client's part of the handshake.
    wrong = failure_of(error) if isinstance(error, TlsError) else None
    return "closed the connection without a greeting", wrong


def not_understood(address: str, error: ProtocolError, greeted: bool) -> ProtocolError:
    """Return the error for bytes from an address that could not be decoded."""
    if greeted:
        return error
    return ProtocolError(f"{address} is not a lockring server: {error}")
