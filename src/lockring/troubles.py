"""What a log is told of something that fails again and again: that it began, a reminder each minute, and its end.

An attempt is no event. What tries again and again hands each failure in here, and logs what comes back, if anything does.
"""

from __future__ import annotations

from typing import Final

from lockring.units import NS_PER_S

REMIND_NS: Final = 60 * NS_PER_S
"""How often trouble that lasts is told."""

REASONS_MAX: Final = 5
"""So many reasons of one trouble are told when they come up; later ones wait for the minute."""


class RepeatedTrouble:
    """One thing that may fail repeatedly. Not safe for use by several threads.

    Args:
        calm_ns: how long it must have worked before a failure is the beginning of new trouble, and so told at once: what
            works for a moment again and again is trouble that lasts.
    """

    def __init__(self, *, calm_ns: int = 0) -> None:
        self.is_on = False
        """Whether it has failed and did not work since."""
        self._calm_ns = calm_ns
        self._ended_at_ns: int | None = None
        self._failures = 0
        self._since_ns = 0
        self._told_at_ns = 0
        self._told: set[str] = set()

    def fails(self, reason: str, *, now_ns: int) -> str:
        """It has failed.

        Args:
            reason: a sentence for people.
            now_ns: monotonic clock.

        Returns:
            What to log now, "" for nothing.
        """
        goes_on = self._told and (
            self.is_on or (self._ended_at_ns is not None and now_ns - self._ended_at_ns < self._calm_ns)
        )
        self.is_on = True
        if not goes_on:
            self._told.clear()
            self._failures = 1
            self._since_ns = self._told_at_ns = now_ns
            self._told.add(reason)
            return reason
        self._failures += 1
        if now_ns - self._told_at_ns >= REMIND_NS:
            self._told_at_ns = now_ns
            self._told.add(reason)
            return f"{reason} ({self._so_far(now_ns)})"
        if reason not in self._told and len(self._told) < REASONS_MAX:
            self._told.add(reason)
            return reason
        return ""

    def ends(self, *, now_ns: int) -> str:
        """It works.

        Returns:
            For how long it did not, as "3 failures in 12 s"; "" if it did not fail, or its end was told a moment ago.
        """
        if not self.is_on:
            return ""
        self.is_on = False
        again = self._ended_at_ns is not None and now_ns - self._ended_at_ns < self._calm_ns
        self._ended_at_ns = now_ns
        return "" if again else self._so_far(now_ns)

    def _so_far(self, now_ns: int) -> str:
        failures = "1 failure" if self._failures == 1 else f"{self._failures} failures"
        return f"{failures} in {(now_ns - self._since_ns) / NS_PER_S:.0f} s"
