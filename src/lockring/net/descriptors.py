"""How many connections a port may have, given how many files the system lets this process open."""

from __future__ import annotations

import contextlib
import resource
from typing import Final, NamedTuple

from lockring.errors import ConfigError

CLIENTS_MAX: Final = 10_000
"""How many clients one port accepts, if there are descriptors for them."""

RESERVED_MAX: Final = 256
"""How many further connections a port accepts, from members of the cluster and from connections whose role is not yet
known: a crowd of clients must not cut a node off from the others. As many descriptors again are kept for the files of
the process itself. With few descriptors, each of the two is a quarter of them."""

CALL_CONNECTIONS_MAX: Final = 2_000
"""How many connections of gRPC clients a node accepts, if there are descriptors for them; each has many calls."""

CALL_HANDSHAKES_MAX: Final = 512
"""How many TLS handshakes of gRPC clients may be under way besides. With few descriptors, both together are a quarter
of the node's: a crowd there must not keep others from the lock port."""

SHARE_MIN: Final = 256
"""Descriptors per port below which the members of a cluster would leave hardly any for clients."""

FEW: Final = 1_000
"""Number of clients below which a warning is due."""

_WANTED: Final = CLIENTS_MAX + 4 * RESERVED_MAX
_CALLS_WANTED: Final = CALL_CONNECTIONS_MAX + CALL_HANDSHAKES_MAX
_HOW: Final = "with ulimit -n, or LimitNOFILE= in a systemd unit"


class ConnectionRoom(NamedTuple):
    """The number of connections that one port may have.

    Attributes:
        clients: of clients.
        reserved: beyond those, for members and unknown connections.
        files: how many files the process may open in all.
        calls: connections of gRPC clients, at the node's port for them.
        call_handshakes: handshakes under way there.
    """

    clients: int
    reserved: int
    files: int
    calls: int = 0
    call_handshakes: int = 0

    @property
    def remark(self) -> str:
        """A sentence if that is little, else ""."""
        if self.clients >= FEW:
            return ""
        return f"room for only {self.clients} clients, because {self.files} files may be open; raise the limit {_HOW}"


def room_for(ports: int, *, has_calls: bool = False) -> ConnectionRoom:
    """Divide the descriptors of this process among its ports, after raising their number as far as allowed.

    Args:
        ports: how many listeners the process has, 1 or more, without the one for gRPC.
        has_calls: whether the room is that of a node which serves gRPC too.

    Raises:
        ConfigError: there are too few descriptors.
    """
    files = _files_max(ports * _WANTED + (_CALLS_WANTED if has_calls else 0))
    room = room_of(files, ports, has_calls=has_calls)
    if files // ports < SHARE_MIN:
        raise ConfigError(
            f"this process may open only {files} files and sockets, but needs at least {ports * SHARE_MIN}"
            f" ({ports * _WANTED} to serve up to {CLIENTS_MAX} clients a port): raise the limit {_HOW}"
        )
    return room


def room_of(files: int, ports: int, *, has_calls: bool = False) -> ConnectionRoom:
    """Divide `files` descriptors among so many ports. See `room_for`."""
    share = files // ports
    for_calls = min(_CALLS_WANTED, share // 4) if has_calls else 0
    handshakes = min(CALL_HANDSHAKES_MAX, for_calls // 4)
    share -= for_calls
    reserved = min(RESERVED_MAX, share // 4)
    clients = min(CLIENTS_MAX, share - 2 * reserved)
    return ConnectionRoom(clients, reserved, files, for_calls - handshakes, handshakes)


def _files_max(wanted: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        # Some systems enforce a lower limit than the hard one that they report.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    return wanted if soft == resource.RLIM_INFINITY else soft
