"""An operator in the simulation: drains nodes, and changes its mind, through any node or a coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    DrainReply,
    Refusal,
    ToClient,
    Undrain,
    UndrainReply,
)
from tests.sim.framework.network import End, Network
from tests.sim.framework.shells import Shell
from tests.sim.framework.world import S, Slowness, Violation, World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lockring.cluster_state import ClusterState
    from tests.sim.framework.node_shell import NodeShell
    from tests.sim.framework.store import SimStore

_to_client: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToClient)

_AGAIN = S // 2
_PATIENCE = 2 * S
_FINAL = frozenset({"last-node", "unknown-node", "node-leaving"})
"""Refusals that asking again does not change."""


class Operator(Shell):
    """Sends one request at a time, each on a connection of its own, until it is answered for good.

    Attributes:
        answers: what the servers have said, in order: "DrainReply", "UndrainReply", or a refusal's code; refusals
            that may pass are left out.
        drained: ids of the nodes that it may have had drained, since an answer can be lost, and that are not active
            again.
    """

    def __init__(self, world: World, network: Network) -> None:
        super().__init__(world, network, "operator", slowness=Slowness(), drift=False)
        self.answers: list[str] = []
        self.drained: dict[str, None] = {}
        self._number = 0
        self._is_asking = False

    def on_start(self) -> None:
        """It has no core."""

    def drain(self, node: str, addresses: Sequence[str]) -> None:
        """Have a node drained by one of the servers; a newer request ends an older one."""
        self._ask(Drain(1, node), addresses)

    def undrain(self, node: str, addresses: Sequence[str]) -> None:
        """Have it made active again."""
        self._ask(Undrain(1, node), addresses)

    def _ask(self, order: Drain | Undrain, addresses: Sequence[str]) -> None:
        if not self.alive:
            self.start()
        self._number += 1
        self._is_asking = True
        if isinstance(order, Drain):
            self.drained[order.node] = None
        self._dial(self._number, order, addresses)

    def _dial(self, number: int, order: Drain | Undrain, addresses: Sequence[str]) -> None:
        if number != self._number:
            return
        address = self.rng.choice(list(addresses))
        self.network.dial(self, address, lambda end: self._dialed(number, order, addresses, end))

    def _dialed(self, number: int, order: Drain | Undrain, addresses: Sequence[str], end: End | None) -> None:
        def again() -> None:
            if end is not None and end.open:
                end.close()
            self.later(_AGAIN, self._dial, number, order, addresses)

        if end is None:
            again()
            return
        over: list[bool] = []

        def taken(end: End, payload: bytes) -> None:
            message = _to_client.decode(payload)
            if over or not isinstance(message, (DrainReply, UndrainReply, Refusal)):
                return
            over.append(True)
            if isinstance(message, Refusal) and message.code not in _FINAL:
                again()
                return
            end.close()
            self._is_asking = False
            self.world.stats[f"operator_{type(message).__name__}"] += 1
            self.answers.append(message.code if isinstance(message, Refusal) else type(message).__name__)
            if isinstance(message, UndrainReply) or (
                isinstance(message, Refusal) and message.code != "last-node"
            ):
                self.drained.pop(order.node, None)

        def closed(end: End) -> None:
            if not over:
                over.append(True)
                again()

        def too_slow() -> None:
            if end.open:
                closed(end)

        end.on_message, end.on_closed = taken, closed
        self.transmit(end, ClientHello(PROTOCOL, "", f"operator-{number}", end.number))
        self.transmit(end, order)
        self.later(_PATIENCE, too_slow)

    def undrain_all(self, coordinators: Sequence[str]) -> None:
        """Give up what is under way, and make all nodes active again that may be drained, one after the other."""
        self._is_asking = False
        self._undrain_next(coordinators)

    def _undrain_next(self, coordinators: Sequence[str]) -> None:
        if not self.drained:
            self._number += 1
            return
        if not self._is_asking:
            self.undrain(next(iter(self.drained)), coordinators)
        self.later(_AGAIN, self._undrain_next, coordinators)


class Consent:
    """Checks on every stored state that operators leave a node that may have slots.

    The last one may be drained by itself alone, whichever way the request came.
    """

    def __init__(self, nodes: Sequence[NodeShell]) -> None:
        self._nodes = nodes

    def watch(self, store: SimStore) -> None:
        """See every state that is stored from now on, after the present observers."""
        first = store.on_change

        def then(before: ClusterState | None, after: ClusterState | None) -> None:
            first(before, after)
            if before is not None and after is not None:
                self._stored(before, after)

        store.on_change = then

    def _stored(self, before: ClusterState, after: ClusterState) -> None:
        if not after.members or any(each.condition != "draining" for each in after.members.values()):
            return
        wished = {replica for node in self._nodes for replica in node.wished_to_leave}
        drained = [
            member.replica
            for node, member in after.members.items()
            if node in before.members and before.members[node].condition != "draining"
        ]
        ordered = [replica for replica in drained if replica not in wished]
        if ordered:
            raise Violation("P3", f"an operator has drained the last node: {', '.join(map(str, ordered))}")
