"""Everything that a client asks besides acquiring and releasing: describe, list, watch, break, state, drain, follow.

All of it may be repeated: a question changes nothing, and an order names its object (a generation, a node), so a second
one finds the work done. Queries are therefore sent again over any failure until they are answered or out of time.

How a list or a search goes on from page to page is in `listings`.

A client that acts for others also asks on their behalf: it renews or releases an acquisition that it need not have
made, and reads a single page of one member. Each acquisition there is the only one of its session.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from lockring.cluster_state import Replica
from lockring.core.client.exchanges import QueryExchange
from lockring.core.client.group_view import GroupSubscription
from lockring.core.client.listeners import MemberReference
from lockring.core.client.listings import Listing
from lockring.core.digest import mix
from lockring.core.timing import DISTANT_FUTURE_NS
from lockring.ids import (
    AcquisitionNumber,
    Generation,
    LockName,
    NodeId,
    RequestNumber,
    SessionId,
    SlotNumber,
    Version,
)
from lockring.protocol import (
    Break,
    BreakReply,
    Describe,
    DescribeGroup,
    DescribeReply,
    Drain,
    DrainReply,
    EventsReply,
    FollowGroup,
    GetEvents,
    GetState,
    GetStatus,
    Keepalive,
    KeepaliveReply,
    List,
    ListedAcquisition,
    ListReply,
    LockRecord,
    Message,
    Release,
    ReleaseReply,
    SlotList,
    StateReply,
    StatusReply,
    Undrain,
    UndrainReply,
    View,
    Watch,
)
from lockring.protocol.identities import Identity
from lockring.slots import slot_of

ANYWHERE: Final = SlotNumber(-1)
"""The slot of a query that any server answers."""
ONLY_ACQUISITION: Final = AcquisitionNumber(1)
"""The number of the acquisition in a session that has no other."""


class QueryKind(Enum):
    """The questions and orders there are."""

    DESCRIBE = "describe"
    LIST = "list"
    FIND = "find"
    WATCH = "watch"
    BREAK = "break"
    STATE = "state"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    LOOK = "look"
    FOLLOW = "follow"
    PAGE = "page"
    MEMBER_STATUS = "member status"
    MEMBER_EVENTS = "member events"
    RENEW = "renew"
    RELEASE = "release"


STREAMS: Final = frozenset({QueryKind.WATCH, QueryKind.FOLLOW})
"""Queries that are answered again and again, until they are abandoned."""


REPLIES: Final[dict[QueryKind, type[Message]]] = {
    QueryKind.DESCRIBE: DescribeReply,
    QueryKind.LIST: ListReply,
    QueryKind.FIND: ListReply,
    QueryKind.BREAK: BreakReply,
    QueryKind.STATE: StateReply,
    QueryKind.DRAIN: DrainReply,
    QueryKind.UNDRAIN: UndrainReply,
    QueryKind.LOOK: View,
    QueryKind.PAGE: ListReply,
    QueryKind.MEMBER_STATUS: StatusReply,
    QueryKind.MEMBER_EVENTS: EventsReply,
    QueryKind.RENEW: KeepaliveReply,
    QueryKind.RELEASE: ReleaseReply,
}
"""Which message answers which kind. A watch gets any number of `WatchNotice`, a subscription `View` and
`SettlementNotice`."""


class PageRequest(msgspec.Struct, frozen=True):
    """One page of one member's locks.

    Attributes:
        replica: the member.
        from_slot: where the page begins.
        after_name: after which name in that slot.
        limit: how many locks it has at most.
    """

    replica: Replica
    from_slot: SlotNumber
    after_name: str
    limit: int


class MemberQuestion(msgspec.Struct, frozen=True):
    """A question to one member about itself.

    Attributes:
        replica: the member.
        message: the question; its number is set when it is sent.
    """

    replica: Replica
    message: GetStatus | GetEvents


class BreakOrder(msgspec.Struct, frozen=True):
    """Which holder's lease a break ends, by its generation, and whether at once."""

    generation: Generation
    force: bool


class OrderOnBehalf(msgspec.Struct, frozen=True):
    """The session on whose only acquisition a query acts, and the lease to renew, 0 if it releases."""

    session: SessionId
    ttl_ms: int = 0


