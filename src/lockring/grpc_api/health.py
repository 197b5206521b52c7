"""The standard service by which load balancers and probes learn whether the node serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from lockring.grpc_api.call import GrpcCall
from lockring.grpc_api.private_pool import HEALTH, POOL, message_class
from lockring.grpc_api.status import CallEnded, Code

SERVICE: Final = POOL.FindServiceByName(f"{HEALTH}.Health")

_Response: Final = message_class(f"{HEALTH}.HealthCheckResponse")


class HealthServicer:
    """The service. Lives in one event loop.

    Args:
        services: the names for which it answers, "" for the whole server.
    """

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset(services)
        self._is_serving = False
        self._has_changed = asyncio.Event()

    def note(self, is_serving: bool) -> None:
        """Answer by this from now on."""
        if is_serving != self._is_serving:
            self._is_serving = is_serving
            self._has_changed.set()
            self._has_changed = asyncio.Event()

    async def Check(self, request: Any, call: GrpcCall) -> Any:  # noqa: N802
        """Return whether a service is served.

        Raises:
            CallEnded: there is no such service.
        """
        if request.service not in self._services:
            raise CallEnded(Code.NOT_FOUND, "this node has no such service")
        return self._answer(request.service)

    async def Watch(self, request: Any, call: GrpcCall) -> AsyncIterator[Any]:  # noqa: N802
        """Yield whether a service is served, and each change of that."""
        while True:
            change = self._has_changed
            yield self._answer(request.service)
            await change.wait()

    def _answer(self, service: str) -> Any:
        if service not in self._services:
            return _Response(status=_Response.SERVICE_UNKNOWN)
        return _Response(status=_Response.SERVING if self._is_serving else _Response.NOT_SERVING)
