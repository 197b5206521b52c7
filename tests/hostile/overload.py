"""More than a cluster is made for: a queue, a crowd of connections, clients that never read. What must hold then.

Nothing here says how fast anything must be; memory has bounds, which are generous and written down.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import resource
import time
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

import lockring
import lockring.aio
from lockring.addresses import split_address
from lockring.net.frames import FrameReader, encode_frame
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    GetState,
    List,
    Message,
    Refusal,
    ToClient,
    Watch,
    Welcome,
)
from lockring.testing import LocalCluster
from tests.hostile.honest import Honest, milliseconds
from tests.hostile.processes import WAIT_S, Failed, Report, Watched, cluster_of, served

WAITER_KIB_MAX: Final = 8
"""Memory that one waiter may cost its node."""

CONNECTION_KIB_MAX: Final = 48
"""Memory that one idle connection may cost a node."""

DEAF_MIB_MAX: Final = 16
"""Memory that one client that never reads may cost a node: 8 MiB may wait for it, and be put together once more."""

SPARE_MIB: Final = 32
"""Memory that everything else may cost meanwhile."""

LONG_S: Final = 600.0

_CLIENTS: Final = 5
_LOCKS: Final = 2_000
_WATCHES: Final = 1_000
_DESCRIPTORS_SPARE: Final = 500
_LIMITED: Final = 1024
_LIMITED_CLIENTS: Final = 192
"""The clients for which its node has room then, beside those of gRPC."""

_answers: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(ToClient)


def overload(*, waiters: int, connections: int, deaf: int) -> Report:
    """Overload a cluster in each way, and see that all holds.

    Raises:
        Failed: it does not.
    """
    report = Report()
    with cluster_of(2) as (cluster, watched), Honest(cluster.servers, "overload") as honest:
        nodes = {each.name: each for each in watched}
        try:
            for name, run in (
                ("crowd", lambda: asyncio.run(_crowd(nodes["N1"], connections))),
                ("queue", lambda: asyncio.run(_queue(cluster, nodes, waiters))),
                ("deaf", lambda: asyncio.run(_deaf(cluster, nodes, deaf))),
            ):
                first = len(honest.latencies_s)
                rows = run()
                report.table(("overload: " + name, ""), *rows, _others(honest, first))
            harm = honest.finish()
            harm += [trouble for each in watched for trouble in each.troubles()]
        except (Failed, TimeoutError, lockring.LockringError) as error:
            harm = [*(each.last_words() for each in watched), repr(error), *honest.harm]
        if harm:
            raise Failed("\n".join([*report.lines, *harm]))
    report.table(("overload: more than there is room for", ""), *_too_many())
    return report


def _others(honest: Honest, first: int) -> tuple[str, str]:
    latencies_s = honest.latencies_s[first:]
    if not latencies_s:
        raise Failed("the honest client got no lock all the time")
    return (
        "honest client: locks acquired and released, median / 99 % / longest",
        f"{len(latencies_s)}, {milliseconds(latencies_s)}",
    )


# --------------------------------------------------------------------------- many waiters


async def _queue(cluster: LocalCluster, nodes: dict[str, Watched], waiters: int) -> list[tuple[str, object]]:
    """So many wait for one lock; then it goes through all their hands, in the order in which they came."""
    name = "hostile/queue"
    node = nodes[cluster.primary_of(name)]
    before = node.sample()
    served_order: list[int] = []
    tokens: list[int] = []

    async def wait_in_line(client: lockring.aio.Client, number: int) -> None:
        grant = await client.lock(name).acquire()
        served_order.append(number)
        tokens.append(grant.fencing_token)
        await grant.release()

    async with contextlib.AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(lockring.aio.Client(cluster.servers)) for _ in range(_CLIENTS)
        ]
        first = await clients[0].lock(name).acquire()
        begun_s = time.monotonic()
        tasks: list[asyncio.Task[None]] = []
        stack.callback(lambda: [task.cancel() for task in tasks])
        share = -(-waiters // _CLIENTS)
        for client in clients:
            numbers = range(len(tasks), min(len(tasks) + share, waiters))
            tasks += [asyncio.ensure_future(wait_in_line(client, number)) for number in numbers]
            # The next client's come only once all of these are seen in the queue.
            await _until_waiting(clients[0], name, len(tasks))
        queued_s = time.monotonic() - begun_s
        full = node.sample()
        begun_s = time.monotonic()
        await first.release()
        async with asyncio.timeout(LONG_S):
            await asyncio.gather(*tasks)
        served_s = time.monotonic() - begun_s
    if served_order != list(range(waiters)):
        at = next(at for at, number in enumerate(served_order) if at != number)
        raise Failed(f"waiter {served_order[at]} was served in the place of waiter {at}")
    if tokens != sorted(set(tokens)) or tokens[0] <= first.fencing_token:
        raise Failed("tokens do not rise along the queue")
    kib = (full.rss_kib - before.rss_kib) / waiters
    if full.rss_kib - before.rss_kib > waiters * WAITER_KIB_MAX + SPARE_MIB * 1024:
        raise Failed(f"a waiter costs {kib:.1f} KiB")
    return [
        ("waiters, all served in order", waiters),
        ("until all are in the queue (s)", f"{queued_s:.1f}"),
        ("until all have had the lock (s)", f"{served_s:.1f}"),
        ("RSS of the node before / with all waiting (MiB)", _rss(before.rss_kib, full.rss_kib)),
        ("RSS per waiter (KiB)", f"{kib:.1f}"),
    ]


async def _until_waiting(client: lockring.aio.Client, name: str, count: int) -> None:
    async with asyncio.timeout(LONG_S):
        while len((await client.describe(name)).waiters) < count:  # noqa: ASYNC110 - seen at the node only
            await asyncio.sleep(0.1)


# --------------------------------------------------------------------------- many connections


class _Caller(asyncio.Protocol):
    """A client's connection that says hello, and nothing after it."""

    def __init__(self, hello: bytes) -> None:
        self.first: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.transport: asyncio.Transport | None = None
        self._hello = hello
        self._reader: FrameReader[Any] = FrameReader(_answers)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if not self.first.done():
            messages = self._reader.feed(data)
            if messages:
                self.first.set_result(messages[0])

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.ended.set()
        if not self.first.done():
            self.first.set_result(None)


