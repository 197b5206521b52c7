"""The addresses of a local cluster's processes, and how to start them there: on the loopback interface by default."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from lockring.testing.ports import ReservedPorts

HOST: Final = "127.0.0.1"


class Place(NamedTuple):
    """The place of one process.

    Attributes:
        listen: HOST:PORT that it listens on, and at which the test itself reaches it.
        advertise: HOST:PORT that it advertises; "" for the one listened on.
        prefix: start of the command line, such as a program that enters a network namespace. It must become the
            command that follows, under the same process id.
        insecure: whether a server may listen there without TLS though other machines may reach the address.
    """

    listen: str
    advertise: str = ""
    prefix: tuple[str, ...] = ()
    insecure: bool = False

    @property
    def public(self) -> str:
        """The address that is advertised."""
        return self.advertise or self.listen


class Network(Protocol):
    """Gives the processes of a cluster their places."""

    def place(self, name: str) -> Place:
        """Return the place of a process that starts for the first time, or again after a failed start."""


class Loopback:
    """Ports of this machine, which no other machine can reach, kept until this is closed. Not thread-safe."""

    def __init__(self) -> None:
        self._ports = ReservedPorts(HOST)

    def place(self, name: str) -> Place:
        """Return a place with a reserved port."""
        del name
        return Place(f"{HOST}:{self._ports.take()[0]}")

    def close(self) -> None:
        """Release the ports. Closing twice is harmless."""
        self._ports.close()
