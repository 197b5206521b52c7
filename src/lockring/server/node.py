"""The node process, put together from small parts:

- `node_port` listens, and hands over what comes on accepted connections.
- `node_lives` has the present life and the connection to the coordinator; `node_life` is one life and its core.
- `journal_start` opens the node's journal, and `journal_writer` writes it.
- `local_client` lets clients of this very process in, among them the gRPC API.
- `node_log` writes what an operator needs to know; `departure` says how the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from lockring.clock import monotonic_ns
from lockring.core.effects import Depart
from lockring.core.histograms import SHORT, Durations
from lockring.errors import LockringError
from lockring.ids import NodeId
from lockring.log_events import event
from lockring.net.connection import Outbox
from lockring.net.descriptors import room_for
from lockring.server.access_gate import AccessGate
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.coordinator_link import NodePlace
from lockring.server.departure import report_departure
from lockring.server.directory_use import refuse_another_use
from lockring.server.grpc_start import start_grpc
from lockring.server.http.parts import Check, HttpPart
from lockring.server.http_start import HttpServer, http_place, start_http
from lockring.server.local_client import LocalClients
from lockring.server.metrics.exemplars import WaitExemplars
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.grpc import add_grpc
from lockring.server.metrics.node import add_node
from lockring.server.metrics.process import add_gate
from lockring.server.node_lives import NodeLives
from lockring.server.node_port import NodePort
from lockring.server.request_spans import RequestSpans
from lockring.server.settings import NodeSettings
from lockring.server.state_diff import shares
from lockring.server.tls import ServerTls, make_tls, opener_of, secure_of
from lockring.server.tracing import tracing_of

if TYPE_CHECKING:
    from lockring.grpc_api.server import GrpcServer

_LOOK_S: Final = 0.5
_CLOSE_S_MAX: Final = 1.0

log: Final = logging.getLogger("lockring.node")


class NodeServer:
    """A lock node with its port. Lives in one event loop.

    Args:
        settings: see `NodeSettings`.
        access: see `AccessSettings`.
        ports: how many servers are in this process.
        tls: the process's TLS, None for what the settings ask for.

    Raises:
        ConfigError: a file of TLS cannot be used, the ACL file is malformed, or the audit log cannot be written.
        JournalError: the data directory cannot be used.
        StoreError: it belongs to another command.
    """

    def __init__(
        self,
        settings: NodeSettings,
        *,
        access: AccessSettings = OPEN,
        ports: int = 1,
        tls: ServerTls | None = None,
    ) -> None:
        if settings.data_dir is not None:
            refuse_another_use(settings.data_dir, "node")
        self._settings = settings
        self._place = NodePlace(weight=settings.weight)
        self._tls = tls or make_tls(settings)
        outbox = Outbox()
        self._gate = AccessGate(access, server=settings.id, demands_node_certificates=self._tls is not None)
        self._tracing = tracing_of(NodeId(settings.id))
        self._exemplars = None if self._tracing is None else WaitExemplars()
        self._batches = Durations(SHORT)
        self._lives = lives = NodeLives(
            settings,
            self._place,
            outbox,
            gate=self._gate,
            listener=self,
            opener=opener_of(self._tls),
            spans=None
            if self._tracing is None
            else RequestSpans(self._tracing.tracer, NodeId(settings.id), self._exemplars),
        )
        self._port = NodePort(
            outbox,
            lives,
            ports=ports,
            has_calls=settings.grpc,
            waits_for_sync=settings.keeps == "disk",
            batches=self._batches,
        )
        self._ports = ports
        self._locals = LocalClients(lambda: lives.present, self._place)
        self._grpc: GrpcServer | None = None
        self._http: HttpServer | None = None
        self._http_place = ""
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._look_timer: asyncio.TimerHandle | None = None
        self._listening = ""

    @property
    def address(self) -> str:
        """The advertised HOST:PORT, "" before it has started."""
        return self._place.address

    @property
    def listening(self) -> str:
        """HOST:PORT of the lock port as this machine knows it, "" before it has started."""
        return self._listening

    @property
    def gate(self) -> AccessGate:
        """The access control of the node."""
        return self._gate

    @property
    def http_part(self) -> HttpPart:
        """The node as HTTP shows it."""
        return HttpPart("node", self._checks, self._add_figures, seeds=lambda: [self._place.address])

    def note_http(self, place: str) -> None:
        """Name the HTTP port of the process in the node's status; see `http_start.http_place`."""
        self._http_place = place

    # ----------------------------------------------------------------------- Service

    async def start(self) -> None:
        """Listen, and begin to look for the coordinator.

        Raises:
            CannotListen: the port is taken, or the host is not of this machine.
            InvalidRequest: an address is none.
        """
        settings, place = self._settings, self._place
        self._listening = listening = await self._port.listener.open(
            settings.listen, secure=secure_of(self._tls, self._gate.handshakes_at("lock port"))
        )
        place.address = settings.advertise or listening
        await self._port.listener.begin()
        log.info(
            "node %s listens at %s", settings.id, listening, extra=event("node-listens", address=listening)
        )
        if settings.grpc:
            self._grpc, place.grpc = await start_grpc(
                self._locals,
                settings,
                listening,
                advertised=place.address,
                gate=self._gate,
                tls=self._tls,
                room=room_for(self._ports, has_calls=True),
            )
        self._http = await start_http(
            settings,
            listening,
            [self.http_part],
            gate=self._gate,
            tls=self._tls,
            advertised=settings.advertise,
        )
        self.note_http(http_place(self._http))
        self._gate.start()
        self._lives.start()
        self._look()

    async def finished(self) -> int:
        """Wait until it has drained, or failed (`LockringError`)."""
        return await asyncio.shield(self._end)

    def leave(self) -> bool:
        """Begin to drain. False if the node never joined, so that there is nothing to move."""
        if not self._lives.has_joined:
            return False
        timeout_s = self._settings.drain_timeout_s
        log.info(
            "draining: everything moves to the other nodes, for up to %g s; a second signal stops at once",
            timeout_s,
            extra=event("draining", timeout_s=timeout_s),
        )
        self._lives.leave(timeout_s)
        return True

    def reload(self) -> bool:
        """Read the files of TLS and the ACL file again now. False at a node that has neither."""
        if self._tls is not None:
            self._tls.reload(monotonic_ns())
        self._look_at_rights()
        return self._tls is not None or self._gate.is_on

    async def stop(self) -> None:
        """End all connections."""
        if self._look_timer is not None:
            self._look_timer.cancel()
        if self._http is not None:
            await self._http.stop()
        if self._grpc is not None:
            await self._grpc.stop(_CLOSE_S_MAX)
        self._lives.end("this node stops")
        self._port.listener.close("this node stops")
        await self._port.listener.closed(_CLOSE_S_MAX)
        await asyncio.to_thread(self._gate.close)
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        if self._lives.has_joined:
            log.info("node %s has stopped", self._settings.id, extra=event("node-stopped"))

    # ----------------------------------------------------------------------- LifeListener

    def departed(self, depart: Depart) -> None:
        """See `LifeListener`."""
        core = self._lives.present.core
        now_ns = monotonic_ns()
        left = shares(core.state, core.replica, may_serve=core.coordinator_lease_left_ns(now_ns) > 0)
        locks = core.status(now_ns=now_ns).locks
        code = report_departure(
            depart,
            left=left,
            locks=locks,
            is_last=len(core.state.members) <= 1,
            journal_trouble=core.journal_trouble,
        )
        self._lives.log.flush()
        if not self._end.done():
            self._end.set_result(code)

    def failed(self, error: LockringError) -> None:
        """See `LifeListener`."""
        if not self._end.done():
            self._end.set_exception(error)

    # ----------------------------------------------------------------------- inner

    def _look(self) -> None:
        """Look, twice a second, at what only the passing of time brings about."""
        self._look_timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        now_ns = monotonic_ns()
        if self._tls is not None:
            self._tls.look(now_ns)
        if self._grpc is not None:
            core = self._lives.present.core
            self._grpc.note_serving(core.coordinator_lease_left_ns(now_ns) > 0 and not self._is_draining())
        self._lives.log.look(now_ns)
        self._look_at_rights()

    def _is_draining(self) -> bool:
        core = self._lives.present.core
        me = core.state.members.get(NodeId(self._settings.id))
        return core.is_leaving or (me is not None and me.condition == "draining")

    def _checks(self) -> list[Check]:
        core, now_ns = self._lives.present.core, monotonic_ns()
        status = core.status(now_ns=now_ns)
        has_lease = core.coordinator_lease_left_ns(now_ns) > 0
        unserved = status.primary_slots - status.serving_slots
        return [
            _check(
                "coordinator-lease", has_lease, "the node has no lease of a coordinator, so it serves nothing"
            ),
            _check(
                "not-draining", not self._is_draining(), "the node is draining: its slots move to the others"
            ),
            _check(
                "slots", not unserved, f"{unserved} of its {status.primary_slots} slots are not served yet"
            ),
            _check("journal", not core.journal_trouble, core.journal_trouble),
        ]

    def _add_figures(self, figures: Figures) -> None:
        add_node(figures, self._lives.present.core, exemplars=self._exemplars, now_ns=monotonic_ns())
        add_gate(figures, self._gate)
        figures.add_histogram("lockring_request_duration_seconds", [self._batches], kind="batch")
        figures.add("lockring_connections", self._port.listener.count, port="lock")
        if self._grpc is not None:
            add_grpc(figures, self._grpc)

    def _look_at_rights(self) -> None:
        self._gate.look()
        if self._tls is not None:
            self._gate.note_tls(self._tls.policy.edition, self._tls.policy.problem)
        self._lives.note_doors([] if self._tls is None else self._tls.certificates(), self._http_place)
        self._lives.present.turn_away_expired()


def _check(name: str, ok: bool, note: str) -> Check:
    return Check(name, ok, "" if ok else note)
