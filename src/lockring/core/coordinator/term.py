"""A coordinator's right to write: its term in the store, and everything that is read from there and written to it.

The store holds one state and compares-and-sets it by version. The rules:

- *A term begins with a write.* Read the state, write it back with the own term and a higher version. From then on no
  write of a predecessor can succeed. If somebody else was faster, the coordinator is passive for good.
- *One write at a time.* A write that failed, or whose outcome is unknown, starts the term once more: read, claim. The
  claim raises the version, so the lost write cannot arrive later.
- *A store that fails is asked again after a pause* that grows with each failure; see `store_health`.
- *Confirmation.* A read whose result still bears the term says that no successor had begun when the read was made.
- *Versions only rise*, above the store's, above the wall clock's, and above everything that a node has seen.
- *A store that lost something* shows in that a node has seen a version which is neither the store's past nor this
  term's. Who has which slot is then unknown: all slots wait for every lease to end. It happens once per process: after
  that nobody serves on the strength of what was lost, and it is enough to take a higher version.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from lockring.cluster_state import ClusterState, Replication, SlotState
from lockring.core.coordinator.store_health import StoreHealth
from lockring.core.coordinator.transitions import VERSION_MAX, forgotten, replicated_from_now_on
from lockring.core.effects import Effect, StoreRead, StoreWrite
from lockring.core.farewells import is_trusted
from lockring.core.timing import Timing, up
from lockring.units import NS_PER_MS, NS_PER_S, ms_to_ns

OPERATION_TIMEOUT_NS: Final = 10 * NS_PER_S
"""Time after which a store operation's outcome counts as unknown; a store that slow cannot keep leases going."""

_SILENT: Final = f"the store has not answered for {OPERATION_TIMEOUT_NS // NS_PER_S} s"
_UNREADABLE: Final = "the store cannot be read"
_UNWRITABLE: Final = "a write to the store failed"


class Phase(Enum):
    """Where a term stands."""

    IDLE = "idle"
    READING = "reading"
    CLAIMING = "claiming"
    ACTIVE = "active"
    PASSIVE = "passive"


class News(Enum):
    """What the result of a store operation meant."""

    NONE = "none"
    STARTED = "started"
    RESUMED = "resumed"
    WRITTEN = "written"
    CONFIRMED = "confirmed"
    INTERRUPTED = "interrupted"
    ENDED = "ended"


