"""A node's lock port: what comes on accepted connections goes to the node's present life."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from lockring.clock import monotonic_ns
from lockring.net.accepted import CLIENT, AcceptedConnection
from lockring.net.connection import Outbox
from lockring.net.listener import Listener
from lockring.protocol import Message
from lockring.server.node_life import NodeLife
from lockring.units import NS_PER_MS

_SLICE_NS_MAX: Final = 50 * NS_PER_MS
"""How long one client's messages are handled before others have their turn: short questions may have long answers."""

_PART: Final = 16
"""After so many of a client's messages the answers so far leave: it can go on with them while the rest is handled."""

log: Final = logging.getLogger("lockring.node")


class NodePort:
    """The listener of a node, and the handler of its connections. Lives in one event loop.

    Args:
        outbox: where writes wait for the flush.
        present: returns the node's present life.
        ports: how many servers are in this process.
    """

    def __init__(self, outbox: Outbox, present: Callable[[], NodeLife], *, ports: int) -> None:
        self.listener = Listener(self, outbox, ports=ports)
        self._present = present

    def greet(self, connection: AcceptedConnection, hello: Message) -> None:
        """See `ConnectionHandler`. The core decides, at once."""
        self._present().greet(connection, hello)

    def deliver(self, connection: AcceptedConnection, messages: list[Message]) -> None:
        """See `ConnectionHandler`."""
        life = self._present()
        if connection.role is not CLIENT:
            life.receive_on(connection.number, messages)
            return
        now_ns = monotonic_ns()
        core, number = life.core, connection.number
        done = core.requests(number, messages[:_PART], now_ns=now_ns)
        while done < len(messages):
            life.pump.flush()
            if not connection.is_open:
                return  # a message that no client may send has ended it
            if monotonic_ns() - now_ns > _SLICE_NS_MAX:
                connection.hold(messages[done:])
                break
            done += core.requests(number, messages[done : done + _PART], now_ns=now_ns)
        life.pump.flush_if_idle(now_ns)

    def connection_closed(self, connection: AcceptedConnection, reason: str) -> None:
        """See `ConnectionHandler`."""
        log.debug("%s at %s has left: %s", connection.title, connection.remote, reason)
        self._present().guest_left(connection)
