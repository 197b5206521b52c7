"""The connection of the gRPC service to its own node: no socket, and the same order of events as on one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lockring.client.aio.connection import AsyncConnection
from lockring.cluster_state import ClusterState, Replica
from lockring.grpc_api.driver import LocalTransport, NodeDriver
from lockring.net.frames import encode_frame
from lockring.protocol import ClientHello, Describe, Drain, Message, ReleaseReply, Undrain

HERE = "10.0.0.1:9501"
PATIENCE_S = 20


class ScriptedNode:
    """A node that records what it is asked, and answers by hand."""

    address = HERE
    replica = Replica("N1", 1)
    state: ClusterState

    def __init__(self) -> None:
        self.asked: list[Message] = []
        self.was_asked = asyncio.Event()
        self.hung_up = 0
        self.say: Callable[[Message], None]
        self.end: Callable[[str], None]

    def connect_local(self, receive: Callable[[Message], None], ended: Callable[[str], None]) -> ScriptedNode:
        self.say, self.end = receive, ended
        return self

    def ask(self, message: Message) -> None:
        self.asked.append(message)
        self.was_asked.set()

    def hang_up(self) -> None:
        self.hung_up += 1
        self.end("the client has hung up")

    def pass_on(self, order: Drain | Undrain, answer: object, asker: object) -> ScriptedNode:
        raise AssertionError("no operator is here")


class Recorder:
    """The driver's side of a connection."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def wire_received(self, wire: AsyncConnection, messages: list[Message]) -> None:
        self.events.append(messages)

    def wire_lost(self, wire: AsyncConnection, reason: str, error: object) -> None:
        self.events.append(reason)


def test_messages_arrive_with_the_next_turn_and_before_the_end_of_the_connection() -> None:
    async def main() -> None:
        node, recorder = ScriptedNode(), Recorder()
        transport = LocalTransport(node, AsyncConnection(recorder, 1, HERE), recorder)
        first, second = ReleaseReply(1, True), ReleaseReply(2, True)
        node.say(first)
        node.say(second)
        node.end("the life is over")
        assert recorder.events == []
        await asyncio.sleep(0)
        assert recorder.events == [[first, second], "the life is over"]
        transport.write(encode_frame(Describe(3, "x")))
        assert (node.asked, transport.is_closing()) == ([], True)

    asyncio.run(main())


def test_a_connection_that_the_driver_closes_ends_once_and_is_not_reported_as_lost() -> None:
    async def main() -> None:
        node, recorder = ScriptedNode(), Recorder()
        transport = LocalTransport(node, AsyncConnection(recorder, 1, HERE), recorder)
        message = Describe(3, "x")
        transport.write(encode_frame(message))
        transport.close()
        transport.close()
        await asyncio.sleep(0)
        assert (node.asked, node.hung_up, recorder.events) == ([message], 1, [])

    asyncio.run(main())


def test_the_own_node_is_asked_without_a_socket() -> None:
    async def main() -> None:
        node = ScriptedNode()
        driver = NodeDriver(node)
        asking = asyncio.get_running_loop().create_task(
            driver.ask(lambda core, now_ns: core.get_state(give_up_at_ns=now_ns + 10**12, now_ns=now_ns))
        )
        async with asyncio.timeout(PATIENCE_S):
            await node.was_asked.wait()
        hello = node.asked.pop()
        assert isinstance(hello, ClientHello)
        assert hello.software.startswith("lockring-grpc")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await driver.close()
        assert node.hung_up == 1

    asyncio.run(main())
