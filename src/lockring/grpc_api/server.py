"""The gRPC server of a node: in the node's event loop, on a port of its own.

It is bounded so that the lock port never waits for it: connections and their handshakes, calls, bytes of requests, and
the time that all of them get of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, cast

from lockring.addresses import format_address, split_address
from lockring.clock import monotonic_ns, wall_ns
from lockring.errors import CannotListen
from lockring.grpc_api import health, reflection, servicer
from lockring.grpc_api.access import CallGate, CallJudge
from lockring.grpc_api.call import GrpcCall
from lockring.grpc_api.connection import GrpcConnection
from lockring.grpc_api.dispatch import Dispatcher
from lockring.grpc_api.driver import NodeDriver
from lockring.grpc_api.health import HealthServicer
from lockring.grpc_api.host import NodeHost
from lockring.grpc_api.methods import methods_of
from lockring.grpc_api.reflection import ReflectionServicer
from lockring.grpc_api.servicer import LockServicer
from lockring.grpc_api.shares import CALLS_MAX, Shares
from lockring.grpc_api.status import Code
from lockring.log_events import event
from lockring.net.descriptors import CALL_CONNECTIONS_MAX
from lockring.net.listener import Securing
from lockring.net.openers import Opener, open_plain
from lockring.net.turns import TurnScheduler
from lockring.system_errors import listen_failure
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_S

OTHER_METHODS: Final = "other"
"""Stands for all methods that are not served, where calls are counted: a client can invent any number of them."""

_BACKLOG: Final = 1024
_LOOK_S: Final = 1.0
_LATE_S_MAX: Final = 2.0
_CANCEL_S_MAX: Final = 5.0
_CALM_S: Final = 60

log: Final = logging.getLogger("lockring.grpc")


class GrpcServer:
    """The API of one node. Lives in its event loop.

    Args:
        host: the node.
        gate: the access control of the node.
        opener: opens connections to the lock ports of other nodes.
        secure: puts TLS below each connection; None for connections without TLS.
        connections_max: how many connections to accept.

    Attributes:
        turns: shares the loop's time among the connections.
        ended_calls: how many calls have ended, by method and status code.
    """

    def __init__(
        self,
        host: NodeHost,
        gate: CallGate,
        *,
        opener: Opener = open_plain,
        secure: Securing | None = None,
        connections_max: int = CALL_CONNECTIONS_MAX,
    ) -> None:
        self.turns = TurnScheduler()
        self.ended_calls: Counter[tuple[str, int]] = Counter()
        self._driver = NodeDriver(host, opener=opener)
        self._secure = secure
        self._connections_max = connections_max
        names = [each.full_name for each in (servicer.SERVICE, health.SERVICE, reflection.SERVICE)]
        self._health = HealthServicer(("", servicer.SERVICE.full_name))
        locks = LockServicer(host, self._driver)
        methods = methods_of(
            (
                (servicer.SERVICE, locks),
                (health.SERVICE, self._health),
                (reflection.SERVICE, ReflectionServicer(names)),
            )
        )
        self._dispatcher = Dispatcher(methods, CallJudge(gate), locks.place_of)
        self._connections: dict[GrpcConnection, None] = {}
        self._emptied = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._shares = Shares()
        self._full = RepeatedTrouble()
        self._crowded = RepeatedTrouble(calm_ns=_CALM_S * NS_PER_S)
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._looked_ns = monotonic_ns()

    @property
    def count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, listen: str) -> str:
        """Listen at HOST:PORT, port 0 for any free one, and return it with the port that it is.

        Raises:
            InvalidRequest: not an address.
            CannotListen: the port is taken, or the host is unknown or not of this machine.
        """
        host, port = split_address(listen)
        make = self._make if self._secure is None else self._secure(self._make)
        try:
            self._server = await asyncio.get_running_loop().create_server(make, host, port, backlog=_BACKLOG)
        except OSError as error:
            raise CannotListen(f"cannot listen on {listen} for gRPC: {listen_failure(error)}") from error
        sockets: Sequence[Any] = cast(Any, self._server).sockets  # a tuple, but a list with uvloop
        self._look()
        return format_address(host, sockets[0].getsockname()[1])

    def note_serving(self, is_serving: bool) -> None:
        """Report by the health service whether the node may serve from now on."""
        self._health.note(is_serving)

    async def stop(self, grace_s: float) -> None:
        """End all calls and connections; calls under way have `grace_s`."""
        self._is_stopping = True
        self._health.note(False)
        if self._server is not None:
            self._server.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._tasks and grace_s > 0:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for connection in list(self._connections):
            connection.close("the node stops")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CANCEL_S_MAX)
        if self._connections:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self._emptied.wait()
        for connection in list(self._connections):
            connection.abort("the node stops")
        await self._driver.close()

    # ----------------------------------------------------------------------- CallPort

    def opened(self, connection: GrpcConnection) -> bool:
        """Count a connection. See `CallPort`."""
        if self._is_stopping or len(self._connections) >= self._connections_max:
            line = self._full.fails(
                f"this port has {self._connections_max} connections, which is its limit",
                now_ns=monotonic_ns(),
            )
            if line:
                log.warning("clients of gRPC are refused: %s", line, extra=event("clients-refused"))
            return False
        self._connections[connection] = None
        self._emptied.clear()
        return True

    def closed(self, connection: GrpcConnection) -> None:
        """Uncount a connection. See `CallPort`."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._emptied.set()
        if self._full.is_on and len(self._connections) < self._connections_max * 9 // 10:
            self._full.ends(now_ns=monotonic_ns())

    def begin(self, connection: GrpcConnection, call: GrpcCall) -> None:
        """Carry a call out. See `CallPort`."""
        if self._is_stopping:
            call.finish(Code.UNAVAILABLE, "this node stops: ask another one")
        elif reason := self._shares.begin(connection.taken, call.path):
            self._note_refusal(connection, reason)
            call.finish(Code.RESOURCE_EXHAUSTED, reason)
        else:
            call.task = task = asyncio.get_running_loop().create_task(self._dispatcher.serve(call))
            self._tasks.add(task)
            task.add_done_callback(lambda _: self._ended(connection, call, task))
            return
        self._count_end(call)
        call.stream.call_ended(call)

    def hold(self, connection: GrpcConnection, call: GrpcCall, size: int) -> bool:
        """Count bytes of messages that wait. See `CallPort`."""
        has_room = self._shares.hold(connection.taken, call.path, size)
        if not has_room:
            self._note_refusal(connection, "too many requests or responses are incomplete or unread")
        return has_room

    # ----------------------------------------------------------------------- inner

    def _make(self) -> asyncio.Protocol:
        return GrpcConnection(self)

    def _ended(self, connection: GrpcConnection, call: GrpcCall, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._count_end(call)
        self._shares.end(connection.taken, call.path)
        call.stream.call_ended(call)
        if self._crowded.is_on and len(self._tasks) < CALLS_MAX // 2:
            self._crowded.ends(now_ns=monotonic_ns())

    def _note_refusal(self, connection: GrpcConnection, reason: str) -> None:
        line = self._crowded.fails(f"of {connection.remote}: {reason}", now_ns=monotonic_ns())
        if line:
            log.warning("calls of gRPC are refused: %s", line, extra=event("calls-refused"))

    def _count_end(self, call: GrpcCall) -> None:
        method = call.path if self._dispatcher.knows(call.path) else OTHER_METHODS
        self.ended_calls[method, Code.CANCELLED if call.status is None else call.status] += 1

    def _look(self) -> None:
        """Look, once a second, at what only the passing of time brings about."""
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now_ns, wall_s = monotonic_ns(), wall_ns() / NS_PER_S
        last_ns, self._looked_ns = self._looked_ns, now_ns
        if now_ns - last_ns > (_LOOK_S + _LATE_S_MAX) * NS_PER_S:
            return  # this process stood still: first it must read the signs of life that have come meanwhile
        for connection in list(self._connections):
            connection.look(now_ns, wall_s)
