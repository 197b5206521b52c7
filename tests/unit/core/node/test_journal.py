"""A node's journal: nothing is answered before it is in there, and a new life goes on from it."""

from __future__ import annotations

from typing import TypeVar

from lockring.core.journal import LifeBegan
from lockring.protocol import GrantReply, Tail
from tests.unit.core.node.world import MS, Nodes, of

E = TypeVar("E")


def alone(*, at_once: bool = True) -> Nodes:
    nodes = Nodes("A", journals=True)
    nodes.assign("A")
    nodes.advance(200 * MS)
    nodes.disks["A"].at_once = at_once
    return nodes


def restart(nodes: Nodes, name: str = "A") -> None:
    """Kill a node and start it again: it learns the state that names its former life, and then its own."""
    nodes.crash(name)
    nodes.restart(name)
    nodes.tell()
    nodes.inherit(name)
    nodes.advance(100 * MS)


# ---------------------------------------------------------------------- writing


def test_the_first_batch_of_a_life_says_that_it_has_begun() -> None:
    nodes = Nodes("A", journals=True)
    first = nodes.disks["A"].batches[0]
    assert first.entries == [LifeBegan("A", 1)]
    assert first.is_urgent
    assert first.ends_rewrite


def test_a_grant_is_answered_once_the_journal_has_it() -> None:
    nodes = alone(at_once=False)
    client = nodes.client("A", "s")
    assert client.acquire("x", 1) == []
    nodes.disks["A"].sync(nodes.cores["A"], nodes.now)
    nodes.settle()
    (grant,) = of(GrantReply, client.inbox)
    (tail,) = of_entries(nodes, Tail)
    assert tail.mutations[0].generation == grant.generation


def of_entries(nodes: Nodes, kind: type[E], name: str = "A") -> list[E]:
    return [entry for each in nodes.disks[name].batches for entry in each.entries if isinstance(entry, kind)]


def test_a_release_waits_for_more_to_write_but_not_for_long() -> None:
    nodes = alone()
    client = nodes.client("A", "s")
    client.acquire("x", 1)
    before = len(nodes.disks["A"].batches)
    client.release("x", 1)
    assert len(nodes.disks["A"].batches) == before
    nodes.advance(20 * MS, step_ns=5 * MS)
    assert len(nodes.disks["A"].batches) == before + 1
    assert not nodes.disks["A"].batches[-1].is_urgent


def test_a_restarted_node_goes_on_with_its_locks_at_once_and_under_the_same_tokens() -> None:
    nodes = alone()
    client = nodes.client("A", "s")
    (grant,) = of(GrantReply, client.acquire("x", 1))
    restart(nodes)
    again = nodes.client("A", "s")
    (same,) = of(GrantReply, again.acquire("x", 1))
    assert same.generation == grant.generation
    assert of(GrantReply, again.acquire("y", 2))
    assert nodes.client("A", "t").acquire("x", 1) == []
    nodes.cores["A"].check_invariants()


def test_a_life_vouches_for_all_lives_before_it_as_long_as_the_state_names_them() -> None:
    nodes = alone()
    nodes.crash("A")
    core = nodes.restart("A")
    facts = core.join_facts()
    assert (facts.cluster, facts.former) == ("c", (1,))
    assert facts.version == nodes.state.version
    nodes.crash("A")
    assert nodes.restart("A").join_facts().former == (1, 2)
    nodes.tell()
    assert nodes.cores["A"].join_facts().former == (1,)
    nodes.inherit("A")
    assert nodes.cores["A"].join_facts().former == ()
