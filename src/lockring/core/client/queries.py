"""Questions and orders of a client that are no acquisition: describe, list, watch, break, state, drain and undrain.

All of them may be repeated: a question changes nothing, and an order names what it is about (a generation, a
node), so a second one finds it done. They are therefore sent again over any failure until answered or out of time.

A list asks every member that is some slot's primary, one after the other, page by page. It is no snapshot: where
routes changed meanwhile it starts over, a few times at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from lockring.cluster_state import Replica
from lockring.core.client.group_view import GroupSubscription
from lockring.core.client.links import Node, NodeLink
from lockring.core.client.routes import RouteTable
from lockring.protocol import (
    Break,
    BreakReply,
    Describe,
    DescribeGroup,
    DescribeReply,
    Drain,
    DrainReply,
    FollowGroup,
    GetState,
    List,
    ListReply,
    LockRecord,
    LockRecords,
    Message,
    StateReply,
    Undrain,
    UndrainReply,
    View,
    Watch,
)
from lockring.slots import SLOTS

ANYWHERE: Final = -1
"""A request that any server answers."""
LIST_ROUNDS_MAX: Final = 3
PAGE_LOCKS: Final = 1000


class QueryKind(Enum):
    """What is asked."""

    DESCRIBE = "describe"
    LIST = "list"
    WATCH = "watch"
    BREAK = "break"
    STATE = "state"
    DRAIN = "drain"
    UNDRAIN = "undrain"
    LOOK = "look"
    FOLLOW = "follow"


STREAMS: Final = frozenset({QueryKind.WATCH, QueryKind.FOLLOW})
"""What is answered again and again, until it is abandoned."""


ANSWERS: Final[dict[QueryKind, type[Message]]] = {
    QueryKind.DESCRIBE: DescribeReply,
    QueryKind.LIST: ListReply,
    QueryKind.BREAK: BreakReply,
    QueryKind.STATE: StateReply,
    QueryKind.DRAIN: DrainReply,
    QueryKind.UNDRAIN: UndrainReply,
    QueryKind.LOOK: View,
}
"""Which message answers which kind; a watch is answered by any number of `Changed`, a following of `View` and `Settled`."""


class Query(msgspec.Struct, eq=False):
    """One question, from the call to its answer. Made by the core; read it, but let only the core change it.

    Attributes:
        kind: what is asked.
        name: lock, prefix or node that it is about, "" where there is none.
        slot: the slot whose primary is asked, `ANYWHERE` for others.
        started_at_ns: when the caller asked.
        give_up_at_ns: when the core stops trying.
        generation: of a break, whose lease to end.
        force: of a break, whether at once.
        done: whether the caller has its answer, or has given up.
        link: number of the link on which it is open, 0 if it is not.
        request: number under which it is open there.
        retry_at_ns: when to try again after a refusal, 0 if not waiting for that.
        attempts: refusals in a row.
        refusal: the last refusal's code and text.
        listing: of a list, how far it is.
        seen: of a watch, the lock as it was last told.
        begun_again: of a watch, whether it has been sent since.
        following: of a following, what the member knows of its group.
        context: the shell's own.
    """

    kind: QueryKind
    name: str
    slot: int
    started_at_ns: int
    give_up_at_ns: int
    generation: int = 0
    force: bool = False
    done: bool = False
    link: int = 0
    request: int = 0
    retry_at_ns: int = 0
    attempts: int = 0
    refusal: tuple[str, str] | None = None
    listing: ListProgress | None = None
    seen: LockRecord | None = None
    begun_again: bool = False
    following: GroupSubscription | None = None
    context: Any = None

    def message(self, request: int, version: int) -> Message:
        """The message that asks it."""
        match self.kind:
            case QueryKind.DESCRIBE:
                return Describe(request, self.name, version)
            case QueryKind.WATCH:
                return Watch(request, self.name, version)
            case QueryKind.BREAK:
                return Break(request, self.name, self.generation, self.force, version)
            case QueryKind.STATE:
                return GetState(request)
            case QueryKind.DRAIN:
                return Drain(request, self.name)
            case QueryKind.UNDRAIN:
                return Undrain(request, self.name)
            case QueryKind.LOOK:
                return DescribeGroup(request, self.name, version)
            case QueryKind.FOLLOW:
                assert self.following is not None
                ticket, seen = self.following.ticket, self.following.seen
                return FollowGroup(request, self.name, ticket.session.id, ticket.acquisition, seen, version)
            case QueryKind.LIST:
                assert self.listing is not None
                return List(request, self.name, self.listing.from_slot, self.listing.after_name, PAGE_LOCKS)


def drain_request(node: str, undo: bool, now_ns: int, give_up_at_ns: int) -> Query:
    """A drain of a node, or with `undo` its end."""
    return Query(QueryKind.UNDRAIN if undo else QueryKind.DRAIN, node, ANYWHERE, now_ns, give_up_at_ns)


class PingQuery(NamedTuple):
    """A request whose answer only shows that the node is there."""


class ListProgress(msgspec.Struct, eq=False):
    """How far a list is.

    Attributes:
        version: of the routes that this round goes by, -1 before the first.
        rounds: how many have begun.
        todo: members still to be asked, the present one first.
        from_slot: where to go on at it.
        after_name: likewise.
        locks: what was found, by name.
        unserved: how many slots no node could tell of.
    """

    version: int = -1
    rounds: int = 0
    todo: list[Replica] = []
    from_slot: int = 0
    after_name: str = ""
    locks: dict[str, LockRecord] = {}
    unserved: int = 0

    def begin(self, version: int, primaries: Sequence[Replica], *, unserved: int) -> None:
        """Start a round over these members; what an earlier one found is found again."""
        self.version = version
        self.rounds += 1
        self.todo = list(primaries)
        self.locks = {}
        self.unserved = unserved
        self.from_slot, self.after_name = 0, ""

    def start_over(self) -> None:
        """Forget all of it."""
        self.version, self.rounds, self.todo = -1, 0, []

    def found_nothing_served(self) -> bool:
        """Whether all was looked at and no node could tell of any slot; if so, it starts over."""
        if self.todo or self.unserved < SLOTS:
            return False
        self.start_over()
        return True

    def page(self, listed: ListReply) -> None:
        """Take one page in, and move on."""
        self.unserved += listed.unserved
        for lock in listed.locks:
            known = self.locks.get(lock.name)
            if known is None or (lock.generation, lock.seq) >= (known.generation, known.seq):
                self.locks[lock.name] = lock
        if listed.next_slot < 0:
            del self.todo[0]
            self.from_slot, self.after_name = 0, ""
        else:
            self.from_slot, self.after_name = listed.next_slot, listed.next_name

    def result(self) -> LockRecords:
        """All locks found, by name."""
        return LockRecords([self.locks[name] for name in sorted(self.locks)], min(self.unserved, SLOTS))


def primaries_of(routing: RouteTable) -> list[Replica]:
    """The members that are the primary of some slot, in the order of their first one."""
    return list(dict.fromkeys(node.replica for node in routing.table if node is not None))


def where(request: Query, routing: RouteTable) -> Node | NodeLink | None:
    """Where a request is to be sent now: the node whose link is awaited, a link to use at once, or None."""
    if request.kind is QueryKind.LIST:
        listing = request.listing
        assert listing is not None
        if listing.version != routing.version and listing.rounds < LIST_ROUNDS_MAX:
            primaries = primaries_of(routing)
            if not primaries:
                listing.start_over()  # once some slot is served again
                return None
            listing.begin(routing.version, primaries, unserved=routing.table.count(None))
        # A member that has left since is passed over.
        while listing.todo and listing.todo[0] not in routing.nodes:
            del listing.todo[0]
        return routing.nodes[listing.todo[0]] if listing.todo else None
    if request.slot != ANYWHERE:
        return routing.table[request.slot]
    if request.kind in (QueryKind.DRAIN, QueryKind.UNDRAIN):
        for link in routing.links.values():
            if link.coordinator:
                return link
    return routing.any_ready()
