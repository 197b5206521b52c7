"""Who is asked about a lock: the node of this process if it is the primary, else the one that is, and nobody further.

What may be repeated is, for a while, where the primary is just changing: each time straight to the one that the newest
state names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Replica
from lockring.errors import LockringError, Moved, NotCoordinator, StaleVersion, Unavailable, from_code
from lockring.grpc_api.channels import LocalChannel, NodeChannel, NodeHost, RemoteChannel
from lockring.ids import NO_NODE, NodeId, RequestNumber, SessionId, SlotNumber, Version
from lockring.protocol import LossNotice, Message, Refusal
from lockring.slots import slot_of
from lockring.units import NS_PER_MS, NS_PER_S

PATIENCE_NS: Final = 5 * NS_PER_S
"""How long a question is repeated while nobody serves its slot: longer than a failover with the default leases takes."""

_PAUSE_NS_MIN: Final = 50 * NS_PER_MS
_PAUSE_NS_MAX: Final = NS_PER_S // 2
_CONNECT_S_MAX: Final = 2.0

AGAIN: Final = (Moved, Unavailable, StaleVersion, NotCoordinator)
"""Refusals after which the same thing may be asked again."""

Made = Callable[[RequestNumber, Version], Message]
"""Makes a request, given its number and the version of the state by which it is sent."""


class Where(NamedTuple):
    """Which node has a slot: "" where none has, and for addresses that are not known."""

    node: NodeId
    address: str
    grpc: str
    version: Version


class Forwarder:
    """Finds the port for each request. Lives in one event loop.

    Args:
        host: the node of this process.
    """

    def __init__(self, host: NodeHost) -> None:
        self.host = host
        self._listeners: dict[str, dict[Callable[[LossNotice], None], None]] = {}
        self._local = LocalChannel(host, self._lost)
        self._remote: dict[Replica, RemoteChannel] = {}
        self._news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def state(self) -> ClusterState:
        """The newest state."""
        return self.host.state

    def state_changed(self) -> None:
        """There is a new state: whoever waits for one looks again, and connections to former members end."""
        for peer in [each for each in self._remote if not self.state.is_current(each)]:
            self._remote.pop(peer).close("the node has left the cluster")
        news, self._news = self._news, asyncio.get_running_loop().create_future()
        news.set_result(None)

    def close(self) -> None:
        """End all connections."""
        for port in self._remote.values():
            port.close("the gRPC API ends")
        self._remote.clear()
        self._local.broke()

    # ----------------------------------------------------------------------- where to

    @property
    def news(self) -> asyncio.Future[None]:
        """Done with the next state. Not to be cancelled."""
        return self._news

    async def pause(self, attempts: int, until_ns: int) -> None:
        """Wait for a new state, for a time that grows with the attempts, and not beyond `until_ns`."""
        wait_ns = min(_PAUSE_NS_MAX, _PAUSE_NS_MIN << min(attempts, 10), max(0, until_ns - monotonic_ns()))
        await asyncio.wait({self._news}, timeout=wait_ns / NS_PER_S)

    def primary_of(self, slot: SlotNumber) -> Replica | None:
        """The primary of a slot by the newest state."""
        return self.state.slots[slot].primary

    def where(self, slot: SlotNumber) -> Where:
        """Where a slot is by the newest state."""
        primary = self.primary_of(slot)
        member = None if primary is None else self.state.members.get(primary.node)
        if member is None or member.replica != primary:
            return Where(NO_NODE if primary is None else primary.node, "", "", self.state.version)
        return Where(member.replica.node, member.address, member.grpc, self.state.version)

    async def port_of(self, replica: Replica | None, until_ns: int) -> NodeChannel:
        """The port to a node, connected.

        Raises:
            Unavailable: it is None, or cannot be reached.
        """
        if replica is None:
            raise Unavailable("nobody serves this slot at present")
        if replica == self.host.replica:
            return self._local
        port = self._remote.get(replica)
        if port is None:
            address = self.state.address_of(replica)
            if address is None:
                raise Unavailable(f"{replica.node} is not a member at present")
            port = self._remote[replica] = RemoteChannel(replica, address, self._lost)
        if not port.is_up:
            await port.up(min(_CONNECT_S_MAX, max(0.0, (until_ns - monotonic_ns()) / NS_PER_S)))
        return port

    # ----------------------------------------------------------------------- asking

    async def ask(self, name: str, make: Made, until_ns: int) -> tuple[Message, int]:
        """Ask a lock's primary something that may be repeated, and return its answer and how often it was asked.

        Args:
            name: of the lock.
            make: makes the request.
            until_ns: when to give up.

        Raises:
            LockringError: what the node answered, or `Unavailable` if none could be asked in time.
        """
        slot = slot_of(name)
        attempts = sent = 0
        while True:
            try:
                port = await self.port_of(self.primary_of(slot), until_ns)
                sent += 1
                return await self.ask_once(port, make, until_ns), sent
            except AGAIN:
                if monotonic_ns() >= until_ns:
                    raise
            await self.pause(attempts, until_ns)
            attempts += 1

    async def ask_once(self, port: NodeChannel, make: Made, until_ns: int) -> Message:
        """Ask the node behind a port.

        Raises:
            LockringError: what it answered, or `Unavailable` if it did not answer in time.
        """
        version = self.state.version
        call = port.ask(lambda number: make(number, version))
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, (until_ns - monotonic_ns()) / NS_PER_S)):
                    await call.answer
        finally:
            port.forget(call)
        if not call.answer.done() or call.answer.cancelled():
            raise Unavailable("the lock's primary did not answer in time")
        return checked(call.answer.result())

    # ----------------------------------------------------------------------- what nodes push

    def listen(self, session: SessionId, listener: Callable[[LossNotice], None]) -> None:
        """Call `listener` with each loss that a node tells of this session."""
        self._listeners.setdefault(session, {})[listener] = None

    def unlisten(self, session: SessionId, listener: Callable[[LossNotice], None]) -> None:
        """Undo `listen`."""
        listeners = self._listeners.get(session)
        if listeners is not None:
            listeners.pop(listener, None)
            if not listeners:
                del self._listeners[session]

    def _lost(self, lost: LossNotice) -> None:
        for listener in list(self._listeners.get(lost.session, ())):
            listener(lost)


def checked(answer: Message | None) -> Message:
    """An answer as it is.

    Raises:
        LockringError: it is a refusal, or there is none since the connection broke.
    """
    if answer is None:
        raise Unavailable("the connection to the lock's primary was lost")
    if isinstance(answer, Refusal):
        raise error_of(answer)
    return answer


def error_of(refused: Refusal) -> LockringError:
    """The error that a refusal stands for."""
    return from_code(refused.code, refused.text, name=refused.name)
