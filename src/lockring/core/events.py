"""The recent events of a server in bounded memory: failovers, moves, members' comings and goings, losses, breaks.

Rules:

- Nothing is added on the path of a grant, a renewal or a release: an event is an exception, or a change of the cluster.
- Events of locks, planned moves and other events of the cluster are kept apart, so that a thousand lost locks or moves
  do not push out a failover.
- The last events of each lock are also kept under its name, and the last change of primary under each slot.
- All of it has a bound: the oldest goes first, and a reader learns that something is missing.
- Each server derives the events of the cluster from the cluster states that it takes. So any server has them, and
  `core.merged_events` drops those that several report.
- An event of a lock is shown to identities that may read the lock, one of the cluster to those that may read
  everything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from lockring.cluster_state import ClusterState
from lockring.core.access import Grantee, NameTable, Verb
from lockring.errors import InvalidRequest
from lockring.ids import NO_NODE, NO_VERSION, Generation, LockName, NodeId, RequestNumber, SlotNumber, Version
from lockring.protocol import EventRecord, EventsReply, GetEvents
from lockring.slots import checked_slot_of
from lockring.units import ns_to_ms_floor

FAILOVER: Final = "failover"
"""Slots have another primary without the former one, which counts as failed."""
MOVED: Final = "moved"
"""Slots have another primary by plan: the former one has handed over."""
RESUMED: Final = "resumed"
"""Slots have the next life of their primary, which goes on with what its journal has."""
ASSIGNED: Final = "assigned"
"""Slots have a primary that had none; no lock of the time before is left unless a backup or a journal has it."""
VACANT: Final = "vacant"
"""Slots have no primary."""
JOINED: Final = "joined"
"""A node is a member."""
RESTARTED: Final = "restarted"
"""A member has a new life."""
LEFT: Final = "left"
"""A node that was drained is a member no more."""
FAILED: Final = "failed"
"""A node that was not drained is a member no more: the coordinator has not heard from it for too long."""
DRAINING: Final = "draining"
"""A node is emptied."""
UNDRAINED: Final = "undrained"
"""A node may have slots again."""
LEADING: Final = "leading"
"""A coordinator leads from here on."""
COORDINATOR_LOST: Final = "coordinator-lost"
"""A node has lost its connection to the coordinator."""
COORDINATOR_FOUND: Final = "coordinator-found"
"""A node is connected to a coordinator again."""
LOST: Final = "lost"
"""A lock's holder has lost it: its lease ended, or was ended."""
BROKEN: Final = "broken"
"""An operator has broken the lease of a lock's holder."""

KINDS: Final = (
    FAILOVER,
    MOVED,
    RESUMED,
    ASSIGNED,
    VACANT,
    JOINED,
    RESTARTED,
    LEFT,
    FAILED,
    DRAINING,
    UNDRAINED,
    LEADING,
    COORDINATOR_LOST,
    COORDINATOR_FOUND,
    LOST,
    BROKEN,
)
"""All kinds of events. A newer server may have more."""
_KINDS_OF_LOCKS: Final = frozenset((LOST, BROKEN))

CLUSTER_EVENTS_MAX: Final = 1_000
MOVES_MAX: Final = 2_000
LOCK_EVENTS_MAX: Final = 4_000
NAMES_MAX: Final = 2_000
"""Locks whose own last events are kept."""
EVENTS_PER_NAME_MAX: Final = 8
PAGE_MAX: Final = 1_000
"""Events in one answer."""
_KINDS_MAX: Final = 64


class EventViewer(NamedTuple):
    """The events that an identity may see.

    Attributes:
        readable: the names whose locks it may read, None for all.
        sees_cluster: whether it sees events of the cluster.
    """

    readable: NameTable | None = None
    sees_cluster: bool = True

    def sees(self, event: EventRecord) -> bool:
        """Return whether the identity may see an event."""
        if not event.name:
            return self.sees_cluster
        return self.readable is None or self.readable.allows(event.name)


SEES_ALL: Final = EventViewer()
"""A viewer at a server that checks no rights."""


def viewer_of(access: Grantee | None) -> EventViewer:
    """Return the events that an identity may see; `access` is None at a server that checks no rights."""
    if access is None or not access.is_enforced:
        return SEES_ALL
    readable = access.permissions.tables[Verb.READ]
    sees_all = readable.allows_all("")
    return EventViewer(None if sees_all else readable, sees_all or access.is_node)


class KeptEvent(NamedTuple):
    """An event and when it was, on the server's clock."""

    at_ns: int
    record: EventRecord


