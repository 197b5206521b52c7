"""One connection of HTTP/2 with its calls: the library `h2` reads and makes the frames, and the bounds are here.

Rules:

- Whatever comes in ends at most its own connection: a breach of HTTP/2 does, a malformed call only itself.
- A read is handled in small parts, and the turns of the port decide when it goes on: the lock port shares the loop.
- While the client leaves too much unread, nothing more of it is read. So answers to its frames are bounded too.
- A client that sends many frames which begin no call and carry no request is cut off: pings, settings, resets.
  Each call and each response allows for some frames besides, such as those that give room for more.
- Each connection must show signs of life, and ends with the certificate of its client.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final, Protocol, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from lockring.addresses import format_address
from lockring.clock import monotonic_ns
from lockring.grpc_api.call import GrpcCall, Headers, is_call
from lockring.grpc_api.known_credentials import KnownCredentials
from lockring.grpc_api.shares import CALLS_PER_CONNECTION_MAX, Taken
from lockring.grpc_api.writers import WaitingWriters
from lockring.log_events import event
from lockring.net.sockets import end_writing, tune
from lockring.net.turns import TURN_NS_MAX, TurnScheduler
from lockring.security.peer_certificates import PeerCertificate
from lockring.units import NS_PER_S

HEADER_BYTES_MAX: Final = 16 * 1024
"""Longest headers of a call, with 32 bytes more for each."""

GREETING_S_MAX: Final = 5.0
"""How long the first frames of a connection may take."""

SILENCE_S: Final = 10.0
"""After so long without a sign of life, the client is asked for one."""

ANSWER_S_MAX: Final = 5.0
"""How long its answer may take. So a machine that is gone is noticed in 15 s, and its waiters with it."""

FRAMES_BURST: Final = 1_000
FRAMES_PER_S: Final = 50
"""How many frames may come at once, and on average, that begin no call and carry no request."""

RESET_WEIGHT: Final = 0.1
"""A reset counts as a tenth: waits that run into their deadlines at the client end by one each, many at once."""

FRAMES_PER_CALL: Final = 4
FRAMES_PER_PART: Final = 4
"""How many frames may come besides with each call, and for each part of a response.

They give room for more or say what is urgent. A client that reads as usual gives room twice for a part.
"""

_SPARE_FRAMES_MAX: Final = 2_000
_PART_BYTES_MIN: Final = 1_024
"""A smaller part allows for no frames if the client has left room for no more of it."""

_STALLED_WEIGHT: Final = 0.1
"""How much more a frame counts for each response that it lets look for room again."""

_TABLE_BYTES_MAX: Final = 4096
"""Headers of responses that are kept to be abbreviated later. A client may allow more, and fill memory by that."""

UNREAD_BYTES_MAX: Final = 64 * 1024
"""How much a client may leave unread until responses wait for it, and nothing more of it is read."""

LINGER_S: Final = 1.0
"""How long a connection that has ended stays, so that the reason arrives."""

_PART_BYTES: Final = 4 * 1024
"""How much of a read is handled at once: as many of the smallest frames take some milliseconds."""

_FLUSH_BYTES: Final = 32 * 1024
_CLOSED_STREAMS_MAX: Final = 2_000

log = logging.getLogger("lockring.grpc")

_CONFIG: Final = h2.config.H2Configuration(client_side=False, header_encoding=None)


class _Http(h2.connection.H2Connection):
    """The library's part. It remembers fewer streams that have ended: each takes memory until its connection ends."""

    MAX_CLOSED_STREAMS = _CLOSED_STREAMS_MAX
    DEFAULT_MAX_HEADER_LIST_SIZE = HEADER_BYTES_MAX


class CallPort(Protocol):
    """The port, as a connection sees it.

    Attributes:
        turns: shares the loop's time among the connections.
    """

    turns: TurnScheduler

    def opened(self, connection: GrpcConnection) -> bool:
        """Count a connection that was opened, and return whether there is room for it."""

    def closed(self, connection: GrpcConnection) -> None:
        """Uncount a connection, counted or not."""

    def begin(self, connection: GrpcConnection, call: GrpcCall) -> None:
        """Carry a call of a connection out, or refuse it."""

    def hold(self, connection: GrpcConnection, call: GrpcCall, size: int) -> bool:
        """Count bytes of messages of a call that wait, fewer if negative. Returns whether there is room for them."""


