"""A coordinator's right to write: its term in the store, and all reads and writes of the store.

The store holds one state, and compares and sets it by version. The rules:

- *A term begins with a write.* Read the state, write it back with the own term and a higher version. From then on no
  write of a predecessor can succeed. If another coordinator was faster, this one is passive for good.
- *One write at a time.* A write that failed, or whose outcome is unknown, starts the term once more: read, claim. The
  claim raises the version, so the lost write cannot arrive later.
- *A store that fails is tried again after a pause* that grows with each failure; see `store_health`.
- *Confirmation.* A read whose result still bears the term says that no successor had begun when the read was made.
- *Versions only rise*, above the store's, above the wall clock's, above everything that a node has seen, and above all
  generations that are reserved, so that a state's version bounds the tokens that were given under it.
- *A store that lost something* is claimed with all slots forgotten; see `store_past`.
- *A store that the cluster has left* is never claimed: the coordinator that decides now has another one.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple
from zlib import crc32

from lockring.cluster_state import (
    SKIPPED_MAX,
    ClusterState,
    Relocation,
    Replica,
    Replication,
    SlotState,
)
from lockring.core.coordinator.store_health import StoreHealth, StoreReport, StoreTrouble
from lockring.core.coordinator.store_operations import SILENT, StoreOperations
from lockring.core.coordinator.store_past import Loss, NewestVersion, StorePast, abandoned
from lockring.core.coordinator.transitions import (
    VERSION_MAX,
    forgotten,
    replicated_from_now_on,
    version_above_reserved,
)
from lockring.core.effects import Effect, Note
from lockring.core.election import Election
from lockring.core.farewells import is_trusted
from lockring.core.timing import Timing, up
from lockring.ids import NO_CLUSTER, NO_VERSION, ClusterId, OperationNumber, TermId, Version
from lockring.units import NS_PER_MS, NS_PER_S, ms_to_ns

_LAPSED: Final = "the lead of this coordinator has ended"
"""Otherwise a store refuses no write that expects the version that it has."""
_UNREADABLE: Final = "the store cannot be read"
_UNWRITABLE: Final = "a write to the store failed"


class Phase(Enum):
    """The phases of a term."""

    IDLE = "idle"
    READING = "reading"
    CLAIMING = "claiming"
    ACTIVE = "active"
    PASSIVE = "passive"


class News(Enum):
    """The meaning of a store operation's result."""

    NONE = "none"
    STARTED = "started"
    RESUMED = "resumed"
    WRITTEN = "written"
    CONFIRMED = "confirmed"
    INTERRUPTED = "interrupted"
    ENDED = "ended"


class TermSettings(NamedTuple):
    """The settings that a coordinator writes into the state with its term.

    Attributes:
        address: HOST:PORT at which nodes and clients reach it.
        name: the term: random, unique to this start of the process.
        cluster_if_new: random id for the cluster if the store has none.
        timing: durations; a new cluster's leases are chosen by them.
        new_cluster: whether an empty store means a new cluster, rather than one that was lost.
        boot: id of this boot of the machine, if the store is as its last coordinator left it; else "".
        replication: "sync" or "async".
        store: the store, for people.
        is_shared: whether other coordinators share it.
    """

    address: str
    name: TermId
    cluster_if_new: ClusterId
    timing: Timing
    new_cluster: bool
    boot: str
    replication: Replication
    store: str = ""
    is_shared: bool = False


