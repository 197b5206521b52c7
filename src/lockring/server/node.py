"""The node process: a `NodeCore` with a port, connections to the coordinator and all peers, and a life cycle."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from lockring.clock import monotonic_ns, wall_ns
from lockring.cluster_state import ClusterState, Replica
from lockring.core.effects import COORDINATOR, Depart
from lockring.errors import (
    LockringError,
    ProtocolError,
)
from lockring.ids import ConnectionId, Incarnation, NodeId
from lockring.net.accepted import CLIENT, AcceptedConnection
from lockring.net.connection import Outbox
from lockring.net.listener import Listener
from lockring.protocol import (
    PROTOCOL,
    ClientHello,
    Drain,
    DrainReply,
    GetState,
    GetStatus,
    HandOver,
    Message,
    Refusal,
    Replicate,
    ServerStatus,
    State,
    StatusReply,
    Undrain,
    UndrainReply,
)
from lockring.server.coordinator_link import Answer, CoordinatorLink
from lockring.server.departure import report_departure
from lockring.server.grpc_start import start_grpc
from lockring.server.local_client import LocalClient
from lockring.server.node_life import Guest, NodeLife
from lockring.server.reporter import StateReporter
from lockring.server.settings import NodeSettings
from lockring.server.state_diff import shares
from lockring.units import NS_PER_MS, NS_PER_S, NS_PER_US, ns_to_ms_floor

if TYPE_CHECKING:
    from lockring.grpc_api.server import GrpcServer

_FROM_PEER: Final = frozenset({Replicate, HandOver, State})
_SLICE_NS_MAX: Final = 50 * NS_PER_MS
"""How long a client's messages are handled without a look at anybody else's: short questions may have long answers."""

_PART: Final = 16
"""After so many of a client's messages the answers so far leave: it can go on with them while the rest is handled."""

_LOOK_S: Final = 0.5
_CLOSE_S_MAX: Final = 1.0

log = logging.getLogger("lockring.node")


