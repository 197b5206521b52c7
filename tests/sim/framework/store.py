"""The coordinators' store: the real one in memory, reached over a link that may stall or be cut.

An operation takes effect at some moment between its call and long after the caller gave up on it, or never: the
caller then gets an unknown outcome.

Each coordinator has one operation under way, as its real worker has (`server.store_worker`): the others wait in line, a
campaign before reads, and reads and campaigns that the core has given up are not begun.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from lockring.cluster_state import ClusterState
from lockring.core.coordinator.store_operations import OPERATION_TIMEOUT_NS
from lockring.core.election import Candidate, Election
from lockring.store.memory import MemoryStore
from tests.sim.framework.world import MS, Process, S, World

Answer = Callable[[int, bool, ClusterState | None], None]
Act = Callable[[], Callable[[], None]]
"""Does the work of an operation in the store, and returns the answer to give."""
Watcher = Callable[[ClusterState | None, ClusterState | None], None]

Outcome = Literal["done", "late", "lost"]
Kind = Literal["read", "campaign", "other"]
"""The kinds of operations that stand at different places in the line."""

_MOMENTS_MAX = 50


class _Moment(NamedTuple):
    """The whole content of the store at one moment."""

    state: ClusterState
    leader: Candidate | None
    until_ns: dict[Candidate, int]


class SimStore:
    """The stored state, as one place that never fails by itself.

    Attributes:
        on_change: called after each write (or wipe) with the state before and after.
        slow: probability that an operation takes up to `slow_max`.
        unknown: probability that the outcome of an operation is unknown.
        outcomes: the fates of such an operation, each as likely: done without an answer, done late, or lost on its way.
        full: whether all writes fail, at once, while reads work.
        campaigns_unanswered: whether campaigns take effect without an answer.
        write_delay: how much longer a write takes.
        read_delay: how much longer a read takes.
        answer_delay: how much longer the answer to a read takes, by coordinator.
        is_shared: whether it names a leader among the coordinators.
        in_line: whether the operations of a coordinator wait for one another. Its core does not rely on that.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.on_change: Watcher = lambda before, after: None
        self.slow = 0.0
        self.slow_max = 2 * S
        self.unknown = 0.0
        self.outcomes: tuple[Outcome, ...] = ("done", "late", "lost")
        self.full = False
        self.campaigns_unanswered = False
        self.write_delay = 0
        self.read_delay = 0
        self.answer_delay: dict[str, int] = {}
        self.timeout = 2 * S
        self.is_shared = False
        self.in_line = True
        self._memory = MemoryStore(clock_ns=lambda: world.now)
        self._moments: deque[_Moment] = deque(maxlen=_MOMENTS_MAX)
        self._rng = world.rng("store")
        self._lines: dict[str, _Line] = {}
        self._cut_until: dict[str, int] = {}

    @property
    def state(self) -> ClusterState | None:
        """The present content."""
        return self._memory._state

    @state.setter
    def state(self, state: ClusterState | None) -> None:
        self._memory._state = state

    @property
    def leader(self) -> Candidate | None:
        """The coordinator that may write, whether or not its time is over; None before the first lead."""
        return self._memory._leader

    @property
    def length(self) -> int:
        """How many earlier moments the store can be set back to."""
        return len(self._moments)

    def cut(self, process: Process, duration: int) -> None:
        """Keep a coordinator from the store for a while."""
        self._cut_until[process.name] = self.world.now + duration

    def heal(self) -> None:
        """End all cuts, be quick and sure from now on."""
        self._cut_until.clear()
        self.recover()

    def recover(self) -> None:
        """Be quick and sure from now on."""
        self.slow = self.unknown = 0.0
        self.write_delay = self.read_delay = 0
        self.full = self.campaigns_unanswered = False

    def wipe(self) -> None:
        """Lose everything."""
        before, self.state = self.state, None
        self._moments.clear()
        self.world.stats["wiped"] += 1
        if self.world.story is not None:
            self.world.tell("S", "loses everything")
        self.on_change(before, None)

    def set_back(self, moments: int) -> None:
        """Lose the last changes: state and lead are again what they were so many changes ago (1 to `length`)."""
        kept = list(self._moments)[:-moments]
        then = list(self._moments)[-moments]
        before, memory = self.state, self._memory
        memory._state, memory._leader, memory._until_ns = then.state, then.leader, dict(then.until_ns)
        self._moments.clear()
        self._moments.extend(kept)
        self.world.stats["set_back"] += 1
        if self.world.story is not None:
            lost = 0 if before is None else before.version - then.state.version
            self.world.tell("S", f"is set back by {moments} changes, to a version lower by {lost}")
        self.on_change(before, None)
        self.on_change(None, then.state)

    def read(self, process: Process, operation: int, answer: Answer) -> None:
        """Read the stored state for a coordinator."""

        def act() -> Callable[[], None]:
            state = self.state
            return lambda: answer(operation, True, state)

        self._run(process, act, lambda: answer(operation, False, None), self.read_delay, kind="read")

    def write(
        self, process: Process, operation: int, expected: int, state: ClusterState, answer: Answer
    ) -> None:
        """Store `state` if the stored version is `expected`, and its term leads."""

        def act() -> Callable[[], None]:
            before, memory = self.state, self._memory
            moment = None if before is None else _Moment(before, memory._leader, dict(memory._until_ns))
            ok = memory.write(expected, state)
            if ok:
                if moment is not None:
                    self._moments.append(moment)
                self.on_change(before, state)
            after = self.state
            return lambda: answer(operation, ok, after)

        self._run(process, act, lambda: answer(operation, False, None), self.write_delay)

    # ------------------------------------------------------------------ the lead

    def campaign(
        self,
        process: Process,
        operation: int,
        candidate: Candidate,
        ttl_ms: int,
        answer: Callable[[int, Election | None], None],
    ) -> None:
        """Take or renew the lead for a coordinator, or let it stand by."""

        def act() -> Callable[[], None]:
            before = self.leader
            election = self._memory.campaign(candidate, ttl_ms)
            if self.leader != before:
                self.world.stats["leads"] += 1
            if self.campaigns_unanswered:
                self.world.stats["campaigns_unanswered"] += 1
                return _no_answer
            return lambda: answer(operation, election)

        self._run(process, act, lambda: answer(operation, None), kind="campaign")

    def resign(self, process: Process, term: str) -> None:
        """End the lead or the candidacy of a term."""

        def act() -> Callable[[], None]:
            self._memory.resign(term)
            return lambda: None

        self._run(process, act, lambda: None)

    # ------------------------------------------------------------------ inner

    def _delay(self) -> int:
        if self.slow and self._rng.random() < self.slow:
            return self._rng.randrange(1, self.slow_max)
        return self._rng.randrange(50_000, 3 * MS)

    def _run(
        self, process: Process, act: Act, failed: Callable[[], None], extra: int = 0, *, kind: Kind = "other"
    ) -> None:
        """Let an operation take effect some time after its turn has come, and answer later still, or never."""
        line = self._lines.get(process.name)
        if line is None or line.life != process.life:
            line = self._lines[process.name] = _Line(process.life)
        call = _Call(process, failed, line, kind, self.world.now)
        if self.in_line:
            line.add(call, lambda: self._begin(call, act, extra))
        else:
            self._begin(call, act, extra)

    def _begin(self, call: _Call, act: Act, extra: int) -> None:
        if call.kind != "other" and self.world.now >= call.asked_at + OPERATION_TIMEOUT_NS:
            self.world.stats["store_given_up"] += 1
            call.process.post(call.give, call.failed)
            return
        self.world.stats["store_operations"] += 1
        call.process.later(self.timeout, call.time_out)
        self.world.after(self._delay() + extra, self._apply, call, act)

    def _apply(self, call: _Call, act: Act) -> None:
        until = self._cut_until.get(call.process.name, 0)
        if until > self.world.now:
            if self._rng.random() < 0.5:  # the request itself is lost
                return
            self.world.at(until, self._apply, call, act)
            return
        if call.kind != "read" and self.full:
            self.world.stats["store_full"] += 1
            self.world.after(self._delay(), self._answered, call, call.failed)
            return
        if self.unknown and self._rng.random() < self.unknown:
            self._without_answer(act)
            return
        extra = self.answer_delay.get(call.process.name, 0) if call.kind == "read" else 0
        self.world.after(self._delay() + extra, self._answered, call, act())

    def _without_answer(self, act: Act) -> None:
        """Do an operation without an answer: now, long after its caller has given up on it, or never."""
        self.world.stats["store_unknown"] += 1
        match self._rng.choice(self.outcomes):
            case "done":
                act()
            case "late":
                self.world.stats["store_late"] += 1
                self.world.after(self._rng.randrange(self.timeout, 4 * self.timeout), act)

    def _answered(self, call: _Call, answer: Callable[[], None]) -> None:
        if call.process.alive and call.process.life == call.life:
            if self._cut_until.get(call.process.name, 0) > self.world.now:
                return
            call.process.post(call.give, answer)


