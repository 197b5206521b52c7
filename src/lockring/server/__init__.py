"""The server processes. Each function runs one in the main thread until it ends, and returns its exit code.

Before that, each raises `ConfigError` for ports that would be open to other machines by mistake: see `open_ports`.
"""

from __future__ import annotations

from lockring.server.access_settings import AccessSettings
from lockring.server.settings import CoordinatorSettings, NodeSettings, ServeSettings, UpSettings

__all__ = ["run_coordinator", "run_node", "run_serve", "run_up"]


def run_node(settings: NodeSettings, access: AccessSettings) -> int:
    """Run a node. SIGTERM or SIGINT drains it; a second one, or SIGQUIT, stops it at once."""
    from lockring.server.lifecycle import run_service
    from lockring.server.node import NodeServer
    from lockring.server.open_ports import checked_access

    access = checked_access(settings, access)
    return run_service(
        lambda: NodeServer(settings, access=access), style=settings.log_style, name=settings.id
    )


def run_coordinator(settings: CoordinatorSettings, access: AccessSettings) -> int:
    """Run a coordinator."""
    from lockring.server.coordinator import CoordinatorServer
    from lockring.server.lifecycle import run_service
    from lockring.server.open_ports import checked_access

    access = checked_access(settings, access)
    return run_service(
        lambda: CoordinatorServer(settings, access=access), style=settings.log_style, name="coordinator"
    )


def run_serve(settings: ServeSettings, access: AccessSettings) -> int:
    """Run a coordinator and a node in one process."""
    from lockring.server.lifecycle import run_service
    from lockring.server.open_ports import checked_access
    from lockring.server.standalone import StandaloneServer

    access = checked_access(settings, access)
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
    from lockring.server.open_ports import checked_access

    access = checked_access(settings, access)
    return run_service(lambda: UpServer(settings, access=access), style=settings.log_style, name="up")