class GrpcConnection(asyncio.Protocol):
    """One connection. Lives in one event loop.

    Args:
        port: the port that has accepted it.

    Attributes:
        remote: HOST:PORT of the client.
        certificate: the client's, None if it has shown none.
        known: the credentials that its calls have shown.
        calls: its open calls, by stream.
        taken: its part of the calls and the memory of the node.
    """

    def __init__(self, port: CallPort) -> None:
        self.remote = "?"
        self.certificate: PeerCertificate | None = None
        self.known = KnownCredentials()
        self.calls: dict[int, GrpcCall] = {}
        self.taken = Taken()
        self._port = port
        self._writers = WaitingWriters()
        self._http = _Http(_CONFIG)
        self._transport: asyncio.Transport | None = None
        self._held = b""
        self._awaits_turn = False
        self._is_ending = False
        self._is_full = False
        self._is_flush_due = False
        self._has_greeted = False
        self._opened_ns = self._alive_ns = monotonic_ns()
        self._asked_ns = 0
        self._unsent_bytes = 0
        self._unflushed_bytes = 0
        self._frames = 0.0
        self._spare_frames = 0
        self._frames_ns = self._opened_ns

    # ----------------------------------------------------------------------- for the port

    def look(self, now_ns: int, wall_s: float) -> None:
        """End the connection if it is silent, or if its client's certificate has ended. Called once a second."""
        transport = self._transport
        if transport is None or self._is_ending:
            return
        if self.certificate is not None and wall_s >= self.certificate.not_after_s:
            self.close("the client's certificate has expired")
            return
        if not self._has_greeted:
            if now_ns - self._opened_ns >= GREETING_S_MAX * NS_PER_S:
                self.close(
                    f"no greeting of HTTP/2 came within {GREETING_S_MAX:g} s",
                    h2.errors.ErrorCodes.SETTINGS_TIMEOUT,
                )
            return
        unsent_bytes = transport.get_write_buffer_size()
        if unsent_bytes < self._unsent_bytes or (self._held and not self._is_full):
            self._alive_ns = now_ns  # it reads, slowly; or its answer may be among what is held back
        self._unsent_bytes = unsent_bytes
        if self._asked_ns > self._alive_ns:
            if now_ns - self._asked_ns >= ANSWER_S_MAX * NS_PER_S:
                self.abort("it shows no sign of life")
        elif now_ns - self._alive_ns >= SILENCE_S * NS_PER_S:
            self._asked_ns = now_ns
            self._http.ping(bytes(8))
            self._flush()

    def close(self, reason: str, code: h2.errors.ErrorCodes = h2.errors.ErrorCodes.NO_ERROR) -> None:
        """Say the reason, deliver what was written, and end the connection with its calls."""
        transport = self._transport
        if transport is None or self._is_ending:
            return
        try:
            self._http.close_connection(code, additional_data=reason.encode("ascii", "replace"))
        except h2.exceptions.ProtocolError as error:
            log.debug("%s has ended already: %s", self.remote, error)
        self._part(reason)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._end(reason)
            self._transport.abort()

    # ----------------------------------------------------------------------- for calls

    def hold(self, call: GrpcCall, size: int) -> bool:
        """Count bytes of messages that wait. See `CallPort`."""
        return self._port.hold(self, call, size)

    def room_of(self, call: GrpcCall) -> int:
        """Return how many bytes of a response may be sent now. If none may, the call is woken once that changes."""
        if self._is_ending:
            return 0
        try:
            window = self._http.local_flow_control_window(call.number)
        except h2.exceptions.ProtocolError:
            call.end()
            self._leave(call)
            return 0
        if self._has_room:
            if window > 0:
                return min(window, self._http.max_outbound_frame_size)
            self._writers.stall(call)
            self._writers.wake_next()
        else:
            self._writers.queue(call)
        return 0

    def send_headers(self, call: GrpcCall, headers: list[tuple[str, str]], *, is_end: bool) -> None:
        """Send headers or trailers of a call, the last of all of it if `is_end`."""
        if self._is_ending:
            return
        try:
            self._http.send_headers(call.number, headers, end_stream=is_end)
            if is_end and not call.is_half_closed:
                # The client may stop sending: nothing more of it will be read.
                self._http.reset_stream(call.number, h2.errors.ErrorCodes.NO_ERROR)
        except h2.exceptions.ProtocolError as error:
            log.debug("a call of %s has ended before its answer: %s", self.remote, error)
        self._flush_soon()

    def send_data(self, call: GrpcCall, data: bytes) -> None:
        """Send a part of a response, for which there is room."""
        try:
            self._http.send_data(call.number, data)
        except h2.exceptions.ProtocolError as error:
            log.debug("a call of %s has ended before its answer: %s", self.remote, error)
            call.end()
        else:
            if len(data) >= _PART_BYTES_MIN or self._http.local_flow_control_window(call.number) > 0:
                self._spare(FRAMES_PER_PART)
            self._flush_soon(len(data))
        self._leave(call)

    def give_room(self, call: GrpcCall, size: int) -> None:
        """Let the client send so many bytes more."""
        if not self._is_ending:
            try:
                self._http.acknowledge_received_data(size, call.number)
            except h2.exceptions.ProtocolError as error:
                log.debug("a call of %s has ended: %s", self.remote, error)
            self._flush_soon()

    def call_ended(self, call: GrpcCall) -> None:
        """Forget a call whose task has ended."""
        call.release()
        self._leave(call)
        self.calls.pop(call.number, None)

    # ----------------------------------------------------------------------- TurnTaker

    def resume(self) -> None:
        """Go on with what was held back. Called when it is this connection's turn."""
        self._awaits_turn = False
        if self._is_full:
            return  # its turn comes once the client reads
        held, self._held = self._held, b""
        if held and not self._is_ending:
            self._handle(held)
        self._read_on()

    # ----------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client. Called by the event loop."""
        self._transport = transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and len(peer) >= 2:
            self.remote = format_address(str(peer[0]), int(peer[1]))
        if not self._port.opened(self):
            self._is_ending = True
            transport.abort()
            return
        self.certificate = transport.get_extra_info("peer_certificate")
        sock = transport.get_extra_info("socket")
        if sock is not None:
            tune(sock)
        transport.set_write_buffer_limits(high=UNREAD_BYTES_MAX)
        http = self._http
        http.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: CALLS_PER_CONNECTION_MAX,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: HEADER_BYTES_MAX,
            },
        )
        http.initiate_connection()
        # Each call has a window of its own; the one of the connection must never be the smaller bound, since a call
        # whose requests nothing reads would then keep all others from theirs.
        http.increment_flow_control_window(
            2 * CALLS_PER_CONNECTION_MAX * http.local_settings.initial_window_size
        )
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Handle bytes, or hold them until this connection's turn. Called by the event loop."""
        if self._is_ending:
            return
        self._alive_ns = monotonic_ns()
        if self._held or self._is_full or self._port.turns.are_over:
            self._hold(data)
        else:
            self._handle(data)

    def eof_received(self) -> bool:
        """Close too: the client will send no more. Called by the event loop."""
        return False

    def pause_writing(self) -> None:
        """Let responses wait, and hold what comes. Called by the event loop."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Go on. Called by the event loop."""
        self._is_full = False
        self._alive_ns = monotonic_ns()
        self._await_turn()
        self._read_on()
        self._wake_next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the calls. Called by the event loop."""
        self._end("the client has gone" if exc is None else str(exc))
        self._transport = None
        # The library's object refers to itself, and would keep its memory until a collection of garbage.
        vars(self._http).clear()
        self._port.closed(self)

    # ----------------------------------------------------------------------- reading

    def _hold(self, data: bytes) -> None:
        self._held += data
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
        self._await_turn()

    def _await_turn(self) -> None:
        if self._held and not self._is_full and not self._awaits_turn:
            self._awaits_turn = True
            self._port.turns.enqueue(self)

    def _read_on(self) -> None:
        transport = self._transport
        if transport is not None and not self._held and not self._is_full and not transport.is_closing():
            transport.resume_reading()

    def _handle(self, data: bytes) -> None:
        began_ns = now_ns = monotonic_ns()
        at = 0
        while at < len(data) and not self._is_ending:
            if now_ns - began_ns > TURN_NS_MAX or self._is_full:
                self._hold(data[at:])
                break
            self._handle_part(data[at : at + _PART_BYTES], now_ns)
            at += _PART_BYTES
            now_ns = monotonic_ns()
        self._port.turns.count(now_ns - began_ns)

    def _handle_part(self, data: bytes, now_ns: int) -> None:
        try:
            for each in self._http.receive_data(data):
                self._take(each, now_ns)
                if self._is_ending:
                    return
        except h2.exceptions.ProtocolError as error:
            log.debug("cut the connection of %s: %s", self.remote, error)
            self._part(str(error))
        except Exception as error:
            log.error(
                "this is a bug in lockring: bytes of %s could not be handled",
                self.remote,
                exc_info=error,
                extra=event("bug"),
            )
            self.abort("a bug")
        else:
            self._flush()

    def _take(self, each: h2.events.Event, now_ns: int) -> None:
        match each:
            case h2.events.RequestReceived():
                self._begin(_required(each.stream_id), each.headers)
            case h2.events.DataReceived():
                self._take_data(each, now_ns)
            case h2.events.StreamEnded():
                call = self.calls.get(_required(each.stream_id))
                if call is not None:
                    call.half_closed()
            case h2.events.StreamReset():
                self._count_frame(now_ns, RESET_WEIGHT)
                call = self.calls.get(_required(each.stream_id))
                if call is not None:
                    call.end()
            case h2.events.WindowUpdated():
                self._count_spare(now_ns)
                self._grow(each.stream_id or 0)
            case h2.events.RemoteSettingsChanged():
                self._has_greeted = True
                if self._http.encoder.header_table_size > _TABLE_BYTES_MAX:
                    self._http.encoder.header_table_size = _TABLE_BYTES_MAX
                self._take_settings(each, now_ns)
            case h2.events.ConnectionTerminated():
                self._part("the client says goodbye")
            case h2.events.PriorityUpdated() | h2.events.TrailersReceived():
                self._count_spare(now_ns)  # they mean nothing here
            case _:
                self._count_frame(now_ns)  # pings, frames of other kinds, and answers to frames

    def _begin(self, number: int, headers: Headers) -> None:
        self._spare(FRAMES_PER_CALL)
        call = GrpcCall(self, number, headers)
        status = is_call(headers)
        if status:
            call.reject(status)
            return
        self.calls[number] = call
        self._port.begin(self, call)

    def _take_data(self, data: h2.events.DataReceived, now_ns: int) -> None:
        size = data.flow_controlled_length or 0
        body = data.data or b""
        if not body and data.stream_ended is None:
            self._count_frame(now_ns)
        call = self.calls.get(_required(data.stream_id))
        if call is not None:
            call.received(body, size)
        elif size:
            self._http.acknowledge_received_data(size, _required(data.stream_id))

    def _take_settings(self, change: h2.events.RemoteSettingsChanged, now_ns: int) -> None:
        window = change.changed_settings.get(h2.settings.SettingCodes.INITIAL_WINDOW_SIZE)
        if window is None or window.new_value <= (window.original_value or 0):
            self._count_frame(now_ns)
            return
        self._count_frame(now_ns, 1 + _STALLED_WEIGHT * self._writers.stalled_count)
        self._writers.queue_stalled()
        self._wake_next()

    def _grow(self, number: int) -> None:
        """Let the response of a stream go on, for which the client has given room; 0 is the connection."""
        if number == 0:
            self._wake_next()
        elif number in self.calls:
            self._writers.wake(self.calls[number])

    @property
    def _has_room(self) -> bool:
        return not self._is_full and self._http.outbound_flow_control_window > 0

    def _wake_next(self) -> None:
        if not self._is_ending and self._has_room:
            self._writers.wake_next()

    def _leave(self, call: GrpcCall) -> None:
        self._writers.leave(call)
        self._wake_next()

    def _spare(self, frames: int) -> None:
        self._spare_frames = min(self._spare_frames + frames, _SPARE_FRAMES_MAX)

    def _count_spare(self, now_ns: int) -> None:
        """Count a frame that may come with calls and responses."""
        if self._spare_frames:
            self._spare_frames -= 1
        else:
            self._count_frame(now_ns)

    def _count_frame(self, now_ns: int, weight: float = 1.0) -> None:
        refilled = (now_ns - self._frames_ns) / NS_PER_S * FRAMES_PER_S
        self._frames = max(0.0, self._frames - refilled) + weight
        self._frames_ns = now_ns
        if self._frames > FRAMES_BURST and not self._is_ending:
            self.close("too many frames that begin no call", h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)

    # ----------------------------------------------------------------------- writing

    def _flush_soon(self, size: int = 0) -> None:
        self._unflushed_bytes += size
        if self._unflushed_bytes >= _FLUSH_BYTES:
            self._flush()
        elif not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush_due)

    def _flush_due(self) -> None:
        self._is_flush_due = False
        self._flush()

    def _flush(self) -> None:
        self._unflushed_bytes = 0
        if self._transport is None:
            return
        data = self._http.data_to_send()
        if data and not self._transport.is_closing():
            self._transport.write(data)

    # ----------------------------------------------------------------------- the end

    def _part(self, reason: str) -> None:
        self._flush()
        self._end(reason)
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            # Bytes that come later are read and dropped: the system would answer them with a reset, which destroys
            # the last words on their way.
            end_writing(transport)
        if not transport.is_closing():
            transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_S, transport.abort)

    def _end(self, reason: str) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        self._held = b""
        log.debug("the connection of %s ends: %s", self.remote, reason)
        for call in list(self.calls.values()):
            call.end()


def _required(number: int | None) -> int:
    assert number is not None, "the library names the stream of each such event"
    return number
