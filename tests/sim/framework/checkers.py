"""The properties of the design, checked from the outside with true time.

The checkers know three things of the code under test: what clients believe, what nodes' tables contain and say they
may serve, and which states were stored. They share no rule with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from lockring.cluster_state import ClusterState, Copy, Replica, SlotState
from lockring.core.client import OTHER_CLUSTER
from lockring.ids import Generation, SessionId, SlotNumber, Version
from lockring.protocol import Acquire, GrantReply, LossNotice, Message, Refusal
from lockring.slots import slot_of
from tests.sim.framework.groups import GroupCheckers
from tests.sim.framework.states import StatesTaken
from tests.sim.framework.watches import Watches
from tests.sim.framework.world import Process, S, Violation, World

if TYPE_CHECKING:
    from tests.sim.framework.node_shell import NodeShell


class Belief:
    """One client's belief that it holds a lock.

    Attributes:
        client: the client's name.
        current: whether it believes so now, by its own clock read at this true time.
        asked: the true time at which it asked for the lock.
        began: the true time at which it began to.
        primary: the life of the node whose answer it goes by.
        shared: whether others may hold it at the same time, shared as well.
        lapsed: whether the client was seen with its deadline passed.
    """

    __slots__ = (
        "acquisition",
        "asked",
        "began",
        "client",
        "current",
        "generation",
        "lapsed",
        "name",
        "primary",
        "session",
        "shared",
        "slot",
    )

    def __init__(
        self,
        client: str,
        name: str,
        session: SessionId,
        acquisition: int,
        generation: Generation,
        current: Callable[[], bool],
        began: int,
        *,
        asked: int,
        primary: str,
        shared: bool = False,
    ) -> None:
        self.client = client
        self.name = name
        self.slot = slot_of(name)
        self.session = session
        self.acquisition = acquisition
        self.generation = generation
        self.current = current
        self.asked = asked
        self.began = began
        self.primary = primary
        self.shared = shared
        self.lapsed = False

    def bars(self, other: Belief) -> bool:
        """Whether this one and the other must not be believed in at the same time."""
        return not (self.shared and other.shared)

    def __str__(self) -> str:
        return f"{self.client}/{self.acquisition} of {self.name!r} generation {self.generation}"


class Checkers:
    """All properties that hold at every instant.

    Attributes:
        nodes: every node that ever ran.
        stored: what the coordinators' store has.
        sync: whether grants wait for their copies.
        wiped: whether the store has lost something, so that copies need not be where it says.
        broken: acquisitions that an operator has ended, by session and number.
        groups: those of groups.
        watches: what those have seen who watch locks.
        states: those that the store has had, and that nodes and clients go by.
    """

    def __init__(self, world: World, nodes: list[NodeShell], *, sync: bool) -> None:
        self.world = world
        self.nodes = nodes
        self.sync = sync
        self.stored: ClusterState | None = None
        self.wiped = False
        self.broken: set[tuple[str, int]] = set()
        self.groups = GroupCheckers(world, sync=sync)
        self._beliefs: dict[str, list[Belief]] = {}
        self.watches = Watches(sync=sync)
        self.states = StatesTaken(world)
        self._history: dict[str, list[tuple[int, int, str, bool]]] = {}
        self._order: dict[tuple[str, int, str], _Queue] = {}

    # ------------------------------------------------------------------ clients

    def began(self, belief: Belief) -> None:
        """A client begins to believe that it holds a lock."""
        self.world.stats["grants"] += 1
        if belief.shared:
            self.world.stats["grants_shared"] += 1
        for other in self.current(belief.name) if self.sync else []:
            if belief.bars(other):
                raise Violation("P1", f"{belief} begins while {other} holds it")
            self.world.stats["shared_at_once"] += 1
        self._beliefs.setdefault(belief.name, []).append(belief)
        history = self._history.setdefault(belief.name, [])
        for generation, when, who, shared in history[-50:]:
            # Two that share are granted at once, and may hear of it in either order.
            either = shared and belief.shared and generation != belief.generation
            # With `async` replication, a grant whose answer was cut off may be confirmed under its old token after the
            # newer ones were lost.
            is_late = not self.sync and belief.asked < when
            if generation >= belief.generation and not either and not is_late:
                raise Violation("P2", f"{belief} after {who} had {generation} at {when / S:.6f}")
        who = f"{belief.client}/{belief.acquisition}"
        history.append((belief.generation, self.world.now, who, belief.shared))
        holder = (belief.session, belief.acquisition, belief.generation)
        self.watches.granted(belief.name, holder, belief.primary)
        if self.sync and not self.wiped:
            self._in_copies(belief)

    def goes_on(self, belief: Belief) -> None:
        """A client still believes: where that was extended after a stop past its deadline, look for others again."""
        there = self._beliefs[belief.name]
        if self.sync and belief not in there:
            for other in self.current(belief.name):
                if belief.bars(other):
                    raise Violation("P1", f"{belief} goes on while {other} holds it")
            self._beliefs[belief.name].append(belief)

    def resumed(self, belief: Belief) -> None:
        """Fail because a client believes again in a grant that it had given up."""
        raise Violation("P4", f"{belief} is believed in again after its deadline")

    def told_lost(self, belief: Belief, reason: str) -> None:
        """Fail if a client learns of the loss of a grant that it still believes in, and that no operator broke.

        Where the store was lost all is lost that was held, and the servers may answer for another cluster.
        """
        if self.wiped and reason.startswith(OTHER_CLUSTER):
            return
        if self.sync and (belief.session, belief.acquisition) not in self.broken:
            raise Violation("P3", f"{belief} is told lost ({reason}) while its lease still runs")

    def current(self, name: str) -> list[Belief]:
        """Return the clients that believe they hold a lock now."""
        beliefs = self._beliefs.get(name)
        if not beliefs:
            return []
        beliefs[:] = [each for each in beliefs if each.current()]
        return list(beliefs)

    def all_current(self) -> Iterable[Belief]:
        """Yield the beliefs of all clients."""
        for name in self._beliefs:
            yield from self.current(name)

    # ------------------------------------------------------------------ nodes

    def after_node(self, node: NodeShell) -> None:
        """Check a node after its turn: no other serves its slots, and the grants believed in are in its table."""
        serves = node.serving()
        if not serves:
            return
        for other in self.nodes:
            if other is not node:
                for slot in other.serving(serves):
                    raise Violation("RIGHT", f"{node.name} and {other.name} may both serve slot {slot}")
        if self.sync:
            for belief in self.all_current():
                if belief.slot in serves and not node.has(belief.slot, belief.session, belief.acquisition):
                    raise Violation("P4", f"{node.name} serves slot {belief.slot} without {belief}")

    def node_learned(self, node: NodeShell, state: ClusterState) -> None:
        """Check a state that a node has just taken."""
        self.states.by_node(node.name, state)

    def node_began(self, node: NodeShell) -> None:
        """Check the journal that a new life has read.

        JOURNAL, both with `sync` replication and as long as the coordinators' store has lost nothing:

        - The life vouches for what it found unless there is a reason: the directory is new, was lost, replaced or
          altered, or the machine lost its power while answers waited for writes only. A disk that was full, slow or
          failing, a torn write, and, where answers waited for syncs, a loss of power are no reasons.
        - For each grant that a client believes in now: if the stored state names a life that is vouched for as
          primary or backup of its slot, the grant is in the restored table. Others need not be: another copy was
          better.
        """
        journal, core, disk = node.journal, node.core, node.disk
        assert journal is not None
        assert core is not None
        assert disk is not None
        doubt, disk.doubt = disk.doubt, ""
        if not journal.found.is_complete and not doubt:
            raise Violation("JOURNAL", f"{node.name} does not vouch for its journal: {journal.reason}")
        if not self.sync or self.wiped or self.stored is None:
            return
        lives = {(core.replica.node, life) for life in core.join_facts().former}
        for belief in self.all_current():
            slot = self.stored.slots[belief.slot]
            copies = [slot.primary, None if slot.backup is None else slot.backup.replica]
            for replica in copies:
                if replica is None or (replica.node, replica.incarnation) not in lives:
                    continue
                self.world.stats["journal_checked"] += 1
                if not node.has(belief.slot, belief.session, belief.acquisition):
                    raise Violation("JOURNAL", f"{node.name} vouches for {replica} without {belief}: {slot}")

    def _in_copies(self, belief: Belief) -> None:
        if self.stored is None:
            return
        slot = self.stored.slots[belief.slot]
        copies = [slot.primary, None if slot.backup is None else slot.backup.replica]
        for replica in copies:
            node = None if replica is None else self._living(replica)
            if node is not None and not node.has(belief.slot, belief.session, belief.acquisition):
                raise Violation("P3", f"{belief} is not at {replica}, which the state says has it: {slot}")

    def _living(self, replica: Replica) -> NodeShell | None:
        for node in self.nodes:
            if node.alive and node.core is not None and node.core.replica == replica:
                return node
        return None

    # ------------------------------------------------------------------ the store

    def state_stored(self, before: ClusterState | None, after: ClusterState | None) -> None:
        """A state was written (or wiped)."""
        self.stored = after
        if after is None:
            self.wiped = True
            return
        self.states.stored(after)
        self._count_changes(before, after)
        if before is None or not self.sync:
            return
        for belief in self.all_current():
            old, new = before.slots[belief.slot], after.slots[belief.slot]
            if new.base != old.base and new.primary is not None:
                raise Violation("P1", f"slot {belief.slot} is assigned empty while {belief} holds")
            if not self.wiped and old != new:
                self._in_copies(belief)

    def _count_changes(self, before: ClusterState | None, after: ClusterState) -> None:
        stats = self.world.stats
        stats["versions"] += 1
        if before is None:
            return
        if after.version <= before.version:
            raise Violation("P2", f"version {after.version} is stored after {before.version}")
        for number, (old, new) in enumerate(zip(before.slots, after.slots, strict=True)):
            if old is new or old == new:
                continue
            what = _change(old, new)
            stats[what] += 1
            if self.world.story is not None:
                copies = f"{new.primary} / {_copy(new.backup)} / {_copy(new.learner)}"
                self.world.tell(
                    "S",
                    f"slot {number} {what}: {copies} since {new.since % 10**15} epoch {new.epoch % 10**15}",
                )
            if new.generation_below < old.generation_below:
                raise Violation("P2", f"slot {number}: reservation falls from {old} to {new}")

    # ------------------------------------------------------------------ order of waiters

    def node_received(self, node: NodeShell, sender: int, message: Message) -> None:
        """A client's message is handed to a node's core: note the order in which new waiters come."""
        if not isinstance(message, Acquire) or node.core is None:
            return
        slot, asked = slot_of(message.name), (message.session, message.acquisition)
        if message.waited_ms:
            # It comes again. If it has run out meanwhile (unrenewed), its place is that of what waited as long.
            known = self._order.get((node.name, node.life, message.name))
            if known is not None and not node.is_waiting(slot, *asked):
                known.waiting.pop(asked, None)
        else:
            if node.core.may_serve(slot, now_ns=node.now_ns()):
                since = node.core.state.slots[slot].since
                key = (node.name, node.life, message.name)
                queue = self._order.get(key)
                if queue is None or queue.since != since:
                    queue = self._order[key] = _Queue(since, slot)
                queue.waiting[asked] = (sender, message.request)

    def node_sent(self, node: NodeShell, to: int, message: Message) -> None:
        """Check a grant: no client that came earlier may still be waiting."""
        if isinstance(message, LossNotice):
            queue = self._order.get((node.name, node.life, message.name))
            if queue is not None:
                queue.waiting.pop((message.session, message.acquisition), None)
        if not isinstance(message, (GrantReply, Refusal)):
            return
        for (name, life, lock), queue in self._order.items():
            if name == node.name and life == node.life:
                for key, where in list(queue.waiting.items()):
                    if where == (to, message.request):
                        if isinstance(message, GrantReply):
                            self._check_order(node, lock, queue, key)
                        else:
                            del queue.waiting[key]

    def _check_order(self, node: NodeShell, lock: str, queue: _Queue, granted: tuple[str, int]) -> None:
        assert node.core is not None
        self.world.stats["in_order"] += 1
        for key in list(queue.waiting):
            if key == granted:
                break
            waits = node.is_waiting(queue.slot, *key)
            if waits and node.core.state.slots[queue.slot].since == queue.since:
                raise Violation("P5", f"{node.name}: {granted} gets {lock!r} before {key}, who came earlier")
            del queue.waiting[key]
        del queue.waiting[granted]

    def client_gone(self, node: NodeShell, sender: int) -> None:
        """A client's connection ended: what it waited for may come again, at the end of the queue."""
        for (name, life, _), queue in self._order.items():
            if name == node.name and life == node.life:
                for key in [key for key, where in queue.waiting.items() if where[0] == sender]:
                    del queue.waiting[key]


class _Queue:
    """The requests for one lock in one reign, in the order of their arrival."""

    def __init__(self, since: Version, slot: SlotNumber) -> None:
        self.since = since
        self.slot = slot
        self.waiting: dict[tuple[str, int], tuple[int, int]] = {}


def _copy(copy: Copy | None) -> str:
    return "-" if copy is None else str(copy.replica)


def _change(old: SlotState, new: SlotState) -> str:
    """Name what a state does to one slot."""
    if new.base != old.base:
        return "assigned_empty" if old.primary is not None else "assigned"
    if new.since != old.since:
        if new.primary is not None and old.primary is not None and new.primary.node == old.primary.node:
            return "inherited"
        if new.backup is not None and new.backup.replica == old.primary:
            return "swap"
        return "promotion"
    if new.backup != old.backup:
        if new.backup is not None and old.backup is not None:
            return "backup_inherited"
        if new.backup is not None and new.backup == old.learner:
            return "in_sync"
        return "backup_dropped"
    if new.learner != old.learner:
        return "learner" if new.learner is not None else "learner_dropped"
    return "generations" if new.generation_below != old.generation_below else "other"


def node_of(process: Process) -> bool:
    """Whether a process is a node."""
    return process.name.startswith("n")
