"""TLS on the connections of an event loop: a program sees plain bytes, and none before the handshake is over.

`TlsProtocol` goes between the event loop's transport and the protocol of the program, which gets a `TlsTransport`. It
works alike on asyncio's loop and on uvloop. `get_extra_info("peer_certificate")` is the `PeerCertificate` of the other
side, or None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar, cast

from lockring.addresses import format_address
from lockring.security.handshakes import HANDSHAKE_S_MAX, HandshakeGate
from lockring.security.tls_errors import NOT_TLS, TlsError
from lockring.security.tls_layer import TlsLayer
from lockring.security.tls_policy import PortContexts

PEER_CERTIFICATE: Final = "peer_certificate"
"""The name under which a transport has the other side's certificate."""

SEAL: Final = "seal"
"""The name under which a transport has `TlsTransport.seal`."""

_FRAMES: Final = b"\0"
"""The first byte of a frame of lockring's own: frames are shorter than 16 MiB. TLS begins otherwise."""

_ProtocolT = TypeVar("_ProtocolT", bound=asyncio.Protocol)


class TlsTransport:
    """The transport of a connection with TLS, as the program's protocol sees it.

    It has the methods of `asyncio.Transport`, and not that base: the compiled build makes a class with a base of Python
    a slow one.

    Args:
        raw: the transport below.
        layer: the TLS of the connection, whose handshake is over.
        owner: the protocol that hands plain bytes on.

    Attributes:
        certificate: the other side's, None if it has shown none.
    """

    def __init__(self, raw: asyncio.Transport, layer: TlsLayer, owner: TlsProtocol) -> None:
        self._raw = raw
        self._layer = layer
        self._owner = owner
        self.certificate = layer.certificate

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        if self._raw.is_closing():
            return
        try:
            sealed = self._layer.seal(data)
        except TlsError:
            self._raw.abort()
            return
        self._raw.write(sealed)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Encrypt and send several pieces together."""
        self.write(b"".join(list_of_data))

    def seal(self, data: bytes) -> bytes:
        """Return what must go through the socket instead of these bytes, for a program whose event loop has ended.

        Raises:
            TlsError: the connection has ended.
        """
        return self._layer.seal(data)

    def can_write_eof(self) -> bool:
        """Return whether `write_eof` works."""
        return self._raw.can_write_eof()

    def write_eof(self) -> None:
        """Say that no more will be sent, and go on reading."""
        self._say_end()
        self._raw.write_eof()

    def close(self) -> None:
        """Deliver what was written, then end the connection."""
        if not self._raw.is_closing():
            self._say_end()
            self._raw.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._raw.abort()

    def is_closing(self) -> bool:
        """Return whether it is ending or has ended."""
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Return whether it reads."""
        return self._raw.is_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may wait to be sent before the protocol is asked to pause."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return how much waits to be sent, encrypted."""
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection: its certificate, its TLS, or what the transport below knows."""
        if name == PEER_CERTIFICATE:
            return self.certificate if self.certificate is not None else default
        if name == SEAL:
            return self.seal
        if name == "ssl_object":
            return self._layer.tls_object
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand plain bytes to another protocol from now on."""
        self._owner.program = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol that gets the plain bytes."""
        assert self._owner.program is not None
        return self._owner.program

    def _say_end(self) -> None:
        self._layer.end()
        last = self._layer.take_output()
        if last:
            self._raw.write(last)


class TlsProtocol:
    """TLS below a program's protocol. Lives in one event loop.

    It has the methods of `asyncio.Protocol`, and not that base: see `TlsTransport`.

    Args:
        make: makes the program's protocol, once the handshake is over.
        begin: makes the layer, once the connection is open.
        gate: counts and bounds the handshake.
        ready: resolved with the transport and the program's protocol after the handshake, or with its error.
        plain_answer: sent to a side that does not begin with TLS but with one of the bytes `plain_begins`, before the
            end. These are the first ones of a frame of lockring's own, unless others are given.
        plain_begins: see `plain_answer`.
        opened: called with the transport after the handshake.

    Attributes:
        remote: HOST:PORT of the other side.
        program: the program's protocol, None before the handshake is over.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        begin: Callable[[], TlsLayer],
        gate: HandshakeGate,
        *,
        ready: asyncio.Future[tuple[TlsTransport, asyncio.Protocol]] | None = None,
        plain_answer: bytes = b"",
        plain_begins: bytes = _FRAMES,
        opened: Callable[[TlsTransport], None] | None = None,
    ) -> None:
        self.remote = "?"
        self.program: asyncio.Protocol | None = None
        self._make = make
        self._begin = begin
        self._gate = gate
        self._ready = ready
        self._plain_answer = plain_answer
        self._plain_begins = plain_begins
        self._opened = opened
        self._raw: asyncio.Transport
        self._layer: TlsLayer
        self._is_over = False
        self._error: TlsError | None = None

    # ----------------------------------------------------------------------- PendingHandshake

    def drop(self, reason: str) -> None:
        """End the connection at once."""
        self._fail(TlsError(reason))
        self._raw.abort()

    # ----------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake. Called by the event loop."""
        self._raw = cast(asyncio.Transport, transport)  # uvloop has its own class
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple) and len(peer) >= 2:
            self.remote = format_address(str(peer[0]), int(peer[1]))
        self._gate.begin(self)
        self._layer = self._begin()
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Read bytes of the socket. Called by the event loop."""
        if self._is_over:
            return
        layer = self._layer
        if self._plain_answer:
            answer, self._plain_answer = self._plain_answer, b""
            if data[0] in self._plain_begins:
                self._raw.write(answer)
                self._refuse(TlsError(NOT_TLS, "not-tls"))
                return
        try:
            plain = layer.receive(data)
        except TlsError as error:
            self._flush()  # an alert, from which the other side learns the reason
            self._refuse(error)
            return
        if layer.has_output:
            self._flush()
        if self.program is None:
            if not layer.is_ready:
                return
            self._open()
        if plain and self.program is not None:
            self.program.data_received(plain)
        if layer.is_ended and not self._is_over:
            self._is_over = True
            if self.program is None or not self.program.eof_received():
                self._raw.close()

    def eof_received(self) -> bool:
        """Close too: the other side will send no more. Called by the event loop."""
        if self.program is None:
            self._gate.fail(self, "the other side ended the connection")
            self._fail(TlsError("the other side ended the connection"))
            return False
        if self._is_over:
            return True  # the program has heard of it by TLS, and ends the connection when it likes
        self._is_over = True
        return bool(self.program.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end. Called by the event loop."""
        self._is_over = True
        if self.program is not None:
            self.program.connection_lost(self._error or exc)
            return
        reason = str(exc) if exc is not None else "the other side ended the connection"
        self._gate.fail(self, reason)
        self._fail(TlsError(reason))

    def pause_writing(self) -> None:
        """Pass on that too much waits to be sent. Called by the event loop."""
        if self.program is not None:
            self.program.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that there is room again. Called by the event loop."""
        if self.program is not None:
            self.program.resume_writing()

    # ----------------------------------------------------------------------- inner

    def _open(self) -> None:
        self._gate.complete(self)
        self.program = program = self._make()
        transport = TlsTransport(self._raw, self._layer, self)
        if self._opened is not None:
            self._opened(transport)
        program.connection_made(cast(asyncio.Transport, transport))
        if self._ready is not None and not self._ready.done():
            self._ready.set_result((transport, program))

    def _flush(self) -> None:
        out = self._layer.take_output()
        if out and not self._raw.is_closing():
            self._raw.write(out)

    def _refuse(self, error: TlsError) -> None:
        self._is_over = True
        if self.program is not None:
            # The error itself has a traceback, whose frames would keep the connection and its TLS until a collection.
            self._error = TlsError(str(error), error.fault)
            self._raw.close()
            return
        self._gate.fail(self, str(error))
        self._fail(error)
        self._gate.part(self._raw)

    def _fail(self, error: TlsError) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(error)


def accepting(
    make: Callable[[], asyncio.Protocol],
    contexts: Callable[[], PortContexts],
    gate: HandshakeGate,
    *,
    plain_answer: bytes = b"",
    plain_begins: bytes = _FRAMES,
    opened: Callable[[TlsTransport], None] | None = None,
) -> Callable[[], asyncio.Protocol]:
    """Return a factory of protocols for `loop.create_server`.

    Args:
        make: makes the program's protocol for one connection.
        contexts: returns the port's contexts, asked for each connection: `TlsPolicy.port_contexts`.
        gate: bounds the handshakes of the port.
        plain_answer: see `TlsProtocol`.
        plain_begins: see `TlsProtocol`.
        opened: see `TlsProtocol`.
    """

    def protocol() -> asyncio.Protocol:
        made = TlsProtocol(
            make,
            lambda: TlsLayer.accept(contexts()),
            gate,
            plain_answer=plain_answer,
            plain_begins=plain_begins,
            opened=opened,
        )
        return cast(asyncio.Protocol, made)

    return protocol


async def open_tls(
    make: Callable[[], _ProtocolT],
    host: str,
    port: int,
    begin: Callable[[], TlsLayer],
    *,
    timeout_s: float = HANDSHAKE_S_MAX,
    opened: Callable[[TlsTransport], None] | None = None,
) -> tuple[TlsTransport, _ProtocolT]:
    """Open a connection with TLS, and return its transport and the program's protocol after the handshake.

    Args:
        make: makes the program's protocol.
        host: name or address of the other side.
        port: its port.
        begin: makes the layer: `TlsLayer.dial`.
        timeout_s: how long the handshake may take, after the connection is open.
        opened: see `TlsProtocol`.

    Raises:
        TlsError: the handshake failed, or took too long.
        OSError: the other side cannot be reached.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[tuple[TlsTransport, asyncio.Protocol]] = loop.create_future()
    gate = HandshakeGate(timeout_s=timeout_s, logs=False)

    def protocol() -> asyncio.Protocol:
        return cast(asyncio.Protocol, TlsProtocol(make, begin, gate, ready=ready, opened=opened))

    raw, _ = await loop.create_connection(protocol, host, port)
    try:
        transport, program = await ready
    except BaseException:
        raw.abort()
        raise
    return transport, cast(_ProtocolT, program)
