"""The meaning of a node's answer to a keepalive, for each ticket.

A node answers for all tickets of a share at once if the digests agree, else slot by slot or ticket by ticket. The table
`_ACTIONS` says what each answer means:

- A ticket that both sides take for held is renewed, up to the end of the promise. If the node holds it under another
  generation, the client's grant has ended and another has begun in its place: it is lost.
- A held ticket that the node does not know is lost. A waiting one is asked for again.
- A waiting ticket that the node holds was granted, and the grant has not arrived. It begins now, if the promise has not
  run out on the way; else the keepalive is repeated, for a promise that lasts.
- A held ticket that the node calls waiting was granted by a former primary and is not replicated yet: the answer may
  change, so the keepalive is repeated.
- A node that has moved the slot, or may not serve it now, says nothing about the ticket: the keepalive is repeated.

Verdicts on tickets that came to the share after the keepalive was sent do not speak of them, and are ignored.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from lockring.core.client.tickets import HELD, PENDING, NodeShare, Ticket
from lockring.errors import ProtocolError
from lockring.ids import Generation, RequestNumber, SlotNumber
from lockring.protocol import KeepaliveReply, Verdict
from lockring.units import NS_PER_MS


class _Action(Enum):
    """The consequence of one verdict."""

    RENEW = "renew"
    LOSE = "lose"
    BEGIN = "begin"
    ACQUIRE_AGAIN = "acquire again"
    WAIT = "wait"
    REPEAT = "repeat the keepalive"


_ACTIONS: Final[dict[tuple[int, int], _Action]] = {
    (HELD, Verdict.HELD): _Action.RENEW,
    (HELD, Verdict.LOST): _Action.LOSE,
    (HELD, Verdict.WAITING): _Action.REPEAT,
    (HELD, Verdict.MOVED): _Action.REPEAT,
    (HELD, Verdict.RETRY): _Action.REPEAT,
    (PENDING, Verdict.HELD): _Action.BEGIN,
    (PENDING, Verdict.LOST): _Action.ACQUIRE_AGAIN,
    (PENDING, Verdict.WAITING): _Action.WAIT,
    (PENDING, Verdict.MOVED): _Action.REPEAT,
    (PENDING, Verdict.RETRY): _Action.REPEAT,
}
"""By the ticket's state and the node's verdict on it. A verdict that is not in the table is one of a newer node, and
says nothing that this client understands: the keepalive is repeated."""


class KeepaliveOutcome:
    """The work that a node's answer to a keepalive leaves; every ticket that it renews is renewed already.

    Attributes:
        until_ns: end of the promise.
        lost: held tickets that the node does not know.
        granted: waiting tickets that the node holds, with their generation.
        unknown: waiting tickets that the node does not know: their Acquire must be sent again.
        to_list: slots in which the digests differ.
        repeat: whether some answer could not be given now, so that the keepalive must be repeated soon.
    """

    __slots__ = ("granted", "lost", "repeat", "to_list", "unknown", "until_ns")

    def __init__(self, until_ns: int) -> None:
        self.until_ns = until_ns
        self.lost: list[Ticket] = []
        self.granted: list[tuple[Ticket, Generation]] = []
        self.unknown: list[Ticket] = []
        self.to_list: list[SlotNumber] = []
        self.repeat = False


def apply_keepalive(
    share: NodeShare, request: RequestNumber, sent_at_ns: int, reply: KeepaliveReply, now_ns: int
) -> KeepaliveOutcome:
    """Apply a node's answer to a share, whose expired tickets were removed before.

    Args:
        share: the share that the keepalive was about.
        request: number of the keepalive.
        sent_at_ns: when it was sent.
        reply: the answer.
        now_ns: the time.

    Raises:
        ProtocolError: the answer contradicts itself. Nothing is changed.
    """
    if len({each.acquisition for each in reply.acquisitions}) < len(reply.acquisitions):
        raise ProtocolError("the answer to a keepalive has two verdicts on one acquisition")
    until_ns = sent_at_ns + reply.promise_ms * NS_PER_MS
    outcome = KeepaliveOutcome(until_ns)
    if reply.agreed and request > share.promised_by and until_ns > share.promised_until_ns:
        # A promise that ends earlier than the last one is not merged: the older one still holds for the tickets that it
        # covers, and tickets that came later have a promise of their own.
        share.promised_until_ns, share.promised_by = until_ns, request
    _apply_to_slots(share, request, reply, outcome, now_ns)
    for each in reply.acquisitions:
        ticket = share.tickets.get(each.acquisition)
        if ticket is not None and ticket.covered_after < request:
            _apply_to_ticket(ticket, each.verdict, each.generation, outcome, now_ns)
    return outcome


def _apply_to_slots(
    share: NodeShare, request: RequestNumber, reply: KeepaliveReply, outcome: KeepaliveOutcome, now_ns: int
) -> None:
    renewed = {each.slot for each in reply.slots if each.verdict == Verdict.HELD}
    if renewed and outcome.until_ns > now_ns:
        for ticket in share.tickets.values():
            if ticket.slot in renewed and ticket.state == HELD and ticket.covered_after < request:
                ticket.deadline_ns = max(ticket.deadline_ns, outcome.until_ns)
    for each in reply.slots:
        if each.verdict in (Verdict.MOVED, Verdict.RETRY):
            outcome.repeat = True
        elif each.verdict != Verdict.HELD:
            outcome.to_list.append(each.slot)


def _apply_to_ticket(
    ticket: Ticket, verdict: int, generation: Generation, outcome: KeepaliveOutcome, now_ns: int
) -> None:
    action = _ACTIONS.get((ticket.state, verdict), _Action.REPEAT)
    if action is _Action.RENEW and ticket.generation != generation:
        action = _Action.LOSE
    elif action is _Action.BEGIN and outcome.until_ns <= now_ns:
        action = _Action.REPEAT
    match action:
        case _Action.RENEW:
            ticket.deadline_ns = max(ticket.deadline_ns, outcome.until_ns)
        case _Action.LOSE:
            outcome.lost.append(ticket)
        case _Action.BEGIN:
            outcome.granted.append((ticket, generation))
        case _Action.ACQUIRE_AGAIN:
            outcome.unknown.append(ticket)
        case _Action.REPEAT:
            outcome.repeat = True
        case _Action.WAIT:
            pass
