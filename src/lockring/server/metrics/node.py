"""The figures of a node."""

from __future__ import annotations

from lockring.core.node import (
    ENDINGS,
    EXPIRED,
    MODES,
    OUTCOMES,
    RELEASED,
    TENTHS,
    LockCounters,
    NodeCore,
    NodeCounters,
    NodeHoldings,
    NodeStatus,
)
from lockring.protocol import Mode
from lockring.server.metrics.exemplars import WaitExemplars
from lockring.server.metrics.figures import Figures
from lockring.units import NS_PER_S

_MODES = tuple(Mode(number).name.lower() for number in range(MODES))
_REASONS = ("release", "expired", "broken")
_VERDICTS = ("agreed", "compared", "listed", "refused")


def add_node(figures: Figures, core: NodeCore, *, exemplars: WaitExemplars | None, now_ns: int) -> None:
    """Add the figures of a node. Takes a few milliseconds, however many locks are held.

    Args:
        figures: the values so far.
        core: of the node's present life.
        exemplars: traces of waits, None where there are none.
        now_ns: the monotonic clock.
    """
    status = core.status(now_ns=now_ns)
    figures.add("lockring_node_info", 1, node=core.replica.node, cluster=core.state.cluster)
    _add_status(figures, status, core.service.reports.holdings(now_ns))
    figures.add(
        "lockring_coordinator_lease_remaining_seconds",
        max(0, core.coordinator_lease_left_ns(now_ns)) / NS_PER_S,
    )
    counters = core.counters
    groups = {"": counters.all, **(counters.by_prefix or {})}
    for prefix, locks in groups.items():
        label = None if counters.by_prefix is None else prefix
        _add_locks(figures, locks, label, None if prefix else exemplars)
    _add_losses(figures, [*groups.values()])
    _add_requests(figures, counters, [*groups.values()])


def _add_status(figures: Figures, status: NodeStatus, holdings: NodeHoldings) -> None:
    for mode, held in zip(_MODES, holdings.locks, strict=True):
        figures.add("lockring_locks", held, mode=mode)
    figures.add("lockring_lock_holders", sum(holdings.holders))
    figures.add("lockring_sessions", status.sessions)
    for role, count in (
        ("primary", status.primary_slots),
        ("serving", status.serving_slots),
        ("backup", holdings.backup_slots),
        ("learner", holdings.learner_slots),
    ):
        figures.add("lockring_slots", count, role=role)
    if holdings.backup_lease_left_ns is not None:
        figures.add("lockring_backup_lease_remaining_seconds", holdings.backup_lease_left_ns / NS_PER_S)
    figures.add("lockring_journal_failing", float(bool(status.journal_trouble)))


def _add_locks(
    figures: Figures, locks: LockCounters, prefix: str | None, exemplars: WaitExemplars | None
) -> None:
    for number, mode in enumerate(_MODES):
        answers, waits = locks.answers[number], locks.waits[number]
        grants = answers.count
        figures.add("lockring_grants_total", grants, mode=mode, prefix=prefix)
        figures.add_histogram(
            "lockring_acquire_wait_seconds",
            [waits],
            instantly=grants - waits.count,
            exemplars=None if exemplars is None else exemplars.of(mode),
            mode=mode,
            outcome="granted",
            prefix=prefix,
        )
        for place, outcome in enumerate(OUTCOMES):
            failed = locks.failed_waits[number * len(OUTCOMES) + place]
            figures.add_histogram(
                "lockring_acquire_wait_seconds", [failed], mode=mode, outcome=outcome, prefix=prefix
            )
        figures.add("lockring_lock_waiters", locks.waiting[number], mode=mode, prefix=prefix)
        holds = locks.holds[number * ENDINGS : (number + 1) * ENDINGS]
        figures.add_histogram("lockring_hold_seconds", holds, mode=mode, prefix=prefix)
        figures.add("lockring_releases_total", holds[RELEASED].count, mode=mode, prefix=prefix)


def _add_losses(figures: Figures, groups: list[LockCounters]) -> None:
    for ending in range(EXPIRED, ENDINGS):
        lost = sum(each.holds[mode * ENDINGS + ending].count for each in groups for mode in range(MODES))
        figures.add("lockring_losses_total", lost, reason=_REASONS[ending])


def _add_requests(figures: Figures, counters: NodeCounters, groups: list[LockCounters]) -> None:
    answers = [each for locks in groups for each in locks.answers]
    for handled in counters.handled:
        kind = handled.kind
        ok = handled.count - counters.refused_inside.get(kind, 0)
        if kind == "Acquire":  # it is answered later than it is handled
            ok = sum(each.count for each in answers)
        figures.add("lockring_requests_total", ok, kind=_word(kind), code="ok")
    for (kind, code), count in counters.refused.items():
        figures.add("lockring_requests_total", count, kind=_word(kind), code=code)
    figures.add_histogram("lockring_request_duration_seconds", answers, kind="acquire")
    for verdict, count in zip(_VERDICTS, counters.renewals, strict=True):
        figures.add("lockring_renewals_total", count, verdict=verdict)
    figures.add_histogram("lockring_lease_remaining_ratio", [counters.lease_left], unit=TENTHS)
    for force, count in zip(("no", "yes"), counters.breaks, strict=True):
        figures.add("lockring_breaks_total", count, force=force)
    figures.add_histogram("lockring_replication_lag_seconds", [counters.replication])
    for limit, count in counters.throttled.items():
        figures.add("lockring_throttled_total", count, limit=limit)


def _word(kind: str) -> str:
    """Return the name of a message as a label: "close_session" for CloseSession."""
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in kind).removeprefix("_")
