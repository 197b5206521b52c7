"""Conversations with nodes, over which the gRPC API asks what it was asked: one with each node that is some lock's primary.

To the node of this process they lead without a socket, to any other over one ordinary client connection to its lock
port, which is dialed when it is first needed. A lock port passes nothing on, so nothing that was passed on is passed on again.

Whatever is open on a port that breaks is answered with None, at once: whoever asked knows best whether to ask again.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from lockring._version import __version__
from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Replica
from lockring.errors import AcquireTimeout, LockringError, StaleVersion, Unavailable
from lockring.ids import NO_REQUEST, RequestNumber
from lockring.net.connection import Outbox
from lockring.net.dialer import Dialer
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    DrainReply,
    LossNotice,
    Message,
    QueueNotice,
    Refusal,
    ToClient,
    TroubleNotice,
    Undrain,
    UndrainReply,
    Unwatch,
    WatchNotice,
    Welcome,
)
from lockring.units import NS_PER_S

_PAUSE_S_MIN: Final = 0.05
_PAUSE_S_MAX: Final = 0.5
_LOOK_S: Final = 1.0
_SILENCE_NS_MAX: Final = 3 * NS_PER_S
_SOFTWARE: Final = f"lockring-grpc {__version__}"

Make = Callable[[RequestNumber], Message]
"""Makes a request, given its number."""

Sink = Callable[[WatchNotice | Refusal | None], None]
"""Takes what a watch brings; None once its port has broken."""


class ChannelCall(NamedTuple):
    """A request that is open on a port.

    Attributes:
        number: its own.
        sent_at_ns: when it was sent.
        answer: the answer, which may be a refusal; None if the port broke before it came.
    """

    number: RequestNumber
    sent_at_ns: int
    answer: asyncio.Future[Message | None]


class ChannelListener(Protocol):
    """A client's connection to the node of this process."""

    def ask(self, message: Message) -> None:
        """Hand a message to the node."""


class NodeHost(Protocol):
    """The node of this process, as the gRPC API sees it."""

    @property
    def replica(self) -> Replica:
        """Which life of which node it is."""

    @property
    def state(self) -> ClusterState:
        """The newest state that it has."""

    def connect_local(
        self, client: str, receive: Callable[[Message], None], ended: Callable[[], None]
    ) -> ChannelListener:
        """Be a client of the node's present life, until `ended` is called."""

    def pass_on(
        self, order: Drain | Undrain, answer: Callable[[DrainReply | UndrainReply | Refusal], None]
    ) -> None:
        """Give an operator's request to the coordinator; `answer` is called with what it says."""


class NodeChannel:
    """What both kinds have in common. Lives in one event loop.

    Args:
        on_lost: called with each `LossNotice` that the node pushes.
    """

    def __init__(self, on_lost: Callable[[LossNotice], None]) -> None:
        self._on_lost = on_lost
        self._numbers = 0
        self._calls: dict[RequestNumber, asyncio.Future[Message | None]] = {}
        self._watches: dict[RequestNumber, Sink] = {}
        self._queued: set[int] = set()
        self.trouble: TroubleNotice | None = None
        """What keeps the node from serving, as it has told."""
        self.heard_at_ns = 0
        """When something came last."""

    @property
    def is_up(self) -> bool:
        """Whether something can be asked."""
        raise NotImplementedError

    @property
    def is_busy(self) -> bool:
        """Whether anything is open."""
        return bool(self._calls or self._watches)

    def ask(self, make: Make) -> ChannelCall:
        """Send a request.

        Raises:
            Unavailable: the port is not up.
        """
        number = self._next()
        answer: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._calls[number] = answer
        call = ChannelCall(number, monotonic_ns(), answer)
        self._transmit(make(number))
        return call

    def watch(self, make: Make, sink: Sink) -> RequestNumber:
        """Send a request that is answered again and again, and return its number for `unwatch`.

        Raises:
            Unavailable: the port is not up.
        """
        number = self._next()
        self._watches[number] = sink
        self._transmit(make(number))
        return number

    def unwatch(self, number: RequestNumber) -> None:
        """End a watch. Harmless if it has ended."""
        if self._watches.pop(number, None) is not None and self.is_up:
            self.ask(lambda request: Unwatch(request, number))

    def forget(self, call: ChannelCall) -> None:
        """Nobody waits for the answer any more."""
        self._calls.pop(call.number, None)
        self._queued.discard(call.number)

    def too_late(self, call: ChannelCall, name: str) -> LockringError:
        """Why an acquire was not answered in its time: others have the lock only if its node has said so."""
        if self.trouble is not None and self.trouble.all:
            since_s = self.trouble.since_ms / 1000
            return Unavailable(self.trouble.text, name=name, reason=self.trouble.reason, since_s=since_s)
        if call.number in self._queued:
            return AcquireTimeout(f"lock {name!r} was not granted in time: it is held by others", name=name)
        return Unavailable(f"the primary of {name!r} did not answer in time", name=name, reason="silent")

    def take(self, message: Message) -> None:
        """A message came from the node."""
        self.heard_at_ns = monotonic_ns()
        if isinstance(message, LossNotice):
            self._on_lost(message)
            return
        if isinstance(message, QueueNotice):
            if message.request in self._calls:
                self._queued.add(message.request)
            return
        if isinstance(message, TroubleNotice):
            self.trouble = message if message.reason else None
            return
        number = getattr(message, "request", None)
        if number is None:
            return  # routes: the node of this process knows them too
        answer = self._calls.pop(number, None)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
        elif isinstance(message, WatchNotice) and number in self._watches:
            self._watches[number](message)
        elif isinstance(message, Refusal) and number in self._watches:
            self._watches.pop(number)(message)

    def broke(self) -> None:
        """Nothing that is open will be answered."""
        calls, self._calls = self._calls, {}
        self._queued.clear()
        self.trouble = None
        watches, self._watches = self._watches, {}
        for answer in calls.values():
            if not answer.done():
                answer.set_result(None)
        for sink in watches.values():
            sink(None)

    def _next(self) -> RequestNumber:
        if not self.is_up:
            raise Unavailable("there is no connection to the lock's primary at present")
        self._numbers += 1
        return RequestNumber(self._numbers)

    def _transmit(self, message: Message) -> None:
        raise NotImplementedError


