"""Handshakes that never finish, in great numbers: they cost a server little, and it serves all others meanwhile.

They come to every port with TLS. Some send nothing, some a byte each second, some a part of a first message, or all of
it. None ends its connection: the server must.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import lockring
from lockring.addresses import split_address
from lockring.net.descriptors import CALL_HANDSHAKES_MAX
from lockring.security.handshakes import UNDER_WAY_MAX
from tests.hostile.guises import Guises
from tests.hostile.honest import Honest, milliseconds
from tests.hostile.overload import many_descriptors
from tests.hostile.processes import WAIT_S, Failed, Report, Sample, Watched, guarded_cluster_of
from tests.hostile.tls_bytes import hello, record

GROWTH_MIB_MAX: Final = 128
"""Memory that they may cost a process, however many they are: 512 handshakes under way, and those of gRPC."""

_DESCRIPTORS_SPARE: Final = 200
_OPENING: Final = 400
"""How many are opened at the same time."""

_LOOK_S: Final = 0.1
_KINDS: Final = ("nothing", "a byte each second", "half a hello", "a hello")
_SEED: Final = 7


def handshakes(*, connections: int) -> Report:
    """Begin so many handshakes and finish none, as many at once as this process may have descriptors.

    Raises:
        Failed: something does not hold.
    """
    with contextlib.ExitStack() as stack:
        cluster, watched, guises = stack.enter_context(guarded_cluster_of(2))
        honest = stack.enter_context(Honest(cluster.servers, "handshakes", files=guises.honest))
        newcomers = stack.enter_context(_Newcomers(cluster.servers, watched, guises))
        before = [each.sample() for each in watched]
        addresses = [address for each in watched for address in (*each.addresses, each.calls) if address]
        allowed = stack.enter_context(many_descriptors(connections + _DESCRIPTORS_SPARE))
        crowd = _Crowd(addresses, watched, at_once=min(connections, allowed - _DESCRIPTORS_SPARE))
        asyncio.run(crowd.come(connections))
        harm = honest.finish() + newcomers.finish() + crowd.harm
        after = [each.settled(first.descriptors + 2) for each, first in zip(watched, before, strict=True)]
        harm += _costs(watched, before, crowd.peaks, after)
        harm += [trouble for each in watched for trouble in each.troubles()]
        report = _report(crowd, watched, before, after, honest, newcomers)
        if harm:
            raise Failed("\n".join([*(each.last_words() for each in watched), *report.lines, *harm[:30]]))
        return report


def _costs(
    watched: list[Watched], before: list[Sample], peaks: list[Sample], after: list[Sample]
) -> list[str]:
    """Return what they cost more than they may."""
    found = []
    for each, first, peak, last in zip(watched, before, peaks, after, strict=True):
        grown_mib = (peak.rss_kib - first.rss_kib) / 1024
        if grown_mib > GROWTH_MIB_MAX:
            found.append(f"{each.name} has grown by {grown_mib:.0f} MiB")
        # As many again are refused ones that stay for a moment, so that the reason arrives.
        bound = 2 * UNDER_WAY_MAX + (2 * CALL_HANDSHAKES_MAX if each.calls else 0) + _DESCRIPTORS_SPARE
        if peak.descriptors > first.descriptors + bound:
            found.append(
                f"{each.name} had {peak.descriptors} descriptors, and may have {bound} more than at first"
            )
        if last.descriptors > first.descriptors + 2:
            found.append(f"{each.name} has {last.descriptors} descriptors after it, not {first.descriptors}")
    return found


class _Unfinished(asyncio.Protocol):
    """One end of a connection whose handshake never finishes."""

    def __init__(self, first: bytes) -> None:
        self.ended = asyncio.Event()
        self._first = first
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._first)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self.ended.set()


class _Crowd:
    """The strangers.

    Args:
        addresses: the ports to which they come in turn.
        watched: the processes behind them.
        at_once: how many connections there may be.

    Attributes:
        harm: what a server did that it should not.
        peaks: the most that each process had.
        lives_s: how long each connection lasted.
    """

    def __init__(self, addresses: list[str], watched: list[Watched], *, at_once: int) -> None:
        self.harm: list[str] = []
        self.peaks = [each.sample() for each in watched]
        self.lives_s: list[float] = []
        self.most = 0
        self._addresses = addresses
        self._watched = watched
        self._room = asyncio.Semaphore(at_once)
        self._opening = asyncio.Semaphore(_OPENING)
        self._present = 0

    async def come(self, connections: int) -> None:
        """Open all connections, and wait until the servers have ended them."""
        looking = asyncio.ensure_future(self._look())
        await asyncio.gather(*(self._stay(number) for number in range(connections)))
        looking.cancel()

    async def _look(self) -> None:
        while True:
            for at, each in enumerate(self._watched):
                now, peak = each.sample(), self.peaks[at]
                self.peaks[at] = Sample(
                    max(now.rss_kib, peak.rss_kib), max(now.descriptors, peak.descriptors)
                )
            await asyncio.sleep(_LOOK_S)

    async def _stay(self, number: int) -> None:
        address = self._addresses[number % len(self._addresses)]
        host, port = split_address(address)
        kind = _KINDS[number // len(self._addresses) % len(_KINDS)]
        whole = record(hello(random.Random(f"{_SEED}/{number}")))
        first = {"half a hello": whole[: len(whole) // 2], "a hello": whole}.get(kind, b"")
        async with self._room:
            try:
                async with self._opening, asyncio.timeout(WAIT_S):
                    loop = asyncio.get_running_loop()
                    _, stranger = await loop.create_connection(lambda: _Unfinished(first), host, port)
            except OSError as error:  # also a time-out
                self.harm.append(f"{address} does not accept connection {number}: {error!r}")
                return
            self._present += 1
            self.most = max(self.most, self._present)
            begun_s = time.monotonic()
            dripping = asyncio.ensure_future(_drip(stranger, whole if kind == "a byte each second" else b""))
            try:
                async with asyncio.timeout(WAIT_S):
                    await stranger.ended.wait()
            except TimeoutError:
                self.harm.append(f"{address} does not end connection {number}, which sends {kind}")
                assert stranger.transport is not None
                stranger.transport.abort()
            dripping.cancel()
            self._present -= 1
            self.lives_s.append(time.monotonic() - begun_s)


async def _drip(stranger: _Unfinished, data: bytes) -> None:
    """Send a byte each second."""
    assert stranger.transport is not None
    for byte in data:
        stranger.transport.write(bytes([byte]))
        await asyncio.sleep(1)


class _Newcomers:
    """Clients that come while the crowd is there, each with a connection of its own, on a thread.

    Args:
        servers: of the cluster.
        watched: its processes.
        guises: what honest clients show.
    """

    def __init__(self, servers: str, watched: list[Watched], guises: Guises) -> None:
        self.latencies_s: list[float] = []
        self.calls_s: list[float] = []
        self._servers = servers
        self._files = guises.honest
        self._calls = next(each.calls for each in watched if each.calls)
        self._harm: list[str] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._work), threading.Thread(target=self._call)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def finish(self) -> list[str]:
        """Stop, and return the harm done."""
        self.__exit__(None, None, None)
        for name, done in (("clients", self.latencies_s), ("clients of gRPC", self.calls_s)):
            if not done:
                self._harm.append(f"no new {name} were served")
        return self._harm

    def _work(self) -> None:
        while not self._over.wait(_LOOK_S):
            begun_s = time.monotonic()
            try:
                with lockring.Client(self._servers, **self._files) as client:
                    client.lock("honest/newcomer").acquire(timeout=WAIT_S).release()
            except lockring.LockringError as error:
                self._harm.append(f"a new client: {error!r}")
                return
            self.latencies_s.append(time.monotonic() - begun_s)

    def _call(self) -> None:
        files = [Path(self._files[name]).read_bytes() for name in ("ca", "key", "cert")]
        while not self._over.wait(_LOOK_S):
            begun_s = time.monotonic()
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100)]
            with grpc.secure_channel(self._calls, grpc.ssl_channel_credentials(*files), options) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
                try:
                    stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S, wait_for_ready=True)
                except grpc.RpcError as error:
                    self._harm.append(f"a new client of gRPC: {error!r}")
                    return
            self.calls_s.append(time.monotonic() - begun_s)


def _report(
    crowd: _Crowd,
    watched: list[Watched],
    before: list[Sample],
    after: list[Sample],
    honest: Honest,
    newcomers: _Newcomers,
) -> Report:
    report = Report()
    lives_s = sorted(crowd.lives_s)
    report.table(
        ("handshakes that never finish", ""),
        ("connections, all ended by the servers", len(lives_s)),
        ("most at once", crowd.most),
        ("median / longest life (s)", f"{lives_s[len(lives_s) // 2]:.1f} / {lives_s[-1]:.1f}"),
        (
            "client at work: locks acquired and released, median / 99 % / longest",
            f"{len(honest.latencies_s)}, {milliseconds(honest.latencies_s)}",
        ),
        ("new clients, the same", f"{len(newcomers.latencies_s)}, {milliseconds(newcomers.latencies_s)}"),
        ("new clients of gRPC, the same", f"{len(newcomers.calls_s)}, {milliseconds(newcomers.calls_s)}"),
    )
    report.table(
        ("process", "RSS before / at most / after (MiB)", "descriptors the same"),
        *(
            (
                each.name,
                " / ".join(f"{sample.rss_kib / 1024:.1f}" for sample in samples),
                " / ".join(f"{sample.descriptors}" for sample in samples),
            )
            for each, *samples in zip(watched, before, crowd.peaks, after, strict=True)
        ),
    )
    return report