@contextlib.contextmanager
def many_descriptors(wanted: int) -> Iterator[int]:
    """Let this process open so many, and give how many there may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    try:
        yield allowed
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.asynccontextmanager
async def _callers(address: str, count: int, hello: bool = True) -> Any:
    """So many connections to an address, opened some at a time; they are closed at the end."""
    host, port = split_address(address)
    loop = asyncio.get_running_loop()
    room = asyncio.Semaphore(100)
    callers: list[_Caller] = []

    async def call(number: int) -> None:
        greeting = encode_frame(ClientHello(PROTOCOL, "", f"caller-{number}", 1)) if hello else b""
        async with room, asyncio.timeout(WAIT_S):
            _, caller = await loop.create_connection(lambda: _Caller(greeting), host, port)
            callers.append(caller)
            if hello:
                await caller.first

    try:
        await asyncio.gather(*(call(number) for number in range(count)))
        yield callers
    finally:
        for caller in callers:
            if caller.transport is not None:
                caller.transport.abort()
        for caller in callers:
            async with asyncio.timeout(WAIT_S):
                await caller.ended.wait()


async def _crowd(node: Watched, connections: int) -> list[tuple[str, object]]:
    """So many clients are connected to one node at once."""
    before = node.sample()
    with many_descriptors(connections + _DESCRIPTORS_SPARE) as allowed:
        connections = min(connections, allowed - _DESCRIPTORS_SPARE)
        begun_s = time.monotonic()
        async with _callers(node.addresses[0], connections) as callers:
            took_s = time.monotonic() - begun_s
            welcomed = sum(isinstance(each.first.result(), Welcome) for each in callers)
            full = node.sample()
            if welcomed != connections:
                other = next(
                    each.first.result() for each in callers if not isinstance(each.first.result(), Welcome)
                )
                raise Failed(f"{welcomed} of {connections} connections were welcomed; another got {other}")
    after = await asyncio.to_thread(node.settled, before.descriptors)
    if after.descriptors > before.descriptors:
        raise Failed(
            f"{node.name} has {after.descriptors} descriptors after the crowd, not {before.descriptors}"
        )
    kib = (full.rss_kib - before.rss_kib) / connections
    if full.rss_kib - before.rss_kib > connections * CONNECTION_KIB_MAX + SPARE_MIB * 1024:
        raise Failed(f"a connection costs {kib:.1f} KiB")
    return [
        ("connections to one node, all welcomed", connections),
        ("until all are (s)", f"{took_s:.1f}"),
        (
            "RSS of the node before / with all / after (MiB)",
            _rss(before.rss_kib, full.rss_kib, after.rss_kib),
        ),
        ("RSS per connection (KiB)", f"{kib:.1f}"),
        (
            "descriptors before / with all / after",
            f"{before.descriptors} / {full.descriptors} / {after.descriptors}",
        ),
    ]


def _too_many() -> list[tuple[str, object]]:
    """More clients than a server has room for, then more connections than it may have descriptors."""
    with served(descriptors=_LIMITED) as server, Honest(server.addresses[0], "limited", held=5) as honest:
        before = server.sample()
        refused = asyncio.run(_over_the_limit(server, _LIMITED_CLIENTS + 200))
        descriptors = asyncio.run(_over_the_descriptors(server))
        after = server.settled(before.descriptors)
        harm = honest.finish() + server.troubles()
        if after.descriptors > before.descriptors:
            harm.append(f"{after.descriptors} descriptors after it, not {before.descriptors}")
        if harm:
            raise Failed("\n".join([server.last_words(), *harm]))
    return [
        (f"clients beyond its limit, of a server with {_LIMITED} descriptors, told so", refused),
        ("descriptors with far more connections than it may have", descriptors),
        ("descriptors before / after", f"{before.descriptors} / {after.descriptors}"),
        (
            "honest client: locks acquired and released, median / 99 % / longest",
            f"{len(honest.latencies_s)}, {milliseconds(honest.latencies_s)}",
        ),
    ]


async def _over_the_limit(server: Watched, count: int) -> int:
    async with _callers(server.addresses[0], count) as callers:
        answers = [each.first.result() for each in callers]
    welcomed = sum(isinstance(each, Welcome) for each in answers)
    refused = sum(isinstance(each, Refusal) and each.code == "overloaded" for each in answers)
    # The honest client is one of those that the limit counts.
    if not _LIMITED_CLIENTS - 5 <= welcomed <= _LIMITED_CLIENTS or welcomed + refused != count:
        raise Failed(f"of {count} clients {welcomed} were welcomed and {refused} told that it is too much")
    return refused


async def _over_the_descriptors(server: Watched) -> int:
    """Connections that say nothing, to every port, until the process can have no more."""
    async with contextlib.AsyncExitStack() as stack:
        for address in server.addresses:
            await stack.enter_async_context(_callers(address, _LIMITED, hello=False))
        return server.sample().descriptors


# --------------------------------------------------------------------------- clients that do not read


class _Deaf(asyncio.Protocol):
    """A client that asks and never reads; until the other side has had enough."""

    def __init__(self, hello: bytes) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()
        self.has_room = True
        self._hello = hello

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()
        self.transport.write(self._hello)

    def pause_writing(self) -> None:
        """Called by the event loop."""
        self.has_room = False

    def resume_writing(self) -> None:
        """Called by the event loop."""
        self.has_room = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.ended.set()


async def _deaf(cluster: LocalCluster, nodes: dict[str, Watched], count: int) -> list[tuple[str, object]]:
    """A node with many locks is asked for them, for the state and for each change, by clients that never read."""
    name = "hostile/deaf/0"
    node = nodes[cluster.primary_of(name)]
    host, port = split_address(node.addresses[0])
    loop = asyncio.get_running_loop()
    async with lockring.aio.Client(cluster.servers) as client:
        held = await asyncio.gather(
            *(client.lock(f"hostile/deaf/{number}").acquire() for number in range(1, _LOCKS))
        )
        assert len(held) == _LOCKS - 1
        before = node.sample()
        questions = {
            "lists": b"".join(encode_frame(List(request, "", limit=10_000)) for request in range(1, 20)),
            "states": b"".join(encode_frame(GetState(request)) for request in range(1, 5_000)),
            "watches": b"".join(encode_frame(Watch(request, name)) for request in range(1, _WATCHES)),
        }
        peak_kib = before.rss_kib
        begun_s = time.monotonic()
        strangers: list[tuple[str, _Deaf]] = []
        for number in range(count):
            kind = list(questions)[number % len(questions)]
            hello = encode_frame(ClientHello(PROTOCOL, "", f"deaf-{number}", 1))
            _, stranger = await loop.create_connection(functools.partial(_Deaf, hello), host, port)
            strangers.append((kind, stranger))
            cast(asyncio.Transport, stranger.transport).write(questions[kind])
        async with asyncio.timeout(LONG_S):
            while not all(stranger.ended.is_set() for _, stranger in strangers):
                grant = await client.lock(name).acquire()  # a change that every watch must report
                await grant.release()
                for kind, stranger in strangers:
                    if kind != "watches" and stranger.has_room and not stranger.ended.is_set():
                        cast(asyncio.Transport, stranger.transport).write(questions[kind])
                    elif kind == "watches" and not stranger.ended.is_set():
                        # Nothing but writing shows this side that it was cut off.
                        cast(asyncio.Transport, stranger.transport).write(encode_frame(Watch(1, name)))
                peak_kib = max(peak_kib, node.sample().rss_kib)
                if peak_kib - before.rss_kib > (count * DEAF_MIB_MAX + SPARE_MIB) * 1024:
                    grown_mib = (peak_kib - before.rss_kib) / 1024
                    raise Failed(f"{count} clients that never read cost {grown_mib:.0f} MiB")
        took_s = time.monotonic() - begun_s
    after = await asyncio.to_thread(node.settled, before.descriptors)
    if after.descriptors > before.descriptors:
        raise Failed(f"{node.name} has {after.descriptors} descriptors after it, not {before.descriptors}")
    return [
        ("clients that never read, all cut off", count),
        ("until all are (s)", f"{took_s:.1f}"),
        (
            "RSS of the node before / at the most / after (MiB)",
            _rss(before.rss_kib, peak_kib, after.rss_kib),
        ),
    ]


def _rss(*kib: int) -> str:
    return " / ".join(f"{each / 1024:.1f}" for each in kib)
