"""A node's lock port: what comes on accepted connections goes to the node's present life."""

from __future__ import annotations

import logging
from typing import Final

from lockring.core.histograms import NOTED_MAX, Durations
from lockring.net.accepted import CLIENT, AcceptedConnection
from lockring.net.connection import Outbox
from lockring.net.listener import Listener
from lockring.protocol import Message
from lockring.server.node_lives import NodeLives
from lockring.units import NS_PER_MS

_SLICE_NS_MAX: Final = 50 * NS_PER_MS
"""How long one client's messages are handled before others have their turn: short questions may have long answers."""

_PART: Final = 16
"""After so many messages of one read the answers so far leave: the client goes on with them meanwhile."""

_FIRST_PART: Final = 8
"""The same for the first part: with 16, a client that has 32 requests under way is often done before the next answers
are there, and sleeps. Not where answers wait for a sync: that is better begun for more of them."""

log: Final = logging.getLogger("lockring.node")


class NodePort:
    """The listener of a node, and the handler of its connections. Lives in one event loop.

    Args:
        outbox: where writes wait for the flush.
        lives: the node's, whose present one has the connections.
        ports: how many servers are in this process.
        has_calls: whether the node serves gRPC too.
        waits_for_sync: whether grants are answered only when they are synced to the disk.
        batches: counts how long the handling of the requests of one read takes.
    """

    def __init__(
        self,
        outbox: Outbox,
        lives: NodeLives,
        *,
        ports: int,
        has_calls: bool,
        waits_for_sync: bool,
        batches: Durations,
    ) -> None:
        self.listener = Listener(self, outbox, ports=ports, has_calls=has_calls)
        self._lives = lives
        self._first_part = _PART if waits_for_sync else _FIRST_PART
        self._batches = batches

    def greet(self, connection: AcceptedConnection, hello: Message) -> None:
        """See `ConnectionHandler`. The core decides, at once."""
        self._lives.present.greet(connection, hello)

    def deliver(self, connection: AcceptedConnection, messages: list[Message], now_ns: int) -> int:
        """See `ConnectionHandler`."""
        life, number = self._lives.present, connection.number
        if connection.role is not CLIENT:
            return life.receive(number, messages, now_ns)
        if life.spans is not None:
            life.spans.arrived(number, messages)
        part = self._first_part
        first = messages if len(messages) <= part else messages[:part]
        done = life.core.requests(number, first, now_ns=now_ns)
        if done < len(messages):
            ended_ns = self._go_on(connection, messages, done, now_ns)
        else:
            ended_ns = life.pump.flush_if_idle(now_ns)
        # Written out, since each call is felt in the time of a lone request.
        noted = self._batches.noted
        noted.append(ended_ns - now_ns)
        if len(noted) >= NOTED_MAX:
            self._batches.count_noted()
        return ended_ns

    def _go_on(self, connection: AcceptedConnection, messages: list[Message], done: int, now_ns: int) -> int:
        """Handle the rest of a client's messages, and return the clock at the end."""
        life, number = self._lives.present, connection.number
        while done < len(messages):
            flushed_ns = life.pump.flush()
            if not connection.is_open:
                return flushed_ns  # a message that no client may send has ended it
            if flushed_ns - now_ns > _SLICE_NS_MAX:
                connection.hold(messages[done:])
                return flushed_ns
            done += life.core.requests(number, messages[done : done + _PART], now_ns=now_ns)
        return life.pump.flush_if_idle(now_ns)

    def connection_closed(self, connection: AcceptedConnection, reason: str) -> None:
        """See `ConnectionHandler`."""
        log.debug("%s at %s has left: %s", connection.title, connection.remote, reason)
        self._lives.present.guest_left(connection)
