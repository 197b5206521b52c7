"""When a client sent which request, for promises that count from then.

The log is sparse, so that memory is bounded whatever the rate of requests: an entry says that its request and later ones were
sent no earlier.
"""

from __future__ import annotations

from typing import Final

from lockring.units import NS_PER_MS

LOG_GRAIN_NS: Final = 4 * NS_PER_MS
"""Granularity of the log of sending times; what is read from it is early by at most this."""
LOG_ENTRIES_MAX: Final = 8192
"""Covers the longest lease (30 s) at that granularity."""


class RequestLog:
    """The numbers of a client's requests, and their times.

    Attributes:
        request: number of the last request; they rise over all links, so their order is that of sending.
    """

    def __init__(self) -> None:
        self.request = 0
        # As (request, time), both rising.
        self._log_requests: list[int] = []
        self._log_times: list[int] = []
        self._logged_at_ns = -LOG_GRAIN_NS

    def number(self, now_ns: int, *, exact: bool = False) -> int:
        """Number the request that is sent now; `exact` notes its own time, not just one shortly before."""
        self.request = request = self.request + 1
        if exact or now_ns - self._logged_at_ns >= LOG_GRAIN_NS:
            self._logged_at_ns = now_ns
            self._log_requests.append(request)
            self._log_times.append(now_ns)
            if len(self._log_requests) > 2 * LOG_ENTRIES_MAX:
                del self._log_requests[:LOG_ENTRIES_MAX]
                del self._log_times[:LOG_ENTRIES_MAX]
        return request

    def sent_no_earlier_than(self, request: int) -> int | None:
        """A time at or shortly before the sending of a request; None if it is too old or was never sent."""
        if request > self.request:
            return None
        low, high = 0, len(self._log_requests)
        while low < high:
            middle = (low + high) // 2
            if self._log_requests[middle] <= request:
                low = middle + 1
            else:
                high = middle
        return self._log_times[low - 1] if low else None
