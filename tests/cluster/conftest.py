"""Clusters of real processes for the tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lockring.testing import LocalCluster


@pytest.fixture(scope="module")
def standing() -> Iterator[LocalCluster]:
    """Two nodes that a whole module shares: for what must not disturb a cluster."""
    with LocalCluster(nodes=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def steady() -> Iterator[LocalCluster]:
    """Three nodes that all tests share which let every process live and move nothing."""
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster:
        yield cluster


@pytest.fixture
def quick() -> Iterator[LocalCluster]:
    """Three nodes with short leases: for what makes the cluster re-form."""
    with LocalCluster(
        nodes=3, backup_lease_s=0.6, coordinator_lease_s=5.0, stabilization_s=0.3, member_lease_s=1.5
    ) as cluster:
        yield cluster


@pytest.fixture
def calm() -> Iterator[LocalCluster]:
    """Three nodes whose leases do not end while a busy machine lets them wait: for what must go without a takeover."""
    with LocalCluster(nodes=3, stabilization_s=0.3) as cluster:
        yield cluster
