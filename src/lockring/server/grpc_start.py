"""Starts a node's gRPC API, whose packages are loaded only if it is wanted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from lockring.errors import CannotListen, ExtraMissing
from lockring.log_events import event
from lockring.net.descriptors import ConnectionRoom
from lockring.server.access_gate import AccessGate
from lockring.server.settings import NodeSettings
from lockring.server.tls import ServerTls, opener_of

if TYPE_CHECKING:
    from lockring.grpc_api.host import NodeHost
    from lockring.grpc_api.server import GrpcServer

log = logging.getLogger("lockring.node")


async def start_grpc(
    host: NodeHost,
    settings: NodeSettings,
    listening: str,
    *,
    advertised: str,
    gate: AccessGate,
    tls: ServerTls | None,
    room: ConnectionRoom,
) -> tuple[GrpcServer | None, str]:
    """Start the API, and return it with the address to advertise; None and "" if its default port is taken.

    Args:
        host: the node.
        settings: of the node.
        listening: HOST:PORT of its lock port.
        advertised: the same as advertised to others.
        gate: the access control of the node.
        tls: the process's TLS, None without.
        room: the descriptors that the node has.

    Raises:
        ConfigError: there is TLS, and no certificate for clients.
        CannotListen: the configured port is taken, or its host is not of this machine.
        ExtraMissing: the packages that it needs are not installed.
    """
    try:
        from lockring.grpc_api.server import GrpcServer  # takes a tenth of a second to load
    except ImportError as error:
        raise ExtraMissing(
            f"the gRPC API needs packages that are not installed ({error}): install lockring[server], or use --no-grpc"
        ) from error
    try:
        listen, advertise = settings.grpc_addresses(listening, advertised)
    except CannotListen as error:
        log.warning("no gRPC API: %s; name another port with --grpc-listen", error, extra=event("no-grpc"))
        return None, ""
    server = GrpcServer(
        host,
        gate,
        opener=opener_of(tls),
        secure=None
        if tls is None
        else tls.securing_calls(room.call_handshakes, gate.handshakes_at("gRPC port")),
        connections_max=room.calls if tls is not None else room.calls + room.call_handshakes,
    )
    try:
        address = await server.start(listen)
    except CannotListen as error:
        await server.stop(0)
        if settings.grpc_listen:
            raise
        # A default port that is taken must not keep a node from its work.
        log.warning("no gRPC API: %s; name another port with --grpc-listen", error, extra=event("no-grpc"))
        return None, ""
    log.info(
        "gRPC API at %s%s",
        address,
        "" if tls is None else ", with TLS",
        extra=event("grpc-listens", address=address),
    )
    return server, advertise or address
