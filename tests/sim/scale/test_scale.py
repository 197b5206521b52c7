"""A cluster of some dozens of nodes sends and writes little. Counts alone: time is measured by `make scale`."""

from __future__ import annotations

import pytest

from tests.sim.scale.cluster import ScaleCluster, shared_memory
from tests.sim.scale.measures import Figures, measured

NODES, CLIENTS = 60, 1_000


@pytest.fixture(scope="module")
def figures() -> Figures:
    """The measures of one cluster, made once."""
    with shared_memory():
        return measured(NODES, CLIENTS, spread_s=2)


def test_nodes_form_a_cluster_by_differences_in_few_writes(figures: Figures) -> None:
    # Whole states would be 800 MB, in 110 writes.
    assert figures.forming.sent < 15_000_000
    assert figures.forming.writes <= 40


def test_a_cluster_at_rest_decides_nothing(figures: Figures) -> None:
    assert figures.resting.writes == 0
    assert figures.resting.decided == 0


def test_one_more_node_costs_every_other_one_some_differences(figures: Figures) -> None:
    # It gets the whole state itself, of up to 320 KiB; a state for each other one would be 20 MB for each write.
    assert figures.joining.decided < 400_000 + NODES * 10_000
    assert figures.joining.writes <= 8


def test_a_change_of_routes_costs_each_client_a_difference(figures: Figures) -> None:
    # All routes are 10 kB, at each of several writes.
    assert 0 < figures.clients.sent < CLIENTS * 4_000


def test_members_that_know_whole_states_alone_get_these() -> None:
    with shared_memory():
        cluster = ScaleCluster()
        for number in range(3):
            cluster.add_node(f"node-{number}", takes_differences=number > 0)
        cluster.run_until(cluster.is_settled, 60_000_000_000)
    states = [node.core.state for node in cluster.nodes.values()]
    assert all(state == cluster.core.state for state in states)
    assert cluster.messages_sent["State"] > cluster.writes - 2
    assert cluster.messages_sent["StateDifference"] > 0
