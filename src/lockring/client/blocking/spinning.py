"""Two ways to wait for an answer: to sleep until it comes, or to spin before, which is to look for it a few times.

Putting a thread to sleep and waking it takes longer than a node on the same machine needs to answer, if each of them
has a processor. There it is better to look again and again. Before each look the processor is yielded to a process
that needs it, which may be the node: a look right after sending would be too early. But where client and servers share
a processor, or other processes need it, each look keeps it from them, and sleep is quicker.

Which of the two it is depends on the machine and its load, so both are tried, for some waits each, and the one with the
smaller median is used for a while. Spins must be clearly quicker, since they cost processor time. The while doubles
each time that the result is the same.

Three spins to their end in a row, without an answer, end the attempt: the answer comes over a network, or other clients
hold the lock. So does one in which another process kept the processor for long: the machine is busy.
"""

from __future__ import annotations

from typing import Final

from lockring.units import NS_PER_MS, NS_PER_US

SHARED_NS: Final = 12 * NS_PER_US
"""Longer than a yield and a look take where no other process needs the processor. A spin ends after such a look."""
_PREEMPTED_NS: Final = NS_PER_MS // 2
"""Longer than a node, or a client that wants the same lock, takes to do its part."""

_LOOKS: Final = 60
"""The number of looks at a socket; each takes one or two microseconds."""
_TRIAL: Final = 16
"""The number of waits by which a way is judged."""
_WAITS_MIN: Final = 512
_WAITS_MAX: Final = 8192
"""How many waits pass until both ways are tried again."""
_MISSES_MAX: Final = 3


class SpinBudget:
    """The way to wait for one kind of answer on one connection.

    Attributes:
        is_trial: whether the ways are being tried, so that `took` must follow each wait.
    """

    __slots__ = ("_left", "_looks", "_misses", "_settled", "_spin_ns", "_times_ns", "_waits", "is_trial")

    def __init__(self) -> None:
        self._settled = -1
        self._waits = _WAITS_MIN
        self._left = 0
        self._spin_ns = 0
        self._try(_LOOKS)

    def spend(self) -> int:
        """Begin a wait; return how often to look before going to sleep, 0 for not at all."""
        if not self.is_trial:
            self._left -= 1
            if self._left < 0:
                self._try(_LOOKS)
        return self._looks

    def took(self, wait_ns: int) -> None:
        """Record how long a wait of a trial has taken, in nanoseconds."""
        self._times_ns.append(wait_ns)
        if len(self._times_ns) < _TRIAL:
            return
        median_ns = sorted(self._times_ns)[_TRIAL // 2]
        if self._looks:
            self._spin_ns = median_ns
            self._try(0)
        else:
            self._settle(_LOOKS if self._spin_ns * 10 < median_ns * 9 else 0)

    def was_short(self) -> None:
        """Record that a spin has found an answer."""
        self._misses = 0

    def was_long(self, last_ns: int) -> None:
        """Record that a spin went to its end without an answer, or that another process had the processor.

        Args:
            last_ns: how long the last yield and look have taken, in nanoseconds.
        """
        if last_ns <= SHARED_NS:
            self._misses += 1
        if last_ns > _PREEMPTED_NS or self._misses >= _MISSES_MAX:
            self._settle(0)

    def _try(self, looks: int) -> None:
        self.is_trial = True
        self._looks = looks
        self._misses = 0
        self._times_ns: list[int] = []

    def _settle(self, looks: int) -> None:
        self._waits = min(2 * self._waits, _WAITS_MAX) if looks == self._settled else _WAITS_MIN
        self._left = self._waits
        self._settled = self._looks = looks
        self._misses = 0
        self.is_trial = False
