"""When a client sent which request, for promises that count from then.

The log is sparse, so that memory is bounded whatever the rate of requests: an entry says that its request and later
ones were sent no earlier.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from lockring.ids import NO_REQUEST, RequestNumber
from lockring.units import NS_PER_MS

LOG_GRAIN_NS: Final = 4 * NS_PER_MS
"""Granularity of the log of sending times; a time read from it is early by at most this."""
LOG_ENTRIES_MAX: Final = 8192
"""Covers the longest lease (30 s) at that granularity."""


class RequestLog:
    """The numbers of a client's requests, and their times.

    Attributes:
        last_number: of the latest request. Numbers rise over all links, so their order is the order of sending.
    """

    def __init__(self) -> None:
        self.last_number = NO_REQUEST
        # As (number, time), both rising.
        self._numbers: list[RequestNumber] = []
        self._times_ns: list[int] = []
        self._logged_at_ns = -LOG_GRAIN_NS

    def take_number(self, now_ns: int, *, exact: bool = False) -> RequestNumber:
        """Give a number to the request that is sent now, log when that was, and return the number.

        Args:
            now_ns: the time.
            exact: log this very time, and not just one shortly before it.
        """
        number: RequestNumber = self.last_number + 1  # type: ignore[assignment]  # born here
        self.last_number = number
        if exact or now_ns - self._logged_at_ns >= LOG_GRAIN_NS:
            self._logged_at_ns = now_ns
            self._numbers.append(number)
            self._times_ns.append(now_ns)
            if len(self._numbers) > 2 * LOG_ENTRIES_MAX:
                del self._numbers[:LOG_ENTRIES_MAX]
                del self._times_ns[:LOG_ENTRIES_MAX]
        return number

    def sent_no_earlier_than_ns(self, number: RequestNumber) -> int | None:
        """Return a time at or shortly before the sending of a request; None if it is too old or was never sent."""
        if number > self.last_number:
            return None
        place = bisect_right(self._numbers, number)
        return self._times_ns[place - 1] if place else None