class Term:
    """The store as one coordinator sees it. Not safe for use by several tasks.

    Attributes:
        phase: where the term stands; only in `ACTIVE` may anything be written or acknowledged.
        state: the newest state that this term has in the store, None before the first.
        lease_wait_ns: how long a node can have the right to serve after its last acknowledgement.
        problem: a sentence on why the term does not go on, "" if it does.
        health: whether the store works.
    """

    def __init__(
        self,
        *,
        address: str,
        name: str,
        cluster_if_new: str,
        timing: Timing,
        new_cluster: bool,
        boot: str,
        replication: Replication,
        effects: list[Effect],
    ) -> None:
        self.phase = Phase.IDLE
        self.state: ClusterState | None = None
        self.lease_wait_ns = up(timing.coordinator_lease_ns)
        self.problem = ""
        self.health = StoreHealth()
        self._address = address
        self._name = name
        self._cluster = cluster_if_new
        self._timing = timing
        self._new_cluster = new_cluster
        self._boot = boot
        self._replication: Replication = replication
        self._effects = effects
        self._operations = 0
        self._current: int | None = None
        self._current_since_ns = 0
        self._writing: ClusterState | None = None
        self._confirming: int | None = None
        self._confirming_since_ns = 0
        self._retry_at_ns: int | None = None
        # What the store was when this process first claimed it.
        self._inherited_version = 0
        self._first_version: int | None = None
        self._cluster_is_chosen_here = False
        self._quarantined = False
        # What nodes have seen.
        self._version_min = 0
        self._lost = False

    # ----------------------------------------------------------------------- asking

    @property
    def is_active(self) -> bool:
        """Whether the term is in the store, as far as is known."""
        return self.phase is Phase.ACTIVE

    @property
    def knows_no_past(self) -> bool:
        """Whether the store had lost something, or everything, when this process found it."""
        return self._quarantined

    @property
    def is_writing(self) -> bool:
        """Whether a new state is on its way to the store."""
        return self._writing is not None

    @property
    def is_confirming(self) -> bool:
        """Whether a confirming read is on its way."""
        return self._confirming is not None

    def version_at(self, wall_ns: int) -> int:
        """The version that a state written now bears."""
        assert self.state is not None
        return self._version_after(self.state.version, wall_ns)

    def is_behind(self, version: int) -> bool:
        """Whether a version that a node has seen shows that the store has lost something."""
        assert self.state is not None
        assert self._first_version is not None
        if version > self.state.version:
            return True
        if self._quarantined or version <= self._inherited_version:
            return False
        return version < self._first_version

    def may_adopt(self, version: int) -> bool:
        """Whether the cluster gets the id of a node that has seen this version of it.

        The store knew of no cluster, nothing is assigned yet, and the node has seen a state: the store was lost.
        """
        assert self.state is not None
        if version == 0 or not self._cluster_is_chosen_here:
            return False
        return all(slot.primary is None for slot in self.state.slots)

    # ----------------------------------------------------------------------- doing

    def begin(self, *, now_ns: int) -> None:
        """Read the store, to claim it with what is there."""
        self.phase = Phase.READING
        self._writing = self._confirming = self._retry_at_ns = None
        self._current = self._number()
        self._current_since_ns = now_ns
        self._effects.append(StoreRead(self._current))

    def begin_above(self, version: int, *, cluster: str = "", now_ns: int) -> None:
        """The store is behind what a node has seen: take a version above, for the node's cluster if one is given."""
        self._version_min = max(self._version_min, version + 1)
        self._lost = True
        if cluster:
            self._cluster = cluster
        self.begin(now_ns=now_ns)

    def write(self, state: ClusterState, *, now_ns: int) -> None:
        """Write the next state; it bears `version_at` and this term."""
        assert self.is_active
        assert self._writing is None
        assert self.state is not None
        assert state.version > self.state.version
        assert state.term == self._name
        self._write(self.state.version, state, now_ns)

    def confirm(self, *, now_ns: int) -> None:
        """Start a confirming read, for everything that has arrived by now."""
        assert self.is_active
        assert self._confirming is None
        self._confirming = self._number()
        self._confirming_since_ns = now_ns
        self._effects.append(StoreRead(self._confirming))

    def next_deadline_ns(self) -> int | None:
        """When to call `on_timer`, None if nothing is on its way."""
        deadlines = []
        if self._retry_at_ns is not None:
            deadlines.append(self._retry_at_ns)
        if self._current is not None:
            deadlines.append(self._current_since_ns + OPERATION_TIMEOUT_NS)
        if self._confirming is not None:
            deadlines.append(self._confirming_since_ns + OPERATION_TIMEOUT_NS)
        return min(deadlines, default=None)

    def on_timer(self, *, now_ns: int) -> News:
        """Give up operations that have no answer, and ask a store again that failed."""
        if self._retry_at_ns is not None and now_ns >= self._retry_at_ns:
            self.begin(now_ns=now_ns)
        elif self._current is not None and now_ns >= self._current_since_ns + OPERATION_TIMEOUT_NS:
            self._failed(_SILENT, is_write=self._writing is not None, now_ns=now_ns)
            self.begin(now_ns=now_ns)
            return News.INTERRUPTED
        elif self._confirming is not None and now_ns >= self._confirming_since_ns + OPERATION_TIMEOUT_NS:
            self._failed(_SILENT, is_write=False, now_ns=now_ns)
            self._confirming = None
        return News.NONE

    # ----------------------------------------------------------------------- results

    def result(
        self,
        operation: int,
        ok: bool,
        state: ClusterState | None,
        problem: str,
        *,
        now_ns: int,
        wall_ns: int,
    ) -> News:
        """Take the result of a store operation; those of operations given up are ignored."""
        if operation == self._confirming:
            self._confirming = None
            if not ok:
                self._failed(problem or _UNREADABLE, is_write=False, now_ns=now_ns)
            return self._confirmed(ok, state, now_ns)
        if operation != self._current:
            return News.NONE
        self._current = None
        if self.phase is Phase.READING:
            if not ok:
                self._pause(self._failed(problem or _UNREADABLE, is_write=False, now_ns=now_ns), now_ns)
            return self._read(ok, state, now_ns, wall_ns)
        written, self._writing = self._writing, None
        assert written is not None
        if ok:
            self.problem = ""
            self.health.worked(is_write=True, now_ns=now_ns)
            return self._installed(written)
        if self.phase is Phase.CLAIMING and state is not None and state.term != self._name:
            return self._end(state)
        if state is None or problem:
            self._pause(self._failed(problem or _UNWRITABLE, is_write=True, now_ns=now_ns), now_ns)
        else:
            self.problem = "the store has another version than was expected"
            self._pause(self.health.refused(), now_ns)
        return News.INTERRUPTED

    def _confirmed(self, ok: bool, stored: ClusterState | None, now_ns: int) -> News:
        assert self.state is not None
        if not ok:
            return News.NONE
        self.health.worked(is_write=False, now_ns=now_ns)
        known = [self.state.version] + ([] if self._writing is None else [self._writing.version])
        if stored is not None and stored.term == self._name and stored.version in known:
            self.problem = ""
            return News.CONFIRMED
        if stored is not None and stored.term != self._name and stored.version > self.state.version:
            return self._end(stored)
        self.begin(now_ns=now_ns)
        return News.INTERRUPTED

    def _read(self, ok: bool, stored: ClusterState | None, now_ns: int, wall_ns: int) -> News:
        if not ok:
            return News.NONE
        self.health.worked(is_write=False, now_ns=now_ns)
        if (
            stored is not None
            and self.state is not None
            and stored.term != self._name
            and stored.version > self.state.version
        ):
            return self._end(stored)
        self._claim(stored or ClusterState(), now_ns, wall_ns)
        return News.NONE

    def _claim(self, stored: ClusterState, now_ns: int, wall_ns: int) -> None:
        self.phase = Phase.CLAIMING
        if self.state is not None and stored.version < self.state.version:
            # The store was set back under this very process: nothing in it can be relied on.
            self._version_min = max(self._version_min, self.state.version + 1)
            self._lost, self._quarantined = True, False
        version = self._version_after(stored.version, wall_ns)
        if self._first_version is None and stored.term != self._name:
            self._inherited_version = stored.version
            self._cluster_is_chosen_here = not stored.cluster
            if stored.version == 0 and not self._new_cluster:
                self._lost = True
        if stored.version:  # an empty store says nothing: its lease is the built-in default, not anybody's
            self.lease_wait_ns = max(self.lease_wait_ns, up(ms_to_ns(stored.coordinator_lease_ms)))
        # Leases are chosen once: whoever waits one out cannot know that somebody else still goes by another length.
        backup_lease_ms = self._timing.backup_lease_ns // NS_PER_MS
        coordinator_lease_ms = self._timing.coordinator_lease_ns // NS_PER_MS
        if stored.version:
            backup_lease_ms, coordinator_lease_ms = stored.backup_lease_ms, stored.coordinator_lease_ms
        slots = stored.slots
        if self._lost and not self._quarantined:
            slots = _each(slots, version)
        elif stored.replication == "async" and self._replication == "sync":
            slots = tuple([replicated_from_now_on(slot) for slot in slots])
        claimed = ClusterState(
            cluster=self._cluster
            if self._cluster_is_chosen_here
            else stored.cluster or self._known_cluster(),
            version=version,
            term=self._name,
            members=stored.members,
            slots=slots,
            replication=self._replication,
            backup_lease_ms=backup_lease_ms,
            coordinator_lease_ms=coordinator_lease_ms,
            coordinator=self._address,
            farewell=stored.farewell
            if is_trusted(stored.farewell, self._boot, now_ns=now_ns, wall_ns=wall_ns)
            else None,
        )
        self._write(stored.version, claimed, now_ns)

    def _known_cluster(self) -> str:
        return self._cluster if self.state is None else self.state.cluster

    def _installed(self, state: ClusterState) -> News:
        before, self.state = self.state, state
        if self.phase is Phase.ACTIVE:
            return News.WRITTEN
        self.phase = Phase.ACTIVE
        if self._lost:
            self._lost, self._quarantined = False, True
        if self._first_version is None:
            self._first_version = state.version
        return News.STARTED if before is None else News.RESUMED

    def _end(self, stored: ClusterState) -> News:
        self.phase = Phase.PASSIVE
        self._current = self._confirming = self._writing = self._retry_at_ns = None
        where = f" at {stored.coordinator}" if stored.coordinator else ""
        self.problem = f"another coordinator{where} has taken over"
        return News.ENDED

    # ----------------------------------------------------------------------- small things

    def _failed(self, reason: str, *, is_write: bool, now_ns: int) -> int:
        """Note a failure of the store, and return for how long to leave it alone."""
        self.problem = reason
        return self.health.failed(reason, is_write=is_write, now_ns=now_ns)

    def _pause(self, pause_ns: int, now_ns: int) -> None:
        """Begin again after a pause."""
        if not pause_ns:
            self.begin(now_ns=now_ns)
            return
        self.phase = Phase.READING
        self._writing = self._confirming = self._current = None
        self._retry_at_ns = now_ns + pause_ns

    def _write(self, expected_version: int, state: ClusterState, now_ns: int) -> None:
        self._writing = state
        self._current = self._number()
        self._current_since_ns = now_ns
        self._effects.append(StoreWrite(self._current, expected_version, state))

    def _version_after(self, version: int, wall_ns: int) -> int:
        return max(version + 1, min(wall_ns, VERSION_MAX), self._version_min)

    def _number(self) -> int:
        self._operations += 1
        return self._operations


def _each(slots: tuple[SlotState, ...], version: int) -> tuple[SlotState, ...]:
    """All slots forgotten; equal ones stay one object."""
    after = {id(slot): forgotten(slot, version) for slot in slots}
    return tuple([after[id(slot)] for slot in slots])
