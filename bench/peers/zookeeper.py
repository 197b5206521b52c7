"""ZooKeeper as shipped (each change is on disk before it is answered), through kazoo's `Lock`.

One server, or three that agree by Zab. The client of three is connected to the leader, which spares it a hop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, NamedTuple

from kazoo.client import KazooClient

from bench.peers.base import HOST, Endpoint, Server
from bench.peers.programs import ZOOKEEPER_JAR
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports

_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class _Member(NamedTuple):
    """One member.

    Attributes:
        port: for clients.
        process: its process.
    """

    port: int
    process: ServerProcess


class ZooKeeperServer(Server):
    """One ZooKeeper server."""

    peer = "zookeeper"
    title = "kazoo Lock on ZooKeeper"
    renewals = "session"
    warm_up_s = 1.5  # a Java server compiles while it runs
    size: ClassVar[int] = 1

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        ports = free_ports(HOST, 3 * self.size)
        clients, followers, elections = (
            ports[kind * self.size : (kind + 1) * self.size] for kind in range(3)
        )
        everybody = {
            f"server.{number}": f"{HOST}:{follower}:{election}"
            for number, (follower, election) in enumerate(zip(followers, elections, strict=True), 1)
        }
        self._members = [
            _Member(port, self._process(number, port, everybody if self.size > 1 else {}))
            for number, port in enumerate(clients, 1)
        ]
        self._leader = self._members[0]

    def _process(self, number: int, port: int, everybody: dict[str, str]) -> ServerProcess:
        where = self.directory / f"m{number}"
        data = where / "data"
        data.mkdir(parents=True)
        (data / "myid").write_text(f"{number}\n")
        settings = {
            "tickTime": "2000",
            "initLimit": "10",
            "syncLimit": "5",
            "dataDir": str(data),
            "clientPort": str(port),
            "clientPortAddress": HOST,
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "ruok,srvr",
            **everybody,
        }
        path = where / "zoo.cfg"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = ["java", "-Xmx1000m", "-cp", f"{where}:{ZOOKEEPER_JAR}", _MAIN, str(path)]
        return ServerProcess(command, where / "log")

    def start(self) -> None:
        """Start the servers, and wait until each reports that it serves."""
        for member in self._members[:-1]:  # none serves before most of them run
            member.process.start(lambda: True)
        self._members[-1].process.start(lambda: all(self._mode(member) for member in self._members))
        self._leader = next(
            (member for member in self._members if self._mode(member) == "leader"), self._members[0]
        )

    def _mode(self, member: _Member) -> str:
        """Return "standalone", "leader" or "follower", and "" if it does not serve yet."""
        with socket.create_connection((HOST, member.port), timeout=2) as sock:
            sock.sendall(b"srvr")
            text = b""
            while data := sock.recv(4096):
                text += data
        modes = [line for line in text.decode().splitlines() if line.startswith("Mode: ")]
        return modes[0].removeprefix("Mode: ") if modes else ""

    def stop(self) -> None:
        """Kill the servers."""
        for member in self._members:
            member.process.stop()

    def pids(self) -> tuple[int, ...]:
        """Return the servers' processes."""
        return tuple(member.process.pid for member in self._members)

    @property
    def address(self) -> str:
        """The address of the leader."""
        return f"{HOST}:{self._leader.port}"


class ZooKeeperEnsemble(ZooKeeperServer):
    """Three ZooKeeper servers: each change is on two of their disks before it is answered."""

    peer = "zookeeper-3"
    title = "kazoo Lock on three ZooKeeper servers"
    size = 3


class ZooKeeperInMemory(ZooKeeperServer):
    """The same server with its data on tmpfs, so that the disk costs nothing."""

    peer = "zookeeper+tmpfs"
    title = "ZooKeeper, data on tmpfs"

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory or Path("/dev/shm"))


class BlockingClient:
    """`kazoo.recipe.lock.Lock`; one session, which many threads may share. kazoo has no asyncio client."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._client = KazooClient(hosts=endpoint.address, timeout=endpoint.ttl_s)
        self._client.start()

    def acquire(self, name: str) -> Callable[[], object]:
        """Wait for a lock, and return the function that releases it."""
        lock = self._client.Lock(f"/bench/{name}")
        lock.acquire()
        release: Callable[[], object] = lock.release
        return release

    def hold_many(self) -> None:
        """Do nothing: this client needs no preparation."""
