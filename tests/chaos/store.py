"""The store that the coordinators of a run share: real servers of etcd or PostgreSQL, each with links of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Protocol

from lockring.testing import Place
from tests.chaos.links import Links
from tests.stores.servers import PostgresServer, ServerFailed, postgresql_programs
from tests.stores.servers_etcd import EtcdServer

_MEMBERS: Final = 3
_ENDS_WITH_THE_RUN: Final = ("setpriv", "--pdeathsig", "KILL")


class SharedStore(Protocol):
    """Servers that may be killed, frozen and started again on their data, one by one."""

    kind: str
    """ "etcd" or "postgresql"."""
    servers: tuple[str, ...]
    """Their names on the links. The store answers as long as most of them do."""

    @property
    def url(self) -> str:
        """The store's URL, as a coordinator takes it."""

    def pids(self) -> dict[str, int]:
        """Return the process ids of the servers that are running. May be called by other threads."""

    def kill(self, server: str) -> None:
        """Kill a server."""

    def start(self, server: str) -> None:
        """Start a server on the data that it has."""

    def freeze(self, server: str) -> None:
        """Let a server stand still."""

    def thaw(self, server: str) -> None:
        """Let it go on."""

    def wait(self) -> None:
        """Wait until the store answers.

        Raises:
            ServerFailed: it does not.
        """

    def remove(self) -> None:
        """Kill all servers, and remove what was not made in the run's directory."""


class EtcdMembers:
    """Three members of etcd.

    Args:
        links: between all processes of the run.
        directory: for the members' data and logs.
    """

    kind = "etcd"

    def __init__(self, links: Links, directory: Path) -> None:
        self.servers = tuple(f"S{number}" for number in range(1, _MEMBERS + 1))
        places = [_lasting(links.place(server)) for server in self.servers]
        self._etcd = EtcdServer(directory / "etcd", _MEMBERS, places=places)

    @property
    def url(self) -> str:
        """The URL with all members."""
        return self._etcd.url()

    def pids(self) -> dict[str, int]:
        """Return the members' process ids."""
        return {self.servers[member]: pid for member, pid in self._etcd.pids.items()}

    def kill(self, server: str) -> None:
        """Kill a member."""
        self._etcd.kill(self._member(server))

    def start(self, server: str) -> None:
        """Start a member again."""
        self._etcd.start(self._member(server))

    def freeze(self, server: str) -> None:
        """Let a member stand still."""
        self._etcd.freeze(self._member(server))

    def thaw(self, server: str) -> None:
        """Let it go on."""
        self._etcd.thaw(self._member(server))

    def wait(self) -> None:
        """Wait until the members agree."""
        self._etcd.wait()

    def remove(self) -> None:
        """Kill all members."""
        self._etcd.kill()

    def _member(self, server: str) -> int:
        return self.servers.index(server)


class OnePostgres:
    """One PostgreSQL server.

    Args:
        links: between all processes of the run.
    """

    kind = "postgresql"
    servers: tuple[str, ...] = ("S1",)

    def __init__(self, links: Links) -> None:
        self._server = PostgresServer(links.place(self.servers[0]))

    @property
    def url(self) -> str:
        """The URL of a cluster in it."""
        return self._server.url(name="chaos")

    def pids(self) -> dict[str, int]:
        """Return the id of its first process."""
        pid = self._server.pid
        return {} if pid is None else {self.servers[0]: pid}

    def kill(self, server: str) -> None:
        """Kill it with all of its processes."""
        assert server in self.servers
        self._server.kill()

    def start(self, server: str) -> None:
        """Start it, and wait until it takes connections."""
        assert server in self.servers
        self._server.start()

    def freeze(self, server: str) -> None:
        """Let it stand still with all of its processes."""
        assert server in self.servers
        self._server.freeze()

    def thaw(self, server: str) -> None:
        """Let it go on."""
        assert server in self.servers
        self._server.thaw()

    def wait(self) -> None:
        """Return at once: it answers as soon as it was started."""

    def remove(self) -> None:
        """Kill it and remove its data."""
        self._server.remove()


def installed_stores() -> tuple[str, ...]:
    """Return the kinds of stores whose servers are installed here."""
    found = ["etcd"] if shutil.which("etcd") else []
    try:
        postgresql_programs()
    except ServerFailed:
        pass
    else:
        found.append("postgresql")
    return tuple(found) if shutil.which("setpriv") else ()


def start_store(kind: str, links: Links, directory: Path) -> SharedStore:
    """Start a store, and wait until it answers.

    Args:
        kind: "etcd" or "postgresql".
        links: between all processes of the run.
        directory: for data and logs.

    Raises:
        ServerFailed: it is not installed, or does not start.
    """
    return EtcdMembers(links, directory) if kind == "etcd" else OnePostgres(links)


def _lasting(place: Place) -> Place:
    """Return the place of a server that ends with this run, however that ends."""
    return place._replace(prefix=(*place.prefix, *_ENDS_WITH_THE_RUN))
