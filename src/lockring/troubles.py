"""Log lines for repeated failures: one when the trouble begins, a reminder each minute, and one when it ends.

A single attempt is not worth a line. Code that keeps retrying reports each failure here and logs the returned text,
if there is one.
"""

from __future__ import annotations

from typing import Final

from lockring.units import NS_PER_S

REMIND_NS: Final = 60 * NS_PER_S
"""How often lasting trouble is logged."""

REASONS_MAX: Final = 5
"""How many reasons of one trouble are logged as they come up; later ones wait for the reminder."""


class RepeatedTrouble:
    """An operation that may fail repeatedly. Not thread-safe.

    Args:
        calm_ns: how long the operation must have worked for a failure to count as new trouble, which is logged at
            once. An operation that works for a moment now and then is still in the same trouble.
    """

    def __init__(self, *, calm_ns: int = 0) -> None:
        self.is_on = False
        """Whether the last attempt failed."""
        self._calm_ns = calm_ns
        self._ended_at_ns: int | None = None
        self._failures = 0
        self._since_ns = 0
        self._logged_at_ns = 0
        self._logged: set[str] = set()

    @property
    def since_ns(self) -> int | None:
        """When the trouble began, by the monotonic clock; None if the last attempt worked."""
        return self._since_ns if self.is_on else None

    def fails(self, reason: str, *, now_ns: int) -> str:
        """Record a failure.

        Args:
            reason: a sentence for people.
            now_ns: monotonic clock.

        Returns:
            The text to log now, "" if none.
        """
        goes_on = self._logged and (
            self.is_on or (self._ended_at_ns is not None and now_ns - self._ended_at_ns < self._calm_ns)
        )
        self.is_on = True
        if not goes_on:
            self._logged.clear()
            self._failures = 1
            self._since_ns = self._logged_at_ns = now_ns
            self._logged.add(reason)
            return reason
        self._failures += 1
        if now_ns - self._logged_at_ns >= REMIND_NS:
            self._logged_at_ns = now_ns
            self._logged.add(reason)
            return f"{reason} ({self._so_far(now_ns)})"
        if reason not in self._logged and len(self._logged) < REASONS_MAX:
            self._logged.add(reason)
            return reason
        return ""

    def ends(self, *, now_ns: int) -> str:
        """Record that the operation works.

        Returns:
            How long it failed, as "3 failures in 12 s"; "" if it had not failed, or if its end was logged recently.
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
