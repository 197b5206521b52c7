"""Rules that the coordinator keeps; see `mutants`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from lockring.core import asks, planning, term, transitions
from lockring.core.coordinator import CoordinatorCore
from lockring.core.farewells import Farewells
from lockring.core.membership import Membership
from lockring.core.node_locking import Locking
from lockring.core.reconciler import Situation
from lockring.core.roster import Roster
from lockring.core.store_health import StoreHealth
from lockring.core.term import News, Phase, Term
from lockring.core.timing import up
from lockring.messages import Drain, Leave
from lockring.ring.state import Replica, SlotState
from lockring.units import ms_to_ns
from tests.sim.node_shell import NodeShell
from tests.sim.switches import Change, mutant, pair
from tests.sim.world import S

_LONG = 1_000 * S


@mutant
def no_confirm() -> list[Change]:
    """A coordinator acknowledges heartbeats whatever the confirming read says."""
    return [(Term, "_confirmed", lambda self, ok, stored, now_ns: News.CONFIRMED)]


@mutant
def ack_condemned() -> list[Change]:
    """A coordinator acknowledges a node while its own write against that node is under way."""
    acknowledge = CoordinatorCore._acknowledge

    def changed(self: CoordinatorCore, now_ns: int) -> None:
        condemned, self._condemned = self._condemned, frozenset()
        acknowledge(self, now_ns)
        self._condemned = condemned

    return [(CoordinatorCore, "_acknowledge", changed)]


@mutant
def no_restart_wait() -> list[Change]:
    """A new coordinator takes those whom it has not heard for silent since long ago."""

    def unacknowledged_ns(self: Membership, replica: Any, *, now_ns: int) -> int:
        return now_ns - self._acknowledged_at_ns.get(replica, now_ns - _LONG)

    return [
        (Membership, "unacknowledged_ns", unacknowledged_ns),
        *_aged(lambda age_ns, version: lambda of: _LONG),
    ]


@mutant
def no_slot_wait() -> list[Change]:
    """An assignment of an empty slot looks at its last primary only, not at when its reign began."""
    return _aged(lambda age_ns, version: lambda of: _LONG)


def _aged(change: Callable[[Any, int], Any]) -> list[Change]:
    """Replace `Situation.age_ns` wherever a situation is made."""

    def plan(situation: Situation) -> Any:
        return original(situation._replace(age_ns=change(situation.age_ns, situation.version)))

    original = planning.plan
    return [(planning, "plan", plan)]


@mutant
def restart_empty() -> list[Change]:
    """The slots of a node that restarted, and had the only copy, are assigned empty at once."""
    unacknowledged = Membership.unacknowledged_ns

    def changed(self: Membership, replica: Any, *, now_ns: int) -> int:
        newer = any(
            each.node == replica.node and each.incarnation > replica.incarnation for each in self.settled
        )
        return _LONG if newer else unacknowledged(self, replica, now_ns=now_ns)

    return [(Membership, "unacknowledged_ns", changed), *no_slot_wait()]


@mutant
def wipe_no_wait() -> list[Change]:
    """A coordinator whose store was lost assigns the slots at once. (To be run with lost stores.)"""

    def forgotten(slot: SlotState, version: int) -> SlotState:
        return SlotState(version, version, 0, None, None, None, slot.generation_below, slot.generation_below)

    return [(term, "forgotten", forgotten)]


@mutant
def new_without_word() -> list[Change]:
    """A coordinator that finds nothing in its store takes the cluster for new, though nobody has said so."""
    claim = Term._claim

    def changed(self: Term, stored: Any, now_ns: int, wall_ns: int) -> None:
        self._new_cluster = True
        claim(self, stored, now_ns, wall_ns)

    return [(Term, "_claim", changed)]


@mutant
def farewell_of_another_boot() -> list[Change]:
    """The word of a stopped cluster on its promises is taken by the clock of another boot."""
    return [(term, "is_trusted", lambda word, boot, now_ns, wall_ns: word is not None)]


@mutant
def farewell_too_early() -> list[Change]:
    """A node's word on its promises counts also where it was given before the last slots were given up."""
    return [(Farewells, "_is_of_all", lambda self, replica, digest: True)]


@mutant
def range_again() -> list[Change]:
    """A reign that begins empty hands out the generations of the one before again."""
    fresh = transitions._fresh_range

    def _fresh_range(slot: SlotState, version: int) -> tuple[int, int]:
        if slot.generation_below:
            return slot.generation_from, slot.generation_below
        return fresh(slot, version)

    return [(transitions, "_fresh_range", _fresh_range)]


@mutant
def incarnation_blind() -> list[Change]:
    """A restarted node takes the incarnation of its former life."""
    start = NodeShell.on_start

    def on_start(self: NodeShell) -> None:
        wall_offset = self.wall_offset
        self.wall_offset = -self.world.now
        start(self)
        self.wall_offset = wall_offset

    return [(NodeShell, "on_start", on_start)]


_TERM_OF: dict[str, str] = {}
"""For `no_bump`: who has said last that it is the coordinator of a cluster, kept beside the state."""


