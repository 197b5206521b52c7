"""A peer whose servers agree among themselves: one server or three, on disk or on tmpfs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bench.peers.base import HOST, Server
from bench.processes import ServerProcess

_TMPFS: Final = Path("/dev/shm")


class Member:
    """One server of an ensemble.

    Attributes:
        port: its port for clients.
        process: its process.
    """

    def __init__(self, port: int, process: ServerProcess) -> None:
        self.port = port
        self.process = process


class Ensemble(Server):
    """Servers that agree among themselves. The client of three asks the leader, which spares it a hop.

    A name that ends in "-3" is for three of them: each change is on two of their disks before it is answered. One that
    ends in "+tmpfs" has the data in memory, so that the disk costs nothing.
    """

    def __init__(self, peer: str, directory: Path | None = None, *, is_patient: bool = False) -> None:
        in_memory = peer.endswith("+tmpfs")
        super().__init__(peer, directory or (_TMPFS if in_memory else None), is_patient=is_patient)
        self.size: Final = 3 if peer.endswith("-3") else 1
        self.members: Final = tuple(self.prepare())
        self._leader = self.members[0]

    @abstractmethod
    def prepare(self) -> Sequence[Member]:
        """Return `size` servers that have their files, and do not run yet."""

    @abstractmethod
    def serves(self, member: Member) -> bool:
        """Return whether a running server is ready for clients."""

    @abstractmethod
    def leads(self, member: Member) -> bool:
        """Return whether a server that is ready leads the others."""

    def start(self) -> None:
        """Start the servers, and wait until each is ready."""
        *others, last = self.members
        for member in others:  # none is ready before most of them run
            member.process.start(lambda: True)
        last.process.start(lambda: all(map(self.serves, self.members)))
        self._leader = next(filter(self.leads, self.members), last)

    def stop(self) -> None:
        """Kill the servers."""
        for member in self.members:
            member.process.stop()

    def pids(self) -> tuple[int, ...]:
        """Return the servers' processes."""
        return tuple(member.process.pid for member in self.members)

    @property
    def address(self) -> str:
        """The address of the leader."""
        return f"{HOST}:{self._leader.port}"
