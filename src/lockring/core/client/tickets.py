"""What a client has, or wants to have: tickets, their sessions, and each session's share of them at a node.

Rules:

- A ticket is one acquisition, from the call to acquire until nothing of it can be left at any node.
- A *share* is what one session has at one node: the tickets, held and waiting, that its keepalives there speak
  of. A waiting ticket enters a share when its Acquire is sent there, a held one when its slot is routed there;
  either leaves when it is given up, lost, or routed elsewhere. The order of what is sent on one connection makes
  the node's view follow.
- A promise counts from when the request that it answers was *sent*. A keepalive's promise covers every
  ticket that was granted before it was sent, so it is noted once, in the share, not in each ticket.
- Nothing revives a passed deadline: who applies an answer first takes out what has expired.

The digest is folded lazily: tickets that come and go between two keepalives never cost a hash.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import msgspec

from lockring.cluster_state import Replica
from lockring.core.digest import mix
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.protocol import WAIT_FOREVER, KeepaliveReply, Verdict
from lockring.units import NS_PER_MS


class TicketState(IntEnum):
    """PENDING: not granted yet. HELD: ours until its deadline. RELEASING: the caller waits for the release.
    ENDED: over for the caller (a release may still be on its way)."""

    PENDING = 0
    HELD = 1
    RELEASING = 2
    ENDED = 3


class Ticket(msgspec.Struct, eq=False):
    """One acquisition. Made by `ClientCore.acquire`; read it, but let only the core change it.

    Attributes:
        session: the session that it belongs to.
        acquisition: its number in the session, never used twice.
        name: the lock's name.
        slot: the lock's slot.
        mode: how the lock is wanted.
        permits: of a semaphore, how many there are.
        started_at_ns: when the caller asked.
        wait_until_ns: end of the wait that the caller allows, `DISTANT_FUTURE_NS` for none.
        give_up_at_ns: when the core stops trying: to acquire, or later to release.
        state: see `TicketState`; lock-free readers may look at it, it only grows.
        generation: the fencing token once held.
        deadline_ns: the ticket's own deadline; see `deadline_of` for the one that counts.
        covered_after: keepalives with a higher request number cover this ticket, if it is held.
        share: where it is counted now, if anywhere.
        link: number of the link on which its open request was sent, 0 if none is open.
        request: number of that request, or of the last one.
        first_request: number of the first Acquire on that link; the answer may name either.
        sent_at_ns: when that was sent.
        was_sent: whether any node may know of it.
        queued: whether the node that it was sent to serves the slot and has said that others have the lock.
        overdue: whether its time is over, and only that node's own last word is waited for.
        retry_at_ns: when to try again after a refusal, 0 if not waiting for that.
        attempts: refusals in a row.
        refusal: the last refusal's code and text.
        late: whether a grant came too late to begin with, so that a keepalive asks about it.
        unreleased: whether a release is to be sent or answered.
        mixed: its number in the share's digest, 0 while not folded in.
        reason: why it was lost.
        context: the shell's own.
        payload: what others are to see of the holder.
    """

    session: ClientSession
    acquisition: int
    name: str
    slot: int
    mode: int
    permits: int
    started_at_ns: int
    wait_until_ns: int = DISTANT_FUTURE_NS
    give_up_at_ns: int = DISTANT_FUTURE_NS
    state: int = 0
    generation: int = 0
    deadline_ns: int = 0
    covered_after: int = 0
    share: NodeShare | None = None
    link: int = 0
    request: int = 0
    first_request: int = 0
    sent_at_ns: int = 0
    was_sent: bool = False
    queued: bool = False
    overdue: bool = False
    late: bool = False
    unreleased: bool = False
    retry_at_ns: int = 0
    attempts: int = 0
    refusal: tuple[str, str] | None = None
    mixed: int = 0
    reason: str = ""
    context: Any = None
    payload: bytes = b""

    def wait_left_ms(self, now_ns: int) -> int:
        """What is left of the wait, rounded up, `WAIT_FOREVER` if unbounded."""
        if self.wait_until_ns == DISTANT_FUTURE_NS:
            return WAIT_FOREVER
        return max(0, -((now_ns - self.wait_until_ns) // NS_PER_MS))

    def __repr__(self) -> str:
        state = TicketState(self.state).name
        return f"<Ticket {self.session.id}/{self.acquisition} {self.name!r} {state} g{self.generation}>"


class ClientSession(msgspec.Struct, eq=False):
    """One session of the client.

    Attributes:
        id: random, from the constructor's `new_id`.
        ttl_ms: the lease that its acquisitions ask for.
        used: highest acquisition number used.
        shares: what it has, by node; under None what is held in slots that have no primary at present.
    """

    id: str
    ttl_ms: int
    used: int = 0
    shares: dict[Replica | None, NodeShare] = msgspec.field(default_factory=dict)

    @property
    def ttl_ns(self) -> int:
        """The lease in nanoseconds."""
        return self.ttl_ms * NS_PER_MS

    @property
    def keepalive_ns(self) -> int:
        """How often to renew: a third of the lease, so that two keepalives may be lost."""
        return self.ttl_ms * NS_PER_MS // 3


class NodeShare(msgspec.Struct, eq=False):
    """What a session has at one node.

    Attributes:
        session: whose it is.
        replica: the node, None for slots without a primary.
        tickets: held and waiting ones by acquisition number; those not folded into the digest are at the end.
        digest: of the folded ones.
        until_ns: end of the newest promise given by a keepalive.
        kept_request: number of that keepalive.
        check_at_ns: no held ticket ends before this.
        keepalive_at_ns: when the next keepalive is due, `DISTANT_FUTURE_NS` if the node need not hear of the session.
        touched: whether an Acquire was sent since the last keepalive; it lets the session live at the
            node, so a keepalive must follow even if all was given up: it repairs what a lost release left behind.
        late: whether some ticket may be `late`.
        unsettled: keepalives in a row that the node could not fully answer.
    """

    session: ClientSession
    replica: Replica | None
    tickets: dict[int, Ticket] = msgspec.field(default_factory=dict)
    digest: int = 0
    until_ns: int = 0
    kept_request: int = 0
    check_at_ns: int = DISTANT_FUTURE_NS
    keepalive_at_ns: int = DISTANT_FUTURE_NS
    touched: bool = False
    late: bool = False
    unsettled: int = 0

    def enter(self, ticket: Ticket, after: int) -> None:
        """Count a ticket here; keepalives numbered above `after` cover it."""
        assert ticket.share is None
        self.tickets[ticket.acquisition] = ticket
        ticket.covered_after = after  # before `share`: `deadline_of` may be looking from another thread
        ticket.share = self
        if ticket.state == TicketState.HELD and ticket.deadline_ns < self.check_at_ns:
            self.check_at_ns = ticket.deadline_ns

    def leave(self, ticket: Ticket) -> None:
        """Stop counting a ticket; it takes along what the share's promise gave it."""
        assert ticket.share is self
        if ticket.covered_after < self.kept_request and self.until_ns > ticket.deadline_ns:
            if ticket.state == TicketState.HELD:
                ticket.deadline_ns = self.until_ns
        del self.tickets[ticket.acquisition]
        ticket.share = None
        if ticket.mixed:
            self.digest ^= ticket.mixed
            ticket.mixed = 0

    def fold(self) -> int:
        """The digest over all tickets, O(those that came since the last call)."""
        digest = self.digest
        for ticket in reversed(self.tickets.values()):
            if ticket.mixed:
                break
            ticket.mixed = mix(ticket.acquisition)
            digest ^= ticket.mixed
        self.digest = digest
        return digest

    def per_slot(self) -> list[tuple[int, int, int]]:
        """Slot, count and digest for each slot that the share has something in, by slot."""
        sums: dict[int, tuple[int, int]] = {}
        for ticket in self.tickets.values():
            count, digest = sums.get(ticket.slot, (0, 0))
            sums[ticket.slot] = (count + 1, digest ^ mix(ticket.acquisition))
        return [(slot, *sums[slot]) for slot in sorted(sums)]

    def listed(self, slots: list[int]) -> list[tuple[int, list[tuple[int, str]]]]:
        """The session's acquisitions in each of these slots; also for slots with none, which says that all was given up.

        Those of its other shares too: where the client has newer routes than this node, what is listed nowhere
        would be dropped here as given up, though it is only expected elsewhere by now.
        """
        lists: dict[int, list[tuple[int, str]]] = {slot: [] for slot in slots}
        for share in self.session.shares.values():
            for ticket in share.tickets.values():
                if ticket.slot in lists:
                    lists[ticket.slot].append((ticket.acquisition, ticket.name))
        return list(lists.items())

    def take_expired(self, now_ns: int) -> list[Ticket]:
        """The held tickets whose deadline has passed (still counted), and note when to look again.

        O(tickets), but done only when the earliest known deadline comes: about every two thirds of a TTL.
        """
        expired: list[Ticket] = []
        soonest = DISTANT_FUTURE_NS
        for ticket in self.tickets.values():
            if ticket.state == TicketState.HELD:
                deadline = deadline_of(ticket)
                if deadline <= now_ns:
                    expired.append(ticket)
                elif deadline < soonest:
                    soonest = deadline
        self.check_at_ns = soonest
        return expired

    def judge(self, request: int, sent_at_ns: int, kept: KeepaliveReply, now_ns: int) -> Judgement:
        """Apply a node's answer to keepalive number `request`, after what has expired was taken out.

        Renews by itself; what the caller must do is returned. Verdicts on tickets that came here after
        the keepalive was sent say nothing of them and are passed over.
        """
        until = sent_at_ns + kept.promise_ms * NS_PER_MS
        found = Judgement()
        if kept.agreed and request > self.kept_request and until > self.until_ns:
            # A promise that ends earlier than the last one is not merged: the older one holds for whom it covers,
            # and who came later has a promise of its own.
            self.until_ns, self.kept_request = until, request
        verdict_of = {slot: verdict for slot, verdict in kept.slots if verdict == Verdict.HELD}
        if verdict_of and until > now_ns:
            for ticket in self.tickets.values():
                if ticket.slot in verdict_of and ticket.state == TicketState.HELD:
                    if ticket.covered_after < request and until > ticket.deadline_ns:
                        ticket.deadline_ns = until
        for slot, verdict in kept.slots:
            if verdict in (Verdict.MOVED, Verdict.RETRY):
                found.again = True
            elif verdict != Verdict.HELD:
                found.to_list.append(slot)
        for acquisition, verdict, generation in kept.acquisitions:
            ticket_or_none = self.tickets.get(acquisition)
            if ticket_or_none is None or ticket_or_none.covered_after >= request:
                continue
            ticket = ticket_or_none
            held = ticket.state == TicketState.HELD
            if verdict == Verdict.HELD:
                if held and ticket.generation != generation:
                    found.lost.append(ticket)
                elif held:
                    ticket.deadline_ns = max(ticket.deadline_ns, until)
                elif until > now_ns:
                    found.begun.append((ticket, generation))
                else:
                    found.again = True
            elif verdict == Verdict.LOST:
                (found.lost if held else found.gone).append(ticket)
            elif held or verdict != Verdict.WAITING:
                found.again = True
        found.until_ns = until
        return found


class Judgement:
    """What follows from a node's answer to a keepalive.

    Attributes:
        until_ns: end of the promise.
        lost: held tickets that the node does not know.
        begun: waiting tickets that turn out to be held, with their generation.
        gone: waiting tickets that the node does not know: their Acquire is to be sent again.
        to_list: slots in which the digests differ.
        again: whether something could not be said now, so that the keepalive is to be repeated soon.
    """

    __slots__ = ("again", "begun", "gone", "lost", "to_list", "until_ns")

    def __init__(self) -> None:
        self.until_ns = 0
        self.lost: list[Ticket] = []
        self.begun: list[tuple[Ticket, int]] = []
        self.gone: list[Ticket] = []
        self.to_list: list[int] = []
        self.again = False


def deadline_of(ticket: Ticket) -> int:
    """When a held ticket ends unless it is renewed, in ns: its own deadline or its share's promise, the later.

    May be called from any thread: a ticket that changes shares takes its deadline along first.
    """
    share = ticket.share
    deadline = ticket.deadline_ns
    if share is not None and ticket.covered_after < share.kept_request and share.until_ns > deadline:
        return share.until_ns
    return deadline
