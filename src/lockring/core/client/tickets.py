"""Tickets, the sessions that they belong to, and each session's share of them at a node.

Rules:

- A ticket is one acquisition, from the call to acquire until nothing of it can be left at any node.
- A *share* is what one session has at one node: the tickets, held and waiting, that its keepalives there speak of.
  A waiting ticket enters a share when its Acquire is sent there, a held one when its slot is routed there.
  Either leaves when it is given up, lost, or routed elsewhere.
  Messages on one connection arrive in the order in which they were sent, so the node's view follows the share.
- A promise counts from when the request that it answers was *sent*. A keepalive's promise covers every ticket that was
  granted before the keepalive was sent, so it is stored once, in the share, and not in each ticket.
- Nothing revives a deadline that has passed: tickets that have expired are removed before an answer is applied.

The digest is folded lazily: a ticket that comes and goes between two keepalives never costs a hash.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from lockring.cluster_state import Replica
from lockring.core.client.exchanges import TicketExchange
from lockring.core.client.listeners import HolderReference
from lockring.core.digest import mix
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.errors import LockLost, LockringError, NotHeld
from lockring.ids import (
    NO_GENERATION,
    NO_REQUEST,
    AcquisitionNumber,
    Generation,
    LockName,
    RequestNumber,
    SessionId,
    SlotNumber,
)
from lockring.protocol import ListedAcquisition, SlotDigest, SlotList
from lockring.protocol.identities import Identity
from lockring.units import NS_PER_MS


class TicketState(IntEnum):
    """How far a ticket is. It only grows.

    PENDING: not granted yet. HELD: granted, and valid until its deadline. RELEASING: the caller waits for the release.
    ENDED: over for the caller, though a release may still be under way.
    """

    PENDING = 0
    HELD = 1
    RELEASING = 2
    ENDED = 3


# Plain numbers: every message compares states, and a member of an enum takes longer to look up and to compare.
PENDING: Final = TicketState.PENDING.value
HELD: Final = TicketState.HELD.value
RELEASING: Final = TicketState.RELEASING.value
ENDED: Final = TicketState.ENDED.value


class Ticket:
    """One acquisition. Made by `ClientCore.acquire`; shells read it, and only the core changes it.

    A client may hold a million tickets, and each record is one more allocation for every lock. Hence two and no more:
    what is held is here, what is open for it is its exchange.

    Attributes:
        session: the session that it belongs to.
        acquisition: its number in the session, never used twice.
        name: the lock's name.
        slot: the lock's slot.
        exchange: the call on it, and what is open with a node.
        state: see `TicketState`; other threads may read it without a lock.
        generation: the fencing token once held.
        deadline_ns: the ticket's own deadline; see `deadline_ns_of` for the one that counts.
        covered_after: keepalives with a higher request number cover this ticket, if it is held.
        share: where it is counted now, if anywhere.
        reason: why it was lost.
        holder: the shell's: refers to the grant or membership that hears of a loss, once there is one.
    """

    __slots__ = (
        "acquisition",
        "covered_after",
        "deadline_ns",
        "exchange",
        "generation",
        "holder",
        "name",
        "reason",
        "session",
        "share",
        "slot",
        "state",
    )

    def __init__(
        self,
        session: ClientSession,
        acquisition: AcquisitionNumber,
        name: LockName,
        slot: SlotNumber,
        exchange: TicketExchange,
    ) -> None:
        self.session = session
        self.acquisition = acquisition
        self.name = name
        self.slot = slot
        self.exchange = exchange
        self.state: int = 0
        self.generation: Generation = NO_GENERATION
        self.deadline_ns = 0
        self.covered_after: RequestNumber = NO_REQUEST
        self.share: NodeShare | None = None
        self.reason = ""
        self.holder: HolderReference | None = None

    def __repr__(self) -> str:
        state = TicketState(self.state).name
        return f"<Ticket {self.session.id}/{self.acquisition} {self.name!r} {state} g{self.generation}>"


class OnBehalf:
    """The program for which a client acquires, and which keeps the grant itself.

    Attributes:
        session: the acquisition's session on the wire. The same program may use it at other servers at the same time.
        owner: the label that others see.
        waited_ms: how long the program had waited elsewhere before it came here.
        asker: the program's identity, None where identities are not checked.
    """

    __slots__ = ("asker", "owner", "session", "waited_ms")

    def __init__(
        self, session: SessionId, owner: str = "", waited_ms: int = 0, asker: Identity | None = None
    ) -> None:
        self.asker: Final = asker
        self.session: Final = session
        self.owner: Final = owner
        self.waited_ms: Final = waited_ms


class ClientSession:
    """One session of the client.

    Attributes:
        id: random, and unique forever.
        ttl_ms: the lease that its acquisitions ask for.
        used: highest acquisition number used.
        shares: what it has, by node; under None what it holds in slots that have no primary at present.
        on_behalf: the program to which its acquisition belongs, None if that is the client's own.
    """

    __slots__ = ("id", "on_behalf", "shares", "ttl_ms", "used")

    def __init__(self, session_id: SessionId, ttl_ms: int, on_behalf: OnBehalf | None = None) -> None:
        self.id = session_id
        self.ttl_ms = ttl_ms
        self.used = AcquisitionNumber(0)
        self.shares: dict[Replica | None, NodeShare] = {}
        self.on_behalf = on_behalf

    @property
    def ttl_ns(self) -> int:
        """The lease in nanoseconds."""
        return self.ttl_ms * NS_PER_MS

    @property
    def keepalive_ns(self) -> int:
        """How often to renew: a third of the lease, so that two keepalives may be lost."""
        return self.ttl_ms * NS_PER_MS // 3


LOCAL_DEADLINE: Final = "local-deadline"
"""Reason of a loss: no node has confirmed the lock in time, by the client's own clock."""

