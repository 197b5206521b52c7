"""The answers of a coordinator that leads to its clients: greetings, the state, the routes, its status, its waits."""

from __future__ import annotations

from typing import Final

from lockring.cluster_state import ClusterState
from lockring.core.access import REQUIREMENTS, Act, Grantee, GranteeOf, Verb, missing_right
from lockring.core.coordinator.clients import Clients, welcome_to, why_not_greet
from lockring.core.coordinator.join_checks import older_version
from lockring.core.coordinator.member_leases import MemberLeases
from lockring.core.coordinator.reconciler_runs import ReconcilerRuns
from lockring.core.coordinator.roster import Roster
from lockring.core.coordinator.state_broadcast import StateBroadcast
from lockring.core.coordinator.status import left_ms_of, note_of, server_status_of, state_reply, status_of
from lockring.core.coordinator.term import Term
from lockring.core.effects import Admit, AuditEntry, Effect, Note, Send, denied_entry
from lockring.core.events import SEES_ALL, EventMemory
from lockring.core.refusals import refusal_of
from lockring.core.timing import with_time_left
from lockring.errors import LockringError
from lockring.ids import NO_NODE, ConnectionId
from lockring.protocol import (
    ClientHello,
    Drain,
    GetEvents,
    GetRoutes,
    GetState,
    GetStatus,
    Join,
    Leave,
    Message,
    Probe,
    ProbeReply,
    Refusal,
    StatusReply,
    Undrain,
)
from lockring.protocol.identities import ANONYMOUS, Identity
from lockring.slots import all_slots
from lockring.units import ns_to_ms_floor

Question = GetState | GetRoutes | GetStatus | GetEvents | Probe
"""A question of a client, answered at once."""

_ACTS: Final[dict[type[Message], Act]] = {Leave: "leave", Drain: "drain", Undrain: "undrain"}


