"""Asks a server one question over a connection of its own, blocking; for supervisors, commands and tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Replica, decode_state
from lockring.core.refusals import error_of
from lockring.errors import LockringError, ProtocolError, Unavailable
from lockring.ids import (
    NO_CLUSTER,
    NO_VERSION,
    ClientId,
    ClusterId,
    GreetingNumber,
    NodeId,
    RequestNumber,
    SessionId,
)
from lockring.net.frames import FrameReader, encode_frame
from lockring.net.sockets import open_connection
from lockring.protocol import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    ClientHello,
    CloseSession,
    Drain,
    DrainReply,
    GetRoutes,
    GetState,
    GetStatus,
    Message,
    Refusal,
    ReleaseReply,
    Routes,
    ServerStatus,
    StateReply,
    StatusReply,
    ToClient,
    Undrain,
    UndrainReply,
    Welcome,
)
from lockring.random_ids import new_id
from lockring.system_errors import reason_of
from lockring.units import NS_PER_S, seconds_to_ns

_REQUEST: Final = RequestNumber(1)
_READ_BYTES: Final = 256 * 1024


class ByteStream(Protocol):
    """A connection, by the methods of a blocking socket."""

    def settimeout(self, timeout_s: float | None, /) -> None:
        """Set how long a call may wait, in seconds."""

    def sendall(self, data: bytes, /) -> None:
        """Send all bytes."""

    def recv(self, size: int, /) -> bytes:
        """Return the bytes that come next, b"" at the end."""

    def close(self) -> None:
        """End the connection."""


Dial = Callable[[str, float], ByteStream]
"""Opens a connection to HOST:PORT within so many seconds. Raises an `OSError` or a `LockringError` if it cannot."""


def dial_plain(address: str, timeout_s: float) -> ByteStream:
    """Open a connection without TLS. See `Dial`."""
    return open_connection(address, timeout_s)


class ServerReport(NamedTuple):
    """A server's answer about itself.

    Attributes:
        cluster: the cluster to which it belongs, `NO_CLUSTER` if it has none yet.
        status: its status at one moment.
    """

    cluster: ClusterId
    status: ServerStatus


class ServerView(NamedTuple):
    """A server's answer about itself and the cluster.

    Attributes:
        role: "node" or "coordinator".
        replica: the node and its life; empty for a coordinator.
        state: the newest cluster state that the server has.
        note: a sentence on what the server is waiting for, "" if nothing.
        age_s: for how long newer states may have escaped the server, in seconds.
    """

    role: str
    replica: Replica
    state: ClusterState
    note: str
    age_s: float = 0.0


def ask_state(
    address: str, *, timeout_s: float = 5.0, dial: Dial = dial_plain, credential: str = ""
) -> ServerView:
    """Ask a node or a coordinator for the cluster state. Blocks; may be called from any thread.

    Args:
        address: HOST:PORT of the server.
        timeout_s: how long it may take to answer.
        dial: opens the connection.
        credential: a token or a JWT to show to it, "" for none. So for the other questions here.

    Raises:
        Unavailable: no server answers there in time.
        LockringError: the server refuses.
    """
    with _connection(address, timeout_s, dial) as ask:
        welcome = ask(hello_of(credential), Welcome)
        answer = ask(GetState(_REQUEST), StateReply)
    assert isinstance(welcome, Welcome)
    assert isinstance(answer, StateReply)
    replica = Replica(welcome.node, welcome.incarnation)
    return ServerView(welcome.role, replica, decode_state(answer.state), answer.note, answer.age_ms / 1000)


def ask_drain(
    address: str, node: NodeId, *, timeout_s: float = 5.0, dial: Dial = dial_plain, credential: str = ""
) -> None:
    """Ask a node or a coordinator to move everything off a node. Blocks; may be called from any thread.

    Raises:
        UnknownNode: the cluster has no such member.
        LastNode: no other node can take its slots.
        Unavailable: no server answers there in time, for the reason "unreachable" if it was not sent the order; or that
            server cannot reach the coordinator.
        LockringError: the server refuses.
    """
    with _connection(address, timeout_s, dial) as ask:
        ask(hello_of(credential), Welcome)
        ask(Drain(_REQUEST, node), DrainReply)


def ask_undrain(
    address: str, node: NodeId, *, timeout_s: float = 5.0, dial: Dial = dial_plain, credential: str = ""
) -> None:
    """Ask a node or a coordinator to let a drained node have slots again. Blocks; may be called from any thread.

    Raises:
        UnknownNode: the cluster has no such member.
        NodeLeaving: the node is stopping and leaves by itself.
        Unavailable: as for `ask_drain`.
        LockringError: the server refuses.
    """
    with _connection(address, timeout_s, dial) as ask:
        ask(hello_of(credential), Welcome)
        ask(Undrain(_REQUEST, node), UndrainReply)


def ask_status(
    address: str, *, timeout_s: float = 5.0, dial: Dial = dial_plain, credential: str = ""
) -> ServerStatus:
    """Ask a node or a coordinator for its own status at this moment. Blocks; may be called from any thread.

    Raises:
        Unavailable: no server answers there in time.
        LockringError: the server refuses.
    """
    return ask_report(address, timeout_s=timeout_s, dial=dial, credential=credential).status


def ask_report(
    address: str, *, timeout_s: float = 5.0, dial: Dial = dial_plain, credential: str = ""
) -> ServerReport:
    """Ask a node or a coordinator for its cluster too. See `ask_status`."""
    with _connection(address, timeout_s, dial) as ask:
        welcome = ask(hello_of(credential), Welcome)
        answer = ask(GetStatus(_REQUEST), StatusReply)
    assert isinstance(welcome, Welcome)
    assert isinstance(answer, StatusReply)
    return ServerReport(welcome.cluster, answer.status)


def end_session(
    address: str, session: SessionId, *, timeout_s: float = 2.0, dial: Dial = dial_plain, credential: str = ""
) -> None:
    """Give up everything that a session has, at every node of a cluster. Blocks; may be called from any thread.

    For a supervisor that knows that the session's client is gone. A node that does not answer keeps the session until
    its TTL has passed there.

    Args:
        address: HOST:PORT of any node or coordinator.
        session: its id.
        timeout_s: how long each server may take to answer.
        dial: opens connections.
        credential: a token or a JWT to show to each, "" for none.

    Raises:
        Unavailable: no server answers at `address` in time.
        LockringError: the server refuses.
    """
    with _connection(address, timeout_s, dial) as ask:
        welcome = ask(hello_of(credential), Welcome)
        routes = ask(
            GetRoutes(NO_VERSION, _REQUEST), Routes
        )  # every client gets them; the state needs a right
    assert isinstance(welcome, Welcome)
    assert isinstance(routes, Routes)
    for _, _, member in routes.members:
        with contextlib.suppress(Unavailable), _connection(member, timeout_s, dial) as ask:
            ask(hello_of(credential, welcome.cluster), Welcome)
            ask(CloseSession(_REQUEST, session), ReleaseReply)


def hello_of(credential: str, cluster: ClusterId = NO_CLUSTER) -> ClientHello:
    """Return the first message of a client that asks once; without a cluster, any cluster may answer."""
    return ClientHello(
        PROTOCOL,
        cluster=cluster,
        client=ClientId(new_id()),
        connection=GreetingNumber(1),
        software="lockring",
        credential=credential,
    )


@contextlib.contextmanager
def _connection(address: str, timeout_s: float, dial: Dial) -> Iterator[Conversation]:
    talk: Conversation | None = None
    try:
        with contextlib.closing(dial(address, timeout_s)) as stream:
            talk = Conversation(stream, address, timeout_s)
            yield talk
    except LockringError:  # a refusal is an answer, though some are errors of the system too
        raise
    except OSError as error:
        raise no_answer(error, address, timeout_s, talk) from error


def no_answer(
    error: OSError, address: str, timeout_s: float, conversation: Conversation | None
) -> Unavailable:
    """Return the error of a question that the system has ended.

    Args:
        error: the system's.
        address: HOST:PORT of the server.
        timeout_s: how long it had to answer.
        conversation: None if there is no connection yet.
    """
    is_greeted = conversation is not None and conversation.is_greeted
    text = f"cannot be reached: {reason_of(error)}"
    if isinstance(error, TimeoutError):
        text = f"did not answer within {timeout_s:g} s"
    unanswered = Unavailable(f"{address} {text}", reason="silent" if is_greeted else "unreachable")
    # A command asks again only where a server has answered, and tells by this. `raise … from` sets it in interpreted
    # code alone.
    unanswered.__cause__ = error
    return unanswered


class Conversation:
    """Questions and answers on one connection, one after the other. Not safe for use by several threads.

    Args:
        stream: the connection.
        address: HOST:PORT of the server, for errors.
        timeout_s: how long all of it may take, unless `allow` gives more.
    """

    def __init__(self, stream: ByteStream, address: str, timeout_s: float) -> None:
        self._stream = stream
        self._address = address
        self.is_greeted = False
        """Whether the server has answered once, so that it is one of lockring's and may have taken what came next."""
        self._reader = FrameReader(_decoder, FRAME_BYTES_MAX)
        self._end_ns = monotonic_ns() + seconds_to_ns(timeout_s)
        self._read: list[Message] = []

    def allow(self, timeout_s: float) -> None:
        """Give the questions that follow so many seconds from now on."""
        self._end_ns = monotonic_ns() + seconds_to_ns(timeout_s)

    def __call__(self, question: Message, answer: type[Message]) -> Message:
        """Send a message and return the answer of that type; skip messages that are pushed in between."""
        self._stream.sendall(encode_frame(question))
        while True:
            while self._read:
                message = self._read.pop(0)
                if isinstance(message, Refusal):
                    raise error_of(message)
                if isinstance(message, answer):
                    self.is_greeted = True
                    return message
            left_s = (self._end_ns - monotonic_ns()) / NS_PER_S
            if left_s <= 0:
                raise TimeoutError
            self._stream.settimeout(left_s)
            data = self._stream.recv(_READ_BYTES)
            if not data and self.is_greeted:
                text = f"{self._address} ended the connection before it answered"
                raise Unavailable(text, reason="silent")
            if not data:
                raise self._stranger("it ended the connection without an answer")
            try:
                self._read += self._reader.feed(data)
            except ProtocolError as error:
                raise self._stranger(str(error)) from error

    def _stranger(self, reason: str) -> ProtocolError:
        """Return the error of a server that does not speak as one of lockring's. Those refuse in their own words."""
        return ProtocolError(f"{self._address} is not a lockring server: {reason}")


_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToClient)