class Query(msgspec.Struct, eq=False):
    """One question or order, from the call to its answer. Shells read it; only the core changes it.

    Attributes:
        kind: what is asked.
        name: the lock, prefix or node in question, "" where there is none.
        slot: the slot whose primary is asked, `ANYWHERE` for others.
        exchange: the call, and what is open with a server.
        detail: of a break, a page, a member's question, a renewal or a release, what else its message says.
        done: whether the caller has its answer, or has given up.
        listing: of a list or a search, its progress.
        seen: of a watch, the lock as it was last reported.
        restarted: of a watch, whether it has been sent since then.
        subscription: of a follow, what the member knows of its group.
        member: the shell's: refers to the member that hears of changes in its group.
        asker: the identity on whose behalf it is asked, None for the client's own.
    """

    kind: QueryKind
    name: str
    slot: SlotNumber
    exchange: QueryExchange
    detail: BreakOrder | OrderOnBehalf | PageRequest | MemberQuestion | None = None
    done: bool = False
    listing: Listing | None = None
    seen: LockRecord | None = None
    restarted: bool = False
    subscription: GroupSubscription | None = None
    member: MemberReference | None = None
    asker: Identity | None = None

    @property
    def asked_member(self) -> Replica | None:
        """The only member that can answer, None for other questions."""
        detail = self.detail
        return detail.replica if isinstance(detail, (PageRequest, MemberQuestion)) else None

    def message(self, request: RequestNumber, version: Version) -> Message:
        """Return the message that asks it.

        Args:
            request: its number.
            version: of the client's routes.
        """
        name = LockName(self.name)  # if the question is about a lock
        match self.kind:
            case QueryKind.DESCRIBE:
                return Describe(request, name, version)
            case QueryKind.WATCH:
                return Watch(request, name, version)
            case QueryKind.BREAK:
                assert isinstance(self.detail, BreakOrder)
                return Break(request, name, self.detail.generation, self.detail.force, version)
            case QueryKind.STATE:
                return GetState(request)
            case QueryKind.DRAIN:
                return Drain(request, NodeId(self.name))
            case QueryKind.UNDRAIN:
                return Undrain(request, NodeId(self.name))
            case QueryKind.LOOK:
                return DescribeGroup(request, name, version)
            case QueryKind.FOLLOW:
                assert self.subscription is not None
                ticket = self.subscription.ticket
                return FollowGroup(
                    request,
                    name=name,
                    session=ticket.session.id,
                    acquisition=ticket.acquisition,
                    view=self.subscription.seen,
                    version=version,
                )
            case QueryKind.RENEW:
                return self._renewal(request, version)
            case QueryKind.RELEASE:
                assert isinstance(self.detail, OrderOnBehalf)
                return Release(request, self.detail.session, ONLY_ACQUISITION, name, version)
            case QueryKind.PAGE:
                assert isinstance(self.detail, PageRequest)
                page = self.detail
                return List(request, self.name, page.from_slot, page.after_name, page.limit)
            case QueryKind.MEMBER_STATUS | QueryKind.MEMBER_EVENTS:
                assert isinstance(self.detail, MemberQuestion)
                return msgspec.structs.replace(self.detail.message, request=request)
            case QueryKind.LIST | QueryKind.FIND:
                assert self.listing is not None
                return self.listing.message(request, self.name)

    def _renewal(self, request: RequestNumber, version: Version) -> Message:
        assert isinstance(self.detail, OrderOnBehalf)
        return Keepalive(
            request,
            session=self.detail.session,
            ttl_ms=self.detail.ttl_ms,
            owner="",
            through=ONLY_ACQUISITION,
            count=1,
            digest=mix(ONLY_ACQUISITION),
            slots=[],
            listed=[SlotList(self.slot, [ListedAcquisition(ONLY_ACQUISITION, LockName(self.name))])],
            version=version,
        )


def query_about_lock(
    kind: QueryKind,
    name: LockName,
    now_ns: int,
    give_up_at_ns: int = DISTANT_FUTURE_NS,
    *,
    detail: BreakOrder | OrderOnBehalf | None = None,
) -> Query:
    """Return a query that the primary of a lock answers."""
    return Query(kind, name, slot_of(name), QueryExchange(now_ns, give_up_at_ns), detail)


def query_anywhere(
    kind: QueryKind,
    name: str,
    now_ns: int,
    give_up_at_ns: int,
    *,
    detail: PageRequest | MemberQuestion | None = None,
) -> Query:
    """Return a query that any server answers, or the member that the detail names."""
    return Query(kind, name, ANYWHERE, QueryExchange(now_ns, give_up_at_ns), detail)
