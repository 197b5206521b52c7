"""A client of a node that lives in the node's own process: its messages pass without a socket, and mean the same."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from lockring.clock import monotonic_ns
from lockring.errors import LockringError, Unavailable
from lockring.protocol import Drain, DrainReply, Message, Refusal, Undrain, UndrainReply
from lockring.server.node_life import NodeLife

Answer = Callable[[DrainReply | UndrainReply | Refusal], None]
"""Takes what the coordinator says to an operator's request, or that it cannot be reached."""


class LocalClient:
    """One client in this process, connected to one life of the node. Made by `NodeServer.connect_local`.

    Args:
        number: of the connection, for the core.
        life: of the node.
        receive: called with each message for the client.
        end: called when the life has ended.
    """

    def __init__(
        self, number: int, life: NodeLife, receive: Callable[[Message], None], end: Callable[[], None]
    ) -> None:
        self.remote = "a gRPC client"
        self._number = number
        self._life = life
        self._receive = receive
        self._end = end

    def ask(self, message: Message) -> None:
        """Hand a message of the client to the node."""
        self._life.core.receive(self._number, message, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def send(self, message: Message) -> None:
        """See `Answerable`: the node's message to the client."""
        self._receive(message)

    def hang_up(self) -> None:
        """End the conversation."""
        self._life.left(self._number)
        self._end()

    def turn_away(self, error: LockringError) -> None:
        """See `Answerable`: the node does not serve this client."""
        self._end()

    def close(self, reason: str) -> None:
        """See `Answerable`: the node wants to hear no more of it."""
        self._end()


class LocalHost(Protocol):
    """A node that takes clients of its own process."""

    def connect_local(
        self, client: str, receive: Callable[[Message], None], ended: Callable[[], None]
    ) -> LocalClient:
        """Be a client of the node's present life, until `ended` is called."""


class OrderingClient:
    """An operator's client for one request, which ends with the answer.

    Args:
        host: the node.
        answer: called once.
    """

    def __init__(self, host: LocalHost, answer: Answer) -> None:
        self._answer: Answer | None = answer
        self._line = host.connect_local(secrets.token_hex(8), self._receive, self._ended)

    def ask(self, order: Drain | Undrain) -> None:
        """Send the request."""
        self._line.ask(type(order)(1, order.node))

    def _receive(self, message: Message) -> None:
        if isinstance(message, (DrainReply, UndrainReply, Refusal)):
            self._finish(message)
            self._line.hang_up()

    def _ended(self) -> None:
        self._finish(
            Refusal(0, Unavailable.code, "the node began a new life before the coordinator answered")
        )

    def _finish(self, message: DrainReply | UndrainReply | Refusal) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(message)
