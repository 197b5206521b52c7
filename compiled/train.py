"""The training run: `python -m compiled.train` does a fixed amount of work that is typical of clients and nodes.

Servers run in a thread of this process, and clients beside them. So the counts of all their branches are in one set of
files. Frequent work must be frequent here, too; rare work only has to be rare.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import lockring
import lockring.aio
from lockring.ids import NodeId
from lockring.server.coordinator import CoordinatorServer
from lockring.server.node import NodeServer
from lockring.server.settings import CoordinatorSettings, NodeSettings

_PAIRS: Final = 4_000
_TASKS: Final = 32
_PAIRS_PER_TASK: Final = 100
_WAITERS: Final = 4
_HANDOVERS_PER_WAITER: Final = 300
_HELD: Final = 2_000
_NAMES: Final = [f"job/{number}" for number in range(1_000)]
_ANYWHERE: Final = "127.0.0.1:0"
_TTL_S: Final = 6.0
_HOLD_S: Final = 5.0
"""Long enough for two renewals."""
_CONNECT_S: Final = 30.0
_START_S: Final = 60.0


@contextlib.asynccontextmanager
async def _servers(nodes: int, directory: str | None) -> AsyncIterator[str]:
    """Run a coordinator and some nodes in this event loop, and give the addresses of the nodes."""
    async with contextlib.AsyncExitStack() as stack:
        coordinator = CoordinatorServer(
            CoordinatorSettings(listen=_ANYWHERE, http=False, stabilization_s=0.1, new_cluster=True),
            ports=1 + nodes,
        )
        await coordinator.start()
        stack.push_async_callback(coordinator.stop)
        addresses = []
        for number in range(nodes):
            settings = NodeSettings(
                id=NodeId(f"node-{number}"),
                listen=_ANYWHERE,
                coordinators=(coordinator.address,),
                grpc=False,
                http=False,
                data_dir=None if directory is None else f"{directory}/{number}",
            )
            node = NodeServer(settings, ports=1 + nodes)
            await node.start()
            stack.push_async_callback(node.stop)
            addresses.append(node.address)
        yield ",".join(addresses)


@contextlib.contextmanager
def _cluster(nodes: int, directory: str | None = None) -> Iterator[str]:
    """Run servers in a thread of their own, and give the addresses of the nodes."""
    found: list[str] = []
    is_up = threading.Event()
    ends: list[Callable[[], object]] = []

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        ends.append(lambda: loop.call_soon_threadsafe(ended.set))
        async with _servers(nodes, directory) as addresses:
            found.append(addresses)
            is_up.set()
            await ended.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        finally:
            is_up.set()

    thread = threading.Thread(target=run, name="servers")
    thread.start()
    try:
        if not is_up.wait(_START_S) or not found:
            raise RuntimeError("the servers of the training run did not start")
        yield found[0]
    finally:
        for end in ends:
            end()
        thread.join()


def _one_after_the_other(addresses: str) -> None:
    """Acquire and release with the blocking client."""
    with lockring.Client(addresses, ttl=_TTL_S, connect_timeout=_CONNECT_S) as client:
        for number in range(_PAIRS):
            name = _NAMES[number % len(_NAMES)]
            with client.lock(name) as grant:
                grant.check()
        with contextlib.ExitStack() as stack:
            for name in _NAMES:
                stack.enter_context(client.rwlock(name).read())


async def _overlapping(addresses: str) -> None:
    """Acquire and release in many tasks, wait for each other, and hold many locks until they were renewed."""
    async with lockring.aio.Client(addresses, ttl=_TTL_S, connect_timeout=_CONNECT_S) as client:

        async def pairs(task: int) -> None:
            for number in range(_PAIRS_PER_TASK):
                async with client.lock(_NAMES[(task * _PAIRS_PER_TASK + number) % len(_NAMES)]):
                    pass

        async def hand_overs() -> None:
            for _ in range(_HANDOVERS_PER_WAITER):
                async with client.lock("wanted by several"):
                    await asyncio.sleep(0)

        await asyncio.gather(*(pairs(task) for task in range(_TASKS)))
        await asyncio.gather(*(hand_overs() for _ in range(_WAITERS)))
        held = await asyncio.gather(*(client.lock(f"held/{number}").acquire() for number in range(_HELD)))
        await asyncio.sleep(_HOLD_S)
        for grant in held:
            with contextlib.suppress(
                lockring.LockLost
            ):  # a machine that stood still has trained the loss, too
                await grant.release()


def main() -> None:
    """Do the work."""
    with _cluster(1) as addresses:
        _one_after_the_other(addresses)
        asyncio.run(_overlapping(addresses))
    with tempfile.TemporaryDirectory() as directory, _cluster(2, directory) as addresses:
        _one_after_the_other(addresses)
        asyncio.run(_overlapping(addresses))


if __name__ == "__main__":
    main()
