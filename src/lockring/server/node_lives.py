"""The lives of a node: the present one, its successor where the coordinator asks for one, and the order to leave.

An incarnation that the cluster knows as ended joins no more: the node begins another life, under a higher number, and
drops everything of the former one. What outlasts a life is the connection to the coordinator, and an order to leave.
"""

from __future__ import annotations

import logging
import secrets
from typing import Final, Protocol

from lockring.clock import monotonic_ns, wall_ns
from lockring.cluster_state import Replica
from lockring.core.effects import COORDINATOR, Depart, DepartureEnd
from lockring.core.node import Doors, JoinFacts
from lockring.errors import JournalError, LockringError, WrongCluster
from lockring.ids import Incarnation, NodeId
from lockring.journal.incarnations import STEP_MAX, next_incarnation
from lockring.log_events import event
from lockring.net.connection import Outbox
from lockring.net.openers import Opener, open_plain
from lockring.protocol import CertificateInfo, Message, Welcome
from lockring.server.access_gate import AccessGate
from lockring.server.coordinator_link import CoordinatorLink, NodePlace
from lockring.server.journal_start import open_journal, reopen_journal
from lockring.server.node_life import NodeLife
from lockring.server.node_log import NodeLog
from lockring.server.request_spans import RequestSpans
from lockring.server.settings import NodeSettings
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_MS, NS_PER_US

log: Final = logging.getLogger("lockring.node")


class LifeListener(Protocol):
    """The process of a node, as its lives see it."""

    def departed(self, depart: Depart) -> None:
        """Let the process end, since the node may stop."""

    def failed(self, error: LockringError) -> None:
        """End the process with an error, since it makes no sense to go on."""


