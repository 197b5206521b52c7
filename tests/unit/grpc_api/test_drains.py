"""Operators' requests to a coordinator that answers late, or never."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from lockring.clock import monotonic_ns
from lockring.cluster_state import Replica
from lockring.core.access import Newcomer
from lockring.errors import Unavailable
from lockring.grpc_api.drains import order
from lockring.protocol import Drain, DrainReply, Message
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN
from lockring.server.local_client import LocalClient, LocalClients
from lockring.units import NS_PER_S


class SilentLife:
    """A life of a node whose coordinator does not answer, so that nothing comes back from its core."""

    def __init__(self) -> None:
        self.core = SimpleNamespace(
            state=SimpleNamespace(cluster="c"), receive=self.receive, replica=Replica("n1", 1)
        )
        self.gate = AccessGate(OPEN, server="n1")
        self.spans = None
        self.pump = SimpleNamespace(schedule=lambda: None)
        self.guests: dict[int, LocalClient] = {}
        self.was_asked = asyncio.Event()

    def receive(self, number: int, message: Message, *, now_ns: int) -> None:
        if isinstance(message, Drain):
            self.was_asked.set()

    def accept(self, number: int, guest: LocalClient, newcomer: Newcomer) -> None:
        self.guests[number] = guest

    def left(self, number: int) -> None:
        del self.guests[number]


def host_of(life: Any) -> LocalClients:
    place: Any = SimpleNamespace(address="10.0.0.1:9501")
    return LocalClients(lambda: life, place)


def test_an_order_that_is_not_answered_in_time_leaves_no_connection_in_the_node() -> None:
    async def main() -> None:
        life = SilentLife()
        host = host_of(life)
        with pytest.raises(Unavailable, match="did not answer in time"):
            await order(host, Drain(0, "n1"), monotonic_ns() + NS_PER_S // 100)
        assert life.guests == {}

    asyncio.run(main())


def test_an_order_whose_call_is_cancelled_leaves_no_connection_in_the_node() -> None:
    async def main() -> None:
        life = SilentLife()
        host = host_of(life)
        call = asyncio.ensure_future(order(host, Drain(0, "n1"), monotonic_ns() + 60 * NS_PER_S))
        await asyncio.wait_for(life.was_asked.wait(), 10)
        assert life.guests.keys() == {-1}
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        assert life.guests == {}

    asyncio.run(main())


def test_an_answered_order_ends_its_connection_once() -> None:
    async def main() -> None:
        life = SilentLife()
        host = host_of(life)
        call = asyncio.ensure_future(order(host, Drain(0, "n1"), monotonic_ns() + 60 * NS_PER_S))
        await asyncio.wait_for(life.was_asked.wait(), 10)
        life.guests[-1].send(DrainReply(1, "n1"))
        await asyncio.wait_for(call, 10)
        assert life.guests == {}

    asyncio.run(main())
