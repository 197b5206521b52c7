"""The node of this process, as the gRPC API sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from lockring.cluster_state import ClusterState, Replica
from lockring.ids import SlotNumber, Version
from lockring.protocol import Drain, DrainReply, Message, Refusal, Undrain, UndrainReply
from lockring.protocol.identities import Identity


class LocalConnection(Protocol):
    """A client's connection to the node of this process."""

    def ask(self, message: Message) -> None:
        """Hand a message to the node."""

    def hang_up(self) -> None:
        """End the connection."""


class OpenOrder(Protocol):
    """An operator's request that waits for the coordinator's answer."""

    def hang_up(self) -> None:
        """End the wait, and the connection on which it was sent. Harmless after the answer."""


class NodeHost(Protocol):
    """The node of this process."""

    @property
    def address(self) -> str:
        """HOST:PORT of its lock port, as advertised to others."""

    @property
    def replica(self) -> Replica:
        """The node, and its present life."""

    @property
    def state(self) -> ClusterState:
        """The newest state that it has."""

    def connect_local(
        self, receive: Callable[[Message], None], ended: Callable[[str], None]
    ) -> LocalConnection:
        """Connect a client to the node's present life, until `ended` is called with the reason."""

    def pass_on(
        self,
        order: Drain | Undrain,
        answer: Callable[[DrainReply | UndrainReply | Refusal], None],
        asker: Identity | None,
    ) -> OpenOrder:
        """Give an operator's request to the coordinator; its answer goes to `answer`, unless the caller hangs up.

        Args:
            order: the request.
            answer: called once.
            asker: the operator's identity, None where identities are not checked.
        """


class SlotPlace(NamedTuple):
    """The node that has a slot: "" if there is none, and for addresses that are not known."""

    node: str
    address: str
    grpc: str
    version: Version


def place_of(state: ClusterState, slot: SlotNumber) -> SlotPlace:
    """Return where a slot is by a cluster state."""
    primary = state.slots[slot].primary
    member = None if primary is None else state.members.get(primary.node)
    if member is None or member.replica != primary:
        return SlotPlace("" if primary is None else primary.node, "", "", state.version)
    return SlotPlace(member.replica.node, member.address, member.grpc, state.version)
