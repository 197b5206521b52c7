"""The coordinators' store: one value with compare-and-set, reached over a link that may stall or be cut.

An operation takes effect at some moment between its call and long after the caller gave up on it, or never: the
caller then gets an unknown outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from lockring.cluster_state import ClusterState
from lockring.core.election import Candidate, Election
from tests.sim.framework.world import MS, Process, S, World

Answer = Callable[[int, bool, ClusterState | None], None]
Act = Callable[[], Callable[[], None]]
"""Does the work of an operation in the store, and returns the answer to give."""
Watcher = Callable[[ClusterState | None, ClusterState | None], None]


class SimStore:
    """The stored state, as one place that never fails by itself.

    Attributes:
        state: what is stored.
        on_change: called after each write (or wipe) with the state before and after.
        slow: probability that an operation takes up to `slow_max`.
        unknown: probability that an answer is lost.
        full: whether all writes fail, at once, while reads work.
        write_delay: how much longer a write takes.
        read_delay: how much longer a read takes.
        is_shared: whether it names a leader among the coordinators.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.state: ClusterState | None = None
        self.on_change: Watcher = lambda before, after: None
        self.slow = 0.0
        self.slow_max = 2 * S
        self.unknown = 0.0
        self.full = False
        self.write_delay = 0
        self.read_delay = 0
        self.timeout = 2 * S
        self.is_shared = False
        self._leader: Candidate | None = None
        self._until: dict[Candidate, int] = {}
        self._rng = world.rng("store")
        self._cut_until: dict[str, int] = {}

    def cut(self, process: Process, duration: int) -> None:
        """Keep a coordinator from the store for a while."""
        self._cut_until[process.name] = self.world.now + duration

    def heal(self) -> None:
        """End all cuts, be quick and sure from now on."""
        self._cut_until.clear()
        self.slow = self.unknown = 0.0
        self.full = False

    def wipe(self) -> None:
        """Lose everything."""
        before, self.state = self.state, None
        self.world.stats["wiped"] += 1
        if self.world.story is not None:
            self.world.tell("S", "loses everything")
        self.on_change(before, None)

    def read(self, process: Process, operation: int, answer: Answer) -> None:
        """Read the stored state for a coordinator."""

        def act() -> Callable[[], None]:
            state = self.state
            return lambda: answer(operation, True, state)

        self._run(process, act, lambda: answer(operation, False, None), self.read_delay)

    def write(
        self, process: Process, operation: int, expected: int, state: ClusterState, answer: Answer
    ) -> None:
        """Store `state` if the stored version is `expected`, and its term leads."""

        def act() -> Callable[[], None]:
            before = self.state
            ok = (0 if before is None else before.version) == expected and self.leads(state.term)
            if ok:
                self.state = state
                self.on_change(before, state)
            after = self.state
            return lambda: answer(operation, ok, after)

        self._run(process, act, lambda: answer(operation, False, None), self.write_delay, is_write=True)

    # ------------------------------------------------------------------ the lead

    def leads(self, term: str) -> bool:
        """Whether a term may write, as far as the lead is concerned."""
        return self._leader is None or self._leader.term == term

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
            self._until[candidate] = self.world.now + ttl_ms * MS
            if self._leader is None or self._until.get(self._leader, 0) <= self.world.now:
                if self._leader != candidate:
                    self.world.stats["leads"] += 1
                self._leader = candidate
            standbys = [each for each in self._until if each != self._leader]
            election = Election(self._leader, tuple(standbys))
            return lambda: answer(operation, election)

        self._run(process, act, lambda: answer(operation, None), 0, is_write=True)

    def resign(self, process: Process, term: str) -> None:
        """End the lead or the candidacy of a term."""

        def act() -> Callable[[], None]:
            self._until = {each: until for each, until in self._until.items() if each.term != term}
            return lambda: None

        self._run(process, act, lambda: None, 0, is_write=True)

    # ------------------------------------------------------------------ inner

    def _delay(self) -> int:
        if self.slow and self._rng.random() < self.slow:
            return self._rng.randrange(1, self.slow_max)
        return self._rng.randrange(50_000, 3 * MS)

    def _run(
        self, process: Process, act: Act, failed: Callable[[], None], extra: int, *, is_write: bool = False
    ) -> None:
        """Let an operation take effect after a while, and answer after another one, or never."""
        self.world.stats["store_operations"] += 1
        call = _Call(process, failed)
        process.later(self.timeout, call.time_out)
        self.world.after(self._delay() + extra, self._apply, call, act, is_write)

    def _apply(self, call: _Call, act: Act, is_write: bool) -> None:
        until = self._cut_until.get(call.process.name, 0)
        if until > self.world.now:
            if self._rng.random() < 0.5:  # the request itself is lost
                return
            self.world.at(until, self._apply, call, act, is_write)
            return
        if is_write and self.full:
            self.world.stats["store_full"] += 1
            self.world.after(self._delay(), self._answered, call, call.failed)
            return
        answer = act()
        if self.unknown and self._rng.random() < self.unknown:
            self.world.stats["store_unknown"] += 1
            return
        self.world.after(self._delay(), self._answered, call, answer)

    def _answered(self, call: _Call, answer: Callable[[], None]) -> None:
        if call.process.alive and call.process.life == call.life:
            if self._cut_until.get(call.process.name, 0) > self.world.now:
                return
            call.process.post(call.give, answer)


class _Call:
    """One operation: answered once, by the store or by the time-out."""

    def __init__(self, process: Process, failed: Callable[[], None]) -> None:
        self.process = process
        self.life = process.life
        self.failed = failed
        self.done = False

    def give(self, answer: Callable[[], None]) -> None:
        if not self.done:
            self.done = True
            answer()

    def time_out(self) -> None:
        if not self.done:
            self.process.world.stats["store_timeout"] += 1
        self.give(self.failed)
