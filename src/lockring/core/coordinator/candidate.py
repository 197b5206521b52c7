"""A coordinator process: it stands by while another one leads, and decides while it leads.

- It *decides* as a `CoordinatorCore`, one for each lead. Each has a term of its own, so nothing of a former lead can be
  mistaken for the present one's: results of store operations go to the core that began them, or nowhere.
- It *stands by* at a `StandbyDesk`. The store is read once a second, for clients and for people.
- It ends a lead when the store names another leader, or when its core finds that its term is over. Every connection
  ends with it: nodes and clients find the leader again by dialing.
- It *remembers* the newest version that it has read or written, over all leads: a store that does not account for it
  when a lead begins has lost something, and is not relied on.
- It *fails* for good when it reads that the cluster has left the store, whether it leads or stands by.

A store that is not shared names no leader: its one coordinator leads from the start, and a term that is over stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from lockring.cluster_state import ClusterState, Relocation
from lockring.core.access import UNCHECKED, Newcomer
from lockring.core.coordinator.core import CoordinatorCore
from lockring.core.coordinator.leadership import LEAD_MS, Leadership
from lockring.core.coordinator.standby import StandbyDesk
from lockring.core.coordinator.status import CoordinatorStatus, standby_status
from lockring.core.coordinator.store_health import StoreNews
from lockring.core.coordinator.store_operations import OPERATION_TIMEOUT_NS
from lockring.core.coordinator.store_past import NewestVersion, abandoned
from lockring.core.effects import (
    Close,
    Effect,
    Fail,
    Note,
    StoreCampaign,
    StoreRead,
    StoreResign,
    StoreWrite,
)
from lockring.core.election import Candidate, Election
from lockring.ids import ConnectionId, OperationNumber, TermId
from lockring.protocol import Message
from lockring.units import NS_PER_S

READ_NS: Final = NS_PER_S
"""How often a coordinator that stands by reads the state."""


class MakeCore(Protocol):
    """Makes the machine that decides during one lead."""

    def __call__(self, term: TermId, *, now_ns: int, wall_ns: int) -> CoordinatorCore:
        """Return the machine.

        Args:
            term: name of its term.
            now_ns: the monotonic clock, in nanoseconds.
            wall_ns: the wall clock, in nanoseconds.
        """


class CandidateCore:
    """The machine of a coordinator process. See `core.machine` for how a shell drives it. Not safe for several tasks.

    Args:
        address: HOST:PORT at which nodes and clients reach it.
        store: the store, for people.
        is_shared: whether the store names a leader among several coordinators.
        new_term: returns a random name for a term, another one at each call.
        make_core: makes the machine that decides while this process leads.
        lead_ms: how long a lead lasts that is not renewed, in milliseconds.
        now_ns: the monotonic clock, in nanoseconds.
        wall_ns: the wall clock, in nanoseconds.
    """

    def __init__(
        self,
        *,
        address: str,
        store: str = "",
        is_shared: bool,
        new_term: Callable[[], TermId],
        make_core: MakeCore,
        lead_ms: int = LEAD_MS,
        now_ns: int,
        wall_ns: int,
    ) -> None:
        self._is_shared = is_shared
        self._make_core = make_core
        self._effects: list[Effect] = []
        self._leadership = Leadership(address, new_term, lead_ms=lead_ms, now_ns=now_ns)
        self._desk = StandbyDesk(address, store, self._effects, now_ns=now_ns)
        self._decider: CoordinatorCore | None = None
        self._connections: dict[ConnectionId, None] = {}
        self._operations = _Operations()
        self._reads = _StandbyReads(now_ns)
        self._wall_offset_ns = wall_ns - now_ns
        self._has_failed = False
        self._newest = NewestVersion()

    # ----------------------------------------------------------------------- queries

    @property
    def deciding(self) -> CoordinatorCore | None:
        """The machine that decides, None while this process stands by. Read it only."""
        return self._decider

    @property
    def candidate(self) -> Candidate:
        """The name of the present or next term, with the address of this coordinator."""
        return self._leadership.candidate

    @property
    def election(self) -> Election:
        """The coordinators, as far as this one knows."""
        return self._leadership.election

    @property
    def has_farewells(self) -> bool:
        """Whether nodes that stop have reported promises that are not in the store yet."""
        return self._decider is not None and self._decider.farewells.is_open

    def take_store_news(self) -> list[StoreNews]:
        """Hand out the lines for the log about the store since the last call, in order, and forget them."""
        # A leader reads and writes too, and reports that.
        of_campaigns = self._leadership.health.take_news()
        return of_campaigns if self._decider is None else self._decider.take_store_news()

    def status(self, *, now_ns: int) -> CoordinatorStatus:
        """Return a snapshot for people."""
        if self._decider is not None:
            return self._decider.status(now_ns=now_ns)
        return standby_status(self._desk.note, self._desk.version)

    def check_invariants(self) -> None:
        """Assert what must hold after every input. For tests and the simulation.

        Raises:
            AssertionError: a bug.
        """
        if self._decider is not None:
            self._decider.check_invariants()
            assert self._leadership.is_leading or not self._is_shared

    # ----------------------------------------------------------------------- inputs

    def set_wall_clock(self, *, wall_ns: int, now_ns: int) -> None:
        """Set what the wall clock shows at `now_ns`. Call it before any input if the clock may have been set."""
        self._wall_offset_ns = wall_ns - now_ns
        if self._decider is not None:
            self._decider.set_wall_clock(wall_ns=wall_ns, now_ns=now_ns)

    def start(self, *, now_ns: int) -> None:
        """Begin to campaign, or to lead where the store is not shared. Call this once, before all other inputs."""
        if not self._is_shared:
            self._lead(now_ns)

    def connected(self, connection: ConnectionId, /, *, newcomer: Newcomer = UNCHECKED, now_ns: int) -> None:
        """Note an accepted connection. Its first message shows whether it is a node's or a client's.

        Args:
            connection: the connection.
            newcomer: its rights as a client's, and the nodes that its other side may be.
            now_ns: the monotonic clock, in nanoseconds.
        """
        self._connections[connection] = None
        if self._decider is not None:
            self._decider.connected(connection, newcomer=newcomer, now_ns=now_ns)
        else:
            self._desk.connected(connection, newcomer)

    def receive(self, sender: ConnectionId, message: Message, /, *, now_ns: int) -> None:
        """Handle a message; one that comes after this machine has closed the connection is ignored."""
        if sender not in self._connections:
            return
        if self._decider is not None:
            self._decider.receive(sender, message, now_ns=now_ns)
            self._end_if_over(now_ns)
        else:
            self._desk.receive(sender, message, now_ns=now_ns)

    def disconnected(self, sender: ConnectionId, /, *, now_ns: int) -> None:
        """Note that a connection has ended. Unknown ones are ignored."""
        if sender in self._connections:
            del self._connections[sender]
            self._desk.drop(sender)
            if self._decider is not None:
                self._decider.disconnected(sender, now_ns=now_ns)

    def store_result(
        self,
        operation: OperationNumber,
        *,
        ok: bool,
        state: ClusterState | None,
        problem: str = "",
        now_ns: int,
    ) -> None:
        """Handle the result of a `StoreRead` or `StoreWrite`. See `CoordinatorCore.store_result`."""
        if state is not None:
            self._newest.learn(state)
        begun_ns = self._reads.begun_ns
        if self._reads.end(operation):
            if ok:
                self._desk.learn(state, at_ns=begun_ns)
                if state is not None and state.relocation is not None:
                    self._effects.append(StoreResign(self._leadership.candidate.term))
                    self._fail(state.relocation)
            return
        number = self._operations.take(operation, self._decider)
        if number is not None and self._decider is not None:
            self._decider.store_result(number, ok=ok, state=state, problem=problem, now_ns=now_ns)
            self._end_if_over(now_ns)

    def election_result(
        self, operation: OperationNumber, election: Election | None, *, problem: str = "", now_ns: int
    ) -> None:
        """Handle the result of a `StoreCampaign`.

        Args:
            operation: the effect's number.
            election: the coordinators after it; None if that is unknown.
            problem: why it is unknown.
            now_ns: the monotonic clock, in nanoseconds.
        """
        was_led_by = self._leadership.election.leader
        if self._has_failed:
            return
        if not self._leadership.take_result(operation, election, problem, now_ns):
            return
        leader = self._leadership.election.leader
        if self._leadership.is_leading and self._decider is None:
            self._lead(now_ns)
        elif self._decider is not None and election is not None and not self._leadership.is_leading:
            self._stand_by(now_ns)
        elif self._decider is None and leader is not None and leader != was_led_by:
            self._note_leader(leader)
        self._tell_election()

    def next_deadline_ns(self) -> int | None:
        """Return when to call `on_timer`, None if never."""
        deadlines = [] if self._decider is None else [self._decider.next_deadline_ns()]
        if self._is_shared and not self._has_failed:
            deadlines.append(self._leadership.next_deadline_ns())
            if self._decider is None:
                deadlines.append(self._reads.due_ns)
        return min((each for each in deadlines if each is not None), default=None)

    def on_timer(self, *, now_ns: int) -> None:
        """Do what is due at `next_deadline_ns`. Calling it earlier or later is harmless."""
        if self._decider is not None:
            self._decider.on_timer(now_ns=now_ns)
            self._end_if_over(now_ns)

    def take_effects(self, *, now_ns: int) -> list[Effect]:
        """Begin due campaigns, reads and writes, and return all effects since the last call."""
        if self._is_shared and not self._has_failed:
            self._campaign_if_due(now_ns)
        if self._decider is not None:
            self._take_from_decider(now_ns)
        elif self._is_shared and not self._has_failed and now_ns >= self._reads.due_ns:
            number = self._operations.take_number()
            self._reads.begin(number, now_ns)
            self._effects.append(StoreRead(number))
        effects, self._effects[:] = self._effects[:], []
        return effects

    # ----------------------------------------------------------------------- leading and standing by

    def _lead(self, now_ns: int) -> None:
        """Begin to decide under the term of the candidate."""
        self._reads.give_up()
        self._close_all("this coordinator leads now: connect again")
        self._leadership.has_led = False
        term = self._leadership.candidate.term
        self._decider = self._make_core(term, now_ns=now_ns, wall_ns=now_ns + self._wall_offset_ns)
        self._decider.start(newest=self._newest.version, now_ns=now_ns)
        if self._is_shared:
            self._effects.append(Note("leads", f"this coordinator leads, under term {term}"))

    def _end_if_over(self, now_ns: int) -> None:
        """End a lead whose term is over."""
        if self._decider is None or not self._decider.is_over:
            return
        relocation = self._decider.relocation
        if self._is_shared:
            self._effects.append(StoreResign(self._leadership.candidate.term))
            self._stand_by(now_ns)
        if relocation is not None:
            self._fail(relocation)

    def _stand_by(self, now_ns: int) -> None:
        """Decide nothing more."""
        assert self._decider is not None
        self._decider.step_down(now_ns=now_ns)
        self._take_from_decider(now_ns)
        self._newest.hear(self._decider.newest)
        self._desk.learn(self._decider.state, at_ns=now_ns - self._decider.age_ns(now_ns))
        self._decider = None
        self._close_all("this coordinator leads no more: connect to the one that does")
        self._leadership.renounce(now_ns)
        self._reads = _StandbyReads(now_ns)
        leader = self._leadership.election.leader
        if leader is not None:
            self._note_leader(leader)
        self._tell_election()

    def _note_leader(self, leader: Candidate) -> None:
        """Say which coordinator leads, and whether it follows this one."""
        if self._leadership.has_led:
            event, text = "leads-no-more", f"this coordinator leads no more: the one at {leader.address} does"
        else:
            event, text = "stands-by", f"the coordinator at {leader.address} leads; this one stands by"
        self._effects.append(Note(event, text, is_warning=self._leadership.has_led))
        self._leadership.has_led = False

    def _fail(self, relocation: Relocation) -> None:
        """Decide nothing more, and campaign no more: the cluster has left the store."""
        if self._has_failed:
            return
        self._has_failed = True
        self._desk.note = abandoned(relocation)
        self._effects.append(Fail(self._desk.note))

    def _close_all(self, reason: str) -> None:
        for connection in self._connections:
            self._effects.append(Close(connection, reason))
            self._desk.drop(connection)
        self._connections.clear()

    def _tell_election(self) -> None:
        """Let both faces of this process show the coordinators as they are now."""
        election = self._leadership.election
        trouble = self._leadership.health.trouble
        self._desk.election, self._desk.trouble = election, trouble
        if self._leadership.problem:
            self._desk.note = self._leadership.problem
        elif election.leader is None:
            self._desk.note = "no coordinator leads at present"
        else:
            self._desk.note = f"the coordinator at {election.leader.address} leads, and this one stands by"
        if self._decider is not None:
            self._decider.note_election(election, trouble)

    # ----------------------------------------------------------------------- the store

    def _campaign_if_due(self, now_ns: int) -> None:
        if self._leadership.is_due(now_ns):
            number = self._operations.take_number()
            self._leadership.begin(number, now_ns)
            self._effects.append(StoreCampaign(number, self._leadership.candidate, self._leadership.lead_ms))

    def _take_from_decider(self, now_ns: int) -> None:
        """Take the effects of the machine that decides, with its operations under numbers of this process."""
        core = self._decider
        assert core is not None
        for effect in core.take_effects(now_ns=now_ns):
            match effect:
                case StoreRead(operation) | StoreWrite(operation, _, _):
                    number = self._operations.assign(core, operation)
                    self._effects.append(effect._replace(operation=number))
                case _:
                    self._effects.append(effect)


class _StandbyReads:
    """The reads of a coordinator that stands by: one at a time, each second.

    Args:
        now_ns: when the first one is due, by the monotonic clock.
    """

    def __init__(self, now_ns: int) -> None:
        self._due_ns = now_ns
        self._open: tuple[OperationNumber, int] | None = None

    @property
    def due_ns(self) -> int:
        """When the next read is due; one without an answer so far is given up then."""
        return self._due_ns if self._open is None else self._open[1] + OPERATION_TIMEOUT_NS

    @property
    def begun_ns(self) -> int:
        """When the read under way has begun, or the next one is due."""
        return self._due_ns if self._open is None else self._open[1]

    def begin(self, operation: OperationNumber, now_ns: int) -> None:
        """Note that a read begins."""
        self._open = operation, now_ns
        self._due_ns = now_ns + READ_NS

    def end(self, operation: OperationNumber) -> bool:
        """End the read under way if it is this operation; return whether it was."""
        if self._open is None or self._open[0] != operation:
            return False
        self.give_up()
        return True

    def give_up(self) -> None:
        """Expect no answer any longer."""
        self._open = None


class _Operations:
    """The numbers of store operations in one process, and the machines that they belong to."""

    def __init__(self) -> None:
        self._count = OperationNumber(0)
        self._open: dict[OperationNumber, tuple[CoordinatorCore, OperationNumber]] = {}

    def take_number(self) -> OperationNumber:
        """Take the next number."""
        self._count = OperationNumber(self._count + 1)
        return self._count

    def assign(self, core: CoordinatorCore, operation: OperationNumber) -> OperationNumber:
        """Give a machine's own operation a number in this process."""
        number = self.take_number()
        self._open[number] = core, operation
        return number

    def take(self, number: OperationNumber, present: CoordinatorCore | None) -> OperationNumber | None:
        """End an operation: give its machine's own number, None if that machine decides no more."""
        core, operation = self._open.pop(number, (None, number))
        return operation if core is present and core is not None else None