class LocalChannel(NodeChannel):
    """To the node of this process."""

    def __init__(self, host: NodeHost, on_lost: Callable[[LossNotice], None]) -> None:
        super().__init__(on_lost)
        self._host = host
        self._client = secrets.token_hex(8)
        self._line: ChannelListener | None = None

    @property
    def is_up(self) -> bool:
        """Always: it is connected when it is needed."""
        return True

    def _transmit(self, message: Message) -> None:
        if self._line is None:
            self._line = self._host.connect_local(self._client, self.take, self._ended)
        self._line.ask(message)

    def _ended(self) -> None:
        self._line = None
        self.broke()


class RemoteChannel(NodeChannel):
    """To the lock port of another node: of one life of it.

    Args:
        peer: which life.
        address: HOST:PORT.
        on_lost: as in `NodeChannel`.
    """

    def __init__(self, peer: Replica, address: str, on_lost: Callable[[LossNotice], None]) -> None:
        super().__init__(on_lost)
        self._peer = peer
        self._client = secrets.token_hex(8)
        self._hellos = 0
        self._outbox = Outbox()
        self._flush_is_due = False
        self._change = asyncio.Event()
        self._trouble = f"{peer.node} at {address} has not answered yet"
        self._looked_at_ns = monotonic_ns()
        self._dialer = Dialer(
            self,
            lambda: [address],
            ToClient,
            self._outbox,
            pause_s_min=_PAUSE_S_MIN,
            pause_s_max=_PAUSE_S_MAX,
        )
        self._dialer.start()
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    @property
    def is_up(self) -> bool:
        """Whether the node has welcomed this client."""
        return self._dialer.connection is not None

    async def up(self, timeout_s: float) -> None:
        """Wait until it is up.

        Raises:
            Unavailable: it is not within the time.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.is_up:
                    self._change.clear()
                    await self._change.wait()
        if not self.is_up:
            raise Unavailable(self._trouble)

    def close(self, reason: str) -> None:
        """End the connection for good."""
        self._timer.cancel()
        self._dialer.close(reason)
        self.broke()
        self._change.set()

    def _transmit(self, message: Message) -> None:
        connection = self._dialer.connection
        assert connection is not None
        connection.send(message)
        if not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        self._outbox.flush()

    def _look(self) -> None:
        """Notice a node that is connected and does not answer: nobody else would, where answers may take long. It is asked also
        while there is nothing else to ask: what lies between would drop an idle connection, and the next call would find that out."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now_ns = monotonic_ns()
        was_stalled = now_ns - self._looked_at_ns > 2 * _LOOK_S * NS_PER_S
        self._looked_at_ns = now_ns
        if not self.is_up:
            self.heard_at_ns = now_ns
        elif now_ns - self.heard_at_ns > _SILENCE_NS_MAX and not was_stalled:
            self._dialer.hang_up(f"{self._peer.node} did not answer in time")
        else:
            self.ask(
                lambda request: Unwatch(request, NO_REQUEST)
            )  # the cheapest question: no request has this number

    # ----------------------------------------------------------------------- Caller

    def hello(self) -> Message:
        """See `Caller`."""
        self._hellos += 1
        return ClientHello(PROTOCOL, "", self._client, self._hellos, _SOFTWARE)

    def connect_failed(self, address: str, error: LockringError, hint: int) -> None:
        """See `Caller`."""
        self._trouble = str(error)

    def opened(self, address: str, welcome: Welcome) -> None:
        """See `Caller`."""
        if Replica(welcome.node, welcome.incarnation) != self._peer:
            raise StaleVersion(f"{address} is {welcome.node}#{welcome.incarnation}, not {self._peer}")
        self.heard_at_ns = monotonic_ns()
        self._change.set()

    def arrived(self, messages: list[Message]) -> None:
        """See `Caller`."""
        for message in messages:
            self.take(message)

    def lost(self, reason: str) -> None:
        """See `Caller`."""
        self._trouble = f"the connection to {self._peer.node} was lost: {reason}"
        self.broke()
