"""ZooKeeper as shipped (each change is on disk before it is answered), through kazoo's `Lock`.

One server, or three that agree by Zab. The client of three is connected to the leader, which spares it a hop.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Final

from kazoo.client import KazooClient

from bench.peers.base import HOST, Endpoint
from bench.peers.ensemble import Ensemble, Member
from bench.peers.programs import ZOOKEEPER_JAR
from bench.processes import ServerProcess
from lockring.server.local.children import free_ports

_MAIN: Final = "org.apache.zookeeper.server.quorum.QuorumPeerMain"


class ZooKeeperServer(Ensemble):
    """One ZooKeeper server, or three."""

    renewals = "session"
    warm_up_s = 1.5  # a Java server compiles while it runs

    def prepare(self) -> Sequence[Member]:
        """Return the servers, each with a directory of its own."""
        ports = free_ports(HOST, 3 * self.size)
        clients, followers, elections = (
            ports[kind * self.size : (kind + 1) * self.size] for kind in range(3)
        )
        everybody = {
            f"server.{number}": f"{HOST}:{follower}:{election}"
            for number, (follower, election) in enumerate(zip(followers, elections, strict=True), 1)
        }
        return [
            Member(port, self._process(number, port, everybody if self.size > 1 else {}))
            for number, port in enumerate(clients, 1)
        ]

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

    def serves(self, member: Member) -> bool:
        """Return whether a server has its part, alone or among others."""
        return bool(_mode(member))

    def leads(self, member: Member) -> bool:
        """Return whether a server reports itself as the leader."""
        return _mode(member) == "leader"


def _mode(member: Member) -> str:
    """Return "standalone", "leader" or "follower", and "" if it does not serve yet."""
    with socket.create_connection((HOST, member.port), timeout=2) as sock:
        sock.sendall(b"srvr")
        text = b""
        while data := sock.recv(4096):
            text += data
    modes = [line for line in text.decode().splitlines() if line.startswith("Mode: ")]
    return modes[0].removeprefix("Mode: ") if modes else ""


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
