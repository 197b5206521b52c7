"""Short spins: looking for an answer a few times before going to sleep until it comes.

Putting a thread to sleep and waking it takes longer than a node on the same machine needs to answer. There it is better
to look again a few times, and to yield the processor in between to a process that needs it, which may be the node.

Where the answer did not come that soon, because of a network or because other clients hold the lock, the budget is used
ever more rarely: after 1, 3, 7, … waits. It is hardly ever used on a busy machine, where other processes keep a
processor for milliseconds once it is yielded to them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from lockring.clock import monotonic_ns
from lockring.units import NS_PER_MS

_yield: Final[Callable[[], None]] = getattr(os, "sched_yield", lambda: None)  # not every system has it
_SPINS: Final = 60
"""The number of looks at a socket; each takes one or two microseconds."""
_FAILURES_MAX: Final = 10
_PREEMPTED_NS: Final = NS_PER_MS // 2
"""Longer than a node, or a client that wants the same lock, takes to do its part."""


class SpinBudget:
    """The number of looks for one kind of answer on one connection before going to sleep."""

    __slots__ = ("_failures", "_skips")

    def __init__(self) -> None:
        self._failures = 0
        self._skips = 0

    def look_for(self, look: Callable[[], bool]) -> bool:
        """Call `look` as often as the budget allows; return whether it has found something."""
        for number in range(self.spend()):
            if look():
                if number:  # an answer at the first look does not show how soon later answers come
                    self.was_short()
                return True
            before_ns = monotonic_ns()
            _yield()
            if monotonic_ns() - before_ns > _PREEMPTED_NS:
                self.was_preempted()
                break
        return False

    def spend(self) -> int:
        """Take the budget of one wait: how often to look. Counts as a failure unless `was_short` follows."""
        if self._skips:
            self._skips -= 1
            return 0
        self._skips = (1 << self._failures) - 1
        if self._failures < _FAILURES_MAX:
            self._failures += 1
        return _SPINS

    def was_preempted(self) -> None:
        """Record that another process took the processor for long."""
        self._failures = _FAILURES_MAX
        self._skips = (1 << _FAILURES_MAX) - 1

    def was_short(self) -> None:
        """Record that the answer was there soon."""
        self._failures = self._skips = 0