class NodeServer:
    """A lock node with its port. Lives in one event loop.

    Args:
        settings: see `NodeSettings`.
        ports: how many servers are in this process.
    """

    def __init__(self, settings: NodeSettings, *, ports: int = 1) -> None:
        self.address = ""
        """HOST:PORT that others are told, once it has started."""
        self.grpc_address = ""
        """HOST:PORT of its gRPC port that others are told, "" if it has none."""
        self.weight = settings.weight
        self._settings = settings
        self._outbox = Outbox()
        self._listener = Listener(self, self._outbox, ports=ports)
        self._locals: dict[ConnectionId, LocalClient] = {}
        self._locals_count = 0
        self._grpc: GrpcServer | None = None
        self._coordinator = CoordinatorLink(self, settings.coordinators, self._outbox)
        self._life = self._new_life(Incarnation(wall_ns() // NS_PER_US))
        self._reporter = self._new_reporter()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._joined_ever = False
        self._lease_over_told = False
        self._leave_until_ns: int | None = None
        self._beginning_since_ns: int | None = None
        self._look_timer: asyncio.TimerHandle | None = None

    # ----------------------------------------------------------------------- Service

    async def start(self) -> None:
        """Listen, and begin to look for the coordinator.

        Raises:
            CannotListen: the port is taken, or the host is not of this machine.
            InvalidRequest: an address is none.
        """
        listening = await self._listener.open(self._settings.listen)
        self.address = self._settings.advertise or listening
        await self._listener.begin()
        log.info("node %s listens at %s", self._settings.id, listening)
        if self._settings.grpc:
            self._grpc, self.grpc_address = await start_grpc(self, self._settings, listening, self.address)
        self._coordinator.start()
        self._look()

    async def finished(self) -> int:
        """Wait until it has drained, or failed (`LockringError`)."""
        return await asyncio.shield(self._end)

    def leave(self) -> bool:
        """Begin to drain. False if the node never joined, so that there is nothing to move."""
        if not self._joined_ever:
            return False
        timeout_s = self._settings.drain_timeout_s
        log.info(
            "draining: everything moves to the other nodes, for up to %g s; a second signal stops at once",
            timeout_s,
        )
        self._leave_until_ns = monotonic_ns() + int(timeout_s * 1000) * NS_PER_MS
        self._go_on_leaving()
        return True

    async def stop(self) -> None:
        """End all connections."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        if self._grpc is not None:
            await self._grpc.stop(_CLOSE_S_MAX)
        self._life.end("this node stops")
        self._coordinator.close("this node stops")
        self._listener.close("this node stops")
        await self._listener.closed(_CLOSE_S_MAX)
        if self._joined_ever:
            log.info("node %s has stopped", self._settings.id)

    # ----------------------------------------------------------------------- Host

    def greet(self, guest: AcceptedConnection, hello: Message) -> None:
        """See `Host`."""
        self._life.greet(guest, hello)

    def deliver(self, guest: AcceptedConnection, messages: list[Message]) -> None:
        """See `Host`."""
        life = self._life
        now_ns = monotonic_ns()
        if guest.role is CLIENT:
            core, number = life.core, guest.number
            done = core.requests(number, messages[:_PART], now_ns=now_ns)
            while done < len(messages):
                life.pump.flush()
                if monotonic_ns() - now_ns > _SLICE_NS_MAX:
                    guest.hold(messages[done:])
                    break
                taken = core.requests(number, messages[done : done + _PART], now_ns=now_ns)
                if not taken:
                    self._answer(guest, messages[done])
                done += taken or 1
            life.pump.flush_if_idle(now_ns)
            return
        life.receive_on(guest.number, messages)

    def connection_closed(self, guest: AcceptedConnection, reason: str) -> None:
        """See `Host`."""
        log.debug("%s at %s has left: %s", guest.title, guest.remote, reason)
        self._life.guest_left(guest)

    def _answer(self, guest: AcceptedConnection, message: Message) -> None:
        match message:
            case GetState():
                guest.send(self._life.state_for(message.request, self._note()))
            case GetStatus():
                guest.send(StatusReply(message.request, self._status(monotonic_ns())))
            case Drain() | Undrain():
                self._pass_on(guest, message)
            case _:
                raise ProtocolError(f"a node does not take {type(message).__name__} from a client")

    def _note(self) -> str:
        return self._coordinator.note or self._life.core.trouble(monotonic_ns())

    def _pass_on(self, guest: AcceptedConnection, order: Drain | Undrain) -> None:
        request = order.request

        def answered(answer: DrainReply | UndrainReply | Refusal) -> None:
            answer.request = request
            guest.send(answer)
            self._life.pump.schedule()

        self.pass_on(order, answered)

    def _status(self, now_ns: int) -> ServerStatus:
        status = self._life.core.status(now_ns=now_ns)
        away_since_ns = self._life.core.away_since_ns
        return ServerStatus(
            "node",
            status.replica.node,
            status.replica.incarnation,
            status.version,
            note=self._coordinator.note,
            serving=status.serving_slots,
            primary=status.primary_slots,
            lease_left_ms=status.coordinator_lease_left_ms,
            lease_over_ms=status.coordinator_lease_over_ms,
            away_ms=-1 if away_since_ns is None else ns_to_ms_floor(now_ns - away_since_ns),
            locks=status.locks,
            waiters=status.waiters,
            sessions=status.sessions,
        )

    # ----------------------------------------------------------------------- Joiner

    @property
    def replica(self) -> Replica:
        """Which life of which node this is."""
        return self._life.core.replica

    @property
    def state(self) -> ClusterState:
        """The newest state that this node has."""
        return self._life.core.state

    @property
    def is_leaving(self) -> bool:
        """See `Joiner`."""
        return self._life.core.is_leaving

    def begin_life(self, incarnation: Incarnation) -> None:
        """See `Joiner`."""
        self._life.end("this node begins a new life")
        self._has_lease = False
        self._reporter.flush()
        self._life = self._new_life(Incarnation(max(incarnation, wall_ns() // NS_PER_US)))
        self._reporter = self._new_reporter()
        self._go_on_leaving()

    def joined(self) -> None:
        """See `Joiner`."""
        self._joined_ever = True
        self._life.core.connected(COORDINATOR, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def from_coordinator(self, messages: list[Message]) -> None:
        """See `Joiner`."""
        now_ns = monotonic_ns()
        for message in messages:
            self._life.core.receive(COORDINATOR, message, now_ns=now_ns)
        self._life.pump.schedule()

    def coordinator_lost(self) -> None:
        """See `Joiner`."""
        self._life.core.disconnected(COORDINATOR, now_ns=monotonic_ns())
        self._life.pump.schedule()

    def fail(self, error: LockringError) -> None:
        """See `Joiner`."""
        self._coordinator.close(str(error))
        if not self._end.done():
            self._end.set_exception(error)

    # ----------------------------------------------------------------------- gRPC

    def pass_on(self, order: Drain | Undrain, answer: Answer) -> None:
        """Give an operator's request to the coordinator; `answer` is called with what it says."""
        self._coordinator.pass_on(order, answer)

    def connect_local(
        self, client: str, receive: Callable[[Message], None], ended: Callable[[], None]
    ) -> LocalClient:
        """Let somebody in this process be a client of the present life of this node, without a socket.

        Args:
            client: its random id.
            receive: called with each message for it, in the event loop.
            ended: called once no more will come, since the life has ended; it may connect again.
        """
        self._locals_count += 1
        number = ConnectionId(-self._locals_count)  # those of accepted connections are positive

        def end() -> None:
            if self._locals.pop(number, None) is not None:
                ended()

        life = self._life
        local = self._locals[number] = LocalClient(number, life, receive, end)
        life.accept(number)
        local.ask(ClientHello(PROTOCOL, self.state.cluster, client, self._locals_count))
        return local

    # ----------------------------------------------------------------------- inner

    def _guest(self, number: ConnectionId) -> Guest | None:
        return self._listener.connection(number) if number > 0 else self._locals.get(number)

    def _new_life(self, incarnation: Incarnation) -> NodeLife:
        return NodeLife(
            Replica(NodeId(self._settings.id), incarnation),
            outbox=self._outbox,
            guest_of=self._guest,
            coordinator=lambda: self._coordinator.connection,
            on_state=self._on_state,
            on_depart=self._on_depart,
        )

    def _new_reporter(self) -> StateReporter:
        replica = self._life.core.replica
        return StateReporter(log, replica.node, lambda state: shares(state, replica, self._may_serve()))

    def _may_serve(self) -> bool:
        """Whether its lease is not over; at the very beginning the first one is on its way."""
        core = self._life.core
        return core.coordinator_lease_left_ns(monotonic_ns()) > 0 or not core.had_lease

    def _on_state(self, state: ClusterState) -> None:
        self._reporter.report(state)
        if self._grpc is not None:
            self._grpc.state_changed()

    def _look(self) -> None:
        """Twice a second: what only the passing of time brings about."""
        self._look_timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now_ns = monotonic_ns()
        has_lease = self._life.core.coordinator_lease_left_ns(now_ns) > 0
        if self._grpc is not None:
            me = self.state.members.get(self._settings.id)
            is_draining = self._life.core.is_leaving or (me is not None and me.condition == "draining")
            self._grpc.note_serving(has_lease and not is_draining)
        self._tell_of_lease(now_ns, has_lease)
        self._tell_of_takeovers(now_ns)

    def _tell_of_lease(self, now_ns: int, has_lease: bool) -> None:
        """Log once when the coordinator's lease is over, and once when there is one again."""
        if has_lease and self._lease_over_told:
            self._lease_over_told = False
            log.info("serving again: the coordinator has given this node its lease")
        elif not has_lease and not self._lease_over_told and self._life.core.had_lease:
            self._lease_over_told = True
            away_since_ns = self._life.core.away_since_ns
            log.error(
                "serving no more: the coordinator's lease of %g s is over, and %s",
                self.state.coordinator_lease_ms / 1000,
                "it has not been renewed"
                if away_since_ns is None
                else f"the coordinator has been away for {(now_ns - away_since_ns) / 1e9:.0f} s",
            )

    def _tell_of_takeovers(self, now_ns: int) -> None:
        """Log once when all slots that this node was given are served, where some had to wait."""
        if self._life.core.beginning:
            self._beginning_since_ns = self._beginning_since_ns or now_ns
        elif self._beginning_since_ns is not None:
            waited_s = (now_ns - self._beginning_since_ns) / NS_PER_S
            self._beginning_since_ns = None
            log.info("serving all slots that it was given, the last ones after some %.1f s", waited_s)

    def _go_on_leaving(self) -> None:
        """Let the present life leave, if this node was told to: the order outlasts a life."""
        if self._leave_until_ns is not None:
            now_ns = monotonic_ns()
            self._life.core.leave(timeout_ns=max(0, self._leave_until_ns - now_ns), now_ns=now_ns)
            self._life.pump.schedule()

    def _on_depart(self, depart: Depart) -> None:
        core = self._life.core
        may_serve = core.coordinator_lease_left_ns(monotonic_ns()) > 0
        left = shares(core.state, core.replica, may_serve=may_serve)
        self._finish(report_departure(depart, left=left, is_last=len(core.state.members) <= 1))

    def _finish(self, code: int) -> None:
        self._reporter.flush()
        if not self._end.done():
            self._end.set_result(code)
