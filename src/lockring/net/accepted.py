"""One accepted connection: who is there, and what it may do.

The first message decides the role: a client, a peer, or (at a coordinator) a node that joins. Until it is
complete nothing is kept of a connection but 4 KiB and a few seconds of patience; later frames have their bounds too. Whatever cannot be answered in its
role (garbage, a giant frame, a message that has no business on this port) gets a `Refusal` that says why, where
the other side may be able to read one, and then its connection ends. The server lives on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Overloaded, ProtocolError
from lockring.net.connection import FramedConnection
from lockring.net.frames import HEADER_BYTES, FrameReader
from lockring.protocol import FRAME_BYTES_MAX, PROTOCOL, Message, Refusal, Welcome
from lockring.units import NS_PER_MS

if TYPE_CHECKING:
    from lockring.net.listener import Listener

HELLO_BYTES_MAX: Final = 4 * 1024
"""Longest first frame."""

HELLO_S_MAX: Final = 5.0
"""How long the first frame may take to arrive."""

FRAME_S_MAX: Final = 30.0
"""How long any later frame may take from its first bytes to its last: what has arrived of it is kept until then."""

CLIENT_FRAME_BYTES_MAX: Final = 1024 * 1024
CLIENT_UNREAD_BYTES_MAX: Final = 8 * 1024 * 1024
MEMBER_UNREAD_BYTES_MAX: Final = 256 * 1024 * 1024

TURN_NS_MAX: Final = 5 * NS_PER_MS
"""A client whose one read takes longer to handle lets the other connections have a turn first. Else one that sends
faster than it can be answered would keep the server from its peers for seconds, and cost it its leases."""

log = logging.getLogger("lockring.net")


class Role(NamedTuple):
    """What a connection is for, and what it may do.

    Attributes:
        title: what to call it, with its article: "a client".
        is_member: whether it belongs to the cluster, and so counts apart from the clients.
        frame_bytes_max: length of the longest frame that it may send.
        unread_bytes_max: how much it may leave unread.
    """

    title: str
    is_member: bool
    frame_bytes_max: int
    unread_bytes_max: int


CLIENT: Final = Role("a client", False, CLIENT_FRAME_BYTES_MAX, CLIENT_UNREAD_BYTES_MAX)
PEER: Final = Role("a node", True, FRAME_BYTES_MAX, MEMBER_UNREAD_BYTES_MAX)


class ConnectionHandler(Protocol):
    """The server behind a listener: what it does with those who come in."""

    def greet(self, guest: AcceptedConnection, hello: Message) -> None:
        """Answer a first message: `guest.admit(…)`, or `guest.turn_away(…)` or raise a `LockringError` to refuse it."""

    def deliver(self, guest: AcceptedConnection, messages: list[Message]) -> None:
        """Handle messages of an admitted guest. May raise a `LockringError` to end the connection."""

    def leave_guest(self, guest: AcceptedConnection, reason: str) -> None:
        """An admitted guest's connection has ended."""