@mutant
def no_bump() -> list[Change]:
    """A coordinator starts without writing its term into the state: it is kept beside it, and confirmed there."""
    read, installed = Term._read, Term._installed

    def starts(self: Term, ok: bool, stored: Any, now_ns: int, wall_ns: int) -> News:
        if not ok or stored is None or self._lost or self.state is not None:
            return read(self, ok, stored, now_ns, wall_ns)
        self._inherited_version = stored.version
        self.lease_wait_ns = max(self.lease_wait_ns, up(ms_to_ns(stored.coordinator_lease_ms)))
        self.phase = Phase.CLAIMING
        claimed = msgspec.structs.replace(stored, term=self._name, coordinator=self._address)
        return self._installed(claimed)

    def noted(self: Term, state: Any) -> News:
        if self.phase is not Phase.ACTIVE:
            _TERM_OF[state.cluster] = self._name
        return installed(self, state)

    def confirmed(self: Term, ok: bool, stored: Any, now_ns: int) -> News:
        if not ok or stored is None:
            return News.NONE
        return News.CONFIRMED if _TERM_OF[stored.cluster] == self._name else self._end(stored)

    return [(Term, "_read", starts), (Term, "_installed", noted), (Term, "_confirmed", confirmed)]


@mutant
def orig_gen() -> list[Change]:
    """The generations of a reign that begins empty come from its version alone, not from what was reserved before."""

    def _fresh_range(slot: SlotState, version: int) -> tuple[int, int]:
        first = version // 1_000
        return first, max(first + transitions.GENERATIONS_PER_REIGN, slot.generation_below)

    return [(transitions, "_fresh_range", _fresh_range)]


@mutant
def range_ignored() -> list[Change]:
    """A primary hands out generations beyond those that are reserved for it."""
    grant = Locking._grant

    def changed(self: Locking, data: Any, *rest: Any) -> Any:
        before = self._node.state
        slots = list(before.slots)
        slots[data.number] = msgspec.structs.replace(slots[data.number], generation_below=1 << 52)
        self._node.state = msgspec.structs.replace(before, slots=tuple(slots))
        try:
            return grant(self, data, *rest)
        finally:
            self._node.state = before

    return [(Locking, "_grant", changed)]


@mutant
def range_of_laggards() -> list[Change]:
    """With `async` replication too, a promoted copy goes on in the generations of the reign before."""

    def _inherited_range(slot: SlotState, version: int, lagging: bool) -> tuple[int, int]:
        return slot.generation_from, slot.generation_below

    return [(transitions, "_inherited_range", _inherited_range)]


@mutant
def version_by_clock() -> list[Change]:
    """Versions are what the wall clock shows, also where it was set back."""
    return [(Term, "_version_after", lambda self, version, wall_ns: wall_ns)]


@mutant
def lease_of_config() -> list[Change]:
    """A coordinator waits for leases as long as its own configuration says, not as the stored state says."""
    claim = Term._claim

    def changed(self: Term, stored: Any, now_ns: int, wall_ns: int) -> None:
        claim(self, stored, now_ns, wall_ns)
        self.lease_wait_ns = up(self._timing.coordinator_lease_ns)

    return [(Term, "_claim", changed)]


def _any_epoch() -> list[Change]:
    """What is asked about an earlier epoch of a slot is granted."""
    granted = asks._granted

    def changed(state: Any, slot: SlotState, sender: Any, kind: int, item: Any, version: int) -> SlotState:
        item = msgspec.structs.replace(item, epoch=slot.epoch)
        return granted(state, slot, sender, kind, item, version)

    return [(asks, "_granted", changed)]


def _any_tenure() -> list[Change]:
    """What is asked about an earlier tenure of a copy is granted for its present one."""
    granted = asks._granted

    def changed(state: Any, slot: SlotState, sender: Any, kind: int, item: Any, version: int) -> SlotState:
        for copy in (slot.backup, slot.learner):
            if copy is not None and copy.replica == Replica(item.node, item.incarnation):
                item = msgspec.structs.replace(item, joined=copy.joined)
        return granted(state, slot, sender, kind, item, version)

    return [(asks, "_granted", changed)]


@pair(_any_epoch, _any_tenure)
def ask_by_name() -> None:
    """What nodes ask about a copy names the node only, not the epoch of the slot, nor the copy's tenure.

    Each alone suffices: whatever ends a tenure and begins another changes the epoch.
    """


@mutant
def ring_from_scratch() -> list[Change]:
    """The ring of the new members is made from scratch, not from the ring before."""
    return [
        (
            planning,
            "_target_of",
            lambda settled, state, previous: planning.HashRing(
                {replica.node: weight for replica, weight in settled.items()}
            ),
        )
    ]


@mutant
def drain_by_connection() -> list[Change]:
    """A drain that comes on the connection of the node which it is about is taken for that node's own wish to leave."""
    ask = Roster.ask

    def changed(self: Roster, sender: int, order: Any, *rest: Any) -> Any:
        asker = self.node_of(sender)
        if isinstance(order, Drain) and asker is not None and asker.replica.node == order.node:
            order = Leave(order.request)
        return ask(self, sender, order, *rest)

    return [(Roster, "ask", changed)]


@mutant
def drain_the_last() -> list[Change]:
    """An operator's drain is begun whether or not another node can take the slots."""
    return [(Roster, "_why_not_drain", lambda self, *what: None)]


@mutant
def swap_to_the_gone() -> list[Change]:
    """Slots are left to a member whose connection to the coordinator has ended, until its silence says that it failed."""
    return [(Roster, "is_connected", lambda self, replica: True)]


@mutant
def no_store_pause() -> list[Change]:
    """A store that failed is asked again at once."""
    return [(Term, "_pause", lambda self, pause_ns, now_ns: self.begin(now_ns=now_ns))]


@mutant
def works_by_reading() -> list[Change]:
    """A store whose writes fail counts as working once it can be read."""
    worked = StoreHealth.worked

    def changed(self: StoreHealth, *, is_write: bool, now_ns: int) -> None:
        worked(self, is_write=True, now_ns=now_ns)

    return [(StoreHealth, "worked", changed)]
