"""The gRPC server of a node: in the node's event loop, on a port of its own.

It is bounded so that the lock port never waits for it.

The library's server ends for good when a call's path is not UTF-8, which any client may send. No option, interceptor or
handler sees that call before. So the server is made again then, at the same port: its clients lose their calls, and
connect again. Without this, the node would end, as after a bug of its own.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import traceback
from collections.abc import Coroutine
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lockring.addresses import format_address, split_address
from lockring.clock import monotonic_ns
from lockring.errors import CannotListen
from lockring.grpc_api.access import AccessInterceptor, CallGate
from lockring.grpc_api.credentials import TLS_OPTIONS, server_credentials
from lockring.grpc_api.driver import NodeDriver
from lockring.grpc_api.host import NodeHost
from lockring.grpc_api.malformed import MalformedRequests
from lockring.grpc_api.servicer import LockServicer
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.grpc_api.v1 import lockring_pb2_grpc
from lockring.log_events import event
from lockring.net.openers import Opener, open_plain
from lockring.security.tls_policy import TlsPolicy
from lockring.troubles import RepeatedTrouble

CALLS_MAX: Final = 4_000
"""Calls that are open at a node, streams and waits among them; more are refused with RESOURCE_EXHAUSTED."""

CONNECTIONS_MAX: Final = 2_000
"""Connections of clients to the API of a node; each takes any number of calls. With few descriptors they are a quarter
of them: a crowd here must not keep others from the lock port."""

MESSAGE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Longest request: room for a KeepAlive of 1,000 locks with long names."""

_OPTIONS: Final[list[tuple[str, Any]]] = [
    ("grpc.so_reuseport", 0),  # another process at the same port is a mistake, and not to share its calls
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", CALLS_MAX),
    # A client whose machine is gone is noticed in 15 s, and its waiters with it.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),  # also of one that only keeps its channel open
]

_MAIN_LOOP: Final = "_server_main_loop"
"""The library's function whose errors end its server."""

_KEPT_S: Final = 60.0
"""How long a server that has ended is kept in memory: one that was dropped at once could end the process."""

_AGAIN_S: Final = 0.1
"""How long after one another a port is tried that another process has taken meanwhile."""

log: Final = logging.getLogger("lockring.grpc")

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["LockService"].full_name


class GrpcServer:
    """The API of one node. Lives in its event loop.

    Args:
        host: the node.
        gate: the access control of the node.
        opener: opens connections to the lock ports of other nodes.
        policy: the TLS of the port, None for none.
    """

    def __init__(
        self,
        host: NodeHost,
        gate: CallGate,
        *,
        opener: Opener = open_plain,
        policy: TlsPolicy | None = None,
    ) -> None:
        self._driver = NodeDriver(host, opener=opener)
        self._policy = policy
        self._gate = gate
        self._servicer = LockServicer(host, self._driver)
        self._health = health.aio.HealthServicer()
        self._is_serving: bool | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening = ""
        self._crashes = RepeatedTrouble()
        self._is_stopping = False
        self._server = self._made()

    def _made(self) -> grpc.aio.Server:
        judges: list[Any] = [AccessInterceptor(self._gate)] if self._gate.is_on else []
        server = grpc.aio.server(
            options=[
                *_OPTIONS,
                ("grpc.max_allowed_incoming_connections", _connections_max()),
                *([] if self._policy is None else TLS_OPTIONS),
            ],
            maximum_concurrent_rpcs=CALLS_MAX,
            interceptors=[MalformedRequests(), *judges],
        )
        lockring_pb2_grpc.add_LockServiceServicer_to_server(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    async def start(self, listen: str) -> str:
        """Listen at HOST:PORT, port 0 for any free one, and return it with the port that it is.

        Raises:
            InvalidRequest: not an address.
            CannotListen: the port is taken, or the host is not of this machine.
        """
        host, _ = split_address(listen)
        try:
            port = self._add_port(listen)
        except RuntimeError as error:
            port = 0
            why: RuntimeError | None = error
        else:
            why = None
        if not port:
            raise CannotListen(
                f"cannot listen on {listen} for gRPC: the port is already taken, or the host is not of this machine"
            ) from why
        await self._set_health(False)
        await self._server.start()
        self._listening = format_address(host, port)
        self._listen_for_crashes()
        return self._listening

    def _add_port(self, listen: str) -> int:
        if self._policy is None:
            return self._server.add_insecure_port(listen)
        return self._server.add_secure_port(listen, server_credentials(self._policy))

    def note_serving(self, is_serving: bool) -> None:
        """Report by the health service whether the node may serve from now on."""
        if is_serving != self._is_serving:
            self._spawn(self._set_health(is_serving))

    async def stop(self, grace_s: float) -> None:
        """End all calls; those under way have `grace_s`."""
        self._is_stopping = True
        await self._health.enter_graceful_shutdown()
        await _end(self._server, grace_s)
        await self._driver.close()

    def _listen_for_crashes(self) -> None:
        """Take the errors of the library's server for what they are; all others go on to the former handler."""
        loop = asyncio.get_running_loop()
        outer = loop.get_exception_handler()

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if _is_crash(context):
                self._spawn(self._begin_again(context.get("exception")))
            elif outer is None:
                loop.default_exception_handler(context)
            else:
                outer(loop, context)

        loop.set_exception_handler(handle)

    async def _begin_again(self, error: BaseException | None) -> None:
        """Make another server at the same port, after the library's has ended."""
        told = self._crashes.fails(
            f"the gRPC API has ended because of a malformed call, and begins again: {error}",
            now_ns=monotonic_ns(),
        )
        if told:
            log.warning("%s", told, extra=event("grpc-begins-again"))
        await _end(self._server, None)
        # The library's threads may still call what only the ended server, and the frames of its error, keep alive.
        asyncio.get_running_loop().call_later(_KEPT_S, _forget, self._server, error)
        self._server = self._made()
        while not self._is_stopping:
            try:
                if self._add_port(self._listening):
                    await self._server.start()
                    return
            except RuntimeError as taken:
                log.debug("%s", taken)
            await asyncio.sleep(_AGAIN_S)

    def _spawn(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set_health(self, is_serving: bool) -> None:
        self._is_serving = is_serving
        serving = health_pb2.HealthCheckResponse
        status = serving.SERVING if is_serving else serving.NOT_SERVING
        for service in ("", _SERVICE):
            await self._health.set(service, status)


async def _end(server: grpc.aio.Server, grace_s: float | None) -> None:
    """End a server of the library, which may just be ending by itself."""
    try:
        await server.stop(grace_s)
    except Exception as error:
        if not _is_crash({"exception": error}):
            raise
        log.debug("the library's server has ended by itself: %r", error)


def _connections_max() -> int:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS_MAX if files == resource.RLIM_INFINITY else min(CONNECTIONS_MAX, files // 4)


def _forget(*_: object) -> None:
    """Do nothing: the arguments were kept until now."""


def _is_crash(context: dict[str, Any]) -> bool:
    """Return whether an event loop's report is of a server of the library that has ended by itself."""
    error = context.get("exception")
    frames = traceback.walk_tb(error.__traceback__) if isinstance(error, Exception) else ()
    return any(frame.f_code.co_name == _MAIN_LOOP for frame, _ in frames)
