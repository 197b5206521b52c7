"""The coordinator process: a `CandidateCore` with a port and a store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from lockring.clock import boot_id, monotonic_ns, wall_ns
from lockring.cluster_state import ClusterState, Replica
from lockring.core.access import Grantee
from lockring.core.coordinator import CandidateCore, CoordinatorCore
from lockring.core.effects import (
    Admit,
    AuditEntry,
    Broadcast,
    Close,
    Effect,
    Fail,
    Note,
    Publish,
    Refuse,
    Send,
    StoreCampaign,
    StoreRead,
    StoreResign,
    StoreWrite,
)
from lockring.core.election import Election
from lockring.core.refusals import error_of
from lockring.errors import Denied, LockringError, StoreError, WrongRole
from lockring.ids import ClusterId, ConnectionId, OperationNumber, TermId, Version
from lockring.log_events import event
from lockring.net.accepted import CLIENT, PEER, AcceptedConnection
from lockring.net.connection import Outbox
from lockring.net.core_loop import CoreLoop
from lockring.net.frames import encode_frame
from lockring.net.listener import Listener
from lockring.protocol import ClientHello, Message, Refusal, ServerStatus, StatusReply, Welcome
from lockring.random_ids import new_id
from lockring.server.access_gate import AccessGate, expired_among, not_accepted
from lockring.server.access_settings import OPEN, AccessSettings
from lockring.server.http.parts import Check, HttpPart
from lockring.server.http_start import HttpServer, http_place, start_http
from lockring.server.logs import name_cluster
from lockring.server.metrics.coordinator import add_coordinator
from lockring.server.metrics.figures import Figures
from lockring.server.metrics.process import add_gate
from lockring.server.metrics.slot_moves import SlotMoves
from lockring.server.presence import Presence
from lockring.server.reporter import StateReporter
from lockring.server.settings import CoordinatorSettings
from lockring.server.state_diff import whole
from lockring.server.state_dir import open_store
from lockring.server.store_worker import CLOSE_S_MAX as STORE_S_MAX
from lockring.server.store_worker import StoreOutcome, StoreWorker
from lockring.server.tls import ServerTls, make_tls, secure_of
from lockring.store.awaited import AwaitedStore
from lockring.units import NS_PER_MS, NS_PER_S

_LOOK_S: Final = 1.0
_CLOSE_S_MAX: Final = 1.0
_FAREWELL_LOOK_S: Final = 0.01
_FAREWELL_LOOKS_MAX: Final = 100

log = logging.getLogger("lockring.coordinator")


class CoordinatorServer:
    """A coordinator with its port and its store. Lives in one event loop.

    Args:
        settings: see `CoordinatorSettings`.
        access: see `AccessSettings`.
        ports: how many servers are in this process.
        tls: the process's TLS, None for what the settings ask for.

    Raises:
        ConfigError: a file of TLS cannot be used, the ACL file is malformed, or the audit log cannot be written.
    """

    def __init__(
        self,
        settings: CoordinatorSettings,
        *,
        access: AccessSettings = OPEN,
        ports: int = 1,
        tls: ServerTls | None = None,
    ) -> None:
        self.address = ""
        """HOST:PORT that is advertised, once it has started."""
        self._settings = settings
        self._tls = tls or make_tls(settings)
        self._gate = AccessGate(access, server="coordinator", demands_node_certificates=self._tls is not None)
        self._grantees: dict[ConnectionId, Grantee] = {}
        self._outbox = Outbox()
        self._listener = Listener(self, self._outbox, ports=ports)
        # `start` makes these three, before the first connection is accepted.
        self._store: StoreWorker
        self._core: CandidateCore
        self._pump: CoreLoop[Effect]
        self._has_store = self._is_started = self._has_given_up = False
        self._awaited: AwaitedStore | None = None
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._summarized: tuple[Version, tuple[str, ...], str] | None = None
        self._reporter = StateReporter(log, None, self._summary, absent=self._absent)
        self._presence = Presence(
            look_ns=int(_LOOK_S * NS_PER_S),
            member_lease_ns=settings.timing().member_lease_ns,
            now_ns=monotonic_ns(),
        )
        self._cluster = ""
        self._moves = SlotMoves()
        self._state_at_s = 0.0
        self._look_timer: asyncio.TimerHandle | None = None
        self._http: HttpServer | None = None
        self._http_place = ""

    @property
    def http_part(self) -> HttpPart:
        """The coordinator as HTTP shows it."""
        return HttpPart("coordinator", self._checks, self._add_figures, self._is_leader, self._seeds)

    def note_http(self, place: str) -> None:
        """Name the HTTP port of the process in the coordinator's status; see `http_start.http_place`."""
        self._http_place = place

    # ----------------------------------------------------------------------- Service

    async def start(self) -> None:
        """Open the store, listen, and claim the store. A shared store may come later.

        Raises:
            StoreError: the data directory cannot be used.
            CannotListen: the port is taken, or the host is not of this machine.
        """
        settings = self._settings
        loop = asyncio.get_running_loop()
        opened = open_store(settings, log, lambda error: _in_loop(loop, self._failed, error))
        self._store = StoreWorker(opened.store)
        self._has_store = True
        listening = await self._listener.open(
            settings.listen, secure=secure_of(self._tls, self._gate.handshakes_at("coordinator's port"))
        )
        self.address = settings.advertise or listening
        log.info(
            "coordinator listens on %s", listening, extra=event("coordinator-listens", address=listening)
        )
        self._awaited = awaited = opened.awaited

        def is_new() -> bool:
            return opened.is_new or (awaited is not None and awaited.created)

        def make_core(term: TermId, *, now_ns: int, wall_ns: int) -> CoordinatorCore:
            return CoordinatorCore(
                address=self.address,
                term=term,
                cluster_if_new=ClusterId(new_id()),
                timing=settings.timing(),
                # A process may lead several times, and the store may lose the cluster's state between two of them.
                new_cluster=is_new() and not self._store.has_shown_a_state,
                # Whether a shared store is as it was left cannot be seen, so no word in it is trusted, or written.
                boot="" if awaited is not None else boot_id(),
                is_as_left=opened.is_as_left,
                store=opened.store.place,
                is_shared=awaited is not None,
                replication=settings.replication,
                grantee_of=self._gate.grantee_of if self._gate.is_on else None,
                audits=self._gate.audits,
                now_ns=now_ns,
                wall_ns=wall_ns,
            )

        self._core = core = CandidateCore(
            address=self.address,
            store=opened.store.place,
            is_shared=awaited is not None,
            new_term=lambda: TermId(new_id()),
            make_core=make_core,
            now_ns=monotonic_ns(),
            wall_ns=wall_ns(),
        )
        self._pump = CoreLoop(core, self._carry_out, read_clock=self._now_ns)
        self._is_started = True
        self._gate.start()
        await self._listener.begin()
        core.start(now_ns=self._now_ns())
        self._pump.schedule()
        self._http = await start_http(
            settings,
            listening,
            [self.http_part],
            gate=self._gate,
            tls=self._tls,
            advertised=settings.advertise,
        )
        self.note_http(http_place(self._http))
        self._look_timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    async def finished(self) -> int:
        """Wait for an error that ends it, such as a store that refuses it; it does not end by itself otherwise."""
        return await asyncio.shield(self._end)

    def leave(self) -> bool:
        """Return False, since nothing has to happen first: nodes work without a coordinator for its lease."""
        return False

    def reload(self) -> bool:
        """Read the files of TLS and the ACL file again now. False at a coordinator that has neither."""
        if self._tls is not None:
            self._tls.reload(monotonic_ns())
        self._look_at_rights()
        return self._tls is not None or self._gate.is_on

    async def stop(self) -> None:
        """End all connections and close the store, with what stopping nodes reported about their promises."""
        if self._awaited is not None and not self._awaited.is_open:
            self._has_given_up = True
            self._awaited.give_up()
        if self._http is not None:
            await self._http.stop()
        if self._is_started:
            await self._farewells()
        if self._look_timer is not None:
            self._look_timer.cancel()
        if self._is_started:
            self._pump.stop()
        self._listener.close("the coordinator stops")
        await self._listener.closed(_CLOSE_S_MAX)
        await asyncio.to_thread(self._gate.close)
        if self._has_store:
            if self._is_started and self._awaited is not None:
                self._store.resign(self._core.candidate.term)
            if not await self._store.close():
                log.warning(
                    "%s has not answered within %g s: it is left alone, and its time ends the lead",
                    self._store.place,
                    STORE_S_MAX,
                    extra=event("store-silent", store=self._store.place),
                )
        if self._is_started:
            self._reporter.flush()
            log.info("coordinator has stopped", extra=event("coordinator-stopped"))

    def _failed(self, error: LockringError) -> None:
        if not self._end.done() and not self._has_given_up:
            self._end.set_exception(error)

    async def _farewells(self) -> None:
        """Let the last reports of nodes arrive and be stored, which takes some turns of the loop."""
        for _ in range(_FAREWELL_LOOKS_MAX):
            if not self._core.has_farewells:
                return
            await asyncio.sleep(_FAREWELL_LOOK_S)

    # ----------------------------------------------------------------------- ConnectionHandler

    def greet(self, guest: AcceptedConnection, hello: Message) -> None:
        """See `ConnectionHandler`. The core decides, at once."""
        if isinstance(hello, ClientHello):
            guest.require_client_room()  # before the core hears of it, which cannot count the port's clients
        newcomer = self._gate.newcomer(hello, guest.certificate, origin=guest.remote)
        if newcomer.access is not None:
            self._grantees[guest.number] = newcomer.access
        now_ns = self._now_ns()
        self._core.connected(guest.number, newcomer=newcomer, now_ns=now_ns)
        self._core.receive(guest.number, hello, now_ns=now_ns)
        self._pump.flush()

    def deliver(self, guest: AcceptedConnection, messages: list[Message], now_ns: int) -> int:
        """See `ConnectionHandler`."""
        del now_ns  # the core has a clock of its own
        core_now_ns = self._now_ns()
        for message in messages:
            self._core.receive(guest.number, message, now_ns=core_now_ns)
        self._pump.schedule()
        return monotonic_ns()

    def connection_closed(self, guest: AcceptedConnection, reason: str) -> None:
        """See `ConnectionHandler`."""
        if isinstance(guest.tag, Replica):
            _tell(self._presence.disconnected(guest.tag, reason, now_ns=monotonic_ns()))
        self._grantees.pop(guest.number, None)
        self._core.disconnected(guest.number, now_ns=self._now_ns())
        self._pump.schedule()

    # ----------------------------------------------------------------------- effects

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._carry_out_one(effect)
        self._outbox.flush()

    def _carry_out_one(self, effect: Effect) -> None:
        match effect:
            case Admit(number, is_member, welcome):
                guest = self._listener.connection(number)
                if guest is not None:
                    guest.admit(PEER if is_member else CLIENT, welcome)
            case Send(to=int() as number, message=message):
                guest = self._listener.connection(number)
                if guest is not None:
                    if isinstance(message, Welcome):
                        guest.tag = life = Replica(message.node, message.incarnation)
                        _tell(self._presence.connected(life, now_ns=monotonic_ns()))
                        self._gate.joined(life.node, origin=guest.remote)
                    elif isinstance(message, StatusReply):
                        self._add_doors(message.status)
                    guest.send(message)
            case Broadcast(numbers, message):
                frame = encode_frame(message)
                for number in numbers:
                    guest = self._listener.connection(number)
                    if guest is not None:
                        guest.send_frame(frame)
            case Refuse(to=number, refusal=refusal):
                self._refuse(number, refusal)
            case Close(to=int() as number, reason=reason):
                guest = self._listener.connection(number)
                if guest is not None:
                    guest.close(reason)  # the end of a node's connection is logged when it has come
            case Publish(state=state):
                self._say_if_leases_are_others(state)
                name_cluster(state.cluster)
                self._moves.note(state)
                self._state_at_s = wall_ns() / NS_PER_S
                self._reporter.report(state)
            case AuditEntry(connection=asked_by):
                guest = None if asked_by is None else self._listener.connection(asked_by)
                self._gate.record(effect, origin="" if guest is None else guest.remote)
            case Note(text=text, is_warning=is_warning, event=name):
                log.log(logging.WARNING if is_warning else logging.INFO, "%s", text, extra=event(name))
            case StoreRead(operation=operation):
                self._store.read(lambda outcome: self._stored(operation, outcome))
            case StoreWrite(operation=operation, expected_version=expected, state=state):
                self._store.write(expected, state, lambda outcome: self._stored(operation, outcome))
            case StoreCampaign(operation=operation, candidate=candidate, ttl_ms=ttl_ms):
                self._store.campaign(
                    candidate,
                    ttl_ms,
                    lambda election, problem: self._elected(operation, election, problem),
                )
            case StoreResign(term=term):
                self._store.resign(term)
            case Fail(reason=reason):
                self._failed(StoreError(f"{self._store.place}: {reason}"))
            case _:
                raise AssertionError(f"a coordinator core asked for {effect}")

    def _refuse(self, number: ConnectionId, refusal: Refusal) -> None:
        guest = self._listener.connection(number)
        if guest is None:
            return
        error = error_of(refusal)
        if isinstance(error, Denied):
            self._gate.refused(error, origin=guest.remote, name=refusal.name)
        if guest.role is None:
            self._grantees.pop(number, None)  # the end of a connection that was not admitted is not reported
        if guest.role is not PEER or isinstance(error, WrongRole):
            guest.turn_away(error, request=refusal.request, hint=refusal.hint)
            return
        # A node that may not join has broken no rule, and the end of one that was welcomed is logged when it has come.
        if guest.tag is None:
            guest.log_refusal(logging.INFO, "refused", error)
        guest.refuse(error, request=refusal.request, hint=refusal.hint)

    def _stored(self, operation: OperationNumber, outcome: StoreOutcome) -> None:
        self._core.store_result(
            operation,
            ok=outcome.ok,
            state=outcome.state,
            problem=outcome.problem,
            now_ns=self._now_ns(),
        )
        self._tell_of_store()
        self._pump.schedule()

    def _elected(self, operation: OperationNumber, election: Election | None, problem: str) -> None:
        self._core.election_result(operation, election, problem=problem, now_ns=self._now_ns())
        self._pump.schedule()

    def _tell_of_store(self) -> None:
        if self._has_given_up:
            return  # what fails now does so because this process ends
        for news in self._core.take_store_news():
            name = "store-failed" if news.is_trouble else "store-works-again"
            log.log(logging.ERROR if news.is_trouble else logging.INFO, "%s", news.text, extra=event(name))

    # ----------------------------------------------------------------------- inner

    def _now_ns(self) -> int:
        """Read both clocks for an input, and pass the wall clock's time, which may have been set, to the core."""
        now_ns = monotonic_ns()
        self._core.set_wall_clock(wall_ns=wall_ns(), now_ns=now_ns)
        return now_ns

    def _say_if_leases_are_others(self, state: ClusterState) -> None:
        if state.cluster == self._cluster:
            return
        self._cluster = state.cluster
        timing = self._settings.timing()
        for lease, asked_ns, chosen_ms in (
            ("backup", timing.backup_lease_ns, state.backup_lease_ms),
            ("coordinator", timing.coordinator_lease_ns, state.coordinator_lease_ms),
        ):
            if asked_ns // NS_PER_MS != chosen_ms:
                log.warning(
                    "the %s lease was chosen when the cluster was made: it stays %g s, not %g s",
                    lease,
                    chosen_ms / 1000,
                    asked_ns / NS_PER_S,
                    extra=event("lease-kept", lease=lease, lease_ms=chosen_ms),
                )

    def _summary(self, state: ClusterState) -> str:
        """Describe the cluster. It is asked for each second, and looks at every slot: only if something has changed."""
        absent = self._absent()
        if self._summarized is None or self._summarized[:2] != (state.version, absent):
            self._summarized = state.version, absent, whole(state, absent)
        return self._summarized[2]

    def _absent(self) -> tuple[str, ...]:
        now_ns = monotonic_ns()
        return self._presence.absent(self._core.status(now_ns=now_ns), now_ns=now_ns)

    def _look(self) -> None:
        """Log, once a second, changes that the passing of time alone causes."""
        self._look_timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        if self._tls is not None:
            self._tls.look(monotonic_ns())
        self._tell_of_store()
        self._absent()  # also while there is nothing to report, so that a time without looks is one without turns
        self._reporter.summarize()
        self._look_at_rights()

    def _is_leader(self) -> bool:
        deciding = self._core.deciding
        return deciding is not None and deciding.is_active

    def _seeds(self) -> list[str]:
        """Return the addresses of the nodes that this coordinator knows, or that of the one which leads."""
        deciding = self._core.deciding
        state = None if deciding is None else deciding.state
        if state is not None and state.members:
            return [each.address for each in state.members.values()]
        leader = self._core.election.leader
        return [] if leader is None else [leader.address]

    def _checks(self) -> list[Check]:
        status = self._core.status(now_ns=monotonic_ns())
        leads = self._is_leader()
        has_leader = leads or self._core.election.leader is not None
        return [
            Check("store", not status.is_store_failing, status.note if status.is_store_failing else ""),
            Check("leader", has_leader, "" if has_leader else status.note or "no coordinator leads yet"),
        ]

    def _add_figures(self, figures: Figures) -> None:
        deciding = self._core.deciding
        add_coordinator(
            figures,
            self._core.status(now_ns=monotonic_ns()),
            deciding.state if deciding is not None and deciding.is_active else None,
            store=self._store,
            moves=self._moves,
            state_at_s=self._state_at_s,
        )
        add_gate(figures, self._gate)
        figures.add("lockring_connections", self._listener.count, port="coordinator")

    def _add_doors(self, status: ServerStatus) -> None:
        """Add what the core does not know."""
        status.auth, status.acl = self._gate.auth, self._gate.edition
        status.insecure = self._gate.is_insecure
        status.http = self._http_place
        if self._tls is not None:
            status.certificates = self._tls.certificates()

    def _look_at_rights(self) -> None:
        self._gate.look()
        if self._tls is not None:
            self._gate.note_tls(self._tls.policy.edition, self._tls.policy.problem)
        for number in expired_among(self._grantees):
            guest = self._listener.connection(number)
            if guest is not None:
                guest.turn_away(not_accepted(self._grantees[number]))


def _tell(line: str) -> None:
    if line:
        log.info("%s", line, extra=event("node-connection"))


def _in_loop(
    loop: asyncio.AbstractEventLoop, what: Callable[[LockringError], None], error: LockringError
) -> None:
    """Call a function in an event loop, from another thread; not if the loop has ended meanwhile."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(what, error)
