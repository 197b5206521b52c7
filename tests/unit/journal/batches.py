"""Batches for a journal, each with one mutation, whose generation names it."""

from __future__ import annotations

from lockring.core.journal import ClusterSeen, JournalBatch, JournalEntry, LifeBegan
from lockring.protocol.replication import Put, Tail

NODE = "n1"
LIFE = LifeBegan(NODE, 7)
CLUSTER = ClusterSeen("c", 12, 2_000)


def entry(name: int) -> Tail:
    """Return an entry with a mutation of this name."""
    put = Put(f"lock-{name}", 0, 1, "session", name, owner="host:1", ttl_ms=10_000, generation=name, seq=name)
    return Tail(name % 4096, 5, 0, name - 1, name, [put])


def batch(number: int, *names: int, ends_rewrite: bool = False) -> JournalBatch:
    """Return a batch with mutations of these names; with one of its own number if none is given."""
    return JournalBatch(number, [entry(name) for name in names or (number,)], True, ends_rewrite)


def names_in(entries: list[JournalEntry]) -> list[int]:
    """Return the names of the mutations in a list of entries."""
    return [entry.mutations[0].generation for entry in entries if isinstance(entry, Tail)]