class ClientAnswers:
    """Answers to clients.

    Args:
        clients: the coordinator's clients.
        term: its right to write, and the state.
        roster: the nodes that are connected.
        membership: when each member was heard.
        runs: what slots wait for.
        broadcast: the encoded state.
        effects: takes the answers.
        grantee_of: returns the rights of an identity for which a node asks; None to check no rights.
        audits: see below.

    Attributes:
        clients: see above.
        audits: whether acts are reported for an audit log.
        events: the events that the coordinator remembers.
    """

    def __init__(
        self,
        clients: Clients,
        term: Term,
        roster: Roster,
        membership: MemberLeases,
        *,
        runs: ReconcilerRuns,
        broadcast: StateBroadcast,
        effects: list[Effect],
        grantee_of: GranteeOf | None,
        audits: bool,
    ) -> None:
        self.clients = clients
        self._term = term
        self._roster = roster
        self._membership = membership
        self._runs = runs
        self._broadcast = broadcast
        self._effects = effects
        self._grantee_of = grantee_of
        self.audits = audits
        self.events = EventMemory(term.name)
        self._published: ClusterState | None = None

    def greet(
        self, sender: ConnectionId, hello: ClientHello, access: Grantee | None, now_ns: int
    ) -> LockringError | None:
        """Admit a client, or return why it is not admitted."""
        state = self._term.state or ClusterState()
        error = why_not_greet(hello, state.cluster)
        if error is None:
            welcome = welcome_to(state, self._term.address, has_others=self._term.is_shared)
            self._effects.append(Admit(sender, is_member=False, welcome=welcome))
            note, left_ms = note_of(self._term, self._roster, self._runs), self._left_ms(now_ns)
            follows = self.clients.admit(sender, hello, access, note, left_ms=left_ms)
            self._effects += [Send(sender, each) for each in follows]
        return error

    def answer(self, sender: ConnectionId, message: Question, now_ns: int) -> None:
        """Answer a question of a client."""
        match message:
            case GetState():
                note = note_of(self._term, self._roster, self._runs)
                reply = state_reply(
                    message.request,
                    self._broadcast.whole().state,
                    with_time_left(note, self._left_ms(now_ns)),
                    age_ns=self._term.store_report.age_ns(now_ns),
                )
                self._effects.append(Send(sender, reply))
            case GetRoutes():
                self._effects.append(Send(sender, self.clients.whole_routes()))
            case GetStatus():
                status = status_of(self._term, self._roster, self._membership, self._runs, now_ns)
                report = server_status_of(status, self._term.store_report, now_ns=now_ns)
                if self._published is not None:
                    report.up_ms = ns_to_ms_floor(now_ns - self.events.began_at_ns)
                self._effects.append(Send(sender, StatusReply(message.request, report)))
            case GetEvents():
                self._send_events(sender, message, now_ns)
            case Probe():
                self._effects.append(Send(sender, ProbeReply(message.request)))

    def _send_events(self, sender: ConnectionId, message: GetEvents, now_ns: int) -> None:
        try:
            reply = self.events.answer(message, message.request, SEES_ALL, now_ns)
        except LockringError as error:
            self._effects.append(Send(sender, refusal_of(error, message.request)))
            return
        self._effects.append(Send(sender, reply))

    def publish(self, state: ClusterState, now_ns: int) -> None:
        """Keep what a state that is in force has changed, and send the routes to the clients that need them."""
        before, self._published = self._published, state
        if before is None:
            self.events.began_to_lead(state, now_ns)
        else:
            self.events.learned(before, state, all_slots(), now_ns)
        self._effects += self.clients.publish(state)

    def warn_of_older_version(self, join: Join) -> None:
        """Warn of a node that joins and knows no identities, at a coordinator that checks rights."""
        if self._grantee_of is not None and not join.identities:
            self._effects.append(Note("node-without-identities", older_version(join.node), is_warning=True))

    def refuse_forwarded_if_denied(self, sender: ConnectionId, message: Message) -> bool:
        """Refuse an operator's order that a node passes on, if the operator lacks the right; return whether it was.

        A node that names no operator checks no rights. The order is then one of a client that has shown nothing.
        """
        if self._grantee_of is None or not isinstance(message, Drain | Undrain):
            return False
        access = self._grantee_of(message.asker or ANONYMOUS)
        missing = missing_right(access, REQUIREMENTS[type(message)], message.node)
        if missing is None:
            return False
        self._effects.append(denied_entry(access, missing, sender, is_forwarded=True))
        if access.is_enforced:
            self._effects.append(Send(sender, refusal_of(missing.error(), message.request)))
        return access.is_enforced

    def audit_order(
        self, sender: ConnectionId, order: Leave | Drain | Undrain, refusal: Refusal | None
    ) -> None:
        """Report for the audit log what became of an order."""
        if not self.audits:
            return
        is_forwarded, act, name = sender not in self.clients, _ACTS[type(order)], NO_NODE
        identity: Identity | None
        if isinstance(order, Leave):
            name = self._roster.claimed_by(sender) or NO_NODE
            identity, is_forwarded = Identity("node", name), False
        else:
            access = self.clients.access_of(sender)
            # A client's own word on its identity counts for nothing.
            identity = order.asker if is_forwarded else None if access is None else access.identity
            name = order.node
        self._effects.append(
            AuditEntry(
                act,
                "ok" if refusal is None else "failed",
                connection=sender,
                identity=identity,
                is_forwarded=is_forwarded,
                name=name,
                right="" if isinstance(order, Leave) else Verb.DRAIN.word,
                reason="" if refusal is None else refusal.text,
            )
        )

    def report(self, now_ns: int) -> None:
        """Report to clients and the log what slots or this coordinator wait for, once that has changed."""
        note = note_of(self._term, self._roster, self._runs)
        due_ns = self.clients.next_report_ns(note)
        if due_ns is None or now_ns < due_ns:
            return
        left_ms = self._left_ms(now_ns)
        self._effects += self.clients.report(note, left_ms=left_ms, now_ns=now_ns)
        if note and note != self._term.health.last_failure:  # a failure of the store has lines of its own
            self._effects.append(Note("slots-not-served", with_time_left(note, left_ms)))

    def _left_ms(self, now_ns: int) -> int:
        return left_ms_of(self._roster, self._runs, now_ns)
