"""The outcome of a run: a value that goes into a file as JSON, and a table for people."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import zip_longest
from statistics import median

import msgspec

from lockring.units import NS_PER_MS
from tests.chaos.history import Outage


class Done(msgspec.Struct, frozen=True):
    """A fault that was done. Times are those of the history.

    Attributes:
        kind: as in `KINDS`; of two that overlapped, both.
        text: what was done to whom.
        from_ns: before it was done.
        healed_ns: after it was undone.
        stable_ns: when every slot had its two copies again, and nothing moved.
    """

    kind: str
    text: str
    from_ns: int
    healed_ns: int
    stable_ns: int


class Unavailable(msgspec.Struct, frozen=True):
    """For how long a probed lock could not be had, at most, in each fault of a kind: the median of these, and the
    worst."""

    faults: int
    median_ms: float
    max_ms: float


class Report(msgspec.Struct, frozen=True):
    """One run.

    Attributes:
        seed: from which everything was drawn.
        links: "netns" or "proxy".
        store: what the coordinators shared: "etcd" or "postgresql"; "none" for one coordinator.
        durability: what the nodes kept in journals: "none", "process" or "disk".
        minutes: how long faults were done.
        operations: acquires, releases, writes and probes, by name.
        faults: how many of each kind.
        violations: each a sentence; there must be none.
        lost: grants that were lost without an excuse, each a sentence; there must be none.
        excused: grants that were lost as the design has it, each a sentence.
        starved: grants that were lost because the machine was too busy, each a sentence.
        fenced_off: writes that the register refused since their client's lease had ended.
        settled_ms: how long after the last fault all groups were settled.
        unavailable: by kind of fault; "no fault" is the time between faults.
        stalls: how often a process was kept waiting by the machine, and the longest such wait in ms, by process.
        logs: where the processes' logs and histories are; "" if they were removed.
    """

    seed: int
    links: str
    store: str
    durability: str
    minutes: float
    operations: dict[str, int]
    faults: dict[str, int]
    violations: list[str]
    lost: list[str]
    excused: list[str]
    starved: list[str]
    fenced_off: int
    settled_ms: int
    unavailable: dict[str, Unavailable]
    stalls: dict[str, tuple[int, float]]
    logs: str

    @property
    def is_good(self) -> bool:
        """Whether everything held that must."""
        return not self.violations and not self.lost


CALM = "no fault"


def unavailable(done: list[Done], outages: list[Outage], until_ns: int) -> dict[str, Unavailable]:
    """The longest outage of any lock that overlaps each fault's window, by kind of fault.

    A window reaches until the cluster was stable again; what lies between windows counts for `CALM`.
    """
    longest_ns: dict[str, list[int]] = defaultdict(list)
    windows = [(each.kind, each.from_ns, each.stable_ns) for each in done]
    for first, second in zip_longest(done, done[1:]):
        windows.append((CALM, first.stable_ns, until_ns if second is None else second.from_ns))
    for kind, from_ns, to_ns in windows:
        inside = [each for each in outages if each.until_ns > from_ns and each.from_ns < to_ns]
        if kind == CALM:
            inside = [each for each in inside if each.from_ns >= from_ns and each.until_ns <= to_ns]
        longest_ns[kind].append(max((each.until_ns - each.from_ns for each in inside), default=0))
    return {
        kind: Unavailable(len(found), median(found) / NS_PER_MS, max(found) / NS_PER_MS)
        for kind, found in sorted(longest_ns.items())
    }


def table(report: Report) -> str:
    """The report for people."""
    operations = ", ".join(f"{count} {name}" for name, count in sorted(report.operations.items()))
    lines = [
        f"seed {report.seed}, {report.minutes:g} minutes of faults",
        f"links: {report.links}, store: {report.store}, durability: {report.durability}",
        operations,
        f"violations {len(report.violations)}, grants lost {len(report.lost)}, writes fenced off {report.fenced_off}",
        f"lost by clients that were themselves stopped {len(report.excused)}, for want of a processor {len(report.starved)}",
        f"all groups settled {report.settled_ms} ms after the last fault",
        "",
        f"{'KIND OF FAULT':<48}{'FAULTS':>7}{'MEDIAN ms':>11}{'MAX ms':>9}",
    ]
    for kind, found in report.unavailable.items():
        lines.append(f"{kind:<48}{found.faults:>7}{found.median_ms:>11.0f}{found.max_ms:>9.0f}")
    lines.append("the longest time for which a probed lock could not be had, per fault; 0 is below 15 ms")
    if report.stalls:
        waits = ", ".join(
            f"{name} {count} × up to {ms:.0f} ms" for name, (count, ms) in report.stalls.items()
        )
        lines.append(f"kept waiting by the machine: {waits}")
    for title, told in (
        ("VIOLATION", report.violations),
        ("LOST", report.lost),
        ("starved", report.starved),
    ):
        lines += [f"{title}: {each}" for each in told]
    if report.logs:
        lines.append(f"logs and histories: {report.logs}")
    return "\n".join(lines)


def count_faults(done: list[Done]) -> dict[str, int]:
    """How many of each kind."""
    return dict(sorted(Counter(each.kind for each in done).items()))
