"""The figures of a node's gRPC API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockring.server.metrics.figures import Figures

if TYPE_CHECKING:
    from lockring.grpc_api.server import GrpcServer


def add_grpc(figures: Figures, server: GrpcServer) -> None:
    """Add the figures of the port for gRPC.

    Args:
        figures: the values so far.
        server: the API.
    """
    from google.rpc import code_pb2  # here, since a process without gRPC loads none of its packages

    figures.add("lockring_connections", server.count, port="grpc")
    for (method, code), count in server.ended_calls.items():
        figures.add("lockring_grpc_calls_total", count, method=method, code=code_pb2.Code.Name(code))
