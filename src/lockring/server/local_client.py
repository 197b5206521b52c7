"""Clients of a node in the node's own process: their messages pass without a socket, and mean the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Replica
from lockring.core.refusals import refusal_of
from lockring.errors import LockringError, Unavailable
from lockring.ids import NO_REQUEST, ClientId, ConnectionId, GreetingNumber, RequestNumber
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    DrainReply,
    Message,
    OnBehalfOf,
    Refusal,
    Undrain,
    UndrainReply,
)
from lockring.protocol.identities import Identity
from lockring.random_ids import new_id
from lockring.server.coordinator_link import NodePlace
from lockring.server.node_life import NodeLife

Answer = Callable[[DrainReply | UndrainReply | Refusal], None]
"""Takes what the coordinator says to an operator's request, or that it cannot be reached."""


class LocalClient:
    """One client in this process, connected to one life of the node. Made by `LocalClients.connect_local`.

    Args:
        number: the connection's number, for the node's core.
        life: the node's life to which it is connected.
        receive: called with each message for the client, its welcome among them.
        end: called once the node has ended the connection, with the reason.
    """

    def __init__(
        self,
        number: ConnectionId,
        life: NodeLife,
        receive: Callable[[Message], None],
        end: Callable[[str], None],
    ) -> None:
        self.remote = "a gRPC client"
        self._number = number
        self._life = life
        self._receive = receive
        self._end = end
        self._is_over = False

    def ask(self, message: Message) -> None:
        """Hand a message of the client to the node, its hello first."""
        if self._life.spans is not None:
            self._life.spans.arrived(self._number, (message,))
        self._life.core.receive(self._number, message, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def hang_up(self) -> None:
        """End the connection from the client's side. Harmless after the node has ended it."""
        self._leave()
        self._ended("the client has hung up")

    def send(self, message: Message) -> None:
        """See `Answerable`: pass the node's message to the client."""
        if not self._is_over:
            self._receive(message)

    def turn_away(self, error: LockringError) -> None:
        """See `Answerable`: give the reason why the node does not serve this client, then end."""
        self.send(refusal_of(error))
        self._ended("it was refused")

    def close(self, reason: str) -> None:
        """See `Answerable`: end the connection from the node's side."""
        # Soon, and not at once: the core is asking for this, and must not be called meanwhile.
        asyncio.get_running_loop().call_soon(self._leave)
        self._ended(reason)

    def _leave(self) -> None:
        """Report the end of the connection to the node, unless its life has ended."""
        if self._number in self._life.guests:
            self._life.left(self._number)

    def _ended(self, reason: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._end(reason)


class LocalClients:
    """The clients of a node in its own process, and the node as they see it. Lives in one event loop.

    Args:
        present: returns the node's present life.
        place: the addresses under which others reach the node.
    """

    def __init__(self, present: Callable[[], NodeLife], place: NodePlace) -> None:
        self._present = present
        self._place = place
        self._count = 0

    @property
    def address(self) -> str:
        """HOST:PORT of the node's lock port, as advertised to others."""
        return self._place.address

    @property
    def replica(self) -> Replica:
        """The node's id and its present incarnation."""
        return self._present().core.replica

    @property
    def state(self) -> ClusterState:
        """The newest state that the node has."""
        return self._present().core.state

    def connect_local(self, receive: Callable[[Message], None], ended: Callable[[str], None]) -> LocalClient:
        """Connect a client of this process to the node's present life, without a socket.

        Args:
            receive: called with each message for it, in the event loop.
            ended: called with the reason once no more will come; the client may connect again.
        """
        self._count += 1
        number = ConnectionId(-self._count)  # those of accepted connections are positive
        life = self._present()
        local = LocalClient(number, life, receive, ended)
        life.accept(number, local, life.gate.own(life.core.replica.node))
        return local

    def pass_on(
        self, order: Drain | Undrain, answer: Answer, asker: Identity | None = None
    ) -> OrderingClient:
        """Ask for what an operator wants as any client would, and call `answer` once with what comes back.

        Args:
            order: the request.
            answer: called once.
            asker: the operator's identity, None where identities are not checked.

        Returns:
            The client that waits for the answer, so that the operator can hang up before it has come.
        """
        client = OrderingClient(self, answer, asker)
        client.ask(order)
        return client


class OrderingClient:
    """An operator's client for one request, which ends with the answer.

    Args:
        host: the node.
        answer: called once.
        asker: the operator's identity, None where identities are not checked.
    """

    def __init__(self, host: LocalClients, answer: Answer, asker: Identity | None) -> None:
        self._answer: Answer | None = answer
        self._line = host.connect_local(self._receive, self._ended)
        self._line.ask(ClientHello(PROTOCOL, host.state.cluster, ClientId(new_id()), GreetingNumber(1)))
        if asker is not None:
            self._line.ask(OnBehalfOf(asker))

    def ask(self, order: Drain | Undrain) -> None:
        """Send the request."""
        self._line.ask(type(order)(RequestNumber(1), order.node))

    def hang_up(self) -> None:
        """End the wait for the answer, which is not passed on any more. Harmless after the answer."""
        self._answer = None
        self._line.hang_up()

    def _receive(self, message: Message) -> None:
        if isinstance(message, (DrainReply, UndrainReply, Refusal)):
            self._finish(message)
            self._line.hang_up()

    def _ended(self, reason: str) -> None:
        text = f"the node ended the connection before the coordinator answered: {reason}"
        self._finish(Refusal(NO_REQUEST, Unavailable.code, text))

    def _finish(self, message: DrainReply | UndrainReply | Refusal) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(message)
