"""A query never changes anything: the cores and the ring keep to it, and every way to break it is found."""

from __future__ import annotations

import ast
from typing import Final

import pytest

from tests.unit.house import queries, rules
from tests.unit.house.reading import name_of, tree_of

TREES: Final = {
    name_of(path): tree_of(path)
    for path in sorted(rules.SOURCE.rglob("*.py"))
    if rules.part_of(path) in {"core", "ring"}
}

CACHES: Final = {
    "core/access/policy.py: AccessPolicy.permissions_of": "the rules of the same roles are compiled once",
    "core/coordinator/reconciler.py: _PlanRun._liveness": "each member is judged once in a run",
    "core/route_book.py: RouteBook.whole": "the routes of 4096 slots are made once per state",
    "core/state_history.py: StateHistory.content": "the digest of 4096 slots is computed once, and then follows",
    "core/state_history.py: StateHistory.whole": "a state of 4096 slots is encoded once",
    "core/node/locks.py: SessionTotals.digest": "new acquisitions are mixed in when a keepalive asks, not one by one",
    "core/node/locks.py: Share.digest": "as that of its session's totals",
    "core/node/lock_views.py: LockViews.shown": "the ids of a lock's sessions are hidden once per change",
    "core/node/rights.py: Rights.has_all_copy_leases": "the reigns are looked through once per change of the copies",
    "ring/hash_ring.py: HashRing.successors": "the walk around the circle is long",
}
"""Methods that keep their answer for the next time. No caller can tell, so they stay queries."""


def changing(source: str, *, caches: dict[str, str] | None = None) -> list[str]:
    """Return what is found in a module `m`."""
    return queries.changing_queries({"m": ast.parse(source)}, caches or {})


def test_no_query_changes_anything() -> None:
    assert queries.changing_queries(TREES, CACHES) == []


@pytest.mark.parametrize("name", CACHES)
def test_every_exception_is_still_a_method_that_changes_something(name: str) -> None:
    others = {cache: reason for cache, reason in CACHES.items() if cache != name}
    found = queries.changing_queries(TREES, others)
    assert found, f"{name} needs no exception"


@pytest.mark.parametrize(
    "body",
    [
        "self.count = 1",
        "self.count += 1",
        "self.by_name[name] = 1",
        "del self.by_name[name]",
        "self.lock.count = 1",
        "name.count = 1",
        "self.names.append(name)",
        "self.look()",
        "self.part.look()",
        "for self.count in name: pass",
    ],
)
@pytest.mark.parametrize(
    "head",
    [
        "@property\n    def count(self, name):",
        "def is_held(self, name) -> bool:",
        "def _why_not(self, name) -> str:",
        "def owner_of(self, name) -> str:",
        "def next_deadline_ns(self, name) -> int:",
        'def owner(self, name) -> str:\n        "Return the owner."',
    ],
)
def test_a_query_that_changes_something_is_found(head: str, body: str) -> None:
    source = f"class Part:\n    {head}\n        {body}\n    def look(self):\n        self.looked = True"
    assert len(changing(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def grant(self) -> bool:\n        self.count = 1",
        "class A:\n    def take(self) -> int:\n        'Take the next one, and return it.'\n        self.count = 1",
        "class A:\n    def is_set(self, yes) -> None:\n        self.yes = yes",
        "class A:\n    def is_held(self) -> bool:\n        found = []\n        found.append(self.count)\n        return found[0]",
        "class A:\n    def is_held(self) -> bool:\n        def later() -> None:\n            self.count = 1\n        return later",
        "class A:\n    def is_held(self) -> bool:\n        return self.part.get()\n    def get(self):\n        return self.count",
    ],
)
def test_commands_and_queries_that_change_nothing_are_let_alone(source: str) -> None:
    assert changing(source) == []


def test_a_name_stands_for_a_command_only_if_every_method_of_that_name_is_one() -> None:
    command = "class Part:\n    def look(self):\n        self.looked = True\n"
    other = "class Other:\n    def look(self):\n        return 1\n"
    query = "class Whole:\n    def is_held(self) -> bool:\n        return self.part.look()\n"
    assert changing(command + query) == ["m: Whole.is_held, line 6"]
    assert changing(command + other + query) == []


def test_a_query_may_use_a_cache() -> None:
    source = (
        "class A:\n    def is_held(self) -> bool:\n        return self.table()\n"
        "    def table(self):\n        self.kept = 1\n        return self.kept"
    )
    assert changing(source) == ["m: A.is_held, line 3"]
    assert changing(source, caches={"m: A.table": "it takes long"}) == []