class Term:
    """The store as one coordinator sees it. Not safe for use by several tasks.

    Args:
        settings: values for the state.
        effects: the coordinator's effects, to which operations on the store are appended.

    Attributes:
        phase: the phase of the term; only in `ACTIVE` may anything be written or acknowledged.
        state: the newest state that this term has in the store, None before the first.
        lease_wait_ns: how long a node can have the right to serve after its last acknowledgement.
        deposed: lives of nodes from which the write under way takes slots; they are not acknowledged meanwhile.
        problem: a sentence on why the term makes no progress, "" if it does.
        health: the store's record of failures.
        election: the coordinators of a shared store, for people.
        campaign_trouble: the trouble of a shared store that does not say which coordinator leads, None if it does.
    """

    def __init__(self, settings: TermSettings, effects: list[Effect]) -> None:
        self.phase = Phase.IDLE
        self.state: ClusterState | None = None
        self.lease_wait_ns = up(settings.timing.coordinator_lease_ns)
        self.deposed: frozenset[Replica] = frozenset()
        self.problem = ""
        self.health = StoreHealth()
        self.election = Election(None)
        self.campaign_trouble: StoreTrouble | None = None
        self._settings = settings
        self._cluster = settings.cluster_if_new
        self._operations = StoreOperations(effects)
        self._past = StorePast()

    # ----------------------------------------------------------------------- queries

    @property
    def name(self) -> TermId:
        """The name of the term, as in the state."""
        return self._settings.name

    @property
    def store_report(self) -> StoreReport:
        """Knowledge of the store, for people."""
        trouble = self.health.trouble or self.campaign_trouble
        return StoreReport(self._settings.store, self.election, trouble)

    @property
    def address(self) -> str:
        """HOST:PORT at which nodes and clients reach this coordinator."""
        return self._settings.address

    @property
    def is_shared(self) -> bool:
        """Whether other coordinators share the store."""
        return self._settings.is_shared

    @property
    def is_active(self) -> bool:
        """Whether the term is in the store, as far as is known."""
        return self.phase is Phase.ACTIVE

    @property
    def knows_no_past(self) -> bool:
        """Whether the store had lost something, or everything, when this process found it."""
        return self._past.is_quarantined

    @property
    def newest(self) -> Version:
        """The newest version that is known to have been in the store, from this process or from a node."""
        return max(self._past.newest.version, self._past.lost)

    @property
    def found(self) -> ClusterState:
        """The state of the store just before this term claimed it last."""
        return self._past.found

    @property
    def loss(self) -> Loss | None:
        """The newest loss of the store that made all slots wait, None if there was none."""
        return self._past.loss

    @property
    def relocation(self) -> Relocation | None:
        """The mark that the cluster has left this store, None if it has not."""
        return self._past.relocation

    @property
    def is_writing(self) -> bool:
        """Whether the write of a new state is under way."""
        return self._operations.writing is not None

    @property
    def is_confirming(self) -> bool:
        """Whether a confirming read is under way."""
        return self._operations.confirming is not None

    def version_at(self, wall_ns: int) -> Version:
        """Return the version that a state written now bears."""
        assert self.state is not None
        return self._version_after(self.state, wall_ns)

    def is_behind(self, version: Version) -> bool:
        """Return whether a version that a node has seen shows that the store has lost something."""
        assert self.state is not None
        known = self.state.version
        if version < known:
            return self.state.has_skipped(version) or self._past.own.lack(version)
        return version > known

    def may_adopt(self, version: Version) -> bool:
        """Return whether the cluster takes over the id that a node brings which has seen this version.

        It does if the store knew no cluster, no slot is assigned, and the node has seen a state: the store was lost.
        """
        assert self.state is not None
        if version == 0 or not self._past.cluster_is_chosen_here:
            return False
        return all(slot.primary is None for slot in self.state.slots)

    def next_deadline_ns(self) -> int | None:
        """Return when to call `on_timer`, None if nothing is under way."""
        return self._operations.next_deadline_ns()

    # ----------------------------------------------------------------------- commands

    def begin(self, *, now_ns: int) -> None:
        """Read the store, in order to claim it."""
        self.phase = Phase.READING
        self.deposed = frozenset()
        self._operations.read(now_ns)

    def know(self, version: Version) -> None:
        """Note a version that this process has read or written before this term. Call it before `begin`."""
        self._past.newest.hear(version)

    def begin_above(self, version: Version, *, cluster: ClusterId = NO_CLUSTER, now_ns: int) -> None:
        """Claim the store with a version above what a node has seen, for the node's cluster if one is given."""
        self._past.see(version, NO_VERSION if self.state is None else self.state.version)
        if cluster:
            self._cluster = cluster
        self.begin(now_ns=now_ns)

    def write(self, state: ClusterState, deposed: frozenset[Replica], *, now_ns: int) -> None:
        """Write the next state.

        Args:
            state: the state, with the version of `version_at` and this term.
            deposed: lives of nodes from which it takes slots.
            now_ns: the monotonic clock, in nanoseconds.
        """
        assert self.is_active
        assert not self.is_writing
        assert self.state is not None
        assert state.version > self.state.version
        assert state.term == self.name
        self.deposed = deposed
        self._operations.write(self.state.version, state, now_ns)

    def confirm(self, *, now_ns: int) -> None:
        """Start a confirming read, for all heartbeats that have arrived so far."""
        assert self.is_active
        assert not self.is_confirming
        self._operations.confirm(now_ns)

    def take_warnings(self) -> list[Note]:
        """Hand out the lines for the log about losses of the store since the last call, for an operator to act on."""
        loss = self._past.take_loss()
        if loss is None:
            return []
        place = self._settings.store or "the store"
        text = f"{place} cannot be relied on: {loss.account}. {_of_wait(self.lease_wait_ns)}"
        return [Note("store-lost-state", text, is_warning=True)]

    def step_down(self, reason: str) -> None:
        """End the term, for good.

        Args:
            reason: a sentence for people.
        """
        self.phase = Phase.PASSIVE
        self.deposed = frozenset()
        self._operations.give_up()
        self.problem = reason

    def on_timer(self, *, now_ns: int) -> News:
        """Give up operations without an answer, and try a failed store again. Return what that means."""
        operations = self._operations
        if operations.retry_at_ns is not None and now_ns >= operations.retry_at_ns:
            self.begin(now_ns=now_ns)
        elif operations.current is not None and operations.current.is_overdue(now_ns):
            self._failed(SILENT, is_write=self.is_writing, now_ns=now_ns)
            self.begin(now_ns=now_ns)
            return News.INTERRUPTED
        elif operations.confirming is not None and operations.confirming.is_overdue(now_ns):
            self._failed(SILENT, is_write=False, now_ns=now_ns)
            operations.confirming = None
        return News.NONE

    # ----------------------------------------------------------------------- results

    def take_result(
        self,
        operation: OperationNumber,
        ok: bool,
        state: ClusterState | None,
        problem: str,
        *,
        now_ns: int,
        wall_ns: int,
    ) -> News:
        """Handle the result of a store operation, and return its meaning; one that was given up is ignored."""
        operations = self._operations
        if operations.confirming is not None and operation == operations.confirming.number:
            operations.confirming = None
            if not ok:
                self._failed(problem or _UNREADABLE, is_write=False, now_ns=now_ns)
            return self._confirmed(ok, state, now_ns)
        if operations.current is None or operation != operations.current.number:
            return News.NONE
        operations.current = None
        if self.phase is Phase.READING:
            if not ok:
                self._pause(self._failed(problem or _UNREADABLE, is_write=False, now_ns=now_ns), now_ns)
            return self._read(ok, state, now_ns, wall_ns)
        written, operations.writing = operations.writing, None
        assert written is not None
        if ok:
            self.problem = ""
            self.health.worked(is_write=True, now_ns=now_ns)
            return self._installed(written)
        # The store has changed since the claim's read, so another coordinator is active. An active term reads again
        # first: a store that was set back shows another term too.
        before = self._past.found if self.phase is Phase.CLAIMING or self.state is None else self.state
        is_unchanged = state is not None and state.version == before.version
        if self.phase is Phase.CLAIMING and state is not None and state.term != self.name:
            if is_unchanged:
                self.step_down(f"{_LAPSED}, before its term was in the store")
                return News.ENDED
            return self._end(state)
        if state is None or problem:
            self._pause(self._failed(problem or _UNWRITABLE, is_write=True, now_ns=now_ns), now_ns)
        else:
            self.problem = _LAPSED if is_unchanged else "the store has another version than was expected"
            self._pause(self.health.refused(), now_ns)
        return News.INTERRUPTED

    def _confirmed(self, ok: bool, stored: ClusterState | None, now_ns: int) -> News:
        assert self.state is not None
        if not ok:
            return News.NONE
        self.health.worked(is_write=False, now_ns=now_ns)
        writing = self._operations.writing
        # A write under way may be in the store already, although its result has not arrived.
        known = [self.state.version] + ([] if writing is None else [writing.version])
        if stored is not None and stored.term == self.name and stored.version in known:
            self.problem = ""
            return News.CONFIRMED
        if stored is not None and stored.term != self.name and stored.version > self.state.version:
            return self._end(stored)
        self.begin(now_ns=now_ns)
        return News.INTERRUPTED

    def _read(self, ok: bool, stored: ClusterState | None, now_ns: int, wall_ns: int) -> News:
        if not ok:
            return News.NONE
        self.health.worked(is_write=False, now_ns=now_ns)
        if stored is not None and stored.relocation is not None:
            return self._end(stored)
        if (
            stored is not None
            and self.state is not None
            and stored.term != self.name
            and stored.version > self.state.version
        ):
            return self._end(stored)
        self._claim(stored or ClusterState(), now_ns, wall_ns)
        return News.NONE

    def _claim(self, stored: ClusterState, now_ns: int, wall_ns: int) -> None:
        self.phase = Phase.CLAIMING
        settings, past = self._settings, self._past
        if not past.newest.is_accounted_for(stored):
            past.record_older(past.newest.version, stored.version)
        past.newest.learn(stored)
        version = self._first_version_after(stored, wall_ns)
        past.record_found(stored, is_own=stored.term == self.name, may_be_empty=settings.new_cluster)
        # Leases are chosen once: a node that waits one out cannot know that another one still uses a different length.
        backup_lease_ms = settings.timing.backup_lease_ns // NS_PER_MS
        coordinator_lease_ms = settings.timing.coordinator_lease_ns // NS_PER_MS
        # An empty store says nothing: its lease is the built-in default, which no node was given.
        if stored.version:
            backup_lease_ms, coordinator_lease_ms = stored.backup_lease_ms, stored.coordinator_lease_ms
            self.lease_wait_ns = max(self.lease_wait_ns, up(ms_to_ns(stored.coordinator_lease_ms)))
        slots = stored.slots
        if past.has_lost and not past.is_quarantined:
            slots = _forgotten(slots, version)
        elif stored.replication == "async" and settings.replication == "sync":
            slots = tuple([replicated_from_now_on(slot) for slot in slots])
        is_farewell_trusted = is_trusted(stored.farewell, settings.boot, now_ns=now_ns, wall_ns=wall_ns)
        claimed = ClusterState(
            cluster=self._cluster if past.cluster_is_chosen_here else stored.cluster or self._known_cluster(),
            version=version,
            term=self.name,
            members=stored.members,
            slots=slots,
            replication=settings.replication,
            backup_lease_ms=backup_lease_ms,
            coordinator_lease_ms=coordinator_lease_ms,
            coordinator=settings.address,
            farewell=stored.farewell if is_farewell_trusted else None,
            skipped=self._skipped(stored, version),
        )
        self._operations.write(stored.version, claimed, now_ns)

    def _skipped(self, stored: ClusterState, version: Version) -> tuple[tuple[Version, Version], ...]:
        """Return the ranges of versions that were skipped, with that between the state found and this term's first.

        A state whose slots are all forgotten takes everything into account that was lost before it.
        """
        if self._past.has_lost:
            return ()
        if stored.term == self.name:
            return stored.skipped
        return (*stored.skipped, (stored.version, version))[-SKIPPED_MAX:]

    def _known_cluster(self) -> ClusterId:
        return self._cluster if self.state is None else self.state.cluster

    def _installed(self, state: ClusterState) -> News:
        before, self.state = self.state, state
        self._past.newest = NewestVersion(state.version)
        self.deposed = frozenset()
        if self.phase is Phase.ACTIVE:
            self._past.own.add(state.version)
            return News.WRITTEN
        self.phase = Phase.ACTIVE
        self._past.claimed()
        self._past.own.add(state.version)
        return News.STARTED if before is None else News.RESUMED

    def _end(self, stored: ClusterState) -> News:
        if stored.relocation is not None:
            self._past.relocation = stored.relocation
            self.step_down(abandoned(stored.relocation))
            return News.ENDED
        where = f" at {stored.coordinator}" if stored.coordinator else ""
        self.step_down(f"another coordinator{where} has taken over")
        return News.ENDED

    # ----------------------------------------------------------------------- small things

    def _failed(self, reason: str, *, is_write: bool, now_ns: int) -> int:
        """Note a failure of the store, and return how long to leave it alone."""
        self.problem = reason
        return self.health.failed(reason, is_write=is_write, now_ns=now_ns)

    def _pause(self, pause_ns: int, now_ns: int) -> None:
        """Begin once more after a pause."""
        if not pause_ns:
            self.begin(now_ns=now_ns)
            return
        self.phase = Phase.READING
        self.deposed = frozenset()
        self._operations.retry_at(now_ns + pause_ns)

    def _version_after(self, state: ClusterState, wall_ns: int) -> Version:
        version_min = max(state.version + 1, version_above_reserved(state), self._past.version_min)
        return Version(max(version_min, min(wall_ns, VERSION_MAX)))

    def _first_version_after(self, stored: ClusterState, wall_ns: int) -> Version:
        """Return the version of this term's first state after one that it has found in the store.

        The store may have lost states that no process here knows of, and that nodes will bring later. Where the clock
        does not give the version, they went on by the same count. So this one lies a step of its own further: hardly
        any number of a lost state is given again, and the others show what they are (`is_behind`).
        """
        version, lost = self._version_after(stored, wall_ns), self._past.lost
        is_first = stored.term != self.name or self._past.has_lost
        if not is_first or version <= wall_ns or version >= VERSION_MAX:
            return version
        return Version(version + own_step_ns(self.name, max(stored.version, lost)))


def own_step_ns(term: TermId, version: Version) -> int:
    """Return a step of up to 1.1 s that hardly any other term makes from the same version: its name is random."""
    return crc32(f"{term}/{version}".encode()) >> 2


def _forgotten(slots: tuple[SlotState, ...], version: Version) -> tuple[SlotState, ...]:
    """Return all slots as forgotten; equal ones stay one object."""
    after = {id(slot): forgotten(slot, version) for slot in slots}
    return tuple([after[id(slot)] for slot in slots])


def _of_wait(lease_wait_ns: int) -> str:
    """Return what follows from a loss of the store, and what to do."""
    return (
        f"Locks that were held may be held still, so no lock is granted for up to {lease_wait_ns / NS_PER_S:.1f} s, until"
        " every earlier lease has ended; they are not taken over. After that the cluster goes on by itself. Find the cause:"
        " a backup that was put back, a deleted row or key, or a replica without the newest writes"
    )
