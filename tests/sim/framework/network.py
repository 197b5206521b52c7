"""The network: ordered connections between processes, with everything that may happen to them.

A connection has two ends, each an ordered stream of bytes messages to the other. Messages are delayed, never
reordered within a connection, and lost only with it: a reset loses what was in flight after an arbitrary point, and
each end notices in its own time (until then the other end looks alive: half-open). A cut between two processes, in
one direction or both, stalls what is sent; it arrives when the cut heals, unless the connection was reset meanwhile.
A connection may also be hushed: it looks open to both ends, and what is sent on it gets nowhere.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from tests.sim.framework.world import MS, Process, S, World


class _Flight:
    __slots__ = ("dropped", "payload")

    def __init__(self, payload: bytes | None) -> None:
        self.payload = payload  # None: the other side closed its end
        self.dropped = False


class End:
    """One side of a connection, as its process sees it.

    Attributes:
        number: unique; what a core knows an accepted connection by.
        process: whose end it is, in which `life`.
        other: the other side.
        open: the process has neither closed it nor noticed that it ended.
        label: free for the shell.
        dialed: whether its process opened the connection, rather than accepted it.
    """

    def __init__(self, network: Network, number: int, process: Process) -> None:
        self.network = network
        self.number = number
        self.process = process
        self.life = process.life
        self.open = True
        self.other: End = self
        self.label: object = None
        self.dialed = False
        self.on_message: Callable[[End, bytes], None] = _ignore_message
        self.on_closed: Callable[[End], None] = _ignore_closed
        self._flying: deque[_Flight] = deque()  # on the way from here to the other end
        self._stalled: list[_Flight] = []
        self._last_arrival = 0
        self._notices_at = 1 << 62
        self._broken = False  # what is sent here from now on gets nowhere

    def alive(self) -> bool:
        """Whether the process that opened this end still lives and has it open."""
        return self.open and self.process.alive and self.process.life == self.life

    def send(self, payload: bytes) -> None:
        """Send to the other end; lost if the connection is not there any more."""
        if self.alive():
            self.network.send(self, _Flight(payload))

    def close(self) -> None:
        """Close once what was sent before is out. Nothing more is received here from now on."""
        if self.open:
            self.open = False
            self.process.ends.pop(self.number, None)
            self.network.send(self, _Flight(None))


def _ignore_message(end: End, payload: bytes) -> None:
    del end, payload


def _ignore_closed(end: End) -> None:
    del end


class Weather:
    """How bad the network is; drawn per seed, calmed after the faults. Durations in ns.

    Attributes:
        latency: usual longest delay of a message.
        slow: probability of a delay up to `slow_max`.
        reset: probability, per message sent, that its connection is reset.
        notice_max: longest time in which an end does not notice that the connection is gone.
        give_up_max: longest time for which a cut connection stalls before it is reset.
        errs: probability that a difference of states or routes is wrong, or one of states missing, as if its sender had
            erred. No network does that, but receivers must find it out.
    """

    def __init__(self) -> None:
        self.latency = 2 * MS
        self.slow = 0.0
        self.slow_max = 200 * MS
        self.reset = 0.0
        self.notice_max = 2 * S
        self.give_up_max = 6 * S
        self.errs = 0.0


class Network:
    """All connections, and which pairs of processes are cut off from each other.

    Attributes:
        hushed_at: when a connection was last hushed, long before the beginning if none was.
    """

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.rng: random.Random = world.rng("network")
        self.errors = world.rng("errors of senders")
        self.listeners: dict[str, tuple[Process, Callable[[End], None]]] = {}
        self._cut_until: dict[tuple[str, str], int] = {}
        self._stalled: dict[tuple[str, str], list[End]] = {}
        self._numbers = 0
        self.hushed_at = -(1 << 62)

    # ------------------------------------------------------------------ connections

    def listen(self, address: str, process: Process, accepted: Callable[[End], None]) -> None:
        """Accept connections to `address` while the process lives (its present life)."""
        self.listeners[address] = (process, accepted)

    def dial(
        self, process: Process, address: str, done: Callable[[End | None], None], timeout: int = 2 * S
    ) -> None:
        """Connect: `done` is called in a turn of the process, with its end or None for a failure."""
        listener = self.listeners.get(address)
        if listener is None or listener[0] is process:
            process.later(self._delay(), done, None)
            return
        target = listener[0]
        clear = max(
            self._cut_until.get((process.name, target.name), 0),
            self._cut_until.get((target.name, process.name), 0),
        )
        if clear > self.world.now + timeout:
            process.later(timeout, done, None)
            return
        when = max(clear, self.world.now) + self._delay()
        self.world.at(when, self._connect, process, process.life, address, done)

    def _connect(self, process: Process, life: int, address: str, done: Callable[[End | None], None]) -> None:
        if not process.alive or process.life != life:
            return
        target, accepted = self.listeners[address]
        if not target.alive or self.is_cut(process, target) or self.is_cut(target, process):
            process.later(self._delay(), done, None)
            return
        here, there = self._end(process), self._end(target)
        here.other, there.other = there, here
        here.dialed = True
        target.post(self._if_open, accepted, there)
        process.later(self._delay(), self._if_open, done, here)

    @staticmethod
    def _if_open(done: Callable[[End], None] | Callable[[End | None], None], end: End) -> None:
        """Report a new connection, unless it broke before that."""
        if end.open:
            done(end)
        elif end.dialed:
            done(None)  # type: ignore[arg-type]

    def _end(self, process: Process) -> End:
        self._numbers += 1
        end = End(self, self._numbers, process)
        process.ends[end.number] = end
        return end

    def _delay(self) -> int:
        weather, rng = self.weather, self.rng
        if weather.slow and rng.random() < weather.slow:
            return 1 + int(rng.random() * weather.slow_max)
        return 20_000 + int(rng.random() * (weather.latency - 20_000))

    # ------------------------------------------------------------------ messages

    def send(self, end: End, flight: _Flight) -> None:
        """Put a message on the way from `end` to the other end."""
        if self.weather.reset and self.rng.random() < self.weather.reset:
            self.reset(end)
        other = end.other
        if other.process.life != other.life or not other.process.alive or not other.open:
            # No process listens. A machine that runs refuses at once; one that is gone says nothing.
            if other.process.alive and not self.is_cut(other.process, end.process):
                self._notice(end, self._delay())
            return
        if end._broken:
            return
        if self.is_cut(end.process, other.process):
            if not end._stalled:
                self._stalled.setdefault((end.process.name, other.process.name), []).append(end)
            end._stalled.append(flight)
            return
        self._launch(end, flight)

    def _launch(self, end: End, flight: _Flight) -> None:
        arrival = max(end._last_arrival, self.world.now + self._delay())
        end._last_arrival = arrival
        end._flying.append(flight)
        self.world.at(arrival, self._arrive, end, flight)

    def _arrive(self, end: End, flight: _Flight) -> None:
        if flight.dropped:
            return
        end._flying.popleft()
        other = end.other
        if not other.alive():
            return
        if flight.payload is None:
            self._notice(other, 0)
        else:
            other.process.post(self._hand_over, other, flight.payload)

    @staticmethod
    def _hand_over(end: End, payload: bytes) -> None:
        if end.open:
            end.on_message(end, payload)

    # ------------------------------------------------------------------ what goes wrong

    def reset(self, end: End) -> None:
        """Break a connection: what is in flight is lost after an arbitrary point, each end notices in its own time."""
        self.world.stats["resets"] += 1
        for side in (end, end.other):
            self._lose(side)
            if side.alive():
                self._notice(side, self._notice_delay())

    def hush(self, end: End, *, both: bool) -> None:
        """Let a device on the path forget a connection: what is sent from here, or from both sides, gets nowhere, and
        no end is reported. Servers have their system give up what stays unacknowledged; of clients the core must
        notice it by itself."""
        self.world.stats["hushed"] += 1
        self.hushed_at = self.world.now
        for side in (end, end.other) if both else (end,):
            self._lose(side)
        for side in (end, end.other):
            if side.alive() and not side.process.is_client:
                self._notice(side, self.rng.randrange(MS, self.weather.give_up_max))

    def _notice_delay(self) -> int:
        rng = self.rng
        return rng.choice((rng.randrange(1, 5 * MS), rng.randrange(1, self.weather.notice_max)))

    def _lose(self, side: End) -> None:
        side._stalled.clear()
        kept = self.rng.randrange(len(side._flying) + 1)
        for flight in list(side._flying)[kept:]:
            flight.dropped = True
        while len(side._flying) > kept:
            side._flying.pop()
        side._broken = True

    def _notice(self, end: End, delay: int) -> None:
        when = self.world.now + delay
        if when < end._notices_at:  # a refusal tells sooner than silence
            end._notices_at = when
            end.process.later(delay, self._noticed, end) if delay else end.process.post(self._noticed, end)

    def _noticed(self, end: End) -> None:
        if end.open:
            end.open = False
            end.process.ends.pop(end.number, None)
            end.on_closed(end)

    def process_crashed(self, process: Process, *, power: bool) -> None:
        """The process is gone. Its system closes the connections, unless the whole machine lost its power."""
        for end in list(process.ends.values()):
            self._lose(end)
            other = end.other
            if other.alive():
                if power or self.is_cut(process, other.process):
                    self._notice(other, self.rng.randrange(1, self.weather.give_up_max))
                else:
                    self._notice(other, max(self._delay(), end._last_arrival - self.world.now + 1))
        process.ends.clear()
        process.lost_power = power

    # ------------------------------------------------------------------ cuts

    def is_cut(self, source: Process, target: Process) -> bool:
        """Whether nothing gets from `source` to `target` at present."""
        return self._cut_until.get((source.name, target.name), 0) > self.world.now

    def cut(self, source: Process, target: Process, duration: int) -> None:
        """Let nothing through from `source` to `target` for a while."""
        pair = (source.name, target.name)
        until = self.world.now + duration
        if until <= self._cut_until.get(pair, 0):
            return
        self._cut_until[pair] = until
        self.world.at(until, self._cleared, pair)
        for end in list(source.ends.values()):
            if end.other.process is target:
                self.world.after(self.rng.randrange(100 * MS, self.weather.give_up_max), self._give_up, end)

    def _give_up(self, end: End) -> None:
        if end.alive() and self.is_cut(end.process, end.other.process):
            self.reset(end)

    def _cleared(self, pair: tuple[str, str]) -> None:
        if self._cut_until.get(pair, 0) > self.world.now:
            return
        for end in self._stalled.pop(pair, []):
            stalled, end._stalled = end._stalled, []
            for flight in stalled:
                self._launch(end, flight)

    def heal(self) -> None:
        """End all cuts."""
        for pair in list(self._cut_until):
            self._cut_until[pair] = self.world.now
            self._cleared(pair)
