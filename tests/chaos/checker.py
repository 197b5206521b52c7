"""The checks of a run's history, which must pass whatever was done to the cluster. Knows nothing of how lockring works.

- P1: the intervals in which clients rightly believe that they hold a lock do not overlap, unless both share it. An
  interval reaches from the return of acquire to the call of release, or to the client's own deadline as it was last
  seen, whichever comes first.
- P2: of two grants of a lock, the one that was asked for after the other had returned has the greater token; so has
  the one that began to be held later, unless both share the lock. No token is given twice.
- P2 again, at the register: no client is refused while it rightly believes that it holds the lock.
- P3 and P4: no grant is lost, except by a client that was itself stopped, or cut off, for more than half of the lease
  that it lost.
- G1 to G3, of groups: see `group_checker.py`.

It may be asked while the run goes on: then it judges what had happened before a given time, by which everything older
has been read.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Final, NamedTuple

from lockring.names import lock_of_group
from lockring.units import NS_PER_S
from tests.chaos.group_checker import GroupChecker
from tests.chaos.history import (
    KEY_PREFIX,
    AnyEvent,
    Checked,
    Complaint,
    Entered,
    Failed,
    Gone,
    Leaving,
    Lost,
    Outage,
    Owned,
    Probed,
    Regrouped,
    Stalled,
    Verified,
    Viewed,
    Wrote,
    name_of_key,
)
from tests.chaos.register import Row

NEVER_NS: Final = 1 << 62
_RECENT_NS: Final = 120 * NS_PER_S
_STORY_NS: Final = 20 * NS_PER_S
_STORY_LINES_MAX: Final = 60


class Interval(NamedTuple):
    """A time, both ends included."""

    from_ns: int
    until_ns: int

    def common_ns(self, other: Interval) -> int:
        """How long both are."""
        return max(0, min(self.until_ns, other.until_ns) - max(self.from_ns, other.from_ns))


class Problem(NamedTuple):
    """Something that must not be.

    Attributes:
        rule: "P1" to "P4", or "G1" to "G3".
        lock: which it is about.
        at_ns: when it shows.
        text: what it is.
    """

    rule: str
    lock: str
    at_ns: int
    text: str


class Loss(NamedTuple):
    """A grant that was lost.

    Attributes:
        lost: how.
        excuse: what excuses it, "" if nothing does.
        is_starved: whether that is the machine, and not a fault that was done.
    """

    lost: Lost
    excuse: str
    is_starved: bool


class Grant:
    """One grant, as the history shows it."""

    __slots__ = ("entered", "held_until_ns", "leaving_at_ns", "lost")

    def __init__(self, entered: Entered) -> None:
        self.entered = entered
        self.held_until_ns = 0
        """The client's own deadline, as far as it is known: the true one is this or later."""
        self.leaving_at_ns = NEVER_NS
        self.lost: Lost | None = None
        self.held(entered.at_ns, entered.left_ns)

    @property
    def was_held(self) -> bool:
        """Whether it was held when acquire returned: a process may have been stopped just before."""
        return self.entered.left_ns > 0

    @property
    def ended_ns(self) -> int:
        """When its client knew that it was over; `NEVER_NS` if that is not known."""
        return self.leaving_at_ns if self.lost is None else min(self.leaving_at_ns, self.lost.at_ns)

    @property
    def believed(self) -> Interval:
        """The times at which its client rightly believed that it held the lock."""
        return Interval(self.entered.at_ns, min(self.held_until_ns, self.ended_ns))

    def held(self, at_ns: int, left_ns: int) -> None:
        """It was seen to be held for so much longer, or not to be held."""
        if left_ns > 0:
            self.held_until_ns = max(self.held_until_ns, at_ns + left_ns)

    def __str__(self) -> str:
        entered = self.entered
        return f"{entered.client} (process {entered.pid}) with token {entered.token}"


