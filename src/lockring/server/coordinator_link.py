"""A node's connection to its coordinator: joins, and joins again whenever it was lost, for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from lockring.clock import monotonic_ns
from lockring.cluster_state import ClusterState, Replica
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
from lockring.ids import NO_REQUEST, Incarnation, RequestNumber
from lockring.net.connection import FramedConnection, Outbox
from lockring.net.dialer import Dialer
from lockring.protocol import (
    PROTOCOL,
    Drain,
    DrainReply,
    FromCoordinator,
    Join,
    Message,
    Refusal,
    Undrain,
    UndrainReply,
    Welcome,
)
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

_PAUSE_S_MIN: Final = 0.1
_PAUSE_S_MAX: Final = 1.0
_CALM_NS: Final = 10 * NS_PER_S
_DUPLICATE_S: Final = 4.0
"""Longer than a coordinator takes a life for running of which it hears nothing more."""

Answer = Callable[[DrainReply | UndrainReply | Refusal], None]
"""Takes what the coordinator says to a request, or that it cannot be reached. Its `request` means nothing."""

log = logging.getLogger("lockring.node")


class Joiner(Protocol):
    """The node, as this connection sees it."""

    @property
    def replica(self) -> Replica:
        """Which life of which node it is."""

    @property
    def state(self) -> ClusterState:
        """The newest state that it has."""

    @property
    def address(self) -> str:
        """HOST:PORT to tell others."""

    @property
    def grpc_address(self) -> str:
        """HOST:PORT of its gRPC port, "" if it has none."""

    @property
    def weight(self) -> int:
        """Its share of slots."""

    @property
    def is_leaving(self) -> bool:
        """Whether it waits for an answer to its own wish to leave."""

    def begin_life(self, incarnation: Incarnation) -> None:
        """Be another incarnation, since the present one was outlived."""

    def joined(self) -> None:
        """The coordinator has welcomed the node."""

    def from_coordinator(self, messages: list[Message]) -> None:
        """What it sent."""

    def coordinator_lost(self) -> None:
        """The connection has ended."""

    def fail(self, error: LockringError) -> None:
        """It makes no sense to go on."""


class CoordinatorLink:
    """See the module. Lives in one event loop.

    Args:
        node: who joins.
        coordinators: HOST:PORT of each that may be the one.
        outbox: where writes wait for the flush.
    """

    def __init__(self, node: Joiner, coordinators: Sequence[str], outbox: Outbox) -> None:
        self._node = node
        self._where = " or ".join(coordinators)
        self._dialer = Dialer(
            self,
            lambda: coordinators,
            FromCoordinator,
            outbox,
            pause_s_min=_PAUSE_S_MIN,
            pause_s_max=_PAUSE_S_MAX,
        )
        self._was_joined = False
        self._asked: dict[RequestNumber, Answer] = {}
        self._requests = 0
        self._problem = ""
        self._trouble = RepeatedTrouble(calm_ns=_CALM_NS)
        self._duplicate_since_s: float | None = None

    @property
    def connection(self) -> FramedConnection | None:
        """The connection, while the coordinator has welcomed the node on it."""
        return self._dialer.connection

    @property
    def note(self) -> str:
        """What the node waits for, "" while it is connected."""
        if self._dialer.connection is not None:
            return ""
        return f"waiting for the coordinator at {self._where}: {self._problem or 'dialing'}"

    def start(self) -> None:
        """Begin to dial."""
        self._dialer.start()

    def close(self, reason: str) -> None:
        """Leave the coordinator, for good."""
        self._dialer.close(reason)

    def pass_on(self, order: Drain | Undrain, answer: Answer) -> None:
        """Give an operator's request to the coordinator as what it is: an operator's, whichever node it is about."""
        kind = type(order)
        self._ask(lambda request: kind(request, order.node), answer, name=order.node)

    def _ask(self, make: Callable[[RequestNumber], Message], answer: Answer, *, name: str = "") -> None:
        connection = self._dialer.connection
        if connection is None:
            answer(
                Refusal(NO_REQUEST, Unavailable.code, f"the coordinator cannot be asked: {self.note}", name)
            )
            return
        self._requests += 1
        request = RequestNumber(self._requests)
        self._asked[request] = answer
        connection.send(make(request))
        connection.write_out()

    # ----------------------------------------------------------------------- Caller

    def hello(self) -> Message:
        """See `Caller`."""
        node = self._node
        replica, state = node.replica, node.state
        return Join(
            PROTOCOL,
            state.cluster,
            replica.node,
            replica.incarnation,
            node.address,
            node.weight,
            state.version,
            node.grpc_address,
        )

    def connect_failed(self, address: str, error: LockringError, hint: int) -> None:
        """See `Caller`. What no waiting will mend ends a node that never joined; one that serves goes on trying."""
        match error:
            case StaleVersion() if hint > self._node.replica.incarnation:
                log.info("%s: beginning a new life", error)
                self._node.begin_life(Incarnation(hint))
            case DuplicateNode() if self._is_out_of_patience():
                self._node.fail(error)
            case WrongRole() | WrongCluster() | ProtocolError() | InvalidRequest() if not self._was_joined:
                self._node.fail(error)
            case _:
                self._wait(error)

    def _is_out_of_patience(self) -> bool:
        """Whether the other node of this id has been there for so long that it is no former life of this one.

        A coordinator that was itself stopped may hear of a restart before it hears of the end.
        """
        now_s = asyncio.get_running_loop().time()
        if self._duplicate_since_s is None:
            self._duplicate_since_s = now_s
        return now_s - self._duplicate_since_s >= _DUPLICATE_S

    def opened(self, address: str, welcome: Welcome) -> None:
        """See `Caller`."""
        cluster = self._node.state.cluster
        if welcome.role != "coordinator":
            raise WrongRole(f"{address} is a {welcome.role}, not a coordinator")
        if cluster and welcome.cluster != cluster:
            raise WrongCluster(f"{address} belongs to cluster {welcome.cluster}, this node to {cluster}")
        so_far = self._trouble.ends(now_ns=monotonic_ns())
        if so_far or not self._was_joined:
            log.info(
                "%s cluster %s of the coordinator at %s as %s%s",
                "in touch again with" if self._was_joined else "joined",
                welcome.cluster,
                address,
                self._node.replica,
                f" ({so_far})" if so_far else "",
            )
        self._was_joined = True
        self._duplicate_since_s = None
        self._problem = ""
        self._node.joined()

    def arrived(self, messages: list[Message]) -> None:
        """See `Caller`."""
        rest: list[Message] = []
        for message in messages:
            if isinstance(message, (DrainReply, UndrainReply, Refusal)) and message.request in self._asked:
                self._asked.pop(message.request)(message)
                continue
            # An answer to no operator's request is one to the node's own wish to leave.
            if isinstance(message, Refusal) and not self._node.is_leaving:
                log.warning("the coordinator refuses: %s", message.text)
            rest.append(message)
        if rest:
            self._node.from_coordinator(rest)

    def lost(self, reason: str) -> None:
        """See `Caller`."""
        self._wait(Unavailable(f"lost the connection: {reason}"))
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer(Refusal(NO_REQUEST, Unavailable.code, "the coordinator went away before it answered"))
        self._node.coordinator_lost()

    def _wait(self, error: LockringError) -> None:
        """Say what is waited for: at once, and then each minute."""
        self._problem = str(error)
        text = self._trouble.fails(self.note, now_ns=monotonic_ns())
        if text:
            log.warning("%s", text)
