"""One HTTP connection: uvicorn's protocol on the event loop of the server, with bounds that it does not have.

uvicorn alone would wait without end for a request that comes byte by byte, and for a client that never reads. Here each
step has its time: `ConnectionKeeper` looks at all connections once a second. When there are too many, those that have
sent no whole request give way to new ones, the oldest first, and then those that leave an answer unread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, NamedTuple, cast

from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from lockring.addresses import format_address
from lockring.clock import monotonic_ns
from lockring.security.peer_certificates import PeerCertificate
from lockring.security.tls_protocol import PEER_CERTIFICATE
from lockring.units import NS_PER_S

HEAD_S_MAX: Final = 10.0
"""How long a connection may wait for the whole head of a request, the first one or the next."""

BODY_S_MAX: Final = 10.0
"""How long the body of a request may take."""

UNREAD_S_MAX: Final = 20.0
"""How long a client may leave an answer unread."""

HEAD_BYTES_MAX: Final = 16 * 1024
"""Longest head of a request."""

CONNECTIONS_MAX: Final = 256
"""Connections of the port, if the system allows as many files."""

LOOK_S: Final = 1.0
"""How often the connections are looked at."""

log = logging.getLogger("lockring.http")

_silent = logging.getLogger("lockring.http.library")
_silent.setLevel(logging.CRITICAL + 1)  # it logs a line for each malformed request, as any client may send


class HttpClient(NamedTuple):
    """The other side of a connection.

    Attributes:
        certificate: its verified certificate, None without one.
        remote: HOST:PORT.
    """

    certificate: PeerCertificate | None
    remote: str


class ConnectionKeeper:
    """The connections of a port, and their bounds. Lives in one event loop.

    Args:
        app: answers requests.
        connections_max: how many connections there may be.

    Attributes:
        refused: how many connections were ended since there were too many.
    """

    def __init__(self, app: ASGIApp, *, connections_max: int = CONNECTIONS_MAX) -> None:
        self.refused = 0
        self._connections_max = connections_max
        self._config = Config(
            cast(Any, app),
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=HEAD_BYTES_MAX,
            timeout_keep_alive=int(HEAD_S_MAX),
        )
        self._config.load()
        self._state = ServerState()
        self._open: dict[BoundedProtocol, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def make(self) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        return BoundedProtocol(self._config, self._state, self._opened, self._closed)

    def __len__(self) -> int:
        return len(self._open)

    async def end(self, timeout_s: float) -> None:
        """End all connections; answers under way have `timeout_s`."""
        for each in list(self._open):
            each.shutdown()
        tasks = list(self._state.tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
        for each in list(self._open):
            each.transport.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ----------------------------------------------------------------------- inner

    def _opened(self, connection: BoundedProtocol) -> None:
        if len(self._open) >= self._connections_max:
            self.refused += 1
            loser = (
                self._first(BoundedProtocol.lacks_request)
                or self._first(BoundedProtocol.is_unread)
                or connection
            )
            loser.transport.abort()
            self._open.pop(loser, None)
            if loser is connection:
                return
        self._open[connection] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _first(self, gives_way: Callable[[BoundedProtocol], bool]) -> BoundedProtocol | None:
        return next(filter(gives_way, self._open), None)

    def _closed(self, connection: BoundedProtocol) -> None:
        self._open.pop(connection, None)

    def _look(self) -> None:
        now_ns = monotonic_ns()
        for each in list(self._open):
            each.look(now_ns)
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look) if self._open else None


class BoundedProtocol(H11Protocol):
    """A connection. Lives in one event loop.

    Args:
        config: of uvicorn.
        state: that uvicorn's connections share.
        opened: called with a connection that is open.
        closed: called with one that has ended.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        opened: Callable[[BoundedProtocol], None],
        closed: Callable[[BoundedProtocol], None],
    ) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.logger = self.access_logger = _silent
        self.access_log = False
        self._was_opened = opened
        self._was_closed = closed
        self._step: object = None
        self._step_since_ns = monotonic_ns()

    def lacks_request(self) -> bool:
        """Return whether it waits for a request, or for the rest of one: of its head or of its body."""
        cycle = self._present_cycle()
        return cycle is None or cycle.response_complete or cycle.more_body

    def is_unread(self) -> bool:
        """Return whether its client leaves an answer unread."""
        return bool(self.flow.write_paused)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin. Called by the event loop."""
        super().connection_made(transport)
        certificate = transport.get_extra_info(PEER_CERTIFICATE)
        peer = transport.get_extra_info("peername")
        self.app_state["client"] = HttpClient(
            certificate if isinstance(certificate, PeerCertificate) else None,
            format_address(str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else "?",
        )
        if transport.get_extra_info("ssl_object") is not None:
            self.scheme = "https"
        self._was_opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End. Called by the event loop."""
        self._was_closed(self)
        super().connection_lost(exc)

    def look(self, now_ns: int) -> None:
        """End the connection if its present step takes too long."""
        step, limit_s = self._present_step()
        if step != self._step:
            self._step, self._step_since_ns = step, now_ns
        elif limit_s is not None and now_ns - self._step_since_ns > limit_s * NS_PER_S:
            log.debug("the connection with %s ends: its %s took longer than %g s", self.client, step, limit_s)
            self.transport.abort()

    def _present_step(self) -> tuple[object, float | None]:
        """Return the step, another value for each one, and how many seconds it may take; None for any."""
        cycle = self._present_cycle()
        if cycle is None:
            return "first head", HEAD_S_MAX
        if self.flow.write_paused:
            return ("answer unread", id(cycle)), UNREAD_S_MAX
        if cycle.response_complete:
            return ("next head", id(cycle)), HEAD_S_MAX
        if cycle.more_body:
            return ("body", id(cycle)), BODY_S_MAX
        return ("answer", id(cycle)), None

    def _present_cycle(self) -> RequestResponseCycle | None:
        return self.cycle  # None before the first request, which uvicorn's annotation leaves out
