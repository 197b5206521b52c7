"""One TCP connection of the blocking client."""

from __future__ import annotations

import contextlib
import os
import select
import selectors
import socket
import threading
from typing import Any, Final

import msgspec

from lockring.addresses import split_address
from lockring.client.blocking.spinning import SpinBudget
from lockring.errors import ProtocolError, Unavailable
from lockring.net.frames import FrameReader
from lockring.net.sockets import tune
from lockring.protocol import Message, ToClient
from lockring.system_errors import connect_failure
from lockring.units import NS_PER_MS

AnyCall = Any
"""A `Call`. Connections only store calls, and `calls` imports this module."""

CONNECT_S: Final = 3.0
"""How long one address may take to answer a connection."""
IDLE_NS: Final = 10 * NS_PER_MS
"""After so long without use by a caller, the background thread watches a connection."""
NAP_S: Final = 0.5
"""How long the main thread sleeps at a time. A signal that comes in the moment before it falls asleep does not wake it, and its
handler would not be called until something else does."""
READ_BYTES: Final = 256 * 1024

decoder: Final = msgspec.msgpack.Decoder(ToClient)


class ClientConnection:
    """A connected, non-blocking socket, its frames, and who reads it at present.

    All fields but the socket itself are guarded by the engine's lock; `receive` is called by the one reader, without it,
    and by what interrupts that reader in its own thread.

    Attributes:
        link: the core's number for it.
        address: where it leads.
        reader: the call whose thread reads it, None if the background thread may.
        waiting: calls whose answer is to come here while another reads, first come first.
        events: what the background thread's selector watches it for.
        outgoing: what the socket did not take yet.
        used_at_ns: when a caller last used it.
        closed: whether it is over; whoever reads it lets go, and the last one closes the socket.
        greeted: whether the other side has said anything that makes sense.
        taken: how many bytes have left the socket and were not fed yet: one number, or none. They are at the start of `view`;
            none is the end of the stream.
        grant_spin, reply_spin: how soon grants have come lately, and all other answers.
    """

    __slots__ = (
        "_buffers",
        "_poll",
        "_receive_into",
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
        "used_at_ns",
        "view",
        "waiting",
    )

    def __init__(self, link: int, address: str, sock: socket.socket, now_ns: int) -> None:
        self.link = link
        self.address = address
        self.sock = sock
        self.reader: AnyCall | None = None
        self.waiting: dict[AnyCall, None] = {}
        self.events = 0
        self.outgoing = b""
        self.used_at_ns = now_ns
        self.closed = False
        self.greeted = False
        self.frames: FrameReader[Message] = FrameReader(decoder)
        self.taken: list[int] = []
        self.view = memoryview(bytearray(READ_BYTES))
        self._buffers = (self.view,)
        self._receive_into = sock.recv_into
        self.grant_spin, self.reply_spin = SpinBudget(), SpinBudget()
        self._wake_out, self._wake_in = _pipe()
        self._poll = self._new_poll()

    def receive(self, budget: SpinBudget) -> None:
        """Wait until something has come and take it, or until woken up.

        Args:
            budget: how often to look before going to sleep.
        """
        if budget.look_for(self.receive_now):
            return
        is_main = threading.get_ident() == threading.main_thread().ident
        self._sleep(self._poll, NAP_S if is_main else None)

    def receive_over(self, timeout_s: float | None) -> None:
        """Like `receive`, for a call that runs on top of the reader, in the same thread: at once or asleep."""
        if not self.receive_now():
            self._sleep(
                self._new_poll(), timeout_s
            )  # the poll object below may be in use, and does not bear a second

    def _sleep(self, poll: select.poll, timeout_s: float | None) -> None:
        ready = poll.poll(None if timeout_s is None else timeout_s * 1000)
        if len(ready) > 1 or (ready and ready[0][0] == self._wake_out):
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_out, 512)
        elif ready:
            self.receive_now()

    def receive_now(self) -> bool:
        """Take what has come, without waiting, if what came before was fed; whether there is something to feed."""
        step = map(self._receive_into, self._buffers)
        if not self.taken:
            try:
                # One step for the interpreter: a handler or a finalizer that reads on comes before or after it, and
                # finds all that has left the socket either there or here.
                self.taken.extend(step)
            except (BlockingIOError, InterruptedError):
                return False
            except OSError:
                self.taken.append(0)
        return bool(self.taken)

    def _new_poll(self) -> select.poll:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(self._wake_out, select.POLLIN)
        return poll

    def wake(self) -> None:
        """Make `receive` return in the thread that is in it."""
        if self._wake_in >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_in, b"\0")

    def send(self, data: bytes) -> None:
        """Send, or keep what the socket does not take now. A broken connection shows at the next read."""
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
        """Send what was kept."""
        kept, self.outgoing = self.outgoing, b""
        self.send(kept)

    def close(self) -> None:
        """Close the socket, and what belongs to it. Leaves the peer's side of a forked socket alone."""
        self.closed = True
        if self._wake_in >= 0:
            os.close(self._wake_in)
            os.close(self._wake_out)
            self._wake_in = self._wake_out = -1
        self.sock.close()

    def hang_up(self) -> None:
        """End the connection so that a thread that reads it comes back."""
        self.closed = True
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def wanted_events(self, now_ns: int) -> int:
        """What the selector should watch it for."""
        events = selectors.EVENT_WRITE if self.outgoing else 0
        if self.reader is None and now_ns - self.used_at_ns >= IDLE_NS:
            events |= selectors.EVENT_READ
        return events


class Watcher:
    """A selector that can be woken by other threads, for one background thread.

    Attributes:
        selector: what it waits with.
        stale: whether it is not known any more what that watches, so that nothing is to be changed until `renew`.
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
        """Watch nothing, with a selector of which everything is known; for the thread that waits here."""
        self.selector.close()
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._wake_out, selectors.EVENT_READ, None)
        self.stale = False

    def wait(self, timeout_s: float) -> list[tuple[ClientConnection, int]]:
        """The connections that something has happened to; nothing if only woken, or when the time is over."""
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
        """Give its descriptors back."""
        if self._closed:
            return
        self._closed = True
        self.selector.close()
        os.close(self._wake_in)
        os.close(self._wake_out)


def _pipe() -> tuple[int, int]:
    """A pipe of which neither end blocks: where to read, and where to write."""
    out, into = os.pipe()
    os.set_blocking(out, False)
    os.set_blocking(into, False)
    return out, into


def connect(address: str) -> socket.socket:
    """Open a connection; blocks, so call it from a thread that may wait.

    Raises:
        Unavailable: nobody answers there.
    """
    try:
        sock = socket.create_connection(split_address(address), timeout=CONNECT_S)
    except OSError as error:
        raise Unavailable(connect_failure(error, CONNECT_S)) from error
    sock.setblocking(False)
    tune(sock)
    return sock


def not_understood(address: str, error: ProtocolError, greeted: bool) -> ProtocolError:
    """What it means that the bytes from an address could not be read."""
    if greeted:
        return error
    return ProtocolError(f"{address} is no lockring server: {error}")
