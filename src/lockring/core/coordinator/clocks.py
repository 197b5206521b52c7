"""The clocks as the coordinator knows them: its monotonic clock at the last input, and how far the wall clock is from it."""

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
        """Learn what the wall clock shows at `now_ns`."""
        self._wall_offset_ns = wall_ns - now_ns

    def wall_ns(self, now_ns: int) -> int:
        """Return what the wall clock shows at `now_ns`, by the last look at it."""
        return now_ns + self._wall_offset_ns

    def pause_before_ns(self, next_deadline_ns: Callable[[], int | None], *, now_ns: int) -> int:
        """Return for how long the process stood still before this input, 0 if it did not."""
        return stood_still_for_ns(self._timing, self.now_ns, next_deadline_ns, now_ns=now_ns)

    def advance(self, now_ns: int) -> None:
        """Let an input be at `now_ns`."""
        self.now_ns = max(self.now_ns, now_ns)