def _no_answer() -> None:
    """Stand for an answer that is not given: `_Call` tells it from others."""


class _Line:
    """The operations of one life of a process: one is under way, the others wait."""

    def __init__(self, life: int) -> None:
        self.life = life
        self._waiting: list[tuple[_Call, Callable[[], None]]] = []
        self._is_busy = False

    def add(self, call: _Call, begin: Callable[[], None]) -> None:
        """Put an operation in its place, and begin it if none is under way."""
        place = len(self._waiting)
        while call.kind == "campaign" and place and self._waiting[place - 1][0].kind == "read":
            place -= 1
        self._waiting.insert(place, (call, begin))
        if not self._is_busy:
            self.go_on()

    def go_on(self) -> None:
        """Begin the next operation, since the one before is over."""
        self._is_busy = bool(self._waiting)
        if self._waiting:
            _, begin = self._waiting.pop(0)
            begin()


class _Call:
    """One operation: answered once, by the store or by the time-out."""

    def __init__(
        self, process: Process, failed: Callable[[], None], line: _Line, kind: Kind, asked_at: int
    ) -> None:
        self.process = process
        self.life = process.life
        self.failed = failed
        self.line = line
        self.kind = kind
        self.asked_at = asked_at
        self.done = False

    def give(self, answer: Callable[[], None]) -> None:
        if not self.done and answer is not _no_answer:
            self.done = True
            answer()
            self.line.go_on()

    def time_out(self) -> None:
        if not self.done:
            self.process.world.stats["store_timeout"] += 1
        self.give(self.failed)
