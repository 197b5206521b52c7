"""Where the processes of a local cluster listen, and how they are started so that they do: loopback unless told."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from lockring.testing.ports import ReservedPorts

HOST: Final = "127.0.0.1"


class Place(NamedTuple):
    """Where one process is.

    Attributes:
        listen: HOST:PORT that it listens on, and at which the test itself reaches it.
        advertise: HOST:PORT that the others are told to use; "" for the one listened on.
        prefix: what the command line begins with, such as a program that enters a network namespace. It must end by
            becoming the command that follows, under the same process id.
    """

    listen: str
    advertise: str = ""
    prefix: tuple[str, ...] = ()

    @property
    def public(self) -> str:
        """The address that the others are told to use."""
        return self.advertise or self.listen


class Network(Protocol):
    """What gives the processes of a cluster their places."""

    def place(self, name: str) -> Place:
        """The place of a process that is about to be started for the first time, or anew after a failed start."""


class Loopback:
    """Ports of this machine, which nobody else can reach, kept until this is closed. Not thread-safe."""

    def __init__(self) -> None:
        self._ports = ReservedPorts(HOST)

    def place(self, name: str) -> Place:
        """A port that nobody else gets."""
        del name
        return Place(f"{HOST}:{self._ports.take()[0]}")

    def close(self) -> None:
        """Keep the ports no longer. Closing twice is harmless."""
        self._ports.close()
