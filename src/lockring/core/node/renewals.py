"""A node's part in keeping sessions alive: what is renewed, what has run out, and where client and node differ.

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
from lockring.ids import NO_GENERATION, AcquisitionNumber, ConnectionId, Generation, SlotNumber
from lockring.protocol import CloseSession, Keepalive, KeepaliveReply, ReleaseReply, Verdict
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
        """Renew what client and node agree on, and find out what they do not."""
        context = self._context
        left_ns = context.rights.coordinator_lease_left_ns(now_ns)
        if left_ns <= 0:
            text = f"{context.replica} has no lease of the coordinator"
            self._clients.refuse(connection, message, "unavailable", text)
            return
        session = self._leases.touch(message, connection, now_ns)
        promise_ms = session.promise_ms(left_ns)
        if message.request > session.basis.request or session.basis.at_ns == 0:
            session.basis = PromiseBasis(message.request, promise_ms, now_ns)
        agreed = False
        slots: list[tuple[SlotNumber, int]] = []
        acquisitions: list[tuple[AcquisitionNumber, int, Generation]] = []
        if message.listed:
            if len({number for number, _ in message.listed}) < len(message.listed):
                raise InvalidRequest("a keepalive lists a slot once")
            for number, listed in message.listed:
                acquisitions += self._compare_list(session, number, listed, message.through, now_ns)
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
        context.outbox.send(
            connection, KeepaliveReply(message.request, promise_ms, agreed, slots, acquisitions)
        )

    def _compare_slots(
        self, session: Session, expected: list[tuple[SlotNumber, int, int]], now_ns: int
    ) -> list[tuple[SlotNumber, int]]:
        verdicts: list[tuple[SlotNumber, int]] = []
        named: dict[SlotNumber, None] = {}
        for number, count, digest in expected:
            named[number] = None
            verdict = self._verdict_of_slot(number, now_ns)
            if verdict is Verdict.HELD:
                share = session.served.get(number)
                here = (0, 0) if share is None else (share.count, share.digest)
                if here != (count, digest):
                    verdict = Verdict.DIFFERS
            verdicts.append((number, verdict))
        verdicts += [
            (number, Verdict.DIFFERS)
            for number in session.served
            if number not in named and self._context.rights.may_serve(number, now_ns=now_ns)
        ]
        return verdicts

    def _compare_list(
        self,
        session: Session,
        number: SlotNumber,
        listed: list[tuple[AcquisitionNumber, str]],
        through: AcquisitionNumber,
        now_ns: int,
    ) -> list[tuple[AcquisitionNumber, int, Generation]]:
        verdict = self._verdict_of_slot(number, now_ns)
        if verdict is not Verdict.HELD:
            return [(acquisition, verdict, NO_GENERATION) for acquisition, _ in listed]
        slot = self._context.slots[number]
        assert slot.reign is not None
        share = session.served.get(number)
        known = {} if share is None else dict(share.entries)
        answers: list[tuple[AcquisitionNumber, int, Generation]] = []
        for acquisition, name in listed:
            entry = known.pop(acquisition, None)
            if entry is None or entry.lock.name != name or (isinstance(entry, LockHolder) and entry.broken):
                answers.append((acquisition, Verdict.LOST, NO_GENERATION))
            elif isinstance(entry, LockWaiter) or entry in slot.reign.unanswered:
                answers.append((acquisition, Verdict.WAITING, NO_GENERATION))
            else:
                answers.append((acquisition, Verdict.HELD, entry.generation))
        for acquisition, entry in known.items():
            if acquisition <= through and slot.table.find(session.id, acquisition) is entry:
                self._grants.drop(slot, entry, now_ns)
        return answers

    def _verdict_of_slot(self, number: SlotNumber, now_ns: int) -> Verdict:
        if not 0 <= number < SLOTS:
            raise InvalidRequest(f"there is no slot {number}")
        context = self._context
        if context.state.slots[number].primary != context.replica:
            return Verdict.MOVED
        return Verdict.HELD if context.rights.may_serve(number, now_ns=now_ns) else Verdict.RETRY

    def close_session(self, connection: ConnectionId, message: CloseSession, now_ns: int) -> None:
        """End a session here, with all that it has in the slots served here."""
        dropped = self._leases.close(message.session, now_ns)
        self._context.outbox.send(connection, ReleaseReply(message.request, dropped))
