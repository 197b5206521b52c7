"""The common part of the thin simulated shells: they send messages as the bytes that the real ones send."""

from __future__ import annotations

import msgspec

from lockring.protocol import GetRoutes, Heartbeat, Message, RoutesDifference, State, StateDifference
from tests.sim.framework.network import End, Network
from tests.sim.framework.world import Process, Slowness, World

_encode = msgspec.msgpack.Encoder().encode


def brief(message: object) -> str:
    """A message for the story: cluster states only by their size."""
    text = f"{type(message).__name__}" if isinstance(message, State) else repr(message)
    return text if len(text) <= 400 else text[:400] + "…"


class Shell(Process):
    """The common part of both shells: sending messages as bytes."""

    def __init__(self, world: World, network: Network, name: str, *, slowness: Slowness, drift: bool) -> None:
        super().__init__(world, name, slowness=slowness, drift=drift)
        self.network = network

    def transmit(self, end: End | None, message: Message) -> None:
        """Send on a connection, if there is one."""
        if end is None:
            return
        if isinstance(message, (StateDifference, RoutesDifference)):
            self.world.stats["differences"] += 1
            if self.network.weather.errs and self.network.errors.random() < self.network.weather.errs:
                self.world.stats["differences_wrong"] += 1
                if isinstance(message, StateDifference) and self.network.errors.random() < 0.5:
                    return
                message = msgspec.structs.replace(message, digest=message.digest ^ 1)
        elif isinstance(message, GetRoutes) or (isinstance(message, Heartbeat) and message.is_astray):
            self.world.stats["differences_refused"] += 1
        if self.world.story is not None and not type(message).__name__.startswith("Heartbeat"):
            self.world.tell(self.name, f"-> {end.other.process.name}: {brief(message)}")
        if self.world.heard is not None:
            self.world.heard(self.name, end.other.process.name, message)
        end.send(_encode(message))
