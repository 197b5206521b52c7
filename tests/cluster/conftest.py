"""Clusters of real processes for the tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockring.testing import LocalCluster

LONG_LEASE_S = 30.0
"""Longest TTL, where no lease is to end: for a lock that is renewed, and for one that is not."""

CALM = {"stabilization_s": 0.3, "backup_lease_s": 15.0, "member_lease_s": 30.0}
"""With these, a machine that stands still for some seconds moves nothing. They cost time only where a process dies."""


@pytest.fixture(scope="module")
def standing() -> Iterator[LocalCluster]:
    """Two nodes that a whole module shares: for what must not disturb a cluster."""
    with LocalCluster(nodes=2, **CALM) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def steady() -> Iterator[LocalCluster]:
    """Three nodes that all tests share which let every process live and move nothing."""
    with LocalCluster(nodes=3, **CALM) as cluster:
        yield cluster


@pytest.fixture
def quick() -> Iterator[LocalCluster]:
    """Three nodes: for what makes the cluster re-form. With shorter leases a busy machine would go on moving slots."""
    with LocalCluster(
        nodes=3,
        coordinator_lease_s=LONG_LEASE_S,
        stabilization_s=0.3,
    ) as cluster:
        yield cluster


@pytest.fixture
def calm() -> Iterator[LocalCluster]:
    """Three nodes whose leases do not end while a busy machine lets them wait: for what must go without a takeover."""
    with LocalCluster(nodes=3, **CALM) as cluster:
        yield cluster
