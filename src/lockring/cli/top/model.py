"""The values that `lockring top` shows, and how a new look at the cluster takes the place of the one before. No I/O.

A part that no server answers for keeps its last value, so that an outage does not empty the screen. A part that the
viewer may not see is left out at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import msgspec

from lockring.errors import Denied, LockringError
from lockring.views.cluster import ClusterView
from lockring.views.events import EventView
from lockring.views.locks import LockRow, LockView

Sort = Literal["waiters", "age", "name"]
SORTS: Final[tuple[Sort, ...]] = ("waiters", "age", "name")

CLUSTER: Final = "the cluster"
LOCKS: Final = "the locks"
EVENTS: Final = "the events"
LOCK: Final = "the lock"
"""The parts of a look, as sentences name them."""

_ANSWERED_BY_NODES: Final = (CLUSTER, LOCKS, EVENTS)


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """The coordinators, by the words of the one that leads.

    Attributes:
        address: HOST:PORT of the one that leads, as the cluster state names it; "" if it names none.
        answers: whether it answers. If not, the rest is unknown.
        problem: why it does not answer, as a sentence; "" if it does.
        standbys: HOST:PORT of the others.
        store: the engine and the place of their store.
        store_problem: why the store does not work, "" if it does.
    """

    address: str
    answers: bool
    problem: str = ""
    standbys: tuple[str, ...] = ()
    store: str = ""
    store_problem: str = ""


@dataclass(frozen=True, slots=True)
class LocksSlice:
    """The first locks by name: those with waiters, and then any.

    Attributes:
        rows: the locks, each once.
        matched: how many there are with or without waiters; None where that is not counted.
        has_more: whether there are others behind the last one.
        unserved_slots: slots that no node could search; locks in them are missing.
    """

    rows: tuple[LockRow, ...] = ()
    matched: int | None = None
    has_more: bool = False
    unserved_slots: int = 0


@dataclass(frozen=True, slots=True)
class TopView:
    """The read model: a cluster as one look has found it.

    Attributes:
        cluster: its members and slots; None if they are unknown, or if the viewer may not see them. So for the others.
        coordinator: see `CoordinatorView`.
        locks: see `LocksSlice`.
        events: the newest ones, newest first.
        lock: the one lock whose queue is looked at, None if none is.
    """

    cluster: ClusterView | None = None
    coordinator: CoordinatorView | None = None
    locks: LocksSlice | None = None
    events: tuple[EventView, ...] | None = None
    lock: LockView | None = None


@dataclass(frozen=True, slots=True)
class LiveLook:
    """The outcome of one look.

    Attributes:
        view: the parts that were answered.
        errors: why the others were not, by the name of the part.
    """

    view: TopView = TopView()
    errors: Mapping[str, LockringError] = field(default_factory=dict)

    @property
    def no_answer(self) -> LockringError | None:
        """Return the error of a look that no node has answered in any part, None if there is an answer.

        A refusal is an answer.
        """
        found = [self.errors.get(part) for part in _ANSWERED_BY_NODES]
        if any(each is None or isinstance(each, Denied) for each in found):
            return None
        return found[0]

    @property
    def denied(self) -> Denied | None:
        """Return the refusal of a look that found nothing, None if it found something or failed in another way."""
        found = [self.errors.get(part) for part in _ANSWERED_BY_NODES]
        refusals = [each for each in found if isinstance(each, Denied)]
        return refusals[0] if len(refusals) == len(found) else None


def merged(before: TopView, look: LiveLook) -> TopView:
    """Return the view after a look: its answers, and older ones where a part had none."""

    def kept(part: str, old: Any, new: Any) -> Any:
        error = look.errors.get(part)
        return old if error is not None and not isinstance(error, Denied) else new

    return TopView(
        cluster=kept(CLUSTER, before.cluster, look.view.cluster),
        coordinator=kept(CLUSTER, before.coordinator, look.view.coordinator),
        locks=kept(LOCKS, before.locks, look.view.locks),
        events=kept(EVENTS, before.events, look.view.events),
        lock=kept(LOCK, before.lock, look.view.lock),
    )


@dataclass(frozen=True, slots=True)
class Away:
    """A server that does not answer.

    Attributes:
        server: its name, as the start of a sentence.
        since_s: since when, by the monotonic clock, in seconds.
        reason: why, as far as that is known.
    """

    server: str
    since_s: float
    reason: str


class Absences:
    """Since when servers have not answered. Not safe for use by several threads."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def note(self, silent: Mapping[str, str], *, now_s: float) -> list[Away]:
        """Take in which servers are silent now, and return them, the longest silent one first.

        Args:
            silent: the reason of each.
            now_s: the time, by the monotonic clock.
        """
        self._since_s = {server: self._since_s.get(server, now_s) for server in silent}
        found = [Away(server, self._since_s[server], reason) for server, reason in silent.items()]
        return sorted(found, key=lambda each: (each.since_s, each.server))


def silent_servers(look: LiveLook) -> dict[str, str]:
    """Return the servers that did not answer a look, with the reasons."""
    silent: dict[str, str] = {}
    coordinator = look.view.coordinator
    if coordinator is not None and not coordinator.answers:
        where = f" {coordinator.address}" if coordinator.address else ""
        silent[f"coordinator{where}"] = coordinator.problem
    if look.view.cluster is not None:
        for member in look.view.cluster.members:
            if member.answered_s is None:
                silent[f"node {member.node}"] = member.problem
    return silent


def ordered(rows: Sequence[LockRow], sort: Sort) -> list[LockRow]:
    """Return locks in the order in which they are shown.

    Args:
        rows: the locks.
        sort: "waiters" for the longest queues first, then the longest waits; "age" for the oldest holders first; or
            "name".
    """
    if sort == "waiters":
        return sorted(rows, key=lambda each: (-each.waiters, -(each.longest_wait_s or 0.0), each.name))
    if sort == "age":
        return sorted(rows, key=lambda each: (-each.holder.held_s if each.holder else 0.0, each.name))
    return sorted(rows, key=lambda each: each.name)


def as_builtins(look: LiveLook, sort: Sort) -> dict[str, Any]:
    """Return a look as a JSON object: the read model, and why parts of it are missing.

    `version` is text, as in `lockring status`.
    """
    view = look.view
    if view.locks is not None:
        view = replace(view, locks=replace(view.locks, rows=tuple(ordered(view.locks.rows, sort))))
    found: dict[str, Any] = msgspec.to_builtins(view)
    if found["cluster"] is not None:
        found["cluster"]["version"] = str(found["cluster"]["version"])
    found["missing"] = [
        {
            "part": part,
            "error": error.code,
            "message": str(error),
            "right": getattr(error, "right", "") or None,
        }
        for part, error in look.errors.items()
    ]
    return found
