"""What every peer is to the workloads: a server that can be started, and clients that acquire and release.

The clients are as thin as can be, so that what is measured is the peer's library as its users call it.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Protocol, Self

import msgspec

from bench import processes

HOST: Final = "127.0.0.1"
TTL_S: Final = 10
"""The lease that locks get where nothing else is said, and where the peer has leases."""


class Endpoint(msgspec.Struct, frozen=True):
    """All that a client's process must know.

    Attributes:
        peer: key of `bench.peers.PEERS`.
        address: HOST:PORT, or several, separated by commas.
        servers: ids of the servers' processes, for their processor time and memory.
        cores: where the client is to run; anywhere if there are none.
        ttl_s: the lease of its locks, in seconds.
    """

    peer: str
    address: str
    servers: tuple[int, ...]
    cores: tuple[int, ...] = ()
    ttl_s: int = TTL_S

    @property
    def port(self) -> int:
        """Of the only address."""
        return int(self.address.rpartition(":")[2])


class Client(Protocol):
    """A blocking client."""

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return what releases it."""

    def hold_many(self) -> None:
        """Told once, before the client acquires very many locks to hold them all at once."""


class AsyncClient(Protocol):
    """An asyncio client."""

    async def open(self, overlapping: int) -> None:
        """Connect, for that many locks at once."""

    async def acquire(self, name: str) -> Callable[[], Awaitable[object]]:
        """Wait for a lock, and return what releases it."""


class Server(ABC):
    """A peer's server, or several, on free loopback ports, with what it writes in a directory of its own.

    Not safe for use by several threads. As a context manager it is stopped at the end, and the directory removed.

    Attributes:
        peer: the name under which figures stand.
        title: the same in words.
        renewals: what keeps a lock while its holder lives: one message per lock and TTL ("lock"), one for all of a
            client's locks ("session"), or the mere connection ("connection").
    """

    peer: ClassVar[str]
    title: ClassVar[str]
    renewals: ClassVar[str]
    warm_up_s: ClassVar[float] = 0.3

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"lockring-bench-{self.peer}-", dir=directory))

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
            ServerFailed: it does not.
        """

    @abstractmethod
    def stop(self) -> None:
        """End its processes. Stopping what does not run is harmless."""

    @abstractmethod
    def pids(self) -> tuple[int, ...]:
        """The processes that keep locks; their children count with them."""

    def companions(self) -> tuple[int, ...]:
        """Processes that take no part in lock operations, but run wherever the server runs."""
        return ()

    @property
    @abstractmethod
    def address(self) -> str:
        """Where clients find it."""

    def close(self) -> None:
        """Stop it, and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def endpoint(self, cores: tuple[int, ...] = (), *, ttl_s: int = TTL_S) -> Endpoint:
        """For clients that are to run on these cores, as the server does from now on if there are any given."""
        if cores:
            processes.pin((*self.pids(), *self.companions()), cores)
        return Endpoint(self.peer, self.address, self.pids(), cores, ttl_s)
