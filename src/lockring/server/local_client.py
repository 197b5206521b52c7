"""A client of a node in the node's own process: its messages pass without a socket, and mean the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lockring.clock import monotonic_ns
from lockring.errors import LockringError
from lockring.protocol import Message, Refusal
from lockring.server.node_life import NodeLife


class LocalClient:
    """One client in this process, connected to one life of the node. Made by `NodeServer.connect_local`.

    Args:
        number: of the connection, for the core.
        life: of the node.
        receive: called with each message for the client, its welcome among them.
        end: called once the node has ended the connection, with the reason.
    """

    def __init__(
        self, number: int, life: NodeLife, receive: Callable[[Message], None], end: Callable[[str], None]
    ) -> None:
        self.remote = "a gRPC client"
        self._number = number
        self._life = life
        self._receive = receive
        self._end = end

    def ask(self, message: Message) -> None:
        """Hand a message of the client to the node, its hello first."""
        self._life.core.receive(self._number, message, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def hang_up(self) -> None:
        """End the connection from the client's side. Harmless after the node has ended it."""
        self._leave()
        self._end("the client has hung up")

    def send(self, message: Message) -> None:
        """See `Answerable`: pass the node's message to the client."""
        self._receive(message)

    def turn_away(self, error: LockringError) -> None:
        """See `Guest`: say why the node does not serve this client, then end."""
        self._receive(Refusal(0, error.code, str(error)))
        self._end("it was refused")

    def close(self, reason: str) -> None:
        """See `Answerable`: end the connection from the node's side."""
        # Soon, and not at once: the core is asking for this, and must not be called meanwhile.
        asyncio.get_running_loop().call_soon(self._leave)
        self._end(reason)

    def _leave(self) -> None:
        """Report the end of the connection to the node, unless its life has ended."""
        if self._number in self._life.accepted:
            self._life.accepted.remove(self._number)
            self._life.core.disconnected(self._number, now_ns=monotonic_ns())
            self._life.pump.schedule()
