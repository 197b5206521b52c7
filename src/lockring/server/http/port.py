"""The HTTP port of a process: it listens at once, and loads what answers soon, or with the first connection."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from lockring.addresses import format_address, split_address
from lockring.errors import CannotListen, ExtraMissing
from lockring.log_events import event
from lockring.system_errors import listen_failure

if TYPE_CHECKING:
    from lockring.server.http.protocol import ConnectionKeeper
    from lockring.server.tls import SecuringPages

_BACKLOG: Final = 128
_NEEDED: Final = ("starlette", "uvicorn", "prometheus_client", "jinja2")

log = logging.getLogger("lockring.http")

MakeKeeper = Callable[[int], "ConnectionKeeper"]
"""Loads the pages, and makes the keeper of so many connections. Called on a thread; may take half a second."""


class HttpPort:
    """The port. Lives in one event loop.

    Args:
        make: see `MakeKeeper`.
        ending: called when the port closes, before its connections end.
        secure: puts TLS below each connection; None for connections without TLS. Half as many handshakes as
            connections may be under way, and half as many may be ending.

    Raises:
        ExtraMissing: the packages that it needs are not installed.
    """

    def __init__(
        self, make: MakeKeeper, *, ending: Callable[[], None], secure: SecuringPages | None = None
    ) -> None:
        missing = [each for each in _NEEDED if find_spec(each) is None]
        if missing:
            raise ExtraMissing(
                f"HTTP needs packages that are not installed ({', '.join(missing)}): install lockring[server], or use"
                " --no-http"
            )
        self._make = make
        self._ending = ending
        self._secure = secure
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._keeper: ConnectionKeeper | None = None
        self._loading: asyncio.Task[None] | None = None

    async def start(self, listen: str) -> str:
        """Listen at HOST:PORT, port 0 for any free one, and return it with the port that it is.

        Raises:
            InvalidRequest: not an address.
            CannotListen: the port is taken, or the host is unknown or not of this machine.
        """
        host, port = split_address(listen)
        try:
            self._sockets = await _bound(host, port)
        except OSError as error:
            raise CannotListen(f"cannot listen on {listen} for HTTP: {listen_failure(error)}") from error
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.add_reader(each, self._begin_loading)
        return format_address(host, self._sockets[0].getsockname()[1])

    async def load(self) -> None:
        """Load what answers, before a connection needs it. Returns at once if a connection has come before."""
        if self._loading is None:
            await asyncio.wait([self._begin_loading()])

    async def stop(self, grace_s: float) -> None:
        """End all connections; answers under way have `grace_s`."""
        self._ending()
        self._stop_waiting()
        if self._loading is not None:
            await asyncio.wait([self._loading])
        for server in self._servers:
            server.close()
        for each in self._sockets:
            each.close()
        if self._keeper is not None:
            await self._keeper.end(grace_s)

    # ----------------------------------------------------------------------- inner

    def _stop_waiting(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loading is None:
            for each in self._sockets:
                loop.remove_reader(each)

    def _begin_loading(self) -> asyncio.Task[None]:
        self._stop_waiting()
        self._loading = asyncio.get_running_loop().create_task(self._accept())
        return self._loading

    def _loaded(self) -> tuple[int, ConnectionKeeper]:
        connections_max = _connections_max()  # the first import, of many modules
        return connections_max, self._make(connections_max)

    async def _accept(self) -> None:
        try:
            connections_max, keeper = await asyncio.to_thread(self._loaded)
            self._keeper = keeper
            make = keeper.make if self._secure is None else self._secure(keeper.make, connections_max // 2)
            loop = asyncio.get_running_loop()
            for each in self._sockets:
                self._servers.append(await loop.create_server(make, sock=each, backlog=_BACKLOG))
        except Exception:
            log.exception("HTTP has ended, because of a bug", extra=event("http-not-loaded"))
            for each in self._sockets:
                each.close()


async def _bound(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of a host, at the same port."""
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(infos):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            taken = sockets[0].getsockname()[1] if port == 0 and len(sockets) > 1 else port
            sock.bind((address[0], taken, *address[2:]))
            sock.setblocking(False)
            sock.listen(_BACKLOG)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _connections_max() -> int:
    from lockring.server.http.protocol import CONNECTIONS_MAX

    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if files == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, max(16, files // 16))
