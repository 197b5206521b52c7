"""A client of a node that lives in the node's own process: its messages pass without a socket, and mean the same."""

from __future__ import annotations

from collections.abc import Callable

from lockring.clock import monotonic_ns
from lockring.errors import LockringError
from lockring.ids import ConnectionId
from lockring.protocol import Message
from lockring.server.node_life import NodeLife


class LocalClient:
    """One client in this process, connected to one life of the node. Made by `NodeServer.connect_local`.

    Args:
        number: of the connection, for the core.
        life: of the node.
        receive: called with each message for the client.
        end: called when the life has ended.
    """

    def __init__(
        self,
        number: ConnectionId,
        life: NodeLife,
        receive: Callable[[Message], None],
        end: Callable[[], None],
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

    def turn_away(self, error: LockringError) -> None:
        """See `Answerable`: the node does not serve this client."""
        self._end()

    def close(self, reason: str) -> None:
        """See `Answerable`: the node wants to hear no more of it."""
        self._end()
