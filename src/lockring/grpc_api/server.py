"""The gRPC server of a node: in the node's event loop, on a port of its own.

It is bounded so that the lock port never waits for it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from lockring.addresses import format_address, split_address
from lockring.errors import CannotListen
from lockring.grpc_api.access import AccessInterceptor, CallGate
from lockring.grpc_api.credentials import TLS_OPTIONS, server_credentials
from lockring.grpc_api.driver import NodeDriver
from lockring.grpc_api.host import NodeHost
from lockring.grpc_api.servicer import LockServicer
from lockring.grpc_api.v1 import lockring_pb2 as pb
from lockring.grpc_api.v1 import lockring_pb2_grpc
from lockring.net.openers import Opener, open_plain
from lockring.security.tls_policy import TlsPolicy

CALLS_MAX: Final = 4_000
"""Calls that are open at a node, streams and waits among them; more are refused with RESOURCE_EXHAUSTED."""

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
        self._health = health.aio.HealthServicer()
        self._is_serving: bool | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = grpc.aio.server(
            options=_OPTIONS if policy is None else [*_OPTIONS, *TLS_OPTIONS],
            maximum_concurrent_rpcs=CALLS_MAX,
            interceptors=[AccessInterceptor(gate)] if gate.is_on else [],
        )
        lockring_pb2_grpc.add_LockServiceServicer_to_server(LockServicer(host, self._driver), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

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
        return format_address(host, port)

    def _add_port(self, listen: str) -> int:
        if self._policy is None:
            return self._server.add_insecure_port(listen)
        return self._server.add_secure_port(listen, server_credentials(self._policy))

    def note_serving(self, is_serving: bool) -> None:
        """Report by the health service whether the node may serve from now on."""
        if is_serving != self._is_serving:
            task = asyncio.get_running_loop().create_task(self._set_health(is_serving))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self, grace_s: float) -> None:
        """End all calls; those under way have `grace_s`."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        await self._driver.close()

    async def _set_health(self, is_serving: bool) -> None:
        self._is_serving = is_serving
        serving = health_pb2.HealthCheckResponse
        status = serving.SERVING if is_serving else serving.NOT_SERVING
        for service in ("", _SERVICE):
            await self._health.set(service, status)
