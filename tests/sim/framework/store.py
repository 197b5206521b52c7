"""The coordinators' store: one value with compare-and-set, reached over a link that may stall or be cut.

An operation takes effect at some moment between its call and long after the caller gave up on it, or never: the
caller then gets an unknown outcome.
"""

from __future__ import annotations

from collections.abc import Callable

from lockring.cluster_state import ClusterState
from tests.sim.framework.world import MS, Process, S, World

Answer = Callable[[int, bool, ClusterState | None], None]
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
        self._run(process, operation, answer, None, 0)

    def write(
        self, process: Process, operation: int, expected: int, state: ClusterState, answer: Answer
    ) -> None:
        """Store `state` if the stored version is `expected`."""
        self._run(process, operation, answer, state, expected)

    def _delay(self) -> int:
        if self.slow and self._rng.random() < self.slow:
            return self._rng.randrange(1, self.slow_max)
        return self._rng.randrange(50_000, 3 * MS)

    def _run(
        self, process: Process, operation: int, answer: Answer, state: ClusterState | None, expected: int
    ) -> None:
        self.world.stats["store_operations"] += 1
        call = _Call(process, operation, answer)
        process.later(self.timeout, call.give, False, None, True)
        delay = self._delay() + (self.read_delay if state is None else self.write_delay)
        self.world.after(delay, self._apply, call, state, expected)

    def _apply(self, call: _Call, state: ClusterState | None, expected: int) -> None:
        until = self._cut_until.get(call.process.name, 0)
        if until > self.world.now:
            if self._rng.random() < 0.5:  # the request itself is lost
                return
            self.world.at(until, self._apply, call, state, expected)
            return
        ok = True
        if state is not None and self.full:
            self.world.stats["store_full"] += 1
            self.world.after(self._delay(), self._answered, call, False, None)
            return
        if state is not None:
            before = self.state
            ok = (0 if before is None else before.version) == expected
            if ok:
                self.state = state
                self.on_change(before, state)
        if self.unknown and self._rng.random() < self.unknown:
            self.world.stats["store_unknown"] += 1
            return
        self.world.after(self._delay(), self._answered, call, ok, self.state)

    def _answered(self, call: _Call, ok: bool, state: ClusterState | None) -> None:
        if call.process.alive and call.process.life == call.life:
            if self._cut_until.get(call.process.name, 0) > self.world.now:
                return
            call.process.post(call.give, ok, state)


class _Call:
    """One operation: answered once, by the store or by the time-out."""

    def __init__(self, process: Process, operation: int, answer: Answer) -> None:
        self.process = process
        self.life = process.life
        self.operation = operation
        self.answer = answer
        self.done = False

    def give(self, ok: bool, state: ClusterState | None, timed_out: bool = False) -> None:
        if not self.done:
            self.done = True
            if timed_out:
                self.process.world.stats["store_timeout"] += 1
            self.answer(self.operation, ok, state)
