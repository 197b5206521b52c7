"""Short spins: looking for an answer a few times before going to sleep until it comes.

Putting a thread to sleep and waking it takes longer than a node on the same machine needs to answer, if each of them
has a processor. There it is better to look again and again. Before each look the processor is yielded to a process
that needs it, which may be the node: a look right after sending would be too early.

A spin is a loss elsewhere, so its course decides about the next ones:

- A spin ends as soon as another process has had the processor meanwhile: to sleep would have taken no longer, and
  further looks would keep the processor from the servers. After several such spins in a row, sleep comes at once,
  for a series of waits that is longer each time.
- If that process kept the processor for long, the machine is busy, and hardly any wait begins with a spin.
- If nothing has come though the processor was free, because of a network or because other clients hold the lock, spins
  become ever rarer: after 1, 3, 7, … waits.
"""

from __future__ import annotations

from typing import Final

from lockring.units import NS_PER_MS, NS_PER_US

SHARED_NS: Final = 12 * NS_PER_US
"""Longer than a yield and a look take where no other process needs the processor."""

_PREEMPTED_NS: Final = NS_PER_MS // 2
"""Longer than a node, or a client that wants the same lock, takes to do its part."""
_LOOKS: Final = 60
"""The number of looks at a socket; each takes one or two microseconds."""
_FAILURES_MAX: Final = 10
_SHARED_MAX: Final = 8
"""After so many spins in a row that another process has ended, waits begin with sleep."""
_SHARED_SKIPS: Final = 96
_DOUBLINGS_MAX: Final = 4


class SpinBudget:
    """The number of looks for one kind of answer on one connection before going to sleep."""

    __slots__ = ("_failures", "_shared", "_skips")

    def __init__(self) -> None:
        self._failures = 0
        self._shared = 0
        self._skips = 0

    def spend(self) -> int:
        """Take the budget of one wait: how often to look. Counts as a failure unless `ended` follows."""
        if self._skips:
            self._skips -= 1
            return 0
        self._skips = (1 << self._failures) - 1
        if self._failures < _FAILURES_MAX:
            self._failures += 1
        return _LOOKS

    def ended(self, looks: int, last_ns: int) -> None:
        """Record a spin that ended with an answer, or because another process had the processor.

        Args:
            looks: the number of looks.
            last_ns: how long the last yield and look have taken, in nanoseconds.
        """
        self._failures = self._skips = 0
        if last_ns > _PREEMPTED_NS:
            self._failures = _FAILURES_MAX
            self._skips = (1 << _FAILURES_MAX) - 1
        elif last_ns > SHARED_NS:
            self._shared += 1
            if self._shared >= _SHARED_MAX:
                self._skips = _SHARED_SKIPS << min(self._shared - _SHARED_MAX, _DOUBLINGS_MAX)
        elif looks > 1:  # an answer that was there already does not show how soon later ones come
            self._shared = 0
