"""The meaning of a node's answer to a keepalive for each ticket: the table, row by row."""

from __future__ import annotations

import pytest

from lockring.core.client import Ticket, TicketState, deadline_ns_of
from lockring.core.client.exchanges import TicketExchange
from lockring.core.client.tickets import ClientSession, NodeShare
from lockring.core.client.verdicts import KeepaliveOutcome, apply_keepalive
from lockring.ids import Generation
from lockring.protocol import AcquisitionVerdict, KeepaliveReply, SlotVerdict, Verdict
from lockring.units import NS_PER_MS
from tests.unit.core.client.world import TTL_MS

SENT_AT_NS = 1_000 * NS_PER_MS
UNTIL_NS = SENT_AT_NS + TTL_MS * NS_PER_MS
NOW_NS = SENT_AT_NS + 5 * NS_PER_MS
KEEPALIVE = 10
TOKEN = 7


def share_with(state: TicketState, *, after: int = 1) -> tuple[NodeShare, Ticket]:
    """A share with one ticket, covered by keepalives numbered above `after`."""
    share = NodeShare(ClientSession("s", TTL_MS), None)
    ticket = Ticket(share.session, 1, "x", 3, TicketExchange(0))
    ticket.state, ticket.generation = state, Generation(TOKEN)
    ticket.deadline_ns = SENT_AT_NS + NS_PER_MS if state == TicketState.HELD else 0
    share.enter(ticket, after)
    return share, ticket


def judge(
    share: NodeShare, verdict: Verdict, *, generation: int = TOKEN, now_ns: int = NOW_NS
) -> KeepaliveOutcome:
    """Apply a verdict on the share's ticket."""
    reply = KeepaliveReply(KEEPALIVE, TTL_MS, False, [], [AcquisitionVerdict(1, verdict, generation)])
    return apply_keepalive(share, KEEPALIVE, SENT_AT_NS, reply, now_ns)


def parts(outcome: KeepaliveOutcome) -> tuple[int, int, int, bool]:
    """How many tickets are lost, granted and unknown, and whether the keepalive is repeated."""
    return len(outcome.lost), len(outcome.granted), len(outcome.unknown), outcome.repeat


def test_a_held_ticket_that_the_node_holds_too_is_renewed_from_when_the_keepalive_was_sent() -> None:
    share, ticket = share_with(TicketState.HELD)
    assert parts(judge(share, Verdict.HELD)) == (0, 0, 0, False)
    assert deadline_ns_of(ticket) == UNTIL_NS


def test_a_held_ticket_that_the_node_holds_under_another_token_is_lost() -> None:
    share, _ = share_with(TicketState.HELD)
    assert parts(judge(share, Verdict.HELD, generation=TOKEN + 1)) == (1, 0, 0, False)


def test_a_waiting_ticket_that_the_node_holds_begins_while_the_promise_lasts() -> None:
    share, ticket = share_with(TicketState.PENDING)
    assert judge(share, Verdict.HELD, generation=9).granted == [(ticket, 9)]
    assert parts(judge(share, Verdict.HELD, now_ns=UNTIL_NS)) == (0, 0, 0, True)


@pytest.mark.parametrize(
    ("state", "verdict", "expected"),
    [
        (TicketState.HELD, Verdict.LOST, (1, 0, 0, False)),
        (TicketState.HELD, Verdict.WAITING, (0, 0, 0, True)),
        (TicketState.HELD, Verdict.MOVED, (0, 0, 0, True)),
        (TicketState.HELD, Verdict.RETRY, (0, 0, 0, True)),
        (TicketState.PENDING, Verdict.LOST, (0, 0, 1, False)),
        (TicketState.PENDING, Verdict.WAITING, (0, 0, 0, False)),
        (TicketState.PENDING, Verdict.MOVED, (0, 0, 0, True)),
        (TicketState.PENDING, Verdict.RETRY, (0, 0, 0, True)),
    ],
)
def test_each_other_verdict_has_one_consequence(
    state: TicketState, verdict: Verdict, expected: tuple[int, int, int, bool]
) -> None:
    share, ticket = share_with(state)
    before_ns = deadline_ns_of(ticket)
    assert parts(judge(share, verdict)) == expected
    assert deadline_ns_of(ticket) == before_ns, "only the verdict HELD renews"


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_does_not_speak_of_a_ticket_that_came_after_the_keepalive(verdict: Verdict) -> None:
    share, ticket = share_with(TicketState.HELD, after=KEEPALIVE)
    before_ns = deadline_ns_of(ticket)
    assert parts(judge(share, verdict)) == (0, 0, 0, False)
    assert deadline_ns_of(ticket) == before_ns


def test_slots_that_differ_are_listed_and_slots_that_cannot_be_served_are_asked_again() -> None:
    share, ticket = share_with(TicketState.HELD)
    verdicts = {3: Verdict.HELD, 4: Verdict.DIFFERS, 5: Verdict.LOST, 6: Verdict.MOVED}
    slots = [SlotVerdict(slot, verdict) for slot, verdict in verdicts.items()]
    outcome = apply_keepalive(
        share, KEEPALIVE, SENT_AT_NS, KeepaliveReply(KEEPALIVE, TTL_MS, False, slots), NOW_NS
    )
    assert (outcome.to_list, outcome.repeat) == ([4, 5], True)
    assert deadline_ns_of(ticket) == UNTIL_NS