class AcceptedConnection(FramedConnection):
    """One accepted connection. Made by the listener only.

    Attributes:
        number: of this connection; never used again in this process.
        role: None until its first message was accepted.
        tag: for the host to attach what it knows of this guest.
    """

    def __init__(self, listener: Listener, number: int, decoder: msgspec.msgpack.Decoder[Any]) -> None:
        super().__init__(
            listener.outbox,
            decoder,
            frame_bytes_max=HELLO_BYTES_MAX,
            write_bytes_max=CLIENT_UNREAD_BYTES_MAX,
        )
        self.number = number
        self.role: Role | None = None
        self.tag: object = None
        self._listener = listener
        self._early = bytearray()
        self._patience: asyncio.TimerHandle | None = None

    def admit(self, role: Role, welcome: Welcome | None) -> None:
        """Accept the first message.

        Args:
            role: what the guest is from now on.
            welcome: the answer, None if it is given later.

        Raises:
            Overloaded: there are too many clients already.
        """
        self._listener.count_in(role)
        self.role = role
        self.expect(
            self._decoder, frame_bytes_max=role.frame_bytes_max, write_bytes_max=role.unread_bytes_max
        )
        if welcome is not None:
            self.send(welcome)

    def refuse(self, error: LockringError, *, request: int = 0, hint: int = 0) -> None:
        """Say why and end the connection."""
        self.send(Refusal(request, error.code, str(error), error.name, hint))
        self.close(str(error))

    def turn_away(self, error: LockringError) -> None:
        """Refuse the connection as `refuse` does, and log that."""
        if self.role is None:
            self._listener.tell_of(self, "refused", error, logging.INFO)
        else:
            self._listener.tell_of(self, "closed the connection of", error, logging.WARNING)
        self.refuse(error)

    # ----------------------------------------------------------------------- FramedConnection

    def on_open(self) -> None:
        """Start the patience with the first message."""
        try:
            self._listener.add(self)
        except Overloaded as error:
            self.refuse(error)
            return
        self._patience = asyncio.get_running_loop().call_later(HELLO_S_MAX, self._too_slow)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop. Until the role is known only the first frame is looked at."""
        if self.role is not None:
            super().data_received(data)
            if self._reader.rest and self._patience is None and self.is_open:
                self._patience = asyncio.get_running_loop().call_later(FRAME_S_MAX, self._too_slow)
            return
        if not self.is_open:
            return
        self._early += data
        if len(self._early) < HEADER_BYTES:
            return
        size = HEADER_BYTES + int.from_bytes(self._early[:HEADER_BYTES], "big")
        if size > HEADER_BYTES + HELLO_BYTES_MAX:
            self.on_garbage(ProtocolError(_not_a_hello(bytes(self._early), size - HEADER_BYTES)))
            return
        if len(self._early) < size:
            return
        first, rest = bytes(self._early[:size]), bytes(self._early[size:])
        self._early.clear()
        try:
            messages = FrameReader(self._decoder, HELLO_BYTES_MAX).feed(first)
        except ProtocolError as error:
            self.on_garbage(error)
            return
        self._forget_patience()
        try:
            self._listener.host.greet(self, messages[0])
        except LockringError as error:
            self.turn_away(error)
            return
        if rest:
            self.data_received(rest)

    def on_messages(self, messages: list[Message]) -> None:
        """Hand over to the host, or keep it until it is this client's turn."""
        if self._patience is not None:  # whatever frame was awaited is complete
            self._forget_patience()
        listener = self._listener
        is_client = self.role is CLIENT
        if is_client and listener.turns_are_over:
            self.hold(messages)
            return
        began_ns = monotonic_ns()
        try:
            listener.host.deliver(self, messages)
        except LockringError as error:
            self.turn_away(error)
            return
        if is_client:
            took_ns = monotonic_ns() - began_ns
            listener.count_turn(took_ns)
            if took_ns > TURN_NS_MAX:
                self.let_others_read()

    def await_turn(self) -> None:
        """Line up with the other clients."""
        self._listener.line_up(self)

    def on_garbage(self, error: ProtocolError) -> None:
        """Say so and close."""
        self._listener.tell_of(self, "closed the connection of", error, logging.WARNING)
        self.refuse(error)

    def pause_writing(self) -> None:
        """Called by the event loop: the guest reads too little of what it asked for."""
        super().pause_writing()
        log.warning("cut the connection of %s at %s: it leaves its answers unread", self.title, self.remote)

    def on_end(self, reason: str) -> None:
        """Tell the host, if it knew the guest."""
        self._forget_patience()
        self._listener.remove(self)
        if self.role is not None:
            self._listener.host.leave_guest(self, reason)

    @property
    def title(self) -> str:
        """What to call the guest in a sentence."""
        return self.role.title if self.role is not None else "somebody"

    def _forget_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _too_slow(self) -> None:
        if self.role is None:
            self.on_garbage(ProtocolError(f"no complete hello within {HELLO_S_MAX:g} s"))
        else:
            self.on_garbage(ProtocolError(f"a frame began to arrive {FRAME_S_MAX:g} s ago and has not ended"))


def check_protocol(protocol: int, who: str) -> None:
    """Refuse another version of the wire protocol.

    Raises:
        ProtocolError: it is another one.
    """
    if protocol != PROTOCOL:
        raise ProtocolError(
            f"{who} speaks version {protocol} of the protocol, this server version {PROTOCOL}"
        )


def _not_a_hello(early: bytes, size: int) -> str:
    if early[:4] in (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"PRI ", b"DELE", b"PATC"):
        return "this is a lockring port, which does not speak HTTP"
    if early[:2] == b"\x16\x03":
        return "this is a lockring port without TLS"
    return f"the first frame is announced with {size} bytes, a hello has at most {HELLO_BYTES_MAX}"
