"""Starts the HTTP port of a process, whose packages are loaded after a while, or with its first connection."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lockring.addresses import format_address, split_address
from lockring.errors import CannotListen
from lockring.log_events import event
from lockring.protocol.infos import HTTP_OFF
from lockring.server.access_gate import AccessGate
from lockring.server.http.hosts import KnownHosts
from lockring.server.http.parts import HttpPart
from lockring.server.http.port import HttpPort
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.loop_watch import LoopWatch
from lockring.server.metrics.process import add_process
from lockring.server.settings import PortSettings
from lockring.server.tls import ServerTls, opener_of

if TYPE_CHECKING:
    from lockring.server.http.protocol import ConnectionKeeper
    from lockring.server.http.site import HttpSite
    from lockring.server.pages.dashboard import Dashboard

CLOSE_S_MAX = 1.0
"""How long answers under way have at the end."""

LOAD_AFTER_S = 10.0
"""When the packages for HTTP are loaded without a connection: the start of a server, and of others on its machine, has
better use for the processors, and the first look at a page should not wait for half a second."""

log = logging.getLogger("lockring.http")


class HttpServer:
    """The HTTP port of a process, with its site. Lives in one event loop.

    Args:
        settings: of the server.
        parts: the servers of this process.
        gate: the access control.
        tls: the process's TLS, None without.
        names: addresses (HOST:PORT) and hosts under which the server is known.

    Attributes:
        address: HOST:PORT, "" while it does not listen.
        place: HOST:PORT for others: the server's own host, where it listens at all addresses; "" as for `address`.
    """

    def __init__(
        self,
        settings: PortSettings,
        parts: Sequence[HttpPart],
        *,
        gate: AccessGate,
        tls: ServerTls | None,
        names: Sequence[str] = (),
    ) -> None:
        self.address = self.place = ""
        self._settings = settings
        self._parts = parts
        self._gate = gate
        self._names = names
        self._tls = tls
        self._watch = LoopWatch()
        self._keeper: ConnectionKeeper | None = None
        self._site: HttpSite | None = None
        self._dashboard: Dashboard | None = None
        self._loading: asyncio.Task[None] | None = None
        on_failure = gate.handshakes_at("HTTP port")
        self._port = HttpPort(
            self._made,
            ending=self._end,
            secure=None if tls is None else tls.securing_pages(on_failure),
        )

    async def start(self, listening: str) -> None:
        """Listen. A default port that is taken gives a line of the log, and no HTTP.

        Args:
            listening: HOST:PORT of the port for clients.

        Raises:
            CannotListen: the configured port is taken, or its host is not of this machine.
        """
        try:
            self.address = await self._port.start(self._settings.http_address(listening))
        except CannotListen as error:
            if self._settings.http_listen:
                raise
            # A default port that is taken must not keep a server from its work.
            log.warning("no HTTP: %s; name another port with --http-listen", error, extra=event("no-http"))
            return
        self.place = place_of(self.address, self._names[-1] if self._names else listening)
        self._watch.start()
        self._loading = asyncio.create_task(self._load())
        log.info(
            "HTTP at %s; the dashboard is at %s://%s%s/",
            self.address,
            "http" if self._tls is None else "https",
            self.address,
            self._settings.http_prefix,
            extra=event("http-listens", address=self.address),
        )

    async def stop(self) -> None:
        """End all connections."""
        self._watch.stop()
        if self._loading is not None:
            self._loading.cancel()
        await self._port.stop(CLOSE_S_MAX)
        if self._dashboard is not None:
            await self._dashboard.close()

    # ----------------------------------------------------------------------- inner

    async def _load(self) -> None:
        await asyncio.sleep(LOAD_AFTER_S)
        await self._port.load()
        if self._dashboard is None:
            return
        try:
            await self._dashboard.prepare()
        except Exception:
            log.exception("the pages cannot be prepared, because of a bug", extra=event("pages-not-prepared"))

    def _made(self, connections_max: int) -> ConnectionKeeper:
        from lockring.server.http.basics import basic_pages
        from lockring.server.http.protocol import ConnectionKeeper
        from lockring.server.http.site import HttpSite
        from lockring.server.pages.dashboard import Dashboard

        dashboard = Dashboard(
            lambda: [seed for part in self._parts for seed in part.seeds()],
            opener_of(self._tls),
            is_server=self._tls is not None,
            cookie=f"lockring-{split_address(self.address)[1]}",
        )
        pages = [*basic_pages(self._parts, self._add_figures), *dashboard.pages()]
        hosts = KnownHosts(
            [*map(_host_of, [self.address, *self._names]), *self._settings.http_hosts, socket.gethostname()]
        )
        self._site = HttpSite(pages, gate=self._gate, hosts=hosts, prefix=self._settings.http_prefix)
        dashboard.attach(self._site)
        self._dashboard = dashboard
        self._keeper = ConnectionKeeper(self._site, connections_max=connections_max)
        return self._keeper

    def _add_figures(self, figures: Figures) -> None:
        assert self._keeper is not None, "there is a connection that asks"
        add_process(figures, self._watch, self._tls, http_connections=len(self._keeper))

    def _end(self) -> None:
        if self._site is not None:
            self._site.is_ending.set()


def _host_of(address: str) -> str:
    return split_address(address)[0]


def place_of(listening: str, server: str) -> str:
    """Return HOST:PORT at which others reach an HTTP port.

    Args:
        listening: HOST:PORT on which it listens; all addresses of its machine have the host of the server.
        server: HOST:PORT of the server, as advertised to others.
    """
    host, port = split_address(listening)
    try:
        is_everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return listening
    return format_address(_host_of(server), port) if is_everywhere else listening


def http_place(server: HttpServer | None) -> str:
    """Return HOST:PORT at which others reach HTTP, `HTTP_OFF` where there is none: see `ServerStatus.http`."""
    return HTTP_OFF if server is None or not server.place else server.place


async def start_http(
    settings: PortSettings,
    listening: str,
    parts: Sequence[HttpPart],
    *,
    gate: AccessGate,
    tls: ServerTls | None,
    advertised: str = "",
) -> HttpServer | None:
    """Start HTTP for the servers of this process, and return it; None without.

    Args:
        settings: of the server.
        listening: HOST:PORT of its port for clients.
        parts: the servers of this process.
        gate: the access control.
        tls: the process's TLS, None without.
        advertised: HOST:PORT as advertised to others, "" for the one listened on.

    Raises:
        CannotListen: the configured port is taken, or its host is not of this machine.
        ExtraMissing: the packages that it needs are not installed.
    """
    if not settings.http:
        return None
    server = HttpServer(
        settings, parts, gate=gate, tls=tls, names=[listening, *([advertised] if advertised else [])]
    )
    await server.start(listening)
    return server
