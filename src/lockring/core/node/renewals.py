"""A node's part in keeping sessions alive: renewals, expired sessions, and differences between client and node.

A keepalive renews acquisitions, not a session: what is said of a session speaks only of locks in slots that this
node may serve now. Where the two sides' digests agree, one promise covers all; where not, they compare slot by slot,
then one by one.
"""

from __future__ import annotations

from lockring.core.node.clients import ConnectedClients
from lockring.core.node.context import NodeContext
from lockring.core.node.grants import NodeGrants
from lockring.core.node.locks import LockHolder, LockWaiter, PromiseBasis, Session
from lockring.core.node.session_leases import SessionLeases
from lockring.errors import InvalidRequest
from lockring.ids import NO_GENERATION, AcquisitionNumber, ConnectionId, SlotNumber
from lockring.protocol import (
    AcquisitionVerdict,
    CloseSession,
    Keepalive,
    KeepaliveReply,
    ReleaseReply,
    SlotDigest,
    SlotList,
    SlotVerdict,
    Verdict,
)
from lockring.slots import SLOTS


class Renewals:
    """Keepalives, and the ends of sessions that clients ask for."""

    def __init__(
        self, context: NodeContext, clients: ConnectedClients, grants: NodeGrants, leases: SessionLeases
    ) -> None:
        self._context = context
        self._clients = clients
        self._grants = grants
        self._leases = leases

    def keepalive(self, connection: ConnectionId, message: Keepalive, now_ns: int) -> None:
        """Renew the acquisitions on which client and node agree, and report the others."""
        context = self._context
        left_ns = context.rights.coordinator_lease_left_ns(now_ns)
        if left_ns <= 0:
            text = f"{context.replica} has no lease of the coordinator"
            context.outbox.counters.renewals[3] += 1
            self._clients.refuse(connection, message, "unavailable", text)
            return
        counters = context.outbox.counters
        counters.lease_left.observe(self._leases.tenths_left(message.session, now_ns))
        session = self._leases.touch(message, connection, now_ns)
        promise_ms = session.promise_ms(left_ns)
        if message.request > session.basis.request or session.basis.at_ns == 0:
            session.basis = PromiseBasis(message.request, promise_ms, now_ns)
        agreed = False
        slots: list[SlotVerdict] = []
        acquisitions: list[AcquisitionVerdict] = []
        if message.listed:
            if len({listing.slot for listing in message.listed}) < len(message.listed):
                raise InvalidRequest("a keepalive lists a slot once")
            for listing in message.listed:
                acquisitions += self._compare_list(session, listing, message.through, now_ns)
        elif message.slots:
            if len(message.slots) > SLOTS:
                raise InvalidRequest(f"a keepalive compares {SLOTS} slots at most")
            slots = self._compare_slots(session, message.slots, now_ns)
        else:
            agreed = (
                message.count == session.totals.count
                and message.digest == session.totals.digest
                and context.rights.may_serve_everything(now_ns)
            )
        counters.renewals[2 if message.listed else 1 if not agreed else 0] += 1
        context.outbox.send(
            connection, KeepaliveReply(message.request, promise_ms, agreed, slots, acquisitions)
        )

    def _compare_slots(self, session: Session, expected: list[SlotDigest], now_ns: int) -> list[SlotVerdict]:
        verdicts: list[SlotVerdict] = []
        named: dict[SlotNumber, None] = {}
        for each in expected:
            number = each.slot
            named[number] = None
            verdict = self._verdict_of_slot(number, now_ns)
            if verdict is Verdict.HELD:
                share = session.totals.served.get(number)
                here = (0, 0) if share is None else (share.count, share.digest)
                if here != (each.count, each.digest):
                    verdict = Verdict.DIFFERS
            verdicts.append(SlotVerdict(number, verdict))
        verdicts += [
            SlotVerdict(number, Verdict.DIFFERS)
            for number in session.totals.served
            if number not in named and self._context.rights.may_serve(number, now_ns=now_ns)
        ]
        return verdicts

    def _compare_list(
        self, session: Session, listing: SlotList, through: AcquisitionNumber, now_ns: int
    ) -> list[AcquisitionVerdict]:
        number = listing.slot
        verdict = self._verdict_of_slot(number, now_ns)
        if verdict is Verdict.HELD and not self._is_journaled(number):
            verdict = Verdict.RETRY
        if verdict is not Verdict.HELD:
            return [
                AcquisitionVerdict(listed.acquisition, verdict, NO_GENERATION)
                for listed in listing.acquisitions
            ]
        slot = self._context.slots[number]
        assert slot.reign is not None
        share = session.totals.served.get(number)
        known = {} if share is None else dict(share.entries)
        answers: list[AcquisitionVerdict] = []
        for listed in listing.acquisitions:
            acquisition = listed.acquisition
            entry = known.pop(acquisition, None)
            if (
                entry is None
                or entry.lock.name != listed.name
                or (isinstance(entry, LockHolder) and entry.broken)
            ):
                answers.append(AcquisitionVerdict(acquisition, Verdict.LOST, NO_GENERATION))
            elif isinstance(entry, LockWaiter) or entry in slot.reign.unanswered:
                answers.append(AcquisitionVerdict(acquisition, Verdict.WAITING, NO_GENERATION))
            else:
                answers.append(AcquisitionVerdict(acquisition, Verdict.HELD, entry.generation))
        for acquisition, entry in known.items():
            if acquisition <= through and slot.table.find(session.id, acquisition) is entry:
                self._grants.drop(slot, entry, now_ns)
        return answers

    def _is_journaled(self, number: SlotNumber) -> bool:
        """Return whether the journal has what a slot served here began with: grants that were never answered, maybe."""
        reign = self._context.slots[number].reign
        assert reign is not None
        return reign.journal is None or reign.journal.acked >= 0

    def _verdict_of_slot(self, number: SlotNumber, now_ns: int) -> Verdict:
        if not 0 <= number < SLOTS:
            raise InvalidRequest(f"there is no slot {number}")
        context = self._context
        if context.state.slots[number].primary != context.replica:
            return Verdict.MOVED
        return Verdict.HELD if context.rights.may_serve(number, now_ns=now_ns) else Verdict.RETRY

    def close_session(self, connection: ConnectionId, message: CloseSession, now_ns: int) -> None:
        """End a session here, with all its acquisitions in the slots served here."""
        dropped = self._leases.close(message.session, now_ns)
        self._context.outbox.send(connection, ReleaseReply(message.request, dropped))
