"""Accepts connections and finds out who is there.

The first message decides the role: a client, a peer, or (at a coordinator) a node that joins. Until it is
complete nothing is kept of a connection but 4 KiB and a few seconds of patience. Whatever cannot be answered in its
role (garbage, a giant frame, a message that has no business on this port) gets a `Refused` that says why, where
the other side may be able to read one, and then its connection ends. The server lives on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import logging
import resource
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Overloaded, ProtocolError
from lockring.messages import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Message,
    Refused,
    ToCoordinator,
    ToNode,
    Welcome,
)
from lockring.names import split_address
from lockring.net.connection import FramedConnection, Outbox, format_address
from lockring.net.frames import HEADER_BYTES, FrameReader
from lockring.units import NS_PER_MS

HELLO_BYTES_MAX: Final = 4 * 1024
"""Longest first frame."""

HELLO_S_MAX: Final = 5.0
"""How long the first frame may take to arrive."""

CLIENT_FRAME_BYTES_MAX: Final = 1024 * 1024
CLIENT_UNREAD_BYTES_MAX: Final = 8 * 1024 * 1024
MEMBER_UNREAD_BYTES_MAX: Final = 256 * 1024 * 1024

TURN_NS_MAX: Final = 5 * NS_PER_MS
"""A client whose one read takes longer to handle lets the other connections have a turn first. Else one that sends
faster than it can be answered would keep the server from its peers for seconds, and cost it its leases."""

TURNS_NS_MAX: Final = 50 * NS_PER_MS
"""How long all clients together are handled without a look at timers and members. Else so many that each ask for little
would keep the server from its peers just as well."""

CONNECTIONS_MAX: Final = 10_000
"""How many clients one server accepts."""

CONNECTIONS_RESERVED: Final = 256
"""How many connections it accepts beyond, for the members of the cluster and for those that have not said who
they are: a crowd of clients must not cut a node off from the others."""

_BACKLOG: Final = 1024

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


class Host(Protocol):
    """The server behind a listener: what it does with those who come in."""

    def greet(self, guest: Guest, hello: Message) -> None:
        """Answer a first message: `guest.admit(…)` or raise a `LockringError` to refuse it."""

    def deliver(self, guest: Guest, messages: list[Message]) -> None:
        """Handle messages of an admitted guest. May raise a `LockringError` to end the connection."""

    def leave_guest(self, guest: Guest, reason: str) -> None:
        """An admitted guest's connection has ended."""


class Guest(FramedConnection):
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
        self.send(Refused(request, error.code, str(error), error.name, hint))
        self.close(str(error))

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
        if self._deaf:
            return
        if self.role is not None:
            try:
                messages = self._reader.feed(data)
            except ProtocolError as error:
                self.on_garbage(error)
                return
            if messages:
                self.on_messages(messages)
            return
        if self._transport is None:
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
            log.info("refused %s: %s", self.remote, error)
            self.refuse(error)
            return
        if rest:
            super().data_received(rest)

    def on_messages(self, messages: list[Message]) -> None:
        """Hand over to the host, or keep it until it is this client's turn."""
        listener = self._listener
        is_client = self.role is CLIENT
        if is_client and listener.turns_are_over:
            self.hold(messages)
            return
        began_ns = monotonic_ns()
        try:
            listener.host.deliver(self, messages)
        except LockringError as error:
            log.warning("closed the connection of %s at %s: %s", self.title, self.remote, error)
            self.refuse(error)
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
        log.warning("closed the connection of %s at %s: %s", self.title, self.remote, error)
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
        self.on_garbage(ProtocolError(f"no complete hello within {HELLO_S_MAX:g} s"))