class EventMemory:
    """The recent events of a server. Not safe for use by several threads.

    Args:
        origin: names this memory among those of all lives of the server.
        now_ns: the time.

    Attributes:
        origin: see above.
        began_at_ns: when the memory began.
        last: the number of the newest event, 0 before the first.
        since: the memory has the changes of all cluster states that are newer than this version.
    """

    def __init__(self, origin: str, now_ns: int = 0) -> None:
        self.origin = origin
        self.began_at_ns = now_ns
        self.last = 0
        self.since = NO_VERSION
        self._cluster: deque[KeptEvent] = deque(maxlen=CLUSTER_EVENTS_MAX)
        self._moves: deque[KeptEvent] = deque(maxlen=MOVES_MAX)
        self._locks: deque[KeptEvent] = deque(maxlen=LOCK_EVENTS_MAX)
        self._forgotten = 0
        # The lock with the newest event is last.
        self._by_name: dict[LockName, deque[KeptEvent]] = {}
        self._by_slot: dict[SlotNumber, KeptEvent] = {}

    # ------------------------------------------------------------------ adding

    def lock_ended(
        self, kind: str, name: LockName, owner: str, generation: Generation, *, reason: str, now_ns: int
    ) -> None:
        """Keep the end of a grant that its holder did not choose.

        Args:
            kind: `LOST` or `BROKEN`.
            name: the lock.
            owner: the holder.
            generation: of the grant.
            reason: a word for the cause.
            now_ns: the time.
        """
        self.last += 1
        record = EventRecord(self.last, kind, 0, name=name, owner=owner, generation=generation, reason=reason)
        kept = KeptEvent(now_ns, record)
        self._append(self._locks, kept)
        own = self._by_name.pop(name, None)
        if own is None:
            own = deque(maxlen=EVENTS_PER_NAME_MAX)
            if len(self._by_name) >= NAMES_MAX:
                del self._by_name[next(iter(self._by_name))]
        own.append(kept)
        self._by_name[name] = own

    def coordinator_changed(self, kind: str, node: NodeId, now_ns: int) -> None:
        """Keep that a node has lost or found the coordinator."""
        self._add_cluster(EventRecord(self._next(), kind, 0, node=node), now_ns)

    def began_to_lead(self, state: ClusterState, now_ns: int) -> None:
        """Keep that a coordinator leads, with its first state; the memory begins there."""
        self.since = Version(state.version - 1)
        self.began_at_ns = now_ns
        self._add_leading(state, now_ns)

    def learned(self, old: ClusterState, new: ClusterState, slots: Iterable[SlotNumber], now_ns: int) -> None:
        """Keep the difference between a cluster state and the one before it.

        Args:
            old: the state before; with the version 0 there was none, and the memory begins here.
            new: the state.
            slots: those that may differ between the two, ascending.
            now_ns: the time.
        """
        if old.version == NO_VERSION:
            self.since = new.version
            return
        if new.term != old.term:
            self._add_leading(new, now_ns)
        if new.members is not old.members:
            self._compare_members(old, new, now_ns)
        self._compare_slots(old, new, slots, now_ns)

    def _compare_members(self, old: ClusterState, new: ClusterState, now_ns: int) -> None:
        for node, member in new.members.items():
            before = old.members.get(node)
            if before is member:
                continue
            kind = ""
            if before is None:
                kind = JOINED
            elif before.replica != member.replica:
                kind = RESTARTED
            elif member.condition == "draining" and before.condition != "draining":
                kind = DRAINING
            elif member.condition != "draining" and before.condition == "draining":
                kind = UNDRAINED
            if kind:
                record = EventRecord(self._next(), kind, 0, node=node, version=new.version)
                self._add_cluster(record, now_ns)
        for node, before in old.members.items():
            if node not in new.members:
                kind = LEFT if before.condition == "draining" else FAILED
                record = EventRecord(self._next(), kind, 0, node=node, version=new.version)
                self._add_cluster(record, now_ns)

    def _compare_slots(
        self, old: ClusterState, new: ClusterState, slots: Iterable[SlotNumber], now_ns: int
    ) -> None:
        changes: dict[tuple[str, str, NodeId], list[SlotNumber]] = {}
        for number in slots:
            before, after = old.slots[number].primary, new.slots[number].primary
            if before is after or before == after:
                continue
            change: tuple[str, str, NodeId]
            if after is None:
                assert before is not None
                change = (VACANT, before.node, NO_NODE)
            elif before is None:
                change = (ASSIGNED, "", after.node)
            else:
                backup = new.slots[number].backup
                kind = FAILOVER
                if before.node == after.node:
                    kind = RESUMED
                elif backup is not None and backup.replica == before:
                    kind = MOVED
                change = (kind, before.node, after.node)
            changes.setdefault(change, []).append(number)
        for (kind, source, node), numbers in changes.items():
            record = EventRecord(
                self._next(),
                kind,
                0,
                node=node,
                source=source,
                slot=numbers[0],
                slots=len(numbers),
                version=new.version,
            )
            kept = self._add_cluster(record, now_ns)
            for number in numbers:
                self._by_slot[number] = kept

    def _add_leading(self, state: ClusterState, now_ns: int) -> None:
        record = EventRecord(self._next(), LEADING, 0, source=state.coordinator, version=state.version)
        self._add_cluster(record, now_ns)

    def _add_cluster(self, record: EventRecord, now_ns: int) -> KeptEvent:
        kept = KeptEvent(now_ns, record)
        self._append(self._moves if record.kind == MOVED else self._cluster, kept)
        return kept

    def _append(self, ring: deque[KeptEvent], kept: KeptEvent) -> None:
        if len(ring) == ring.maxlen:
            self._forgotten = max(self._forgotten, ring[0].record.number)
        ring.append(kept)

    def _next(self) -> int:
        self.last += 1
        return self.last

    # ------------------------------------------------------------------ reading

    def of_lock(self, name: LockName) -> list[KeptEvent]:
        """Return the last events of a lock, and the last change of the primary of its slot, oldest first."""
        found = list(self._by_name.get(name, ()))
        of_slot = self._by_slot.get(checked_slot_of(name))
        if of_slot is not None:
            found.append(of_slot)
            found.sort(key=_number)
        return found

    def answer(
        self, question: GetEvents, request: RequestNumber, viewer: EventViewer, now_ns: int
    ) -> EventsReply:
        """Return the answer to a question.

        Args:
            question: the question.
            request: the number to answer under.
            viewer: decides which events are shown; with a name in the question, the right to read that is checked
                before.
            now_ns: the time.

        Raises:
            InvalidRequest: the question asks for too much, or its name is not one of a lock.
        """
        if not 1 <= question.limit <= PAGE_MAX or len(question.kinds) > _KINDS_MAX:
            raise InvalidRequest(f"a page has 1 to {PAGE_MAX} events, of at most {_KINDS_MAX} kinds")
        rings = self._rings_for(question, viewer)
        # One more than the page has says that there are more.
        fitting = list(islice(_newest_first(rings, question, viewer, now_ns), question.limit + 1))
        more = len(fitting) > question.limit
        found = [
            msgspec.structs.replace(event, age_ms=_age_ms(at_ns, now_ns))
            for at_ns, event in reversed(fitting[: question.limit])
        ]
        gap = 0 < question.after < self._forgotten
        return EventsReply(
            request,
            found,
            more=more,
            gap=gap,
            last=self.last,
            origin=self.origin,
            since=self.since,
        )

    def _rings_for(self, question: GetEvents, viewer: EventViewer) -> list[Sequence[KeptEvent]]:
        """Return where events that fit may be, oldest first in each; the others need no look."""
        if question.name:
            return [self.of_lock(LockName(question.name))]
        kinds = frozenset(question.kinds)
        rings: list[Sequence[KeptEvent]] = []
        if not kinds or kinds & _KINDS_OF_LOCKS:
            rings.append(self._locks)
        if viewer.sees_cluster and not question.prefix:
            if not kinds or MOVED in kinds:
                rings.append(self._moves)
            if not kinds or kinds - _KINDS_OF_LOCKS - {MOVED}:
                rings.append(self._cluster)
        return rings


