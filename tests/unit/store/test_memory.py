"""The store that ends with the process."""

from __future__ import annotations

import pytest

from lockring.cluster_state import ClusterState
from lockring.errors import StoreError
from lockring.store.base import Store
from lockring.store.memory import MemoryStore


def test_a_new_store_is_empty_and_says_that_it_is_new() -> None:
    store: Store = MemoryStore()
    assert store.created
    assert store.read() is None
    assert not MemoryStore(ClusterState(version=3)).created


def test_a_write_needs_the_version_that_is_stored() -> None:
    store = MemoryStore()
    assert not store.write(7, ClusterState(version=8))
    assert store.write(0, ClusterState(version=5))
    assert not store.write(0, ClusterState(version=6))
    assert store.write(5, ClusterState(version=6, term="t"))
    assert store.read() == ClusterState(version=6, term="t")


def test_a_closed_store_refuses() -> None:
    store = MemoryStore()
    store.close()
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.read()
    with pytest.raises(StoreError, match="closed"):
        store.write(0, ClusterState(version=1))
