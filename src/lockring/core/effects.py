"""What a core asks its shell to do, and the contract between the two.

A core is a state machine without I/O. Its shell

1. reads from the network, *then* reads the clock, and calls `receive(sender, message, now_ns=…)` for each
   message, or one of the other inputs that the core lists;
2. calls `on_timer(now_ns=…)` when `next_deadline_ns()` has come, after what has arrived was read;
3. after one or more inputs, reads the clock again and calls `take_effects(now_ns=…)`, once per turn of its
   loop, and carries the effects out in their order.

Effects to one endpoint keep their order. What an endpoint that is not connected does not get is lost:
the core hears of connections by `peer_connected` / `disconnected` and sends again what matters.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.cluster_state import ClusterState, Replica
from lockring.protocol import Message


class Coordinator(NamedTuple):
    """The coordinator, as an endpoint of a node: the one the node is connected to."""


COORDINATOR: Final = Coordinator()

Connection = int
"""An accepted connection (a client's, or anyone's that asks), numbered by the shell and never reused."""

Endpoint = Connection | Replica | Coordinator


class Send(NamedTuple):
    """Send a message. To a `Replica`, on the node's own outgoing connection to that life of the peer."""

    to: Endpoint
    message: Message


class Close(NamedTuple):
    """Close a connection once what was sent on it before is out."""

    to: Endpoint
    reason: str


class Reply(NamedTuple):
    """Answer a replica on the connection that *it* opened (acknowledgements of its replication stream)."""

    to: Replica
    message: Message


class Publish(NamedTuple):
    """A new cluster state is in force: tell whoever listens (a coordinator: every node and client;
    a node: its clients, as `Routes`)."""

    state: ClusterState


class StoreRead(NamedTuple):
    """Read the stored state; answer with `store_result(operation, ok=True, state=…)`, or ok=False on failure."""

    operation: int


class StoreWrite(NamedTuple):
    """Compare-and-set: store `state` if the stored version is `expected_version`.

    Answer with `store_result(operation, ok=written, state=what is stored now)`; state=None if unknown.
    """

    operation: int
    expected_version: int
    state: ClusterState


class Note(NamedTuple):
    """Something happened that an operator needs to know: a line for the log.

    Attributes:
        text: a sentence.
        asked_by: the connection on which it was asked for; None if it was not.
    """

    text: str
    asked_by: Connection | None = None


Effect = Send | Close | Reply | Publish | StoreRead | StoreWrite | Note
