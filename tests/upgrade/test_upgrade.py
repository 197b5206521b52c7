"""A rolling restart from the previous version to this one, under the load of clients of both, loses nothing.

`make upgrade` runs all of it; `make test` the first story, which has the most changes in the least time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lockring.testing.local_cluster import COORDINATOR
from tests.upgrade import previous
from tests.upgrade.mixed import Clients, MixedCluster


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return previous.unpack_previous(tmp_path_factory.mktemp("previous"))


@pytest.fixture
def cluster(sources: Path) -> Iterator[MixedCluster]:
    with MixedCluster(sources, nodes=3) as cluster:
        yield cluster


@pytest.fixture
def clients(cluster: MixedCluster, sources: Path) -> Iterator[Clients]:
    with Clients(cluster, sources) as clients:
        yield clients


def demand_nothing_lost(clients: Clients, sources: Path) -> None:
    """Fail unless both versions did work, kept what they held, and never were at one lock at once."""
    reports = clients.finish()
    assert reports["previous"]["imported"].startswith(str(sources))
    assert reports["present"]["imported"].startswith(str(previous.ROOT / "src"))
    assert {name: report["problems"] for name, report in reports.items()} == {"previous": [], "present": []}
    assert clients.overlaps() == []


@pytest.mark.timeout(600)
def test_a_rolling_restart_to_this_version_loses_nothing(
    cluster: MixedCluster, clients: Clients, sources: Path
) -> None:
    for name in (COORDINATOR, *cluster.nodes):
        cluster.exchange(name)
        clients.work()
    demand_nothing_lost(clients, sources)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_node_may_go_back_for_a_while_and_finds_an_old_journal_afterwards(
    cluster: MixedCluster, clients: Clients, sources: Path
) -> None:
    for name in (COORDINATOR, *cluster.nodes):
        cluster.exchange(name)
    cluster.exchange("N1", for_previous=True)
    clients.work()
    cluster.exchange("N2", kill=True)  # so that the locks that it had are at nodes of both versions
    clients.work()
    cluster.exchange("N1")
    clients.work()
    demand_nothing_lost(clients, sources)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_may_be_exchanged_before_the_coordinator_and_all_of_it_taken_back(
    cluster: MixedCluster, clients: Clients, sources: Path
) -> None:
    for name in (*cluster.nodes, COORDINATOR):
        cluster.exchange(name)
        clients.work()
    for name in (COORDINATOR, *cluster.nodes):
        cluster.exchange(name, for_previous=True)
        clients.work()
    demand_nothing_lost(clients, sources)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_processes_that_are_killed_instead_of_stopped_lose_nothing_either(
    cluster: MixedCluster, clients: Clients, sources: Path
) -> None:
    for name in ("N1", COORDINATOR, "N2", "N3"):
        cluster.exchange(name, kill=True)
        clients.work()
    demand_nothing_lost(clients, sources)


def test_a_clone_without_the_previous_version_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previous, "ROOT", tmp_path)
    with pytest.raises(previous.PreviousMissing, match="git fetch --unshallow"):
        previous.unpack_previous(tmp_path)