DENIALS: Final = frozenset({"denied", "unauthenticated"})
"""Codes with which a node refuses a keepalive whose identity may not keep its locks.

Each is also the reason of the loss that follows, unless the right comes back before.
"""


class NodeShare:
    """A session's tickets at one node, and what the node has promised for them.

    Attributes:
        session: the session.
        replica: the node, None for slots without a primary.
        tickets: held and waiting ones by acquisition number; those not folded into the digest are at the end.
        digest: of the folded ones.
        promised_until_ns: end of the newest promise given by a keepalive.
        promised_by: request number of that keepalive.
        check_at_ns: no held ticket ends before this.
        keepalive_at_ns: when the next keepalive is due, `DISTANT_FUTURE_NS` if the node need not hear of the session.
        touched: whether an Acquire was sent since the last keepalive. It starts the session's lease at the node, so a
            keepalive must follow even if everything was given up: it repairs what a lost release left behind.
        late: whether some ticket may be `late`.
        unsettled: keepalives in a row that the node could not fully answer.
        refused: why the node has refused the last keepalive for good: a code of `DENIALS`; "" if it did not.
    """

    __slots__ = (
        "check_at_ns",
        "digest",
        "keepalive_at_ns",
        "late",
        "promised_by",
        "promised_until_ns",
        "refused",
        "replica",
        "session",
        "tickets",
        "touched",
        "unsettled",
    )

    def __init__(self, session: ClientSession, replica: Replica | None) -> None:
        self.session = session
        self.replica = replica
        self.tickets: dict[AcquisitionNumber, Ticket] = {}
        self.digest = 0
        self.promised_until_ns = 0
        self.promised_by: RequestNumber = NO_REQUEST
        self.check_at_ns: int = DISTANT_FUTURE_NS
        self.keepalive_at_ns: int = DISTANT_FUTURE_NS
        self.touched = False
        self.late = False
        self.unsettled = 0
        self.refused = ""

    def enter(self, ticket: Ticket, after: RequestNumber) -> None:
        """Count a ticket here; keepalives numbered above `after` cover it."""
        assert ticket.share is None
        self.tickets[ticket.acquisition] = ticket
        # Before `share`: `deadline_ns_of` may be looking from another thread, and must not apply the new share's
        # promise to a ticket that it does not cover.
        ticket.covered_after = after
        ticket.share = self
        if ticket.state == HELD and ticket.deadline_ns < self.check_at_ns:
            self.check_at_ns = ticket.deadline_ns

    def leave(self, ticket: Ticket) -> None:
        """Stop counting a ticket; it keeps what the share's promise gave it."""
        assert ticket.share is self
        if ticket.covered_after < self.promised_by and self.promised_until_ns > ticket.deadline_ns:
            if ticket.state == HELD:
                ticket.deadline_ns = self.promised_until_ns
        del self.tickets[ticket.acquisition]
        ticket.share = None
        exchange = ticket.exchange
        if exchange.mixed:
            self.digest ^= exchange.mixed
            exchange.mixed = 0

    def fold(self) -> int:
        """Fold new tickets into the digest and return it; O(tickets that came since the last call)."""
        digest = self.digest
        for ticket in reversed(self.tickets.values()):
            # The dictionary keeps the order of entry, so the first folded ticket from the end is the last of them.
            exchange = ticket.exchange
            if exchange.mixed:
                break
            exchange.mixed = mix(ticket.acquisition)
            digest ^= exchange.mixed
        self.digest = digest
        return digest

    def per_slot(self) -> list[SlotDigest]:
        """Return count and digest for each slot in which the share has a ticket, by slot."""
        sums: dict[SlotNumber, tuple[int, int]] = {}
        for ticket in self.tickets.values():
            count, digest = sums.get(ticket.slot, (0, 0))
            sums[ticket.slot] = (count + 1, digest ^ mix(ticket.acquisition))
        return [SlotDigest(slot, *sums[slot]) for slot in sorted(sums)]

    def listed(self, slots: list[SlotNumber]) -> list[SlotList]:
        """Return the session's acquisitions in each of these slots; an empty list says that all was given up there.

        Tickets of the session's other shares are included. Where the client has newer routes than this node, it already
        expects them elsewhere; leaving them out would make this node drop them as given up.
        """
        lists: dict[SlotNumber, list[ListedAcquisition]] = {slot: [] for slot in slots}
        for share in self.session.shares.values():
            for ticket in share.tickets.values():
                if ticket.slot in lists:
                    lists[ticket.slot].append(ListedAcquisition(ticket.acquisition, ticket.name))
        return [SlotList(slot, acquisitions) for slot, acquisitions in lists.items()]

    def check_deadlines(self, now_ns: int) -> list[Ticket]:
        """Plan the next check, and return the held tickets whose deadline has passed; they stay counted.

        O(tickets), but needed only when the earliest known deadline comes: about every two thirds of a TTL.
        """
        expired: list[Ticket] = []
        soonest_ns = DISTANT_FUTURE_NS
        for ticket in self.tickets.values():
            if ticket.state == HELD:
                deadline_ns = deadline_ns_of(ticket)
                if deadline_ns <= now_ns:
                    expired.append(ticket)
                elif deadline_ns < soonest_ns:
                    soonest_ns = deadline_ns
        self.check_at_ns = soonest_ns
        return expired


