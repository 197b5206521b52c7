"""How many connections a port may have, by how many files the system lets this process open."""

from __future__ import annotations

import contextlib
import resource
from typing import Final, NamedTuple

from lockring.errors import ConfigError

CLIENTS_MAX: Final = 10_000
"""How many clients one port accepts, where there are descriptors for them."""

RESERVED_MAX: Final = 256
"""How many connections it accepts beyond, for the members of the cluster and for those that have not said who
they are: a crowd of clients must not cut a node off from the others. As many more are for what the process opens
itself. Of fewer descriptors each is a quarter."""

SHARE_MIN: Final = 256
"""With fewer for a port, the members of a cluster would leave hardly any for clients."""

FEW: Final = 1_000
"""Fewer clients than this are worth a warning."""

_WANTED: Final = CLIENTS_MAX + 4 * RESERVED_MAX
_HOW: Final = "with ulimit -n, or LimitNOFILE= in a systemd unit"


class ConnectionRoom(NamedTuple):
    """What one port may have.

    Attributes:
        clients: connections of clients.
        reserved: connections beyond.
        files: how many the process may open in all.
    """

    clients: int
    reserved: int
    files: int

    @property
    def remark(self) -> str:
        """A sentence where that is little, else ""."""
        if self.clients >= FEW:
            return ""
        return f"room for {self.clients} clients at a time, since {self.files} files may be open; raise that {_HOW}"


def room_for(ports: int) -> ConnectionRoom:
    """Share out the descriptors of this process, after asking for as many as it may have.

    Args:
        ports: how many listeners the process has, 1 or more.

    Raises:
        ConfigError: there are too few.
    """
    files = _files_max(ports * _WANTED)
    room = room_of(files, ports)
    if files // ports < SHARE_MIN:
        raise ConfigError(
            f"this process may open {files} files and sockets, and needs {ports * SHARE_MIN} at least"
            f" (it serves up to {CLIENTS_MAX} clients a port with {ports * _WANTED}): raise the limit {_HOW}"
        )
    return room


def room_of(files: int, ports: int) -> ConnectionRoom:
    """How `files` descriptors are shared out among so many ports."""
    share = files // ports
    reserved = min(RESERVED_MAX, share // 4)
    return ConnectionRoom(min(CLIENTS_MAX, share - 2 * reserved), reserved, files)


def _files_max(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        # Some systems have a lower limit of their own than the one that they give as the hard one.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return wanted if soft == resource.RLIM_INFINITY else soft