class NodeLives:
    """One life after the other, and the coordinator's connection to them. Lives in one event loop.

    Args:
        settings: of the node.
        place: where others reach it.
        outbox: where writes wait for the flush.
        gate: says what connections may do.
        listener: hears of what concerns the process.
        opener: opens connections to other servers.

    Attributes:
        present: the life that is lived now.
        log: what is reported of all of them.
        has_joined: whether any life has joined the cluster.

    Raises:
        JournalError: the node's data directory cannot be used.
    """

    def __init__(
        self,
        settings: NodeSettings,
        place: NodePlace,
        outbox: Outbox,
        *,
        gate: AccessGate,
        listener: LifeListener,
        opener: Opener = open_plain,
        spans: RequestSpans | None = None,
    ) -> None:
        self._settings = settings
        self._node = NodeId(settings.id)
        self._outbox = outbox
        self._gate = gate
        self._listener = listener
        self._opener = opener
        self._spans = spans
        self._link = CoordinatorLink(self, place, settings.coordinators, outbox, opener=opener)
        self._leave_until_ns: int | None = None
        self.has_joined = False
        self._trouble = RepeatedTrouble()
        self._began_ns: int | None  # each beginning sets it
        self.present = self._begin(asked=Incarnation(0))
        self.log = NodeLog(self.present.core, began_ns=self._began_ns)

    def start(self) -> None:
        """Begin to look for the coordinator."""
        self._link.start()

    def leave(self, timeout_s: float) -> None:
        """Let the present life leave, and each that follows it within the time."""
        now_ns = monotonic_ns()
        self.log.look(now_ns)  # a drained node has nothing left to report
        self._leave_until_ns = now_ns + int(timeout_s * 1000) * NS_PER_MS
        self._go_on_leaving()

    def note_doors(self, certificates: list[CertificateInfo], http: str) -> None:
        """Pass on to the present life what its status says of the ports.

        That is when certificates end, which rights are in force, and the HTTP port; see `ServerStatus`.
        """
        gate = self._gate
        self.present.core.service.reports.doors = Doors(
            certificates, gate.auth, gate.edition, insecure=gate.is_insecure, http=http
        )

    def end(self, reason: str) -> None:
        """End the present life and the connection to the coordinator."""
        self.present.end(reason)
        self._link.close(reason)

    # ----------------------------------------------------------------------- Joiner

    @property
    def replica(self) -> Replica:
        """See `Joiner`."""
        return self.present.core.replica

    def join_facts(self) -> JoinFacts:
        """See `Joiner`."""
        return self.present.core.join_facts()

    def begin_life(self, incarnation: Incarnation) -> None:
        """See `Joiner`."""
        self.present.end("this node begins a new life")
        self._gate.begin_life()
        try:
            life = self._begin(asked=incarnation)
        except JournalError as error:
            # The coordinator asks for another life again, as soon as the connection to it is dialed again.
            why = f"no new life can begin yet: {error}"
            told = self._trouble.fails(why, now_ns=monotonic_ns())
            if told:
                log.error("%s", told, extra=event("life-not-begun"))
            self.present.over = why
            self._go_on_leaving()
            return
        self.present = life
        self.log.begin_life(life.core, began_ns=self._began_ns)
        self._go_on_leaving()

    def greet_coordinator(self, welcome: Welcome, address: str) -> None:
        """See `Joiner`."""
        known = {*self._settings.coordinators, address}  # one that was named need not be in the settings
        self.present.core.greet_coordinator(welcome, address=address, has_others=len(known) > 1)

    def joined(self) -> None:
        """See `Joiner`."""
        self.has_joined = True
        self.present.core.connected(COORDINATOR, now_ns=monotonic_ns())
        self.present.pump.schedule()

    def from_coordinator(self, messages: list[Message]) -> None:
        """See `Joiner`."""
        now_ns = monotonic_ns()
        for message in messages:
            self.present.core.receive(COORDINATOR, message, now_ns=now_ns)
        self.present.pump.schedule()

    def coordinator_missing(self, why: str) -> None:
        """See `Joiner`."""
        self.present.core.coordinator_missing(why)

    def coordinator_lost(self) -> None:
        """See `Joiner`."""
        self.present.core.disconnected(COORDINATOR, now_ns=monotonic_ns())
        self.present.pump.schedule()

    def fail(self, error: LockringError) -> None:
        """See `Joiner`. What the journal says of the node's cluster is named as the reason where it is one."""
        facts = self.present.core.join_facts()
        if isinstance(error, WrongCluster) and self.present.journal is not None and facts.cluster:
            error = WrongCluster(
                f"{error}: the locks in {self._settings.data_dir} are of cluster {facts.cluster}; for this one, name another"
                " directory with --data-dir"
            )
        self._link.close(str(error))
        self._listener.failed(error)

    # ----------------------------------------------------------------------- inner

    def _begin(self, *, asked: Incarnation) -> NodeLife:
        """Return a life with at least this incarnation, whose beginning its journal already has.

        Raises:
            JournalError: it cannot be opened or written.
        """
        began_ns = monotonic_ns()
        journal = open_journal(self._settings)
        is_heir = journal is not None and not journal.is_new and not journal.reason
        self._began_ns = began_ns if is_heir else None
        incarnation = next_incarnation(
            Incarnation(wall_ns() // NS_PER_US),
            secrets.randbelow(STEP_MAX),
            asked=asked,
            entries=journal.found.entries if journal is not None else (),
        )
        life = NodeLife(
            Replica(self._node, incarnation),
            outbox=self._outbox,
            gate=self._gate,
            coordinator=lambda: self._link.connection,
            on_state=lambda state: self.log.state_changed(state),
            on_depart=self._listener.departed,
            opener=self._opener,
            spans=self._spans,
            metrics_prefixes=self._settings.metrics_prefixes,
            journal=journal,
            durability=self._settings.keeps,
            reopen=lambda: reopen_journal(self._settings),
        )
        if life.journal is not None:
            try:
                life.journal.begin()
            except BaseException:
                life.end("its journal cannot be written")
                raise
        life.core.coordinator_missing(self._link.note)
        return life

    def _go_on_leaving(self) -> None:
        if self._leave_until_ns is None:
            return
        if self.present.over:
            self._listener.departed(Depart(DepartureEnd.NEW_LIFE))
        else:
            now_ns = monotonic_ns()
            self.present.core.leave(timeout_ns=max(0, self._leave_until_ns - now_ns), now_ns=now_ns)
            self.present.pump.schedule()