def deadline_ns_of(ticket: Ticket) -> int:
    """Return when a held ticket ends unless it is renewed: its own deadline or its share's promise, the later.

    May be called from any thread: a ticket that changes shares takes its deadline along first.
    """
    share = ticket.share
    deadline_ns = ticket.deadline_ns
    if (
        share is not None
        and ticket.covered_after < share.promised_by
        and share.promised_until_ns > deadline_ns
    ):
        return share.promised_until_ns
    return deadline_ns


def reason_of_expiry(ticket: Ticket) -> str:
    """Return why a held ticket was not renewed in time, as in `errors.LockLost`. May be called from any thread."""
    share = ticket.share
    return LOCAL_DEADLINE if share is None else share.refused or LOCAL_DEADLINE


def is_believed(ticket: Ticket, now_ns: int) -> bool:
    """Return whether the client rightly takes a ticket for held at this time."""
    return ticket.state == HELD and now_ns < deadline_ns_of(ticket)


def not_held(ticket: Ticket) -> LockringError:
    """Return the error for a ticket that should be held and is not."""
    name = ticket.name
    if ticket.reason:
        return LockLost(
            f"the lock {name!r} was lost: {LockLost.explained(ticket.reason)}",
            name=name,
            reason=ticket.reason,
        )
    return NotHeld(f"the lock {name!r} is not held by this grant", name=name)
