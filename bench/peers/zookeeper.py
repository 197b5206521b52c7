"""ZooKeeper as shipped (each change is on disk before it is answered), through kazoo's `Lock`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kazoo.client import KazooClient

from bench.peers.base import HOST, Endpoint, Server
from bench.peers.programs import ZOOKEEPER_JAR
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports

_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class ZooKeeperServer(Server):
    """One ZooKeeper server."""

    peer = "zookeeper"
    title = "kazoo Lock on ZooKeeper"
    renewals = "session"
    warm_up_s = 1.5  # a Java server compiles while it runs

    def __init__(self, directory: Path | None = None) -> None:
        super().__init__(directory)
        (self._port,) = free_ports(HOST, 1)
        settings = {
            "tickTime": "2000",
            "dataDir": str(self.directory / "data"),
            "clientPort": str(self._port),
            "clientPortAddress": HOST,
            "maxClientCnxns": "0",
            "admin.enableServer": "false",
            "4lw.commands.whitelist": "ruok,srvr",
        }
        path = self.directory / "zoo.cfg"
        path.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self._process = ServerProcess(
            ["java", "-Xmx1000m", "-cp", f"{self.directory}:{ZOOKEEPER_JAR}", _MAIN, str(path)],
            self.directory / "log",
        )

    def start(self) -> None:
        """Start the server, and wait until it reports that it serves."""
        (self.directory / "data").mkdir(exist_ok=True)
        self._process.start(self._answers)

    def _answers(self) -> bool:
        with socket.create_connection((HOST, self._port), timeout=2) as sock:
            sock.sendall(b"srvr")
            text = b""
            while data := sock.recv(4096):
                text += data
        return b"Mode: standalone" in text

    def stop(self) -> None:
        """Kill the server."""
        self._process.stop()

    def pids(self) -> tuple[int, ...]:
        """Return the server's process."""
        return (self._process.pid,)

    @property
    def address(self) -> str:
        """The address that it listens on."""
        return f"{HOST}:{self._port}"


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