class Listener:
    """A listening port. Lives in one event loop.

    Args:
        host: what to do with those who come in.
        outbox: where the guests' writes wait for the flush.
        connections_max: how many clients to accept.
    """

    def __init__(self, host: Host, outbox: Outbox, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.host = host
        self.outbox = outbox
        self.turns_are_over = False
        """Whether the clients have had their time until the event loop has looked at everything else."""
        # All messages to any server, so that one on the wrong port can be told from garbage.
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToNode | ToCoordinator)
        self._clients_max = connections_max
        self._clients = 0
        self._guests: dict[int, Guest] = {}
        self._numbers: Callable[[], int] = itertools.count(1).__next__
        self._server: asyncio.Server | None = None
        self._address = ""
        self._emptied: asyncio.Event | None = None
        self._turns: deque[Guest] = deque()
        self._turns_ns = 0
        self._turns_are_due = False

    @property
    def guests(self) -> Iterable[Guest]:
        """All connections that are open."""
        return self._guests.values()

    async def open(self, address: str) -> str:
        """Take the port HOST:PORT, without accepting anybody yet; port 0 takes any free one.

        Returns:
            HOST:PORT with the port that it is.

        Raises:
            InvalidRequest: not an address.
            CannotListen: the port is taken, the host is unknown or not of this machine.
        """
        host, port = split_address(address)
        self._clients_max = min(self._clients_max, _descriptors_max() - 2 * CONNECTIONS_RESERVED)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._make, host, port, backlog=_BACKLOG, start_serving=False
            )
        except socket.gaierror as error:
            raise CannotListen(f"cannot listen at {address}: {error.strerror}") from error
        except OSError as error:
            raise CannotListen(f"cannot listen at {address}: {_why(error)}") from error
        self._address = format_address(host, self._server.sockets[0].getsockname()[1])
        return self._address

    async def begin(self) -> None:
        """Accept connections from now on.

        Raises:
            CannotListen: somebody else was faster.
        """
        assert self._server is not None
        try:
            await self._server.start_serving()
        except OSError as error:
            raise CannotListen(f"cannot listen at {self._address}: {_why(error)}") from error

    def close(self, reason: str) -> None:
        """Accept nobody any more, and end all connections once what was sent on them is out."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for guest in list(self._guests.values()):
            guest.close(reason)

    async def closed(self, timeout_s: float) -> None:
        """After `close`: wait until all connections have ended; cut those that have not in time."""
        if self._guests:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._emptied.wait()
        for guest in list(self._guests.values()):
            guest.abort("the server stops")

    def guest(self, number: int) -> Guest | None:
        """The open connection of that number."""
        return self._guests.get(number)

    # ----------------------------------------------------------------------- for Guest

    def add(self, guest: Guest) -> None:
        """Count a new connection.

        Raises:
            Overloaded: there are too many that are no members.
        """
        self._guests[guest.number] = guest
        if len(self._guests) > self._clients_max + CONNECTIONS_RESERVED:
            raise self._full()

    def count_in(self, role: Role) -> None:
        """Count a connection whose role is known now.

        Raises:
            Overloaded: there are too many clients.
        """
        if not role.is_member:
            if self._clients >= self._clients_max:
                raise self._full()
            self._clients += 1

    def remove(self, guest: Guest) -> None:
        """Forget a connection that has ended."""
        self._guests.pop(guest.number, None)
        if guest.role is not None and not guest.role.is_member:
            self._clients -= 1
        if self._emptied is not None and not self._guests:
            self._emptied.set()

    def count_turn(self, took_ns: int) -> None:
        """A client's messages were handled, which took so long."""
        self._turns_ns += took_ns
        # Less than this need not be told apart from what an earlier turn of the event loop took.
        if self._turns_ns > TURN_NS_MAX:
            self.turns_are_over = self._turns_ns > TURNS_NS_MAX
            self._give_turns_soon()

    def line_up(self, guest: Guest) -> None:
        """Call `take_turn` of this guest after those that are waiting already."""
        self._turns.append(guest)
        self._give_turns_soon()

    def _give_turns_soon(self) -> None:
        if not self._turns_are_due:
            self._turns_are_due = True
            asyncio.get_running_loop().call_soon(self._give_turns)

    def _give_turns(self) -> None:
        self._turns_are_due = False
        self._turns_ns = 0
        self.turns_are_over = False
        for _ in range(len(self._turns)):
            if self.turns_are_over:
                break
            self._turns.popleft().take_turn()
        if self._turns:
            self._give_turns_soon()

    def _full(self) -> Overloaded:
        return Overloaded(f"this server has {self._clients_max} client connections, which is its limit")

    def _make(self) -> Guest:
        return Guest(self, self._numbers(), self._decoder)


class CannotListen(LockringError):
    """A port cannot be listened at."""

    code = "cannot-listen"


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


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is already taken by another process"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if error.errno == errno.EACCES:
        return "no permission for this port"
    return error.strerror or str(error)


def _descriptors_max() -> int:
    """How many files and sockets this process may open, after asking for as many as it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + 4 * CONNECTIONS_RESERVED
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return wanted if soft == resource.RLIM_INFINITY else soft
