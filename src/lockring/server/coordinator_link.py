"""A node's connection to its coordinator. It joins, and joins again whenever the connection is lost, without end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.cluster_state import Replica
from lockring.core.node import JoinFacts
from lockring.errors import (
    DuplicateNode,
    InvalidRequest,
    LockringError,
    ProtocolError,
    StaleVersion,
    Unavailable,
    WrongCluster,
    WrongRole,
)
from lockring.ids import Incarnation
from lockring.net.connection import FramedConnection, Outbox
from lockring.net.dialer import Dialer
from lockring.net.openers import Opener, open_plain
from lockring.protocol import (
    PROTOCOL,
    FromCoordinator,
    Join,
    Message,
    Welcome,
)
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

_PAUSE_S_MIN: Final = 0.1
_PAUSE_S_MAX: Final = 1.0
_CALM_NS: Final = 10 * NS_PER_S
_DUPLICATE_S: Final = 4.0
"""Longer than a coordinator takes to declare a silent life dead."""

log = logging.getLogger("lockring.node")


@dataclass
class NodePlace:
    """Where others reach a node, and how much it takes on.

    Attributes:
        weight: its share of slots, beside other nodes' weights.
        address: HOST:PORT of its lock port, as others are to dial it; "" until it listens.
        grpc: HOST:PORT of its gRPC port, "" if it has none.
    """

    weight: int
    address: str = ""
    grpc: str = ""


class Joiner(Protocol):
    """The node, as this connection sees it."""

    @property
    def replica(self) -> Replica:
        """The node's identity: its id and its incarnation."""

    def join_facts(self) -> JoinFacts:
        """Return what the node says of its cluster and of its former lives."""

    def begin_life(self, incarnation: Incarnation) -> None:
        """Begin another life with a new incarnation, since the cluster has seen a later one than the present."""

    def greet_coordinator(self, welcome: Welcome, address: str) -> None:
        """Take the welcome of the server at an address; raise a `LockringError` if the node may not join that one."""

    def joined(self) -> None:
        """Handle the coordinator's welcome."""

    def from_coordinator(self, messages: list[Message]) -> None:
        """Handle messages of the coordinator."""

    def coordinator_missing(self, why: str) -> None:
        """Learn why the coordinator is not reached, as a sentence for people."""

    def coordinator_lost(self) -> None:
        """Handle the end of the connection."""

    def fail(self, error: LockringError) -> None:
        """End the node's process, since waiting cannot mend the error."""


class CoordinatorLink:
    """See the module. Lives in one event loop.

    Args:
        node: the node that joins.
        place: the addresses under which others reach it.
        coordinators: HOST:PORT of each process that may be the coordinator.
        outbox: where writes wait for the flush.
        opener: opens the connection.
    """

    def __init__(
        self,
        node: Joiner,
        place: NodePlace,
        coordinators: Sequence[str],
        outbox: Outbox,
        *,
        opener: Opener = open_plain,
    ) -> None:
        self._node = node
        self._place = place
        self._where = " or ".join(coordinators)
        self._dialer = Dialer(
            self,
            lambda: coordinators,
            FromCoordinator,
            outbox,
            pause_s_min=_PAUSE_S_MIN,
            pause_s_max=_PAUSE_S_MAX,
            opener=opener,
        )
        self._was_joined = False
        self._problem = ""
        self._trouble = RepeatedTrouble(calm_ns=_CALM_NS)
        self._duplicate_since_s: float | None = None

    @property
    def connection(self) -> FramedConnection | None:
        """The connection on which the coordinator has welcomed the node, None without one."""
        return self._dialer.connection

    @property
    def note(self) -> str:
        """A sentence on what the node waits for, "" while it is connected."""
        if self._dialer.connection is not None:
            return ""
        return f"waiting for the coordinator at {self._where}: {self._problem or 'dialing'}"

    def start(self) -> None:
        """Begin to dial."""
        self._dialer.start()

    def close(self, reason: str) -> None:
        """Leave the coordinator, for good."""
        self._dialer.close(reason)

    # ----------------------------------------------------------------------- Caller

    def hello(self) -> Message:
        """See `Caller`."""
        place, replica, facts = self._place, self._node.replica, self._node.join_facts()
        return Join(
            protocol=PROTOCOL,
            cluster=facts.cluster,
            node=replica.node,
            incarnation=replica.incarnation,
            address=place.address,
            weight=place.weight,
            version=facts.version,
            grpc=place.grpc,
            former=list(facts.former),
            has=facts.has,
            identities=True,
        )

    def connect_failed(self, address: str, error: LockringError, hint: int) -> None:
        """See `Caller`. An error that waiting cannot mend ends a node that never joined; a serving node tries again."""
        match error:
            case StaleVersion() if hint > self._node.replica.incarnation:
                log.info("%s: beginning a new life", error)
                self._node.begin_life(Incarnation(hint))
            case DuplicateNode() if self._is_out_of_patience():
                self._node.fail(error)
            case WrongRole() | ProtocolError() if not self._was_joined and address not in str(error):
                # The other end may not know by which address it was reached, and the settings here name that.
                where = f"the answer of {address}, where a coordinator was expected"
                self._node.fail(type(error)(f"{error} ({where})", name=error.name))
            case WrongRole() | ProtocolError() | WrongCluster() | InvalidRequest() if not self._was_joined:
                self._node.fail(error)
            case _:
                self._wait(error)

    def _is_out_of_patience(self) -> bool:
        """Return whether the other node of this id has lasted too long to be a former life of this one.

        A coordinator that was stopped for a while may see a node's new connection before the end of its old one.
        """
        now_s = asyncio.get_running_loop().time()
        if self._duplicate_since_s is None:
            self._duplicate_since_s = now_s
        return now_s - self._duplicate_since_s >= _DUPLICATE_S

    def opened(self, address: str, welcome: Welcome) -> None:
        """See `Caller`."""
        self._node.greet_coordinator(welcome, address)
        so_far = self._trouble.ends(now_ns=monotonic_ns())
        if so_far or not self._was_joined:
            log.info(
                "%s cluster %s of the coordinator at %s as %s",
                "in touch again with" if self._was_joined else "joined",
                welcome.cluster,
                address,
                f"{self._node.replica} ({so_far})" if so_far else self._node.replica,
            )
        self._was_joined = True
        self._duplicate_since_s = None
        self._problem = ""
        self._node.joined()

    def arrived(self, messages: list[Message]) -> None:
        """See `Caller`."""
        self._node.from_coordinator(messages)

    def lost(self, reason: str) -> None:
        """See `Caller`."""
        self._wait(Unavailable(f"lost the connection: {reason}"))
        self._node.coordinator_lost()

    def _wait(self, error: LockringError) -> None:
        """Log what the node waits for: at once, and then each minute."""
        self._problem = str(error)
        self._node.coordinator_missing(self.note)
        text = self._trouble.fails(self.note, now_ns=monotonic_ns())
        if text:
            log.warning("%s", text)
