"""The coordinator's clocks: the monotonic one at the last input, and the wall clock as an offset from it."""

from __future__ import annotations

from collections.abc import Callable

from lockring.core.timing import Timing, stood_still_for_ns


class Clocks:
    """Both clocks. Not safe for use by several tasks.

    Attributes:
        now_ns: the monotonic clock at the last input. It never falls, whatever a shell passes in.
    """

    def __init__(self, timing: Timing, *, now_ns: int, wall_ns: int) -> None:
        self.now_ns = now_ns
        self._timing = timing
        self._wall_offset_ns = wall_ns - now_ns

    def set_wall(self, *, wall_ns: int, now_ns: int) -> None:
        """Set what the wall clock shows at `now_ns`."""
        self._wall_offset_ns = wall_ns - now_ns

    def wall_ns(self, now_ns: int) -> int:
        """Return what the wall clock shows at `now_ns`, going on from the last reading."""
        return now_ns + self._wall_offset_ns

    def pause_before_ns(self, next_deadline_ns: Callable[[], int | None], *, now_ns: int) -> int:
        """Return how long the process was suspended before this input, 0 if it was not."""
        return stood_still_for_ns(self._timing, self.now_ns, next_deadline_ns, now_ns=now_ns)

    def advance(self, now_ns: int) -> None:
        """Set the time of an input; an earlier time than the last one is ignored."""
        self.now_ns = max(self.now_ns, now_ns)
