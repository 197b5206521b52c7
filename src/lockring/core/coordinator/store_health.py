"""The health of the coordinator's store: whether it works, when to try it again, and the lines for the log.

A store can fail in one direction only: a full disk, or a directory without write permission, can still be read. So
a read that works says nothing about writes. The rules:

- *A failure of writes ends with a write that works*; a failure of reads ends with either.
- *The pause doubles* with each failure in a row, so that a store that fails at once is not tried again at once.
- *Trouble is logged when it begins and once a minute* (see `troubles`); its end is logged once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from lockring.core.election import Election
from lockring.troubles import RepeatedTrouble
from lockring.units import NS_PER_MS, NS_PER_S

PAUSE_NS_MIN: Final = 100 * NS_PER_MS
"""Pause after the first failure."""

PAUSE_NS_MAX: Final = 2 * NS_PER_S
"""The longest pause: short beside a coordinator's lease, within which a store that works again must be noticed."""


class StoreNews(NamedTuple):
    """A line for the log: whether it reports trouble, and the sentence."""

    is_trouble: bool
    text: str


class StoreTrouble(NamedTuple):
    """A store that fails.

    Attributes:
        since_ns: when that began, by the monotonic clock.
        reason: a sentence for people, by the newest failure.
    """

    since_ns: int
    reason: str


class StoreReport(NamedTuple):
    """A coordinator's knowledge of its store, for people.

    Attributes:
        place: the engine and where it is; "" if unknown.
        election: the coordinators of a shared store.
        trouble: the trouble that lasts, None if the store works as far as is known.
    """

    place: str
    election: Election
    trouble: StoreTrouble | None

    def age_ns(self, now_ns: int) -> int:
        """Return for how long changes in the store may have escaped a coordinator, in nanoseconds; 0 if it works."""
        return 0 if self.trouble is None else now_ns - self.trouble.since_ns


class StoreHealth:
    """The record of failures of one coordinator's store. Not safe for use by several tasks.

    Attributes:
        last_failure: the sentence for the newest failure, whether or not it has ended; "" before the first.
    """

    def __init__(self) -> None:
        self.last_failure = ""
        # Failures in a row, on which the pause depends.
        self._reads_failed = self._writes_failed = 0
        self._trouble = RepeatedTrouble()
        self._fails_writes = False
        self._news: list[StoreNews] = []

    @property
    def pause_ns(self) -> int:
        """The pause before the store is tried again, in nanoseconds; 0 if nothing has failed."""
        in_a_row = max(self._reads_failed, self._writes_failed)
        return min(PAUSE_NS_MAX, PAUSE_NS_MIN << min(in_a_row - 1, 10)) if in_a_row else 0

    @property
    def trouble(self) -> StoreTrouble | None:
        """The trouble that lasts, None if the store works as far as is known."""
        since_ns = self._trouble.since_ns
        return None if since_ns is None else StoreTrouble(since_ns, self.last_failure)

    def refused(self) -> int:
        """Count a compare-and-set that found another version: not trouble, but several in a row lead to a pause too.

        Returns:
            How long to wait, in nanoseconds: 0 after the first.
        """
        pause_ns = self.pause_ns
        self._writes_failed += 1
        return pause_ns

    def failed(self, reason: str, *, is_write: bool, now_ns: int) -> int:
        """Count an operation that failed, or whose outcome is unknown.

        Args:
            reason: a sentence for people.
            is_write: whether it was a write.
            now_ns: monotonic clock.

        Returns:
            How long to wait before the store is tried again, in nanoseconds.
        """
        if is_write:
            self._writes_failed += 1
            self._fails_writes = True
        else:
            self._reads_failed += 1
        self.last_failure = reason
        text = self._trouble.fails(reason, now_ns=now_ns)
        if text:
            self._news.append(StoreNews(True, text))
        return self.pause_ns

    def worked(self, *, is_write: bool, now_ns: int) -> None:
        """Count an operation that worked: the trouble ends, unless writes fail and this was a read."""
        self._reads_failed = 0
        if is_write:
            self._writes_failed = 0
        elif self._fails_writes:
            return
        self._fails_writes = False
        so_far = self._trouble.ends(now_ns=now_ns)
        if so_far:
            what = "works again: a write has worked" if is_write else "can be read again"
            self._news.append(StoreNews(False, f"the store {what} ({so_far})"))

    def take_news(self) -> list[StoreNews]:
        """Hand out the lines for the log since the last call, in order, and forget them."""
        news, self._news = self._news, []
        return news
