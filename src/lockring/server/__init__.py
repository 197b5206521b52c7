"""The server processes. Each function runs one in the main thread until it ends, and returns its exit code."""

from __future__ import annotations

from lockring.server.access_settings import AccessSettings
from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings

__all__ = ["run_coordinator", "run_node", "run_serve", "run_up"]


def run_node(settings: NodeSettings, access: AccessSettings) -> int:
    """Run a node. SIGTERM or SIGINT drains it; a second one, or SIGQUIT, stops it at once."""
    from lockring.server.lifecycle import run_service
    from lockring.server.node import NodeServer

    return run_service(
        lambda: NodeServer(settings, access=access), style=settings.log_style, name=settings.id
    )


def run_coordinator(settings: CoordinatorSettings, access: AccessSettings) -> int:
    """Run a coordinator."""
    from lockring.server.coordinator import CoordinatorServer
    from lockring.server.lifecycle import run_service

    return run_service(
        lambda: CoordinatorServer(settings, access=access), style=settings.log_style, name="coordinator"
    )


def run_serve(settings: ServeSettings, access: AccessSettings) -> int:
    """Run a coordinator and a node in one process."""
    from lockring.server.lifecycle import run_service
    from lockring.server.standalone import StandaloneServer

    return run_service(
        lambda: StandaloneServer(settings, access=access),
        style=settings.log_style,
        name=settings.id,
        parts={"lockring.coordinator": "coordinator"},
    )


def run_up(settings: UpSettings, access: AccessSettings) -> int:
    """Run a local cluster of real processes, and supervise them."""
    from lockring.server.lifecycle import run_service
    from lockring.server.local.up import UpServer

    return run_service(lambda: UpServer(settings, access=access), style=settings.log_style, name="up")