def _newest_first(
    rings: list[Sequence[KeptEvent]], question: GetEvents, viewer: EventViewer, now_ns: int
) -> Iterator[KeptEvent]:
    """Merge those events that fit, as far as they are read: the others cost a look each, and no comparison."""
    if len(rings) == 1:
        return _fitting(rings[0], question, viewer, now_ns)
    return merge(*(_fitting(ring, question, viewer, now_ns) for ring in rings), key=_number, reverse=True)


def _fitting(
    ring: Sequence[KeptEvent], question: GetEvents, viewer: EventViewer, now_ns: int
) -> Iterator[KeptEvent]:
    """Yield the events that fit, newest first."""
    kinds, prefix, after, before = frozenset(question.kinds), question.prefix, question.after, question.before
    oldest_ms, is_named = question.age_ms, question.name != ""
    for kept in reversed(ring):
        event = kept.record
        if event.number <= after or 0 <= oldest_ms < _age_ms(kept.at_ns, now_ns):
            return
        if (before and event.number >= before) or (kinds and event.kind not in kinds):
            continue
        if is_named or (event.name.startswith(prefix) and viewer.sees(event)):
            yield kept


def _age_ms(at_ns: int, now_ns: int) -> int:
    return ns_to_ms_floor(max(0, now_ns - at_ns))


def _number(event: KeptEvent) -> int:
    return event.record.number