class Checker:
    """Takes in events, in any order of processes but in order within each, and says what is wrong with them.

    Args:
        ttl_ns: lease of grants whose beginning is not in the history.
    """

    def __init__(self, *, ttl_ns: int = 10 * NS_PER_S) -> None:
        self.counts: Counter[str] = Counter()
        self.outages: list[Outage] = []
        self.stalls: list[Stalled] = []
        self.probe_longest_ns = 0
        self.own_faults: dict[str, list[Interval]] = defaultdict(list)
        """When a client was itself stopped or cut off."""
        self._grants: dict[tuple[str, int, str], Grant] = {}
        self._by_lock: dict[str, list[Grant]] = defaultdict(list)
        self._changed: set[str] = set()
        self._events: dict[str, list[AnyEvent]] = defaultdict(list)
        self._losses: dict[tuple[str, int, str], Lost] = {}
        self._problems: dict[Problem, None] = {}
        self._ttl_ns = ttl_ns
        self._groups = GroupChecker(self._grants, self.counts, self._found)

    # ----------------------------------------------------------------------- taking in

    def feed(self, events: Iterable[AnyEvent]) -> None:
        """Take events in."""
        for event in events:
            self._take(event)

    def _take(self, event: AnyEvent) -> None:
        match event:
            case Probed():
                self.counts["probes"] += event.count
                self.probe_longest_ns = max(self.probe_longest_ns, event.longest_ns)
                return
            case Outage():
                self.outages.append(event)
                return
            case Stalled():
                self.stalls.append(event)
                return
            case Complaint():
                self._found("P2", event.client, event.at_ns, f"{event.client}: {event.text}")
                return
            case Failed():
                self.counts["acquires given up"] += 1
                self._events[event.lock].append(event)
                return
            case Owned() | Regrouped() | Viewed():
                for name in _names_of(event):
                    self._events[name].append(event)
                self._groups.take(event)
                return
        self._events[event.lock].append(event)
        self._changed.add(event.lock)
        key = (event.lock, event.token, event.client)
        if isinstance(event, Entered):
            self.counts["acquires"] += 1
            self.counts["acquires shared"] += event.shared
            if key in self._grants:
                self._found("P2", event.lock, event.at_ns, f"{event.client} got token {event.token} twice")
            grant = self._grants[key] = Grant(event)
            self._by_lock[event.lock].append(grant)
            return
        if isinstance(event, Lost):
            self._losses.setdefault(key, event)  # the prober's grants are not known one by one
        known = self._grants.get(key)
        if known is not None:
            self._take_for(known, event)

    def _take_for(self, grant: Grant, event: AnyEvent) -> None:
        match event:
            case Checked():
                grant.held(event.at_ns, event.left_ns)
            case Leaving():
                grant.held(event.at_ns, event.left_ns)
                grant.leaving_at_ns = event.at_ns
            case Gone():
                self.counts["releases"] += event.outcome == "released"
            case Lost():
                grant.lost = event
            case Verified():
                self.counts["verified at the end"] += 1
                if not event.is_holder:
                    self._found(
                        "P3", event.lock, event.at_ns, f"the cluster does not know {grant} as the holder"
                    )
            case Wrote():
                grant.held(event.looked_at_ns, event.left_ns)
                self.counts[f"writes {event.verdict}"] += 1
                if event.verdict == "refused":
                    if event.left_ns > 0:
                        self._found(
                            "P2", event.lock, event.at_ns, f"{grant} was refused while holding the lock"
                        )
                    else:
                        self.counts["fenced off"] += 1

    def _found(self, rule: str, lock: str, at_ns: int, text: str) -> None:
        self._problems.setdefault(Problem(rule, lock, at_ns, text))

    def held(self, prefix: str) -> int:
        """How many locks whose names begin so have ever been held."""
        return sum(lock.startswith(prefix) for lock in self._by_lock)

    # ----------------------------------------------------------------------- judging

    def judge(self, before_ns: int = NEVER_NS) -> list[Problem]:
        """Everything that is wrong, but for losses, with grants that began before a time by which all that is older
        was read."""
        for lock in sorted(self._changed):
            grants = self._by_lock[lock]
            if before_ns != NEVER_NS:  # not all of it again and again
                grants = [each for each in grants if before_ns - _RECENT_NS < each.entered.at_ns < before_ns]
            self._exclusive(lock, grants)
            self._fenced(lock, grants)
        self._groups.judge(0 if before_ns == NEVER_NS else before_ns - _RECENT_NS, before_ns)
        if before_ns == NEVER_NS:
            self._changed.clear()
        return list(self._problems)

    def _exclusive(self, lock: str, grants: list[Grant]) -> None:
        believed = sorted((each for each in grants if each.was_held), key=lambda each: each.believed.from_ns)
        last: dict[bool, Grant] = {}  # by whether it shares the lock
        for grant in believed:
            shared = grant.entered.shared
            for before in [each for each in last.values() if not (shared and each.entered.shared)]:
                if grant.believed.from_ns < before.believed.until_ns:
                    common_ns = grant.believed.common_ns(before.believed)
                    self._found(
                        "P1", lock, grant.entered.at_ns,
                        f"{grant} and {before} both held it, for {common_ns / NS_PER_S:.6f} s",
                    )  # fmt: skip
            if shared not in last or grant.believed.until_ns > last[shared].believed.until_ns:
                last[shared] = grant

    def _fenced(self, lock: str, grants: list[Grant]) -> None:
        by_token = sorted(grants, key=lambda each: each.entered.token)
        for one, two in itertools.pairwise(by_token):
            if one.entered.token == two.entered.token:
                at_ns = max(one.entered.at_ns, two.entered.at_ns)
                self._found("P2", lock, at_ns, f"{one} and {two} have the same token")
        # Held one after the other:
        began = sorted((each for each in grants if each.was_held), key=lambda each: each.entered.at_ns)
        last: dict[bool, Grant] = {}
        for two in began:
            shared = two.entered.shared
            for one in [each for each in last.values() if not (shared and each.entered.shared)]:
                if two.entered.token <= one.entered.token:
                    self._found("P2", lock, two.entered.at_ns, f"{two} came after {one}")
            if shared not in last or not shared or two.entered.token > last[shared].entered.token:
                last[shared] = two
        # Asked for after the other had returned, be they still held then or not:
        returned = iter(sorted(grants, key=lambda each: each.entered.at_ns))
        following = next(returned, None)
        highest: Grant | None = None
        for grant in sorted(grants, key=lambda each: each.entered.asked_at_ns):
            while following is not None and following.entered.at_ns < grant.entered.asked_at_ns:
                if highest is None or following.entered.token > highest.entered.token:
                    highest = following
                following = next(returned, None)
            if highest is not None and grant.entered.token <= highest.entered.token:
                self._found(
                    "P2", lock, grant.entered.at_ns, f"{grant} was asked for after {highest} was given"
                )

    def judge_register(self, rows: Iterable[Row]) -> list[Problem]:
        """Check the writes that the database has seen: accepted tokens never fall, writers have grants, no rightful
        one was refused."""
        highest: dict[str, Row] = {}
        of_keys = []
        for row in rows:
            if row.lock.startswith(KEY_PREFIX):
                of_keys.append(row)
                continue
            grant = self._grants.get((row.lock, row.token, row.client))
            who = f"{row.client} with token {row.token}"
            if grant is None:
                self._found("P2", row.lock, row.at_ns, f"{who} has written without a grant")
            before = highest.get(row.lock)
            if row.verdict == "accepted":
                if before is not None and row.token < before.token:
                    self._found("P2", row.lock, row.at_ns, f"{who} has written after token {before.token}")
                highest[row.lock] = row
            elif grant is not None and grant.believed.from_ns <= row.at_ns < grant.believed.until_ns:
                self._found("P2", row.lock, row.at_ns, f"{who} was refused while it held the lock")
        self._groups.judge_register(of_keys)
        return list(self._problems)

    def unsettled(self, wanted: dict[str, set[str]], keys: Iterable[str], since_ns: int) -> list[str]:
        """As `GroupChecker.unsettled`."""
        return self._groups.unsettled(wanted, keys, since_ns)

    def losses(self) -> list[Loss]:
        """Every grant that was lost. To be asked at the end, when all faults and stalls are known."""
        found = []
        for key, lost in sorted(self._losses.items(), key=lambda item: item[1].at_ns):
            found.append(self._loss(lost, self._grants.get(key)))
        return found

    def _loss(self, lost: Lost, grant: Grant | None) -> Loss:
        ttl_ns, end_ns = self._ttl_ns, lost.at_ns
        if grant is not None:
            ttl_ns, end_ns = grant.entered.ttl_ns, grant.held_until_ns or lost.at_ns
        lease = Interval(end_ns - ttl_ns, end_ns)
        stopped_ns = sum(lease.common_ns(each) for each in self.own_faults[lost.client])
        if stopped_ns * 2 > ttl_ns:
            text = f"its client was stopped or cut off for {stopped_ns / NS_PER_S:.1f} s of its lease"
            return Loss(lost, text, is_starved=False)
        text = self._starved(lease, lost.client)
        return Loss(lost, text, is_starved=bool(text))

    def _starved(self, lease: Interval, client: str) -> str:
        """Whether the machine kept the client waiting for half of a lease, or any other process longer than a backup
        lease."""
        for stall in self.stalls:
            stalled = Interval(stall.from_ns, stall.until_ns)
            frozen = any(each.common_ns(stalled) for each in self.own_faults[stall.process])
            limit_ns = (lease.until_ns - lease.from_ns) // 2 if stall.process == client else STARVED_NS
            if not frozen and stall.waited_ns > limit_ns and lease.common_ns(stalled):
                return f"{stall.process} got no processor for {stall.waited_ns / NS_PER_S:.1f} s"
        return ""

    def story(self, lock: str, at_ns: int) -> list[str]:
        """Return the events of a lock around a time, oldest first."""
        near = [
            (when_ns, event)
            for event in self._events[lock]
            if abs((when_ns := event.at_ns) - at_ns) <= _STORY_NS  # type: ignore[union-attr]
        ]
        near.sort(key=lambda pair: pair[0])
        cut = next((index for index, pair in enumerate(near) if pair[0] >= at_ns), len(near))
        near = near[max(0, cut - _STORY_LINES_MAX // 2) : cut + _STORY_LINES_MAX // 2]
        return [f"{(when_ns - at_ns) / NS_PER_S:+10.6f} s  {event}" for when_ns, event in near]


def _names_of(event: Owned | Regrouped | Viewed) -> list[str]:
    """Return the subject of a group's event: keys, or the group's lock."""
    match event:
        case Owned():
            return [name_of_key(event.group, event.key)]
        case Regrouped():
            return [name_of_key(event.group, key) for key in (*event.gained, *event.lost)]
        case Viewed():
            return [lock_of_group(event.group)]


STARVED_NS: Final = 2 * NS_PER_S
"""A process that gets no processor for this long has failed as far as the others can tell: the backup lease."""
