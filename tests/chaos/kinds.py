"""Every kind of fault, by the name that a report has for it, and which of them a run can do.

The kinds come in rounds: each round has all of them once, in an order of its own, so that a long run has had each
about as often.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from tests.chaos import coordinator_faults, journal_faults
from tests.chaos.faults import Fault, Faults

Draw = Callable[[Faults, str, frozenset[str]], Fault | None]
"""Draws a fault of a kind that leaves some nodes alone; None if the cluster has no place for it now."""

ALWAYS: Final[dict[str, Draw]] = {
    "kill a node": Faults.kill_node,
    "kill the coordinator": coordinator_faults.kill_coordinator,
    "terminate the coordinator": coordinator_faults.stop_coordinator,
    "freeze a node shortly": Faults.freeze_node_shortly,
    "freeze a node": Faults.freeze_node_long,
    "freeze the coordinator": coordinator_faults.freeze_coordinator,
    "freeze a client shortly": Faults.freeze_client_shortly,
    "freeze a client": Faults.freeze_client_long,
    "cut node - node": Faults.cut_nodes,
    "cut node -> node": Faults.cut_nodes_one_way,
    "cut node - coordinator": Faults.cut_coordinator,
    "cut node -> coordinator": Faults.cut_coordinator_one_way,
    "cut client - node": Faults.cut_client,
    "cut client -> node": Faults.cut_client_one_way,
    "forget client - node": Faults.forget_client,
    "isolate a node": Faults.isolate_node,
    "join": Faults.join,
    "leave": Faults.leave,
    "terminate and restart": Faults.restart_gently,
    "another weight": Faults.reweigh,
    "drain and restart": Faults.drain,
}

WITH_STORE: Final[dict[str, Draw]] = {
    "kill a standby": coordinator_faults.kill_standby,
    "kill all coordinators": coordinator_faults.kill_coordinators,
    "freeze a standby": coordinator_faults.freeze_standby,
    "cut coordinator - store": coordinator_faults.cut_coordinators,
    "kill a member of the store": coordinator_faults.kill_store_member,
    "freeze a member of the store": coordinator_faults.freeze_store_member,
    "kill the store": coordinator_faults.kill_store,
    "freeze the store": coordinator_faults.freeze_store,
}
"""Kinds that need several coordinators on one store."""

WITH_JOURNALS: Final[dict[str, Draw]] = {
    "kill two nodes": journal_faults.kill_two_nodes,
    "kill all nodes": journal_faults.kill_all_nodes,
    "kill all nodes for long": journal_faults.kill_all_nodes_for_long,
    "kill everything": journal_faults.kill_everything,
    "kill a node twice": journal_faults.kill_node_twice,
    "lose a directory": journal_faults.lose_directory,
    "damage a journal": journal_faults.damage_journal,
    "put back an older directory": journal_faults.put_back_older_directory,
    "fill a disk": journal_faults.fill_disk,
}
"""Kinds that need nodes with journals."""

KINDS: Final = ALWAYS | WITH_STORE | WITH_JOURNALS

SECOND: Final = (
    "join",
    "terminate and restart",
    "freeze a client shortly",
    "cut client -> node",
    "cut node -> node",
)
"""Faults that may come on top of another one: nothing of it ends or silences a second holder of the same data."""


def possible(kinds: tuple[str, ...], *, has_store: bool, has_journals: bool) -> list[str]:
    """Return those of some kinds that a run can do.

    Args:
        kinds: of `KINDS`.
        has_store: whether several coordinators share a store.
        has_journals: whether the nodes have journals.
    """
    return [
        kind
        for kind in kinds
        if (has_store or kind not in WITH_STORE) and (has_journals or kind not in WITH_JOURNALS)
    ]


def rounds(kinds: Sequence[str], seed: int) -> Iterator[str]:
    """Yield kinds without end, in rounds: each has all of them once, in an order that follows from the seed."""
    rng = random.Random(f"chaos/{seed}/kinds")
    while True:
        yield from rng.sample(kinds, len(kinds))


def draw(faults: Faults, kind: str, *, spared: frozenset[str] = frozenset()) -> Fault | None:
    """Draw a fault of a kind; None if the cluster has no place for it now.

    Args:
        faults: of the run.
        kind: of `KINDS`.
        spared: nodes that it must leave alone.
    """
    return KINDS[kind](faults, kind, spared)
