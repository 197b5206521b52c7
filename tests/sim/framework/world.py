"""Time and processes: a discrete-event scheduler in true time, and processes with clocks of their own.

A process is a thin shell around one core, as `lockring.core.effects` describes it: it reads what has
arrived, then its clock, hands the messages to the core, then asks for the effects and carries them out in order. The
simulation may stop it at three places within such a turn: between two messages, before it takes the effects,
and between two effects. A process that is stopped resumes in the middle of what it was doing, or crashes there.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lockring.core.effects import Effect
from lockring.core.machine import Machine

if TYPE_CHECKING:
    from tests.sim.framework.network import End

MS = 1_000_000
S = 1_000_000_000


class Violation(Exception):
    """A property of the design does not hold in this run."""

    def __init__(self, what: str, text: str) -> None:
        super().__init__(f"{what}: {text}")
        self.what = what


class World:
    """The scheduler: one queue of events in true time, in integer nanoseconds from 0.

    Attributes:
        now: the true time.
        stats: how often interesting things happened.
        story: readable lines, one per event, if asked for.
        heard: called with the sender, the receiver and each message that is sent, if set.
    """

    def __init__(self, seed: int, *, story: bool = False) -> None:
        self.seed = seed
        self.now = 0
        self.stats: Counter[str] = Counter()
        self.story: list[str] | None = [] if story else None
        self.show: Callable[[str], None] | None = None
        self.heard: Callable[[str, str, object], None] | None = None
        self.after_turn: Callable[[Process], None] = lambda process: None
        self.turns = 0
        self._queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def rng(self, stream: str) -> random.Random:
        """An independent source of randomness, so that a change of one part leaves the others' draws alone."""
        return random.Random(f"{self.seed}/{stream}")

    def at(self, when: int, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` at true time `when`, or now if that has passed."""
        self._count += 1
        heapq.heappush(self._queue, (max(when, self.now), self._count, what, args))

    def after(self, delay: int, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` after `delay` nanoseconds of true time."""
        self.at(self.now + delay, what, *args)

    def run_until(self, end: int) -> None:
        """Let everything happen up to true time `end`."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, what, args = heapq.heappop(queue)
            what(*args)
        self.now = max(self.now, end)

    def tell(self, who: str, text: str) -> None:
        """Add a line to the story. Callers test `story` first, so that a run without one formats nothing."""
        line = f"{self.now / S:10.6f} {who:4} {text}"
        if self.story is not None:
            self.story.append(line)
        if self.show is not None:
            self.show(line)


class Clock:
    """A process's monotonic clock: its own offset, rate (0 to 4.9 % fast) and granularity (up to one tick)."""

    def __init__(self, rng: random.Random, *, drift: bool = True) -> None:
        self.offset = rng.randrange(0, 1_000 * S)
        self.rate = rng.choice((0, 49_000, rng.randrange(0, 49_000))) if drift else 0
        self.grain = rng.choice((1, 1, 1_000, MS))
        self._read_at = -1  # the checkers ask many times at one instant
        self._shown = 0

    def read(self, true_ns: int) -> int:
        """Return what the clock shows at a true time."""
        if true_ns != self._read_at:
            value = self.offset + true_ns + true_ns * self.rate // 1_000_000
            self._read_at, self._shown = true_ns, value - value % self.grain
        return self._shown

    def when(self, local_ns: int) -> int:
        """The first true time at which the clock shows at least `local_ns`."""
        wanted = -(-local_ns // self.grain) * self.grain - self.offset
        true = -(-wanted * 1_000_000 // (1_000_000 + self.rate))
        while self.read(true) < local_ns:
            true += 1
        return true


class Slowness:
    """How unevenly the processes of one run are scheduled; drawn per seed, calmed after the faults.

    Attributes:
        pause: probability that a turn is interrupted.
        pause_max: longest interruption.
        batch: probability that a process waits a little for more to arrive before it takes its turn.
        batch_max: longest such wait.
        late: most that a timer is late.
    """

    def __init__(self) -> None:
        self.pause = 0.0
        self.pause_max = 0
        self.batch = 0.0
        self.batch_max = 0
        self.late = MS


class Process:
    """A shell around one core. Subclasses say what happens at a start, an arrival and an effect.

    Attributes:
        name: unique, short.
        life: counts the starts; what belongs to an earlier life is dropped.
        alive: whether it runs (perhaps paused).
        lost_power: whether its machine stopped with it when it last crashed.
        keeps_journal: whether each turn calls `write_journal`.
        ends: its open ends of connections.
    """

    core: Machine[Any, Any, Any] | None
    is_client = False

    def __init__(self, world: World, name: str, *, slowness: Slowness, drift: bool = True) -> None:
        self.world = world
        self.name = name
        self.rng = world.rng(name)
        self.slowness = slowness
        self.clock = Clock(self.rng, drift=drift)
        self.wall_offset = 0
        self.life = 0
        self.alive = False
        self.lost_power = False
        self.keeps_journal = False
        self.ends: dict[int, End] = {}
        self.core = None
        self.paused_until = 0
        self._inbox: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._outbox: deque[Effect] = deque()
        self._busy = False
        self._rest: tuple[Callable[..., None], tuple[Any, ...]] | None = None
        self._wake_at: int | None = None
        self._wake_number = 0
        self._due_ns: int | None = None  # the core's deadline, as the last turn left it
        self._news = 0  # what has come since the core was last looked at, heartbeats aside
        self._draw = self.rng.random

    # ------------------------------------------------------------------ what a subclass fills in

    def on_start(self) -> None:
        """The process starts: make a core."""
        raise NotImplementedError

    def on_timer(self) -> None:
        """The core's deadline has come."""
        raise NotImplementedError

    def carry_out(self, effect: Effect) -> None:
        """Do what the core asks for."""
        raise NotImplementedError

    def on_crash(self) -> None:
        """Forget what belonged to this life."""

    def write_journal(self) -> None:
        """Write what must be on disk before the effects of this turn leave."""

    def is_heartbeat(self, effect: Effect) -> bool:
        """Return whether an effect says only that the process lives. A turn with such effects only, in which nothing
        else came, leaves a core as sound as it was; a cluster at rest has hardly others."""
        del effect
        return False

    # ------------------------------------------------------------------ life

    def now_ns(self) -> int:
        """Return what the process's monotonic clock shows."""
        return self.clock.read(self.world.now)

    def wall_ns(self) -> int:
        """Return what the process's wall clock shows: it may be wrong, and jump."""
        return 1_700_000_000 * S + self.world.now + self.wall_offset

    def start(self) -> None:
        """Start (again), with nothing in memory."""
        if self.alive:
            return
        self.life += 1
        self.alive = True
        self.paused_until = 0
        self._inbox.clear()
        self._outbox.clear()
        self._busy = False
        self._rest = None
        self._wake_at = None
        self._due_ns = None
        if self.world.story is not None:
            self.world.tell(self.name, f"starts (life {self.life})")
        self.on_start()
        self._finish(self.life)

    def crash(self) -> None:
        """Stop at once, wherever the process is, and forget everything."""
        if not self.alive:
            return
        if self.world.story is not None:
            self.world.tell(self.name, "crashes")
        self.alive = False
        self._inbox.clear()
        self._outbox.clear()
        self.on_crash()
        self.core = None

    def pause(self, duration: int) -> None:
        """Stop for a while, then go on as if nothing had been."""
        self.paused_until = max(self.paused_until, self.world.now + duration)

    def resume(self) -> None:
        """End a pause."""
        if self.paused_until > self.world.now:
            self.paused_until = self.world.now
            self._wake_at = None
            self.wake(0)
            if self._rest is not None:
                self.world.at(self.world.now, self._go_on, self._rest)

    # ------------------------------------------------------------------ turns

    def post(self, what: Callable[..., None], *args: Any) -> None:
        """Something has arrived: `what(*args)` is called in the process's next turn."""
        if not self.alive:
            return
        self._inbox.append((what, args))
        self._news += 1
        slow = self.slowness
        delay = 1_000 + int(self._draw() * 59_000)
        if slow.batch and self._draw() < slow.batch:
            delay += int(self._draw() * slow.batch_max)
        self.wake(delay)

    def wake(self, delay: int) -> None:
        """Have a turn after `delay`, unless one comes earlier anyway."""
        when = self.world.now + delay
        if self._busy or (self._wake_at is not None and self._wake_at <= when):
            return
        self._wake_at = when
        self._wake_number += 1
        self.world.at(when, self._turn, self.life, self._wake_number)

    def later(self, delay_ns: int, what: Callable[..., None], *args: Any) -> None:
        """Call `what(*args)` in a turn of this life, after `delay_ns` on the true clock (a timer of the shell's
        own)."""
        self.world.after(delay_ns, self._later, self.life, what, args)

    def _later(self, life: int, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        if life == self.life:
            self.post(what, *args)

    def _turn(self, life: int, number: int) -> None:
        if life != self.life or not self.alive or number != self._wake_number or self._busy:
            return
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._turn, life, number)
            return
        self._wake_at = None
        self._busy = True
        self._turn_now = self.now_ns()
        if not self.slowness.pause:
            self._receive(life, len(self._inbox))
            self._receive_rest(life, 0)
            return
        arrivals, stop = len(self._inbox), -1
        if arrivals > 1 and self.rng.random() < self.slowness.pause:
            stop = self.rng.randrange(1, arrivals)
        self._receive(life, arrivals if stop < 0 else stop)
        if stop >= 0:
            self._interrupted(self._receive_rest, life, arrivals - stop)
        else:
            self._receive_rest(life, 0)

    def _receive(self, life: int, count: int) -> None:
        inbox = self._inbox
        for _ in range(count):
            what, args = inbox.popleft()
            what(*args)
            if not self.alive or life != self.life:
                return

    def _receive_rest(self, life: int, count: int) -> None:
        if count and life == self.life and self.alive:
            self._receive(life, count)
        if life != self.life or not self.alive:
            return
        if self.core is not None and self._due_ns is not None and self._due_ns <= self.turn_now:
            self.on_timer()
            self._news += 1
        slow = self.slowness
        if slow.pause and self.rng.random() < slow.pause:
            self._interrupted(self._finish, life)
        else:
            self._finish(life)

    @property
    def turn_now(self) -> int:
        """The clock as it was read after the arrivals of this turn."""
        return self._turn_now if self._busy else self.now_ns()

    def _finish(self, life: int) -> None:
        """Write what must be on disk first, then take the effects on a clock read now, and carry them out."""
        if life != self.life or not self.alive:
            return
        self._busy = True
        if self.keeps_journal:
            self.write_journal()
            if life != self.life or not self.alive:
                return
            slow = self.slowness
            if slow.pause and self.rng.random() < slow.pause:
                self._interrupted(self._take_effects, life)
                return
        self._take_effects(life)

    def _take_effects(self, life: int) -> None:
        if life != self.life or not self.alive:
            return
        if self.core is not None:
            effects = self.core.take_effects(now_ns=self.now_ns())
            self._outbox.extend(effects)
            if self._news or not all(map(self.is_heartbeat, effects)):
                self._news = 0
                self.core.check_invariants()
        slow = self.slowness
        self._stop_at = -1
        if slow.pause and self._outbox and self.rng.random() < slow.pause:
            self._stop_at = self.rng.randrange(len(self._outbox))
        self._carry_out_rest(life)

    def _carry_out_rest(self, life: int) -> None:
        if life != self.life or not self.alive:
            return
        outbox = self._outbox
        while outbox:
            if self._stop_at == 0:
                self._stop_at = -1
                self._interrupted(self._carry_out_rest, life)
                return
            self._stop_at -= 1
            self.carry_out(outbox.popleft())
            if life != self.life or not self.alive:
                return
        self._busy = False
        self.world.turns += 1
        self.world.after_turn(self)
        self.arm()

    def arm(self) -> None:
        """Have the next turn when something is there to do."""
        if not self.alive or self._busy:
            return
        if self._inbox:
            self.wake(1_000)
        if self.core is not None:
            self._due_ns = deadline = self.core.next_deadline_ns()
            if deadline is not None:
                late = int(self._draw() * self.slowness.late)
                self.wake(max(1_000, self.clock.when(deadline) - self.world.now + late))

    def _interrupted(self, go_on: Callable[..., None], *args: Any) -> None:
        duration = self.rng.randrange(1, self.slowness.pause_max)
        if self.world.story is not None:
            self.world.tell(self.name, f"is stopped for {duration / MS:.0f} ms in the middle of a turn")
        self.world.stats["interrupted"] += 1
        self.pause(duration)
        self._rest = (go_on, args)
        self.world.at(self.paused_until, self._go_on, self._rest)

    def _go_on(self, rest: tuple[Callable[..., None], tuple[Any, ...]]) -> None:
        if self._rest is not rest:
            return
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._go_on, rest)
            return
        self._rest = None
        go_on, args = rest
        go_on(*args)
