"""The interface between workloads and peers: a server to start, and clients that acquire and release.

The clients are as thin as possible: the measurements are about the peer's library as its users call it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Final, Protocol, Self

import msgspec

from bench import processes

HOST: Final = "127.0.0.1"
TTL_S: Final = 10
"""The default lease of locks, if the peer has leases."""


class Endpoint(msgspec.Struct, frozen=True):
    """Everything that a client's process must know.

    Attributes:
        peer: key of `bench.peers.PEERS`.
        address: HOST:PORT, or several, separated by commas.
        servers: ids of the servers' processes, for their processor time and memory.
        cores: the cores of the client; () for any.
        ttl_s: the lease of its locks, in seconds.
        python: the interpreter of the client.
        files: the client's files for TLS, by argument; none without TLS.
    """

    peer: str
    address: str
    servers: tuple[int, ...]
    cores: tuple[int, ...] = ()
    ttl_s: int = TTL_S
    python: str = sys.executable
    files: dict[str, Any] = {}

    @property
    def port(self) -> int:
        """The port of the only address."""
        return int(self.address.rpartition(":")[2])


class Client(Protocol):
    """A blocking client."""

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return the function that releases it."""

    def hold_many(self) -> None:
        """Prepare for very many locks, all held at once. Called once, before the first."""


class AsyncClient(Protocol):
    """An asyncio client."""

    async def open(self, overlapping: int) -> None:
        """Connect, for that many locks at once."""

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return the function that releases it."""


class Server(ABC):
    """A peer's server, or several, on free loopback ports, with a directory of its own for its files.

    Not safe for use by several threads. As a context manager it is stopped at the end, and the directory removed.

    Args:
        peer: the name of its figures, a key of `bench.peers.PEERS`.
        directory: in which it makes its directory; None for the usual one of temporary files.
        is_patient: whether leases between servers last a minute, for a workload that slows one of them down.

    Attributes:
        renewals: how a lock is kept while its holder lives: by one message per lock and TTL ("lock"), one for all of
            a client's locks ("session"), or the mere connection ("connection").
    """

    renewals: ClassVar[str]
    warm_up_s: ClassVar[float] = 0.3

    def __init__(self, peer: str, directory: Path | None = None, *, is_patient: bool = False) -> None:
        self.peer = peer
        self.is_patient = is_patient
        self.directory = Path(tempfile.mkdtemp(prefix=f"lockring-bench-{peer}-", dir=directory))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ServerFailed: it does not answer in time.
        """

    @abstractmethod
    def stop(self) -> None:
        """End its processes. Stopping a stopped server is harmless."""

    @abstractmethod
    def pids(self) -> tuple[int, ...]:
        """Return the processes that keep locks; their children count with them."""

    def companions(self) -> tuple[int, ...]:
        """Return processes that take no part in lock operations, but run on the server's cores."""
        return ()

    @property
    @abstractmethod
    def address(self) -> str:
        """The address for clients."""

    def python(self) -> str:
        """Return the interpreter of its clients."""
        return sys.executable

    def files(self) -> dict[str, Any]:
        """Return its clients' files for TLS, by argument."""
        return {}

    def close(self) -> None:
        """Stop it, and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def endpoint(self, cores: tuple[int, ...] = (), *, ttl_s: int = TTL_S) -> Endpoint:
        """Return the endpoint for clients on these cores, () for any, and pin the server to the same."""
        processes.pin((*self.pids(), *self.companions()), cores or os.sched_getaffinity(0))
        return Endpoint(
            self.peer, self.address, self.pids(), cores, ttl_s=ttl_s, python=self.python(), files=self.files()
        )
